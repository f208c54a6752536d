/* The whole of the plane, and every number that bounds it.
 *
 * Owns the one struct that joins the nouns, the limits of the specification and those of this
 * implementation, and the order of locks. Nouns know each other through their own headers.
 *
 * Lock order, first taken first: plane.tables, session.receive_lock, peer.lock,
 * events.lock. The main thread is the only writer of what `tables` guards and
 * therefore reads it without the lock; workers hold it for reading during one batch.
 */
#ifndef VPND_PLANE_H
#define VPND_PLANE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/random.h>

#include "aead.h"
#include "bytes.h"
#include "capture.h"
#include "clock.h"
#include "crew.h"
#include "events.h"
#include "gate.h"
#include "link.h"
#include "mac_table.h"
#include "marking.h"
#include "memory.h"
#include "networks.h"
#include "offload.h"
#include "packet.h"
#include "pairing.h"
#include "path.h"
#include "peers.h"
#include "replay.h"
#include "sender.h"
#include "session.h"
#include "store.h"
#include "udp.h"
#include "ways.h"
#include "wire.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "structs go onto the wire as they are");

/* Limits of the specification; a build for tests may lower them. */
#ifndef SESSION_LIFE_S
#define SESSION_LIFE_S 180u
#endif
#ifndef UNCONFIRMED_LIFE_S
#define UNCONFIRMED_LIFE_S 15u
#endif
#ifndef PREVIOUS_LIFE_S
#define PREVIOUS_LIFE_S 30u /* after its successor was confirmed */
#endif
#ifndef COLLISION_S
#define COLLISION_S 5u
#endif
#ifndef MESSAGES_LIMIT
#define MESSAGES_LIMIT REPLAY_COUNTER_LIMIT
#endif
#ifndef BYTES_LIMIT
#define BYTES_LIMIT (UINT64_C(1) << 43) /* a batch beyond does no harm */
#endif
#ifndef FORGED_LIMIT
#define FORGED_LIMIT (UINT64_C(1) << 36)
#endif

/* Messages inside a session, protocol section 9. */
#define DATA_TYPE         0x0cu
#define DATA_HEADER_SIZE  16u
#define CONTROL_MAX       9000u /* bytes of a message that we send: the largest probe */
#define DATA_OVERHEAD     (DATA_HEADER_SIZE + AEAD_TAG_SIZE)
#define PACKET_PARTIAL    0x10u /* in an IP packet's first byte: its checksum is partial */
#define FRAME_PREFIX      0x10u /* an Ethernet frame follows */
#define FRAME_PARTIAL     0x11u /* the same, its packet's checksum is partial */
#define FRAME_PADDED      0x12u /* a length and a frame follow, then zeros */
#define FRAME_PADDED_SIZE 3u    /* 0x12 and the length */
#define FEATURE_CSUM      4u    /* of a session: the peer takes partial checksums */

#define STAGED_PACKETS_MAX 128u
#define STAGED_BYTES_MAX   (1u << 20)
#define STAGED_TOTAL_MAX   (64u << 20) /* all peers together: a hub's memory is bounded too */

#define MAC_LIMIT_DEFAULT 1024u
#define MAC_AGE_DEFAULT_S 300u

struct plane {
    const struct aead_backend *aead;
    uint64_t started_at_ns;
    struct counters_head *counters; /* shared; every field by atomic additions */
    int counters_fd;

    pthread_rwlock_t tables; /* guards the members up to the blank line, and sessions' life */
    struct memory memory;
    struct peers peers;
    struct session_map sessions;
    struct networks *networks;
    struct link link;
    struct sockets sockets;
    struct offloads offloads;

    struct mac_table *macs; /* has its own lock */
    struct events events;
    _Atomic(struct session *) dead; /* ended by a worker, to be freed by the main thread */
    atomic_uint probations;         /* peers whose path is on probation */
    atomic_size_t staged_bytes;     /* of all peers */
    struct crew outbound, inbound;
    struct pairing pairings[WIRE_QUEUES_MAX];
    struct capture capture; /* its own rule stands in capture.h */

    /* The main thread's own. */
    struct sender *sender;
    struct ways *ways;
    struct gate *gate;
    struct store store;
    bool stopping;
    bool forgets; /* sessions end with this process */
};

static inline bool random_fill(uint8_t *bytes, size_t size) {
    return getrandom(bytes, size, 0) == (ssize_t)size;
}

static inline struct peer_counters *counters_of(struct plane *plane, uint32_t peer) {
    return (struct peer_counters *)(void *)(plane->counters + 1) + peer;
}

static inline void counter_add(uint64_t *counter, uint64_t amount) {
    __atomic_fetch_add(counter, amount, __ATOMIC_RELAXED);
}

/* For stamps and gauges that vpnd reads while we write; their writers hold the peer's lock. */
static inline void gauge_set(uint64_t *gauge, uint64_t value) {
    __atomic_store_n(gauge, value, __ATOMIC_RELAXED);
}

/* Counts dropped packets; `peer` is NULL where it is not known. */
static inline void drop_count(struct plane *plane, const struct peer *peer, enum drop_reason reason,
                              uint64_t packets) {
    counter_add(&plane->counters->drops[reason], packets);
    if (peer != NULL) {
        __atomic_fetch_add(&peer->counters->drops[reason], (uint32_t)packets, __ATOMIC_RELAXED);
    }
}

#endif
