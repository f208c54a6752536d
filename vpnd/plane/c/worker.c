#include "worker.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "plane.h"

#define EVENTS_MAX   16
#define HEARTBEAT_MS 500
#define STOP_NUMBER  UINT32_MAX

int worker_open(struct worker *worker, struct plane *plane, unsigned heartbeat, worker_turn turn,
                void *state) {
    worker->plane = plane;
    worker->turn = turn;
    worker->state = state;
    worker->heartbeat = heartbeat;
    worker->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    worker->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (worker->epoll_fd < 0 || worker->stop_fd < 0) {
        return -errno;
    }
    worker_watch(worker, worker->stop_fd, STOP_NUMBER);
    return 0;
}

static void *worker_run(void *argument) {
    struct worker *worker = argument;
    struct plane *plane = worker->plane;
    struct epoll_event ready[EVENTS_MAX];
    while (!atomic_load(&worker->stops)) {
        int count = epoll_wait(worker->epoll_fd, ready, EVENTS_MAX, HEARTBEAT_MS);
        counter_add(&plane->counters->heartbeats[worker->heartbeat], 1);
        if (count <= 0) {
            continue;
        }
        pthread_rwlock_rdlock(&plane->tables);
        for (int i = 0; i < count; i++) {
            if (ready[i].data.u32 != STOP_NUMBER) {
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

void worker_watch(struct worker *worker, int fd, uint32_t number) {
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = number};
    (void)epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

void worker_unwatch(struct worker *worker, int fd) {
    (void)epoll_ctl(worker->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

void worker_stop(struct worker *worker) {
    uint64_t one = 1;
    if (!worker->is_started) {
        return;
    }
    atomic_store(&worker->stops, true);
    (void)!write(worker->stop_fd, &one, sizeof(one));
    pthread_join(worker->thread, NULL);
    worker->is_started = false;
}

void worker_close(struct worker *worker) {
    if (worker->epoll_fd >= 0) {
        close(worker->epoll_fd);
    }
    if (worker->stop_fd >= 0) {
        close(worker->stop_fd);
    }
    worker->epoll_fd = -1; /* what is unwatched from now on is none of its business */
    worker->stop_fd = -1;
}
