/* TCP and UDP inside an IP packet: where they are, and their checksums.
 *
 * Owns what cutting and joining of packets have in common. Pure functions on bytes and their
 * length, as packet.h has them.
 */
#ifndef VPND_TRANSPORT_H
#define VPND_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRANSPORT_TCP 6u
#define TRANSPORT_UDP 17u

#define TCP_SEQUENCE_AT 4u
#define TCP_OFFSET_AT   12u
#define TCP_FLAGS_AT    13u
#define TCP_CHECKSUM_AT 16u
#define UDP_LENGTH_AT   4u
#define UDP_CHECKSUM_AT 6u

#define TCP_FIN 0x01u
#define TCP_SYN 0x02u
#define TCP_RST 0x04u
#define TCP_PSH 0x08u
#define TCP_ACK 0x10u
#define TCP_URG 0x20u
#define TCP_ECE 0x40u
#define TCP_CWR 0x80u

/* Places count from the first byte of the IP header. */
struct transport {
    uint8_t protocol; /* TRANSPORT_TCP or TRANSPORT_UDP */
    uint16_t at;
    uint16_t payload_at;
    uint16_t checksum_at;
};

/* TCP or UDP at `at` of a packet of `size` bytes, with its whole header inside. */
bool transport_at(const uint8_t *packet, size_t size, uint8_t protocol, size_t at,
                  struct transport *out);

/* TCP or UDP directly after an IPv4 header or the 40 bytes of IPv6, unfragmented. The packet ends
 * at `size` (packet_ip_length says so). */
bool transport_find(const uint8_t *packet, size_t size, struct transport *out);

/* The sum over the pseudo-header of RFC 793, RFC 768 and RFC 8200 section 8.1, folded and not
 * complemented: what a partial checksum holds. `size` are bytes from the transport header on. */
uint16_t transport_pseudo_sum(const uint8_t *packet, uint8_t protocol, size_t size);

/* Is the checksum in the packet, which ends at `size`, the right one? False for a UDP datagram that
 * has none. */
bool transport_is_intact(const uint8_t *packet, size_t size, const struct transport *transport);

/* Writes the checksum of an IPv4 header of `size` bytes. */
void ipv4_write_checksum(uint8_t *header, size_t size);

/* Makes the packet one of `size` bytes: the length and header checksum of IPv4, the length of IPv6
 * behind its 40 bytes, and that of UDP. */
void transport_write_size(uint8_t *packet, size_t size, const struct transport *transport);

#endif
