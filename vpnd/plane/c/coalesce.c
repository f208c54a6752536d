#include "coalesce.h"

#include <string.h>

#include "bytes.h"
#include "packet.h"

#define FRAME_PIECES_MAX (JOINED_VECTORS_MAX - 1u)
#define UDP_PIECES_MAX                                                                             \
    64u /* the kernel refuses longer runs, UDP_MAX_SEGMENTS; it was 64 before 6.9 */
#define IP_LENGTH_MAX 65535u

/* Ones' complement has two zeros. As a checksum 0xffff is as right as 0, but only UDP writes it. */
#define OTHER_ZERO 0xffffu

enum {
    IPV4_HEADER = 20, /* options are never joined over */
    IPV4_IDENTITY_AT = 4,
    IPV4_FRAGMENT_AT = 6,
    IPV4_CHECKSUM_AT = 10,
    IPV4_ADDRESSES_AT = 12,
    IPV6_LENGTH_AT = 4,
    IPV6_NEXT_AT = 6,
    TCP_WINDOW_AT = 14,
};

/* Where an arrival's packet ends within it, and what it is. */
struct view {
    const uint8_t *packet;
    size_t length;
    struct transport transport;
    uint32_t flow;
    bool may_join; /* with a predecessor or a successor */
};

/* ---- what may be joined at all ---- */

static size_t payload_of(const struct view *view) {
    return view->length - view->transport.payload_at;
}

static bool is_ipv4(const uint8_t *packet) {
    return packet[0] >> 4 == PACKET_IPV4;
}

/* Addresses and ports; never 0. */
static uint32_t flow_of(const struct view *view) {
    size_t at = is_ipv4(view->packet) ? IPV4_ADDRESSES_AT : 8;
    size_t words = is_ipv4(view->packet) ? 2 : 8;
    uint32_t hash = load_le32(view->packet + view->transport.at);
    for (size_t i = 0; i < words; i++) {
        hash = (hash ^ load_le32(view->packet + at + i * 4)) * 0x9e3779b1u;
        hash ^= hash >> 15;
    }
    return hash | 1u;
}

static bool tcp_may_join(const uint8_t *tcp) {
    return (tcp[TCP_FLAGS_AT] & (TCP_SYN | TCP_RST | TCP_URG | TCP_CWR | TCP_ACK)) == TCP_ACK;
}

/* Without options, and with the checksum that will be written anew. */
static bool ipv4_may_join(const struct view *view) {
    return view->transport.at == IPV4_HEADER &&
           load_be16(view->packet + IPV4_CHECKSUM_AT) != OTHER_ZERO &&
           checksum_add(0, view->packet, IPV4_HEADER) == 0xffff;
}

static bool may_join(const struct coalescer *coalescer, const struct view *view) {
    const uint8_t *transport = view->packet + view->transport.at;
    if (payload_of(view) == 0 || (is_ipv4(view->packet) && !ipv4_may_join(view))) {
        return false;
    }
    if (view->transport.protocol == TRANSPORT_TCP) {
        return coalescer->joins_tcp && tcp_may_join(transport);
    }
    return coalescer->joins_udp && load_be16(transport + UDP_CHECKSUM_AT) != 0 &&
           load_be16(transport + UDP_LENGTH_AT) == view->length - view->transport.at;
}

static struct view view_of(const struct coalescer *coalescer, const struct arrival *arrival) {
    struct view view = {.packet = arrival->bytes + arrival->network_at};
    size_t rest = arrival->size - arrival->network_at;
    view.length = packet_ip_length(view.packet, rest);
    if (view.length == 0 || !transport_find(view.packet, view.length, &view.transport)) {
        return view;
    }
    view.flow = flow_of(&view);
    view.may_join = view.length == rest && may_join(coalescer, &view);
    return view;
}

/* ---- whether one continues another ---- */

static const uint8_t *packet_of(const struct joined_frame *frame) {
    return frame->first.bytes + frame->first.network_at;
}

static bool is_same_flow(const struct joined_frame *frame, const struct arrival *arrival,
                         const struct view *view) {
    const uint8_t *packet = packet_of(frame);
    if (frame->flow != view->flow || frame->first.owner != arrival->owner ||
        frame->transport.protocol != view->transport.protocol ||
        packet[0] >> 4 != view->packet[0] >> 4 ||
        memcmp(packet + frame->transport.at, view->packet + view->transport.at, 4) != 0) {
        return false;
    }
    return is_ipv4(packet)
               ? memcmp(packet + IPV4_ADDRESSES_AT, view->packet + IPV4_ADDRESSES_AT, 8) == 0
               : memcmp(packet + 8, view->packet + 8, 32) == 0;
}

