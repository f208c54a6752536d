/* The threads of one direction.
 *
 * Owns how many there are and what state each has. Work is given out by number: queue or socket
 * number n belongs to worker n modulo the count, so a flow stays with one thread and in order.
 * Belongs to the main thread, but for unwatching.
 */
#ifndef VPND_CREW_H
#define VPND_CREW_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "worker.h"

#define WORKERS_MAX 32u /* per direction */
#define DIRECTIONS  2u

struct plane;

/* What the threads of a direction do, and how each one's state is made for its number. */
struct crew_kind {
    unsigned direction; /* below DIRECTIONS; heartbeats of the directions stand in turn */
    worker_turn turn;
    void *(*state_new)(struct plane *plane, unsigned number);
    void (*state_free)(void *state);
};

struct crew {
    struct plane *plane;
    const struct crew_kind *kind;
    bool is_started;
    atomic_uint count; /* changed by the main thread */
    struct worker workers[WORKERS_MAX];
    uint64_t heartbeats[WORKERS_MAX]; /* when they were last looked at */
};

/* One worker, which waits for crew_start. 0 or -errno. */
int crew_open(struct crew *crew, struct plane *plane, const struct crew_kind *kind);
int crew_start(struct crew *crew);

/* Ends the threads, then frees what they had: a worker of one direction uses the state of the other
 * (pairing.h), so all of them stop before any is closed. */
void crew_stop(struct crew *crew);
void crew_close(struct crew *crew);

/* Adds workers up to `count`; 0 or -errno, then nothing changed. */
int crew_grow(struct crew *crew, unsigned count);

/* Ends workers down to `count`, which watch nothing any more. The caller does not hold tables. */
void crew_shrink(struct crew *crew, unsigned count);

/* Any thread that holds tables. A descriptor must be unwatched before it is closed. */
void crew_watch(struct crew *crew, unsigned worker, int fd, uint32_t number);
void crew_unwatch(struct crew *crew, unsigned worker, int fd);

/* See worker_hasten. */
void crew_hasten(struct crew *crew, unsigned worker, bool is_prompt);

/* Did every worker's loop turn since the last time this was asked? */
bool crew_is_alive(struct crew *crew);

#endif
