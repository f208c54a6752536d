#include "sealing.h"

#include <string.h>

#include "control.h"
#include "plane.h"

/* What was settled under peer->lock; the sealing goes on without it. */
struct ticket {
    struct session *session;
    struct destination to;
    uint64_t counter;
};

/* Padding makes no packet larger than the path carries. */
static size_t most_padded(const struct plane *plane, const struct peer *peer) {
    size_t mtu = peer_mtu(plane, peer);
    return mtu < plane->link.padding_mtu ? mtu : plane->link.padding_mtu;
}

/* A padded frame needs its length inside, an unpadded one does not. */
static size_t plaintext_size(const struct plane *plane, const struct session *session,
                             const struct message *message) {
    enum padding_mode mode = session->record->padding;
    if (mode == PADDING_NONE || message->kind == MESSAGE_CONTROL) {
        return message->size;
    }
    size_t most = most_padded(plane, session->peer);
    if (message->kind == MESSAGE_PACKET) {
        return padded_length(message->size, mode, most);
    }
    most += FRAME_HEADER_SIZE + FRAME_PADDED_SIZE;
    size_t needed = message->size - 1 + FRAME_PADDED_SIZE;
    return needed > most ? message->size : padded_length(needed, mode, most);
}

static void write_padded(const struct message *message, uint8_t *out, size_t size) {
    size_t used = message->size;
    if (message->kind == MESSAGE_FRAME) {
        size_t frame = message->size - 1;
        out[0] = FRAME_PADDED;
        store_le16(out + 1, (uint16_t)frame);
        memcpy(out + FRAME_PADDED_SIZE, message->bytes + 1, frame);
        used = FRAME_PADDED_SIZE + frame;
    } else {
        memcpy(out, message->bytes, message->size);
    }
    memset(out + used, 0, size - used);
}

/* Seals one message into a datagram of size + DATA_OVERHEAD bytes. */
static void seal(struct plane *plane, struct session *session, uint64_t counter,
                 const struct message *message, size_t size, uint8_t *out) {
    const struct session_record *record = session->record;
    uint8_t nonce[AEAD_NONCE_SIZE];
    uint8_t *body = out + DATA_HEADER_SIZE;
    store_le32(out, DATA_TYPE);
    store_le32(out + 4, record->remote_index);
    store_le64(out + 8, counter);
    memcpy(nonce, record->send_salt, sizeof(record->send_salt));
    memcpy(nonce + sizeof(record->send_salt), out + 8, 8);
    const uint8_t *plain = message->bytes;
    if (size != message->size) {
        write_padded(message, body, size);
        plain = body;
    }
    plane->aead->seal(session->seal_key, nonce, out, DATA_HEADER_SIZE, plain, size, body,
                      body + size);
}

/* The far plane takes a partial checksum where that was agreed, and where there is a way to say
 * so: a padded frame has none. */
static void settle_checksum(const struct session *session, struct message *message) {
    const struct session_record *record = session->record;
    if (!message->is_partial) {
        return;
    }
    if ((record->features & FEATURE_CSUM) == 0 ||
        (message->kind == MESSAGE_FRAME && record->padding != PADDING_NONE)) {
        message_complete(message);
    }
}

static unsigned put_all(struct plane *plane, struct sender *sender, struct peer *peer,
                        const struct ticket *ticket, struct message *messages, unsigned count) {
    struct session *session = ticket->session;
    unsigned put = 0;
    for (unsigned i = 0; i < count; i++) {
        struct message *message = &messages[i];
        size_t size = plaintext_size(plane, session, message);
        struct destination to = ticket->to;
        uint8_t *out = NULL;
        message_finish(message);
        settle_checksum(session, message);
        to.tos = message_tos(message);
        if (size + DATA_OVERHEAD > DATAGRAM_MAX) {
            drop_count(plane, peer, DROP_link_too_large, 1);
            capture_dropped_message(plane, peer, DROP_link_too_large, message);
        } else if (!message_may_travel(message, &to.hops)) {
            drop_count(plane, peer, DROP_link_loop, 1);
            capture_dropped_message(plane, peer, DROP_link_loop, message);
        } else {
            out = sender_put(sender, &to, size + DATA_OVERHEAD, peer, message_inner_size(message));
        }
        if (out != NULL) {
            if (capture_wants(&plane->capture, CAPTURE_INNER)) {
                capture_message(plane, peer, message);
            }
            if (message->is_partial) {
                message_mark_partial(message);
            }
            seal(plane, session, ticket->counter + i, message, size, out);
            put++;
        }
    }
    return put;
}

