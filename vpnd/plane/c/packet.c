#include "packet.h"

#include "bytes.h"
#include "transport.h"

enum {
    IPV4_HEADER_MIN = 20,
    IPV6_HEADER = 40,
    IPV4_LENGTH_AT = 2,
    IPV4_FRAGMENT_AT = 6,
    IPV4_FRAGMENT_MASK = 0x3fff, /* more-fragments bit and offset */
    IPV4_OFFSET_MASK = 0x1fff,
    IPV4_HOPS_AT = 8,
    IPV4_PROTOCOL_AT = 9,
    IPV6_LENGTH_AT = 4,
    IPV6_NEXT_AT = 6,
    IPV6_HOPS_AT = 7,
    TCP_HEADER_MIN = 20,
    UDP_HEADER = 8,
    MAC_SIZE = 6,
    TAG_SIZE = 4,
    ETHER_TYPE_AT = 12,
    ETHER_TYPE_IPV4 = 0x0800,
    ETHER_TYPE_IPV6 = 0x86dd,
    ETHER_TYPE_PROVIDER = 0x88a8,
    VLAN_MASK = 0x0fff,
};

static size_t ipv4_length(const uint8_t *packet, size_t size) {
    if (size < IPV4_HEADER_MIN) {
        return 0;
    }
    size_t header = (packet[0] & 0x0fu) * 4u;
    size_t length = load_be16(packet + IPV4_LENGTH_AT);
    if (header < IPV4_HEADER_MIN || header > length || length > size) {
        return 0;
    }
    return length;
}

static size_t ipv6_length(const uint8_t *packet, size_t size) {
    if (size < IPV6_HEADER) {
        return 0;
    }
    size_t length = IPV6_HEADER + (size_t)load_be16(packet + IPV6_LENGTH_AT);
    return length > size ? 0 : length;
}

size_t packet_ip_length(const uint8_t *packet, size_t size) {
    if (size == 0) {
        return 0;
    }
    switch (packet[0] >> 4) {
    case PACKET_IPV4:
        return ipv4_length(packet, size);
    case PACKET_IPV6:
        return ipv6_length(packet, size);
    default:
        return 0;
    }
}

enum packet_kind packet_kind_of(const uint8_t *packet, size_t size) {
    if (packet_ip_length(packet, size) == 0) {
        return PACKET_BAD;
    }
    return packet[0] >> 4 == PACKET_IPV4 ? PACKET_IPV4 : PACKET_IPV6;
}

const uint8_t *packet_source(const uint8_t *packet, uint8_t *family) {
    *family = packet[0] >> 4;
    return packet + (*family == PACKET_IPV4 ? 12 : 8);
}

const uint8_t *packet_destination(const uint8_t *packet, uint8_t *family) {
    *family = packet[0] >> 4;
    return packet + (*family == PACKET_IPV4 ? 16 : 24);
}

bool packet_checksum_place(const uint8_t *packet, size_t size, uint16_t *start, uint16_t *offset) {
    size_t length = packet_ip_length(packet, size);
    if (length == 0) {
        return false;
    }
    size_t header = IPV6_HEADER;
    uint8_t protocol = packet[IPV6_NEXT_AT];
    if (packet[0] >> 4 == PACKET_IPV4) {
        if ((load_be16(packet + IPV4_FRAGMENT_AT) & IPV4_FRAGMENT_MASK) != 0) {
            return false;
        }
        header = (packet[0] & 0x0fu) * 4u;
        protocol = packet[IPV4_PROTOCOL_AT];
    }
    if (protocol == TRANSPORT_TCP && length - header >= TCP_HEADER_MIN) {
        *offset = TCP_CHECKSUM_AT;
    } else if (protocol == TRANSPORT_UDP && length - header >= UDP_HEADER) {
        *offset = UDP_CHECKSUM_AT;
    } else {
        return false;
    }
    *start = (uint16_t)header;
    return true;
}

bool packet_is_udp_with(const uint8_t *packet, size_t size, uint32_t first, uint8_t *hops) {
    bool is_ipv4 = size > 0 && packet[0] >> 4 == PACKET_IPV4;
    if (size < IPV6_HEADER || packet[is_ipv4 ? IPV4_PROTOCOL_AT : IPV6_NEXT_AT] != TRANSPORT_UDP ||
        packet_ip_length(packet, size) == 0) {
        return false;
    }
    if (is_ipv4 && (load_be16(packet + IPV4_FRAGMENT_AT) & IPV4_OFFSET_MASK) != 0) {
        return false;
    }
    size_t payload = (is_ipv4 ? (packet[0] & 0x0fu) * 4u : IPV6_HEADER) + UDP_HEADER;
    if (size < payload + sizeof(first) || load_le32(packet + payload) != first) {
        return false;
    }
    *hops = packet[is_ipv4 ? IPV4_HOPS_AT : IPV6_HOPS_AT];
    return true;
}

