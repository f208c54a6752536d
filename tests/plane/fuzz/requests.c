/* The plane socket: any messages with any descriptors, over a real socket pair. Each is answered,
 * or the connection ends; a request that is refused changes nothing that can be asked for. */
#include "connection.h"

#include <arpa/inet.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "whole_plane.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    STEP = 4, /* type, descriptors, size in two bytes */
    TOGETHER =
        4,     /* of eight kinds of a step: nobody waits, and the next goes in the same message */
    RAW = 5,   /* the body as it is; those below are made plausible */
    LYING = 6, /* its length is wrong */
    HEADLESS = 7, /* there is no header */
    WITH_FDS = 0x80,
    FDS_OF_STEP = 5,
    PEERS = 8, /* that plausible messages name */
    MESSAGES_MAX = 64,
    BODY_MAX = 2048,
    MADE_MAX = 4096, /* of a message, whatever is made of its body */
};

/* What the daemon relies on. Filled from zeros, so that it can be compared as bytes. */
struct state {
    uint8_t inventory[sizeof(struct inventory_reply)];
    struct {
        uint32_t number;
        uint32_t mtu;
        size_t networks;
        struct wire_endpoint endpoint;
        struct wire_endpoint validated;
        const struct session *sessions[2 + UNCONFIRMED_MAX];
    } peers[MESSAGES_MAX]; /* a message makes one at most */
    struct offloads offloads;
    size_t records; /* of sessions */
    bool stopping;
};

static struct connection connection;
static int epoll_fd;

static void state_take(struct state *state) {
    size_t size;
    memset(state, 0, sizeof(*state));
    require(ask(WIRE_INVENTORY, NULL, 0, &size) == 0 && size == sizeof(state->inventory));
    memcpy(state->inventory, reply, size);
    require(plane.peers.count <= MESSAGES_MAX);
    for (uint32_t i = 0; i < plane.peers.count; i++) {
        const struct peer *peer = plane.peers.list[i];
        state->peers[i].number = peer->number;
        state->peers[i].mtu = atomic_load(&peer->mtu);
        state->peers[i].networks = networks_count(plane.networks, peer->number);
        state->peers[i].endpoint = peer->path.now.to;
        state->peers[i].validated = peer->path.validated.to;
        state->peers[i].sessions[0] = peer->current;
        state->peers[i].sessions[1] = peer->previous;
        memcpy(state->peers[i].sessions + 2, peer->unconfirmed, sizeof(peer->unconfirmed));
    }
    memcpy(&state->offloads, &plane.offloads, sizeof(state->offloads));
    state->records = plane.memory.head->high_water - plane.memory.free_count;
    state->stopping = plane.stopping;
}

/* A descriptor of one of the kinds that a daemon might pass, rightly or not. */
static int descriptor_new(unsigned kind) {
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd;
    switch (kind % 4) {
    case 0:
    case 1:
        fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (kind % 4 == 0) {
            require(bind(fd, (struct sockaddr *)&any, sizeof(any)) == 0);
        }
        return fd;
    case 2:
        return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    default:
        return epoll_create1(EPOLL_CLOEXEC);
    }
}

/* ---- arbitrary bytes rarely name a version, a peer, an address or a suite that exist ---- */

static const struct wire_endpoint somewhere = {.family = 4, .port = 9, .address = {192, 0, 2, 1}};
static const struct wire_endpoint nowhere;

static void make_network(uint8_t *bytes) {
    struct wire_network network;
    memcpy(&network, bytes, sizeof(network));
    unsigned width = network.family % 2 == 0 ? 32 : 128;
    network.family = width == 32 ? 4 : 6;
    network.prefix = (uint8_t)(network.prefix % (width + 1));
    memset(network.zero, 0, sizeof(network.zero));
    for (unsigned bit = network.prefix; bit < 128; bit++) {
        network.address[bit / 8] &= (uint8_t) ~(1u << (7 - bit % 8));
    }
    memcpy(bytes, &network, sizeof(network));
}

