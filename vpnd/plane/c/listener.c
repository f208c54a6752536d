#include "listener.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 4

/* Removes what a former process left at the path, but not the socket of a living one. */
static int clear_path(const struct sockaddr_un *name) {
    struct stat status;
    if (lstat(name->sun_path, &status) < 0) {
        return errno == ENOENT ? 0 : -errno;
    }
    if (!S_ISSOCK(status.st_mode)) {
        return -EEXIST;
    }
    int probe = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    bool is_used = probe >= 0 && connect(probe, (const struct sockaddr *)name, sizeof(*name)) == 0;
    if (probe >= 0) {
        close(probe);
    }
    if (is_used) {
        return -EADDRINUSE;
    }
    return unlink(name->sun_path) < 0 ? -errno : 0;
}

int listener_open(const char *path, int *out) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(name.sun_path)) {
        return -ENAMETOOLONG;
    }
    strcpy(name.sun_path, path);
    int error = clear_path(&name);
    if (error < 0) {
        return error;
    }
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -errno;
    }
    mode_t mask = umask(0177);
    error = bind(fd, (const struct sockaddr *)&name, sizeof(name)) < 0 ? -errno : 0;
    umask(mask);
    if (error == 0 && listen(fd, BACKLOG) < 0) {
        error = -errno;
    }
    if (error < 0) {
        close(fd);
        return error;
    }
    *out = fd;
    return 0;
}

uid_t listener_owner(int listen_fd) {
    struct sockaddr_un name = {0};
    socklen_t size = sizeof(name);
    struct stat status;
    if (getsockname(listen_fd, (struct sockaddr *)&name, &size) < 0 || name.sun_path[0] != '/' ||
        stat(name.sun_path, &status) < 0) {
        return geteuid();
    }
    return status.st_uid;
}

bool is_control_socket(int fd) {
    int type = 0;
    int domain = 0;
    socklen_t size = sizeof(int);
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET &&
           getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX;
}
