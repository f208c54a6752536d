#include "frames.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "plane.h"

#define VLAN_NONE 0xfffu /* reserved by IEEE 802.1Q */

/* ---- setting ---- */

static bool is_usable(const struct wire_mac *mac) {
    static const uint8_t nobody[6];
    return mac->zero[0] == 0 && mac->zero[1] == 0 && !frame_is_group(mac->mac) &&
           memcmp(mac->mac, nobody, sizeof(nobody)) != 0;
}

static bool has_vlan(const struct set_peer_frames_request *rules, unsigned vlan) {
    return (rules->vlans[vlan / 8] >> (vlan % 8) & 1) != 0;
}

bool frames_are_valid(const struct set_peer_frames_request *wanted, const struct wire_mac *macs) {
    if ((wanted->flags & ~(uint32_t)(FRAMES_RELAYED | FRAMES_BY_VLAN)) != 0 ||
        wanted->mac_count > WIRE_MACS_MAX || has_vlan(wanted, VLAN_NONE)) {
        return false;
    }
    for (uint32_t i = 0; i < wanted->mac_count; i++) {
        bool is_next = i == 0 || memcmp(macs[i - 1].mac, macs[i].mac, sizeof(macs[i].mac)) < 0;
        if (!is_usable(&macs[i]) || !is_next) {
            return false;
        }
    }
    return true;
}

int frames_set(struct plane *plane, struct peer *peer, const struct set_peer_frames_request *wanted,
               const struct wire_mac *macs) {
    size_t size = wanted->mac_count * sizeof(*macs);
    struct frame_rules *rules = malloc(sizeof(*rules) + size);
    if (rules == NULL ||
        mac_table_set_static(plane->macs, macs, wanted->mac_count, peer->number) < 0) {
        free(rules);
        return -ENOMEM;
    }
    rules->wanted = *wanted;
    memcpy(rules->macs, macs, size);
    free(peer->frames);
    peer->frames = rules;
    return 0;
}

/* ---- asking ---- */

/* Only the kernel's own kind of tag counts: to a bridge that filters VLANs a frame with another one
 * is an untagged frame, so it is here. */
static unsigned vlan_of(const uint8_t *frame, size_t size) {
    return load_be16(frame + FRAME_HEADER_SIZE - 2) == ETHER_TYPE_VLAN ? frame_vlan(frame, size)
                                                                       : 0;
}

bool frames_may_pass(const struct peer *peer, const uint8_t *frame, size_t size) {
    const struct frame_rules *rules = peer->frames;
    return rules == NULL || (rules->wanted.flags & FRAMES_BY_VLAN) == 0 ||
           has_vlan(&rules->wanted, vlan_of(frame, size));
}

bool frames_are_relayed(const struct peer *peer) {
    return peer->frames != NULL && (peer->frames->wanted.flags & FRAMES_RELAYED) != 0;
}

bool frames_are_exchanged(const struct peer *one, const struct peer *other) {
    return one != other && frames_are_relayed(one) && frames_are_relayed(other);
}

bool frames_flood(struct peer *peer, enum frames_direction direction, uint64_t now_ns) {
    uint32_t limit = peer->frames == NULL ? 0 : peer->frames->wanted.storm_limit;
    if (limit == 0) {
        return true;
    }
    pthread_mutex_lock(&peer->lock);
    bool is_allowed = rate_allows(&peer->floods[direction], limit, now_ns);
    pthread_mutex_unlock(&peer->lock);
    return is_allowed;
}
