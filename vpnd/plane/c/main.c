/* vpnd-plane: moves packets between a link and UDP sockets, sealed.
 *
 * Owns the order of set-up and of the end, for the plane that works and the one that stands by.
 * Everything that needs a privilege or a path happens before the sandbox closes; the first byte of
 * anybody else is read after it.
 */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sysexits.h>
#include <unistd.h>

#include "inbound.h"
#include "listener.h"
#include "loop.h"
#include "options.h"
#include "outbound.h"
#include "sandbox.h"
#include "service.h"
#include "standby.h"

#define NAME_STANDBY "standby" /* FileDescriptorName of its socket unit */

static int fail(const char *what, int error) {
    fprintf(stderr, "vpnd-plane: %s: %s\n", what, strerror(-error));
    return error;
}

/* ---- the control socket ---- */

static int open_control(struct program *program, const struct options *options) {
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
        program->standbys_fd = service_take(NAME_STANDBY);
        program->listen_fd = service_listen_fd();
        if (program->listen_fd < 0) {
            options_usage();
            return -EINVAL;
        }
    }
    program->socket_owner = listener_owner(program->listen_fd);
    loop_watch(program, program->listen_fd, WATCHED_LISTEN);
    if (program->standbys_fd >= 0) {
        loop_watch(program, program->standbys_fd, WATCHED_STANDBYS);
        standby_show_self();
    }
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
    program->listen_fd = -1;
    program->standbys_fd = -1;
    program->standby_fd = -1;
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
    loop_watch(program, plane->events.wake_fd, WATCHED_WAKE);
    loop_watch(program, program->signal_fd, WATCHED_SIGNAL);
    return 0;
}

static int close_sandbox(void) {
    /* Before it gives back memory of a thread's own heap, the C library opens a file of /proc,
     * which the sandbox answers with the end of the process. With one heap it never does. */
    (void)mallopt(M_ARENA_MAX, 1);
    int error = sandbox_enter();
    return error < 0 ? fail("sandbox", error) : 0;
}

static int start_workers(struct plane *plane) {
    int error = crew_start(&plane->outbound);
    return error < 0 ? error : crew_start(&plane->inbound);
}

/* From here on packets move. What a former process left behind is no more to be trusted than a
 * stranger's packet: it is taken within the sandbox. */
static int begin(struct program *program) {
    struct plane *plane = &program->plane;
    int error = store_open(plane, boottime_ns());
    if (error < 0) {
        return fail("shared memory", error);
    }
    store_take_back(plane, boottime_ns());
    /* No worker moves a packet before the store says that this process got to work: whenever it
     * ends then, nobody holds that against what it took. */
    pthread_rwlock_wrlock(&plane->tables);
    error = start_workers(plane);
    if (error == 0) {
        store_settle(plane);
    }
    pthread_rwlock_unlock(&plane->tables);
    if (error < 0) {
        return fail("threads", error);
    }
    program->works_since_ns = boottime_ns();
    return 0;
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

/* ---- the two lives ---- */

static int move_packets(struct program *program, const struct options *options) {
    if (open_control(program, options) < 0 || close_sandbox() < 0) {
        return EXIT_FAILURE;
    }
    standby_relieve();
    if (begin(program) < 0) {
        return EXIT_FAILURE;
    }
    program->watchdog.every_ns = service_watchdog_every_ns();
    service_ready();
    loop_run(program);
    close_program(program);
    return EXIT_SUCCESS;
}

/* Ends with EX_TEMPFAIL where a new standby is wanted. */
static int stand_by(struct program *program, const char *path) {
    struct standby standby = {.working = {.stat_fd = -1, .pid_fd = -1}};
    const struct plane *plane = &program->plane;
    int error = standby_open(&standby, path);
    program->is_standby = true;
    if (error < 0) {
        (void)fail(path, error);
        return EXIT_FAILURE;
    }
    if (close_sandbox() < 0) {
        return EXIT_FAILURE;
    }
    standby.watchdog.every_ns = program->watchdog.every_ns = service_watchdog_every_ns();
    service_ready();
    service_status("waits for a packet mover");
    enum standby_duty duty = standby_wait(&standby, program->signal_fd);
    if (duty != STANDBY_WORKS) {
        return duty == STANDBY_ENDS ? EXIT_SUCCESS : EX_TEMPFAIL;
    }
    loop_watch(program, standby.relief_fd, WATCHED_RELIEF);
    if (begin(program) < 0) {
        return EXIT_FAILURE;
    }
    if (plane->link.queues > 0) {
        loop_run(program);
    }
    close_program(program);
    return EX_TEMPFAIL;
}

int main(int count, char **arguments) {
    struct options options;
    int status;
    if (!options_parse(count, arguments, &options, &status)) {
        return status;
    }
    struct program *program = calloc(1, sizeof(*program));
    if (program == NULL || open_program(program, &options) < 0) {
        return EXIT_FAILURE;
    }
    status = options.standby_path != NULL ? stand_by(program, options.standby_path)
                                          : move_packets(program, &options);
    if (status == EXIT_FAILURE) {
        exit(EXIT_FAILURE); /* what stands so far goes with the process */
    }
    free(program);
    return status;
}
