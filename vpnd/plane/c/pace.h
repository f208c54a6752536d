/* Whether much comes, as one worker sees it.
 *
 * A lone packet goes on before another is looked for: it is spared a system call that finds
 * nothing. Packets that come close behind each other, or as one run of the kernel's, are moved
 * together.
 */
#ifndef VPND_PACE_H
#define VPND_PACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clock.h"

#define BATCH_MAX   64u    /* datagrams or frames of one system call or turn */
#define BUSY_GAP_NS 20000u /* between packets that are read together */
#define LONE_BYTES  9216u  /* no more is in a packet that came alone */

struct pace {
    uint64_t looked_at_ns;
    bool is_busy;
};

/* How many to read at once. */
static inline unsigned pace_room(const struct pace *pace) {
    return pace->is_busy ? BATCH_MAX : 1;
}

/* So many were read, of so many bytes together, just now. */
static inline void pace_note(struct pace *pace, unsigned count, size_t bytes, uint64_t now_ns) {
    pace->is_busy =
        count > 1 || bytes > LONE_BYTES || elapsed_ns(pace->looked_at_ns, now_ns) < BUSY_GAP_NS;
    pace->looked_at_ns = now_ns;
}

#endif
