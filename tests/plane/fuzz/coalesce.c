/* Joining: whatever arrives, cutting what came out gives every packet back, in the order of its
 * flow. The input is a row of packets: of four flows that go on where they stopped, changed in
 * places, or any bytes at all. */
#include "coalesce.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "packet.h"
#include "segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    STEP = 6, /* what, size, two places with their changes */
    ARRIVALS_MAX = 400,
    FLOWS = 4,
    RAW = 0x80,
    PARTIAL = 0x40,
    OTHER_OWNER = 0x20,
    PUSH = 0x10,
    TAGGED = 0x08,
    BODY_MAX = 255,
};

struct kept {
    struct arrival arrival; /* what was added */
    uint8_t *memory;        /* of exactly its size */
    uint8_t *copy;          /* as it was */
    uint8_t *completed;     /* with a real checksum */
    struct transport transport;
    bool is_flow;
};

/* One run: what was added, and how far delivery got. */
struct run {
    struct kept kept[ARRIVALS_MAX];
    unsigned count;     /* added */
    unsigned delivered; /* of those, in all frames so far */
    bool is_tap;
    struct coalescer coalescer;
    uint8_t out[JOINED_PIECES_MAX * 400u + 1];
};

struct flow {
    uint32_t sequence;
    uint16_t identity;
};

static void require(bool kept) {
    if (!kept) {
        abort();
    }
}

/* ---- arrivals ---- */

static size_t write_ethernet(uint8_t *out, unsigned flow, bool is_tagged) {
    memset(out, 2, 12);
    store_be16(out + 12, 0x8100);
    store_be16(out + 14, 7);
    size_t tag = is_tagged ? 4 : 0;
    store_be16(out + 12 + tag, flow % 2 == 0 ? 0x0800 : 0x86dd);
    return FRAME_HEADER_SIZE + tag;
}

/* Flows 0 and 1 are of TCP, 0 and 2 of IPv4. */
static size_t write_headers(uint8_t *out, unsigned number, struct flow *flow, size_t body,
                            bool pushes) {
    bool is_tcp = number < 2;
    bool is_ipv4 = number % 2 == 0;
    size_t at = is_ipv4 ? 20 : 40;
    size_t header = is_tcp ? 20 : 8;
    uint8_t *transport = out + at;
    memset(out, 0, at + header);
    out[0] = is_ipv4 ? 0x45 : 0x60;
    if (is_ipv4) {
        store_be16(out + 2, (uint16_t)(at + header + body));
        store_be16(out + 4, flow->identity++);
        out[8] = 64;
        out[9] = is_tcp ? TRANSPORT_TCP : TRANSPORT_UDP;
        store_be32(out + 12, 0x0a000001);
        store_be32(out + 16, 0x0a000002);
        ipv4_write_checksum(out, 20);
    } else {
        store_be16(out + 4, (uint16_t)(header + body));
        out[6] = is_tcp ? TRANSPORT_TCP : TRANSPORT_UDP;
        out[7] = 64;
        out[8] = out[24] = 0xfd;
        out[23] = 1;
        out[39] = 2;
    }
    store_be16(transport, 1000);
    store_be16(transport + 2, 2000);
    if (is_tcp) {
        store_be32(transport + TCP_SEQUENCE_AT, flow->sequence);
        transport[TCP_OFFSET_AT] = 0x50;
        transport[TCP_FLAGS_AT] = (uint8_t)(TCP_ACK | (pushes ? TCP_PSH : 0));
        flow->sequence += (uint32_t)body;
    } else {
        store_be16(transport + UDP_LENGTH_AT, (uint16_t)(header + body));
    }
    return at + header;
}

static void write_checksum(uint8_t *packet, size_t size, bool is_partial) {
    struct transport found;
    if (!transport_find(packet, packet_ip_length(packet, size), &found)) {
        return;
    }
    size = packet_ip_length(packet, size);
    store_be16(packet + found.checksum_at,
               transport_pseudo_sum(packet, found.protocol, size - found.at));
    if (!is_partial) {
        (void)packet_complete_checksum(packet, size, found.at,
                                       (size_t)(found.checksum_at - found.at));
    }
}

