#include "segment.h"

#include "plane.h"

#define VLAN_TAG_SIZE 4u

#define HOPS_FIRST        64u /* what the kernel gives a datagram that is told nothing */
#define HOPS_PER_WRAPPING 16u /* leaves 16 to the innermost of four tunnels in each other */

size_t message_inner_size(const struct message *message) {
    switch (message->kind) {
    case MESSAGE_PACKET:
        return message->size;
    case MESSAGE_FRAME:
        return message->size - 1;
    case MESSAGE_CONTROL:
        break;
    }
    return 0;
}

/* Where the IP packet of a message begins, if there may be one. */
static const uint8_t *message_packet(const struct message *message, size_t *size) {
    if (message->kind == MESSAGE_PACKET) {
        *size = message->size;
        return message->bytes;
    }
    uint16_t ether_type;
    const uint8_t *frame = message->bytes + 1;
    size_t payload =
        message->kind == MESSAGE_FRAME ? frame_payload(frame, message->size - 1, &ether_type) : 0;
    *size = payload == 0 ? 0 : message->size - 1 - payload;
    return frame + payload;
}

bool message_may_travel(const struct message *message, uint8_t *hops) {
    uint8_t left = 0;
    *hops = 0;
    if (message->kind == MESSAGE_CONTROL) {
        return true;
    }
    size_t size;
    const uint8_t *packet = message_packet(message, &size);
    if (!packet_is_udp_with(packet, size, DATA_TYPE, &left)) {
        return true;
    }
    if (left > HOPS_FIRST) {
        left = HOPS_FIRST;
    }
    if (left <= HOPS_PER_WRAPPING) {
        return false;
    }
    *hops = (uint8_t)(left - HOPS_PER_WRAPPING);
    return true;
}

static unsigned refuse(enum drop_reason *reason, enum drop_reason why) {
    *reason = why;
    return 0;
}

static unsigned segment_packet(const struct link *link, const struct frame *frame,
                               struct message *out, enum drop_reason *reason) {
    size_t size = packet_ip_length(frame->bytes, frame->size);
    if (size == 0) {
        return refuse(reason, DROP_link_not_ip);
    }
    if (size > link->mtu) {
        return refuse(reason, DROP_link_too_large);
    }
    *out = (struct message){frame->bytes, size, MESSAGE_PACKET};
    return 1;
}

static unsigned segment_ethernet(const struct link *link, const struct frame *frame,
                                 struct message *out, enum drop_reason *reason) {
    if (frame->size < FRAME_HEADER_SIZE) {
        return refuse(reason, DROP_link_not_frame);
    }
    if (frame->size > link->mtu + FRAME_HEADER_SIZE + VLAN_TAG_SIZE) {
        return refuse(reason, DROP_link_too_large);
    }
    frame->bytes[-1] = FRAME_PREFIX;
    *out = (struct message){frame->bytes - 1, frame->size + 1, MESSAGE_FRAME};
    return 1;
}

unsigned segment_frame(const struct link *link, const struct frame *frame, struct message *out,
                       unsigned room, enum drop_reason *reason) {
    if (frame->header.gso_type != VIRTIO_NET_HDR_GSO_NONE || frame->header.flags != 0 ||
        room == 0) {
        return refuse(reason, DROP_link_offload);
    }
    return link->type == WIRE_LINK_TAP ? segment_ethernet(link, frame, out, reason)
                                       : segment_packet(link, frame, out, reason);
}
