/* What a TCP connection is told at its beginning about the way its segments go.
 *
 * Owns the MSS option of SYN packets (RFC 9293 section 3.7.1). A pure function on bytes; which MTU
 * counts is the caller's to know.
 */
#ifndef VPND_MSS_H
#define VPND_MSS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Lowers the MSS that a TCP SYN announces to what fits IP packets of `mtu` bytes; true if it did.
 * Takes any bytes: a packet that is no SYN, is a fragment, has no MSS option, or has extension
 * headers of IPv6 stays as it is. The checksum follows, unless it is partial: the sum of the
 * pseudo-header does not cover options. */
bool mss_clamp(uint8_t *packet, size_t size, size_t mtu, bool is_partial);

#endif
