/* Which counters of a session were seen: the sliding window of RFC 6479.
 *
 * A ring of 16,384 bits of which 16,320 are usable, since the word that is being entered is
 * cleared as a whole. Owns nothing else: upper limits, locks and the AEAD check are the
 * caller's. A zeroed window is a fresh one.
 */
#ifndef VPND_REPLAY_H
#define VPND_REPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REPLAY_WORDS  256u
#define REPLAY_USABLE ((REPLAY_WORDS - 1u) * 64u)

/* A receiver refuses this counter and all above, a sender never uses them. */
#define REPLAY_COUNTER_LIMIT (UINT64_C(1) << 33)

/* Changed by one thread at a time (the session's receive lock). */
struct replay_window {
    uint64_t top;      /* highest counter accepted, plus 1; 0: none yet */
    uint64_t next_top; /* the top it is being moved to, else the top */
    uint64_t words[REPLAY_WORDS];
};

/* A look that changes nothing, worth its cost before the AEAD: false for a counter that was
 * accepted, has left the window or is not below the limit. May run without the lock, beside an
 * accepting thread: its answer can be outdated then, and replay_accept decides. */
bool replay_is_new(const struct replay_window *window, uint64_t counter);

/* Marks the counter of an authentic message; false if it must be dropped. */
bool replay_accept(struct replay_window *window, uint64_t counter);

/* Marks `count` consecutive counters of authentic messages at once. True only where each of them
 * would be accepted alone and the run begins at or above `top`; false leaves the window
 * untouched and the caller goes one by one. */
bool replay_accept_run(struct replay_window *window, uint64_t first, unsigned count);

/* Ends the move that a process was killed in, which it left in memory that outlives it: words on
 * the way may be cleared already, and what they remembered must not be accepted again. */
void replay_resume(struct replay_window *window);

#endif
