/* A second process that waits, sandboxed and ready, for the one that moves packets to end.
 *
 * It holds the same descriptors (keep.h), so it goes on within milliseconds where a start by
 * systemd takes a hundred. Then it moves packets until the next working process is about to begin,
 * which relieves it: one of the two ends of a socket pair is with systemd, for that process, and
 * the other with the standby alone, so that its end is seen. Which of two works is settled by the
 * locks of the memories (shared.h), whatever happens here.
 *
 * A process that a signal stopped moves nothing and does not end. The standby sees it as soon as
 * something waits in a queue or a socket, and ends it.
 *
 * Owns how the two find each other, and when the standby begins and ends. Moves no packet.
 */
#ifndef VPND_STANDBY_H
#define VPND_STANDBY_H

#include <stdbool.h>

#include "service.h"
#include "stopped.h"

/* ---- the working process ---- */

/* Before the sandbox closes: lets every standby see whether we were stopped. */
void standby_show_self(void);

/* Sends away the standby that works in our place, and returns when it has ended. */
void standby_relieve(void);

/* Takes a connection of a standby, if its user is ours; -1 if there is none. */
int standby_accept(int listen_fd);

/* Something came, the first message or the end: false where the connection is of no use any more.
 */
bool standby_hear(int connection);

/* ---- the standby ---- */

struct standby {
    int connection; /* to the working process */
    int relief_fd;  /* readable: another process is here to work */
    struct process working;
    struct watchdog watchdog;
};

enum standby_duty {
    STANDBY_WORKS,  /* the working process has ended: go on in its place */
    STANDBY_RENEWS, /* it is not to be waited for any more; the next standby begins anew */
    STANDBY_ENDS    /* nothing will be left to go on with, or somebody wants us to end */
};

/* Finds the working process at the path. 0 or -errno. */
int standby_open(struct standby *standby, const char *path);

/* Waits until there is something to do. */
enum standby_duty standby_wait(struct standby *standby, int signal_fd);

#endif
