#include "worker.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "plane.h"
#include "slice.h"

#define EVENTS_MAX  16
#define BEAT_NS     500000000
#define BEAT_NUMBER UINT32_MAX
#define PROMPT_NS   100000 /* the shortest slice that the kernel gives */

/* Wakes the worker in so many ns, then every BEAT_NS. A timeout of epoll_wait would be set and
 * cancelled with each packet that comes alone. */
static int beat(const struct worker *worker, long first_ns) {
    struct itimerspec times = {.it_interval = {.tv_nsec = BEAT_NS},
                               .it_value = {.tv_nsec = first_ns}};
    return timerfd_settime(worker->beat_fd, 0, &times, NULL);
}

int worker_open(struct worker *worker, struct plane *plane, unsigned heartbeat, worker_turn turn,
                void *state) {
    worker->plane = plane;
    worker->turn = turn;
    worker->state = state;
    worker->heartbeat = heartbeat;
    worker->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    worker->beat_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (worker->epoll_fd < 0 || worker->beat_fd < 0 || beat(worker, BEAT_NS) < 0) {
        return -errno;
    }
    worker_watch(worker, worker->beat_fd, BEAT_NUMBER);
    return 0;
}

static void *worker_run(void *argument) {
    struct worker *worker = argument;
    struct plane *plane = worker->plane;
    struct epoll_event ready[EVENTS_MAX];
    bool is_prompt = false;
    while (!atomic_load(&worker->stops)) {
        if (is_prompt != atomic_load_explicit(&worker->is_prompt, memory_order_relaxed)) {
            is_prompt = !is_prompt;
            slice_ask(is_prompt ? PROMPT_NS : 0);
        }
        int count = epoll_wait(worker->epoll_fd, ready, EVENTS_MAX, -1);
        counter_add(&plane->counters->heartbeats[worker->heartbeat], 1);
        if (count <= 0) {
            continue;
        }
        pthread_rwlock_rdlock(&plane->tables);
        for (int i = 0; i < count; i++) {
            if (ready[i].data.u32 == BEAT_NUMBER) {
                uint64_t beats;
                (void)!read(worker->beat_fd, &beats, sizeof(beats));
            } else {
                worker->turn(worker, ready[i].data.u32);
            }
        }
        pthread_rwlock_unlock(&plane->tables);
    }
    return NULL;
}

int worker_start(struct worker *worker) {
    int error = pthread_create(&worker->thread, NULL, worker_run, worker);
    worker->is_started = error == 0;
    return -error;
}

void worker_hasten(struct worker *worker, bool is_prompt) {
    atomic_store_explicit(&worker->is_prompt, is_prompt, memory_order_relaxed);
}

void worker_watch(struct worker *worker, int fd, uint32_t number) {
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = number};
    (void)epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

void worker_unwatch(struct worker *worker, int fd) {
    (void)epoll_ctl(worker->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

void worker_stop(struct worker *worker) {
    if (!worker->is_started) {
        return;
    }
    atomic_store(&worker->stops, true);
    (void)beat(worker, 1);
    pthread_join(worker->thread, NULL);
    worker->is_started = false;
}

void worker_close(struct worker *worker) {
    if (worker->epoll_fd >= 0) {
        close(worker->epoll_fd);
    }
    if (worker->beat_fd >= 0) {
        close(worker->beat_fd);
    }
    worker->epoll_fd = -1; /* what is unwatched from now on is none of its business */
    worker->beat_fd = -1;
}
