/* Opened packets become frames for the link: consecutive segments of a flow become one.
 *
 * Owns the order of delivery, the rules of joining and the virtio_net_hdr in front of each frame.
 * Knows no peer and writes nothing: what comes in was checked, what comes out is for link.c.
 *
 * Two packets are joined only if the kernel, cutting the frame, gives exactly these packets back,
 * and only if the checksums of both are partial or were found right: damage done before the tunnel
 * must stay visible behind it.
 */
#ifndef VPND_COALESCE_H
#define VPND_COALESCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "link.h"
#include "transport.h"

#define JOINED_FRAMES_MAX  128u
#define JOINED_PIECES_MAX  256u
#define JOINED_VECTORS_MAX 130u /* of one frame: the virtio_net_hdr and its pieces */

/* A packet or frame as it came out of a message. */
struct arrival {
    uint8_t *bytes; /* stays untouched by others until the frame was written; may be changed here */
    size_t size;
    size_t network_at; /* where its IP packet begins; `size` if there is none */
    bool is_partial;   /* its checksum, which transport_find finds, is the pseudo-header's sum */
    void *owner;       /* frames of different owners are not joined */
};

struct joined_piece {
    uint8_t *bytes;
    size_t size;
    unsigned next; /* place in pieces; JOINED_PIECES_MAX ends the chain */
};

/* A frame under construction; it begins with the first of its packets. */
struct joined_frame {
    struct virtio_net_hdr header; /* valid once it was finished */
    struct arrival first;
    struct transport transport;
    uint32_t flow;      /* hash of addresses and ports; 0: not TCP or UDP */
    bool is_open;       /* may take another packet */
    bool is_trusted;    /* its checksum is known to be right, or is partial */
    uint8_t last_flags; /* TCP: of the last packet */
    unsigned packets;
    size_t unit; /* payload of every packet but the last */
    size_t size;
    unsigned first_piece, last_piece;
};

/* Owned by one thread. */
struct coalescer {
    bool joins_tcp;
    bool joins_udp;
    unsigned count;
    unsigned pieces_count;
    struct joined_frame frames[JOINED_FRAMES_MAX];
    struct joined_piece pieces[JOINED_PIECES_MAX];
};

/* Takes an arrival; false if there is no room before coalesce_clear. */
bool coalesce_add(struct coalescer *coalescer, const struct arrival *arrival);

/* Finishes frame number `place`, in the order of arrival: its virtio_net_hdr and its bytes in
 * *count vectors, of JOINED_VECTORS_MAX at most. Once for each frame. */
const struct joined_frame *coalesce_finish(struct coalescer *coalescer, unsigned place,
                                           struct iovec *vectors, unsigned *count);

void coalesce_clear(struct coalescer *coalescer);

#endif
