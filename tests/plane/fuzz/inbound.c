/* The way in: receptions of hostile bytes, alone and in runs, up to the link. The input is a row
 * of receptions; their datagrams are any bytes, or messages of two peers that were really sealed,
 * whatever is inside. What reaches the link must be fit for a kernel. */
#include "coalesce.h"
#include "whole_plane.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
unsigned __wrap_udp_receive(struct plane *asked, struct receiver *receiver, unsigned socket,
                            unsigned room, bool *is_dry);
bool __wrap_link_write(struct plane *asked, unsigned queue, const struct iovec *vectors,
                       unsigned count);

enum {
    RECEPTION = 4, /* what, TOS, source, size of the datagrams */
    DATAGRAM = 3,  /* what, counter, bytes */
    MORE = 0x80,   /* of a reception: another turn before it */
    TRUNCATED = 0x40,
    REFUSED = 0x20,   /* the kernel does not take the next answer */
    RAW = 0x80,       /* of a datagram: the bytes as they are */
    FORGED = 0x40,    /* one bit of it flips */
    BACKWARDS = 0x20, /* its counter is one of before */
    PLAUSIBLE = 0x10, /* what is inside has the lengths of an IP packet */
    PARTIAL = 0x08,
    NEWER = 0x04, /* of those: IPv6 */
    STREAM = 0x02 /* of those: TCP */
};

/* What is left of the input, and where receptions are made. */
static struct {
    const uint8_t *data;
    size_t size;
    uint64_t counters[2];
    struct aead_key *keys[2];
    uint8_t bytes[4][65536];
} input;

static const uint8_t key[32] = "of both peers, a fuzzer's secret";

/* ---- what comes ---- */

static size_t take(uint8_t *out, size_t size) {
    size_t taken = size < input.size ? size : input.size;
    memcpy(out, input.data, taken);
    input.data += taken;
    input.size -= taken;
    return taken;
}

static void seal(uint8_t *out, const uint8_t *head, size_t size) {
    unsigned peer = head[0] & 1;
    uint64_t counter = input.counters[peer]++;
    uint8_t nonce[AEAD_NONCE_SIZE] = {0};
    if ((head[0] & BACKWARDS) != 0) {
        counter = head[1];
    }
    store_le32(out, DATA_TYPE);
    store_le32(out + 4, 1 + peer);
    store_le64(out + 8, counter);
    memcpy(nonce + 4, out + 8, 8);
    uint8_t *body = out + DATA_HEADER_SIZE;
    plane.aead->seal(input.keys[peer], nonce, out, DATA_HEADER_SIZE, body, size, body, body + size);
    if ((head[0] & FORGED) != 0) {
        out[head[1] % (size + DATA_OVERHEAD)] ^= 1;
    }
}

/* Makes an IP packet, or a frame with one, of the bytes that are there. */
static void make_plausible(uint8_t *body, size_t size, unsigned what) {
    bool is_partial = (what & PARTIAL) != 0;
    bool is_ipv6 = (what & NEWER) != 0;
    uint8_t protocol = (what & STREAM) != 0 ? TRANSPORT_TCP : TRANSPORT_UDP;
    if (plane.link.type == WIRE_LINK_TAP) {
        if (size < 1 + FRAME_HEADER_SIZE) {
            return;
        }
        body[0] = is_partial ? FRAME_PARTIAL : FRAME_PREFIX;
        store_be16(body + 13, is_ipv6 ? 0x86dd : 0x0800);
        body += 1 + FRAME_HEADER_SIZE;
        size -= 1 + FRAME_HEADER_SIZE;
        is_partial = false;
    }
    if (size < 60) {
        return;
    }
    body[0] = (uint8_t)((is_ipv6 ? 0x60 : 0x45) | (is_partial ? PACKET_PARTIAL : 0));
    if (is_ipv6) {
        store_be16(body + 4, (uint16_t)(size - 40));
        body[6] = protocol;
    } else {
        store_be16(body + 2, (uint16_t)size);
        body[9] = protocol;
    }
}

