#include "capture.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "plane.h"
#include "requests.h"

#define RING_SIZE                                                                                  \
    (sizeof(struct capture_head) + (size_t)CAPTURE_SLOTS * sizeof(struct capture_slot))

/* What a copy says besides its bytes. */
struct label {
    const struct peer *peer;      /* NULL: not known */
    const struct destination *at; /* NULL: it is an inner one */
    enum capture_way way;
    bool is_dropped;
    enum drop_reason reason;
};

/* ---- begin and end ---- */

/* Memory of the right size that nobody can shrink under us. */
static bool is_ring(int fd) {
    struct stat status;
    int seals = fcntl(fd, F_GET_SEALS);
    return fstat(fd, &status) == 0 && status.st_size == (off_t)RING_SIZE && seals >= 0 &&
           (seals & F_SEAL_SHRINK) != 0;
}

static void replace(struct plane *plane, struct capture_head *ring, uint32_t kinds, uint32_t peer) {
    struct capture *capture = &plane->capture;
    pthread_rwlock_wrlock(&plane->tables);
    struct capture_head *before = capture->ring;
    capture->ring = ring;
    capture->peer = peer;
    atomic_store(&capture->kinds, kinds);
    pthread_rwlock_unlock(&plane->tables);
    if (before != NULL) {
        munmap(before, RING_SIZE);
    }
}

enum wire_error handle_start_capture(struct request *request) {
    struct start_capture_request wanted;
    memcpy(&wanted, request->body, sizeof(wanted));
    if (wanted.kinds == 0 || wanted.kinds > CAPTURE_ALL) {
        return WIRE_ERROR_bad_value;
    }
    if (wanted.peer != CAPTURE_EVERY_PEER && request_peer(request, wanted.peer) == NULL) {
        return WIRE_ERROR_no_such_peer;
    }
    if (request->fd_count != 1 || !is_ring(request->fds[0])) {
        return WIRE_ERROR_bad_descriptors;
    }
    void *mapped = mmap(NULL, RING_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, request->fds[0], 0);
    if (mapped == MAP_FAILED) {
        return WIRE_ERROR_no_memory;
    }
    madvise(mapped, RING_SIZE, MADV_DONTDUMP);
    struct capture_head *ring = mapped;
    *ring = (struct capture_head){.magic = CAPTURE_MAGIC,
                                  .layout = CAPTURE_LAYOUT,
                                  .slots = CAPTURE_SLOTS,
                                  .slot_size = sizeof(struct capture_slot)};
    replace(request->plane, ring, wanted.kinds, wanted.peer);
    return 0;
}

enum wire_error handle_stop_capture(struct request *request) {
    capture_stop(request->plane);
    return 0;
}

void capture_stop(struct plane *plane) {
    if (plane->capture.ring != NULL) {
        replace(plane, NULL, 0, CAPTURE_EVERY_PEER);
    }
}

/* ---- filling ---- */

static void write_endpoints(const struct plane *plane, const struct destination *at,
                            struct capture_slot *slot) {
    const struct sockets *sockets = &plane->sockets;
    slot->remote = at->to;
    unsigned socket = at->from.generation == sockets->generation ? at->from.socket : 0;
    if (socket < sockets->count) {
        slot->local = sockets->list[socket].bound;
    }
    if (at->from.family != 0) {
        slot->local.family = at->from.family;
        memcpy(slot->local.address, at->from.address, sizeof(slot->local.address));
    }
}

