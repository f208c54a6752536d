#include "sender.h"

#include <errno.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "plane.h"

#define ARENA_SIZE       (RUN_MAX * 2048u)
#define SEND_PATIENCE_MS 20

#ifndef PARCEL_DATAGRAMS_MAX
#define PARCEL_DATAGRAMS_MAX 64u /* kernels before 6.9 take no more */
#endif
#define GSO_REST_NS (30 * NS_PER_SECOND) /* a path that refused may have changed by then */

_Static_assert(ARENA_SIZE >= DATAGRAM_MAX, "one datagram always fits");

struct sender *sender_new(struct plane *plane) {
    struct sender *sender = calloc(1, sizeof(*sender));
    if (sender == NULL) {
        return NULL;
    }
    sender->plane = plane;
    sender->arena = malloc(ARENA_SIZE);
    if (sender->arena == NULL) {
        free(sender);
        return NULL;
    }
    return sender;
}

void sender_free(struct sender *sender) {
    if (sender != NULL) {
        free(sender->arena);
        free(sender);
    }
}

static bool socket_speaks(const struct udp_socket *socket, uint8_t family) {
    if (!__atomic_load_n(&socket->works, __ATOMIC_RELAXED)) {
        return false;
    }
    return family == 4 ? socket->takes_ipv4 : socket->domain == AF_INET6;
}

/* The socket the peer's last message came to, else the first that speaks its family. */
static int choose_socket(const struct sockets *sockets, const struct destination *to) {
    unsigned known = to->from.socket;
    if (to->from.family != 0 && to->from.generation == sockets->generation &&
        known < sockets->count && socket_speaks(&sockets->list[known], to->to.family)) {
        return (int)known;
    }
    for (unsigned i = 0; i < sockets->count; i++) {
        if (socket_speaks(&sockets->list[i], to->to.family)) {
            return (int)i;
        }
    }
    return -1;
}

/* Writes one item of control data; says its bytes. */
static size_t put_control(uint8_t *control, int level, int type, const void *value, size_t size) {
    struct cmsghdr *item = (struct cmsghdr *)(void *)control;
    memset(control, 0, CMSG_SPACE(size));
    *item = (struct cmsghdr){.cmsg_level = level, .cmsg_type = type, .cmsg_len = CMSG_LEN(size)};
    memcpy(CMSG_DATA(item), value, size);
    return CMSG_SPACE(size);
}