/* One datagram of `room` bytes at most; its size. */
static size_t make_datagram(uint8_t *out, size_t room) {
    uint8_t head[DATAGRAM] = {0};
    (void)take(head, sizeof(head));
    if ((head[0] & RAW) != 0 || room < DATA_OVERHEAD) {
        memset(out, 0, room);
        (void)take(out, head[2] < room ? head[2] : room);
        return room;
    }
    memset(out, 0, room);
    (void)take(out + DATA_HEADER_SIZE,
               head[2] < room - DATA_OVERHEAD ? head[2] : room - DATA_OVERHEAD);
    if ((head[0] & PLAUSIBLE) != 0) {
        make_plausible(out + DATA_HEADER_SIZE, room - DATA_OVERHEAD, head[0]);
    }
    seal(out, head, room - DATA_OVERHEAD);
    return room;
}

static void make_reception(struct reception *reception, uint8_t *bytes) {
    uint8_t head[RECEPTION] = {0};
    (void)take(head, sizeof(head));
    size_t stride = 1 + (size_t)head[3] * ((head[0] & 0x10) != 0 ? 6 : 1);
    unsigned count = 1 + head[0] % 16;
    *reception = (struct reception){.bytes = bytes,
                                    .stride = stride,
                                    .is_truncated = (head[0] & TRUNCATED) != 0,
                                    .tos = head[1]};
    reception->from.to = (struct wire_endpoint){
        .family = 4, .port = (uint16_t)(1 + head[2] % 4), .address = {192, 0, 2, 1}};
    for (unsigned i = 0; i < count; i++) {
        reception->size += make_datagram(bytes + reception->size, stride);
    }
    /* The last of a run may be shorter. */
    reception->size -= (head[2] >> 4) % stride;
    if ((head[0] & REFUSED) != 0) {
        static const int errors[] = {EIO, EINVAL, EMSGSIZE, ENOBUFS, ENETUNREACH};
        send_error = errors[head[2] % 5];
    }
}

unsigned __wrap_udp_receive(struct plane *asked, struct receiver *receiver, unsigned socket,
                            unsigned room, bool *is_dry) {
    unsigned count = 0;
    require(asked == &plane && socket == 0);
    *is_dry = true;
    while (input.size >= RECEPTION && count < 4 && count < room) {
        if (count > 0 && (input.data[0] & MORE) != 0) {
            *is_dry = false;
            break;
        }
        make_reception(&receiver->receptions[count], input.bytes[count]);
        count++;
    }
    return count;
}

/* ---- what reaches the link ---- */

/* The header that the kernel believes. */
static void check_header(const struct virtio_net_hdr *header, const uint8_t *packet, size_t length,
                         size_t network) {
    struct transport found;
    if (header->flags == 0) {
        require(header->gso_type == VIRTIO_NET_HDR_GSO_NONE && header->gso_size == 0);
        return;
    }
    require(header->flags == VIRTIO_NET_HDR_F_NEEDS_CSUM);
    require(transport_find(packet, length, &found));
    require(header->csum_start == network + found.at);
    require((size_t)header->csum_start + header->csum_offset == network + found.checksum_at);
    if (header->gso_type != VIRTIO_NET_HDR_GSO_NONE) {
        require(header->hdr_len == network + found.payload_at);
        require(header->gso_size > 0 && header->gso_size < length - found.payload_at);
    }
}

bool __wrap_link_write(struct plane *asked, unsigned queue, const struct iovec *vectors,
                       unsigned count) {
    static uint8_t whole[2 * 65536];
    size_t size = 0;
    (void)queue;
    require(asked == &plane && count >= 2 && count <= JOINED_VECTORS_MAX);
    require(vectors[0].iov_len == sizeof(struct virtio_net_hdr));
    for (unsigned i = 1; i < count; i++) {
        require(size + vectors[i].iov_len <= sizeof(whole));
        memcpy(whole + size, vectors[i].iov_base, vectors[i].iov_len);
        size += vectors[i].iov_len;
    }
    size_t network = 0;
    if (plane.link.type == WIRE_LINK_TAP) {
        require(size >= FRAME_HEADER_SIZE && !frame_is_group(frame_source(whole)));
        network = frame_network(whole, size);
    } else {
        uint8_t family;
        require(packet_ip_length(whole, size) == size);
        const uint8_t *source = packet_source(whole, &family);
        require(networks_find(plane.networks, family, source) != NETWORKS_NONE);
    }
    check_header(vectors[0].iov_base, whole + network,
                 packet_ip_length(whole + network, size - network), network);
    return true;
}

