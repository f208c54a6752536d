#include "udp.h"

#include <errno.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "plane.h"

#define BUFFER_SIZE 65536u
/* The least a datagram buffer takes, whatever the link's MTU: path probes come in sizes of
 * their own. */
#define RECEIVE_MIN 9216u
#define RECEIVE_ROOM                                                                               \
    (DATA_OVERHEAD + FRAME_HEADER_SIZE + FRAME_PADDED_SIZE + 64u) /* around an inner packet */
/* Of large messages as many at once as come near this, in bytes. */
#define RECEIVE_BYTES (256u * 1024u)
/* A full buffer is taken in fewer turns; more come only as fast as they are taken. */
#define WAITING_TURNS_MAX 64u
/* So many errors in a row without a datagram: the socket is of no more use. */
#define RECEIVE_ERRORS_MAX 16u

/* ---- addresses ---- */

static bool is_link_local(const uint8_t address[16]) {
    return address[0] == 0xfe && (address[1] & 0xc0) == 0x80;
}

bool endpoint_is_valid(const struct wire_endpoint *endpoint) {
    static const uint8_t zeros[12];
    if (endpoint->zero != 0 || endpoint->port == 0) {
        return false;
    }
    if (endpoint->family == 4) {
        return endpoint->scope == 0 && memcmp(endpoint->address + 4, zeros, sizeof(zeros)) == 0;
    }
    return endpoint->family == 6 && (endpoint->scope == 0 || is_link_local(endpoint->address));
}

/* A mapped IPv4 address becomes an IPv4 endpoint, so that each address has one notation. */
static void endpoint_from_name(struct wire_endpoint *endpoint, const struct sockaddr_in6 *name) {
    memset(endpoint, 0, sizeof(*endpoint));
    if (name->sin6_family == AF_INET) {
        struct sockaddr_in ipv4;
        memcpy(&ipv4, name, sizeof(ipv4));
        endpoint->family = 4;
        endpoint->port = ntohs(ipv4.sin_port);
        memcpy(endpoint->address, &ipv4.sin_addr, 4);
    } else if (name->sin6_family == AF_INET6) {
        const uint8_t *address = name->sin6_addr.s6_addr;
        endpoint->port = ntohs(name->sin6_port);
        if (IN6_IS_ADDR_V4MAPPED(&name->sin6_addr)) {
            endpoint->family = 4;
            memcpy(endpoint->address, address + 12, 4);
        } else {
            endpoint->family = 6;
            endpoint->scope = is_link_local(address) ? name->sin6_scope_id : 0;
            memcpy(endpoint->address, address, 16);
        }
    }
}

void address_map(struct in6_addr *out, uint8_t family, const uint8_t address[16]) {
    memset(out, 0, sizeof(*out));
    if (family == 6) {
        memcpy(out->s6_addr, address, 16);
    } else {
        out->s6_addr[10] = 0xff;
        out->s6_addr[11] = 0xff;
        memcpy(out->s6_addr + 12, address, 4);
    }
}

socklen_t endpoint_to_name(const struct wire_endpoint *endpoint, int domain,
                           struct sockaddr_in6 *name) {
    memset(name, 0, sizeof(*name));
    if (domain == AF_INET) {
        struct sockaddr_in ipv4 = {.sin_family = AF_INET, .sin_port = htons(endpoint->port)};
        memcpy(&ipv4.sin_addr, endpoint->address, 4);
        memcpy(name, &ipv4, sizeof(ipv4));
        return sizeof(ipv4);
    }
    name->sin6_family = AF_INET6;
    name->sin6_port = htons(endpoint->port);
    name->sin6_scope_id = endpoint->scope;
    address_map(&name->sin6_addr, endpoint->family, endpoint->address);
    return sizeof(*name);
}

/* ---- the sockets ---- */

static int option_of(int fd, int level, int option) {
    int value = -1;
    socklen_t size = sizeof(value);
    return getsockopt(fd, level, option, &value, &size) < 0 ? -1 : value;
}

