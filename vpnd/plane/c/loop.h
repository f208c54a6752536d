/* The main thread's loop: who wakes it, and what it does by the clock.
 *
 * Owns the list of what is watched and the order within a turn. Set-up and end are main.c's.
 */
#ifndef VPND_LOOP_H
#define VPND_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "connection.h"
#include "plane.h"
#include "service.h"

enum watched {
    WATCHED_LISTEN,
    WATCHED_CONTROL,
    WATCHED_WAKE,
    WATCHED_SIGNAL,
    WATCHED_STANDBYS, /* the socket where one asks for us */
    WATCHED_STANDBY,
    WATCHED_RELIEF
};

/* Owned by the main thread. */
struct program {
    struct plane plane;
    struct connection connection;
    int epoll_fd;
    int signal_fd;
    int listen_fd; /* -1: the parent's socket is all there is */
    uid_t socket_owner;
    int standbys_fd; /* -1: none can come */
    int standby_fd;  /* -1: none is there */
    bool is_standby;
    uint64_t works_since_ns;
    uint64_t kept_house_at_ns;
    struct watchdog watchdog;
    unsigned turns;
};

/* Has the loop woken when the descriptor is readable. */
void loop_watch(const struct program *program, int fd, enum watched number);

/* Turns until the plane is stopping. */
void loop_run(struct program *program);

#endif
