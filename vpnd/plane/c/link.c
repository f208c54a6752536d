#include "link.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "plane.h"

#define COPIED_MAX 256

_Static_assert(WIRE_NAME_SIZE == IFNAMSIZ, "a link's name");

#ifndef TUN_F_USO4 /* headers of Linux before 6.2 lack them */
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

/* What the kernel may leave to us in a frame; runs of UDP only since Linux 6.2. */
#define LINK_OFFLOADS_TCP ((unsigned)(TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN))
#define LINK_OFFLOADS_UDP ((unsigned)(TUN_F_USO4 | TUN_F_USO6))

/* So many bytes read, it is time to send: they shall still be in the cache when they are sealed. */
#define READ_BYTES 65536u

static bool queue_is_of(int fd, const struct set_link_request *request) {
    struct ifreq known = {0};
    int header_size = 0;
    if (ioctl(fd, TUNGETIFF, &known) < 0 || ioctl(fd, TUNGETVNETHDRSZ, &header_size) < 0 ||
        header_size != (int)sizeof(struct virtio_net_hdr)) {
        return false;
    }
    unsigned flags = (unsigned short)known.ifr_flags;
    unsigned wanted = (request->type == WIRE_LINK_TUN ? IFF_TUN : IFF_TAP) | IFF_NO_PI;
    return (flags & (IFF_TUN | IFF_TAP | IFF_NO_PI)) == wanted && (flags & IFF_VNET_HDR) != 0 &&
           strncmp(known.ifr_name, request->name, IFNAMSIZ) == 0;
}

static bool is_present(const struct link *link, const struct set_link_request *request) {
    return atomic_load(&link->works) && link->type == request->type &&
           memcmp(link->name, request->name, sizeof(link->name)) == 0;
}

enum wire_error link_check(const struct link *present, const struct set_link_request *request,
                           const int *fds, unsigned count) {
    if ((request->type != WIRE_LINK_TUN && request->type != WIRE_LINK_TAP) ||
        request->padding_mtu > request->mtu || request->mtu < LINK_MTU_MIN ||
        request->mtu > LINK_MTU_MAX || request->name[0] == '\0' ||
        memchr(request->name, '\0', sizeof(request->name)) == NULL) {
        return WIRE_ERROR_bad_value;
    }
    if (count != request->queues || count > WIRE_QUEUES_MAX) {
        return WIRE_ERROR_bad_descriptors;
    }
    if (count == 0) {
        return is_present(present, request) ? (enum wire_error)0 : WIRE_ERROR_no_link;
    }
    for (unsigned i = 0; i < count; i++) {
        if (!queue_is_of(fds[i], request)) {
            return WIRE_ERROR_bad_descriptors;
        }
    }
    return 0;
}

void link_set(struct plane *plane, const struct set_link_request *request, const int *fds) {
    struct link *link = &plane->link;
    uint32_t padding_mtu = request->padding_mtu == 0 ? request->mtu : request->padding_mtu;
    if (request->queues == 0) {
        link->mtu = request->mtu;
        link->padding_mtu = padding_mtu;
        return;
    }
    link_close(plane);
    link->type = request->type;
    link->queues = request->queues;
    link->mtu = request->mtu;
    link->padding_mtu = padding_mtu;
    memcpy(link->name, request->name, sizeof(link->name));
    atomic_store(&link->works, true);
    for (unsigned i = 0; i < link->queues; i++) {
        link->fds[i] = fds[i];
        (void)fcntl(fds[i], F_SETFL, fcntl(fds[i], F_GETFL) | O_NONBLOCK);
        pairing_watch(plane, i);
    }
    link_apply_offloads(plane);
}

/* 0, or the errno of the refusal. Offloads are the link's: one queue speaks for all. */
static int try_offloads(const struct link *link, unsigned offloads) {
    return ioctl(link->fds[0], TUNSETOFFLOAD, (unsigned long)offloads) < 0 ? errno : 0;
}

