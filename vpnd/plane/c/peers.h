/* A peer: its session slots, its path, the packets that wait for a session, its stamps.
 *
 * Owns the table of peers and the rules of protocol sections 5.5 and 8 for slots: who is current,
 * who is previous, when each ends. Knows no socket and seals nothing.
 */
#ifndef VPND_PEERS_H
#define VPND_PEERS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frames.h"
#include "path.h"
#include "staging.h"
#include "wire.h"

#define UNCONFIRMED_MAX 2u

struct plane;
struct session;

/* At most so many in a second, counted in seconds that begin with the first. */
struct rate {
    uint64_t since_ns;
    uint32_t count;
};

/* Made and freed by the main thread under the tables' write lock. What stands below `lock` is
 * guarded by it, what stands below `pending_news` by events.lock. */
struct peer {
    uint32_t number;
    uint32_t place; /* in peers.list */
    uint8_t public_key[32];
    struct peer_counters *counters;
    atomic_bool forget_source;        /* the kernel refused our address on the path */
    _Atomic(uint64_t) gso_refused_ns; /* when the path refused UDP_SEGMENT; 0: it does not */
    struct frame_rules *frames;       /* NULL: none were set; guarded by plane.tables */
    atomic_uint mtu; /* of inner packets, as far as the path carries them; 0: the link's */

    pthread_mutex_t lock;
    struct session *current;
    struct session *previous;
    struct session *unconfirmed[UNCONFIRMED_MAX]; /* oldest first, no gap */
    struct path path;
    struct staged_packet *staged;
    struct staged_packet **staged_end;
    uint32_t staged_count;
    uint32_t staged_bytes;
    uint64_t wanted_at_ns;
    struct rate pongs;
    struct rate probes;
    struct rate controls;
    struct rate floods[2]; /* by frames_direction */

    uint8_t pending_news; /* peer_news */
    enum roam_state roamed_state;
    struct wire_endpoint roamed_to;
};

/* Guarded by plane.tables. */
struct peers {
    struct peer **by_number; /* COUNTERS_PEER_MAX */
    struct peer **list;      /* those that exist, in no order */
    uint32_t count;
};

int peers_open(struct peers *peers);
void peers_close(struct peers *peers);

/* The largest inner packet that reaches the peer whole. */
size_t peer_mtu(const struct plane *plane, const struct peer *peer);

/* Has the peer a session, or at least a place where one could be asked for? Takes peer->lock. */
bool peer_is_reachable(struct peer *peer);

struct peer *peer_find(const struct peers *peers, uint32_t number);

/* A peer without networks and endpoint, its counters zero. 0 or -ENOMEM. */
int peer_new(struct plane *plane, uint32_t number, const uint8_t public_key[32], struct peer **out);

/* The peer is known by another public key from now on, in what its sessions leave behind too. */
void peer_rename(struct peer *peer, const uint8_t public_key[32]);

/* Frees the peer, which has no session any more (peer_end_all, then sessions_reap). */
void peer_free(struct plane *plane, struct peer *peer);

/* ---- the caller holds peer->lock for all that follow ---- */

/* Puts a new session into its slot: an initiator's goes to current or previous, a responder's
 * waits unconfirmed. */
enum session_slot peer_install(struct plane *plane, struct peer *peer, struct session *session,
                               uint64_t now_ns);

/* Puts a session of a former process back where its record says; false if that is taken. */
bool peer_restore(struct peer *peer, struct session *session);

/* Something authentic arrived on the session. True if that confirmed it. */
bool peer_heard(struct plane *plane, struct peer *peer, struct session *session, uint64_t now_ns);

/* May a message on this session move the peer's endpoint? Only one on the newest may. */
bool peer_may_move(const struct peer *peer, const struct session *session);

/* Takes a session out of its slot; nobody uses it any more, the main thread frees it. vpnd hears
 * of it unless the reason is SESSION_END_NONE. */
void peer_end(struct plane *plane, struct peer *peer, struct session *session,
              enum session_end reason);
void peer_end_all(struct plane *plane, struct peer *peer);

/* Ends what has reached its end. */
void peer_expire(struct plane *plane, struct peer *peer, uint64_t now_ns);

/* The session to send `count` messages on, or NULL; one at its limits is ended. */
struct session *peer_current(struct plane *plane, struct peer *peer, unsigned count,
                             uint64_t now_ns);

/* The endpoint is proven; ends a probation. */
void peer_set_endpoint(struct plane *plane, struct peer *peer, const struct destination *to);

void peer_stamp_sent(struct peer *peer, bool is_data, uint64_t now_ns);
void peer_stamp_received(struct peer *peer, bool is_data, uint64_t now_ns);

/* Counts one more event of a kind that may happen `limit` times a second; false: not this one. */
bool rate_allows(struct rate *rate, uint32_t limit, uint64_t now_ns);

/* ---- the main thread, no lock held ---- */

/* Frees the sessions that were ended. */
void sessions_reap(struct plane *plane);

#endif
