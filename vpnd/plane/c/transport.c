#include "transport.h"

#include "bytes.h"
#include "packet.h"

enum {
    TCP_HEADER_MIN = 20,
    UDP_HEADER = 8,
    IPV4_LENGTH_AT = 2,
    IPV4_CHECKSUM_AT = 10,
    IPV4_ADDRESSES_AT = 12,
    IPV4_ADDRESSES_SIZE = 8,
    IPV6_HEADER = 40,
    IPV6_LENGTH_AT = 4,
    IPV6_ADDRESSES_AT = 8,
    IPV6_ADDRESSES_SIZE = 32,
};

bool transport_at(const uint8_t *packet, size_t size, uint8_t protocol, size_t at,
                  struct transport *out) {
    size_t header = protocol == TRANSPORT_TCP ? TCP_HEADER_MIN : UDP_HEADER;
    if ((protocol != TRANSPORT_TCP && protocol != TRANSPORT_UDP) || size > UINT16_MAX ||
        at > size || size - at < header) {
        return false;
    }
    size_t checksum = UDP_CHECKSUM_AT;
    if (protocol == TRANSPORT_TCP) {
        checksum = TCP_CHECKSUM_AT;
        header = (size_t)(packet[at + TCP_OFFSET_AT] >> 4) * 4;
        if (header < TCP_HEADER_MIN || size - at < header) {
            return false;
        }
    }
    *out = (struct transport){.protocol = protocol,
                              .at = (uint16_t)at,
                              .payload_at = (uint16_t)(at + header),
                              .checksum_at = (uint16_t)(at + checksum)};
    return true;
}

bool transport_find(const uint8_t *packet, size_t size, struct transport *out) {
    uint16_t start;
    uint16_t offset;
    if (!packet_checksum_place(packet, size, &start, &offset)) {
        return false;
    }
    return transport_at(packet, size, offset == TCP_CHECKSUM_AT ? TRANSPORT_TCP : TRANSPORT_UDP,
                        start, out);
}

uint16_t transport_pseudo_sum(const uint8_t *packet, uint8_t protocol, size_t size) {
    uint8_t tail[4] = {0, protocol};
    bool is_ipv4 = packet[0] >> 4 == PACKET_IPV4;
    store_be16(tail + 2, (uint16_t)size);
    uint16_t sum = checksum_add(0, packet + (is_ipv4 ? IPV4_ADDRESSES_AT : IPV6_ADDRESSES_AT),
                                is_ipv4 ? IPV4_ADDRESSES_SIZE : IPV6_ADDRESSES_SIZE);
    return checksum_add(sum, tail, sizeof(tail));
}

bool transport_is_intact(const uint8_t *packet, size_t size, const struct transport *transport) {
    if (transport->protocol == TRANSPORT_UDP && load_be16(packet + transport->checksum_at) == 0) {
        return false;
    }
    size_t length = size - transport->at;
    uint16_t sum = transport_pseudo_sum(packet, transport->protocol, length);
    return checksum_add(sum, packet + transport->at, length) == 0xffff;
}

void ipv4_write_checksum(uint8_t *header, size_t size) {
    store_be16(header + IPV4_CHECKSUM_AT, 0);
    store_be16(header + IPV4_CHECKSUM_AT, (uint16_t)~checksum_add(0, header, size));
}

void transport_write_size(uint8_t *packet, size_t size, const struct transport *transport) {
    if (packet[0] >> 4 == PACKET_IPV4) {
        store_be16(packet + IPV4_LENGTH_AT, (uint16_t)size);
        ipv4_write_checksum(packet, (packet[0] & 0x0fu) * 4u);
    } else {
        store_be16(packet + IPV6_LENGTH_AT, (uint16_t)(size - IPV6_HEADER));
    }
    if (transport->protocol == TRANSPORT_UDP) {
        store_be16(packet + transport->at + UDP_LENGTH_AT, (uint16_t)(size - transport->at));
    }
}