static bool socket_check(int fd, struct udp_socket *out) {
    struct sockaddr_in6 name = {0};
    socklen_t size = sizeof(name);
    int domain = option_of(fd, SOL_SOCKET, SO_DOMAIN);
    if (option_of(fd, SOL_SOCKET, SO_TYPE) != SOCK_DGRAM ||
        option_of(fd, SOL_SOCKET, SO_PROTOCOL) != IPPROTO_UDP ||
        (domain != AF_INET && domain != AF_INET6) ||
        getsockname(fd, (struct sockaddr *)&name, &size) < 0) {
        return false;
    }
    *out = (struct udp_socket){.fd = fd, .domain = domain, .works = true};
    out->takes_ipv4 = domain == AF_INET || option_of(fd, IPPROTO_IPV6, IPV6_V6ONLY) == 0;
    endpoint_from_name(&out->bound, &name);
    return out->bound.port != 0;
}

enum wire_error sockets_check(const int *fds, unsigned count, struct udp_socket *out) {
    for (unsigned i = 0; i < count; i++) {
        if (!socket_check(fds[i], &out[i])) {
            return WIRE_ERROR_bad_descriptors;
        }
    }
    return 0;
}

/* The kernel tells the local address of each datagram, by which answers leave, its DSCP and ECN,
 * and the pieces it came in. */
static void want_headers(const struct udp_socket *socket) {
    int on = 1;
    if (socket->domain == AF_INET6) {
        (void)setsockopt(socket->fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on));
        (void)setsockopt(socket->fd, IPPROTO_IPV6, IPV6_RECVTCLASS, &on, sizeof(on));
        (void)setsockopt(socket->fd, IPPROTO_IPV6, IPV6_RECVFRAGSIZE, &on, sizeof(on));
    }
    if (socket->takes_ipv4) {
        (void)setsockopt(socket->fd, IPPROTO_IP, IP_RECVTOS, &on, sizeof(on));
        (void)setsockopt(socket->fd, IPPROTO_IP, IP_RECVFRAGSIZE, &on, sizeof(on));
    }
    if (socket->domain == AF_INET) {
        (void)setsockopt(socket->fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on));
    }
}

/* 0, or the errno of the first socket that refused. */
static int set_gro(const struct sockets *sockets, int on) {
    int error = 0;
    for (unsigned i = 0; i < sockets->count; i++) {
        if (setsockopt(sockets->list[i].fd, SOL_UDP, UDP_GRO, &on, sizeof(on)) < 0 && error == 0) {
            error = errno;
        }
    }
    return error;
}

static int try_gso(const struct sockets *sockets) {
    int size = 0;
    for (unsigned i = 0; i < sockets->count; i++) {
        if (setsockopt(sockets->list[i].fd, SOL_UDP, UDP_SEGMENT, &size, sizeof(size)) < 0) {
            return errno;
        }
    }
    return 0;
}

/* A run that the kernel holds already would come without the size of its datagrams once it is told
 * to make no more of them. We hold tables, so we may do a worker's work. */
static void take_what_waits(struct plane *plane) {
    const struct sockets *sockets = &plane->sockets;
    for (unsigned i = 0; i < sockets->count; i++) {
        struct worker *worker = &plane->inbound.workers[i % sockets->workers];
        struct pollfd waiting = {.fd = sockets->list[i].fd, .events = POLLIN};
        for (unsigned turn = 0; turn < WAITING_TURNS_MAX && poll(&waiting, 1, 0) > 0; turn++) {
            worker->turn(worker, i);
        }
    }
}

void sockets_apply_offloads(struct plane *plane) {
    struct offloads *offloads = &plane->offloads;
    const struct sockets *sockets = &plane->sockets;
    bool is_there = sockets->count > 0;
    if (is_there && offload_is_wanted(offloads, OFFLOAD_UDP_GSO)) {
        offload_tried(offloads, OFFLOAD_UDP_GSO, try_gso(sockets));
    } else {
        offload_clear(offloads, OFFLOAD_UDP_GSO);
    }
    if (is_there && offload_is_wanted(offloads, OFFLOAD_UDP_GRO)) {
        offload_tried(offloads, OFFLOAD_UDP_GRO, set_gro(sockets, 1));
    } else {
        if (offload_runs(offloads, OFFLOAD_UDP_GRO)) {
            take_what_waits(plane);
        }
        (void)set_gro(sockets, 0);
        offload_clear(offloads, OFFLOAD_UDP_GRO);
    }
}

