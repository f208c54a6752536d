#include "connection.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "admission.h"
#include "passing.h"
#include "plane.h"
#include "requests.h"

#define REQUESTS_PER_TURN 16u
#define EVENTS_PER_TURN   32u
#define TAKEN_PER_TURN    512u /* those included that were answered here */

_Static_assert(PASSED_MAX == WIRE_FDS_MAX, "a message's descriptors");
_Static_assert(EVENTS_PER_TURN *EVENT_MAX <= WIRE_MESSAGE_MAX, "a turn's events are one message");

int connection_open(struct connection *connection, struct plane *plane, int epoll_fd,
                    uint32_t number) {
    *connection = (struct connection){.plane = plane,
                                      .epoll_fd = epoll_fd,
                                      .number = number,
                                      .fd = -1,
                                      .outgoing_fd = -1,
                                      .incoming = malloc(WIRE_MESSAGE_MAX),
                                      .outgoing = malloc(WIRE_MESSAGE_MAX)};
    return connection->incoming == NULL || connection->outgoing == NULL ? -ENOMEM : 0;
}

/* Wipes the message in hand: there may be keys in it. */
static void forget_incoming(struct connection *connection) {
    explicit_bzero(connection->incoming, connection->incoming_size);
    connection->incoming_at = 0;
    connection->incoming_size = 0;
}

static void hang_up(struct connection *connection) {
    if (connection->fd < 0) {
        return;
    }
    close(connection->fd);
    connection->fd = -1;
    connection->is_greeted = false;
    connection->has_more = false;
    connection->outgoing_size = 0;
    connection->outgoing_fd = -1;
    forget_incoming(connection);
    events_listen(connection->plane, false);
    capture_stop(connection->plane);
}

void connection_close(struct connection *connection) {
    hang_up(connection);
    free(connection->incoming);
    free(connection->outgoing);
}

int connection_adopt(struct connection *connection, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = connection->number};
    if (epoll_ctl(connection->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        return -errno;
    }
    connection->fd = fd;
    return 0;
}

/* Has the one at the other end closed? */
static bool is_gone(int fd) {
    struct pollfd asked = {.fd = fd, .events = POLLRDHUP};
    return poll(&asked, 1, 0) > 0 && (asked.revents & (POLLHUP | POLLRDHUP | POLLERR)) != 0;
}

void connection_offer(struct connection *connection, int fd, uid_t owner) {
    struct ucred who;
    socklen_t size = sizeof(who);
    if (connection->fd >= 0 && is_gone(connection->fd)) {
        hang_up(connection);
    }
    if (connection->fd >= 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) < 0 ||
        (who.uid != 0 && who.uid != geteuid() && who.uid != owner) ||
        connection_adopt(connection, fd) < 0) {
        close(fd);
    }
}

/* ---- out ---- */

static void wait_for(struct connection *connection, uint32_t events) {
    struct epoll_event event = {.events = events, .data.u32 = connection->number};
    (void)epoll_ctl(connection->epoll_fd, EPOLL_CTL_MOD, connection->fd, &event);
}

