#include "keep.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "passing.h"
#include "service.h"

#define KEPT_MAX 258 /* FileDescriptorStoreMax of the unit, and what is lent */

enum told { TOLD_PUT = 1, TOLD_DROP, TOLD_ALL, TOLD_FORGET, TOLD_REPLACED };

struct message {
    uint32_t told;
    char name[KEPT_NAME_SIZE];
};

struct kept {
    char name[KEPT_NAME_SIZE];
    int fd;
};

static struct {
    struct kept list[KEPT_MAX];
    unsigned count;
    int standby; /* connection + 1; 0: none */
    bool is_standby;
    bool is_whole; /* of the standby: nothing that the working process has is missing */
} keep;

/* ---- the list ---- */

static void note(const char *name, int fd) {
    if (keep.count < KEPT_MAX) {
        struct kept *kept = &keep.list[keep.count++];
        snprintf(kept->name, sizeof(kept->name), "%s", name);
        kept->fd = fd;
    }
}

/* The place of the first of that name, or `count`. */
static unsigned find(const char *name) {
    unsigned at = 0;
    while (at < keep.count && strcmp(keep.list[at].name, name) != 0) {
        at++;
    }
    return at;
}

static int strike_out(unsigned at) {
    int fd = keep.list[at].fd;
    keep.list[at] = keep.list[--keep.count];
    return fd;
}

/* ---- to the standby ---- */

static bool tell(enum told told, const char *name, int fd) {
    struct message message = {.told = told};
    snprintf(message.name, sizeof(message.name), "%s", name);
    return passing_send(keep.standby - 1, &message, sizeof(message), fd, MSG_DONTWAIT) ==
           (ssize_t)sizeof(message);
}

/* A standby that misses something is of no use: it sees the end and comes anew. */
static void tell_if_there(enum told told, const char *name, int fd) {
    if (keep.standby > 0 && !tell(told, name, fd)) {
        (void)shutdown(keep.standby - 1, SHUT_RDWR);
        keep.standby = 0;
    }
}

bool keep_share(int connection) {
    keep.standby = connection + 1;
    bool is_told = true;
    for (unsigned i = 0; is_told && connection >= 0 && i < keep.count; i++) {
        is_told = tell(TOLD_PUT, keep.list[i].name, keep.list[i].fd);
    }
    is_told = is_told && (connection < 0 || tell(TOLD_ALL, "", -1));
    keep.standby = is_told ? keep.standby : 0;
    return is_told;
}

void keep_lend(const char *name, int fd) {
    note(name, fd);
    tell_if_there(TOLD_PUT, name, fd);
}

void keep_forget(void) {
    tell_if_there(TOLD_FORGET, "", -1);
}

void keep_replace(void) {
    tell_if_there(TOLD_REPLACED, "", -1);
}

/* ---- from the working process ---- */

static void forget_name(const char *name) {
    for (unsigned at = find(name); at < keep.count; at = find(name)) {
        close(strike_out(at));
    }
}

enum keep_news keep_learn(int connection) {
    struct message message;
    struct passed passed;
    keep.is_standby = true;
    ssize_t size = passing_receive(connection, &message, sizeof(message), &passed, 0);
    if (size < 0 && errno == EINTR) {
        return KEEP_NEWS;
    }
    if (size != (ssize_t)sizeof(message)) {
        return keep.is_whole ? KEEP_ENDED : KEEP_BROKEN_OFF;
    }
    int fd = passed_alone(&passed);
    message.name[sizeof(message.name) - 1] = '\0';
    switch (message.told) {
    case TOLD_PUT:
        if (fd >= 0) {
            note(message.name, fd);
        }
        return KEEP_NEWS;
    case TOLD_DROP:
        forget_name(message.name);
        return KEEP_NEWS;
    case TOLD_ALL:
        keep.is_whole = true;
        return KEEP_WHOLE;
    case TOLD_REPLACED:
        return KEEP_REPLACED;
    default:
        return KEEP_FORGOTTEN;
    }
}

/* ---- both ---- */

bool keep_is_there(void) {
    return keep.is_standby || service_is_managed();
}

int keep_take(const char *name) {
    if (keep.is_standby) {
        unsigned at = find(name);
        return at < keep.count ? strike_out(at) : -1;
    }
    int fd = service_take(name);
    if (fd >= 0) {
        note(name, fd);
    }
    return fd;
}

unsigned keep_find(const char *beginning, int *fds, unsigned room) {
    unsigned count = 0;
    for (unsigned i = 0; i < keep.count && count < room; i++) {
        if (strncmp(keep.list[i].name, beginning, strlen(beginning)) == 0) {
            fds[count++] = keep.list[i].fd;
        }
    }
    return count;
}

/* What the standby does while it works is not for its own unit to keep: the next process has all
 * from the former one. */
void keep_put(const char *name, int fd, bool poll) {
    if (!keep.is_standby) {
        (void)service_store(name, fd, poll);
        note(name, fd);
        tell_if_there(TOLD_PUT, name, fd);
    }
}

void keep_drop(const char *name) {
    if (keep.is_standby) {
        return;
    }
    service_unstore(name);
    for (unsigned at = find(name); at < keep.count; at = find(name)) {
        (void)strike_out(at);
    }
    tell_if_there(TOLD_DROP, name, -1);
}

void keep_drop_rest(void) {
    if (!keep.is_standby) {
        service_drop_rest();
    }
}
