/* The plane without privileges.
 *
 * Owns the list of system calls that the plane's threads may make once they touch packets; any
 * other one kills the process. Knows nothing of what the calls are for beyond that list.
 */
#ifndef VPND_SANDBOX_H
#define VPND_SANDBOX_H

/* Drops every capability, forbids new privileges, core dumps and debuggers, and installs the
 * filter for this thread and all it will create. Call it from the only thread, after everything
 * that opens files (aead_choose, libraries' tables, the first memory). 0 or -errno; what came
 * before the error stays in force. */
int sandbox_enter(void);

#endif
