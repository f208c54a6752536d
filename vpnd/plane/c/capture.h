/* Copies of packets for an operator who watches: a ring in memory that vpnd gave.
 *
 * Owns the ring's writing. Whoever reads it has a mapping of his own that cannot be written;
 * nothing waits for him: what he does not read in time is overwritten, and the numbers of what he
 * finds say how much that was. Knows no file format.
 *
 * Begun and ended by the main thread with the tables held for writing; filled by any thread that
 * holds them for reading, and by the main thread.
 */
#ifndef VPND_CAPTURE_H
#define VPND_CAPTURE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire.h"

struct datagram;
struct destination;
struct message;
struct peer;
struct plane;
struct request;

struct capture {
    atomic_uint kinds; /* capture_kind: what is wanted; 0 while nobody watches */
    uint32_t peer;     /* the only one, or CAPTURE_EVERY_PEER */
    struct capture_head *ring;
};

enum wire_error handle_start_capture(struct request *request);
enum wire_error handle_stop_capture(struct request *request);

/* Ends what runs. Also when vpnd went away: nobody would. */
void capture_stop(struct plane *plane);

/* All that a packet pays while nobody watches. */
static inline bool capture_wants(const struct capture *capture, unsigned kinds) {
    return __builtin_expect(
        (atomic_load_explicit(&capture->kinds, memory_order_relaxed) & kinds) != 0, false);
}

/* An IP packet or Ethernet frame inside the tunnel. */
void capture_inner(struct plane *plane, const struct peer *peer, enum capture_way way,
                   const uint8_t *bytes, size_t size);

/* The same, finished and about to be sealed. */
void capture_message(struct plane *plane, const struct peer *peer, const struct message *message);

/* A datagram to or from `at`. */
void capture_outer(struct plane *plane, const struct peer *peer, enum capture_way way,
                   const struct destination *at, const uint8_t *bytes, size_t size);

/* Datagrams as they arrived; to be called before they are opened in place. */
void capture_arrived(struct plane *plane, const struct datagram *datagrams, unsigned count);

/* What is dropped, if that is wanted. */
void capture_dropped_inner(struct plane *plane, const struct peer *peer, enum drop_reason reason,
                           enum capture_way way, const uint8_t *bytes, size_t size);
void capture_dropped_message(struct plane *plane, const struct peer *peer, enum drop_reason reason,
                             const struct message *message);
void capture_dropped_outer(struct plane *plane, const struct peer *peer, enum drop_reason reason,
                           enum capture_way way, const struct destination *at, const uint8_t *bytes,
                           size_t size);

#endif