/* Sends the outgoing message; false if it has to wait or nobody is there any more. */
static bool send_outgoing(struct connection *connection) {
    ssize_t sent;
    do {
        sent = passing_send(connection->fd, connection->outgoing, connection->outgoing_size,
                            connection->outgoing_fd, MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0) {
        connection->outgoing_size = 0;
        connection->outgoing_fd = -1;
        return true;
    }
    if (errno == EAGAIN || errno == ENOBUFS) {
        wait_for(connection, EPOLLOUT);
    } else {
        hang_up(connection);
    }
    return false;
}

/* Gathers events into one message; false if there are no more of them. */
static bool gather(struct connection *connection, uint64_t now_ns) {
    struct plane *plane = connection->plane;
    struct destination from;
    unsigned gathered = 0;
    for (unsigned taken = 0; taken < TAKEN_PER_TURN && gathered < EVENTS_PER_TURN; taken++) {
        uint8_t *event = connection->outgoing + connection->outgoing_size;
        size_t size = events_take(plane, event, &from);
        if (size == 0) {
            return false;
        }
        if (from.to.family == 0 || admission_passes(plane, &from, event, size, now_ns)) {
            connection->outgoing_size += size;
            gathered++;
        }
    }
    return true;
}

static void deliver(struct connection *connection, uint64_t now_ns) {
    struct plane *plane = connection->plane;
    connection->has_more = false;
    if (!connection->is_greeted || connection->outgoing_size > 0) {
        return;
    }
    if (events_broken(&plane->events)) {
        hang_up(connection); /* the next hello takes inventory */
        return;
    }
    bool is_rest = gather(connection, now_ns);
    connection->has_more = (connection->outgoing_size == 0 || send_outgoing(connection)) && is_rest;
}

void connection_deliver(struct connection *connection) {
    deliver(connection, boottime_ns());
    sender_flush(connection->plane->sender); /* cookies */
}

/* ---- in ---- */

struct incoming {
    struct wire_header header;
    const uint8_t *body;
    size_t length;
    struct passed passed;
};

/* Is the next request of the message in hand whole, and its header as it should be? Where the end
 * of the message is not that of a request, nothing of the rest can be. */
static enum wire_error check_frame(const struct connection *connection, struct incoming *incoming) {
    const uint8_t *bytes = connection->incoming + connection->incoming_at;
    size_t size = connection->incoming_size - connection->incoming_at;
    if (size < sizeof(incoming->header)) {
        return WIRE_ERROR_bad_length;
    }
    memcpy(&incoming->header, bytes, sizeof(incoming->header));
    incoming->body = bytes + sizeof(incoming->header);
    incoming->length = incoming->header.length;
    size -= sizeof(incoming->header);
    if ((incoming->passed.flags & MSG_CTRUNC) != 0) {
        return WIRE_ERROR_bad_descriptors;
    }
    bool is_alone = incoming->header.sequence != 0 || incoming->passed.count > 0;
    if ((incoming->passed.flags & MSG_TRUNC) != 0 || incoming->length > size ||
        (is_alone && incoming->length != size)) {
        return WIRE_ERROR_bad_length;
    }
    return incoming->header.zero != 0 || incoming->header.error != 0 ? WIRE_ERROR_bad_value
                                                                     : (enum wire_error)0;
}

static void answer(struct connection *connection, struct incoming *incoming,
                   enum wire_error error) {
    struct plane *plane = connection->plane;
    struct request request = {.plane = plane,
                              .body = incoming->body,
                              .length = incoming->length,
                              .fds = incoming->passed.fds,
                              .fd_count = incoming->passed.count,
                              .reply = connection->outgoing + sizeof(struct wire_header),
                              .is_greeted = connection->is_greeted,
                              .is_awaited = incoming->header.sequence != 0,
                              .now_ns = boottime_ns()};
    if (error == 0) {
        error = request_handle(&request, incoming->header.type);
    }
    for (unsigned i = 0; !request.fds_taken && i < incoming->passed.count; i++) {
        close(incoming->passed.fds[i]);
    }
    if (error != 0) {
        request.reply_length = 0;
    } else if (incoming->header.sequence == 0 && request.reply_length == 0) {
        return; /* nobody waits to hear that it is done */
    }
    struct wire_header header = {.type = (uint16_t)(incoming->header.type | WIRE_REPLY),
                                 .sequence = incoming->header.sequence,
                                 .error = error,
                                 .length = (uint32_t)request.reply_length};
    memcpy(connection->outgoing, &header, sizeof(header));
    connection->outgoing_size = sizeof(header) + request.reply_length;
    if (request.passes_counters) {
        connection->outgoing_fd = plane->counters_fd;
    }
    if (request.is_greeted && !connection->is_greeted) {
        connection->is_greeted = true;
        events_listen(plane, true);
    }
    (void)send_outgoing(connection);
}

/* Takes the next message in hand; false if there is none. */
static bool receive(struct connection *connection, struct incoming *incoming) {
    ssize_t size = passing_receive(connection->fd, connection->incoming, WIRE_MESSAGE_MAX,
                                   &incoming->passed, MSG_DONTWAIT);
    if (size < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            hang_up(connection);
        }
        return false;
    }
    /* An empty message looks like the end; only the end hangs up. */
    if (size == 0 && is_gone(connection->fd)) {
        hang_up(connection);
        return false;
    }
    connection->incoming_size = (size_t)size;
    return true;
}

/* Answers the next request; false if there is none. */
static bool serve_one(struct connection *connection) {
    struct incoming incoming = {0};
    if (connection->incoming_size == 0 && !receive(connection, &incoming)) {
        return false;
    }
    enum wire_error error = check_frame(connection, &incoming);
    connection->incoming_at += sizeof(incoming.header) + incoming.length;
    bool is_last = error == WIRE_ERROR_bad_length || error == WIRE_ERROR_bad_descriptors ||
                   connection->incoming_at >= connection->incoming_size;
    answer(connection, &incoming, error);
    if (is_last) {
        forget_incoming(connection);
    }
    return true;
}

void connection_ready(struct connection *connection) {
    if (connection->outgoing_size > 0) {
        if (!send_outgoing(connection)) {
            return;
        }
        wait_for(connection, EPOLLIN);
    }
    /* A message in hand is served to its end: nobody would wake us for the rest of it. */
    for (unsigned i = 0; i < REQUESTS_PER_TURN || connection->incoming_size > 0; i++) {
        if (connection->fd < 0 || connection->outgoing_size > 0 || connection->plane->stopping ||
            !serve_one(connection)) {
            break;
        }
    }
    sender_flush(connection->plane->sender);
}
