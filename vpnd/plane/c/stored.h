/* Descriptors that are kept for a later process, one by one and in numbered rows.
 *
 * Owns their names: one for each memory, and kind, serial and number for the others. Says on
 * standard error, which is the journal, what was stored and is of no use. Knows nothing of what
 * they are.
 */
#ifndef VPND_STORED_H
#define VPND_STORED_H

#include <stdbool.h>
#include <stdint.h>

#define KIND_QUEUE  "queue"
#define KIND_SOCKET "socket"

/* The descriptor of that name, ours to close, or -1; one of two is as good as none. */
int stored_take(const char *name);

/* Closes it, removes its name from the store and says why. */
void stored_discard(const char *name, int fd, const char *why);
void stored_say_discarded(const char *what, const char *why);

/* Why memory of a former process cannot be had, by what shared_take or its user answered. */
const char *stored_reason(int error);

/* Stores one of a row; `poll` as service_store has it. */
void stored_put(const char *kind, uint32_t serial, unsigned number, int fd, bool poll);

/* Takes a whole row; false, and none, where one is missing. */
bool stored_take_row(const char *kind, uint32_t serial, unsigned count, int *fds);
void stored_drop_row(const char *kind, uint32_t serial, unsigned count);

#endif
