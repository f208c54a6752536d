#include "service.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "clock.h"

#define STATUS_MAX      256
#define NS_PER_USEC     1000
#define DESCRIPTORS_MAX 256 /* FileDescriptorStoreMax of the unit */

/* What systemd passed, asked for once; a descriptor given out becomes -1. Set-up is done by one
 * thread. */
static struct {
    bool asked;
    int count;
    char **names;
    int fds[DESCRIPTORS_MAX];
} passed;

void service_ready(void) {
    (void)sd_notify(0, "READY=1");
}

void service_status(const char *format, ...) {
    char line[STATUS_MAX];
    va_list arguments;
    va_start(arguments, format);
    int written = vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    if (written < 0) {
        return;
    }
    line[strcspn(line, "\n")] = '\0'; /* a second line would be another assignment */
    (void)sd_notifyf(0, "STATUS=%s", line);
}

void service_stopping(void) {
    (void)sd_notify(0, "STOPPING=1");
}

void service_watchdog(void) {
    (void)sd_notify(0, "WATCHDOG=1");
}

uint64_t service_watchdog_every_ns(void) {
    uint64_t patience_usec = 0;
    return sd_watchdog_enabled(0, &patience_usec) > 0 ? patience_usec * NS_PER_USEC / 3 : 0;
}

bool watchdog_comes_due(struct watchdog *watchdog, uint64_t now_ns) {
    if (watchdog->every_ns == 0 ||
        elapsed_ns(watchdog->was_due_at_ns, now_ns) < watchdog->every_ns) {
        return false;
    }
    watchdog->was_due_at_ns = now_ns;
    return true;
}

static void ask(void) {
    if (passed.asked) {
        return;
    }
    passed.asked = true;
    int count = sd_listen_fds_with_names(1, &passed.names);
    passed.count = count < 0 ? 0 : count < DESCRIPTORS_MAX ? count : DESCRIPTORS_MAX;
    for (int i = 0; i < passed.count; i++) {
        passed.fds[i] = SD_LISTEN_FDS_START + i;
    }
}

static int take(int i) {
    int fd = passed.fds[i];
    passed.fds[i] = -1;
    return fd;
}

int service_listen_fd(void) {
    ask();
    for (int i = 0; i < passed.count; i++) {
        if (passed.fds[i] >= 0 && sd_is_socket(passed.fds[i], AF_UNIX, SOCK_SEQPACKET, 1) > 0) {
            return take(i);
        }
    }
    return -1;
}

int service_take(const char *name) {
    ask();
    for (int i = 0; i < passed.count; i++) {
        if (passed.fds[i] >= 0 && strcmp(passed.names[i], name) == 0) {
            return take(i);
        }
    }
    return -1;
}

int service_store(const char *name, int fd, bool poll) {
    char message[STATUS_MAX];
    int written = snprintf(message, sizeof(message), "FDSTORE=1\nFDNAME=%s%s", name,
                           poll ? "" : "\nFDPOLL=0");
    if (written < 0 || (size_t)written >= sizeof(message)) {
        return -ENAMETOOLONG;
    }
    int result = sd_pid_notify_with_fds(0, 0, message, &fd, 1);
    return result < 0 ? result : 0;
}

void service_unstore(const char *name) {
    (void)sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s", name);
}

void service_drop_rest(void) {
    ask();
    for (int i = 0; i < passed.count; i++) {
        if (passed.fds[i] >= 0) {
            service_unstore(passed.names[i]);
            close(take(i));
        }
    }
}

bool service_is_managed(void) {
    return getenv("NOTIFY_SOCKET") != NULL;
}
