/* DSCP and ECN of inner and outer headers.
 *
 * Owns what RFC 2983 and RFC 6040 say about them: the inner header is copied outside (section 4.1,
 * normal mode), and inside only ECN may change on the way out of the tunnel (section 4.2; for DSCP
 * the pipe model of RFC 2983).
 */
#ifndef VPND_MARKING_H
#define VPND_MARKING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ECN_MASK    3u
#define ECN_NOT_ECT 0u
#define ECN_ECT_1   1u
#define ECN_ECT_0   2u
#define ECN_CE      3u

/* The byte with DSCP and ECN of an IPv4 or IPv6 packet; 0 for anything else. */
uint8_t marking_of(const uint8_t *packet, size_t size);

/* Carries the ECN of the outer header into the packet. False: a router marked it instead of
 * dropping it, and the packet's sender would never learn of that, so it must be dropped. */
bool marking_arrive(uint8_t *packet, size_t size, uint8_t outer);

#endif