void sockets_set(struct plane *plane, const struct udp_socket *list, unsigned count,
                 unsigned workers) {
    struct sockets *sockets = &plane->sockets;
    sockets_close(plane);
    sockets->workers = workers;
    for (unsigned i = 0; i < count; i++) {
        sockets->list[i] = list[i];
        want_headers(&list[i]);
        crew_watch(&plane->inbound, i % workers, list[i].fd, i);
    }
    sockets->count = count;
    sockets->generation++;
    sockets_apply_offloads(plane);
}

void sockets_close(struct plane *plane) {
    struct sockets *sockets = &plane->sockets;
    for (unsigned i = 0; i < sockets->count; i++) {
        crew_unwatch(&plane->inbound, i % sockets->workers, sockets->list[i].fd);
        close(sockets->list[i].fd);
    }
    sockets->count = 0;
}

void socket_fail(struct plane *plane, unsigned number, int error) {
    struct udp_socket *socket = &plane->sockets.list[number];
    if (__atomic_exchange_n(&socket->works, false, __ATOMIC_RELAXED)) {
        crew_unwatch(&plane->inbound, number % plane->sockets.workers, socket->fd);
        events_failed(&plane->events, WIRE_EVENT_SOCKET_FAILED, error);
    }
}

/* ---- receiving ---- */

struct receiver *receiver_new(void) {
    struct receiver *receiver = calloc(1, sizeof(*receiver));
    if (receiver == NULL) {
        return NULL;
    }
    /* Mapped, not touched: pages come as datagrams of their size do. */
    void *buffers = mmap(NULL, BATCH_MAX * BUFFER_SIZE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffers == MAP_FAILED) {
        free(receiver);
        return NULL;
    }
    receiver->buffers = buffers;
    receiver->room = BATCH_MAX;
    return receiver;
}

void receiver_free(struct receiver *receiver) {
    if (receiver != NULL) {
        munmap(receiver->buffers, BATCH_MAX * BUFFER_SIZE);
        free(receiver);
    }
}

/* Makes the first `count` messages ready to be received into again. */
static void receiver_prepare(struct receiver *receiver, unsigned count, size_t size) {
    for (unsigned i = 0; i < count; i++) {
        receiver->vectors[i] = (struct iovec){receiver->buffers + (size_t)i * BUFFER_SIZE, size};
        receiver->headers[i].msg_hdr = (struct msghdr){
            .msg_name = &receiver->names[i],
            .msg_namelen = sizeof(receiver->names[i]),
            .msg_iov = &receiver->vectors[i],
            .msg_iovlen = 1,
            .msg_control = receiver->controls[i],
            .msg_controllen = sizeof(receiver->controls[i]),
        };
    }
}

/* How large a datagram, or a run of them, may come. */
static size_t receive_size(const struct plane *plane) {
    if (offload_runs(&plane->offloads, OFFLOAD_UDP_GRO)) {
        return BUFFER_SIZE;
    }
    size_t size = plane->link.mtu + RECEIVE_ROOM;
    return size < RECEIVE_MIN ? RECEIVE_MIN : size > DATAGRAM_MAX ? DATAGRAM_MAX : size;
}

