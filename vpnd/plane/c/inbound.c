#include "inbound.h"

#include <stdlib.h>
#include <string.h>

#include "coalesce.h"
#include "content.h"
#include "control.h"
#include "mss.h"
#include "outbound.h"
#include "pace.h"
#include "plane.h"
#include "relay.h"
#include "sealing.h"

#define HANDSHAKE_FIRST 0x08u
#define HANDSHAKE_LAST  0x0au
#define HANDSHAKE_MIN   8u /* a type and a receiver's index */
#define TURNS_MAX       4u

/* An authentic message, opened in place. */
struct opened {
    struct session *session;
    const struct datagram *datagram;
    struct arrival content; /* the plaintext, then the packet or frame in it */
    bool is_fit;            /* for the link */
    struct route route;
    bool is_highest; /* of its session so far */
};

/* Owned by its worker's thread. */
struct inbound {
    struct plane *plane;
    struct receiver *receiver;
    struct sender *sender;
    uint64_t now_ns;
    struct pace pace;
    unsigned queue; /* of the link, that this worker writes to */
    unsigned datagrams_count;
    struct datagram datagrams[RUN_MAX];
    unsigned count;
    struct opened opened[RUN_MAX];
    unsigned handshakes_count;
    const struct datagram *handshakes[RUN_MAX];
    struct known_sender known;
    struct known_receiver known_receiver;
    struct relay relay;
    struct coalescer coalescer;
};

void *inbound_new(struct plane *plane, unsigned worker) {
    struct inbound *inbound = calloc(1, sizeof(*inbound));
    if (inbound == NULL) {
        return NULL;
    }
    inbound->plane = plane;
    inbound->queue = worker;
    inbound->receiver = receiver_new();
    inbound->sender = sender_new(plane);
    if (inbound->receiver == NULL || inbound->sender == NULL) {
        inbound_free(inbound);
        return NULL;
    }
    return inbound;
}

void inbound_free(void *state) {
    struct inbound *inbound = state;
    if (inbound != NULL) {
        receiver_free(inbound->receiver);
        sender_free(inbound->sender);
        free(inbound);
    }
}

/* ---- opening ---- */

static bool refuse(struct plane *plane, const struct session *session, enum drop_reason reason) {
    drop_count(plane, session == NULL ? NULL : session->peer, reason, 1);
    return false;
}

/* As refuse, of a datagram whose bytes are at hand. */
static bool refuse_datagram(struct plane *plane, const struct session *session,
                            const struct datagram *datagram, enum drop_reason reason) {
    const struct peer *peer = session == NULL ? NULL : session->peer;
    capture_dropped_outer(plane, peer, reason, CAPTURE_IN, &datagram->reception->from,
                          datagram->bytes, datagram->size);
    return refuse(plane, session, reason);
}

/* So many forgeries may have taught somebody something about the key. */
static void count_forged(struct plane *plane, struct session *session) {
    struct session_record *record = session->record;
    if (++record->forged >= FORGED_LIMIT) {
        pthread_mutex_lock(&session->peer->lock);
        if (!atomic_load(&session->is_dead)) {
            peer_end(plane, session->peer, session, SESSION_END_FORGED);
        }
        pthread_mutex_unlock(&session->peer->lock);
    }
}

/* Steps 1 to 3 of section 5.6 behind the look-up. The caller holds receive_lock. */
static bool open_message(struct inbound *inbound, struct session *session,
                         const struct datagram *datagram) {
    struct plane *plane = inbound->plane;
    struct session_record *record = session->record;
    uint8_t *header = datagram->bytes;
    uint64_t counter = load_le64(header + 8);
    size_t size = datagram->size - DATA_OVERHEAD;
    uint8_t nonce[AEAD_NONCE_SIZE];
    if (!session_is_alive(session, inbound->now_ns) || counter >= MESSAGES_LIMIT) {
        return refuse_datagram(plane, session, datagram, DROP_data_expired);
    }
    if (!replay_is_new(&record->window, counter)) {
        return refuse_datagram(plane, session, datagram, DROP_data_replay);
    }
    memcpy(nonce, record->receive_salt, sizeof(record->receive_salt));
    memcpy(nonce + sizeof(record->receive_salt), header + 8, 8);
    uint8_t *body = header + DATA_HEADER_SIZE;
    if (!plane->aead->open(session->open_key, nonce, header, DATA_HEADER_SIZE, body, size, body,
                           body + size)) {
        count_forged(plane, session);
        return refuse_datagram(plane, session, datagram, DROP_data_auth);
    }
    if (!replay_accept(&record->window, counter)) {
        return refuse_datagram(plane, session, datagram, DROP_data_replay);
    }
    inbound->opened[inbound->count++] =
        (struct opened){.session = session,
                        .datagram = datagram,
                        .content = {.bytes = body, .size = size, .owner = session->peer},
                        .is_highest = counter + 1 == record->window.top};
    return true;
}

