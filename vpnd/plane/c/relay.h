/* Frames of one peer that go to others: the hub of an Ethernet.
 *
 * Owns the choice of who gets a frame, and the way of one from a peer to other peers. Knows neither
 * how it was opened (inbound.h) nor how the link is read and written.
 */
#ifndef VPND_RELAY_H
#define VPND_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coalesce.h"
#include "segment.h"
#include "sender.h"
#include "wire.h"

struct peer;
struct plane;

/* Who gets a frame. */
struct route {
    bool is_for_link;
    bool is_for_others; /* all other peers that may have it */
    struct peer *peer;  /* this one alone, or NULL */
};

/* Where the last frame went: those of a flow follow each other. It holds for one turn of one
 * worker, or a batch: a station that moves is followed a moment later. */
struct known_receiver {
    uint32_t number; /* MAC_NONE: nothing is known */
    uint16_t vlan;
    uint8_t address[6];
};

/* What waits for one peer, in its order. The frames' bytes are others' until it was flushed. Owned
 * by one thread. */
struct relay {
    struct peer *peer;
    unsigned count;
    struct message messages[RUN_MAX];
};

/* Behind whom the frame's receiver was seen: a peer's number, MAC_LINK, or MAC_NONE for a group and
 * for nobody known. */
uint32_t relay_receiver(struct plane *plane, struct known_receiver *known, const uint8_t *frame,
                        size_t size, uint64_t now_ns);

/* Decides about a frame that was found fit for the link; false and *reason if nobody gets it. */
bool relay_route(struct plane *plane, struct known_receiver *known, struct peer *from,
                 const struct arrival *arrival, uint64_t now_ns, struct route *route,
                 enum drop_reason *reason);

/* Sends it to the peers of its route. The byte before it is overwritten; a partial checksum may
 * become a whole one. */
void relay_send(struct plane *plane, struct relay *relay, struct sender *sender, struct peer *from,
                const struct route *route, struct arrival *arrival, uint64_t now_ns);

/* What still waits goes. */
void relay_flush(struct plane *plane, struct relay *relay, struct sender *sender, uint64_t now_ns);

#endif
