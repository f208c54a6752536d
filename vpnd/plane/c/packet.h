/* Inner packets and frames: pure functions on bytes and their length.
 *
 * Owns what can be read from IP and Ethernet headers, and the lengths of padding. Knows no
 * peer, no buffer pool and no system call. Every function accepts any bytes of the length it
 * is told; those that need more say so.
 */
#ifndef VPND_PACKET_H
#define VPND_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire.h"

enum packet_kind { PACKET_BAD = 0, PACKET_IPV4 = 4, PACKET_IPV6 = 6 };

/* The first nibble's verdict, if the whole header (with IPv4 options) lies within `size` and the
 * packet's own length does too. The bit for a partial checksum must have been cleared. */
enum packet_kind packet_kind_of(const uint8_t *packet, size_t size);

/* Bytes of the IP packet by its own header, at most `size`; what lies beyond is padding.
 * 0: no IP packet (packet_kind_of says PACKET_BAD). */
size_t packet_ip_length(const uint8_t *packet, size_t size);

/* The addresses of a packet whose packet_ip_length was not 0; *family becomes 4 or 6 and the
 * result points at 4 or 16 bytes within the packet. */
const uint8_t *packet_source(const uint8_t *packet, uint8_t *family);
const uint8_t *packet_destination(const uint8_t *packet, uint8_t *family);

/* Where TCP or UDP begins and where its checksum stands in it, as virtio_net_hdr counts:
 * *start from the packet's first byte, *offset from *start (16 or 6). True only for TCP or UDP
 * directly after an IPv4 header or the 40 bytes of IPv6, unfragmented, with the transport
 * header's fixed part inside the packet. Then `*start + *offset + 2 <= packet_ip_length`. */
bool packet_checksum_place(const uint8_t *packet, size_t size, uint16_t *start, uint16_t *offset);

/* Is it UDP, whole or its first fragment, directly after an IPv4 header or the 40 bytes of IPv6,
 * and does its payload begin with `first`, little-endian? Then *hops is how far it may still go. */
bool packet_is_udp_with(const uint8_t *packet, size_t size, uint32_t first, uint8_t *hops);

/* Turns a partial checksum (the pseudo-header's sum stands in the field) into the real one:
 * sums from `start` to the packet's end `size` and stores at start + offset. False and nothing
 * done if the field does not lie within. A UDP sum of 0 is stored as 0xffff when `offset` is 6. */
bool packet_complete_checksum(uint8_t *packet, size_t size, size_t start, size_t offset);

/* The ones' complement sum of RFC 1071 over `size` bytes, folded to 16 bits, added to `sum`;
 * not complemented. */
uint16_t checksum_add(uint16_t sum, const uint8_t *bytes, size_t size);

/* Carries the change of one 16-bit word into a checksum field that covers it, RFC 1624: a wrong
 * sum stays wrong. */
void checksum_replace(uint8_t *field, uint16_t old, uint16_t new);

/* Bytes the plaintext shall have after padding. Never below `plaintext`; a plaintext of 0 (a
 * keepalive) or one above `mtu` stays as it is; the others never grow beyond `mtu`. */
size_t padded_length(size_t plaintext, enum padding_mode mode, size_t mtu);

#define FRAME_HEADER_SIZE 14u
#define ETHER_TYPE_VLAN   0x8100u

/* Addresses of a frame of at least FRAME_HEADER_SIZE bytes; 6 bytes each. */
const uint8_t *frame_destination(const uint8_t *frame);
const uint8_t *frame_source(const uint8_t *frame);

/* The VLAN number of the outer 802.1Q or 802.1ad tag; 0: untagged, priority-tagged or shorter than
 * a tag. */
uint16_t frame_vlan(const uint8_t *frame, size_t size);

/* Is it a multicast or the broadcast address? */
bool frame_is_group(const uint8_t mac[6]);

/* Where the frame's payload begins, behind at most two tags, and its EtherType; 0 if the frame is
 * too short for what it claims. */
size_t frame_payload(const uint8_t *frame, size_t size, uint16_t *ether_type);

/* Where the IP packet begins in the frame, as its EtherType has it; `size` if there is none. */
size_t frame_network(const uint8_t *frame, size_t size);

#endif
