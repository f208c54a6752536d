#include "peers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "plane.h"

int peers_open(struct peers *peers) {
    peers->by_number = calloc(COUNTERS_PEER_MAX, sizeof(*peers->by_number));
    peers->list = calloc(COUNTERS_PEER_MAX, sizeof(*peers->list));
    return peers->by_number == NULL || peers->list == NULL ? -ENOMEM : 0;
}

void peers_close(struct peers *peers) {
    free(peers->by_number);
    free(peers->list);
}

size_t peer_mtu(const struct plane *plane, const struct peer *peer) {
    size_t mtu = atomic_load_explicit(&peer->mtu, memory_order_relaxed);
    return mtu != 0 && mtu < plane->link.mtu ? mtu : plane->link.mtu;
}

bool peer_is_reachable(struct peer *peer) {
    pthread_mutex_lock(&peer->lock);
    bool is_there = peer->current != NULL || peer->path.now.to.family != 0;
    pthread_mutex_unlock(&peer->lock);
    return is_there;
}

struct peer *peer_find(const struct peers *peers, uint32_t number) {
    return number < COUNTERS_PEER_MAX ? peers->by_number[number] : NULL;
}

int peer_new(struct plane *plane, uint32_t number, const uint8_t public_key[32],
             struct peer **out) {
    struct peers *peers = &plane->peers;
    struct peer *peer = calloc(1, sizeof(*peer));
    if (peer == NULL) {
        return -ENOMEM;
    }
    peer->number = number;
    memcpy(peer->public_key, public_key, sizeof(peer->public_key));
    peer->counters = counters_of(plane, number);
    memset(peer->counters, 0, sizeof(*peer->counters));
    peer->staged_end = &peer->staged;
    pthread_mutex_init(&peer->lock, NULL);
    peer->place = peers->count;
    peers->list[peers->count++] = peer;
    peers->by_number[number] = peer;
    *out = peer;
    return 0;
}

static void rename_session(struct session *session, const uint8_t public_key[32]) {
    if (session != NULL) {
        memcpy(session->record->public_key, public_key, sizeof(session->record->public_key));
    }
}

void peer_rename(struct peer *peer, const uint8_t public_key[32]) {
    if (memcmp(peer->public_key, public_key, sizeof(peer->public_key)) == 0) {
        return;
    }
    memcpy(peer->public_key, public_key, sizeof(peer->public_key));
    pthread_mutex_lock(&peer->lock);
    rename_session(peer->current, public_key);
    rename_session(peer->previous, public_key);
    for (unsigned i = 0; i < UNCONFIRMED_MAX; i++) {
        rename_session(peer->unconfirmed[i], public_key);
    }
    pthread_mutex_unlock(&peer->lock);
}

void peer_free(struct plane *plane, struct peer *peer) {
    struct peers *peers = &plane->peers;
    struct peer *last = peers->list[--peers->count];
    peers->list[peer->place] = last;
    last->place = peer->place;
    peers->by_number[peer->number] = NULL;
    if (peer->path.on_probation) {
        atomic_fetch_sub(&plane->probations, 1);
    }
    pthread_mutex_lock(&peer->lock);
    peer_flush_staged(plane, peer);
    pthread_mutex_unlock(&peer->lock);
    networks_remove_peer(plane->networks, peer->number);
    mac_table_remove_peer(plane->macs, peer->number);
    events_forget_peer(&plane->events, peer);
    memset(peer->counters, 0, sizeof(*peer->counters));
    pthread_mutex_destroy(&peer->lock);
    free(peer->frames);
    free(peer);
}

/* ---- slots ---- */

static uint64_t earlier(uint64_t one, uint64_t other) {
    return one < other ? one : other;
}

static void show_current(struct peer *peer) {
    const struct session *current = peer->current;
    struct peer_counters *counters = peer->counters;
    gauge_set(&counters->session_messages, current == NULL ? 0 : current->record->send_counter);
    gauge_set(&counters->session_bytes, current == NULL ? 0 : current->record->sent_bytes);
    __atomic_store_n(&counters->current_index, current == NULL ? 0 : current->local_index,
                     __ATOMIC_RELAXED);
    __atomic_store_n(&counters->has_current, current == NULL ? 0u : 1u, __ATOMIC_RELAXED);
}

static void take_from_slot(struct peer *peer, const struct session *session) {
    if (peer->current == session) {
        peer->current = NULL;
        show_current(peer);
    } else if (peer->previous == session) {
        peer->previous = NULL;
    } else if (peer->unconfirmed[0] == session) {
        peer->unconfirmed[0] = peer->unconfirmed[1];
        peer->unconfirmed[1] = NULL;
    } else if (peer->unconfirmed[1] == session) {
        peer->unconfirmed[1] = NULL;
    }
}

