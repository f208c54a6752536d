/* Packets that wait for a session of their peer.
 *
 * Owns their copies and the bounds on them, per peer and for all, and says when a session is
 * wanted. Knows no session. The caller holds peer->lock for everything here.
 */
#ifndef VPND_STAGING_H
#define VPND_STAGING_H

#include <stdint.h>

#include "segment.h"

struct peer;
struct plane;

struct staged_packet {
    struct staged_packet *next;
    enum message_kind kind;
    bool is_partial;
    uint32_t size;
    uint8_t bytes[];
};

/* Keeps a copy of the message, which is finished, until a session comes, and wants one. */
void peer_stage(struct plane *plane, struct peer *peer, const struct message *message,
                uint64_t now_ns);

/* Says again that a session is wanted, if packets have waited for a second since the last time. */
void peer_want_again(struct plane *plane, struct peer *peer, uint64_t now_ns);

/* Takes all staged packets, a list for staged_free. */
struct staged_packet *peer_unstage(struct plane *plane, struct peer *peer);
void staged_free(struct staged_packet *packet);

/* Drops all staged packets. */
void peer_flush_staged(struct plane *plane, struct peer *peer);

#endif
