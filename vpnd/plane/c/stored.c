#include "stored.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "keep.h"

/* ---- single ones ---- */

int stored_take(const char *name) {
    int fd = keep_take(name);
    int other = fd < 0 ? -1 : keep_take(name);
    if (other >= 0) {
        close(other);
        close(fd);
        keep_drop(name);
        fd = -1;
    }
    return fd;
}

void stored_say_discarded(const char *what, const char *why) {
    fprintf(stderr, "vpnd-plane: stored %s discarded: %s\n", what, why);
}

void stored_discard(const char *name, int fd, const char *why) {
    close(fd);
    keep_drop(name);
    stored_say_discarded(name, why);
}

const char *stored_reason(int error) {
    return error == -EBUSY    ? "another process uses it"
           : error == -EINVAL ? "it is of another version, or damaged"
                              : strerror(-error);
}

/* ---- rows ---- */

static void name_of(char name[KEPT_NAME_SIZE], const char *kind, uint32_t serial, unsigned number) {
    snprintf(name, KEPT_NAME_SIZE, "%s-%u-%u", kind, serial, number);
}

void stored_put(const char *kind, uint32_t serial, unsigned number, int fd, bool poll) {
    char name[KEPT_NAME_SIZE];
    name_of(name, kind, serial, number);
    keep_put(name, fd, poll);
}

bool stored_take_row(const char *kind, uint32_t serial, unsigned count, int *fds) {
    char name[KEPT_NAME_SIZE];
    for (unsigned i = 0; i < count; i++) {
        name_of(name, kind, serial, i);
        fds[i] = stored_take(name);
        if (fds[i] < 0) {
            while (i > 0) {
                close(fds[--i]);
            }
            return false;
        }
    }
    return true;
}

void stored_drop_row(const char *kind, uint32_t serial, unsigned count) {
    char name[KEPT_NAME_SIZE];
    for (unsigned i = 0; i < count; i++) {
        name_of(name, kind, serial, i);
        keep_drop(name);
    }
}
