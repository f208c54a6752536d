#include "crew.h"

#include <errno.h>
#include <string.h>

#include "plane.h"

static int add_worker(struct crew *crew) {
    struct plane *plane = crew->plane;
    struct worker *worker = &crew->workers[crew->count];
    unsigned heartbeat = crew->count * DIRECTIONS + crew->kind->direction;
    *worker = (struct worker){.epoll_fd = -1, .beat_fd = -1};
    void *state = crew->kind->state_new(plane, crew->count);
    if (state == NULL) {
        return -ENOMEM;
    }
    int error = worker_open(worker, plane, heartbeat, crew->kind->turn, state);
    if (error == 0 && crew->is_started) {
        error = worker_start(worker);
    }
    if (error < 0) {
        worker_close(worker);
        crew->kind->state_free(state);
        return error;
    }
    crew->count++;
    return 0;
}

/* How many heartbeats vpnd looks at. */
static void tell_count(const struct crew *crew) {
    struct counters_head *counters = crew->plane->counters;
    unsigned slots = 0;
    const struct crew *const crews[] = {&crew->plane->outbound, &crew->plane->inbound};
    for (unsigned i = 0; i < DIRECTIONS; i++) {
        slots = crews[i]->count > slots ? crews[i]->count : slots;
    }
    if (counters != NULL) {
        __atomic_store_n(&counters->workers, slots * DIRECTIONS, __ATOMIC_RELAXED);
    }
}

int crew_open(struct crew *crew, struct plane *plane, const struct crew_kind *kind) {
    crew->plane = plane;
    crew->kind = kind;
    return add_worker(crew);
}

int crew_start(struct crew *crew) {
    int error = 0;
    for (unsigned i = 0; i < crew->count && error == 0; i++) {
        error = worker_start(&crew->workers[i]);
    }
    crew->is_started = error == 0;
    return error;
}

static void remove_worker(struct crew *crew) {
    struct worker *worker = &crew->workers[--crew->count];
    worker_stop(worker);
    worker_close(worker);
    crew->kind->state_free(worker->state);
}

void crew_stop(struct crew *crew) {
    for (unsigned i = 0; i < crew->count; i++) {
        worker_stop(&crew->workers[i]);
    }
}

void crew_close(struct crew *crew) {
    while (crew->count > 0) {
        remove_worker(crew);
    }
}

int crew_grow(struct crew *crew, unsigned count) {
    unsigned before = crew->count;
    while (crew->count < count) {
        int error = add_worker(crew);
        if (error < 0) {
            crew_shrink(crew, before);
            return error;
        }
    }
    tell_count(crew);
    return 0;
}

void crew_shrink(struct crew *crew, unsigned count) {
    while (crew->count > count && crew->count > 1) {
        remove_worker(crew);
    }
    tell_count(crew);
}

void crew_watch(struct crew *crew, unsigned worker, int fd, uint32_t number) {
    worker_watch(&crew->workers[worker], fd, number);
}

void crew_unwatch(struct crew *crew, unsigned worker, int fd) {
    if (worker < crew->count) {
        worker_unwatch(&crew->workers[worker], fd);
    }
}

void crew_hasten(struct crew *crew, unsigned worker, bool is_prompt) {
    if (worker < crew->count) {
        worker_hasten(&crew->workers[worker], is_prompt);
    }
}

bool crew_is_alive(struct crew *crew) {
    bool is_alive = true;
    for (unsigned i = 0; i < crew->count; i++) {
        uint64_t beats = __atomic_load_n(
            &crew->plane->counters->heartbeats[crew->workers[i].heartbeat], __ATOMIC_RELAXED);
        is_alive &= beats != crew->heartbeats[i];
        crew->heartbeats[i] = beats;
    }
    return is_alive;
}