/* Takes counters and the way for messages of one session. The caller holds peer->lock and has
 * checked the session's limits. */
static void take_ticket(struct peer *peer, struct session *session, const struct destination *to,
                        unsigned count, size_t bytes, bool is_data, uint64_t now_ns,
                        struct ticket *ticket) {
    struct session_record *record = session->record;
    ticket->session = session;
    ticket->to = *to;
    /* The memory outlives this process: a counter is spent before anything is sealed under it. */
    ticket->counter = __atomic_fetch_add(&record->send_counter, count, __ATOMIC_SEQ_CST);
    record->sent_bytes += bytes;
    peer_stamp_sent(peer, is_data, now_ns);
}

/* What the session's key will have sealed of them, padding included. */
static size_t sum_sizes(const struct plane *plane, const struct session *session,
                        const struct message *messages, unsigned count) {
    size_t sum = 0;
    for (unsigned i = 0; i < count; i++) {
        sum += plaintext_size(plane, session, &messages[i]);
    }
    return sum;
}

/* Sorts out what an endpoint on probation may not get; says how many stay. */
static unsigned within_budget(struct plane *plane, struct peer *peer, const struct session *session,
                              struct message *messages, unsigned count) {
    unsigned kept = 0;
    for (unsigned i = 0; i < count; i++) {
        size_t size = plaintext_size(plane, session, &messages[i]) + DATA_OVERHEAD;
        if (path_may_send(&peer->path, size, false)) {
            messages[kept++] = messages[i];
        } else {
            drop_count(plane, peer, DROP_path_budget, 1);
        }
    }
    return kept;
}

/* The kernel refused the address we sent from: let it choose until the peer is heard again. */
static void settle_source(struct peer *peer) {
    if (atomic_load(&peer->forget_source)) {
        atomic_store(&peer->forget_source, false);
        peer->path.now.from.family = 0;
        peer->path.validated.from.family = 0;
    }
}

/* Everything about a batch that needs peer->lock, which the caller holds; false: none of it is to
 * be sent. Messages may leave the batch. */
static bool prepare(struct plane *plane, struct peer *peer, struct message *messages,
                    unsigned *count, uint64_t now_ns, struct ticket *ticket) {
    struct session *session = peer_current(plane, peer, *count, now_ns);
    /* Behind what still waits: whoever made the session current is about to send that first. */
    if (session == NULL || peer->staged_count > 0) {
        for (unsigned i = 0; i < *count; i++) {
            message_finish(&messages[i]);
            peer_stage(plane, peer, &messages[i], now_ns);
        }
        return false;
    }
    settle_source(peer);
    if (peer->path.now.to.family == 0) {
        drop_count(plane, peer, DROP_no_endpoint, *count);
        return false;
    }
    if (peer->path.on_probation) {
        *count = within_budget(plane, peer, session, messages, *count);
    }
    if (*count == 0) {
        return false;
    }
    take_ticket(peer, session, &peer->path.now, *count, sum_sizes(plane, session, messages, *count),
                true, now_ns, ticket);
    return true;
}

void send_data(struct plane *plane, struct sender *sender, struct peer *peer,
               struct message *messages, unsigned count, uint64_t now_ns) {
    struct ticket ticket;
    pthread_mutex_lock(&peer->lock);
    bool is_ready = prepare(plane, peer, messages, &count, now_ns, &ticket);
    pthread_mutex_unlock(&peer->lock);
    if (is_ready) {
        put_all(plane, sender, peer, &ticket, messages, count);
    }
}

