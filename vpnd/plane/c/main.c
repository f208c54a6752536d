/* vpnd-plane: moves packets between a link and UDP sockets, sealed.
 *
 * Owns the command line, the order of set-up and the main thread's loop. Everything that needs a
 * privilege or a path happens before the sandbox closes; the first byte of anybody else is read
 * after it.
 */
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "connection.h"
#include "inbound.h"
#include "listener.h"
#include "outbound.h"
#include "plane.h"
#include "sandbox.h"
#include "sealing.h"
#include "service.h"

#define EXIT_USAGE      64
#define HOUSEKEEPING_MS 1000
#define PATH_TICK_MS    100
#define MAC_AGE_TURNS   10u /* seconds between two sweeps of the MAC table */
#define BACKLOG         4

enum watched { WATCHED_LISTEN, WATCHED_CONTROL, WATCHED_WAKE, WATCHED_SIGNAL };

struct options {
    const char *listen_path;
    const char *aead;
    int control_fd; /* -1: none */
};

/* Owned by the main thread. */
struct program {
    struct plane plane;
    struct connection connection;
    int epoll_fd;
    int signal_fd;
    int listen_fd; /* -1: the parent's socket is all there is */
    uid_t socket_owner;
    uint64_t kept_house_at_ns;
    uint64_t watchdog_ns; /* 0: none */
    uint64_t watched_at_ns;
    unsigned turns;
};

static int fail(const char *what, int error) {
    fprintf(stderr, "vpnd-plane: %s: %s\n", what, strerror(-error));
    return error;
}

/* ---- the command line ---- */

static void usage(FILE *out) {
    fputs("usage: vpnd-plane (--control-fd N | --listen PATH) [--aead ipsec-mb|openssl]\n"
          "       vpnd-plane --version\n",
          out);
}

static bool parse_fd(const char *text, int *fd) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno != 0 || *text == '\0' || *end != '\0' || value < 0 || value > 65535) {
        return false;
    }
    *fd = (int)value;
    return true;
}

/* True to go on; else *status is the exit status. */
static bool parse_options(int count, char **arguments, struct options *options, int *status) {
    static const struct option known[] = {{"control-fd", required_argument, NULL, 'c'},
                                          {"listen", required_argument, NULL, 'l'},
                                          {"aead", required_argument, NULL, 'a'},
                                          {"version", no_argument, NULL, 'v'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    *status = EXIT_USAGE;
    for (int found; (found = getopt_long(count, arguments, "", known, NULL)) != -1;) {
        switch (found) {
        case 'c':
            if (!parse_fd(optarg, &options->control_fd)) {
                fprintf(stderr, "vpnd-plane: --control-fd: not a descriptor: %s\n", optarg);
                return false;
            }
            break;
        case 'l':
            options->listen_path = optarg;
            break;
        case 'a':
            options->aead = optarg;
            break;
        case 'v':
            puts("vpnd-plane " VPND_VERSION);
            *status = EXIT_SUCCESS;
            return false;
        case 'h':
            usage(stdout);
            *status = EXIT_SUCCESS;
            return false;
        default:
            usage(stderr);
            return false;
        }
    }
    if (optind != count || (options->control_fd >= 0 && options->listen_path != NULL)) {
        usage(stderr);
        return false;
    }
    return true;
}

/* ---- the control socket ---- */

static void watch(const struct program *program, int fd, enum watched number) {
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = number};
    (void)epoll_ctl(program->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

static int open_control(struct program *program, const struct options *options) {
    program->listen_fd = -1;
    if (options->control_fd >= 0) {
        if (!is_control_socket(options->control_fd)) {
            return fail("--control-fd: not a SOCK_SEQPACKET unix socket", -ENOTSOCK);
        }
        return connection_adopt(&program->connection, options->control_fd);
    }
    if (options->listen_path != NULL) {
        int error = listener_open(options->listen_path, &program->listen_fd);
        if (error < 0) {
            return fail(options->listen_path, error);
        }
    } else {
        program->listen_fd = service_listen_fd();
        if (program->listen_fd < 0) {
            usage(stderr);
            return -EINVAL;
        }
    }
    program->socket_owner = listener_owner(program->listen_fd);
    watch(program, program->listen_fd, WATCHED_LISTEN);
    return 0;
}

/* ---- set-up ---- */

static int open_tables(struct plane *plane) {
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
    /* Workers read all the time: a request must not wait for a moment without any. */
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&plane->tables, &attributes);
    pthread_rwlockattr_destroy(&attributes);
    plane->networks = networks_new();
    plane->macs = mac_table_new(MAC_LIMIT_DEFAULT, MAC_AGE_DEFAULT_S);
    plane->gate = gate_new();
    plane->sender = sender_new(plane);
    plane->ways = calloc(1, sizeof(*plane->ways));
    if (plane->networks == NULL || plane->macs == NULL || plane->gate == NULL ||
        plane->sender == NULL || plane->ways == NULL || peers_open(&plane->peers) < 0 ||
        events_open(&plane->events) < 0 ||
        !random_fill((uint8_t *)&plane->ways->seed, sizeof(plane->ways->seed))) {
        return -ENOMEM;
    }
    return 0;
}

static int open_workers(struct plane *plane) {
    static const struct crew_kind outbound = {0, outbound_turn, outbound_new, outbound_free};
    static const struct crew_kind inbound = {1, inbound_turn, inbound_new, inbound_free};
    int error = crew_open(&plane->outbound, plane, &outbound);
    return error < 0 ? error : crew_open(&plane->inbound, plane, &inbound);
}

static int open_signals(struct program *program) {
    sigset_t ending;
    sigemptyset(&ending);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGINT);
    signal(SIGPIPE, SIG_IGN);
    pthread_sigmask(SIG_BLOCK, &ending, NULL);
    program->signal_fd = signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK);
    return program->signal_fd < 0 ? -errno : 0;
}