static void tell(struct plane *plane, uint16_t type, const struct session *session,
                 enum session_end reason) {
    struct session_event event = {.peer = session->peer->number,
                                  .local_index = session->local_index,
                                  .slot = session->record->slot,
                                  .reason = (uint8_t)reason};
    events_session(&plane->events, type, &event);
}

void peer_end(struct plane *plane, struct peer *peer, struct session *session,
              enum session_end reason) {
    take_from_slot(peer, session);
    if (reason != SESSION_END_NONE) {
        tell(plane, WIRE_EVENT_SESSION_ENDED, session, reason);
    }
    session_set_end(session, 0); /* for a later process, if this one ends before it is freed */
    atomic_store(&session->is_dead, true);
    session->next_dead = atomic_load(&plane->dead);
    while (!atomic_compare_exchange_weak(&plane->dead, &session->next_dead, session)) {
    }
    events_wake(&plane->events);
}

void peer_end_all(struct plane *plane, struct peer *peer) {
    struct session *const sessions[] = {peer->current, peer->previous, peer->unconfirmed[1],
                                        peer->unconfirmed[0]};
    for (size_t i = 0; i < sizeof(sessions) / sizeof(sessions[0]); i++) {
        if (sessions[i] != NULL) {
            peer_end(plane, peer, sessions[i], SESSION_END_NONE);
        }
    }
}

static void put_previous(struct plane *plane, struct peer *peer, struct session *session,
                         uint64_t now_ns) {
    if (peer->previous != NULL) {
        peer_end(plane, peer, peer->previous, SESSION_END_REPLACED);
    }
    peer->previous = session;
    session->record->slot = SLOT_PREVIOUS;
    session->record->placed_at_ns = now_ns;
}

/* Its successor works both ways, so only what is on the road still needs the previous one. */
static void limit_previous(struct peer *peer, uint64_t now_ns) {
    if (peer->previous != NULL && peer->current != NULL && peer->current->record->heard) {
        session_set_end(peer->previous, earlier(peer->previous->record->ends_at_ns,
                                                now_ns + PREVIOUS_LIFE_S * NS_PER_SECOND));
    }
}

/* Both sides' handshakes came through at the same time: the two ends must agree on one. */
static bool loses_collision(const struct peer *peer, const struct session *session,
                            uint64_t now_ns) {
    const struct session *current = peer->current;
    return current != NULL && session_is_alive(current, now_ns) &&
           current->record->is_initiator != session->record->is_initiator &&
           elapsed_ns(current->record->placed_at_ns, now_ns) < COLLISION_S * NS_PER_SECOND &&
           !session->record->preferred;
}

static void place(struct plane *plane, struct peer *peer, struct session *session,
                  uint64_t now_ns) {
    if (loses_collision(peer, session, now_ns)) {
        put_previous(plane, peer, session, now_ns);
    } else {
        if (peer->current != NULL) {
            put_previous(plane, peer, peer->current, now_ns);
        }
        peer->current = session;
        session->record->slot = SLOT_CURRENT;
        session->record->placed_at_ns = now_ns;
        show_current(peer);
    }
    limit_previous(peer, now_ns);
}

enum session_slot peer_install(struct plane *plane, struct peer *peer, struct session *session,
                               uint64_t now_ns) {
    if (session->record->is_initiator) {
        place(plane, peer, session, now_ns);
        tell(plane, WIRE_EVENT_SESSION_PLACED, session, SESSION_END_NONE);
    } else {
        if (peer->unconfirmed[UNCONFIRMED_MAX - 1] != NULL) {
            peer_end(plane, peer, peer->unconfirmed[0], SESSION_END_REPLACED);
        }
        peer->unconfirmed[peer->unconfirmed[0] == NULL ? 0 : 1] = session;
        session->record->slot = SLOT_UNCONFIRMED; /* as every responder's: no news */
    }
    return session->record->slot;
}

/* Records stand in no order. */
static void order_unconfirmed(struct peer *peer) {
    struct session **const list = peer->unconfirmed;
    if (list[1] != NULL && list[1]->record->created_at_ns < list[0]->record->created_at_ns) {
        struct session *older = list[1];
        list[1] = list[0];
        list[0] = older;
    }
}

bool peer_restore(struct peer *peer, struct session *session) {
    struct session **slot;
    switch (session->record->slot) {
    case SLOT_CURRENT:
        slot = &peer->current;
        break;
    case SLOT_PREVIOUS:
        slot = &peer->previous;
        break;
    case SLOT_UNCONFIRMED:
        /* What was heard would have confirmed it, had the process not ended just then. */
        session->record->heard = 0;
        slot = &peer->unconfirmed[peer->unconfirmed[0] == NULL ? 0 : 1];
        break;
    default:
        return false;
    }
    if (*slot != NULL) {
        return false;
    }
    *slot = session;
    order_unconfirmed(peer);
    show_current(peer);
    return true;
}

