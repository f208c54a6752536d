#include "inbound.h"

#include <stdlib.h>
#include <string.h>

#include "coalesce.h"
#include "control.h"
#include "plane.h"
#include "sealing.h"

#define HANDSHAKE_FIRST 0x08u
#define HANDSHAKE_LAST  0x0au
#define HANDSHAKE_MIN   8u /* a type and a receiver's index */
#define TURNS_MAX       4u

/* An authentic message, opened in place. */
struct opened {
    struct session *session;
    const struct datagram *datagram;
    uint8_t *bytes; /* the plaintext */
    size_t size;
    bool is_highest; /* of its session so far */
};

/* Owned by its worker's thread. */
struct inbound {
    struct plane *plane;
    struct receiver *receiver;
    struct sender *sender;
    uint64_t now_ns;
    unsigned count;
    struct opened opened[BATCH_MAX];
    unsigned handshakes_count;
    const struct datagram *handshakes[BATCH_MAX];
    struct coalescer coalescer;
};

struct inbound *inbound_new(struct plane *plane) {
    struct inbound *inbound = calloc(1, sizeof(*inbound));
    if (inbound == NULL) {
        return NULL;
    }
    inbound->plane = plane;
    inbound->receiver = receiver_new();
    inbound->sender = sender_new(plane);
    if (inbound->receiver == NULL || inbound->sender == NULL) {
        inbound_free(inbound);
        return NULL;
    }
    return inbound;
}

void inbound_free(struct inbound *inbound) {
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
        return refuse(plane, session, DROP_data_expired);
    }
    if (!replay_is_new(&record->window, counter)) {
        return refuse(plane, session, DROP_data_replay);
    }
    memcpy(nonce, record->receive_salt, sizeof(record->receive_salt));
    memcpy(nonce + sizeof(record->receive_salt), header + 8, 8);
    uint8_t *body = header + DATA_HEADER_SIZE;
    if (!plane->aead->open(session->open_key, nonce, header, DATA_HEADER_SIZE, body, size, body,
                           body + size)) {
        count_forged(plane, session);
        return refuse(plane, session, DROP_data_auth);
    }
    if (!replay_accept(&record->window, counter)) {
        return refuse(plane, session, DROP_data_replay);
    }
    inbound->opened[inbound->count++] =
        (struct opened){session, datagram, body, size, counter + 1 == record->window.top};
    return true;
}

/* The session that a data message names, or NULL and counted. */
static struct session *session_of(struct plane *plane, const struct datagram *datagram) {
    const uint8_t *header = datagram->bytes;
    if (datagram->size < DATA_OVERHEAD || load_le32(header) != DATA_TYPE) {
        refuse(plane, NULL, DROP_rx_malformed);
        return NULL;
    }
    struct session *session = session_find(&plane->sessions, load_le32(header + 4));
    if (session == NULL || atomic_load(&session->is_dead)) {
        refuse(plane, NULL, DROP_data_noidx);
        return NULL;
    }
    return session;
}

static bool is_handshake(const struct datagram *datagram) {
    return datagram->size >= HANDSHAKE_MIN && datagram->size <= WIRE_DATAGRAM_MAX &&
           datagram->bytes[0] >= HANDSHAKE_FIRST && datagram->bytes[0] <= HANDSHAKE_LAST;
}

