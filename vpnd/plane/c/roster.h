/* Peers, their networks and what frames they may send as they are written down for a later process.
 *
 * Owns that form, its checks and its way back into the plane. The memory is the caller's (store.h).
 * Keys of sessions are not in it, nor what waits for a session.
 */
#ifndef VPND_ROSTER_H
#define VPND_ROSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "path.h"
#include "wire.h"

#define ROSTER_NETWORKS_MAX (1u << 20)
#define ROSTER_MACS_MAX     (1u << 18)

struct plane;

struct roster_peer {
    uint32_t number;
    uint32_t mtu;
    uint32_t network_count; /* of the list of all, in turn */
    uint32_t zero;
    uint8_t public_key[32];
    struct destination way; /* proven */
};

_Static_assert(sizeof(struct roster_peer) % 8 == 0, "summed by words");

struct roster {
    uint64_t sum; /* of all that follows, as far as it is used */
    uint32_t peer_count;
    uint32_t network_count;
    uint32_t frames_count;
    uint32_t mac_count;
    struct roster_peer peers[COUNTERS_PEER_MAX];
    struct set_peer_frames_request frames[COUNTERS_PEER_MAX]; /* of those that have any */
    struct wire_mac macs[ROSTER_MACS_MAX];                    /* in turn */
    struct wire_network networks[ROSTER_NETWORKS_MAX];
    uint64_t end; /* so that the last word of the networks is whole */
};

/* Writes all peers down; false if they have more networks or static MAC addresses than there is
 * room for. */
bool roster_write(struct plane *plane, struct roster *roster);

/* Is it whole, and each value within its range? */
bool roster_is_sound(const struct roster *roster);

/* Makes the peers of a sound roster. 0; -EINVAL where two have one number, or rules are of a peer
 * that is not there; -ENOMEM. */
int roster_restore(struct plane *plane, const struct roster *roster);

/* A number that differs where the form does. */
uint64_t roster_layout(void);

#endif
