/* Messages become sealed datagrams.
 *
 * Owns every sealing, whichever thread asks: the session to use, its counters, padding, the
 * budget of an unproven endpoint. Knows neither where messages come from nor how datagrams leave
 * (sender.h).
 */
#ifndef VPND_SEALING_H
#define VPND_SEALING_H

#include <stdbool.h>
#include <stdint.h>

#include "path.h"
#include "segment.h"
#include "sender.h"

struct peer;
struct plane;
struct session;

enum send_result {
    SEND_DONE = 0,
    SEND_NO_SESSION,
    SEND_NO_ENDPOINT,
    SEND_OVER_BUDGET, /* counted as path_budget */
    SEND_NO_SOCKET,   /* counted as no_socket */
};

/* Puts packets or frames, at most RUN_MAX, for the peer into the sender; without a session they
 * are staged. Takes peer->lock. Reorders `messages`. */
void send_data(struct plane *plane, struct sender *sender, struct peer *peer,
               struct message *messages, unsigned count, uint64_t now_ns);

/* Puts one control message or keepalive into the sender: on `session` or with NULL on the current
 * one, to `to` or with NULL to the peer's endpoint. Takes peer->lock. */
enum send_result send_control(struct plane *plane, struct sender *sender, struct peer *peer,
                              struct session *session, const struct destination *to,
                              const uint8_t *bytes, size_t size, uint64_t now_ns);

/* Sends what was staged, in its order and before anything newer; false if there was nothing or
 * nothing to send it on. Takes peer->lock, flushes. */
bool send_staged(struct plane *plane, struct sender *sender, struct peer *peer, uint64_t now_ns);

/* Challenges the address on probation with the path's token. Takes peer->lock. */
void send_challenge(struct plane *plane, struct sender *sender, struct peer *peer, uint64_t now_ns);

#endif