/* The first message under it proves that the initiator has the keys, protocol section 5.5. */
static void confirm(struct plane *plane, struct peer *peer, struct session *session,
                    uint64_t now_ns) {
    if (peer->unconfirmed[1] == session) {
        peer_end(plane, peer, peer->unconfirmed[0], SESSION_END_REPLACED);
    }
    take_from_slot(peer, session);
    session_set_end(session, session->record->created_at_ns + SESSION_LIFE_S * NS_PER_SECOND);
    place(plane, peer, session, now_ns);
    tell(plane, WIRE_EVENT_SESSION_PLACED, session, SESSION_END_NONE);
}

bool peer_heard(struct plane *plane, struct peer *peer, struct session *session, uint64_t now_ns) {
    if (session->record->heard || atomic_load(&session->is_dead)) {
        return false;
    }
    session->record->heard = 1;
    if (session->record->slot == SLOT_UNCONFIRMED) {
        confirm(plane, peer, session, now_ns);
        return true;
    }
    if (session == peer->current) {
        limit_previous(peer, now_ns);
    }
    return false;
}

bool peer_may_move(const struct peer *peer, const struct session *session) {
    if (peer->current == NULL || session == peer->current) {
        return true;
    }
    return session == peer->previous && !peer->current->record->heard;
}

void peer_expire(struct plane *plane, struct peer *peer, uint64_t now_ns) {
    struct session *const sessions[] = {peer->current, peer->previous, peer->unconfirmed[1],
                                        peer->unconfirmed[0]};
    for (size_t i = 0; i < sizeof(sessions) / sizeof(sessions[0]); i++) {
        if (sessions[i] != NULL && !session_is_alive(sessions[i], now_ns)) {
            bool is_old = elapsed_ns(sessions[i]->record->created_at_ns, now_ns) >=
                          SESSION_LIFE_S * NS_PER_SECOND;
            peer_end(plane, peer, sessions[i],
                     is_old || sessions[i]->record->slot != SLOT_PREVIOUS ? SESSION_END_AGE
                                                                          : SESSION_END_REPLACED);
        }
    }
}

struct session *peer_current(struct plane *plane, struct peer *peer, unsigned count,
                             uint64_t now_ns) {
    struct session *current = peer->current;
    if (current == NULL) {
        return NULL;
    }
    if (!session_is_alive(current, now_ns)) {
        peer_end(plane, peer, current, SESSION_END_AGE);
        return NULL;
    }
    if (current->record->send_counter + count > MESSAGES_LIMIT ||
        current->record->sent_bytes >= BYTES_LIMIT) {
        peer_end(plane, peer, current, SESSION_END_MESSAGES);
        return NULL;
    }
    return current;
}

void sessions_reap(struct plane *plane) {
    struct session *session = atomic_exchange(&plane->dead, NULL);
    if (session == NULL) {
        return;
    }
    pthread_rwlock_wrlock(&plane->tables);
    while (session != NULL) {
        struct session *next = session->next_dead;
        session_free(plane, session);
        session = next;
    }
    pthread_rwlock_unlock(&plane->tables);
}

/* ---- the path and the stamps ---- */

void peer_set_endpoint(struct plane *plane, struct peer *peer, const struct destination *to) {
    if (peer->path.on_probation) {
        atomic_fetch_sub(&plane->probations, 1);
    }
    path_set_valid(&peer->path, to);
}

void peer_stamp_sent(struct peer *peer, bool is_data, uint64_t now_ns) {
    struct peer_counters *counters = peer->counters;
    gauge_set(&counters->last_sent_ns, now_ns);
    gauge_set(&counters->unanswered_received_since_ns, 0);
    if (is_data) {
        gauge_set(&counters->last_data_sent_ns, now_ns);
        if (counters->unanswered_sent_since_ns == 0) {
            gauge_set(&counters->unanswered_sent_since_ns, now_ns);
        }
    }
    if (peer->current != NULL) {
        show_current(peer);
    }
}

void peer_stamp_received(struct peer *peer, bool is_data, uint64_t now_ns) {
    struct peer_counters *counters = peer->counters;
    gauge_set(&counters->last_received_ns, now_ns);
    gauge_set(&counters->unanswered_sent_since_ns, 0);
    if (is_data) {
        gauge_set(&counters->last_data_received_ns, now_ns);
        if (counters->unanswered_received_since_ns == 0) {
            gauge_set(&counters->unanswered_received_since_ns, now_ns);
        }
    }
}

bool rate_allows(struct rate *rate, uint32_t limit, uint64_t now_ns) {
    if (rate->since_ns == 0 || elapsed_ns(rate->since_ns, now_ns) >= NS_PER_SECOND) {
        *rate = (struct rate){.since_ns = now_ns};
    }
    return rate->count++ < limit;
}