static void make_set_peer(uint8_t *body, size_t size) {
    struct set_peer_request wanted;
    memcpy(&wanted, body, sizeof(wanted));
    wanted.peer %= PEERS;
    wanted.flags %= 2;
    wanted.zero = 0;
    wanted.endpoint = wanted.endpoint.family % 2 == 0 ? somewhere : nowhere;
    memset(wanted.public_key, (int)wanted.peer + 1, sizeof(wanted.public_key));
    wanted.network_count = (uint32_t)((size - sizeof(wanted)) / sizeof(struct wire_network));
    memcpy(body, &wanted, sizeof(wanted));
    for (uint32_t i = 0; i < wanted.network_count; i++) {
        make_network(body + sizeof(wanted) + i * sizeof(struct wire_network));
    }
}

/* With one MAC address, or none. */
static size_t make_set_frames(uint8_t *body, size_t size) {
    struct set_peer_frames_request wanted;
    memcpy(&wanted, body, sizeof(wanted));
    wanted.peer %= PEERS;
    wanted.flags %= 2 * FRAMES_BY_VLAN;
    wanted.mac_count = size > sizeof(wanted);
    wanted.vlans[WIRE_VLANS_SIZE - 1] &= 0x7f;
    memcpy(body, &wanted, sizeof(wanted));
    memcpy(body + sizeof(wanted), (uint8_t[]){2, 0, 0, 0, 0, (uint8_t)size, 0, 0}, 8);
    return sizeof(wanted) + wanted.mac_count * sizeof(struct wire_mac);
}

static void make_install(uint8_t *body) {
    struct install_session_request wanted;
    memcpy(&wanted, body, sizeof(wanted));
    wanted.peer %= PEERS;
    wanted.local_index = 1 + wanted.local_index % PEERS;
    wanted.suite = (uint8_t)(1 + wanted.suite % 2);
    wanted.is_initiator %= 2;
    wanted.preferred %= 2;
    wanted.padding %= 4;
    wanted.zero = 0;
    wanted.endpoint = somewhere;
    memcpy(body, &wanted, sizeof(wanted));
}

static void make_send_control(uint8_t *body, size_t size) {
    struct send_control_request wanted;
    memcpy(&wanted, body, sizeof(wanted));
    wanted.peer %= PEERS;
    wanted.local_index %= PEERS;
    wanted.to = wanted.to.family % 2 == 0 ? somewhere : nowhere;
    memcpy(body, &wanted, sizeof(wanted));
    if (size > sizeof(wanted)) {
        body[sizeof(wanted)] = (uint8_t)(0x20 | (body[sizeof(wanted)] & 0x0f));
    }
}

/* How long a request of this type is; what may follow it stays. */
static size_t plausible_size(uint16_t type, size_t size) {
    static const size_t sizes[] = {
        [WIRE_HELLO] = sizeof(struct hello_request),
        [WIRE_LIST_PEERS] = sizeof(struct list_request),
        [WIRE_LIST_SESSIONS] = sizeof(struct list_request),
        [WIRE_LIST_MACS] = sizeof(struct list_request),
        [WIRE_SET_LINK] = sizeof(struct set_link_request),
        [WIRE_SET_SOCKETS] = sizeof(struct set_sockets_request),
        [WIRE_SET_PEER] = sizeof(struct set_peer_request),
        [WIRE_REMOVE_PEER] = sizeof(struct peer_request),
        [WIRE_INSTALL_SESSION] = sizeof(struct install_session_request),
        [WIRE_RETIRE_SESSION] = sizeof(struct session_request),
        [WIRE_SEND_DATAGRAM] = sizeof(struct send_datagram_request),
        [WIRE_SEND_CONTROL] = sizeof(struct send_control_request),
        [WIRE_SEND_KEEPALIVE] = sizeof(struct peer_request),
        [WIRE_FLUSH_STAGED] = sizeof(struct peer_request),
        [WIRE_SET_OPTIONS] = sizeof(struct set_options_request),
        [WIRE_SET_GATE] = sizeof(struct set_gate_request),
        [WIRE_SET_PEER_MTU] = sizeof(struct set_peer_mtu_request),
        [WIRE_CLOSE_GATE] = sizeof(struct close_gate_request),
        [WIRE_SET_PEER_FRAMES] = sizeof(struct set_peer_frames_request),
    };
    size_t least = type < sizeof(sizes) / sizeof(sizes[0]) ? sizes[type] : 0;
    size_t more = size > least ? size - least : 0;
    switch (type) {
    case WIRE_SET_PEER:
        return least + more / sizeof(struct wire_network) * sizeof(struct wire_network);
    case WIRE_SEND_DATAGRAM:
    case WIRE_SEND_CONTROL:
    case WIRE_SET_PEER_FRAMES:
        return least + more;
    default:
        return least;
    }
}

