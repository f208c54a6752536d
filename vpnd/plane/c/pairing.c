#include "pairing.h"

#include "plane.h"

#define WORK_BYTES 2048u
#define BUSY_NS    (NS_PER_SECOND / 100)
#define BUSY_WORK  100u /* within BUSY_NS: 10,000 packets a second, or 160 Mbit/s */
#define QUIET_NS   (NS_PER_SECOND / 10)
#define QUIET_WORK 200u /* within QUIET_NS: a fifth of that */

static struct pairing *pairing_of(struct plane *plane, unsigned queue) {
    return &plane->pairings[queue];
}

static void join(struct plane *plane, unsigned queue) {
    int fd = plane->link.fds[queue];
    crew_unwatch(&plane->outbound, queue, fd);
    atomic_store(&pairing_of(plane, queue)->is_joined, true);
    crew_hasten(&plane->inbound, queue, true);
    crew_watch(&plane->inbound, queue, fd, WATCHED_QUEUE | queue);
}

static void split(struct plane *plane, unsigned queue) {
    int fd = plane->link.fds[queue];
    crew_unwatch(&plane->inbound, queue, fd);
    atomic_store(&pairing_of(plane, queue)->is_joined, false);
    crew_hasten(&plane->inbound, queue, false);
    crew_watch(&plane->outbound, queue, fd, queue);
}

/* Is there an inbound worker of that number, and will there be while the tables are held? */
static bool has_partner(const struct plane *plane, unsigned queue) {
    return queue < plane->sockets.workers;
}

void pairing_watch(struct plane *plane, unsigned queue) {
    struct pairing *pairing = pairing_of(plane, queue);
    atomic_store(&pairing->since_ns, 0);
    atomic_store(&pairing->work, 0);
    if (has_partner(plane, queue)) {
        join(plane, queue);
    } else {
        split(plane, queue);
    }
}

void pairing_unwatch(struct plane *plane, unsigned queue) {
    int fd = plane->link.fds[queue];
    crew_unwatch(&plane->outbound, queue, fd);
    crew_unwatch(&plane->inbound, queue, fd);
}

void pairing_settle(struct plane *plane) {
    for (unsigned queue = plane->sockets.workers; queue < plane->link.queues; queue++) {
        if (atomic_load(&pairing_of(plane, queue)->is_joined)) {
            split(plane, queue);
        }
    }
}

static void begin(struct pairing *pairing, uint64_t now_ns) {
    atomic_store_explicit(&pairing->work, 0, memory_order_relaxed);
    atomic_store_explicit(&pairing->since_ns, now_ns, memory_order_relaxed);
}

/* Only the worker that has the queue gives it away, so there is never more than one to do it. */
void pairing_account(struct plane *plane, unsigned queue, unsigned packets, size_t bytes,
                     uint64_t now_ns) {
    if (queue >= plane->link.queues || !atomic_load(&plane->link.works)) {
        return;
    }
    struct pairing *pairing = pairing_of(plane, queue);
    size_t fresh = packets + bytes / WORK_BYTES;
    size_t work = atomic_fetch_add_explicit(&pairing->work, fresh, memory_order_relaxed) + fresh;
    uint64_t since = atomic_load_explicit(&pairing->since_ns, memory_order_relaxed);
    uint64_t elapsed = elapsed_ns(since, now_ns);
    if (atomic_load(&pairing->is_joined)) {
        if (work > BUSY_WORK && elapsed <= BUSY_NS) {
            split(plane, queue);
        }
        if (work > BUSY_WORK || elapsed > BUSY_NS) {
            begin(pairing, now_ns);
        }
    } else if (elapsed >= QUIET_NS) {
        if (work < QUIET_WORK && has_partner(plane, queue)) {
            join(plane, queue);
        }
        begin(pairing, now_ns);
    }
}
