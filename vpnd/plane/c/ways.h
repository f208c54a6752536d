/* By which of our addresses strangers' handshake messages came lately: answers leave by it.
 *
 * Owns a small table that a flood may overwrite; then the kernel chooses the address. Belongs to
 * the main thread.
 */
#ifndef VPND_WAYS_H
#define VPND_WAYS_H

#include <stdint.h>

#include "path.h"
#include "wire.h"

#define WAYS_COUNT 1024u

struct ways {
    uint64_t seed; /* random: places cannot be chosen from outside */
    struct destination list[WAYS_COUNT];
};

void ways_remember(struct ways *ways, const struct destination *from);

/* The endpoint with the address and socket its last message came by, if that is still known. */
struct destination way_to(struct ways *ways, const struct wire_endpoint *endpoint);

#endif
