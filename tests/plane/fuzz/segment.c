/* Frames of the link: whatever the kernel hands over, the pieces lie within the frame, have the
 * size that was asked for, and together are the frame. A part of the inputs is made plausible
 * first, so that the way behind the checks is walked too. */
#include "segment.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    PREFIX = 4, /* kind and repairs, MTU, protocol */
    VIRTIO = 10,
    REPAIR = 0x02,
    COMPLETE = 0x04,
};

static void require(bool kept) {
    if (!kept) {
        abort();
    }
}

/* What the whole frame says of itself, kept beside the cutting, which overwrites it. */
struct original {
    const uint8_t *bytes;
    size_t size;
    uint8_t *start; /* of the frame that is cut; one byte before it may be written */
    bool is_repaired;
};

/* Lengths, protocol and checksum as the kernel would have them. */
static void repair(uint8_t *bytes, size_t size, struct virtio_net_hdr *header, bool is_tap,
                   uint8_t choice) {
    size_t network = 0;
    bool is_tcp = (choice & 1) != 0;
    if (is_tap && size > 18) {
        size_t tag = (choice & 4) != 0 ? 4 : 0;
        store_be16(bytes + 12, 0x8100);
        store_be16(bytes + 12 + tag, (choice & 2) != 0 ? 0x0800 : 0x86dd);
        network = FRAME_HEADER_SIZE + tag;
    }
    if (size < network + 60) {
        return;
    }
    uint8_t *packet = bytes + network;
    size_t length = size - network;
    size_t at = 40;
    if ((choice & 2) != 0) {
        packet[0] = (uint8_t)(0x40 | (packet[0] & 7) | ((packet[0] & 7) < 5 ? 5 : 0));
        at = (packet[0] & 0x0fu) * 4u;
        store_be16(packet + 2, (uint16_t)length);
        packet[6] &= 0x40;
        packet[7] = 0;
        packet[9] = is_tcp ? TRANSPORT_TCP : TRANSPORT_UDP;
    } else {
        packet[0] = 0x60;
        store_be16(packet + 4, (uint16_t)(length - 40));
        packet[6] = is_tcp ? TRANSPORT_TCP : TRANSPORT_UDP;
    }
    if (length < at + 20) {
        return;
    }
    if (is_tcp && packet[at + TCP_OFFSET_AT] < 0x50) {
        packet[at + TCP_OFFSET_AT] = 0x50;
    }
    header->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    header->csum_start = (uint16_t)(network + at);
    header->csum_offset = is_tcp ? TCP_CHECKSUM_AT : UDP_CHECKSUM_AT;
    header->gso_size |= 1;
    header->gso_type = 0;
    if ((choice & 8) != 0) {
        header->gso_type = !is_tcp ? 5 : (choice & 2) != 0 ? 1 : 4;
    }
    store_be16(packet + at + header->csum_offset,
               transport_pseudo_sum(packet, is_tcp ? TRANSPORT_TCP : TRANSPORT_UDP, length - at));
}

/* Is the packet of a finished message as a receiver wants it? */
static void check_packet(const struct message *message, const struct original *original,
                         bool is_complete, bool is_cut) {
    size_t size;
    const uint8_t *packet = message_packet(message, &size);
    struct transport found;
    size_t length = packet_ip_length(packet, size);
    bool is_found = transport_find(packet, length, &found);
    require(message->bytes <= packet && packet + size <= message->bytes + message->size);
    require(!message->is_partial || is_found);
    if (is_cut) {
        require(length == size);
    }
    if (is_cut && is_found && packet[0] >> 4 == PACKET_IPV4) {
        require(checksum_add(0, packet, (packet[0] & 0x0fu) * 4u) == 0xffff);
    }
    if (is_cut && is_found && original->is_repaired && is_complete) {
        require(transport_is_intact(packet, length, &found));
    }
    uint8_t hops;
    (void)message_tos(message);
    (void)message_may_travel(message, &hops);
}

/* The payload of a piece is that of the frame, from where the last one ended. */
static void check_place(const struct cut *cut, const struct message *message,
                        const struct original *original, size_t *seen) {
    size_t prefix = message->kind == MESSAGE_FRAME;
    size_t around = prefix + cut->header_size;
    size_t payload = message->size - around;
    require(message->bytes + prefix >= original->start);
    require(message->bytes + message->size <= original->start + original->size);
    require(payload > 0 && payload <= cut->piece_size);
    require(memcmp(message->bytes + around, original->bytes + cut->header_size + *seen, payload) ==
            0);
    *seen += payload;
    require(payload == cut->piece_size || *seen == cut->size - cut->header_size);
}

static void try_frame(const struct link *link, const struct frame *frame,
                      const struct original *original, bool is_complete) {
    struct cut cut;
    struct message message;
    enum drop_reason reason = DROP_REASON_COUNT;
    size_t seen = 0;
    unsigned count = 0;
    size_t most = link->mtu + (link->type == WIRE_LINK_TAP ? FRAME_HEADER_SIZE + 4 : 0);
    if (!segment_begin(link, frame, &cut, &reason)) {
        require(reason < DROP_REASON_COUNT);
        return;
    }
    for (; segment_next(&cut, &message); count++) {
        bool is_cut = message.cut != NULL;
        message_finish(&message);
        require(message_inner_size(&message) <= most);
        if (is_cut) {
            check_place(&cut, &message, original, &seen);
        }
        if (is_complete) {
            message_complete(&message);
            require(!message.is_partial);
        }
        check_packet(&message, original, is_complete, is_cut);
        if (message.is_partial) {
            message_mark_partial(&message);
        }
    }
    require(count > 0 && !segment_next(&cut, &message));
    require(cut.piece_size == 0 ? count == 1 : seen == cut.size - cut.header_size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < PREFIX + VIRTIO) {
        return 0;
    }
    uint8_t choice = data[0];
    struct link link = {.type = (choice & 1) != 0 ? WIRE_LINK_TAP : WIRE_LINK_TUN,
                        .mtu = LINK_MTU_MIN + load_le16(data + 1) % (LINK_MTU_MAX - LINK_MTU_MIN)};
    struct frame frame = {.size = size - PREFIX - VIRTIO};
    memcpy(&frame.header, data + PREFIX, VIRTIO);
    /* The frame is as long as its memory, so that AddressSanitizer sees a step beyond. */
    uint8_t *room = malloc(1 + frame.size);
    uint8_t *copy = malloc(frame.size + 1);
    require(room != NULL && copy != NULL);
    frame.bytes = room + 1;
    memcpy(frame.bytes, data + PREFIX + VIRTIO, frame.size);
    if ((choice & REPAIR) != 0) {
        repair(frame.bytes, frame.size, &frame.header, link.type == WIRE_LINK_TAP, data[3]);
    }
    memcpy(copy, frame.bytes, frame.size);
    struct original original = {copy, frame.size, frame.bytes, (choice & REPAIR) != 0};
    try_frame(&link, &frame, &original, (choice & COMPLETE) != 0);
    free(room);
    free(copy);
    return 0;
}
