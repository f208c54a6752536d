#include "coalesce.h"

#include "plane.h"

void coalesce_add(struct plane *plane, struct coalescer *coalescer, struct peer *peer,
                  uint8_t *bytes, size_t size) {
    static const struct virtio_net_hdr no_offload = {.gso_type = VIRTIO_NET_HDR_GSO_NONE};
    if (coalescer->count == BATCH_MAX) {
        coalesce_flush(plane, coalescer);
    }
    memcpy(bytes - sizeof(no_offload), &no_offload, sizeof(no_offload));
    coalescer->frames[coalescer->count++] =
        (struct pending_frame){bytes - sizeof(no_offload), size + sizeof(no_offload), peer};
}

void coalesce_flush(struct plane *plane, struct coalescer *coalescer) {
    for (unsigned i = 0; i < coalescer->count; i++) {
        struct pending_frame *frame = &coalescer->frames[i];
        if (!link_write(plane, frame->bytes, frame->size)) {
            drop_count(plane, frame->peer, DROP_link_write, 1);
        }
    }
    coalescer->count = 0;
}
