/* What a sender on this machine's side is told about a packet that cannot go.
 *
 * Owns the building of ICMP messages (RFC 792, RFC 1122 section 3.2.2, RFC 1191, RFC 4443) and
 * the rule which packets are never answered. Pure functions on bytes; how often an answer may be
 * given is the caller's.
 */
#ifndef VPND_ICMP_H
#define VPND_ICMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ICMP_ANSWER_MAX 1280u /* bytes: no link of IPv6 carries less */

/* Writes "host unreachable" (IPv6: "address unreachable") for an IP packet of `size` bytes, whose
 * packet_ip_length is `size` too; gives the answer's length, or 0 where none may be given: to
 * errors, groups, later fragments, senders that are nobody, and IPv6 packets with other extension
 * headers than that of a fragment. The answer comes from the address that the packet was for: one
 * of this machine's own would be taken for forged, and only that one is sure to be routed into the
 * link. */
size_t icmp_unreachable(const uint8_t *packet, size_t size, uint8_t out[ICMP_ANSWER_MAX]);

/* Writes "fragmentation needed" (IPv6: "packet too big") that names `mtu`, for an IP packet that
 * is larger and may not be sent in pieces by others than its sender. Length, rules and sender of
 * the answer as above. IPv6 is told 1280 at least, and nothing about packets up to that, since no
 * sender goes below (RFC 8200 section 5). 0: let the packet go as it is. */
size_t icmp_too_big(const uint8_t *packet, size_t size, uint32_t mtu, uint8_t out[ICMP_ANSWER_MAX]);

/* Room for an answer in a frame: Ethernet header and two tags. */
#define ICMP_FRAME_MAX (ICMP_ANSWER_MAX + 22u)

/* The same for the IP packet in an Ethernet frame: the answer comes in a frame with the addresses
 * exchanged and the tags kept. The kernel's own tunnels under a bridge do so too. */
size_t icmp_frame_too_big(const uint8_t *frame, size_t size, uint32_t mtu,
                          uint8_t out[ICMP_FRAME_MAX]);

#endif
