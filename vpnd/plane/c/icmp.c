#include "icmp.h"

#include <stdbool.h>
#include <string.h>

#include "bytes.h"
#include "packet.h"

enum {
    IPV4_HEADER = 20,
    IPV4_ANSWER_MAX = 576, /* RFC 1812 section 4.3.2.3 */
    IPV4_FRAGMENT_OFFSET = 0x1fff,
    IPV4_DONT_FRAGMENT = 0x4000,
    IPV6_HEADER = 40,
    IPV6_MTU_MIN = 1280,
    MAC_SIZE = 6,
    ETHER_TYPE_IPV4 = 0x0800,
    ETHER_TYPE_IPV6 = 0x86dd,
    ICMP_HEADER = 8,
    HOPS = 64,
    NEXT_ICMP = 1,
    NEXT_TCP = 6,
    NEXT_UDP = 17,
    NEXT_FRAGMENT = 44,
    NEXT_ICMP6 = 58,
    FRAGMENT_HEADER = 8,
    IPV6_FRAGMENT_OFFSET = 0xfff8,
    ICMP_DESTINATION_UNREACHABLE = 3,
    ICMP_HOST_UNREACHABLE = 1,
    ICMP_FRAGMENTATION_NEEDED = 4,
    ICMP6_DESTINATION_UNREACHABLE = 1,
    ICMP6_ADDRESS_UNREACHABLE = 3,
    ICMP6_PACKET_TOO_BIG = 2,
    ICMP6_ECHO_REQUEST = 128,
    ICMP6_ECHO_REPLY = 129,
};

/* The first 8 bytes of an answer, but for the checksum. */
struct message {
    uint8_t type;
    uint8_t code;
    uint32_t rest;
};

/* Type of the ICMP errors of IPv4, after which nothing is said. */
static bool is_icmp_error(uint8_t type) {
    return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
}

/* Neither 0.0.0.0/8, loopback, multicast nor the reserved block with the broadcast address. */
static bool is_ipv4_station(const uint8_t address[4]) {
    return address[0] != 0 && address[0] != 127 && address[0] < 224;
}

static bool is_ipv6_station(const uint8_t address[16]) {
    static const uint8_t nobody[16];
    return address[0] != 0xff && memcmp(address, nobody, sizeof(nobody)) != 0;
}

static void store_checksum(uint8_t *bytes, size_t size, size_t at, uint16_t sum) {
    store_be16(bytes + at, (uint16_t)~checksum_add(sum, bytes, size));
}

static size_t answer_ipv4(const uint8_t *packet, size_t size, struct message message,
                          uint8_t *out) {
    size_t header = (packet[0] & 0x0fu) * 4u;
    if ((load_be16(packet + 6) & IPV4_FRAGMENT_OFFSET) != 0 || !is_ipv4_station(packet + 12) ||
        !is_ipv4_station(packet + 16)) {
        return 0;
    }
    if (packet[9] == NEXT_ICMP && (size <= header || is_icmp_error(packet[header]))) {
        return 0;
    }
    size_t quoted = size;
    if (quoted > IPV4_ANSWER_MAX - IPV4_HEADER - ICMP_HEADER) {
        quoted = IPV4_ANSWER_MAX - IPV4_HEADER - ICMP_HEADER;
    }
    size_t length = IPV4_HEADER + ICMP_HEADER + quoted;
    memset(out, 0, IPV4_HEADER + ICMP_HEADER);
    out[0] = 0x45;
    out[1] = 0xc0; /* internetwork control, as the kernel marks its own */
    store_be16(out + 2, (uint16_t)length);
    out[8] = HOPS;
    out[9] = NEXT_ICMP;
    memcpy(out + 12, packet + 16, 4);
    memcpy(out + 16, packet + 12, 4);
    store_checksum(out, IPV4_HEADER, 10, 0);
    uint8_t *icmp = out + IPV4_HEADER;
    icmp[0] = message.type;
    icmp[1] = message.code;
    store_be32(icmp + 4, message.rest);
    memcpy(icmp + ICMP_HEADER, packet, quoted);
    store_checksum(icmp, ICMP_HEADER + quoted, 2, 0);
    return length;
}

/* Is it clear from the fixed header, and that of a first fragment, that this is no error? */
static bool may_answer_ipv6(const uint8_t *packet, size_t size) {
    uint8_t next = packet[6];
    size_t at = IPV6_HEADER;
    if (next == NEXT_FRAGMENT) {
        if (size < at + FRAGMENT_HEADER ||
            (load_be16(packet + at + 2) & IPV6_FRAGMENT_OFFSET) != 0) {
            return false;
        }
        next = packet[at];
        at += FRAGMENT_HEADER;
    }
    switch (next) {
    case NEXT_TCP:
    case NEXT_UDP:
        return true;
    case NEXT_ICMP6:
        return size > at && (packet[at] == ICMP6_ECHO_REQUEST || packet[at] == ICMP6_ECHO_REPLY);
    default:
        return false;
    }
}

