#include "staging.h"

#include <stdlib.h>
#include <string.h>

#include "plane.h"

#define WANT_AGAIN_NS NS_PER_SECOND

static void want(struct plane *plane, struct peer *peer, uint64_t now_ns) {
    if (peer->wanted_at_ns == 0 || elapsed_ns(peer->wanted_at_ns, now_ns) >= WANT_AGAIN_NS) {
        peer->wanted_at_ns = now_ns;
        events_wanted(&plane->events, peer);
    }
}

static void capture_staged(struct plane *plane, const struct peer *peer, enum drop_reason reason,
                           struct staged_packet *packet) {
    const struct message message = {
        .bytes = packet->bytes, .size = packet->size, .kind = packet->kind};
    capture_dropped_message(plane, peer, reason, &message);
}

static void unstage_oldest(struct plane *plane, struct peer *peer) {
    struct staged_packet *oldest = peer->staged;
    peer->staged = oldest->next;
    if (peer->staged == NULL) {
        peer->staged_end = &peer->staged;
    }
    peer->staged_count--;
    peer->staged_bytes -= oldest->size;
    atomic_fetch_sub(&plane->staged_bytes, oldest->size);
    drop_count(plane, peer, DROP_staged_overflow, 1);
    capture_staged(plane, peer, DROP_staged_overflow, oldest);
    free(oldest);
}

void peer_stage(struct plane *plane, struct peer *peer, const struct message *message,
                uint64_t now_ns) {
    while (peer->staged_count > 0 && (peer->staged_count >= STAGED_PACKETS_MAX ||
                                      peer->staged_bytes + message->size > STAGED_BYTES_MAX)) {
        unstage_oldest(plane, peer);
    }
    struct staged_packet *packet = NULL;
    if (atomic_load(&plane->staged_bytes) + message->size <= STAGED_TOTAL_MAX) {
        packet = malloc(sizeof(*packet) + message->size);
    }
    if (packet == NULL) {
        drop_count(plane, peer, DROP_staged_overflow, 1);
    } else {
        *packet = (struct staged_packet){.kind = message->kind,
                                         .is_partial = message->is_partial,
                                         .size = (uint32_t)message->size};
        memcpy(packet->bytes, message->bytes, message->size);
        *peer->staged_end = packet;
        peer->staged_end = &packet->next;
        peer->staged_count++;
        peer->staged_bytes += packet->size;
        atomic_fetch_add(&plane->staged_bytes, packet->size);
    }
    __atomic_store_n(&peer->counters->staged, peer->staged_count, __ATOMIC_RELAXED);
    want(plane, peer, now_ns);
}

void peer_want_again(struct plane *plane, struct peer *peer, uint64_t now_ns) {
    if (peer->staged_count > 0) {
        want(plane, peer, now_ns);
    }
}

struct staged_packet *peer_unstage(struct plane *plane, struct peer *peer) {
    struct staged_packet *packets = peer->staged;
    atomic_fetch_sub(&plane->staged_bytes, peer->staged_bytes);
    peer->staged = NULL;
    peer->staged_end = &peer->staged;
    peer->staged_count = 0;
    peer->staged_bytes = 0;
    peer->wanted_at_ns = 0;
    __atomic_store_n(&peer->counters->staged, 0u, __ATOMIC_RELAXED);
    return packets;
}

void staged_free(struct staged_packet *packet) {
    while (packet != NULL) {
        struct staged_packet *next = packet->next;
        free(packet);
        packet = next;
    }
}

void peer_flush_staged(struct plane *plane, struct peer *peer) {
    if (peer->staged_count > 0) {
        drop_count(plane, peer, DROP_staged_flushed, peer->staged_count);
    }
    staged_free(peer_unstage(plane, peer));
}
