#include "segment.h"

#include "plane.h"

#define VLAN_TAG_SIZE 4u

#define HOPS_FIRST        64u /* what the kernel gives a datagram that is told nothing */
#define HOPS_PER_WRAPPING 16u /* leaves 16 to the innermost of four tunnels in each other */

enum {
    IPV4_IDENTITY_AT = 4,
    IPV6_HEADER = 40,
};

/* ---- what the kernel hands over ---- */

static bool refuse(enum drop_reason *reason, enum drop_reason why) {
    *reason = why;
    return false;
}

/* Where the IP packet begins in the frame, its end if there is none; false if the frame is none of
 * the link's. */
static bool find_network(const struct link *link, const struct frame *frame, struct cut *cut,
                         enum drop_reason *reason) {
    cut->network_at = 0;
    if (link->type != WIRE_LINK_TAP) {
        cut->kind = MESSAGE_PACKET;
        cut->size = packet_ip_length(frame->bytes, frame->size);
        return cut->size != 0 || refuse(reason, DROP_link_not_ip);
    }
    if (frame->size < FRAME_HEADER_SIZE) {
        return refuse(reason, DROP_link_not_frame);
    }
    cut->kind = MESSAGE_FRAME;
    cut->size = frame->size;
    cut->network_at = frame_network(frame->bytes, frame->size);
    return true;
}

/* Is what goes out in one datagram within the link's MTU? */
static bool fits(const struct link *link, const struct cut *cut, size_t size) {
    size_t around = cut->kind == MESSAGE_FRAME ? FRAME_HEADER_SIZE + VLAN_TAG_SIZE : 0;
    return size <= link->mtu + around;
}

/* The kernel left a checksum to us: we leave it to the far kernel where the protocol has a way to
 * say so, and complete it where it has none. */
static bool take_checksum(const struct frame *frame, struct cut *cut, enum drop_reason *reason) {
    size_t start = frame->header.csum_start;
    size_t offset = frame->header.csum_offset;
    const uint8_t *packet = cut->bytes + cut->network_at;
    struct transport found;
    if (cut->network_at <= start &&
        transport_find(packet, packet_ip_length(packet, cut->size - cut->network_at), &found) &&
        cut->network_at + found.at == start &&
        found.checksum_at == start - cut->network_at + offset) {
        cut->is_partial = true;
        return true;
    }
    return packet_complete_checksum(cut->bytes, cut->size, start, offset) ||
           refuse(reason, DROP_link_offload);
}

static bool begin_whole(const struct link *link, const struct frame *frame, struct cut *cut,
                        enum drop_reason *reason) {
    if (!fits(link, cut, cut->size)) {
        return refuse(reason, DROP_link_too_large);
    }
    return (frame->header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) == 0 ||
           take_checksum(frame, cut, reason);
}

static uint8_t protocol_of(uint8_t gso_type) {
    switch (gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN) {
    case VIRTIO_NET_HDR_GSO_TCPV4:
    case VIRTIO_NET_HDR_GSO_TCPV6:
        return TRANSPORT_TCP;
    case VIRTIO_NET_HDR_GSO_UDP_L4:
        return TRANSPORT_UDP;
    default:
        return 0;
    }
}

/* Is the transport header where the IP header has it? What extension headers of IPv6 say is left
 * to the kernel, but then nobody else can tell where the checksum is. */
static bool is_in_place(const uint8_t *packet, size_t length, const struct transport *transport,
                        bool *is_direct) {
    struct transport found;
    *is_direct = transport_find(packet, length, &found) && found.at == transport->at &&
                 found.protocol == transport->protocol;
    return *is_direct || (packet[0] >> 4 == PACKET_IPV6 && transport->at > IPV6_HEADER);
}

/* From the checksum field, not from the header's addresses: where a source route leads through
 * others, the last one was summed. */
static uint16_t take_pseudo_sum(const uint8_t *packet, size_t length,
                                const struct transport *transport) {
    uint8_t size[2];
    store_be16(size, (uint16_t) ~(length - transport->at));
    return checksum_add(load_be16(packet + transport->checksum_at), size, sizeof(size));
}

/* A frame of several segments always has a partial checksum, whose start is the transport header.
 */
static bool begin_cut(const struct link *link, const struct frame *frame, struct cut *cut,
                      enum drop_reason *reason) {
    uint8_t protocol = protocol_of(frame->header.gso_type);
    const uint8_t *packet = cut->bytes + cut->network_at;
    size_t length = packet_ip_length(packet, cut->size - cut->network_at);
    size_t start = frame->header.csum_start;
    if ((frame->header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) == 0 || frame->header.gso_size == 0 ||
        length == 0 || start < cut->network_at ||
        !transport_at(packet, length, protocol, start - cut->network_at, &cut->transport) ||
        !is_in_place(packet, length, &cut->transport, &cut->is_partial)) {
        return refuse(reason, DROP_link_offload);
    }
    cut->size = cut->network_at + length;
    cut->header_size = cut->network_at + cut->transport.payload_at;
    cut->piece_size = frame->header.gso_size;
    if (cut->header_size > CUT_HEADER_MAX || cut->header_size == cut->size) {
        return refuse(reason, DROP_link_offload);
    }
    if (!fits(link, cut, cut->header_size + cut->piece_size)) {
        return refuse(reason, DROP_link_too_large);
    }
    memcpy(cut->header, cut->bytes, cut->header_size);
    cut->pseudo_sum = take_pseudo_sum(packet, length, &cut->transport);
    return true;
}

