#include "standby.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "clock.h"
#include "keep.h"
#include "passing.h"
#include "service.h"
#include "stored.h"

#define NAME_RELIEF  "relief"
#define NAME_STATE   "state" /* of the working process, and itself; lent to the standby */
#define NAME_PROCESS "process"
#define RELIEF_MS    2000 /* a standby that takes longer hangs, and its own watchdog ends it */
#define NS_PER_MS    UINT64_C(1000000)
#define WAIT_FOREVER (-1)
#define LOOK_MS      10
#define PORTS_MAX    256

enum own { OWN_SIGNAL, OWN_RELIEF, OWN_CONNECTION, OWN };

/* ---- the working process ---- */

void standby_show_self(void) {
    struct process self;
    if (process_open_self(&self) == 0) {
        keep_lend(NAME_STATE, self.stat_fd);
        keep_lend(NAME_PROCESS, self.pid_fd);
    }
}

void standby_relieve(void) {
    int fd = service_take(NAME_RELIEF);
    if (fd < 0) {
        return;
    }
    /* Hung up on both sides: ours here, the other by its end. */
    struct pollfd other = {.fd = fd};
    if (shutdown(fd, SHUT_WR) == 0 && poll(&other, 1, RELIEF_MS) == 0) {
        fputs("vpnd-plane: the standby does not give way\n", stderr);
    }
    close(fd);
    service_unstore(NAME_RELIEF);
}

int standby_accept(int listen_fd) {
    struct ucred who;
    socklen_t size = sizeof(who);
    int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0 && (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) < 0 ||
                    (who.uid != 0 && who.uid != geteuid()))) {
        close(fd);
        return -1;
    }
    return fd;
}

bool standby_hear(int connection) {
    uint8_t hello;
    struct passed passed = {0};
    ssize_t size = passing_receive(connection, &hello, sizeof(hello), &passed, MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) {
        return true;
    }
    int relief_fd = passed_alone(&passed);
    service_unstore(NAME_RELIEF); /* of the standby before, or of this one that ended */
    if (relief_fd < 0) {
        return false;
    }
    (void)service_store(NAME_RELIEF, relief_fd, true);
    close(relief_fd);
    return keep_share(connection);
}

/* ---- the standby ---- */

int standby_open(struct standby *standby, const char *path) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int pair[2];
    if (strlen(path) >= sizeof(name.sun_path)) {
        return -ENAMETOOLONG;
    }
    strcpy(name.sun_path, path);
    standby->connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (standby->connection < 0 ||
        connect(standby->connection, (const struct sockaddr *)&name, sizeof(name)) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        return -errno;
    }
    standby->relief_fd = pair[0];
    /* Whoever has the other end can relieve us. */
    ssize_t sent = passing_send(standby->connection, "", 1, pair[1], 0);
    close(pair[1]);
    return sent < 0 ? -errno : 0;
}

/* Hears what the working process tells, or that it ended; true where there is something to do. */
static bool is_over(struct standby *standby, enum standby_duty *duty) {
    switch (keep_learn(standby->connection)) {
    case KEEP_NEWS:
        return false;
    case KEEP_WHOLE:
        standby->working.stat_fd = keep_take(NAME_STATE);
        standby->working.pid_fd = keep_take(NAME_PROCESS);
        service_status("stands by");
        return false;
    case KEEP_ENDED:
        *duty = STANDBY_WORKS;
        return true;
    case KEEP_BROKEN_OFF:
    case KEEP_REPLACED:
        *duty = STANDBY_RENEWS;
        return true;
    case KEEP_FORGOTTEN:
        break;
    }
    *duty = STANDBY_ENDS;
    return true;
}

/* Ends the working process where two looks find it stopped; its end is then seen as any other. */
static void look(struct standby *standby) {
    if (process_stays_stopped(&standby->working) && process_end(&standby->working)) {
        fputs("vpnd-plane: the working process was stopped by a signal: killed, to go on\n",
              stderr);
    }
}

/* What the working process should read soon. */
static unsigned watch_ports(struct pollfd *watched) {
    int fds[PORTS_MAX];
    unsigned count = keep_find(KIND_QUEUE "-", fds, PORTS_MAX);
    count += keep_find(KIND_SOCKET "-", fds + count, PORTS_MAX - count);
    for (unsigned i = 0; i < count; i++) {
        watched[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
    }
    return count;
}

static bool is_any_ready(const struct pollfd *watched, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        if (watched[i].revents != 0) {
            return true;
        }
    }
    return false;
}

/* What the sleep brought, but for packets; true where there is something to do. */
static bool is_called(struct standby *standby, const struct pollfd own[OWN],
                      enum standby_duty *duty) {
    if (own[OWN_SIGNAL].revents != 0) {
        *duty = STANDBY_ENDS;
        return true;
    }
    if (own[OWN_RELIEF].revents != 0) {
        *duty = STANDBY_RENEWS;
        return true;
    }
    return own[OWN_CONNECTION].revents != 0 && is_over(standby, duty);
}

enum standby_duty standby_wait(struct standby *standby, int signal_fd) {
    struct pollfd watched[OWN + PORTS_MAX] = {
        [OWN_SIGNAL] = {.fd = signal_fd, .events = POLLIN},
        [OWN_RELIEF] = {.fd = standby->relief_fd, .events = POLLIN},
        [OWN_CONNECTION] = {.fd = standby->connection, .events = POLLIN}};
    uint64_t every_ns = standby->watchdog.every_ns;
    int sleep_ms = every_ns == 0 ? WAIT_FOREVER : (int)(every_ns / NS_PER_MS);
    bool rests = false; /* between two looks, with no eye on the ports */
    for (;;) {
        unsigned ports = rests ? 0 : watch_ports(watched + OWN);
        if (poll(watched, OWN + ports, rests ? LOOK_MS : sleep_ms) < 0) {
            if (errno == EINTR) {
                continue; /* what it told before is not to be read again */
            }
            return STANDBY_RENEWS;
        }
        if (watchdog_comes_due(&standby->watchdog, boottime_ns())) {
            service_watchdog();
        }
        enum standby_duty duty;
        if (is_called(standby, watched, &duty)) {
            return duty;
        }
        rests = is_any_ready(watched + OWN, ports);
        if (rests || standby->working.was_stopped) {
            look(standby);
        }
    }
}
