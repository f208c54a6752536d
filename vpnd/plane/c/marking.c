#include "marking.h"

#include "bytes.h"
#include "packet.h"

#define IPV4_HEADER_MIN  20u
#define IPV6_HEADER_MIN  40u
#define IPV4_CHECKSUM_AT 10u

/* RFC 6040 figure 4: the inner field by inner (rows) and outer ECN, in the order of their values.
 */
#define DROP 0xffu
static const uint8_t arriving[4][4] = {
    [ECN_NOT_ECT] = {ECN_NOT_ECT, ECN_NOT_ECT, ECN_NOT_ECT, DROP},
    [ECN_ECT_1] = {ECN_ECT_1, ECN_ECT_1, ECN_ECT_1, ECN_CE},
    [ECN_ECT_0] = {ECN_ECT_0, ECN_ECT_1, ECN_ECT_0, ECN_CE},
    [ECN_CE] = {ECN_CE, ECN_CE, ECN_CE, ECN_CE},
};

uint8_t marking_of(const uint8_t *packet, size_t size) {
    if (size >= IPV4_HEADER_MIN && packet[0] >> 4 == PACKET_IPV4) {
        return packet[1];
    }
    if (size >= IPV6_HEADER_MIN && packet[0] >> 4 == PACKET_IPV6) {
        return (uint8_t)(load_be16(packet) >> 4);
    }
    return 0;
}

static void write_marking(uint8_t *packet, uint8_t marking) {
    if (packet[0] >> 4 == PACKET_IPV4) {
        uint16_t old = load_be16(packet);
        packet[1] = marking;
        checksum_replace(packet + IPV4_CHECKSUM_AT, old, load_be16(packet));
    } else {
        packet[0] = (uint8_t)((packet[0] & 0xf0) | marking >> 4);
        packet[1] = (uint8_t)((packet[1] & 0x0f) | marking << 4);
    }
}

bool marking_arrive(uint8_t *packet, size_t size, uint8_t outer) {
    if ((outer & ECN_MASK) == ECN_NOT_ECT || packet_ip_length(packet, size) == 0) {
        return true;
    }
    uint8_t inner = marking_of(packet, size);
    uint8_t ecn = arriving[inner & ECN_MASK][outer & ECN_MASK];
    if (ecn == DROP) {
        return false;
    }
    if (ecn != (inner & ECN_MASK)) {
        write_marking(packet, (uint8_t)((inner & ~ECN_MASK) | ecn));
    }
    return true;
}