/* The session that a data message names, or NULL and counted. */
static struct session *session_of(struct plane *plane, const struct datagram *datagram) {
    const uint8_t *header = datagram->bytes;
    if (datagram->size < DATA_OVERHEAD || load_le32(header) != DATA_TYPE) {
        refuse_datagram(plane, NULL, datagram, DROP_rx_malformed);
        return NULL;
    }
    struct session *session = session_find(&plane->sessions, load_le32(header + 4));
    if (session == NULL || atomic_load(&session->is_dead)) {
        refuse_datagram(plane, NULL, datagram, DROP_data_noidx);
        return NULL;
    }
    return session;
}

static bool is_handshake(const struct datagram *datagram) {
    return datagram->size >= HANDSHAKE_MIN && datagram->size <= WIRE_DATAGRAM_MAX &&
           datagram->bytes[0] >= HANDSHAKE_FIRST && datagram->bytes[0] <= HANDSHAKE_LAST;
}

/* Opens all data messages of the batch; one lock for consecutive messages of a session. */
static void open_batch(struct inbound *inbound) {
    struct plane *plane = inbound->plane;
    struct session *locked = NULL;
    inbound->count = 0;
    inbound->handshakes_count = 0;
    for (unsigned i = 0; i < inbound->datagrams_count; i++) {
        const struct datagram *datagram = &inbound->datagrams[i];
        if (datagram->reception->is_truncated) {
            refuse_datagram(plane, NULL, datagram, DROP_receive_truncated);
            continue;
        }
        if (is_handshake(datagram)) {
            inbound->handshakes[inbound->handshakes_count++] = datagram;
            continue;
        }
        struct session *session = session_of(plane, datagram);
        if (session == NULL) {
            continue;
        }
        if (session != locked) {
            if (locked != NULL) {
                pthread_mutex_unlock(&locked->receive_lock);
            }
            pthread_mutex_lock(&session->receive_lock);
            locked = session;
        }
        (void)open_message(inbound, session, datagram);
    }
    if (locked != NULL) {
        pthread_mutex_unlock(&locked->receive_lock);
    }
}

/* ---- what it means to the peer ---- */

/* Consecutive messages of one session from one address. */
struct run {
    struct session *session;
    const struct destination *from;
    struct opened *first;
    unsigned count;
    size_t bytes; /* of datagrams */
    bool is_highest;
    bool has_data;
};

enum run_effect { RUN_CONFIRMED = 1, RUN_MOVED = 2 };

/* A responder's session was confirmed: from where the response went, that proves the address. */
static bool proves_endpoint(const struct run *run) {
    return endpoint_equal(&run->session->record->endpoint, &run->from->to);
}

static unsigned move_path(struct inbound *inbound, const struct run *run, bool is_confirmation) {
    struct plane *plane = inbound->plane;
    struct peer *peer = run->session->peer;
    struct path *path = &peer->path;
    bool was_on_probation = path->on_probation;
    enum path_change change = PATH_SAME;
    uint8_t token[PATH_TOKEN_SIZE] = {0};
    if (is_confirmation && proves_endpoint(run)) {
        bool is_same = endpoint_equal(&path->now.to, &run->from->to) && !was_on_probation;
        path_set_valid(path, run->from);
        change = is_same ? PATH_SAME : PATH_RETURNED;
    } else if (run->is_highest && peer_may_move(peer, run->session)) {
        if (!endpoint_equal(&path->now.to, &run->from->to) && !random_fill(token, sizeof(token))) {
            return 0;
        }
        change = path_arrived(path, run->from, run->bytes, token, inbound->now_ns);
    }
    if (was_on_probation != path->on_probation) {
        if (was_on_probation) {
            atomic_fetch_sub(&plane->probations, 1);
        } else {
            atomic_fetch_add(&plane->probations, 1);
        }
    }
    if (change != PATH_SAME) {
        events_roamed(&plane->events, peer, change == PATH_MOVED ? ROAM_PROBATION : ROAM_VALIDATED,
                      &path->now.to);
    }
    return change == PATH_MOVED ? RUN_MOVED : 0;
}