/* A packet of a flow, then two of its bytes changed: before the checksum is written, or after. */
static size_t make_of_flow(uint8_t *out, const uint8_t *step, struct flow flows[FLOWS],
                           bool is_tap) {
    unsigned number = step[0] % FLOWS;
    size_t network = is_tap ? write_ethernet(out, number, (step[0] & TAGGED) != 0) : 0;
    size_t headers =
        write_headers(out + network, number, &flows[number], step[1], (step[0] & PUSH) != 0);
    size_t size = network + headers + step[1];
    memset(out + network + headers, step[1], step[1]);
    out[step[2] % size] ^= step[3];
    write_checksum(out + network, size - network, (step[0] & PARTIAL) != 0);
    out[step[4] % size] ^= step[5];
    return size;
}

/* Remembers an arrival before it is added; content.c promises what is made sure here. */
static void keep(struct run *run, const uint8_t *bytes, size_t size, const uint8_t *step) {
    struct kept *kept = &run->kept[run->count];
    *kept = (struct kept){.memory = malloc(size), .copy = malloc(size), .completed = malloc(size)};
    require(kept->memory != NULL && kept->copy != NULL && kept->completed != NULL);
    memcpy(kept->memory, bytes, size);
    kept->arrival = (struct arrival){.bytes = kept->memory,
                                     .size = size,
                                     .network_at = run->is_tap ? frame_network(bytes, size) : 0,
                                     .owner = (step[0] & OTHER_OWNER) != 0 ? run : NULL};
    uint8_t *packet = kept->memory + kept->arrival.network_at;
    size_t rest = size - kept->arrival.network_at;
    size_t length = packet_ip_length(packet, rest);
    kept->is_flow = transport_find(packet, length, &kept->transport);
    kept->arrival.is_partial = kept->is_flow && (step[0] & PARTIAL) != 0;
    if (kept->arrival.is_partial) {
        write_checksum(packet, rest, true);
    }
    memcpy(kept->copy, kept->memory, size);
    memcpy(kept->completed, kept->memory, size);
    if (kept->arrival.is_partial) {
        write_checksum(kept->completed + kept->arrival.network_at, rest, false);
    }
}

/* ---- deliveries ---- */

static struct kept *kept_at(struct run *run, const uint8_t *address) {
    for (unsigned i = run->delivered; i < run->count; i++) {
        struct kept *kept = &run->kept[i];
        if (address >= kept->memory && address < kept->memory + kept->arrival.size) {
            return kept;
        }
    }
    abort();
}

/* The kernel's half: the frame, whole, is cut and completed. */
static void check_joined(struct run *run, const struct joined_frame *joined,
                         const struct iovec *vectors, unsigned count) {
    size_t size = 0;
    for (unsigned i = 1; i < count; i++) {
        require(size + vectors[i].iov_len < sizeof(run->out));
        memcpy(run->out + 1 + size, vectors[i].iov_base, vectors[i].iov_len);
        size += vectors[i].iov_len;
    }
    require(size == joined->size && size - joined->first.network_at <= 65535);
    struct link link = {.type = run->is_tap ? WIRE_LINK_TAP : WIRE_LINK_TUN, .mtu = 65535};
    struct frame frame = {joined->header, run->out + 1, size};
    struct cut cut;
    struct message message;
    enum drop_reason reason;
    require(segment_begin(&link, &frame, &cut, &reason));
    for (unsigned i = 1; i < count; i++) {
        const struct kept *kept = kept_at(run, vectors[i].iov_base);
        require(segment_next(&cut, &message));
        message_finish(&message);
        message_complete(&message);
        require(kept->arrival.owner == joined->first.owner);
        require(message_inner_size(&message) == kept->arrival.size);
        require(memcmp(message.bytes + run->is_tap, kept->completed, kept->arrival.size) == 0);
    }
    require(!segment_next(&cut, &message));
}

