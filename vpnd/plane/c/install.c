#include "install.h"

#include <string.h>

#include "plane.h"
#include "sealing.h"

#define RESPONSE_BYTES 140u /* of a handshake response: what it earns an address on probation */

static enum wire_error check_install(const struct install_session_request *wanted) {
    if (wanted->local_index == 0 || wanted->suite < AEAD_AES_256_GCM ||
        wanted->suite > AEAD_CHACHA20_POLY1305 || wanted->is_initiator > 1 ||
        wanted->preferred > 1 || wanted->padding > PADDING_FULL || wanted->zero != 0 ||
        !endpoint_is_valid_or_none(&wanted->endpoint)) {
        return WIRE_ERROR_bad_value;
    }
    return 0;
}

static bool is_same_session(const struct session *session,
                            const struct install_session_request *wanted) {
    const struct session_record *record = session->record;
    return record->peer == wanted->peer && record->remote_index == wanted->remote_index &&
           record->suite == wanted->suite && record->is_initiator == wanted->is_initiator &&
           record->preferred == wanted->preferred && record->padding == wanted->padding &&
           record->features == wanted->features &&
           memcmp(record->send_key, wanted->send_key, sizeof(record->send_key)) == 0 &&
           memcmp(record->receive_key, wanted->receive_key, sizeof(record->receive_key)) == 0 &&
           memcmp(record->send_salt, wanted->send_salt, sizeof(record->send_salt)) == 0 &&
           memcmp(record->receive_salt, wanted->receive_salt, sizeof(record->receive_salt)) == 0;
}

static void fill_record(struct session_record *record, const struct peer *peer,
                        const struct install_session_request *wanted, uint64_t now_ns) {
    uint64_t life_s = wanted->is_initiator ? SESSION_LIFE_S : UNCONFIRMED_LIFE_S;
    record->peer = wanted->peer;
    record->local_index = wanted->local_index;
    record->remote_index = wanted->remote_index;
    record->suite = wanted->suite;
    record->is_initiator = wanted->is_initiator;
    record->preferred = wanted->preferred;
    record->padding = wanted->padding;
    record->features = wanted->features;
    record->created_at_ns = now_ns;
    record->placed_at_ns = now_ns;
    record->ends_at_ns = now_ns + life_s * NS_PER_SECOND;
    record->endpoint = wanted->endpoint;
    memcpy(record->public_key, peer->public_key, sizeof(record->public_key));
    memcpy(record->send_key, wanted->send_key, sizeof(record->send_key));
    memcpy(record->receive_key, wanted->receive_key, sizeof(record->receive_key));
    memcpy(record->send_salt, wanted->send_salt, sizeof(record->send_salt));
    memcpy(record->receive_salt, wanted->receive_salt, sizeof(record->receive_salt));
}

/* The response came from there: known to be right if it is where the initiation went, on
 * probation otherwise. True if it must be challenged. The caller holds peer->lock. */
static bool follow_response(struct plane *plane, struct peer *peer,
                            const struct wire_endpoint *endpoint, uint64_t now_ns) {
    struct path *path = &peer->path;
    struct destination way = way_to(plane->ways, endpoint);
    uint8_t token[PATH_TOKEN_SIZE];
    if (endpoint->family == 0 || endpoint_equal(&path->now.to, endpoint)) {
        return false;
    }
    if (path->now.to.family == 0 || endpoint_equal(&path->validated.to, endpoint)) {
        peer_set_endpoint(plane, peer, &way);
        return false;
    }
    if (!random_fill(token, sizeof(token))) {
        return false;
    }
    bool was_on_probation = path->on_probation;
    (void)path_arrived(path, &way, RESPONSE_BYTES, token, now_ns);
    if (!was_on_probation) {
        atomic_fetch_add(&plane->probations, 1);
    }
    events_roamed(&plane->events, peer, ROAM_PROBATION, endpoint);
    return true;
}

static enum wire_error make_session(struct request *request, struct peer *peer,
                                    const struct install_session_request *wanted,
                                    struct session **out) {
    struct plane *plane = request->plane;
    enum wire_error error = 0;
    pthread_rwlock_wrlock(&plane->tables);
    struct session_record *record = memory_take(&plane->memory);
    if (record == NULL) {
        error = WIRE_ERROR_table_full;
    } else {
        fill_record(record, peer, wanted, request->now_ns);
        if (session_new(plane, peer, record, out) < 0) {
            memory_give_back(&plane->memory, record);
            error = WIRE_ERROR_no_memory;
        }
    }
    pthread_rwlock_unlock(&plane->tables);
    return error;
}

static enum wire_error install(struct request *request,
                               const struct install_session_request *wanted) {
    struct plane *plane = request->plane;
    enum wire_error error = check_install(wanted);
    if (error != 0) {
        return error;
    }
    struct peer *peer = request_peer(request, wanted->peer);
    if (peer == NULL) {
        return WIRE_ERROR_no_such_peer;
    }
    if (!plane->aead->offers(wanted->suite)) {
        return WIRE_ERROR_unsupported_suite;
    }
    struct session *session = session_find(&plane->sessions, wanted->local_index);
    if (session != NULL) {
        return is_same_session(session, wanted) ? 0 : WIRE_ERROR_session_exists;
    }
    error = make_session(request, peer, wanted, &session);
    if (error != 0) {
        return error;
    }
    pthread_mutex_lock(&peer->lock);
    enum session_slot slot = peer_install(plane, peer, session, request->now_ns);
    bool must_challenge =
        wanted->is_initiator && follow_response(plane, peer, &wanted->endpoint, request->now_ns);
    pthread_mutex_unlock(&peer->lock);
    if (must_challenge) {
        send_challenge(plane, plane->sender, peer, request->now_ns);
    }
    if (slot != SLOT_UNCONFIRMED) {
        (void)send_staged(plane, plane->sender, peer, request->now_ns);
    }
    sender_flush(plane->sender);
    store_peers_moved(plane);
    return 0;
}

enum wire_error handle_install_session(struct request *request) {
    struct install_session_request wanted;
    memcpy(&wanted, request->body, sizeof(wanted));
    enum wire_error error = install(request, &wanted);
    explicit_bzero(&wanted, sizeof(wanted));
    return error;
}

enum wire_error handle_retire_session(struct request *request) {
    struct plane *plane = request->plane;
    struct session_request asked;
    memcpy(&asked, request->body, sizeof(asked));
    struct peer *peer = request_peer(request, asked.peer);
    if (peer == NULL) {
        return WIRE_ERROR_no_such_peer;
    }
    struct session *session = session_find(&plane->sessions, asked.local_index);
    if (session == NULL || session->peer != peer) {
        return WIRE_ERROR_no_such_session;
    }
    pthread_mutex_lock(&peer->lock);
    if (!atomic_load(&session->is_dead)) {
        peer_end(plane, peer, session, SESSION_END_NONE);
    }
    pthread_mutex_unlock(&peer->lock);
    sessions_reap(plane);
    return 0;
}