bool send_staged(struct plane *plane, struct sender *sender, struct peer *peer, uint64_t now_ns) {
    struct message messages[STAGED_PACKETS_MAX];
    struct ticket ticket;
    unsigned count = 0;
    bool is_ready = false;
    /* The lock is kept until they left: packets read meanwhile must not overtake them. */
    pthread_mutex_lock(&peer->lock);
    if (peer->staged_count > 0 && peer_current(plane, peer, peer->staged_count, now_ns) != NULL) {
        struct staged_packet *packets = peer_unstage(plane, peer);
        for (struct staged_packet *packet = packets; packet != NULL; packet = packet->next) {
            messages[count++] = (struct message){.bytes = packet->bytes,
                                                 .size = packet->size,
                                                 .kind = packet->kind,
                                                 .is_partial = packet->is_partial};
        }
        is_ready = prepare(plane, peer, messages, &count, now_ns, &ticket);
        if (is_ready) {
            put_all(plane, sender, peer, &ticket, messages, count);
            sender_flush(sender);
        }
        staged_free(packets);
    }
    pthread_mutex_unlock(&peer->lock);
    return is_ready;
}

static bool may_carry(const struct session *session, uint64_t now_ns) {
    const struct session_record *record = session->record;
    return session_is_alive(session, now_ns) && record->send_counter < MESSAGES_LIMIT &&
           record->sent_bytes < BYTES_LIMIT;
}

static enum send_result prepare_control(struct plane *plane, struct peer *peer,
                                        struct session *session, const struct destination *to,
                                        const struct message *message, uint64_t now_ns,
                                        struct ticket *ticket) {
    if (session == NULL) {
        session = peer->current;
    }
    /* An unconfirmed session only receives, protocol section 5.5. */
    if (session == NULL || session->record->slot == SLOT_UNCONFIRMED) {
        return SEND_NO_SESSION;
    }
    if (!may_carry(session, now_ns)) {
        drop_count(plane, peer, DROP_session_limit, 1);
        return SEND_NO_SESSION;
    }
    settle_source(peer);
    if (to == NULL) {
        to = &peer->path.now;
    }
    if (to->to.family == 0) {
        return SEND_NO_ENDPOINT;
    }
    if (endpoint_equal(&to->to, &peer->path.now.to) &&
        !path_may_send(&peer->path, message->size + DATA_OVERHEAD,
                       control_is_proof(message->bytes, message->size))) {
        drop_count(plane, peer, DROP_path_budget, 1);
        return SEND_OVER_BUDGET;
    }
    take_ticket(peer, session, to, 1, message->size, false, now_ns, ticket);
    return SEND_DONE;
}

enum send_result send_control(struct plane *plane, struct sender *sender, struct peer *peer,
                              struct session *session, const struct destination *to,
                              const uint8_t *bytes, size_t size, uint64_t now_ns) {
    uint8_t copy[CONTROL_MAX];
    struct message message = {.bytes = copy, .size = size, .kind = MESSAGE_CONTROL};
    struct ticket ticket;
    if (size > sizeof(copy)) {
        return SEND_NO_SESSION;
    }
    memcpy(copy, bytes, size);
    pthread_mutex_lock(&peer->lock);
    enum send_result result = prepare_control(plane, peer, session, to, &message, now_ns, &ticket);
    pthread_mutex_unlock(&peer->lock);
    if (result == SEND_DONE && put_all(plane, sender, peer, &ticket, &message, 1) == 0) {
        return SEND_NO_SOCKET;
    }
    return result;
}

void send_challenge(struct plane *plane, struct sender *sender, struct peer *peer,
                    uint64_t now_ns) {
    uint8_t bytes[1 + PATH_TOKEN_SIZE] = {CONTROL_PATH_CHALLENGE};
    pthread_mutex_lock(&peer->lock);
    bool is_due = peer->path.on_probation;
    struct destination to = peer->path.now;
    memcpy(bytes + 1, peer->path.token, PATH_TOKEN_SIZE);
    pthread_mutex_unlock(&peer->lock);
    if (is_due) {
        (void)send_control(plane, sender, peer, NULL, &to, bytes, sizeof(bytes), now_ns);
    }
}