/* All of the IP header but length, identity and checksum; the identity counts up. */
static bool continues_network(const struct joined_frame *frame, const struct view *view) {
    const uint8_t *packet = packet_of(frame);
    const uint8_t *next = view->packet;
    if (!is_ipv4(packet)) {
        return memcmp(packet, next, IPV6_LENGTH_AT) == 0 &&
               memcmp(packet + IPV6_NEXT_AT, next + IPV6_NEXT_AT, 2) == 0;
    }
    uint16_t identity = (uint16_t)(load_be16(packet + IPV4_IDENTITY_AT) + frame->packets);
    return load_be16(packet) == load_be16(next) && load_be16(next + IPV4_IDENTITY_AT) == identity &&
           load_be32(packet + IPV4_FRAGMENT_AT) >> 8 == load_be32(next + IPV4_FRAGMENT_AT) >> 8;
}

/* All of the TCP header but the sequence number, which counts on, PSH and FIN, and the checksum. */
static bool continues_tcp(const struct joined_frame *frame, const struct view *view) {
    const uint8_t *tcp = packet_of(frame) + frame->transport.at;
    const uint8_t *next = view->packet + view->transport.at;
    size_t header = (size_t)(view->transport.payload_at - view->transport.at);
    uint32_t sequence = load_be32(tcp + TCP_SEQUENCE_AT) + (uint32_t)(frame->packets * frame->unit);
    return frame->transport.payload_at == view->transport.payload_at &&
           load_be32(next + TCP_SEQUENCE_AT) == sequence &&
           memcmp(tcp + 8, next + 8, 5) == 0 && /* acknowledgement, offset */
           ((tcp[TCP_FLAGS_AT] ^ next[TCP_FLAGS_AT]) & ~(TCP_PSH | TCP_FIN)) == 0 &&
           memcmp(tcp + TCP_WINDOW_AT, next + TCP_WINDOW_AT, 2) == 0 &&
           memcmp(tcp + 18, next + 18, header - 18) == 0; /* urgent pointer, options */
}

/* Is the real checksum the one that will be written when the frame is cut? */
static bool is_exact(const uint8_t *packet, size_t length, const struct transport *transport) {
    return transport_is_intact(packet, length, transport) &&
           (transport->protocol == TRANSPORT_UDP ||
            load_be16(packet + transport->checksum_at) != OTHER_ZERO);
}

static bool has_room(const struct joined_frame *frame, size_t payload) {
    unsigned most = frame->transport.protocol == TRANSPORT_UDP ? UDP_PIECES_MAX : FRAME_PIECES_MAX;
    return frame->packets < most &&
           frame->size - frame->first.network_at + payload <= IP_LENGTH_MAX;
}

static bool may_take(struct joined_frame *frame, const struct arrival *arrival,
                     const struct view *view) {
    size_t payload = payload_of(view);
    if (!frame->is_open || !view->may_join || payload > frame->unit ||
        frame->first.network_at != arrival->network_at || !has_room(frame, payload) ||
        memcmp(frame->first.bytes, arrival->bytes, arrival->network_at) != 0 ||
        !continues_network(frame, view) ||
        (view->transport.protocol == TRANSPORT_TCP && !continues_tcp(frame, view))) {
        return false;
    }
    frame->is_trusted =
        frame->is_trusted ||
        is_exact(packet_of(frame), frame->size - arrival->network_at, &frame->transport);
    return frame->is_trusted &&
           (arrival->is_partial || is_exact(view->packet, view->length, &view->transport));
}

/* ---- taking ---- */

static bool ends_frame(const struct joined_frame *frame, size_t payload) {
    return payload < frame->unit || (frame->last_flags & (TCP_PSH | TCP_FIN)) != 0;
}

static unsigned add_piece(struct coalescer *coalescer, uint8_t *bytes, size_t size) {
    unsigned place = coalescer->pieces_count++;
    coalescer->pieces[place] = (struct joined_piece){bytes, size, JOINED_PIECES_MAX};
    return place;
}

static uint8_t flags_of(const struct view *view) {
    return view->transport.protocol == TRANSPORT_TCP
               ? view->packet[view->transport.at + TCP_FLAGS_AT]
               : 0;
}