bool segment_begin(const struct link *link, const struct frame *frame, struct cut *cut,
                   enum drop_reason *reason) {
    cut->bytes = frame->bytes;
    cut->is_partial = false;
    cut->piece_size = 0;
    cut->taken = 0;
    if (!find_network(link, frame, cut, reason)) {
        return false;
    }
    return frame->header.gso_type == VIRTIO_NET_HDR_GSO_NONE ? begin_whole(link, frame, cut, reason)
                                                             : begin_cut(link, frame, cut, reason);
}

/* ---- the pieces ---- */

static bool take_whole(struct cut *cut, struct message *message) {
    if (cut->taken > 0) {
        return false;
    }
    size_t prefix = cut->kind == MESSAGE_FRAME;
    *message = (struct message){.bytes = cut->bytes - prefix,
                                .size = cut->size + prefix,
                                .kind = cut->kind,
                                .is_partial = cut->is_partial};
    cut->taken = cut->size;
    return true;
}

bool segment_next(struct cut *cut, struct message *message) {
    if (cut->piece_size == 0) {
        return take_whole(cut, message);
    }
    size_t left = cut->size - cut->header_size - cut->taken;
    if (left == 0) {
        return false;
    }
    size_t prefix = cut->kind == MESSAGE_FRAME;
    size_t payload = left < cut->piece_size ? left : cut->piece_size;
    *message = (struct message){.bytes = cut->bytes + cut->taken - prefix,
                                .size = prefix + cut->header_size + payload,
                                .kind = cut->kind,
                                .is_partial = cut->is_partial,
                                .cut = cut,
                                .cut_at = cut->taken};
    cut->taken += payload;
    return true;
}

static void write_tcp(uint8_t *tcp, size_t at, bool is_last) {
    store_be32(tcp + TCP_SEQUENCE_AT, load_be32(tcp + TCP_SEQUENCE_AT) + (uint32_t)at);
    if (!is_last) {
        tcp[TCP_FLAGS_AT] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
    }
    if (at > 0) {
        tcp[TCP_FLAGS_AT] &= (uint8_t)~TCP_CWR;
    }
}

/* Turns the partial checksum of a packet of `size` bytes into the real one. */
static void complete(uint8_t *packet, size_t size, const struct transport *transport) {
    (void)packet_complete_checksum(packet, size, transport->at,
                                   (size_t)(transport->checksum_at - transport->at));
}

void message_finish(struct message *message) {
    const struct cut *cut = message->cut;
    if (message->kind == MESSAGE_FRAME) {
        message->bytes[0] = FRAME_PREFIX;
    }
    if (cut == NULL) {
        return;
    }
    const struct transport *transport = &cut->transport;
    uint8_t *frame = message->bytes + (message->kind == MESSAGE_FRAME);
    uint8_t *packet = frame + cut->network_at;
    size_t length = message->size - (size_t)(packet - message->bytes);
    size_t payload = length - transport->payload_at;
    uint8_t sum[2];
    memcpy(frame, cut->header, cut->header_size);
    if (packet[0] >> 4 == PACKET_IPV4) {
        size_t identity = load_be16(packet + IPV4_IDENTITY_AT) + message->cut_at / cut->piece_size;
        store_be16(packet + IPV4_IDENTITY_AT, (uint16_t)identity);
    }
    transport_write_size(packet, length, transport);
    if (transport->protocol == TRANSPORT_TCP) {
        bool is_last = message->cut_at + payload == cut->size - cut->header_size;
        write_tcp(packet + transport->at, message->cut_at, is_last);
    }
    store_be16(sum, (uint16_t)(length - transport->at));
    store_be16(packet + transport->checksum_at, checksum_add(cut->pseudo_sum, sum, sizeof(sum)));
    message->cut = NULL;
    if (!message->is_partial) {
        complete(packet, length, transport);
    }
}

/* ---- messages ---- */

static uint8_t *packet_of(const struct message *message, size_t *size) {
    if (message->kind != MESSAGE_FRAME) {
        *size = message->kind == MESSAGE_PACKET ? message->size : 0;
        return message->bytes;
    }
    uint8_t *frame = message->bytes + 1;
    size_t network = frame_network(frame, message->size - 1);
    *size = message->size - 1 - network;
    return frame + network;
}

const uint8_t *message_packet(const struct message *message, size_t *size) {
    return packet_of(message, size);
}

void message_complete(struct message *message) {
    if (!message->is_partial) {
        return;
    }
    size_t size;
    uint8_t *packet = packet_of(message, &size);
    struct transport found;
    size = packet_ip_length(packet, size);
    if (transport_find(packet, size, &found)) {
        complete(packet, size, &found);
    }
    message->is_partial = false;
}

void message_mark_partial(struct message *message) {
    if (message->kind == MESSAGE_FRAME) {
        message->bytes[0] = FRAME_PARTIAL;
    } else {
        message->bytes[0] |= PACKET_PARTIAL;
    }
}

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

uint8_t message_tos(const struct message *message) {
    size_t size;
    const uint8_t *packet = message_packet(message, &size);
    return message->kind == MESSAGE_CONTROL ? 0 : marking_of(packet, size);
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