/* Opens all data messages of the batch; one lock for consecutive messages of a session. */
static void open_batch(struct inbound *inbound, unsigned count) {
    struct plane *plane = inbound->plane;
    struct session *locked = NULL;
    inbound->count = 0;
    inbound->handshakes_count = 0;
    for (unsigned i = 0; i < count; i++) {
        const struct datagram *datagram = &inbound->receiver->datagrams[i];
        if (datagram->is_truncated) {
            refuse(plane, NULL, DROP_receive_truncated);
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

static bool is_control(const struct opened *opened) {
    return opened->size > 0 && (opened->bytes[0] & 0xf0) == CONTROL_NIBBLE;
}

static bool drop_inside(struct inbound *inbound, struct opened *opened, enum drop_reason reason) {
    opened->size = 0;
    return refuse(inbound->plane, opened->session, reason);
}

/* Narrows the plaintext to the IP packet; false and counted if it may not reach the link. */
static bool check_packet(struct inbound *inbound, struct opened *opened) {
    size_t size = packet_ip_length(opened->bytes, opened->size);
    uint8_t family;
    if (size == 0) {
        return drop_inside(inbound, opened, DROP_data_inner);
    }
    const uint8_t *source = packet_source(opened->bytes, &family);
    if (networks_find(inbound->plane->networks, family, source) != opened->session->peer->number) {
        return drop_inside(inbound, opened, DROP_data_source);
    }
    opened->size = size;
    return true;
}

/* Narrows the plaintext to the Ethernet frame, and learns who sent it. */
static bool check_frame(struct inbound *inbound, struct opened *opened) {
    size_t prefix = 1;
    size_t size = opened->size - 1;
    if (opened->bytes[0] == FRAME_PADDED && opened->size >= FRAME_PADDED_SIZE) {
        prefix = FRAME_PADDED_SIZE;
        size = load_le16(opened->bytes + 1);
    } else if (opened->bytes[0] != FRAME_PREFIX) {
        return drop_inside(inbound, opened, DROP_data_inner);
    }
    const uint8_t *frame = opened->bytes + prefix;
    if (size < FRAME_HEADER_SIZE || size > opened->size - prefix ||
        frame_is_group(frame_source(frame))) {
        return drop_inside(inbound, opened, DROP_data_inner);
    }
    if (mac_table_learn(inbound->plane->macs, frame_source(frame), frame_vlan(frame, size),
                        opened->session->peer->number, inbound->now_ns) == MAC_REFUSED) {
        return drop_inside(inbound, opened, DROP_mac_limit);
    }
    opened->bytes += prefix;
    opened->size = size;
    return true;
}

/* Is there a packet or frame for the link in it? */
static bool check_inside(struct inbound *inbound, struct opened *opened) {
    if (opened->size == 0 || is_control(opened)) {
        return false;
    }
    switch (inbound->plane->link.type) {
    case WIRE_LINK_TUN:
        return check_packet(inbound, opened);
    case WIRE_LINK_TAP:
        return check_frame(inbound, opened);
    default:
        return drop_inside(inbound, opened, DROP_link_write);
    }
}

static void deliver(struct inbound *inbound, struct opened *opened) {
    struct peer *peer = opened->session->peer;
    counter_add(&peer->counters->rx_packets, 1);
    counter_add(&peer->counters->rx_bytes, opened->size);
    coalesce_add(inbound->plane, &inbound->coalescer, peer, opened->bytes, opened->size);
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

static void finish_run(struct inbound *inbound, struct run *run) {
    bool is_for_link[BATCH_MAX];
    for (unsigned i = 0; i < run->count; i++) {
        is_for_link[i] = check_inside(inbound, &run->first[i]);
        run->has_data |= is_for_link[i];
        run->bytes += run->first[i].datagram->size;
        run->is_highest |= run->first[i].is_highest;
    }
    unsigned effects = account_run(inbound, run);
    follow_up(inbound, run, effects);
    for (unsigned i = 0; i < run->count; i++) {
        struct opened *opened = &run->first[i];
        if (is_for_link[i]) {
            deliver(inbound, opened);
        } else if (is_control(opened)) {
            control_receive(inbound->plane, inbound->sender, run->session, run->from, opened->bytes,
                            opened->size, inbound->now_ns);
        }
    }
}

static void finish_batch(struct inbound *inbound) {
    for (unsigned i = 0; i < inbound->count;) {
        struct opened *first = &inbound->opened[i];
        struct run run = {
            .session = first->session, .from = &first->datagram->from, .first = first};
        while (i < inbound->count && inbound->opened[i].session == run.session &&
               memcmp(&inbound->opened[i].datagram->from, run.from, sizeof(*run.from)) == 0) {
            run.count++;
            i++;
        }
        finish_run(inbound, &run);
    }
    coalesce_flush(inbound->plane, &inbound->coalescer);
    sender_flush(inbound->sender);
}

void inbound_turn(struct worker *worker, uint32_t socket) {
    struct inbound *inbound = worker->state;
    for (unsigned turn = 0; turn < TURNS_MAX; turn++) {
        unsigned count = udp_receive(inbound->plane, inbound->receiver, socket);
        inbound->now_ns = boottime_ns();
        open_batch(inbound, count);
        finish_batch(inbound);
        if (inbound->handshakes_count > 0) {
            events_handshakes(inbound->plane, inbound->handshakes, inbound->handshakes_count,
                              inbound->now_ns);
        }
        if (count < BATCH_MAX) {
            return;
        }
    }
}
