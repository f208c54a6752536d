#include "roster.h"

#include <errno.h>
#include <string.h>

#include "plane.h"
#include "shared.h"

#define WORD sizeof(uint64_t)

uint64_t roster_layout(void) {
    static const uint64_t places[] = {
        sizeof(struct roster_peer),
        offsetof(struct roster_peer, mtu),
        offsetof(struct roster_peer, network_count),
        offsetof(struct roster_peer, public_key),
        offsetof(struct roster_peer, way),
        offsetof(struct destination, from),
        offsetof(struct destination, hops),
        offsetof(struct source, address),
        sizeof(struct wire_network),
        sizeof(struct set_peer_frames_request),
        offsetof(struct set_peer_frames_request, vlans),
        sizeof(struct wire_mac),
        COUNTERS_PEER_MAX,
        ROSTER_NETWORKS_MAX,
        ROSTER_MACS_MAX,
    };
    return shared_sum(places, sizeof(places) / sizeof(places[0]));
}

static uint64_t sum_of(const struct roster *roster) {
    size_t list = roster->network_count * sizeof(struct wire_network);
    const uint64_t sums[] = {
        ((uint64_t)roster->peer_count << 32) | roster->network_count,
        ((uint64_t)roster->frames_count << 32) | roster->mac_count,
        shared_sum((const uint64_t *)(const void *)roster->peers,
                   roster->peer_count * sizeof(struct roster_peer) / WORD),
        shared_sum((const uint64_t *)(const void *)roster->frames,
                   roster->frames_count * sizeof(struct set_peer_frames_request) / WORD),
        shared_sum((const uint64_t *)(const void *)roster->macs,
                   roster->mac_count * sizeof(struct wire_mac) / WORD),
        shared_sum((const uint64_t *)(const void *)roster->networks, list / WORD),
        list % WORD == 0 ? 0 : load_le32((const uint8_t *)roster->networks + list / WORD * WORD),
    };
    return shared_sum(sums, sizeof(sums) / sizeof(sums[0]));
}

/* ---- out ---- */

/* An address of ours outlives the process, a socket's place is good for these sockets alone. */
static struct destination proven_way(struct plane *plane, struct peer *peer) {
    pthread_mutex_lock(&peer->lock);
    struct destination way = peer->path.on_probation ? peer->path.validated : peer->path.now;
    pthread_mutex_unlock(&peer->lock);
    if (way.from.generation != plane->sockets.generation) {
        way.from = (struct source){0};
    }
    way.from.generation = 0;
    way.hops = 0;
    way.tos = 0;
    return way;
}

static bool write_frames(struct roster *roster, const struct peer *peer) {
    const struct frame_rules *rules = peer->frames;
    if (rules == NULL) {
        return true;
    }
    uint32_t count = rules->wanted.mac_count;
    if (count > ROSTER_MACS_MAX - roster->mac_count) {
        return false;
    }
    roster->frames[roster->frames_count++] = rules->wanted;
    memcpy(&roster->macs[roster->mac_count], rules->macs, count * sizeof(rules->macs[0]));
    roster->mac_count += count;
    return true;
}

bool roster_write(struct plane *plane, struct roster *roster) {
    uint32_t networks = 0;
    roster->frames_count = 0;
    roster->mac_count = 0;
    for (uint32_t i = 0; i < plane->peers.count; i++) {
        struct peer *peer = plane->peers.list[i];
        size_t room = ROSTER_NETWORKS_MAX - networks;
        size_t count =
            networks_list(plane->networks, peer->number, &roster->networks[networks], room);
        if (count > room || !write_frames(roster, peer)) {
            return false;
        }
        roster->peers[i] = (struct roster_peer){.number = peer->number,
                                                .mtu = atomic_load(&peer->mtu),
                                                .network_count = (uint32_t)count,
                                                .way = proven_way(plane, peer)};
        memcpy(roster->peers[i].public_key, peer->public_key, sizeof(peer->public_key));
        networks += (uint32_t)count;
    }
    roster->peer_count = plane->peers.count;
    roster->network_count = networks;
    roster->sum = sum_of(roster);
    return true;
}

