#include "outbound.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "content.h"
#include "icmp.h"
#include "mss.h"
#include "pace.h"
#include "plane.h"
#include "relay.h"
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

/* Belongs to whoever holds `turn`: its worker's thread, or the inbound one beside it. */
struct outbound {
    struct plane *plane;
    pthread_mutex_t turn;
    struct sender *sender;
    uint8_t *buffers;
    struct frame frames[BATCH_MAX];
    struct cut cuts[BATCH_MAX]; /* of the frames */
    struct chosen chosen[RUN_MAX];
    unsigned count;
    struct known_sender known_sender; /* this and the next of the batch */
    struct known_receiver known_receiver;
    uint64_t now_ns;
    struct pace pace;
    uint64_t answered_ns; /* until when answers were given in advance */
};

void *outbound_new(struct plane *plane, unsigned worker) {
    (void)worker;
    struct outbound *outbound = calloc(1, sizeof(*outbound));
    if (outbound == NULL) {
        return NULL;
    }
    outbound->plane = plane;
    pthread_mutex_init(&outbound->turn, NULL);
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

void outbound_free(void *state) {
    struct outbound *outbound = state;
    if (outbound != NULL) {
        munmap(outbound->buffers, BATCH_MAX * FRAME_STRIDE);
        sender_free(outbound->sender);
        pthread_mutex_destroy(&outbound->turn);
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

/* One message for many is sent before the next: they share its bytes, which may be cut on only
 * then, and the same checksum must do for all. */
static void choose_everybody(struct outbound *outbound, struct message *message) {
    struct peers *peers = &outbound->plane->peers;
    bool is_sent = false;
    send_chosen(outbound);
    message_finish(message);
    message_complete(message);
    for (uint32_t i = 0; i < peers->count; i++) {
        struct peer *peer = peers->list[i];
        if (!peer_is_reachable(peer)) {
            continue;
        }
        is_sent = true;
        if (!frames_may_pass(peer, message->bytes + 1, message->size - 1)) {
            continue;
        }
        if (frames_flood(peer, FRAMES_TO_PEER, outbound->now_ns)) {
            choose(outbound, peer, message);
        } else {
            drop_count(outbound->plane, peer, DROP_frame_storm, 1);
            capture_dropped_message(outbound->plane, peer, DROP_frame_storm, message);
        }
    }
    if (!is_sent) {
        drop_count(outbound->plane, NULL, DROP_no_peer, 1);
        capture_dropped_message(outbound->plane, NULL, DROP_no_peer, message);
    }
    send_chosen(outbound);
}

/* May the sender of a packet be told something now? Counts it if so. */
static bool may_answer(struct outbound *outbound) {
    uint64_t now_ns = outbound->now_ns;
    if (outbound->answered_ns > now_ns + ANSWERS_AT_ONCE * ANSWER_INTERVAL_NS) {
        return false;
    }
    if (outbound->answered_ns < now_ns) {
        outbound->answered_ns = now_ns;
    }
    outbound->answered_ns += ANSWER_INTERVAL_NS;
    return true;
}

static void answer(struct outbound *outbound, uint8_t *bytes, size_t size) {
    struct virtio_net_hdr header = {.gso_type = VIRTIO_NET_HDR_GSO_NONE};
    struct iovec vectors[2] = {{&header, sizeof(header)}, {bytes, size}};
    (void)link_write(outbound->plane, 0, vectors, 2);
}

/* Tells the sender of an IP packet at once what it would otherwise learn by a timeout. */
static void answer_unreachable(struct outbound *outbound, const uint8_t *packet, size_t size) {
    uint8_t bytes[ICMP_ANSWER_MAX];
    size_t length = icmp_unreachable(packet, size, bytes);
    if (length > 0 && may_answer(outbound)) {
        answer(outbound, bytes, length);
    }
}

/* The answer to the sender of a packet that is larger than the path carries; 0 if there can be
 * none. What nobody can be told about goes as it is: the network may still cut it. */
static size_t write_too_big(struct message *message, uint32_t mtu, uint8_t *bytes) {
    message_finish(message);
    if (message->kind == MESSAGE_FRAME) {
        return icmp_frame_too_big(message->bytes + 1, message->size - 1, mtu, bytes);
    }
    return icmp_too_big(message->bytes, message->size, mtu, bytes);
}

/* Is the frame larger than the path carries, and its sender told so? Its first piece is as large
 * as any, and finishing that one harms no other. */
static bool refuse_too_large(struct outbound *outbound, const struct peer *peer,
                             const struct cut *cut) {
    uint32_t mtu = atomic_load_explicit(&peer->mtu, memory_order_relaxed);
    size_t largest = cut->piece_size == 0 ? cut->size : cut->header_size + cut->piece_size;
    if (mtu == 0 || largest - cut->network_at <= mtu) {
        return false;
    }
    struct cut copy = *cut;
    struct message piece;
    uint8_t bytes[ICMP_FRAME_MAX];
    size_t length = segment_next(&copy, &piece) ? write_too_big(&piece, mtu, bytes) : 0;
    if (length == 0) {
        return false;
    }
    uint64_t pieces = 1;
    while (segment_next(&copy, &piece)) {
        pieces++;
    }
    drop_count(outbound->plane, peer, DROP_path_too_large, pieces);
    capture_dropped_inner(outbound->plane, peer, DROP_path_too_large, CAPTURE_OUT, cut->bytes,
                          cut->size);
    if (may_answer(outbound)) {
        answer(outbound, bytes, length);
    }
    return true;
}

/* Fits what goes to one peer to its path; false: it does not go. */
static bool fit_path(struct outbound *outbound, const struct peer *peer, struct cut *cut) {
    bool has_packet = cut->network_at < cut->size;
    if (cut->piece_size == 0 && has_packet) {
        (void)mss_clamp(cut->bytes + cut->network_at, cut->size - cut->network_at,
                        peer_mtu(outbound->plane, peer), cut->is_partial);
    }
    return !refuse_too_large(outbound, peer, cut);
}

/* What is on our side is not looked for among the peers: a frame for it that nobody else knows is
 * no reason to ask them all. */
static void learn_ours(struct outbound *outbound, const uint8_t *frame, uint16_t vlan) {
    const uint8_t *source = frame_source(frame);
    struct known_sender *known = &outbound->known_sender;
    if (known->peer != MAC_LINK || known->vlan != vlan || memcmp(known->address, source, 6) != 0) {
        (void)mac_table_learn(outbound->plane->macs, source, vlan, MAC_LINK, outbound->now_ns);
        known->peer = MAC_LINK;
        known->vlan = vlan;
        memcpy(known->address, source, 6);
    }
}

/* The peer that the frame is for; NULL: all of them. *is_known is whether it was seen there. */
static struct peer *peer_for_frame(struct outbound *outbound, const uint8_t *frame, size_t size,
                                   bool *is_known) {
    struct plane *plane = outbound->plane;
    learn_ours(outbound, frame, frame_vlan(frame, size));
    struct peer *peer = peer_find(&plane->peers, relay_receiver(plane, &outbound->known_receiver,
                                                                frame, size, outbound->now_ns));
    *is_known = peer != NULL;
    if (plane->peers.count == 1 && peer_is_reachable(plane->peers.list[0])) {
        return plane->peers.list[0];
    }
    return peer;
}

/* A frame to nobody known counts once, however many pieces it is cut into. */
static bool is_allowed(struct outbound *outbound, struct peer *peer, const struct cut *cut,
                       bool is_known) {
    enum drop_reason reason = DROP_frame_vlan;
    if (frames_may_pass(peer, cut->bytes, cut->size)) {
        if (is_known || frames_flood(peer, FRAMES_TO_PEER, outbound->now_ns)) {
            return true;
        }
        reason = DROP_frame_storm;
    }
    drop_count(outbound->plane, peer, reason, 1);
    capture_dropped_inner(outbound->plane, peer, reason, CAPTURE_OUT, cut->bytes, cut->size);
    return false;
}

/* A peer alone gets the packet or frame. */
static void choose_one(struct outbound *outbound, struct peer *peer, struct cut *cut) {
    struct message message;
    if (!fit_path(outbound, peer, cut)) {
        return;
    }
    while (segment_next(cut, &message)) {
        choose(outbound, peer, &message);
    }
}

static void take_ethernet(struct outbound *outbound, struct cut *cut) {
    bool is_known;
    struct peer *peer = peer_for_frame(outbound, cut->bytes, cut->size, &is_known);
    struct message message;
    if (peer != NULL) {
        if (is_allowed(outbound, peer, cut, is_known)) {
            choose_one(outbound, peer, cut);
        }
        return;
    }
    while (segment_next(cut, &message)) {
        choose_everybody(outbound, &message);
    }
}

static void take_packet(struct outbound *outbound, struct cut *cut) {
    struct plane *plane = outbound->plane;
    uint8_t family;
    const uint8_t *destination = packet_destination(cut->bytes, &family);
    struct peer *peer =
        peer_find(&plane->peers, networks_find(plane->networks, family, destination));
    if (peer == NULL) {
        drop_count(plane, NULL, DROP_no_peer, 1);
        capture_dropped_inner(plane, NULL, DROP_no_peer, CAPTURE_OUT, cut->bytes, cut->size);
        answer_unreachable(outbound, cut->bytes, cut->size);
        return;
    }
    choose_one(outbound, peer, cut);
}

static void take_frame(struct outbound *outbound, const struct frame *frame, struct cut *cut) {
    struct plane *plane = outbound->plane;
    enum drop_reason reason;
    if (!segment_begin(&plane->link, frame, cut, &reason)) {
        drop_count(plane, NULL, reason, 1);
        capture_dropped_inner(plane, NULL, reason, CAPTURE_OUT, frame->bytes, frame->size);
    } else if (cut->kind == MESSAGE_FRAME) {
        take_ethernet(outbound, cut);
    } else {
        take_packet(outbound, cut);
    }
}

/* One batch; true if nothing was left behind, as far as was looked. */
static bool move_batch(struct outbound *outbound, unsigned queue) {
    struct plane *plane = outbound->plane;
    bool is_dry;
    size_t bytes = 0;
    unsigned room = pace_room(&outbound->pace);
    unsigned count = link_read(plane, queue, outbound->frames, room, &is_dry);
    outbound->now_ns = boottime_ns();
    outbound->known_sender.peer = COUNTERS_PEER_MAX + 1;
    outbound->known_receiver.number = MAC_NONE;
    for (unsigned i = 0; i < count; i++) {
        take_frame(outbound, &outbound->frames[i], &outbound->cuts[i]);
        bytes += outbound->frames[i].size;
    }
    pace_note(&outbound->pace, count, bytes, outbound->now_ns);
    send_chosen(outbound);
    sender_flush(outbound->sender);
    pairing_account(plane, queue, count, bytes, outbound->now_ns);
    return is_dry || room == 1;
}

void outbound_move(struct plane *plane, unsigned queue) {
    if (queue >= plane->link.queues) {
        return; /* the link changed while this was on its way */
    }
    struct outbound *outbound = plane->outbound.workers[queue].state;
    pthread_mutex_lock(&outbound->turn);
    for (unsigned turn = 0; turn < TURNS_MAX; turn++) {
        if (move_batch(outbound, queue)) {
            break;
        }
    }
    pthread_mutex_unlock(&outbound->turn);
}

void outbound_turn(struct worker *worker, uint32_t queue) {
    outbound_move(worker->plane, queue);
}