static void begin_frame(struct coalescer *coalescer, const struct arrival *arrival,
                        const struct view *view) {
    struct joined_frame *frame = &coalescer->frames[coalescer->count++];
    frame->first = *arrival;
    frame->transport = view->transport;
    frame->flow = view->flow;
    frame->is_trusted = arrival->is_partial;
    frame->packets = 1;
    frame->size = arrival->size;
    frame->first_piece = add_piece(coalescer, arrival->bytes, arrival->size);
    frame->last_piece = frame->first_piece;
    frame->is_open = false;
    if (view->may_join) {
        frame->unit = payload_of(view);
        frame->last_flags = flags_of(view);
        frame->is_open = !ends_frame(frame, frame->unit);
    }
}

static void extend_frame(struct coalescer *coalescer, struct joined_frame *frame,
                         const struct arrival *arrival, const struct view *view) {
    size_t payload = payload_of(view);
    size_t headers = arrival->size - payload;
    unsigned piece = add_piece(coalescer, arrival->bytes + headers, payload);
    coalescer->pieces[frame->last_piece].next = piece;
    frame->last_piece = piece;
    frame->packets++;
    frame->size += payload;
    frame->last_flags = flags_of(view);
    frame->is_open = !ends_frame(frame, payload);
}

/* The frame of this flow that came last: what does not continue it must not be overtaken by what
 * would. */
static struct joined_frame *find_frame(struct coalescer *coalescer, const struct arrival *arrival,
                                       const struct view *view) {
    for (unsigned i = coalescer->count; i-- > 0;) {
        struct joined_frame *frame = &coalescer->frames[i];
        if (is_same_flow(frame, arrival, view)) {
            return frame;
        }
    }
    return NULL;
}

/* A fragment may belong to any flow, and none of it shall overtake it. */
static void close_frames(struct coalescer *coalescer) {
    for (unsigned i = 0; i < coalescer->count; i++) {
        coalescer->frames[i].is_open = false;
    }
}

bool coalesce_add(struct coalescer *coalescer, const struct arrival *arrival) {
    if (coalescer->count == JOINED_FRAMES_MAX || coalescer->pieces_count == JOINED_PIECES_MAX) {
        return false;
    }
    struct view view = view_of(coalescer, arrival);
    struct joined_frame *frame = view.flow == 0 ? NULL : find_frame(coalescer, arrival, &view);
    if (frame != NULL && may_take(frame, arrival, &view)) {
        extend_frame(coalescer, frame, arrival, &view);
        return true;
    }
    if (view.flow == 0) {
        close_frames(coalescer);
    }
    begin_frame(coalescer, arrival, &view);
    return true;
}

/* ---- giving ---- */

static void finish_joined(struct joined_frame *frame) {
    uint8_t *packet = frame->first.bytes + frame->first.network_at;
    const struct transport *transport = &frame->transport;
    size_t length = frame->size - frame->first.network_at;
    frame->header.gso_type = VIRTIO_NET_HDR_GSO_UDP_L4;
    transport_write_size(packet, length, transport);
    if (transport->protocol == TRANSPORT_TCP) {
        packet[transport->at + TCP_FLAGS_AT] |= frame->last_flags & (TCP_PSH | TCP_FIN);
        frame->header.gso_type =
            is_ipv4(packet) ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
    }
    store_be16(packet + transport->checksum_at,
               transport_pseudo_sum(packet, transport->protocol, length - transport->at));
    frame->header.gso_size = (uint16_t)frame->unit;
    frame->header.hdr_len = (uint16_t)(frame->first.network_at + transport->payload_at);
}

const struct joined_frame *coalesce_finish(struct coalescer *coalescer, unsigned place,
                                           struct iovec *vectors, unsigned *count) {
    struct joined_frame *frame = &coalescer->frames[place];
    frame->header = (struct virtio_net_hdr){.gso_type = VIRTIO_NET_HDR_GSO_NONE};
    if (frame->packets > 1) {
        finish_joined(frame);
    }
    if (frame->packets > 1 || frame->first.is_partial) {
        frame->header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        frame->header.csum_start = (uint16_t)(frame->first.network_at + frame->transport.at);
        frame->header.csum_offset = (uint16_t)(frame->transport.checksum_at - frame->transport.at);
    }
    vectors[0] = (struct iovec){&frame->header, sizeof(frame->header)};
    *count = 1;
    for (unsigned at = frame->first_piece; at != JOINED_PIECES_MAX;
         at = coalescer->pieces[at].next) {
        vectors[(*count)++] =
            (struct iovec){coalescer->pieces[at].bytes, coalescer->pieces[at].size};
    }
    return frame;
}

void coalesce_clear(struct coalescer *coalescer) {
    coalescer->count = 0;
    coalescer->pieces_count = 0;
}
