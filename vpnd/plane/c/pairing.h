/* Whether one thread or two serve a queue of the link and the sockets of the same number.
 *
 * Owns the choice, by how much moves. While that is little, the inbound worker serves both: what it
 * writes to the link is often answered at once, and a second thread would only have to be woken
 * for the answer (a fifth of a round trip between two quiet hosts). It is served soon then
 * (slice.h). Under load the outbound worker has the queue, and both are served as any other.
 */
#ifndef VPND_PAIRING_H
#define VPND_PAIRING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire.h"

struct plane;

/* The number under which an inbound worker watches queue n of the link is n with this bit. */
#define WATCHED_QUEUE 0x40000000u

/* Of one queue. Any worker that holds tables; the choice is made by the one that has the queue. */
struct pairing {
    atomic_bool is_joined; /* the inbound worker has the queue */
    _Atomic(uint64_t) since_ns;
    atomic_size_t work; /* since then, in WORK_BYTES; a packet counts at least one */
};

/* Somebody waits for the queue from now on, or nobody. The main thread, which holds tables for
 * writing. */
void pairing_watch(struct plane *plane, unsigned queue);
void pairing_unwatch(struct plane *plane, unsigned queue);

/* sockets.workers changed: queues whose partner will end go back to their own worker. The same
 * conditions. */
void pairing_settle(struct plane *plane);

/* So much was moved, one way or the other, by a worker of that queue or of its sockets. May hand
 * the queue over. */
void pairing_account(struct plane *plane, unsigned queue, unsigned packets, size_t bytes,
                     uint64_t now_ns);

#endif
