/* Where a peer is: its endpoint, whether that is proven, and our own address towards it.
 *
 * Owns the roaming rule of protocol section 7: probation, its budget, the challenge and the way
 * back. Pure: time and random bytes come in, what to send comes out. Knows no socket or session.
 */
#ifndef VPND_PATH_H
#define VPND_PATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "wire.h"

#define PATH_TOKEN_SIZE 8u

/* Our side of a path: the address and socket the peer's last message came in by. */
struct source {
    uint8_t family; /* 0: the kernel chooses */
    uint8_t socket; /* place in sockets.list, valid for this generation of them */
    uint16_t zero;
    uint32_t generation;
    uint8_t address[16];
};

struct destination {
    struct wire_endpoint to;
    struct source from;
    uint8_t hops; /* how far; 0: the kernel's own measure */
    uint8_t tos;  /* DSCP and ECN of the outer header */
    uint8_t zero[6];
};

/* Guarded by its peer's lock. */
struct path {
    struct destination now;       /* family 0: no endpoint known */
    struct destination validated; /* where it goes back to */
    bool on_probation;
    uint64_t probation_since_ns;
    uint64_t challenged_at_ns;
    uint64_t received; /* bytes from the address on probation, and to it */
    uint64_t sent;
    uint8_t token[PATH_TOKEN_SIZE];
    struct wire_endpoint left; /* vpnd set another endpoint in place of this one; family 0: none */
    uint64_t left_at_ns;
    uint64_t answered_at_ns; /* the last challenge of the peer's that was answered */
    struct wire_endpoint answered;
};

enum path_change {
    PATH_SAME = 0,
    PATH_MOVED,    /* on probation now: send the challenge */
    PATH_RETURNED, /* back at the validated address */
};

enum path_task { PATH_NOTHING = 0, PATH_CHALLENGE, PATH_FAILED };

static inline bool endpoint_equal(const struct wire_endpoint *one,
                                  const struct wire_endpoint *other) {
    return memcmp(one, other, sizeof(*one)) == 0;
}

/* The endpoint is proven: by configuration, by a confirmation from where the response went, or
 * by an answered challenge. Ends a probation. */
void path_set_valid(struct path *path, const struct destination *to);

/* vpnd is about to set `to`, and the peer does not know yet: what it still sends from its present
 * endpoint moves nothing until it was heard from the new one, or for 3 s. */
void path_leave(struct path *path, const struct wire_endpoint *to, uint64_t now_ns);

/* The newest message of the peer came from `from` and had `size` bytes. On PATH_MOVED `token`
 * (fresh random bytes) is the challenge. */
enum path_change path_arrived(struct path *path, const struct destination *from, size_t size,
                              const uint8_t token[PATH_TOKEN_SIZE], uint64_t now_ns);

/* May `size` bytes be sent to the endpoint now? Counts them if so. A part of the budget is kept for
 * the messages that end a probation. */
bool path_may_send(struct path *path, size_t size, bool is_proof);

/* The peer answered a challenge: true if that ends the probation. */
bool path_answered(struct path *path, const uint8_t token[PATH_TOKEN_SIZE]);

/* May a challenge of the peer from this address be answered now? Once a second per address. */
bool path_may_answer(struct path *path, const struct wire_endpoint *from, uint64_t now_ns);

/* What a path on probation needs now. On PATH_FAILED it is back at the validated address, or has
 * no endpoint if there never was one. */
enum path_task path_tick(struct path *path, uint64_t now_ns);

#endif