/* ---- and back ---- */

static bool peer_is_sound(const struct roster_peer *peer) {
    return peer->number < COUNTERS_PEER_MAX &&
           (peer->mtu == 0 || (peer->mtu >= LINK_MTU_MIN && peer->mtu <= LINK_MTU_MAX)) &&
           (peer->way.to.family == 0 || endpoint_is_valid(&peer->way.to)) &&
           peer->way.from.socket < WIRE_SOCKETS_MAX;
}

static bool frames_are_sound(const struct roster *roster) {
    uint64_t macs = 0;
    for (uint32_t i = 0; i < roster->frames_count; i++) {
        const struct set_peer_frames_request *rules = &roster->frames[i];
        if (rules->mac_count > roster->mac_count - macs ||
            !frames_are_valid(rules, &roster->macs[macs])) {
            return false;
        }
        macs += rules->mac_count;
    }
    return macs == roster->mac_count;
}

bool roster_is_sound(const struct roster *roster) {
    uint64_t networks = 0;
    if (roster->peer_count > COUNTERS_PEER_MAX || roster->network_count > ROSTER_NETWORKS_MAX ||
        roster->frames_count > COUNTERS_PEER_MAX || roster->mac_count > ROSTER_MACS_MAX ||
        roster->sum != sum_of(roster)) {
        return false;
    }
    for (uint32_t i = 0; i < roster->peer_count; i++) {
        networks += roster->peers[i].network_count;
        if (!peer_is_sound(&roster->peers[i])) {
            return false;
        }
    }
    for (uint32_t i = 0; i < roster->network_count; i++) {
        if (!network_is_valid(&roster->networks[i])) {
            return false;
        }
    }
    return networks == roster->network_count && frames_are_sound(roster);
}

/* What was counted of it goes on; what waited in the former process is gone. */
static int restore_one(struct plane *plane, const struct roster_peer *stored, struct peer **out) {
    struct peer_counters *counters = counters_of(plane, stored->number);
    struct peer_counters counted = *counters;
    struct destination way = stored->way;
    if (peer_find(&plane->peers, stored->number) != NULL) {
        return -EINVAL;
    }
    if (peer_new(plane, stored->number, stored->public_key, out) < 0) {
        return -ENOMEM;
    }
    counted.staged = 0;
    counted.gso_error = 0;
    counted.has_current = 0;
    *counters = counted;
    way.from.generation = plane->sockets.generation;
    if (way.from.socket >= plane->sockets.count) {
        way.from = (struct source){0};
    }
    path_set_valid(&(*out)->path, &way);
    atomic_store(&(*out)->mtu, stored->mtu);
    return 0;
}

static int restore_frames(struct plane *plane, const struct roster *roster) {
    const struct wire_mac *macs = roster->macs;
    for (uint32_t i = 0; i < roster->frames_count; i++) {
        const struct set_peer_frames_request *rules = &roster->frames[i];
        struct peer *peer = peer_find(&plane->peers, rules->peer);
        int error = peer == NULL ? -EINVAL : frames_set(plane, peer, rules, macs);
        if (error < 0) {
            return error;
        }
        macs += rules->mac_count;
    }
    return 0;
}

int roster_restore(struct plane *plane, const struct roster *roster) {
    const struct wire_network *network = roster->networks;
    if (networks_reserve(plane->networks, roster->network_count) < 0) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < roster->peer_count; i++) {
        const struct roster_peer *stored = &roster->peers[i];
        struct peer *peer;
        int error = restore_one(plane, stored, &peer);
        if (error < 0) {
            return error;
        }
        for (uint32_t j = 0; j < stored->network_count; j++) {
            (void)networks_add(plane->networks, network++, peer->number);
        }
    }
    return restore_frames(plane, roster);
}
