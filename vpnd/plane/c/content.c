#include "content.h"

#include <string.h>

#include "plane.h"

static bool refuse(enum drop_reason *reason, enum drop_reason why) {
    *reason = why;
    return false;
}

/* Does the partial checksum stand where the far kernel and ours both look for it? */
static bool has_checksum_place(const uint8_t *packet, size_t size) {
    struct transport found;
    return transport_find(packet, packet_ip_length(packet, size), &found);
}

/* ---- packets ---- */

/* No packet on a link comes from these, whoever's networks are around them (RFC 1122, 3.2.1.3;
 * RFC 4291, 2.5.3 and 2.7). A kernel with route_localnet would take the first ones. Unspecified
 * addresses are left to it: a host that looks for its neighbours may have no other yet. */
static bool is_never_source(uint8_t family, const uint8_t *address) {
    static const uint8_t broadcast[4] = {255, 255, 255, 255}, loopback[16] = {[15] = 1};
    if (family == 4) {
        return address[0] == 127 || (address[0] & 0xf0) == 0xe0 ||
               memcmp(address, broadcast, 4) == 0;
    }
    return address[0] == 0xff || memcmp(address, loopback, 16) == 0;
}

/* Is the source address one of the peer's? */
static bool is_peers_own(struct plane *plane, struct known_sender *known, uint32_t peer,
                         const uint8_t *packet) {
    uint8_t family;
    const uint8_t *source = packet_source(packet, &family);
    size_t size = family == 4 ? 4 : 16;
    if (known->peer == peer && known->family == family &&
        memcmp(known->address, source, size) == 0) {
        return true;
    }
    if (networks_find(plane->networks, family, source) != peer || is_never_source(family, source)) {
        return false;
    }
    known->peer = peer;
    known->family = family;
    memcpy(known->address, source, size);
    return true;
}

static bool check_packet(struct plane *plane, struct known_sender *known, uint32_t peer,
                         struct arrival *arrival, enum drop_reason *reason) {
    uint8_t nibble = arrival->bytes[0] >> 4;
    arrival->is_partial = nibble == (PACKET_IPV4 | 1) || nibble == (PACKET_IPV6 | 1);
    if (arrival->is_partial) {
        arrival->bytes[0] &= (uint8_t)~PACKET_PARTIAL;
    }
    size_t size = packet_ip_length(arrival->bytes, arrival->size);
    if (size == 0 || (arrival->is_partial && !has_checksum_place(arrival->bytes, size))) {
        return refuse(reason, DROP_data_inner);
    }
    arrival->size = size;
    arrival->network_at = 0;
    return is_peers_own(plane, known, peer, arrival->bytes) || refuse(reason, DROP_data_source);
}

/* ---- frames ---- */

/* Learns who sent the frame; false if the peer may not, or shows too many. */
static bool learn_sender(struct plane *plane, struct known_sender *known, uint32_t peer,
                         const struct arrival *arrival, uint64_t now_ns, enum drop_reason *reason) {
    const uint8_t *source = frame_source(arrival->bytes);
    uint16_t vlan = frame_vlan(arrival->bytes, arrival->size);
    if (known->peer == peer && known->vlan == vlan && memcmp(known->address, source, 6) == 0) {
        return true;
    }
    enum mac_learned learned = mac_table_learn(plane->macs, source, vlan, peer, now_ns);
    if (learned == MAC_REFUSED || learned == MAC_FORBIDDEN) {
        return refuse(reason, learned == MAC_REFUSED ? DROP_mac_limit : DROP_frame_source);
    }
    known->peer = peer;
    known->vlan = vlan;
    memcpy(known->address, source, 6);
    return true;
}

/* Takes the protocol's bytes around the frame away. */
static bool unwrap(struct arrival *arrival) {
    size_t prefix = 1;
    size_t size = arrival->size - prefix;
    uint8_t kind = arrival->bytes[0];
    arrival->is_partial = kind == FRAME_PARTIAL;
    if (kind == FRAME_PADDED && arrival->size >= FRAME_PADDED_SIZE) {
        prefix = FRAME_PADDED_SIZE;
        size = load_le16(arrival->bytes + 1);
    } else if (kind != FRAME_PREFIX && kind != FRAME_PARTIAL) {
        return false;
    }
    if (size < FRAME_HEADER_SIZE || size > arrival->size - prefix) {
        return false;
    }
    arrival->bytes += prefix;
    arrival->size = size;
    return true;
}

static bool check_frame(struct plane *plane, struct known_sender *known, const struct peer *peer,
                        uint64_t now_ns, struct arrival *arrival, enum drop_reason *reason) {
    if (!unwrap(arrival) || frame_is_group(frame_source(arrival->bytes))) {
        return refuse(reason, DROP_data_inner);
    }
    arrival->network_at = frame_network(arrival->bytes, arrival->size);
    if (arrival->is_partial && !has_checksum_place(arrival->bytes + arrival->network_at,
                                                   arrival->size - arrival->network_at)) {
        return refuse(reason, DROP_data_inner);
    }
    if (!frames_may_pass(peer, arrival->bytes, arrival->size)) {
        return refuse(reason, DROP_frame_vlan);
    }
    return learn_sender(plane, known, peer->number, arrival, now_ns, reason);
}

/* ---- both ---- */

bool content_check(struct plane *plane, struct known_sender *known, const struct peer *peer,
                   uint8_t outer, uint64_t now_ns, struct arrival *arrival,
                   enum drop_reason *reason) {
    bool is_fit = false;
    switch (plane->link.type) {
    case WIRE_LINK_TUN:
        is_fit = check_packet(plane, known, peer->number, arrival, reason);
        break;
    case WIRE_LINK_TAP:
        is_fit = check_frame(plane, known, peer, now_ns, arrival, reason);
        break;
    default:
        return refuse(reason, DROP_link_write);
    }
    if (!is_fit) {
        return false;
    }
    return marking_arrive(arrival->bytes + arrival->network_at, arrival->size - arrival->network_at,
                          outer) ||
           refuse(reason, DROP_data_ecn);
}
