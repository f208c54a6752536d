/* Another process that a signal stopped (state T of proc(5)): seen from outside, and ended.
 *
 * A process that a debugger holds (state t) is left alone, and so is one that only gets no
 * processor. Owns the two descriptors by which the process is known, which it opens itself before
 * its sandbox closes. Knows nothing of what the process does.
 */
#ifndef VPND_STOPPED_H
#define VPND_STOPPED_H

#include <stdbool.h>

struct process {
    int stat_fd;      /* its /proc/PID/stat; -1: it is not looked at */
    int pid_fd;       /* -1: it cannot be ended */
    bool was_stopped; /* when it was looked at last */
};

/* This process, for another one to look at. 0 or -errno. */
int process_open_self(struct process *process);

/* Looks at it; true where it was stopped at the look before, too. */
bool process_stays_stopped(struct process *process);

/* Kills it; false where that was done before. */
bool process_end(struct process *process);

#endif