/* The interface is left to routing: a path that moves to another one shall be followed. */
static size_t source_to_control(const struct source *source, int domain, uint8_t *control) {
    if (domain == AF_INET) {
        struct in_pktinfo info = {0};
        memcpy(&info.ipi_spec_dst, source->address, 4);
        return put_control(control, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
    }
    struct in6_pktinfo info = {0};
    address_map(&info.ipi6_addr, source->family, source->address);
    return put_control(control, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof(info));
}

/* A datagram of IPv4 wants the option of IPv4, also on a socket of IPv6. */
static size_t number_to_control(int number, uint8_t family, int type4, int type6,
                                uint8_t *control) {
    bool is_ipv4 = family == 4;
    return put_control(control, is_ipv4 ? IPPROTO_IP : IPPROTO_IPV6, is_ipv4 ? type4 : type6,
                       &number, sizeof(number));
}

/* Source, hops and marking, where the kernel is not to choose them. */
static void aim_write_control(struct aim *aim, int domain) {
    const struct destination *to = &aim->to;
    size_t size = 0;
    if (to->from.family == to->to.family) {
        size += source_to_control(&to->from, domain, aim->control);
    }
    if (to->hops != 0) {
        size +=
            number_to_control(to->hops, to->to.family, IP_TTL, IPV6_HOPLIMIT, aim->control + size);
    }
    if (to->tos != 0) {
        size += number_to_control(to->tos, to->to.family, IP_TOS, IPV6_TCLASS, aim->control + size);
    }
    aim->control_size = size;
}

static int domain_of(const struct sender *sender, const struct aim *aim) {
    return sender->plane->sockets.list[aim->socket].domain;
}

/* The aim of a datagram, made unless the one before has the same. */
static struct aim *sender_aim(struct sender *sender, const struct destination *to) {
    if (sender->aims_count > 0) {
        struct aim *last = &sender->aims[sender->aims_count - 1];
        if (memcmp(&last->to, to, sizeof(*to)) == 0) {
            return last;
        }
    }
    int socket = choose_socket(&sender->plane->sockets, to);
    if (socket < 0) {
        return NULL;
    }
    struct aim *aim = &sender->aims[sender->aims_count++];
    aim->to = *to;
    aim->socket = (uint8_t)socket;
    aim->name_size = endpoint_to_name(&to->to, domain_of(sender, aim), &aim->name);
    aim_write_control(aim, domain_of(sender, aim));
    return aim;
}

uint8_t *sender_put(struct sender *sender, const struct destination *to, size_t size,
                    struct peer *peer, size_t inner) {
    if (sender->count == RUN_MAX || sender->used + size > ARENA_SIZE) {
        sender_flush(sender);
    }
    struct aim *aim = sender_aim(sender, to);
    if (aim == NULL) {
        drop_count(sender->plane, peer, DROP_no_socket, 1);
        return NULL;
    }
    uint8_t *bytes = sender->arena + sender->used;
    sender->used += size;
    sender->sendings[sender->count++] =
        (struct sending){peer, bytes, size, inner, (uint8_t)(aim - sender->aims)};
    return bytes;
}

/* ---- parcels ---- */

static struct aim *aim_of(struct sender *sender, unsigned sending) {
    return &sender->aims[sender->sendings[sending].aim];
}

/* May the kernel cut datagrams to this peer out of one message? */
static bool may_gso(const struct sender *sender, const struct peer *peer) {
    if (peer == NULL || !offload_runs(&sender->plane->offloads, OFFLOAD_UDP_GSO)) {
        return false;
    }
    uint64_t refused_ns = atomic_load_explicit(&peer->gso_refused_ns, memory_order_relaxed);
    return refused_ns == 0 || elapsed_ns(refused_ns, boottime_ns()) >= GSO_REST_NS;
}

/* How many datagrams from `first` on make one parcel. They lie one behind the other. */
static unsigned parcel_measure(const struct sender *sender, unsigned first, size_t *total) {
    const struct sending *head = &sender->sendings[first];
    unsigned count = 1;
    *total = head->size;
    if (!may_gso(sender, head->peer)) {
        return count;
    }
    while (first + count < sender->count && count < PARCEL_DATAGRAMS_MAX) {
        const struct sending *next = head + count;
        if (next->aim != head->aim || next->peer != head->peer || next->size > head->size ||
            *total + next->size > DATAGRAM_MAX) {
            break;
        }
        *total += next->size;
        count++;
        if (next->size < head->size) {
            break;
        }
    }
    return count;
}

static unsigned parcel_make(struct sender *sender, unsigned place, unsigned first) {
    struct parcel *parcel = &sender->parcels[place];
    const struct sending *head = &sender->sendings[first];
    struct aim *aim = aim_of(sender, first);
    size_t control = aim->control_size;
    size_t total;
    parcel->count = parcel_measure(sender, first, &total);
    parcel->bytes = (struct iovec){head->bytes, total};
    memcpy(parcel->control, aim->control, control);
    if (parcel->count > 1) {
        uint16_t size = (uint16_t)head->size;
        control +=
            put_control(parcel->control + control, SOL_UDP, UDP_SEGMENT, &size, sizeof(size));
    }
    sender->headers[place].msg_hdr = (struct msghdr){
        .msg_name = &aim->name,
        .msg_namelen = aim->name_size,
        .msg_iov = &parcel->bytes,
        .msg_iovlen = 1,
        .msg_control = control > 0 ? parcel->control : NULL,
        .msg_controllen = control,
    };
    return parcel->count;
}

/* Makes parcels of the datagrams from `first` on, as far as they leave by one socket; says how
 * many parcels. */
static unsigned parcels_make(struct sender *sender, unsigned first) {
    unsigned socket = aim_of(sender, first)->socket;
    unsigned parcels = 0;
    while (first < sender->count && aim_of(sender, first)->socket == socket) {
        first += parcel_make(sender, parcels++, first);
    }
    return parcels;
}

/* ---- sending ---- */

static void capture_sent(struct sender *sender, unsigned first, unsigned count) {
    for (unsigned i = first; i < first + count; i++) {
        const struct sending *sending = &sender->sendings[i];
        capture_outer(sender->plane, sending->peer, CAPTURE_OUT, &aim_of(sender, i)->to,
                      sending->bytes, sending->size);
    }
}

static void account_sent(struct sender *sender, unsigned first, unsigned count) {
    counter_add(&sender->plane->counters->tx_datagrams, count);
    if (capture_wants(&sender->plane->capture, CAPTURE_OUTER)) {
        capture_sent(sender, first, count);
    }
    for (unsigned end = first + count; first < end;) {
        struct peer *peer = sender->sendings[first].peer;
        uint64_t packets = 0;
        uint64_t bytes = 0;
        for (; first < end && sender->sendings[first].peer == peer; first++) {
            packets += sender->sendings[first].inner > 0;
            bytes += sender->sendings[first].inner;
        }
        if (peer != NULL && packets > 0) {
            counter_add(&peer->counters->tx_packets, packets);
            counter_add(&peer->counters->tx_bytes, bytes);
        }
    }
}

static void account_failed(struct sender *sender, unsigned first, unsigned count,
                           enum drop_reason reason) {
    for (unsigned i = first; i < first + count; i++) {
        const struct sending *sending = &sender->sendings[i];
        drop_count(sender->plane, sending->peer, reason, 1);
        capture_dropped_outer(sender->plane, sending->peer, reason, CAPTURE_OUT,
                              &aim_of(sender, i)->to, sending->bytes, sending->size);
    }
    sender->failed += count;
}

/* Takes our chosen source from the aim; false if it had none. */
static bool forget_source(struct sender *sender, unsigned first) {
    struct aim *aim = aim_of(sender, first);
    struct peer *peer = sender->sendings[first].peer;
    if (aim->to.from.family != aim->to.to.family) {
        return false;
    }
    aim->to.from.family = 0;
    aim_write_control(aim, domain_of(sender, aim));
    if (peer != NULL) {
        atomic_store(&peer->forget_source, true);
    }
    return true;
}

/* The kernel does not cut for this path (EINVAL, EMSGSIZE: its MTU is below the datagrams' size)
 * or for none (EIO: the device cannot finish their checksums). True if that explains the error. */
static bool forget_gso(struct sender *sender, unsigned first, int error) {
    struct peer *peer = sender->sendings[first].peer;
    if (sender->parcels[0].count == 1 || peer == NULL ||
        (error != EIO && error != EINVAL && error != EMSGSIZE)) {
        return false;
    }
    atomic_store(&peer->gso_refused_ns, boottime_ns());
    __atomic_store_n(&peer->counters->gso_error, (uint32_t)error, __ATOMIC_RELAXED);
    return true;
}

/* The kernel refused the first parcel; says how many datagrams from `first` on are settled by
 * that. None: the rest may go now, in other parcels. */
static unsigned send_refused(struct sender *sender, unsigned first, int error, bool *may_wait) {
    unsigned socket = aim_of(sender, first)->socket;
    unsigned count = sender->parcels[0].count;
    if (error == EINTR || forget_gso(sender, first, error)) {
        return 0;
    }
    switch (error) {
    case EAGAIN:
        if (*may_wait) {
            struct pollfd waiting = {.fd = sender->plane->sockets.list[socket].fd,
                                     .events = POLLOUT};
            *may_wait = false;
            if (poll(&waiting, 1, SEND_PATIENCE_MS) > 0) {
                return 0;
            }
        }
        account_failed(sender, first, count, DROP_send_full);
        return count;
    case ENOBUFS:
        account_failed(sender, first, count, DROP_send_full);
        return count;
    case EBADF:
    case ENOTSOCK:
        socket_fail(sender->plane, socket, error);
        break;
    case EINVAL:
    case ENETUNREACH:
    case EADDRNOTAVAIL:
    case ENODEV:
        if (forget_source(sender, first)) {
            return 0;
        }
        break;
    default:
        break;
    }
    account_failed(sender, first, count, DROP_send_error);
    return count;
}

/* A parcel that went proves that the path takes it again. */
static void remember_gso(struct sender *sender, unsigned first, const struct parcel *parcel) {
    struct peer *peer = sender->sendings[first].peer;
    if (parcel->count > 1 &&
        atomic_load_explicit(&peer->gso_refused_ns, memory_order_relaxed) != 0) {
        atomic_store(&peer->gso_refused_ns, 0);
        __atomic_store_n(&peer->counters->gso_error, 0u, __ATOMIC_RELAXED);
    }
}

/* Sends from `first` on what leaves by one socket, as far as it goes; says how many datagrams are
 * settled. */
static unsigned send_some(struct sender *sender, unsigned first, bool *may_wait) {
    unsigned parcels = parcels_make(sender, first);
    int fd = sender->plane->sockets.list[aim_of(sender, first)->socket].fd;
    int sent = sendmmsg(fd, sender->headers, parcels, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent <= 0) {
        return send_refused(sender, first, sent < 0 ? errno : EAGAIN, may_wait);
    }
    unsigned done = 0;
    for (unsigned i = 0; i < (unsigned)sent; i++) {
        remember_gso(sender, first + done, &sender->parcels[i]);
        done += sender->parcels[i].count;
    }
    account_sent(sender, first, done);
    *may_wait = true;
    return done;
}

void sender_flush(struct sender *sender) {
    bool may_wait = true;
    for (unsigned first = 0; first < sender->count;) {
        first += send_some(sender, first, &may_wait);
    }
    sender->count = 0;
    sender->aims_count = 0;
    sender->used = 0;
}