static int open_program(struct program *program, const struct options *options) {
    struct plane *plane = &program->plane;
    int error = open_signals(program);
    atomic_store(&plane->offloads.wanted, OFFLOAD_ALL);
    plane->aead = aead_choose(options->aead);
    if (plane->aead == NULL) {
        return fail(options->aead == NULL ? "no AEAD back end" : options->aead, -EOPNOTSUPP);
    }
    program->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (error < 0 || program->epoll_fd < 0) {
        return fail("set-up", error < 0 ? error : -errno);
    }
    if ((error = open_tables(plane)) < 0 ||
        (error = connection_open(&program->connection, plane, program->epoll_fd, WATCHED_CONTROL)) <
            0 ||
        (error = open_workers(plane)) < 0) {
        return fail("set-up", error);
    }
    if ((error = store_open(plane, boottime_ns())) < 0) {
        return fail("shared memory", error);
    }
    watch(program, plane->events.wake_fd, WATCHED_WAKE);
    watch(program, program->signal_fd, WATCHED_SIGNAL);
    return open_control(program, options);
}

static int start(struct program *program) {
    struct plane *plane = &program->plane;
    /* Before it gives back memory of a thread's own heap, the C library opens a file of /proc,
     * which the sandbox answers with the end of the process. With one heap it never does. */
    (void)mallopt(M_ARENA_MAX, 1);
    int error = sandbox_enter();
    if (error < 0) {
        return fail("sandbox", error);
    }
    /* What a former process left behind is no more to be trusted than a stranger's packet. */
    store_take_back(plane, boottime_ns());
    error = crew_start(&plane->outbound);
    if (error == 0) {
        error = crew_start(&plane->inbound);
    }
    if (error < 0) {
        return fail("threads", error);
    }
    program->watchdog_ns = service_watchdog_usec() * 1000;
    store_settle(plane);
    service_ready();
    return 0;
}

/* ---- the loop ---- */

static void accept_one(struct program *program) {
    int fd = accept4(program->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
        connection_offer(&program->connection, fd, program->socket_owner);
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
    if (program->watchdog_ns == 0 ||
        elapsed_ns(program->watched_at_ns, now_ns) < program->watchdog_ns / 3) {
        return;
    }
    bool is_outbound_alive = crew_is_alive(&program->plane.outbound);
    bool is_inbound_alive = crew_is_alive(&program->plane.inbound);
    program->watched_at_ns = now_ns;
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
        case WATCHED_SIGNAL:
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
    if (program->listen_fd < 0 && connection->fd < 0) {
        plane->stopping = true; /* the parent is gone, and nobody else can come */
        plane->forgets = true;
    }
}

static int timeout_of(const struct program *program) {
    uint64_t timeout = HOUSEKEEPING_MS;
    if (atomic_load(&program->plane.probations) > 0 || program->plane.store.is_roster_due) {
        timeout = PATH_TICK_MS;
    }
    uint64_t watchdog = program->watchdog_ns / 3 / (NS_PER_SECOND / 1000);
    if (program->watchdog_ns > 0 && watchdog < timeout) {
        timeout = watchdog;
    }
    return program->connection.has_more ? 0 : (int)timeout;
}

static void run(struct program *program) {
    struct epoll_event ready[8];
    while (!program->plane.stopping) {
        int count = epoll_wait(program->epoll_fd, ready, 8, timeout_of(program));
        turn(program, ready, count);
    }
}

/* ---- the end ---- */

static void leave_peers(struct plane *plane) {
    while (plane->peers.count > 0) {
        struct peer *peer = plane->peers.list[0];
        struct session *const sessions[] = {peer->current, peer->previous, peer->unconfirmed[0],
                                            peer->unconfirmed[1]};
        for (size_t i = 0; i < sizeof(sessions) / sizeof(sessions[0]); i++) {
            if (sessions[i] != NULL) {
                session_leave(plane, sessions[i]);
            }
        }
        peer_free(plane, peer);
    }
}

/* What the descriptor store keeps stays as it is for our successor. */
static void close_program(struct program *program) {
    struct plane *plane = &program->plane;
    service_stopping();
    crew_stop(&plane->outbound);
    crew_stop(&plane->inbound);
    crew_close(&plane->outbound);
    crew_close(&plane->inbound);
    sessions_reap(plane);
    store_close(plane, plane->forgets);
    link_close(plane);
    sockets_close(plane);
    connection_close(&program->connection);
    leave_peers(plane);
    memory_close(&plane->memory);
    session_map_close(&plane->sessions);
    peers_close(&plane->peers);
    networks_free(plane->networks);
    mac_table_free(plane->macs);
    gate_free(plane->gate);
    events_close(&plane->events);
    sender_free(plane->sender);
    free(plane->ways);
    counters_close(plane->counters, plane->counters_fd);
}

int main(int count, char **arguments) {
    struct options options = {.control_fd = -1};
    int status;
    if (!parse_options(count, arguments, &options, &status)) {
        return status;
    }
    struct program *program = calloc(1, sizeof(*program));
    if (program == NULL) {
        return EXIT_FAILURE;
    }
    if (open_program(program, &options) < 0 || start(program) < 0) {
        exit(EXIT_FAILURE); /* what stands so far goes with the process */
    }
    run(program);
    close_program(program);
    free(program);
    return EXIT_SUCCESS;
}
