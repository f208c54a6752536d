/* One frame from the link becomes messages for sealing.
 *
 * Owns the check of what the kernel hands over, the cutting of large frames into packets, and
 * what a message still needs before it is sealed. Knows no peer and no key.
 *
 * A frame of many segments is cut where it lies: the headers of a piece are written over the end
 * of the piece before, so each must be sealed or copied before the next is finished.
 */
#ifndef VPND_SEGMENT_H
#define VPND_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "link.h"
#include "transport.h"
#include "wire.h"

enum message_kind {
    MESSAGE_PACKET,  /* an IP packet */
    MESSAGE_FRAME,   /* FRAME_PREFIX and an Ethernet frame */
    MESSAGE_CONTROL, /* a control message, or nothing: a keepalive */
};

/* Ethernet, two tags and the longest headers of IPv4 and TCP are 142; IPv6 may have more between.
 */
#define CUT_HEADER_MAX 256u

/* A frame whose pieces are being taken. Lives as long as its pieces. */
struct cut {
    uint8_t *bytes; /* the frame; the byte before it may be written */
    size_t size;
    enum message_kind kind;
    bool is_partial;   /* see struct message */
    size_t taken;      /* bytes of the payload that were handed out */
    size_t piece_size; /* of payload, in all pieces but the last; 0: the frame is one piece */
    size_t header_size;
    size_t network_at;          /* the IP header within the frame */
    struct transport transport; /* of the IP packet */
    uint16_t pseudo_sum;        /* of the pseudo-header without the length */
    uint8_t header[CUT_HEADER_MAX];
};

/* A plaintext as protocol section 9.1 has it, not yet padded. The bytes belong to somebody else. */
struct message {
    uint8_t *bytes; /* of a piece: valid only once it was finished */
    size_t size;
    enum message_kind kind;
    bool is_partial;       /* its TCP or UDP checksum holds the sum of the pseudo-header only */
    const struct cut *cut; /* whose piece it is; NULL: it is whole */
    size_t cut_at;         /* where its payload begins in that of the cut */
};

/* Checks a frame of the link and prepares its cutting; false and *reason if it must be dropped. */
bool segment_begin(const struct link *link, const struct frame *frame, struct cut *cut,
                   enum drop_reason *reason);

/* The next piece; false when there is none left. */
bool segment_next(struct cut *cut, struct message *message);

/* Writes the headers of a piece, which is a message like any other from then on. */
void message_finish(struct message *message);

/* Turns a partial checksum into the real one. */
void message_complete(struct message *message);

/* Says on the message, which is about to be sealed, that its checksum is partial. */
void message_mark_partial(struct message *message);

/* Bytes of the inner packet or frame, as the counters have them; 0 for control. */
size_t message_inner_size(const struct message *message);

/* DSCP and ECN that the datagram with this message in it shall bear. */
uint8_t message_tos(const struct message *message);

/* Where the IP packet of a finished message begins, and its bytes; *size is 0 if there is none. */
const uint8_t *message_packet(const struct message *message, size_t *size);

/* How far the datagram with this message in it may go: *hops, 0 for as far as any. False when it
 * carries a tunnel's datagram that was wrapped too often already: a route leads tunnels into
 * each other. Every wrapping costs HOPS_PER_WRAPPING, so that a loop of any length ends. */
bool message_may_travel(const struct message *message, uint8_t *hops);

#endif
