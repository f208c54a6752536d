#include "standby.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "keep.h"
#include "passing.h"
#include "service.h"

#define NAME_RELIEF  "relief"
#define RELIEF_MS    2000 /* a standby that takes longer hangs, and its own watchdog ends it */
#define NS_PER_MS    UINT64_C(1000000)
#define WAIT_FOREVER (-1)

/* ---- the working process ---- */

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

enum standby_duty standby_wait(struct standby *standby, int signal_fd, uint64_t watchdog_ns) {
    struct pollfd watched[] = {{.fd = signal_fd, .events = POLLIN},
                               {.fd = standby->relief_fd, .events = POLLIN},
                               {.fd = standby->connection, .events = POLLIN}};
    int timeout_ms = watchdog_ns == 0 ? WAIT_FOREVER : (int)(watchdog_ns / 3 / NS_PER_MS);
    for (;;) {
        if (poll(watched, 3, timeout_ms) < 0) {
            if (errno == EINTR) {
                continue; /* what it told before is not to be read again */
            }
            return STANDBY_RENEWS;
        }
        service_watchdog();
        if (watched[0].revents != 0) {
            return STANDBY_ENDS;
        }
        if (watched[1].revents != 0) {
            return STANDBY_RENEWS;
        }
        if (watched[2].revents == 0) {
            continue;
        }
        switch (keep_learn(standby->connection)) {
        case KEEP_NEWS:
            break;
        case KEEP_WHOLE:
            service_status("stands by");
            break;
        case KEEP_ENDED:
            return STANDBY_WORKS;
        case KEEP_BROKEN_OFF:
            return STANDBY_RENEWS;
        case KEEP_FORGOTTEN:
            return STANDBY_ENDS;
        }
    }
}
