/* Opened packets become frames for the link.
 *
 * Owns the order of delivery and the virtio_net_hdr in front of each frame. Joining consecutive
 * segments of a flow into one frame belongs here; today each packet is its own frame. Knows no
 * peer: what comes in was checked.
 */
#ifndef VPND_COALESCE_H
#define VPND_COALESCE_H

#include <stddef.h>
#include <stdint.h>

#include "udp.h"

struct plane;
struct peer;

/* Owned by one inbound worker; holds frames of one batch at most. */
struct coalescer {
    unsigned count;
    struct pending_frame {
        const uint8_t *bytes; /* the virtio_net_hdr and the frame */
        size_t size;
        struct peer *peer;
    } frames[BATCH_MAX];
};

/* Takes an opened packet or frame; the sizeof(struct virtio_net_hdr) bytes before it are
 * overwritten, and the buffer stays untouched until the flush. */
void coalesce_add(struct plane *plane, struct coalescer *coalescer, struct peer *peer,
                  uint8_t *bytes, size_t size);

/* Writes everything that was added. */
void coalesce_flush(struct plane *plane, struct coalescer *coalescer);

#endif