/* `body` has zeros behind its `size` bytes; says how many it has then. */
static size_t make_plausible(uint16_t type, uint8_t *body, size_t size) {
    static const struct hello_request hello = {.version = WIRE_VERSION};
    size = plausible_size(type, size);
    switch (type) {
    case WIRE_HELLO:
        memcpy(body, &hello, sizeof(hello));
        break;
    case WIRE_SET_PEER:
        make_set_peer(body, size);
        break;
    case WIRE_SET_PEER_FRAMES:
        return make_set_frames(body, size);
    case WIRE_INSTALL_SESSION:
        make_install(body);
        break;
    case WIRE_SEND_CONTROL:
        make_send_control(body, size);
        break;
    case WIRE_SEND_DATAGRAM:
        memcpy(body, &somewhere, sizeof(somewhere));
        break;
    case WIRE_REMOVE_PEER:
    case WIRE_RETIRE_SESSION:
    case WIRE_SEND_KEEPALIVE:
    case WIRE_FLUSH_STAGED:
    case WIRE_SET_PEER_MTU:
        body[0] %= PEERS;
        memset(body + 1, 0, 3);
        break;
    default:
        break;
    }
    return size;
}

/* ---- both ends ---- */

/* Sends the bytes with as many descriptors as `what` says. */
static void send_message(int fd, uint8_t *message, size_t size, uint8_t what) {
    int fds[FDS_OF_STEP];
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(fds))] = {0};
    struct iovec part = {message, size};
    struct msghdr out = {.msg_iov = &part, .msg_iovlen = 1};
    unsigned count = (what & WITH_FDS) == 0 ? 0 : what % (FDS_OF_STEP + 1);
    for (unsigned i = 0; i < count; i++) {
        fds[i] = descriptor_new((unsigned)(what >> (i < 2 ? 3 : 5)));
    }
    if (count > 0) {
        out.msg_control = control;
        out.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *item = CMSG_FIRSTHDR(&out);
        *item = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
                                 .cmsg_type = SCM_RIGHTS,
                                 .cmsg_len = CMSG_LEN(count * sizeof(int))};
        memcpy(CMSG_DATA(item), fds, count * sizeof(int));
    }
    require(sendmsg(fd, &out, MSG_NOSIGNAL) >= 0);
    for (unsigned i = 0; i < count; i++) {
        close(fds[i]);
    }
}

/* Makes one request of the next step, which is there; says how long it is. */
static size_t make_request(uint8_t *message, const uint8_t **data, size_t *size,
                           uint32_t sequence) {
    const uint8_t *step = *data;
    size_t body = load_le16(step + 2) % BODY_MAX;
    *data += STEP;
    *size -= STEP;
    body = body < *size ? body : *size;
    struct wire_header header = {.type = step[0] & 0x1f, .sequence = sequence};
    unsigned kind = step[0] >> 5;
    size_t head = kind == HEADLESS ? 0 : sizeof(header);
    memset(message, 0, MADE_MAX);
    memcpy(message + head, *data, body);
    *data += body;
    *size -= body;
    if (kind < RAW) {
        body = make_plausible(header.type, message + head, body);
    }
    header.length = (uint32_t)(body + (kind == LYING));
    memcpy(message, &header, head);
    return head + body;
}

/* Is the next step one that goes together with others? */
static bool is_together(const uint8_t *data, size_t size) {
    return size >= STEP && data[0] >> 5 == TOGETHER;
}

