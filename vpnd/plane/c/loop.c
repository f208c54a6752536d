#include "loop.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "keep.h"
#include "sealing.h"
#include "sender.h"
#include "service.h"
#include "standby.h"
#include "store.h"

#define HOUSEKEEPING_MS 1000
#define PATH_TICK_MS    100
#define MAC_AGE_TURNS   10u /* seconds between two sweeps of the MAC table */
#define STANDBY_WORKS_S 60u /* a standby, which cannot renew a session, works so long */

void loop_watch(const struct program *program, int fd, enum watched number) {
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = number};
    (void)epoll_ctl(program->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

static void accept_one(struct program *program) {
    int fd = accept4(program->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
        connection_offer(&program->connection, fd, program->socket_owner);
    }
}

static void leave_standby(struct program *program) {
    if (program->standby_fd >= 0) {
        (void)keep_share(-1);
        close(program->standby_fd);
        program->standby_fd = -1;
    }
}

/* The newest is the one that will be there. */
static void accept_standby(struct program *program) {
    int fd = standby_accept(program->standbys_fd);
    if (fd >= 0) {
        keep_replace();
        leave_standby(program);
        program->standby_fd = fd;
        loop_watch(program, fd, WATCHED_STANDBY);
    }
}

static void clear_wake(struct program *program) {
    uint64_t count;
    (void)!read(program->plane.events.wake_fd, &count, sizeof(count));
}

static void tick_paths(struct plane *plane, uint64_t now_ns) {
    for (uint32_t i = 0; i < plane->peers.count; i++) {
        struct peer *peer = plane->peers.list[i];
        pthread_mutex_lock(&peer->lock);
        enum path_task task = path_tick(&peer->path, now_ns);
        if (task == PATH_FAILED) {
            atomic_fetch_sub(&plane->probations, 1);
            drop_count(plane, peer, DROP_path_failed, 1);
            events_roamed(&plane->events, peer, ROAM_FAILED, &peer->path.now.to);
        }
        pthread_mutex_unlock(&peer->lock);
        if (task == PATH_CHALLENGE) {
            send_challenge(plane, plane->sender, peer, now_ns);
        }
    }
    sender_flush(plane->sender);
}

/* Alive means: every worker's loop turned since the last time. */
static void tend_watchdog(struct program *program, uint64_t now_ns) {
    if (!watchdog_comes_due(&program->watchdog, now_ns)) {
        return;
    }
    bool is_outbound_alive = crew_is_alive(&program->plane.outbound);
    bool is_inbound_alive = crew_is_alive(&program->plane.inbound);
    if (is_outbound_alive && is_inbound_alive) {
        service_watchdog();
    }
}

static void keep_house(struct program *program, uint64_t now_ns) {
    struct plane *plane = &program->plane;
    for (uint32_t i = 0; i < plane->peers.count; i++) {
        struct peer *peer = plane->peers.list[i];
        pthread_mutex_lock(&peer->lock);
        peer_expire(plane, peer, now_ns);
        peer_want_again(plane, peer, now_ns);
        pthread_mutex_unlock(&peer->lock);
    }
    if (++program->turns % MAC_AGE_TURNS == 0) {
        mac_table_age(plane->macs, now_ns);
        service_status("%u peers, %zu sessions, %s", plane->peers.count, plane->sessions.count,
                       program->connection.fd >= 0 ? "vpnd is here" : "vpnd is away");
    }
    store_peers_moved(plane); /* where they are, is not told every time */
    program->kept_house_at_ns = now_ns;
}

/* Nobody needs us for long whom nobody can tell anything. */
static void end_if_alone(struct program *program, uint64_t now_ns) {
    struct plane *plane = &program->plane;
    if (program->is_standby) {
        plane->stopping |=
            elapsed_ns(program->works_since_ns, now_ns) >= STANDBY_WORKS_S * NS_PER_SECOND;
    } else if (program->listen_fd < 0 && program->connection.fd < 0) {
        plane->stopping = true; /* the parent is gone, and nobody else can come */
        plane->forgets = true;
    }
}

static void turn(struct program *program, const struct epoll_event *ready, int count) {
    struct plane *plane = &program->plane;
    struct connection *connection = &program->connection;
    for (int i = 0; i < count; i++) {
        switch ((enum watched)ready[i].data.u32) {
        case WATCHED_LISTEN:
            accept_one(program);
            break;
        case WATCHED_CONTROL:
            if (connection->fd >= 0) {
                connection_ready(connection);
            }
            break;
        case WATCHED_WAKE:
            clear_wake(program);
            store_peers_moved(plane); /* which may be the news */
            break;
        case WATCHED_STANDBYS:
            accept_standby(program);
            break;
        case WATCHED_STANDBY:
            if (program->standby_fd >= 0 && !standby_hear(program->standby_fd)) {
                leave_standby(program);
            }
            break;
        case WATCHED_SIGNAL:
        case WATCHED_RELIEF:
            plane->stopping = true;
            break;
        }
    }
    uint64_t now_ns = boottime_ns();
    if (atomic_load(&plane->probations) > 0) {
        tick_paths(plane, now_ns);
    }
    if (elapsed_ns(program->kept_house_at_ns, now_ns) >= HOUSEKEEPING_MS * (NS_PER_SECOND / 1000)) {
        keep_house(program, now_ns);
    }
    tend_watchdog(program, now_ns);
    /* While the socket is full nobody needs to wake us for more. */
    if (connection->outgoing_size == 0) {
        atomic_store(&plane->events.is_awake, false);
    }
    sessions_reap(plane);
    connection_deliver(connection);
    store_tend(plane, boottime_ns());
    end_if_alone(program, now_ns);
}

static int timeout_of(const struct program *program) {
    uint64_t timeout = HOUSEKEEPING_MS;
    if (atomic_load(&program->plane.probations) > 0 || program->plane.store.is_roster_due) {
        timeout = PATH_TICK_MS;
    }
    uint64_t watchdog = program->watchdog.every_ns / (NS_PER_SECOND / 1000);
    if (watchdog > 0 && watchdog < timeout) {
        timeout = watchdog;
    }
    return program->connection.has_more ? 0 : (int)timeout;
}

void loop_run(struct program *program) {
    struct epoll_event ready[8];
    while (!program->plane.stopping) {
        int count = epoll_wait(program->epoll_fd, ready, 8, timeout_of(program));
        turn(program, ready, count);
    }
}
