#include "passing.h"

#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

ssize_t passing_send(int to, const void *bytes, size_t size, int fd, int flags) {
    struct iovec part = {(void *)(uintptr_t)bytes, size};
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int))] = {0};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = control;
        message.msg_controllen = sizeof(control);
        struct cmsghdr *item = CMSG_FIRSTHDR(&message);
        *item = (struct cmsghdr){
            .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
        memcpy(CMSG_DATA(item), &fd, sizeof(fd));
    }
    return sendmsg(to, &message, flags | MSG_NOSIGNAL);
}

static void collect(struct passed *passed, struct msghdr *message) {
    for (struct cmsghdr *item = CMSG_FIRSTHDR(message); item != NULL;
         item = CMSG_NXTHDR(message, item)) {
        if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t count = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(item) + i * sizeof(int), sizeof(fd));
            if (passed->count < PASSED_MAX) {
                passed->fds[passed->count++] = fd;
            } else {
                close(fd);
            }
        }
    }
}

ssize_t passing_receive(int from, void *bytes, size_t room, struct passed *passed, int flags) {
    struct iovec part = {bytes, room};
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(PASSED_MAX * sizeof(int))];
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    passed->count = 0;
    ssize_t size = recvmsg(from, &message, flags | MSG_CMSG_CLOEXEC);
    if (size >= 0) {
        collect(passed, &message);
        passed->flags = message.msg_flags;
    }
    return size;
}

int passed_alone(struct passed *passed) {
    if (passed->count == 1) {
        return passed->fds[0];
    }
    while (passed->count > 0) {
        close(passed->fds[--passed->count]);
    }
    return -1;
}
