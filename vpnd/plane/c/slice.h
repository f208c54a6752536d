/* How soon the scheduler serves this thread after it woke.
 *
 * A thread that asks for short slices gets its share of the processor in more pieces, and each of
 * them sooner: before others that woke with it and ask for longer ones. Linux has this since 6.12
 * (EEVDF; sched_setattr(2), sched_runtime); before, the wish is taken and does nothing.
 *
 * Owns the two system calls. Knows nothing of what a thread does.
 */
#ifndef VPND_SLICE_H
#define VPND_SLICE_H

#include <stdint.h>

/* Asks for slices of so many ns, of which the kernel takes 0.1 to 100 ms; 0: of its own length. A
 * thread that has its policy from the operator, real-time or idle, keeps it. */
void slice_ask(uint64_t ns);

#endif