static unsigned account_run(struct inbound *inbound, const struct run *run) {
    struct peer *peer = run->session->peer;
    unsigned effects = 0;
    pthread_mutex_lock(&peer->lock);
    if (peer_heard(inbound->plane, peer, run->session, inbound->now_ns)) {
        effects |= RUN_CONFIRMED;
    }
    if (!atomic_load(&run->session->is_dead)) {
        effects |= move_path(inbound, run, (effects & RUN_CONFIRMED) != 0);
    }
    peer_stamp_received(peer, run->has_data, inbound->now_ns);
    pthread_mutex_unlock(&peer->lock);
    return effects;
}

/* ---- what was inside ---- */

static bool is_control(const struct arrival *content) {
    return content->size > 0 && (content->bytes[0] & 0xf0) == CONTROL_NIBBLE;
}

/* An IP packet is for the link always. */
static bool find_route(struct inbound *inbound, struct opened *opened, enum drop_reason *reason) {
    opened->route = (struct route){.is_for_link = true};
    return inbound->plane->link.type != WIRE_LINK_TAP ||
           relay_route(inbound->plane, &inbound->known_receiver, opened->session->peer,
                       &opened->content, inbound->now_ns, &opened->route, reason);
}

/* Is there a packet or frame fit for the link in it? What is neither that nor control is gone then.
 */
static bool check_inside(struct inbound *inbound, struct opened *opened) {
    struct arrival *content = &opened->content;
    enum drop_reason reason;
    if (content->size == 0 || is_control(content)) {
        return false;
    }
    if (content_check(inbound->plane, &inbound->known, opened->session->peer,
                      opened->datagram->reception->tos, inbound->now_ns, content, &reason) &&
        find_route(inbound, opened, &reason)) {
        (void)mss_clamp(content->bytes + content->network_at, content->size - content->network_at,
                        peer_mtu(inbound->plane, opened->session->peer), content->is_partial);
        if (capture_wants(&inbound->plane->capture, CAPTURE_INNER)) {
            capture_inner(inbound->plane, opened->session->peer, CAPTURE_IN, content->bytes,
                          content->size);
        }
        return true;
    }
    capture_dropped_inner(inbound->plane, opened->session->peer, reason, CAPTURE_IN, content->bytes,
                          content->size);
    content->size = 0;
    return refuse(inbound->plane, opened->session, reason);
}

static void write_frames(struct inbound *inbound) {
    struct plane *plane = inbound->plane;
    struct iovec vectors[JOINED_VECTORS_MAX];
    for (unsigned i = 0; i < inbound->coalescer.count; i++) {
        unsigned count;
        const struct joined_frame *frame = coalesce_finish(&inbound->coalescer, i, vectors, &count);
        if (!link_write(plane, inbound->queue, vectors, count)) {
            drop_count(plane, frame->first.owner, DROP_link_write, frame->packets);
        }
    }
    coalesce_clear(&inbound->coalescer);
}

static void deliver(struct inbound *inbound, struct opened *opened) {
    struct arrival *arrival = &opened->content;
    relay_send(inbound->plane, &inbound->relay, inbound->sender, opened->session->peer,
               &opened->route, arrival, inbound->now_ns);
    if (opened->route.is_for_link && !coalesce_add(&inbound->coalescer, arrival)) {
        write_frames(inbound);
        (void)coalesce_add(&inbound->coalescer, arrival);
    }
}

/* Answers to what the run did to the peer, outside its lock. */
static void follow_up(struct inbound *inbound, const struct run *run, unsigned effects) {
    struct plane *plane = inbound->plane;
    struct peer *peer = run->session->peer;
    if ((effects & RUN_MOVED) != 0) {
        send_challenge(plane, inbound->sender, peer, inbound->now_ns);
    }
    if ((effects & RUN_CONFIRMED) != 0 &&
        !send_staged(plane, inbound->sender, peer, inbound->now_ns)) {
        (void)send_control(plane, inbound->sender, peer, NULL, NULL, (const uint8_t *)"", 0,
                           inbound->now_ns);
    }
}

/* Sums up what the run holds. */
static void check_run(struct inbound *inbound, struct run *run) {
    struct peer_counters *counters = run->session->peer->counters;
    uint64_t packets = 0;
    uint64_t bytes = 0;
    for (unsigned i = 0; i < run->count; i++) {
        struct opened *opened = &run->first[i];
        opened->is_fit = check_inside(inbound, opened);
        packets += opened->is_fit;
        bytes += opened->is_fit ? opened->content.size : 0;
        run->bytes += opened->datagram->size;
        run->is_highest |= opened->is_highest;
    }
    run->has_data = packets > 0;
    if (run->has_data) {
        counter_add(&counters->rx_packets, packets);
        counter_add(&counters->rx_bytes, bytes);
    }
}