/* ---- the plane ---- */

/* Two peers: one whose session we began, and one that has yet to confirm its own. The second has
 * IPv4 alone. */
static void set_peers(void) {
    struct {
        struct set_peer_request head;
        struct wire_network networks[2];
    } wanted = {.head = {.public_key = {1}, .network_count = 2},
                .networks = {{.family = 4, .prefix = 1}, {.family = 6, .prefix = 0}}};
    struct install_session_request session = {
        .suite = 1, .features = FEATURE_CSUM | 1, .endpoint = {.family = 4, .port = 1}};
    memcpy(session.endpoint.address, (uint8_t[]){192, 0, 2, 1}, 4);
    memcpy(session.send_key, key, sizeof(key));
    memcpy(session.receive_key, key, sizeof(key));
    for (uint32_t peer = 0; peer < 2; peer++) {
        wanted.head.peer = session.peer = peer;
        wanted.head.public_key[0] = (uint8_t)(peer + 1);
        wanted.head.network_count = 2 - peer;
        wanted.networks[0].address[0] = peer == 0 ? 0 : 128;
        session.local_index = session.remote_index = peer + 1;
        session.is_initiator = peer == 0;
        size_t size = sizeof(wanted.head) + (2 - peer) * sizeof(struct wire_network);
        require(ask(WIRE_SET_PEER, &wanted, size, NULL) == 0);
        require(ask(WIRE_INSTALL_SESSION, &session, sizeof(session), NULL) == 0);
        input.counters[peer] = 0;
    }
}

/* What Ethernet frames both may send and get, also to and from each other. */
static void set_frames(bool by_vlan, uint32_t storm_limit) {
    struct set_peer_frames_request rules = {.flags =
                                                FRAMES_RELAYED | (by_vlan ? FRAMES_BY_VLAN : 0u),
                                            .storm_limit = storm_limit,
                                            .vlans = {1}};
    for (uint32_t peer = 0; peer < 2; peer++) {
        rules.peer = peer;
        require(ask(WIRE_SET_PEER_FRAMES, &rules, sizeof(rules), NULL) == 0);
    }
}

static void open_all(void) {
    plane_open();
    events_listen(&plane, true);
    plane.link.queues = 1;
    plane.link.mtu = plane.link.padding_mtu = 1420;
    plane.sockets.count = plane.sockets.workers = 1;
    plane.sockets.list[0] =
        (struct udp_socket){.fd = -1, .domain = AF_INET, .takes_ipv4 = true, .works = true};
    for (unsigned peer = 0; peer < 2; peer++) {
        require(plane.aead->key_new(&input.keys[peer], 1, key) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (plane.aead == NULL) {
        open_all();
    }
    if (size == 0) {
        return 0;
    }
    plane.link.type = (data[0] & 1) != 0 ? WIRE_LINK_TAP : WIRE_LINK_TUN;
    set_peers();
    if ((data[0] & 4) != 0) {
        set_frames((data[0] & 8) != 0, (data[0] & 0x10) != 0 ? 2 : 0);
    }
    /* The link's descriptors are none, so no request may touch its offloads from here on. */
    bool joins = (data[0] & 2) == 0;
    atomic_store(&plane.offloads.active, joins ? OFFLOAD_ALL : 0u);
    atomic_store(&plane.offloads.link, joins ? 0x7fu : 0u);
    input.data = data + 1;
    input.size = size - 1;
    while (input.size >= RECEPTION) {
        size_t before = input.size;
        inbound_turn(&plane.inbound.workers[0], 0);
        require(input.size < before);
    }
    plane.link.queues = 0; /* nothing to tell about offloads */
    plane.sockets.count = 0;
    plane_clear();
    plane.link.queues = 1;
    plane.sockets.count = 1;
    plane.sockets.list[0].works = true;
    return 0;
}
