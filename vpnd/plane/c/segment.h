/* One frame from the link becomes messages for sealing.
 *
 * Owns the check of what the kernel hands over and the cutting of large frames. Offloads are not
 * agreed with the kernel, so today a frame is one message and a frame with an offload is refused.
 * Knows no peer and no key.
 */
#ifndef VPND_SEGMENT_H
#define VPND_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "link.h"
#include "wire.h"

enum message_kind {
    MESSAGE_PACKET,  /* an IP packet */
    MESSAGE_FRAME,   /* FRAME_PREFIX and an Ethernet frame */
    MESSAGE_CONTROL, /* a control message, or nothing: a keepalive */
};

/* A plaintext as protocol section 9.1 has it, not yet padded. The bytes belong to somebody else. */
struct message {
    const uint8_t *bytes;
    size_t size;
    enum message_kind kind;
};

/* Bytes of the inner packet or frame, as the counters have them; 0 for control. */
size_t message_inner_size(const struct message *message);

/* How far the datagram with this message in it may go: *hops, 0 for as far as any. False when it
 * carries a tunnel's datagram that was wrapped too often already: a route leads tunnels into
 * each other. Every wrapping costs HOPS_PER_WRAPPING, so that a loop of any length ends. */
bool message_may_travel(const struct message *message, uint8_t *hops);

/* The messages of one frame, at most `room`; 0 and *reason if it must be dropped. The messages
 * point into the frame's buffer, whose byte before the frame may be written. */
unsigned segment_frame(const struct link *link, const struct frame *frame, struct message *out,
                       unsigned room, enum drop_reason *reason);

#endif
