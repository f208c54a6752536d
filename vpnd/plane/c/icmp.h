/* What a sender on this machine's side is told about a packet that has nowhere to go.
 *
 * Owns the building of ICMP messages (RFC 792, RFC 1122 section 3.2.2, RFC 4443 section 2.4) and
 * the rule which packets are never answered. Pure functions on bytes; how often an answer may be
 * given is the caller's.
 */
#ifndef VPND_ICMP_H
#define VPND_ICMP_H

#include <stddef.h>
#include <stdint.h>

#define ICMP_ANSWER_MAX 1280u /* bytes: no link of IPv6 carries less */

/* Writes "host unreachable" (IPv6: "address unreachable") for an IP packet of `size` bytes, whose
 * packet_ip_length is `size` too; gives the answer's length, or 0 where none may be given: to
 * errors, groups, later fragments, senders that are nobody, and IPv6 packets with extension
 * headers. The answer comes from the address that the packet was for: one of this machine's own
 * would be taken for forged, and only that one is sure to be routed into the link. */
size_t icmp_unreachable(const uint8_t *packet, size_t size, uint8_t out[ICMP_ANSWER_MAX]);

#endif