static size_t answer_ipv6(const uint8_t *packet, size_t size, struct message message,
                          uint8_t *out) {
    if (!may_answer_ipv6(packet, size) || !is_ipv6_station(packet + 8) ||
        !is_ipv6_station(packet + 24)) {
        return 0;
    }
    size_t quoted = size;
    if (quoted > ICMP_ANSWER_MAX - IPV6_HEADER - ICMP_HEADER) {
        quoted = ICMP_ANSWER_MAX - IPV6_HEADER - ICMP_HEADER;
    }
    size_t length = ICMP_HEADER + quoted;
    memset(out, 0, IPV6_HEADER + ICMP_HEADER);
    out[0] = 0x60;
    store_be16(out + 4, (uint16_t)length);
    out[6] = NEXT_ICMP6;
    out[7] = HOPS;
    memcpy(out + 8, packet + 24, 16);
    memcpy(out + 24, packet + 8, 16);
    uint8_t *icmp = out + IPV6_HEADER;
    icmp[0] = message.type;
    icmp[1] = message.code;
    store_be32(icmp + 4, message.rest);
    memcpy(icmp + ICMP_HEADER, packet, quoted);
    /* The pseudo-header: addresses, length, next header. */
    uint8_t rest[8] = {0, 0, (uint8_t)(length >> 8), (uint8_t)length, 0, 0, 0, NEXT_ICMP6};
    uint16_t sum = checksum_add(checksum_add(0, out + 8, 32), rest, sizeof(rest));
    store_checksum(icmp, length, 2, sum);
    return IPV6_HEADER + length;
}

size_t icmp_unreachable(const uint8_t *packet, size_t size, uint8_t out[ICMP_ANSWER_MAX]) {
    struct message message = {ICMP_DESTINATION_UNREACHABLE, ICMP_HOST_UNREACHABLE, 0};
    switch (packet_kind_of(packet, size)) {
    case PACKET_IPV4:
        return answer_ipv4(packet, size, message, out);
    case PACKET_IPV6:
        message = (struct message){ICMP6_DESTINATION_UNREACHABLE, ICMP6_ADDRESS_UNREACHABLE, 0};
        return answer_ipv6(packet, size, message, out);
    default:
        return 0;
    }
}

size_t icmp_too_big(const uint8_t *packet, size_t size, uint32_t mtu,
                    uint8_t out[ICMP_ANSWER_MAX]) {
    struct message message = {ICMP_DESTINATION_UNREACHABLE, ICMP_FRAGMENTATION_NEEDED, mtu};
    switch (packet_kind_of(packet, size)) {
    case PACKET_IPV4:
        if (size <= mtu || (load_be16(packet + 6) & IPV4_DONT_FRAGMENT) == 0) {
            return 0;
        }
        return answer_ipv4(packet, size, message, out);
    case PACKET_IPV6:
        mtu = mtu < IPV6_MTU_MIN ? IPV6_MTU_MIN : mtu;
        message = (struct message){ICMP6_PACKET_TOO_BIG, 0, mtu};
        return size <= mtu ? 0 : answer_ipv6(packet, size, message, out);
    default:
        return 0;
    }
}

size_t icmp_frame_too_big(const uint8_t *frame, size_t size, uint32_t mtu,
                          uint8_t out[ICMP_FRAME_MAX]) {
    uint16_t ether_type;
    size_t payload = frame_payload(frame, size, &ether_type);
    if (payload == 0 || frame_is_group(frame_destination(frame)) ||
        frame_is_group(frame_source(frame)) ||
        (ether_type != ETHER_TYPE_IPV4 && ether_type != ETHER_TYPE_IPV6)) {
        return 0;
    }
    /* Short packets are filled up to the least size of a frame. */
    size_t length = packet_ip_length(frame + payload, size - payload);
    size_t answer = icmp_too_big(frame + payload, length, mtu, out + payload);
    if (answer == 0) {
        return 0;
    }
    memcpy(out, frame_source(frame), MAC_SIZE);
    memcpy(out + MAC_SIZE, frame_destination(frame), MAC_SIZE);
    memcpy(out + 2 * MAC_SIZE, frame + 2 * MAC_SIZE, payload - 2 * MAC_SIZE);
    return payload + answer;
}
