/* A thread that moves packets one way.
 *
 * Owns the thread, what it waits for, and its heartbeat. Knows nothing of what is moved, nor how
 * many others there are (crew.h).
 */
#ifndef VPND_WORKER_H
#define VPND_WORKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct plane;
struct worker;

/* Called with the tables held for reading when the watched descriptor `number` has something. */
typedef void (*worker_turn)(struct worker *worker, uint32_t number);

struct worker {
    struct plane *plane;
    worker_turn turn;
    void *state;
    unsigned heartbeat; /* place in the heartbeats */
    int epoll_fd;
    int beat_fd; /* a timer, for the heartbeat of a worker with nothing to do */
    atomic_bool stops;
    atomic_bool is_prompt;
    bool is_started;
    pthread_t thread;
};

/* Makes what the worker waits on; 0 or -errno. */
int worker_open(struct worker *worker, struct plane *plane, unsigned heartbeat, worker_turn turn,
                void *state);

/* Starts the thread; 0 or -errno. */
int worker_start(struct worker *worker);

/* Any thread. A descriptor must be unwatched before it is closed: others may hold it open. */
void worker_watch(struct worker *worker, int fd, uint32_t number);
void worker_unwatch(struct worker *worker, int fd);

/* Has the thread served sooner after it woke, which costs throughput; or as any other. Any thread.
 */
void worker_hasten(struct worker *worker, bool is_prompt);

/* Ends the thread, if it was started, and waits for it. */
void worker_stop(struct worker *worker);
void worker_close(struct worker *worker);

#endif
