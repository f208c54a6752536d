/* The UDP sockets: descriptors that vpnd opened, datagrams in in batches.
 *
 * Owns the sockets' descriptors, their checks, outer addresses in both notations, and receiving.
 * Knows no message. Sending is sender.h's.
 */
#ifndef VPND_UDP_H
#define VPND_UDP_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "pace.h"
#include "path.h"
#include "wire.h"

#define DATAGRAM_MAX 65507u
/* An address of ours, two numbers (hops or a size, DSCP and ECN) and the size of a cut. */
#define CONTROL_SPACE                                                                              \
    (CMSG_SPACE(sizeof(struct in6_pktinfo)) + 2 * CMSG_SPACE(sizeof(int)) +                        \
     CMSG_SPACE(sizeof(uint16_t)))

struct peer;
struct plane;

struct udp_socket {
    int fd;
    int domain;      /* AF_INET or AF_INET6 */
    bool takes_ipv4; /* also by mapped addresses */
    bool works;
    struct wire_endpoint bound;
};

/* Guarded by plane.tables, except that a worker clears `works` of its own socket atomically. */
struct sockets {
    unsigned count;
    unsigned workers;    /* socket number n belongs to worker n modulo this */
    uint32_t generation; /* of the list */
    struct udp_socket list[WIRE_SOCKETS_MAX];
};

/* Are these bound UDP sockets? Fills `out`; changes nothing. */
enum wire_error sockets_check(const int *fds, unsigned count, struct udp_socket *out);

/* Takes checked sockets in place of the present ones, for as many workers as there are at least.
 * Holds tables for writing. */
void sockets_set(struct plane *plane, const struct udp_socket *list, unsigned count,
                 unsigned workers);

/* Tells the kernel which offloads shall run. */
void sockets_apply_offloads(struct plane *plane);
void sockets_close(struct plane *plane);

/* Marks a socket that is of no more use; vpnd hears of it once. Any thread. */
void socket_fail(struct plane *plane, unsigned number, int error);

/* ---- addresses ---- */

bool endpoint_is_valid(const struct wire_endpoint *endpoint);

/* The kernel's notation for a socket of that domain; says its size. */
socklen_t endpoint_to_name(const struct wire_endpoint *endpoint, int domain,
                           struct sockaddr_in6 *name);

/* An address of family 4 or 6 as an IPv6 socket takes it, mapped if need be. */
void address_map(struct in6_addr *out, uint8_t family, const uint8_t address[16]);

/* ---- receiving ---- */

/* What one message of the kernel brought: a datagram, or several of one size behind each other
 * (UDP_GRO), of which the last may be shorter. */
struct reception {
    uint8_t *bytes;
    size_t size;
    size_t stride;
    bool is_truncated;
    uint8_t tos;       /* DSCP and ECN of the outer header */
    uint16_t fragment; /* IP packet of the largest piece it came in; 0: it came whole */
    struct destination from;
};

/* One of the datagrams of a reception. */
struct datagram {
    uint8_t *bytes;
    size_t size;
    const struct reception *reception;
};

/* Buffers of one thread. */
struct receiver {
    uint8_t *buffers;
    size_t size;   /* of each buffer, as far as the kernel may fill it */
    unsigned room; /* messages to be asked for at once */
    struct mmsghdr headers[BATCH_MAX];
    struct iovec vectors[BATCH_MAX];
    struct sockaddr_in6 names[BATCH_MAX];
    struct reception receptions[BATCH_MAX];
    _Alignas(struct cmsghdr) uint8_t controls[BATCH_MAX][CONTROL_SPACE];
};

struct receiver *receiver_new(void);
void receiver_free(struct receiver *receiver);

/* Receives what waits at the socket into receiver->receptions, `room` datagrams or runs of them at
 * most; says how many. *is_dry: nothing was left behind. */
unsigned udp_receive(struct plane *plane, struct receiver *receiver, unsigned socket, unsigned room,
                     bool *is_dry);

#endif
