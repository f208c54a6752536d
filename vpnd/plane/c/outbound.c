#include "outbound.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "icmp.h"
#include "plane.h"
#include "sealing.h"

#define FRAME_STRIDE 65792u /* FRAME_HEADROOM, a frame, room to the next boundary */
#define TURNS_MAX    4u     /* batches before others get the tables */

/* Answers to packets that no peer is there for: as many at once, then one each interval. */
#define ANSWERS_AT_ONCE    50u
#define ANSWER_INTERVAL_NS (NS_PER_SECOND / 100)

_Static_assert(FRAME_STRIDE >= FRAME_HEADROOM + FRAME_SIZE_MAX && FRAME_STRIDE % 64 == 0,
               "a frame has room");

struct chosen {
    struct peer *peer;
    struct message message;
};

/* Owned by its worker's thread. */
struct outbound {
    struct plane *plane;
    struct sender *sender;
    uint8_t *buffers;
    struct frame frames[BATCH_MAX];
    struct chosen chosen[RUN_MAX];
    unsigned count;
    uint64_t now_ns;
    uint64_t answered_ns; /* until when answers were given in advance */
};

struct outbound *outbound_new(struct plane *plane) {
    struct outbound *outbound = calloc(1, sizeof(*outbound));
    if (outbound == NULL) {
        return NULL;
    }
    outbound->plane = plane;
    outbound->sender = sender_new(plane);
    void *buffers = mmap(NULL, BATCH_MAX * FRAME_STRIDE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (outbound->sender == NULL || buffers == MAP_FAILED) {
        sender_free(outbound->sender);
        free(outbound);
        return NULL;
    }
    outbound->buffers = buffers;
    for (unsigned i = 0; i < BATCH_MAX; i++) {
        outbound->frames[i].bytes = outbound->buffers + (size_t)i * FRAME_STRIDE + FRAME_HEADROOM;
    }
    return outbound;
}

void outbound_free(struct outbound *outbound) {
    if (outbound != NULL) {
        munmap(outbound->buffers, BATCH_MAX * FRAME_STRIDE);
        sender_free(outbound->sender);
        free(outbound);
    }
}

/* Sends what was chosen, peer by peer; each peer's packets keep their order. */
static void send_chosen(struct outbound *outbound) {
    struct message messages[RUN_MAX];
    for (unsigned first = 0; first < outbound->count; first++) {
        struct peer *peer = outbound->chosen[first].peer;
        unsigned count = 0;
        if (peer == NULL) {
            continue;
        }
        for (unsigned i = first; i < outbound->count; i++) {
            if (outbound->chosen[i].peer == peer) {
                messages[count++] = outbound->chosen[i].message;
                outbound->chosen[i].peer = NULL;
            }
        }
        send_data(outbound->plane, outbound->sender, peer, messages, count, outbound->now_ns);
    }
    outbound->count = 0;
}

static void choose(struct outbound *outbound, struct peer *peer, const struct message *message) {
    if (outbound->count == RUN_MAX) {
        send_chosen(outbound);
    }
    outbound->chosen[outbound->count++] = (struct chosen){peer, *message};
}

/* Has the peer a session, or at least a place where one could be asked for? */
static bool is_reachable(struct peer *peer) {
    pthread_mutex_lock(&peer->lock);
    bool is_there = peer->current != NULL || peer->path.now.to.family != 0;
    pthread_mutex_unlock(&peer->lock);
    return is_there;
}

static void choose_everybody(struct outbound *outbound, const struct message *message) {
    struct peers *peers = &outbound->plane->peers;
    bool is_sent = false;
    for (uint32_t i = 0; i < peers->count; i++) {
        if (is_reachable(peers->list[i])) {
            choose(outbound, peers->list[i], message);
            is_sent = true;
        }
    }
    if (!is_sent) {
        drop_count(outbound->plane, NULL, DROP_no_peer, 1);
    }
}

static void choose_for_frame(struct outbound *outbound, const struct message *message) {
    struct plane *plane = outbound->plane;
    const uint8_t *frame = message->bytes + 1;
    uint32_t number = MAC_NONE;
    if (!frame_is_group(frame_destination(frame))) {
        number = mac_table_find(plane->macs, frame_destination(frame),
                                frame_vlan(frame, message->size - 1), outbound->now_ns);
    }
    struct peer *peer = peer_find(&plane->peers, number);
    if (peer != NULL) {
        choose(outbound, peer, message);
    } else {
        choose_everybody(outbound, message);
    }
}

/* Tells the sender of an IP packet at once what it would otherwise learn by a timeout. */
static void answer_unreachable(struct outbound *outbound, const struct message *message) {
    struct virtio_net_hdr header = {.gso_type = VIRTIO_NET_HDR_GSO_NONE};
    uint8_t answer[sizeof(header) + ICMP_ANSWER_MAX];
    uint64_t now_ns = outbound->now_ns;
    if (outbound->answered_ns > now_ns + ANSWERS_AT_ONCE * ANSWER_INTERVAL_NS) {
        return;
    }
    size_t size = icmp_unreachable(message->bytes, message->size, answer + sizeof(header));
    if (size == 0) {
        return;
    }
    if (outbound->answered_ns < now_ns) {
        outbound->answered_ns = now_ns;
    }
    outbound->answered_ns += ANSWER_INTERVAL_NS;
    memcpy(answer, &header, sizeof(header));
    (void)link_write(outbound->plane, answer, sizeof(header) + size);
}

static void choose_for_packet(struct outbound *outbound, const struct message *message) {
    struct plane *plane = outbound->plane;
    uint8_t family;
    const uint8_t *destination = packet_destination(message->bytes, &family);
    struct peer *peer =
        peer_find(&plane->peers, networks_find(plane->networks, family, destination));
    if (peer == NULL) {
        drop_count(plane, NULL, DROP_no_peer, 1);
        answer_unreachable(outbound, message);
    } else {
        choose(outbound, peer, message);
    }
}

static void take_frame(struct outbound *outbound, const struct frame *frame) {
    struct plane *plane = outbound->plane;
    struct message messages[BATCH_MAX];
    enum drop_reason reason;
    unsigned count = segment_frame(&plane->link, frame, messages, BATCH_MAX, &reason);
    if (count == 0) {
        drop_count(plane, NULL, reason, 1);
    }
    for (unsigned i = 0; i < count; i++) {
        if (messages[i].kind == MESSAGE_FRAME) {
            choose_for_frame(outbound, &messages[i]);
        } else {
            choose_for_packet(outbound, &messages[i]);
        }
    }
}

void outbound_turn(struct worker *worker, uint32_t queue) {
    struct outbound *outbound = worker->state;
    for (unsigned turn = 0; turn < TURNS_MAX; turn++) {
        unsigned count = link_read(outbound->plane, queue, outbound->frames, BATCH_MAX);
        outbound->now_ns = boottime_ns();
        for (unsigned i = 0; i < count; i++) {
            take_frame(outbound, &outbound->frames[i]);
        }
        send_chosen(outbound);
        sender_flush(outbound->sender);
        if (count < BATCH_MAX) {
            return;
        }
    }
}