/* May the next message hold several requests? One of bytes alone may say anything. */
static bool is_several(const uint8_t *data, size_t size) {
    return is_together(data, size) || (size >= STEP && data[0] >> 5 == HEADLESS);
}

/* Makes and sends one message; false if the input is at its end. */
static bool send_step(int fd, const uint8_t **data, size_t *size, uint32_t sequence) {
    static uint8_t message[WIRE_MESSAGE_MAX];
    size_t made = 0;
    if (*size < STEP) {
        return false;
    }
    uint8_t what = (*data)[1];
    while (is_together(*data, *size) && made + 2 * MADE_MAX <= sizeof(message)) {
        made += make_request(message + made, data, size, 0);
    }
    if (made == 0) {
        made = make_request(message, data, size, sequence);
    } else if (*size >= STEP) {
        made += make_request(message + made, data, size, 0); /* it may be malformed */
    }
    send_message(fd, message, made, what);
    return true;
}

/* The reply, behind any events; false if there is none. Closes what came with it. */
static bool read_reply(int fd, struct wire_header *header) {
    static uint8_t message[WIRE_MESSAGE_MAX];
    for (;;) {
        _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int))];
        struct iovec part = {message, sizeof(message)};
        struct msghdr in = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = control,
                            .msg_controllen = sizeof(control)};
        ssize_t got = recvmsg(fd, &in, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (got <= 0) {
            return false;
        }
        const struct cmsghdr *item = CMSG_FIRSTHDR(&in);
        if (item != NULL) {
            int passed;
            memcpy(&passed, CMSG_DATA(item), sizeof(passed));
            close(passed);
        }
        require((size_t)got >= sizeof(*header));
        memcpy(header, message, sizeof(*header));
        if ((header->type & WIRE_REPLY) != 0) {
            require(header->length == (size_t)got - sizeof(*header));
            return true;
        }
    }
}

/* Has what came in one message served, however many refusals wait for the socket in between. */
static void serve_several(int fd) {
    struct wire_header header;
    while (read_reply(fd, &header) || connection.outgoing_size > 0) {
        connection_ready(&connection);
        if (plane.stopping || connection.fd < 0) {
            return;
        }
    }
    require(connection.incoming_size == 0);
}

static void talk(int fd, const uint8_t *data, size_t size) {
    static struct state before;
    static struct state after;
    for (uint32_t sequence = 1; sequence <= MESSAGES_MAX; sequence++) {
        struct wire_header header;
        bool several = is_several(data, size);
        state_take(&before);
        if (!send_step(fd, &data, &size, sequence)) {
            return;
        }
        connection_ready(&connection);
        if (plane.stopping || connection.fd < 0) {
            return;
        }
        if (several) {
            serve_several(fd);
        } else {
            require(read_reply(fd, &header));
            if (header.error != 0) {
                require(header.length == 0);
                state_take(&after);
                require(memcmp(&before, &after, sizeof(before)) == 0);
            }
        }
        if (plane.stopping || connection.fd < 0) {
            return;
        }
        connection_deliver(&connection);
    }
}

static void open_all(void) {
    plane_open();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    require(epoll_fd >= 0 && connection_open(&connection, &plane, epoll_fd, 0) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const struct set_sockets_request no_sockets;
    int pair[2];
    if (connection.plane == NULL) {
        open_all();
    }
    require(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    require(connection_adopt(&connection, pair[1]) == 0);
    /* Most inputs are about what comes after the greeting. */
    if (size > 0 && (data[0] & 1) == 0) {
        connection.is_greeted = true;
        events_listen(&plane, true);
    }
    if (size > 0) {
        talk(pair[0], data + 1, size - 1);
    }
    close(pair[0]);
    /* What is left of a message may hold one request to stop after the other. */
    for (unsigned i = 0; connection.fd >= 0 && i < MESSAGES_MAX; i++) {
        plane.stopping = false;
        connection_ready(&connection);
    }
    plane.stopping = false;
    require(connection.fd < 0);
    require(ask(WIRE_SET_SOCKETS, &no_sockets, sizeof(no_sockets), NULL) == 0);
    plane_clear();
    return 0;
}
