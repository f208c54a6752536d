/* One session in use: its record in shared memory, its two keys and its locks.
 *
 * Owns birth and death of sessions and the map from local index to session. Refuses to know
 * which slot of its peer a session deserves (peers.h) and what the messages hold.
 */
#ifndef VPND_SESSION_H
#define VPND_SESSION_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "aead.h"
#include "memory.h"
#include "wire.h"

struct peer;
struct plane;

/* Made and freed by the main thread under the tables' write lock, so a worker may use it as long
 * as it holds the tables. Of the record: slot, heard, the stamps and the send counter belong to
 * peer.lock, the window and `forged` to receive_lock; the rest never changes. */
struct session {
    struct session_record *record;
    struct peer *peer;
    uint32_t local_index;
    struct aead_key *seal_key;
    struct aead_key *open_key;
    pthread_mutex_t receive_lock;
    _Atomic(uint64_t) ends_at_ns; /* the record's, for those without peer.lock */
    atomic_bool is_dead;          /* waits to be freed */
    struct session *next_dead;
};

/* Open addressing with linear probing; at most half full. Written by the main thread. */
struct session_map {
    struct session **slots;
    size_t room; /* a power of two, or 0 */
    size_t count;
};

struct session *session_find(const struct session_map *map, uint32_t local_index);
void session_map_close(struct session_map *map);

/* A session from a filled record, known to the map but in no slot. 0, -EINVAL for a suite that no
 * back end offers, -ENOMEM. The record stays the caller's on an error. */
int session_new(struct plane *plane, struct peer *peer, struct session_record *record,
                struct session **out);

/* Wipes its keys and gives its record back. */
void session_free(struct plane *plane, struct session *session);

/* Frees the process's half of it and leaves the record for a later process. */
void session_leave(struct plane *plane, struct session *session);

/* No sending or receiving from then on. The caller holds peer.lock. */
void session_set_end(struct session *session, uint64_t ends_at_ns);

bool session_is_alive(const struct session *session, uint64_t now_ns);

/* Takes over the sessions that a former process left in the memory and says how many. A peer that
 * is not known comes back bare, for vpnd to set anew. */
uint32_t sessions_restore(struct plane *plane, uint64_t now_ns);

#endif
