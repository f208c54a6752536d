/* The TUN or TAP link: descriptors that vpnd opened, frames in and out.
 *
 * Owns the queues' descriptors, the checks on them, reading and writing with the 10-byte
 * virtio_net_hdr, and what happens when the link is gone. Knows nothing of what is in a frame.
 */
#ifndef VPND_LINK_H
#define VPND_LINK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <linux/virtio_net.h>

#include "wire.h"

#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5 /* headers of Linux before 6.2 lack it */
#endif

#define FRAME_HEADROOM 16u
#define FRAME_SIZE_MAX 65550u /* the largest IP packet behind an Ethernet header */
#define LINK_MTU_MIN   68u
#define LINK_MTU_MAX   65535u

_Static_assert(sizeof(struct virtio_net_hdr) == 10, "virtio_net_hdr");

struct plane;

/* Guarded by plane.tables; `works` alone changes under the read lock. */
struct link {
    uint8_t type; /* wire_link_type */
    atomic_bool works;
    unsigned queues;
    uint32_t mtu;
    uint32_t padding_mtu; /* at most mtu */
    char name[WIRE_NAME_SIZE];
    int fds[WIRE_QUEUES_MAX];
};

struct frame {
    struct virtio_net_hdr header;
    uint8_t *bytes; /* FRAME_HEADROOM writable bytes before, FRAME_SIZE_MAX from here */
    size_t size;
};

/* Are these descriptors queues of the link that the request describes? None at all will do where
 * it is the present one. Changes nothing. */
enum wire_error link_check(const struct link *present, const struct set_link_request *request,
                           const int *fds, unsigned count);

/* Takes checked descriptors in place of the present ones; with none, only the MTU. The caller
 * holds tables for writing. */
void link_set(struct plane *plane, const struct set_link_request *request, const int *fds);
void link_close(struct plane *plane);

/* Tells the kernel which offloads shall run. */
void link_apply_offloads(struct plane *plane);

/* Does the link take joined UDP datagrams? */
bool link_takes_udp_runs(const struct plane *plane);

/* Reads frames until the queue is dry, `room` is full or enough bytes are there to be worked on;
 * says how many. *is_dry: nothing was left behind. */
unsigned link_read(struct plane *plane, unsigned queue, struct frame *frames, unsigned room,
                   bool *is_dry);

/* Writes a frame, whose virtio_net_hdr is the first of the vectors, to one of the queues. */
bool link_write(struct plane *plane, unsigned queue, const struct iovec *vectors, unsigned count);

#endif
