#include "mss.h"

#include "bytes.h"
#include "packet.h"
#include "transport.h"

enum {
    IPV4_HEADER_MIN = 20,
    IPV6_HEADER = 40,
    TCP_HEADER_MIN = 20,
    OPTION_END = 0,
    OPTION_NOTHING = 1,
    OPTION_MSS = 2,
    OPTION_MSS_SIZE = 4,
    MSS_MIN = 88, /* never less: some hosts do not survive it; Linux has the same bound */
};

/* Where the value of the MSS option stands; 0 where there is none. */
static size_t find_option(const uint8_t *tcp, size_t header) {
    size_t at = TCP_HEADER_MIN;
    while (at < header && tcp[at] != OPTION_END) {
        if (tcp[at] == OPTION_NOTHING) {
            at++;
            continue;
        }
        if (header - at < 2 || tcp[at + 1] < 2 || tcp[at + 1] > header - at) {
            return 0;
        }
        if (tcp[at] == OPTION_MSS) {
            return tcp[at + 1] == OPTION_MSS_SIZE ? at + 2 : 0;
        }
        at += tcp[at + 1];
    }
    return 0;
}

/* A word that begins at an odd place of the segment stands in two words of the checksum, each half
 * of them; exchanging the bytes of both values has the same effect on a ones' complement sum. */
static void update_checksum(uint8_t *field, size_t at, uint16_t old, uint16_t new) {
    if (at % 2 != 0) {
        old = (uint16_t)(old << 8 | old >> 8);
        new = (uint16_t)(new << 8 | new >> 8);
    }
    checksum_replace(field, old, new);
}

bool mss_clamp(uint8_t *packet, size_t size, size_t mtu, bool is_partial) {
    struct transport found;
    size = packet_ip_length(packet, size);
    if (size == 0 || !transport_find(packet, size, &found) || found.protocol != TRANSPORT_TCP) {
        return false;
    }
    uint8_t *tcp = packet + found.at;
    if ((tcp[TCP_FLAGS_AT] & TCP_SYN) == 0) {
        return false;
    }
    size_t at = find_option(tcp, (size_t)(found.payload_at - found.at));
    /* Without options of IP: whoever sends those takes them off. */
    size_t around =
        (packet[0] >> 4 == PACKET_IPV4 ? IPV4_HEADER_MIN : IPV6_HEADER) + TCP_HEADER_MIN;
    size_t fits = mtu > around + MSS_MIN ? mtu - around : MSS_MIN;
    if (at == 0 || load_be16(tcp + at) <= fits) {
        return false;
    }
    uint16_t old = load_be16(tcp + at);
    store_be16(tcp + at, (uint16_t)fits);
    if (!is_partial) {
        update_checksum(packet + found.checksum_at, at, old, (uint16_t)fits);
    }
    return true;
}
