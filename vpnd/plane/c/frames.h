/* What Ethernet frames a peer may send and get: VLANs, storms, other peers.
 *
 * Owns these rules and their checks; whose MAC addresses are whose is the table's (mac_table.h).
 * Knows neither links nor sessions.
 */
#ifndef VPND_FRAMES_H
#define VPND_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire.h"

struct peer;
struct plane;

/* As vpnd gave them, which is also how they are stored. */
struct frame_rules {
    struct set_peer_frames_request wanted;
    struct wire_mac macs[];
};

/* Is every value within its range? `macs` are wanted->mac_count ones. */
bool frames_are_valid(const struct set_peer_frames_request *wanted, const struct wire_mac *macs);

/* Sets the peer's rules, which are valid. 0; -ENOMEM: nothing changed. The main thread, holding
 * tables for writing. */
int frames_set(struct plane *plane, struct peer *peer, const struct set_peer_frames_request *wanted,
               const struct wire_mac *macs);

/* ---- workers, holding tables for reading ---- */

/* May the frame come from the peer, or go to it, in its VLAN? */
bool frames_may_pass(const struct peer *peer, const uint8_t *frame, size_t size);

/* Do the two exchange frames? */
bool frames_are_exchanged(const struct peer *one, const struct peer *other);
bool frames_are_relayed(const struct peer *peer);

enum frames_direction { FRAMES_FROM_PEER, FRAMES_TO_PEER };

/* Counts a frame for everybody or nobody known; false: that is one too many. Takes peer->lock. */
bool frames_flood(struct peer *peer, enum frames_direction direction, uint64_t now_ns);

#endif