/* Two threads a whole round apart may meet in one slot: the later one gives its packet up. */
static void put(struct plane *plane, const struct label *label, const uint8_t *bytes, size_t size,
                size_t kept) {
    const struct capture *capture = &plane->capture;
    struct capture_head *ring = capture->ring;
    uint32_t peer = label->peer == NULL ? CAPTURE_EVERY_PEER : label->peer->number;
    if (ring == NULL || (capture->peer != CAPTURE_EVERY_PEER && capture->peer != peer)) {
        return;
    }
    struct capture_slot *slots = (struct capture_slot *)(void *)(ring + 1);
    uint64_t number = __atomic_fetch_add(&ring->next, 1, __ATOMIC_RELAXED);
    struct capture_slot *slot = &slots[number % CAPTURE_SLOTS];
    if (__atomic_exchange_n(&slot->number, CAPTURE_WRITING, __ATOMIC_ACQUIRE) == CAPTURE_WRITING) {
        return;
    }
    kept = kept < CAPTURE_BYTES ? kept : CAPTURE_BYTES;
    slot->at_ns = boottime_ns();
    slot->peer = peer;
    slot->size = (uint32_t)size;
    slot->kept = (uint16_t)kept;
    slot->is_outer = label->at != NULL;
    slot->way = (uint8_t)label->way;
    slot->is_dropped = label->is_dropped;
    slot->reason = (uint8_t)label->reason;
    memset(&slot->remote, 0, sizeof(slot->remote));
    memset(&slot->local, 0, sizeof(slot->local));
    if (label->at != NULL) {
        write_endpoints(plane, label->at, slot);
    }
    memcpy(slot->bytes, bytes, kept);
    __atomic_store_n(&slot->number, number + 1, __ATOMIC_RELEASE);
}

/* A frame without the protocol's byte before it. */
static const uint8_t *content_of(const struct message *message, size_t *size) {
    bool is_frame = message->kind == MESSAGE_FRAME;
    *size = message->size - is_frame;
    return message->bytes + is_frame;
}

void capture_inner(struct plane *plane, const struct peer *peer, enum capture_way way,
                   const uint8_t *bytes, size_t size) {
    const struct label label = {.peer = peer, .way = way};
    if (capture_wants(&plane->capture, CAPTURE_INNER)) {
        put(plane, &label, bytes, size, size);
    }
}

void capture_message(struct plane *plane, const struct peer *peer, const struct message *message) {
    size_t size;
    const uint8_t *bytes = content_of(message, &size);
    if (message->kind != MESSAGE_CONTROL) {
        capture_inner(plane, peer, CAPTURE_OUT, bytes, size);
    }
}

void capture_outer(struct plane *plane, const struct peer *peer, enum capture_way way,
                   const struct destination *at, const uint8_t *bytes, size_t size) {
    const struct label label = {.peer = peer, .way = way, .at = at};
    if (capture_wants(&plane->capture, CAPTURE_OUTER)) {
        put(plane, &label, bytes, size, size);
    }
}

/* Whose a datagram says it is. */
static const struct peer *claimed_peer(struct plane *plane, const struct datagram *datagram) {
    if (datagram->size < DATA_OVERHEAD || load_le32(datagram->bytes) != DATA_TYPE) {
        return NULL;
    }
    const struct session *session = session_find(&plane->sessions, load_le32(datagram->bytes + 4));
    return session == NULL ? NULL : session->peer;
}

void capture_arrived(struct plane *plane, const struct datagram *datagrams, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        const struct datagram *datagram = &datagrams[i];
        capture_outer(plane, claimed_peer(plane, datagram), CAPTURE_IN, &datagram->reception->from,
                      datagram->bytes, datagram->size);
    }
}

void capture_dropped_inner(struct plane *plane, const struct peer *peer, enum drop_reason reason,
                           enum capture_way way, const uint8_t *bytes, size_t size) {
    const struct label label = {.peer = peer, .way = way, .is_dropped = true, .reason = reason};
    if (capture_wants(&plane->capture, CAPTURE_DROPS)) {
        put(plane, &label, bytes, size, size);
    }
}

void capture_dropped_message(struct plane *plane, const struct peer *peer, enum drop_reason reason,
                             const struct message *message) {
    size_t size;
    const uint8_t *bytes = content_of(message, &size);
    if (message->kind != MESSAGE_CONTROL) {
        capture_dropped_inner(plane, peer, reason, CAPTURE_OUT, bytes, size);
    }
}

/* What was tried to open in place is no longer what came: of that the header is kept. */
void capture_dropped_outer(struct plane *plane, const struct peer *peer, enum drop_reason reason,
                           enum capture_way way, const struct destination *at, const uint8_t *bytes,
                           size_t size) {
    const struct label label = {
        .peer = peer, .way = way, .at = at, .is_dropped = true, .reason = reason};
    bool is_spoilt = reason == DROP_data_auth;
    if (capture_wants(&plane->capture, CAPTURE_DROPS)) {
        put(plane, &label, bytes, size, is_spoilt ? DATA_HEADER_SIZE : size);
    }
}
