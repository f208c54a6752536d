/* Who holds, by name, the descriptors that the next process to move packets will want: systemd's
 * store, and the standby, which goes on the moment this process ends (standby.h).
 *
 * Owns the list of them, on both sides: what the one puts here, the other finds here. Knows
 * nothing of what they are. All of it is the main thread's.
 */
#ifndef VPND_KEEP_H
#define VPND_KEEP_H

#include <stdbool.h>

#define KEPT_NAME_SIZE 40u

/* Is there anybody to keep anything, or anything that was kept? */
bool keep_is_there(void);

/* The descriptor that a former process left under that name, or -1; there may be several. It is
 * ours, and stays kept until it is dropped. */
int keep_take(const char *name);

/* Keeps a descriptor, which stays the caller's and open until it is dropped. `poll` as
 * service_store has it. */
void keep_put(const char *name, int fd, bool poll);
void keep_drop(const char *name);

/* The kept descriptors whose names begin so, at most `room`; they stay where they are. */
unsigned keep_find(const char *beginning, int *fds, unsigned room);

/* Closes and drops what a former process left and nobody took. */
void keep_drop_rest(void);

/* ---- the working process ---- */

/* From now on the standby at the other end of this SOCK_SEQPACKET connection keeps all too; -1:
 * there is none any more. False where it did not take what there is. */
bool keep_share(int connection);

/* As keep_put, for the standby alone: the next process finds nothing of it. */
void keep_lend(const char *name, int fd);

/* Tells the standby to let go of everything: there is nothing to go on with. */
void keep_forget(void);

/* Tells the standby that another one takes its place. */
void keep_replace(void);

/* ---- the standby ---- */

enum keep_news {
    KEEP_NEWS,       /* it was told something */
    KEEP_WHOLE,      /* all that the working process has is here */
    KEEP_ENDED,      /* that process has ended, after it had told all */
    KEEP_BROKEN_OFF, /* it has ended before: systemd has what is missing here */
    KEEP_REPLACED,   /* another standby is there in our place */
    KEEP_FORGOTTEN   /* nothing is to be kept any more */
};

/* Takes the next thing that the working process tells; waits for it. */
enum keep_news keep_learn(int connection);

#endif
