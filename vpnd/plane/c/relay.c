#include "relay.h"

#include <string.h>

#include "icmp.h"
#include "mss.h"
#include "plane.h"
#include "sealing.h"

/* ---- who gets it ---- */

uint32_t relay_receiver(struct plane *plane, struct known_receiver *known, const uint8_t *frame,
                        size_t size, uint64_t now_ns) {
    const uint8_t *address = frame_destination(frame);
    uint16_t vlan = frame_vlan(frame, size);
    if (frame_is_group(address)) {
        return MAC_NONE;
    }
    if (known->number == MAC_NONE || known->vlan != vlan ||
        memcmp(known->address, address, sizeof(known->address)) != 0) {
        known->number = mac_table_find(plane->macs, address, vlan, now_ns);
        known->vlan = vlan;
        memcpy(known->address, address, sizeof(known->address));
    }
    return known->number;
}

bool relay_route(struct plane *plane, struct known_receiver *known, struct peer *from,
                 const struct arrival *arrival, uint64_t now_ns, struct route *route,
                 enum drop_reason *reason) {
    uint32_t number = relay_receiver(plane, known, arrival->bytes, arrival->size, now_ns);
    struct peer *to = peer_find(&plane->peers, number);
    *route = (struct route){.is_for_link = true};
    if (number == MAC_NONE) {
        route->is_for_others = plane->peers.count > 1 && frames_are_relayed(from);
        *reason = DROP_frame_storm;
        return frames_flood(from, FRAMES_FROM_PEER, now_ns);
    }
    if (to == NULL || to == from) {
        return true;
    }
    *route = (struct route){.peer = to};
    *reason = frames_are_exchanged(from, to) ? DROP_frame_vlan : DROP_frame_isolated;
    return frames_are_exchanged(from, to) && frames_may_pass(to, arrival->bytes, arrival->size);
}

/* ---- and how ---- */

static struct message message_of(const struct arrival *arrival) {
    struct message message = {.bytes = arrival->bytes - 1,
                              .size = arrival->size + 1,
                              .kind = MESSAGE_FRAME,
                              .is_partial = arrival->is_partial};
    message.bytes[0] = FRAME_PREFIX;
    return message;
}

void relay_flush(struct plane *plane, struct relay *relay, struct sender *sender, uint64_t now_ns) {
    if (relay->count > 0) {
        send_data(plane, sender, relay->peer, relay->messages, relay->count, now_ns);
    }
    relay->count = 0;
}

/* Is the frame larger than the path carries, and its sender told so? */
static bool refuse_too_large(struct plane *plane, struct sender *sender, struct peer *from,
                             const struct peer *to, const struct message *message,
                             size_t network_at, uint64_t now_ns) {
    uint32_t mtu = atomic_load_explicit(&to->mtu, memory_order_relaxed);
    uint8_t bytes[1 + ICMP_FRAME_MAX];
    if (mtu == 0 || message->size - 1 - network_at <= mtu) {
        return false;
    }
    size_t size = icmp_frame_too_big(message->bytes + 1, message->size - 1, mtu, bytes + 1);
    if (size == 0) {
        return false;
    }
    bytes[0] = FRAME_PREFIX;
    struct message answer = {.bytes = bytes, .size = size + 1, .kind = MESSAGE_FRAME};
    drop_count(plane, to, DROP_path_too_large, 1);
    capture_dropped_message(plane, to, DROP_path_too_large, message);
    send_data(plane, sender, from, &answer, 1, now_ns);
    return true;
}

static void send_to_one(struct plane *plane, struct relay *relay, struct sender *sender,
                        struct peer *from, struct peer *to, const struct arrival *arrival,
                        uint64_t now_ns) {
    struct message message = message_of(arrival);
    (void)mss_clamp(arrival->bytes + arrival->network_at, arrival->size - arrival->network_at,
                    peer_mtu(plane, to), arrival->is_partial);
    if (refuse_too_large(plane, sender, from, to, &message, arrival->network_at, now_ns)) {
        return;
    }
    if (relay->peer != to || relay->count == RUN_MAX) {
        relay_flush(plane, relay, sender, now_ns);
    }
    relay->peer = to;
    relay->messages[relay->count++] = message;
}

/* One checksum must do for all: whether a peer takes partial ones is between it and us. */
static void send_to_others(struct plane *plane, struct sender *sender, struct peer *from,
                           struct arrival *arrival, uint64_t now_ns) {
    struct message message = message_of(arrival);
    message_complete(&message);
    arrival->is_partial = message.is_partial;
    for (uint32_t i = 0; i < plane->peers.count; i++) {
        struct peer *to = plane->peers.list[i];
        if (frames_are_exchanged(from, to) && frames_may_pass(to, arrival->bytes, arrival->size) &&
            peer_is_reachable(to)) {
            struct message copy = message;
            send_data(plane, sender, to, &copy, 1, now_ns);
        }
    }
}

void relay_send(struct plane *plane, struct relay *relay, struct sender *sender, struct peer *from,
                const struct route *route, struct arrival *arrival, uint64_t now_ns) {
    if (route->peer != NULL) {
        send_to_one(plane, relay, sender, from, route->peer, arrival, now_ns);
    } else if (route->is_for_others) {
        relay_flush(plane, relay, sender, now_ns);
        send_to_others(plane, sender, from, arrival, now_ns);
    }
}