static void check_single(struct run *run, const struct joined_frame *joined,
                         const struct iovec *vectors) {
    const struct kept *kept = kept_at(run, vectors[1].iov_base);
    require(vectors[1].iov_base == kept->memory && vectors[1].iov_len == kept->arrival.size);
    require(memcmp(kept->memory, kept->copy, kept->arrival.size) == 0);
    require(joined->header.gso_type == VIRTIO_NET_HDR_GSO_NONE);
    require(joined->header.flags == (kept->arrival.is_partial ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0));
    if (kept->arrival.is_partial) {
        size_t place = (size_t)joined->header.csum_start + joined->header.csum_offset;
        require(place == kept->arrival.network_at + kept->transport.checksum_at);
    }
}

/* May the two not change places? */
static bool must_keep_order(const struct kept *one, const struct kept *other) {
    if (!one->is_flow || !other->is_flow) {
        return true;
    }
    const uint8_t *first = one->copy + one->arrival.network_at;
    const uint8_t *second = other->copy + other->arrival.network_at;
    size_t addresses = first[0] >> 4 == PACKET_IPV4 ? 8 : 32;
    size_t at = first[0] >> 4 == PACKET_IPV4 ? 12 : 8;
    return one->arrival.owner == other->arrival.owner && first[0] >> 4 == second[0] >> 4 &&
           one->transport.protocol == other->transport.protocol &&
           memcmp(first + at, second + at, addresses) == 0 &&
           memcmp(first + one->transport.at, second + other->transport.at, 4) == 0;
}

/* Takes all frames and looks at what is in them, and in which order. */
static void deliver(struct run *run) {
    struct iovec vectors[JOINED_VECTORS_MAX];
    const struct kept *order[ARRIVALS_MAX];
    unsigned seen = 0;
    for (unsigned place = 0; place < run->coalescer.count; place++) {
        unsigned count;
        const struct joined_frame *joined =
            coalesce_finish(&run->coalescer, place, vectors, &count);
        require(count >= 2 && count <= JOINED_VECTORS_MAX && joined->packets == count - 1);
        for (unsigned i = 1; i < count; i++) {
            const struct kept *kept = kept_at(run, vectors[i].iov_base);
            for (unsigned before = 0; before < seen; before++) {
                require(order[before] != kept);
                require(order[before] < kept || !must_keep_order(order[before], kept));
            }
            order[seen++] = kept;
        }
        if (count > 2) {
            check_joined(run, joined, vectors, count);
        } else {
            check_single(run, joined, vectors);
        }
    }
    require(seen == run->count - run->delivered);
    run->delivered = run->count;
    coalesce_clear(&run->coalescer);
}

static void add(struct run *run, const uint8_t *bytes, size_t size, const uint8_t *step) {
    keep(run, bytes, size, step);
    if (!coalesce_add(&run->coalescer, &run->kept[run->count].arrival)) {
        deliver(run);
        require(coalesce_add(&run->coalescer, &run->kept[run->count].arrival));
    }
    run->count++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct run run;
    struct flow flows[FLOWS] = {{.sequence = 0xfffffff0, .identity = 0xfffe}};
    uint8_t packet[FRAME_HEADER_SIZE + 4 + 40 + 20 + BODY_MAX];
    if (size == 0) {
        return 0;
    }
    run.count = run.delivered = 0;
    run.is_tap = (data[0] & 1) != 0;
    coalesce_clear(&run.coalescer);
    run.coalescer.joins_tcp = (data[0] & 2) == 0;
    run.coalescer.joins_udp = (data[0] & 4) == 0;
    for (data++, size--; size >= STEP && run.count < ARRIVALS_MAX; data += STEP, size -= STEP) {
        size_t made = data[1];
        if ((data[0] & RAW) == 0) {
            made = make_of_flow(packet, data, flows, run.is_tap);
            add(&run, packet, made, data);
        } else if (made >= FRAME_HEADER_SIZE && made <= size - STEP) {
            add(&run, data + STEP, made, data);
            data += made;
            size -= made;
        }
    }
    deliver(&run);
    for (unsigned i = 0; i < run.count; i++) {
        free(run.kept[i].memory);
        free(run.kept[i].copy);
        free(run.kept[i].completed);
    }
    return 0;
}