static void take_control(struct reception *reception, const struct cmsghdr *item) {
    struct source *source = &reception->from.from;
    int value = 0;
    uint8_t byte;
    if (item->cmsg_level == IPPROTO_IP && item->cmsg_type == IP_PKTINFO) {
        struct in_pktinfo info;
        memcpy(&info, CMSG_DATA(item), sizeof(info));
        source->family = 4;
        memcpy(source->address, &info.ipi_spec_dst, 4);
    } else if (item->cmsg_level == IPPROTO_IPV6 && item->cmsg_type == IPV6_PKTINFO) {
        struct in6_pktinfo info;
        memcpy(&info, CMSG_DATA(item), sizeof(info));
        bool is_mapped = IN6_IS_ADDR_V4MAPPED(&info.ipi6_addr);
        source->family = is_mapped ? 4 : 6;
        memcpy(source->address, info.ipi6_addr.s6_addr + (is_mapped ? 12 : 0), is_mapped ? 4 : 16);
    } else if (item->cmsg_level == IPPROTO_IP && item->cmsg_type == IP_TOS) {
        memcpy(&byte, CMSG_DATA(item), sizeof(byte));
        reception->tos = byte;
    } else if (item->cmsg_level == IPPROTO_IPV6 && item->cmsg_type == IPV6_TCLASS) {
        memcpy(&value, CMSG_DATA(item), sizeof(value));
        reception->tos = (uint8_t)value;
    } else if ((item->cmsg_level == IPPROTO_IP && item->cmsg_type == IP_RECVFRAGSIZE) ||
               (item->cmsg_level == IPPROTO_IPV6 && item->cmsg_type == IPV6_RECVFRAGSIZE)) {
        memcpy(&value, CMSG_DATA(item), sizeof(value));
        reception->fragment = (uint16_t)value;
    } else if (item->cmsg_level == SOL_UDP && item->cmsg_type == UDP_GRO) {
        memcpy(&value, CMSG_DATA(item), sizeof(value));
        reception->stride = value > 0 ? (size_t)value : reception->size;
    }
}

static void reception_fill(struct reception *reception, struct mmsghdr *received, unsigned socket,
                           uint32_t generation) {
    struct msghdr *header = &received->msg_hdr;
    reception->bytes = header->msg_iov->iov_base;
    reception->size = received->msg_len;
    reception->stride = received->msg_len;
    reception->is_truncated = (header->msg_flags & MSG_TRUNC) != 0;
    reception->tos = 0;
    reception->fragment = 0;
    memset(&reception->from, 0, sizeof(reception->from));
    endpoint_from_name(&reception->from.to, header->msg_name);
    reception->from.from = (struct source){.socket = (uint8_t)socket, .generation = generation};
    for (struct cmsghdr *item = CMSG_FIRSTHDR(header); item != NULL;
         item = CMSG_NXTHDR(header, item)) {
        take_control(reception, item);
    }
}

/* Few large messages, or many small: what is received shall still be in the cache when it is
 * opened. */
static void adapt_room(struct receiver *receiver, unsigned count, size_t bytes) {
    size_t room = count == 0 ? BATCH_MAX : RECEIVE_BYTES / (bytes / count + 1);
    receiver->room = room > BATCH_MAX ? BATCH_MAX : room < 2 ? 2 : (unsigned)room;
}

unsigned udp_receive(struct plane *plane, struct receiver *receiver, unsigned socket, unsigned room,
                     bool *is_dry) {
    struct sockets *sockets = &plane->sockets;
    unsigned limit = room < receiver->room ? room : receiver->room;
    *is_dry = true;
    if (socket >= sockets->count ||
        !__atomic_load_n(&sockets->list[socket].works, __ATOMIC_RELAXED)) {
        return 0;
    }
    size_t size = receive_size(plane);
    if (size != receiver->size) {
        receiver_prepare(receiver, BATCH_MAX, size);
        receiver->size = size;
    }
    int count;
    for (unsigned errors = 0;;) {
        count = recvmmsg(sockets->list[socket].fd, receiver->headers, limit, MSG_DONTWAIT, NULL);
        if (count >= 0) {
            break;
        }
        if (errno == EAGAIN) {
            receiver->room = BATCH_MAX;
            return 0;
        }
        /* An error that an ICMP message left behind is gone once it was read. */
        if (errno == EBADF || errno == ENOTSOCK || ++errors == RECEIVE_ERRORS_MAX) {
            socket_fail(plane, socket, errno);
            return 0;
        }
    }
    size_t bytes = 0;
    for (unsigned i = 0; i < (unsigned)count; i++) {
        reception_fill(&receiver->receptions[i], &receiver->headers[i], socket,
                       sockets->generation);
        bytes += receiver->receptions[i].size;
    }
    receiver_prepare(receiver, (unsigned)count, size);
    *is_dry = (unsigned)count < limit;
    adapt_room(receiver, (unsigned)count, bytes);
    return (unsigned)count;
}
