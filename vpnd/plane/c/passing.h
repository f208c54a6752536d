/* Messages over UNIX sockets that carry descriptors.
 *
 * Owns the form of such messages. Knows nothing of what they say.
 */
#ifndef VPND_PASSING_H
#define VPND_PASSING_H

#include <stddef.h>
#include <sys/types.h>

#define PASSED_MAX 64u /* descriptors of one message */

/* Sends one message, with a descriptor unless `fd` is -1; as sendmsg. Never raises SIGPIPE. */
ssize_t passing_send(int to, const void *bytes, size_t size, int fd, int flags);

struct passed {
    int fds[PASSED_MAX]; /* ours to close */
    unsigned count;
    int flags; /* of recvmsg: MSG_TRUNC, MSG_CTRUNC */
};

/* Receives one message and what came with it; as recvmsg. */
ssize_t passing_receive(int from, void *bytes, size_t room, struct passed *passed, int flags);

/* The one descriptor that came, or -1; closes all if there are more. */
int passed_alone(struct passed *passed);

#endif
