/* The plane socket: one vpnd at a time.
 *
 * Owns the connection, who may have it, the framing of requests and replies, and the order in
 * which replies and events leave. Never blocks: what does not fit waits for the socket, and
 * meanwhile no request is read. Runs in the main thread.
 */
#ifndef VPND_CONNECTION_H
#define VPND_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "wire.h"

struct plane;

struct connection {
    struct plane *plane;
    int epoll_fd;
    uint32_t number; /* what the epoll calls it */
    int fd;          /* -1: nobody is there */
    bool is_greeted;
    bool has_more;     /* events wait although the socket has room */
    uint8_t *incoming; /* WIRE_MESSAGE_MAX bytes each */
    uint8_t *outgoing;
    size_t incoming_size; /* of the message in hand, 0: none */
    size_t incoming_at;   /* where its next request begins */
    size_t outgoing_size; /* of a message the socket had no room for */
    int outgoing_fd;      /* to go with it, or -1; never ours to close */
};

int connection_open(struct connection *connection, struct plane *plane, int epoll_fd,
                    uint32_t number);
void connection_close(struct connection *connection);

/* Takes a connected socket, which is closed if somebody is there already or if it belongs to
 * another user than root, us or `owner`. */
void connection_offer(struct connection *connection, int fd, uid_t owner);

/* Takes the socket of a parent process. 0 or -errno. */
int connection_adopt(struct connection *connection, int fd);

/* Serves what epoll reported. */
void connection_ready(struct connection *connection);

/* Sends events until there are none, the socket is full or others should have their turn. */
void connection_deliver(struct connection *connection);

#endif
