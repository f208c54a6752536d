#include "sender.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "plane.h"

#define ARENA_SIZE       (RUN_MAX * 2048u)
#define SEND_PATIENCE_MS 20

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

/* The interface is left to routing: a path that moves to another one shall be followed. */
static size_t source_to_control(const struct source *source, int domain, uint8_t *control) {
    struct cmsghdr *item = (struct cmsghdr *)(void *)control;
    if (domain == AF_INET) {
        struct in_pktinfo info = {0};
        memcpy(&info.ipi_spec_dst, source->address, 4);
        *item = (struct cmsghdr){
            .cmsg_level = IPPROTO_IP, .cmsg_type = IP_PKTINFO, .cmsg_len = CMSG_LEN(sizeof(info))};
        memcpy(CMSG_DATA(item), &info, sizeof(info));
        return CMSG_SPACE(sizeof(info));
    }
    struct in6_pktinfo info = {0};
    address_map(&info.ipi6_addr, source->family, source->address);
    *item = (struct cmsghdr){
        .cmsg_level = IPPROTO_IPV6, .cmsg_type = IPV6_PKTINFO, .cmsg_len = CMSG_LEN(sizeof(info))};
    memcpy(CMSG_DATA(item), &info, sizeof(info));
    return CMSG_SPACE(sizeof(info));
}

/* A datagram of IPv4 wants the option of IPv4, also on a socket of IPv6. */
static size_t hops_to_control(uint8_t hops, uint8_t family, uint8_t *control) {
    struct cmsghdr *item = (struct cmsghdr *)(void *)control;
    int value = hops;
    *item = (struct cmsghdr){.cmsg_level = family == 4 ? IPPROTO_IP : IPPROTO_IPV6,
                             .cmsg_type = family == 4 ? IP_TTL : IPV6_HOPLIMIT,
                             .cmsg_len = CMSG_LEN(sizeof(value))};
    memcpy(CMSG_DATA(item), &value, sizeof(value));
    return CMSG_SPACE(sizeof(value));
}

/* Source and hops, where the kernel is not to choose them; says how many bytes. */
static size_t aim_to_control(const struct destination *to, int domain, uint8_t *control) {
    size_t size = 0;
    memset(control, 0, CONTROL_SPACE);
    if (to->from.family == to->to.family) {
        size += source_to_control(&to->from, domain, control);
    }
    if (to->hops != 0) {
        size += hops_to_control(to->hops, to->to.family, control + size);
    }
    return size;
}

/* The aim of the message at `count`, made unless the message before has the same. */
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
    aim->name_size =
        endpoint_to_name(&to->to, sender->plane->sockets.list[socket].domain, &aim->name);
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
    struct msghdr header = {.msg_name = &aim->name,
                            .msg_namelen = aim->name_size,
                            .msg_iov = &sender->vectors[sender->count],
                            .msg_iovlen = 1};
    size_t control =
        aim_to_control(to, sender->plane->sockets.list[aim->socket].domain, aim->control);
    if (control > 0) {
        header.msg_control = aim->control;
        header.msg_controllen = control;
    }
    sender->vectors[sender->count] = (struct iovec){bytes, size};
    sender->sendings[sender->count] = (struct sending){peer, inner, (uint8_t)(aim - sender->aims)};
    sender->headers[sender->count++].msg_hdr = header;
    return bytes;
}

static void account_sent(struct sender *sender, unsigned first, unsigned count) {
    for (unsigned i = first; i < first + count; i++) {
        const struct sending *sending = &sender->sendings[i];
        if (sending->peer != NULL && sending->inner > 0) {
            counter_add(&sending->peer->counters->tx_packets, 1);
            counter_add(&sending->peer->counters->tx_bytes, sending->inner);
        }
    }
    counter_add(&sender->plane->counters->tx_datagrams, count);
}

static void account_failed(struct sender *sender, unsigned first, unsigned count,
                           enum drop_reason reason) {
    for (unsigned i = first; i < first + count; i++) {
        drop_count(sender->plane, sender->sendings[i].peer, reason, 1);
    }
    sender->failed += count;
}

/* Takes our chosen source from this message and the others of its aim; false if it had none. */
static bool forget_source(struct sender *sender, unsigned message) {
    const struct sending *sending = &sender->sendings[message];
    if (sender->headers[message].msg_hdr.msg_control == NULL) {
        return false;
    }
    for (unsigned i = message; i < sender->count; i++) {
        if (sender->sendings[i].aim == sending->aim) {
            sender->headers[i].msg_hdr.msg_control = NULL;
            sender->headers[i].msg_hdr.msg_controllen = 0;
        }
    }
    if (sending->peer != NULL) {
        atomic_store(&sending->peer->forget_source, true);
    }
    return true;
}

/* A send to `first` failed with `error`; says how many messages from it on are settled. */
static unsigned send_refused(struct sender *sender, unsigned first, unsigned count, int error,
                             bool *may_wait) {
    unsigned socket = sender->aims[sender->sendings[first].aim].socket;
    int fd = sender->plane->sockets.list[socket].fd;
    switch (error) {
    case EINTR:
        return 0;
    case EAGAIN:
        if (*may_wait) {
            struct pollfd waiting = {.fd = fd, .events = POLLOUT};
            *may_wait = false;
            if (poll(&waiting, 1, SEND_PATIENCE_MS) > 0) {
                return 0;
            }
        }
        account_failed(sender, first, count, DROP_send_full);
        return count;
    case ENOBUFS:
        account_failed(sender, first, 1, DROP_send_full);
        return 1;
    case EBADF:
    case ENOTSOCK:
        socket_fail(sender->plane, socket, error);
        account_failed(sender, first, count, DROP_send_error);
        return count;
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
    account_failed(sender, first, 1, DROP_send_error);
    return 1;
}

static void send_run(struct sender *sender, unsigned first, unsigned count) {
    unsigned socket = sender->aims[sender->sendings[first].aim].socket;
    int fd = sender->plane->sockets.list[socket].fd;
    bool may_wait = true;
    while (count > 0) {
        int sent = sendmmsg(fd, &sender->headers[first], count, MSG_DONTWAIT | MSG_NOSIGNAL);
        unsigned done;
        if (sent > 0) {
            done = (unsigned)sent;
            account_sent(sender, first, done);
            may_wait = true;
        } else {
            done = send_refused(sender, first, count, sent < 0 ? errno : EAGAIN, &may_wait);
        }
        first += done;
        count -= done;
    }
}

void sender_flush(struct sender *sender) {
    for (unsigned first = 0; first < sender->count;) {
        unsigned socket = sender->aims[sender->sendings[first].aim].socket;
        unsigned end = first + 1;
        while (end < sender->count && sender->aims[sender->sendings[end].aim].socket == socket) {
            end++;
        }
        send_run(sender, first, end - first);
        first = end;
    }
    sender->count = 0;
    sender->aims_count = 0;
    sender->used = 0;
}