void link_apply_offloads(struct plane *plane) {
    const struct link *link = &plane->link;
    struct offloads *offloads = &plane->offloads;
    unsigned granted = 0;
    if (link->queues == 0) {
        offload_clear(offloads, OFFLOAD_TUN_VNET);
    } else if (!offload_is_wanted(offloads, OFFLOAD_TUN_VNET)) {
        /* A persistent link remembers the offloads of whoever used it before. */
        (void)try_offloads(link, 0);
        offload_clear(offloads, OFFLOAD_TUN_VNET);
    } else {
        granted = LINK_OFFLOADS_TCP | LINK_OFFLOADS_UDP;
        int error = try_offloads(link, granted);
        if (error == EINVAL) {
            granted = LINK_OFFLOADS_TCP;
            error = try_offloads(link, granted);
        }
        granted = error == 0 ? granted : 0;
        offload_tried(offloads, OFFLOAD_TUN_VNET, error);
    }
    atomic_store(&offloads->link, granted);
}

bool link_takes_udp_runs(const struct plane *plane) {
    unsigned granted = atomic_load_explicit(&plane->offloads.link, memory_order_relaxed);
    return (granted & LINK_OFFLOADS_UDP) == LINK_OFFLOADS_UDP;
}

void link_close(struct plane *plane) {
    struct link *link = &plane->link;
    for (unsigned i = 0; i < link->queues; i++) {
        pairing_unwatch(plane, i);
        close(link->fds[i]);
    }
    link->queues = 0;
    link->type = WIRE_LINK_NONE;
    link_apply_offloads(plane);
    atomic_store(&link->works, false);
}

/* The descriptors are of no more use: say so once and let nobody wait for them. */
static void link_fail(struct plane *plane, int error) {
    struct link *link = &plane->link;
    if (!atomic_exchange(&link->works, false)) {
        return;
    }
    for (unsigned i = 0; i < link->queues; i++) {
        pairing_unwatch(plane, i);
    }
    events_failed(&plane->events, WIRE_EVENT_LINK_FAILED, error);
}

unsigned link_read(struct plane *plane, unsigned queue, struct frame *frames, unsigned room,
                   bool *is_dry) {
    struct link *link = &plane->link;
    unsigned count = 0;
    size_t bytes = 0;
    *is_dry = true;
    if (queue >= link->queues || !atomic_load(&link->works)) {
        return 0;
    }
    *is_dry = false;
    while (count < room && bytes < READ_BYTES) {
        struct frame *frame = &frames[count];
        uint8_t *place = frame->bytes - sizeof(frame->header);
        ssize_t got = read(link->fds[queue], place, sizeof(frame->header) + FRAME_SIZE_MAX);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            if (errno != EAGAIN) {
                link_fail(plane, errno);
            }
            *is_dry = true;
            break;
        }
        if ((size_t)got < sizeof(frame->header)) {
            drop_count(plane, NULL, DROP_link_not_ip, 1);
            continue;
        }
        memcpy(&frame->header, place, sizeof(frame->header));
        frame->size = (size_t)got - sizeof(frame->header);
        bytes += frame->size;
        count++;
    }
    if (count > 0) {
        counter_add(&plane->counters->link_rx_packets, count);
    }
    return count;
}

/* A small frame is copied together: that costs less than the kernel's look at a second vector. */
static ssize_t write_vectors(int fd, const struct iovec *vectors, unsigned count) {
    uint8_t whole[COPIED_MAX];
    size_t head = vectors[0].iov_len;
    if (count != 2 || head + vectors[1].iov_len > sizeof(whole)) {
        return writev(fd, vectors, (int)count);
    }
    memcpy(whole, vectors[0].iov_base, head);
    memcpy(whole + head, vectors[1].iov_base, vectors[1].iov_len);
    return write(fd, whole, head + vectors[1].iov_len);
}

bool link_write(struct plane *plane, unsigned queue, const struct iovec *vectors, unsigned count) {
    struct link *link = &plane->link;
    if (link->queues == 0 || !atomic_load(&link->works)) {
        return false;
    }
    ssize_t put;
    do {
        put = write_vectors(link->fds[queue % link->queues], vectors, count);
    } while (put < 0 && errno == EINTR);
    if (put >= 0) {
        counter_add(&plane->counters->link_tx_packets, 1);
        return true;
    }
    /* EIO is a link that is down, not gone: it may be set up again. */
    if (errno == EBADFD || errno == ENODEV || errno == EBADF) {
        link_fail(plane, errno);
    }
    return false;
}
