/* Datagrams on their way out, gathered and sent with few system calls.
 *
 * Owns the choice of socket and source address, the runs that the kernel cuts (UDP_SEGMENT), and
 * what is done about each error of the kernel: counted, never repeated for ever. Knows no message.
 */
#ifndef VPND_SENDER_H
#define VPND_SENDER_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "path.h"
#include "udp.h"

#define RUN_MAX 128u /* messages of one sending batch; the replay window allows for it */

struct peer;
struct plane;

/* A datagram in the arena. */
struct sending {
    struct peer *peer; /* NULL: none to account to */
    uint8_t *bytes;
    size_t size;
    size_t inner; /* bytes of inner packet, 0 for control */
    uint8_t aim;
};

/* An address ready for the kernel. */
struct aim {
    struct destination to;
    uint8_t socket;
    socklen_t name_size;
    size_t control_size;
    struct sockaddr_in6 name;
    _Alignas(struct cmsghdr) uint8_t control[CONTROL_SPACE];
};

/* Consecutive datagrams that one message of sendmmsg carries: to one aim, of one size but the
 * last, which may be shorter. */
struct parcel {
    unsigned count;
    struct iovec bytes;
    _Alignas(struct cmsghdr) uint8_t control[CONTROL_SPACE];
};

/* Owned by one thread. */
struct sender {
    struct plane *plane;
    uint8_t *arena;
    size_t used;
    unsigned count;
    unsigned aims_count;
    unsigned failed; /* datagrams the kernel did not take since the caller cleared it */
    struct sending sendings[RUN_MAX];
    struct aim aims[RUN_MAX];
    struct parcel parcels[RUN_MAX];
    struct mmsghdr headers[RUN_MAX]; /* of the parcels */
};

struct sender *sender_new(struct plane *plane);
void sender_free(struct sender *sender);

/* Room for a datagram of `size` bytes to `to`, to be filled before the next call; NULL when no
 * socket speaks the endpoint's family (counted). May flush. */
uint8_t *sender_put(struct sender *sender, const struct destination *to, size_t size,
                    struct peer *peer, size_t inner);

/* Sends all that was put; counts what did not go. */
void sender_flush(struct sender *sender);

#endif