static void finish_run(struct inbound *inbound, struct run *run) {
    check_run(inbound, run);
    unsigned effects = account_run(inbound, run);
    follow_up(inbound, run, effects);
    for (unsigned i = 0; i < run->count; i++) {
        struct opened *opened = &run->first[i];
        if (opened->is_fit) {
            deliver(inbound, opened);
        } else if (is_control(&opened->content)) {
            control_receive(inbound->plane, inbound->sender, run->session,
                            opened->datagram->reception, opened->content.bytes,
                            opened->content.size, inbound->now_ns);
        }
    }
}

static bool comes_from(const struct opened *opened, const struct destination *from) {
    const struct destination *own = &opened->datagram->reception->from;
    return own == from || memcmp(own, from, sizeof(*own)) == 0;
}

static void finish_batch(struct inbound *inbound) {
    for (unsigned i = 0; i < inbound->count;) {
        struct opened *first = &inbound->opened[i];
        struct run run = {
            .session = first->session, .from = &first->datagram->reception->from, .first = first};
        while (i < inbound->count && inbound->opened[i].session == run.session &&
               comes_from(&inbound->opened[i], run.from)) {
            run.count++;
            i++;
        }
        finish_run(inbound, &run);
    }
}

/* Handles the datagrams that were gathered. */
static void take_batch(struct inbound *inbound) {
    counter_add(&inbound->plane->counters->rx_datagrams, inbound->datagrams_count);
    if (capture_wants(&inbound->plane->capture, CAPTURE_OUTER)) {
        capture_arrived(inbound->plane, inbound->datagrams, inbound->datagrams_count);
    }
    open_batch(inbound);
    finish_batch(inbound);
    relay_flush(inbound->plane, &inbound->relay, inbound->sender, inbound->now_ns);
    if (inbound->handshakes_count > 0) {
        events_handshakes(inbound->plane, inbound->handshakes, inbound->handshakes_count,
                          inbound->now_ns);
    }
    inbound->datagrams_count = 0;
}

/* Cuts a reception into its datagrams. */
static void gather(struct inbound *inbound, const struct reception *reception) {
    size_t at = 0;
    do {
        size_t left = reception->size - at;
        size_t size = left < reception->stride ? left : reception->stride;
        if (inbound->datagrams_count == RUN_MAX) {
            take_batch(inbound);
        }
        inbound->datagrams[inbound->datagrams_count++] =
            (struct datagram){reception->bytes + at, size, reception};
        at += size;
    } while (at < reception->size);
}

/* What may be remembered and joined, for one turn: everything may be different in the next. */
static void begin_turn(struct inbound *inbound) {
    const struct plane *plane = inbound->plane;
    inbound->known.peer = COUNTERS_PEER_MAX;
    inbound->known_receiver.number = MAC_NONE;
    inbound->coalescer.joins_tcp = offload_runs(&plane->offloads, OFFLOAD_TUN_VNET);
    inbound->coalescer.joins_udp = inbound->coalescer.joins_tcp && link_takes_udp_runs(plane);
}

static void move(struct inbound *inbound, unsigned socket) {
    bool is_over = false;
    begin_turn(inbound);
    for (unsigned turn = 0; turn < TURNS_MAX && !is_over; turn++) {
        struct receiver *receiver = inbound->receiver;
        unsigned room = pace_room(&inbound->pace);
        unsigned count = udp_receive(inbound->plane, receiver, socket, room, &is_over);
        inbound->now_ns = boottime_ns();
        size_t bytes = 0;
        for (unsigned i = 0; i < count; i++) {
            gather(inbound, &receiver->receptions[i]);
            bytes += receiver->receptions[i].size;
        }
        pace_note(&inbound->pace, count, bytes, inbound->now_ns);
        take_batch(inbound);
        write_frames(inbound);
        sender_flush(inbound->sender);
        pairing_account(inbound->plane, inbound->queue, count, bytes, inbound->now_ns);
        is_over |= room == 1;
    }
}

void inbound_turn(struct worker *worker, uint32_t number) {
    if ((number & WATCHED_QUEUE) != 0) {
        outbound_move(worker->plane, number & ~WATCHED_QUEUE);
    } else {
        move(worker->state, number);
    }
}