/* Words of the machine's own order: the sum's bytes come out swapped, RFC 1071 section 2 B. */
uint16_t checksum_add(uint16_t sum, const uint8_t *bytes, size_t size) {
    uint64_t wide = 0;
    while (size >= 8) {
        uint64_t word = load_le64(bytes);
        wide += word;
        wide += wide < word; /* the carry comes round */
        bytes += 8;
        size -= 8;
    }
    uint64_t rest = 0;
    for (size_t i = 0; i < size; i++) {
        rest |= (uint64_t)bytes[i] << 8 * i;
    }
    wide += rest;
    wide += wide < rest;
    while (wide >> 16 != 0) {
        wide = (wide & 0xffff) + (wide >> 16);
    }
    uint32_t swapped = (uint32_t)((wide & 0xff) << 8 | wide >> 8) + sum;
    return (uint16_t)((swapped & 0xffff) + (swapped >> 16));
}

void checksum_replace(uint8_t *field, uint16_t old, uint16_t new) {
    uint32_t sum = (uint32_t)(uint16_t)~load_be16(field) + (uint16_t)~old + new;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    store_be16(field, (uint16_t)~sum);
}

bool packet_complete_checksum(uint8_t *packet, size_t size, size_t start, size_t offset) {
    if (start > size || size - start < 2 || offset > size - start - 2) {
        return false;
    }
    uint16_t sum = (uint16_t)~checksum_add(0, packet + start, size - start);
    if (sum == 0 && offset == UDP_CHECKSUM_AT) {
        sum = 0xffff; /* 0 would say that UDP has no checksum */
    }
    store_be16(packet + start + offset, sum);
    return true;
}

static size_t bucket_length(size_t plaintext, size_t mtu) {
    static const size_t buckets[] = {128, 256, 512, 768, 1024, 1280};
    for (size_t i = 0; i < sizeof(buckets) / sizeof(buckets[0]); i++) {
        if (plaintext <= buckets[i]) {
            return buckets[i];
        }
    }
    return mtu;
}

size_t padded_length(size_t plaintext, enum padding_mode mode, size_t mtu) {
    if (plaintext == 0 || plaintext >= mtu) {
        return plaintext;
    }
    size_t padded = plaintext;
    switch (mode) {
    case PADDING_NONE:
        break;
    case PADDING_16:
        padded = (plaintext + 15) / 16 * 16;
        break;
    case PADDING_BUCKET:
        padded = bucket_length(plaintext, mtu);
        break;
    case PADDING_FULL:
        padded = mtu;
        break;
    }
    return padded < mtu ? padded : mtu;
}

const uint8_t *frame_destination(const uint8_t *frame) {
    return frame;
}

const uint8_t *frame_source(const uint8_t *frame) {
    return frame + MAC_SIZE;
}

static bool is_tag(uint16_t ether_type) {
    return ether_type == ETHER_TYPE_VLAN || ether_type == ETHER_TYPE_PROVIDER;
}

uint16_t frame_vlan(const uint8_t *frame, size_t size) {
    if (size < FRAME_HEADER_SIZE + TAG_SIZE || !is_tag(load_be16(frame + ETHER_TYPE_AT))) {
        return 0;
    }
    return load_be16(frame + FRAME_HEADER_SIZE) & VLAN_MASK;
}

bool frame_is_group(const uint8_t mac[6]) {
    return (mac[0] & 1u) != 0;
}

size_t frame_payload(const uint8_t *frame, size_t size, uint16_t *ether_type) {
    size_t payload = FRAME_HEADER_SIZE;
    for (unsigned tags = 0; tags <= 2; tags++, payload += TAG_SIZE) {
        if (size < payload) {
            return 0;
        }
        *ether_type = load_be16(frame + payload - 2);
        if (!is_tag(*ether_type)) {
            return payload;
        }
    }
    return 0;
}

size_t frame_network(const uint8_t *frame, size_t size) {
    uint16_t ether_type = 0;
    size_t payload = frame_payload(frame, size, &ether_type);
    bool is_ip = ether_type == ETHER_TYPE_IPV4 || ether_type == ETHER_TYPE_IPV6;
    return payload > 0 && is_ip ? payload : size;
}
