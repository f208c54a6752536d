#include "requests.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control.h"
#include "install.h"
#include "lists.h"
#include "plane.h"
#include "sealing.h"

#define MAC_LIMIT_MAX 65536u
#define MAC_AGE_MAX_S 86400u
#define CLOSED_MAX_MS 10000u

/* ---- checks ---- */

static bool endpoint_is_none(const struct wire_endpoint *endpoint) {
    static const struct wire_endpoint none;
    return endpoint_equal(endpoint, &none);
}

bool endpoint_is_valid_or_none(const struct wire_endpoint *endpoint) {
    return endpoint_is_none(endpoint) || endpoint_is_valid(endpoint);
}

struct peer *request_peer(const struct request *request, uint32_t number) {
    return peer_find(&request->plane->peers, number);
}

/* ---- the connection ---- */

static enum wire_error handle_hello(struct request *request) {
    struct plane *plane = request->plane;
    struct hello_request hello;
    memcpy(&hello, request->body, sizeof(hello));
    if (hello.version != WIRE_VERSION) {
        return WIRE_ERROR_version_mismatch;
    }
    if (hello.zero != 0) {
        return WIRE_ERROR_bad_value;
    }
    struct hello_reply reply = {.version = WIRE_VERSION,
                                .counters_layout = COUNTERS_LAYOUT,
                                .started_at_ns = plane->started_at_ns,
                                .peer_capacity = COUNTERS_PEER_MAX,
                                .has_aes = aead_cpu_has_aes()};
    strncpy(reply.aead, plane->aead->name, sizeof(reply.aead) - 1);
    strncpy(reply.program_version, VPND_VERSION, sizeof(reply.program_version) - 1);
    memcpy(request->reply, &reply, sizeof(reply));
    request->reply_length = sizeof(reply);
    request->passes_counters = true;
    request->is_greeted = true;
    return 0;
}

static enum wire_error handle_set_options(struct request *request) {
    struct set_options_request options;
    memcpy(&options, request->body, sizeof(options));
    if (options.mac_limit == 0 || options.mac_limit > MAC_LIMIT_MAX || options.mac_age_s == 0 ||
        options.mac_age_s > MAC_AGE_MAX_S || options.offloads > OFFLOAD_ALL || options.zero != 0) {
        return WIRE_ERROR_bad_value;
    }
    mac_table_set_limits(request->plane->macs, options.mac_limit, options.mac_age_s);
    pthread_rwlock_wrlock(&request->plane->tables);
    atomic_store(&request->plane->offloads.wanted, options.offloads);
    link_apply_offloads(request->plane);
    sockets_apply_offloads(request->plane);
    pthread_rwlock_unlock(&request->plane->tables);
    store_options(request->plane, &options);
    return 0;
}

static enum wire_error handle_set_gate(struct request *request) {
    struct set_gate_request keys;
    memcpy(&keys, request->body, sizeof(keys));
    bool is_valid = keys.secret_count <= 2 && keys.has_previous_key <= 1 && keys.zero == 0;
    enum wire_error error = is_valid ? (enum wire_error)0 : WIRE_ERROR_bad_value;
    if (error == 0) {
        gate_set(request->plane->gate, &keys);
    }
    explicit_bzero(&keys, sizeof(keys));
    return error;
}

static enum wire_error handle_close_gate(struct request *request) {
    struct close_gate_request wanted;
    memcpy(&wanted, request->body, sizeof(wanted));
    if (wanted.milliseconds > CLOSED_MAX_MS || wanted.zero != 0) {
        return WIRE_ERROR_bad_value;
    }
    gate_close(request->plane->gate,
               request->now_ns + wanted.milliseconds * (NS_PER_SECOND / 1000));
    return 0;
}

static enum wire_error handle_stop(struct request *request) {
    request->plane->stopping = true;
    request->plane->forgets = true;
    return 0;
}

/* ---- descriptors ---- */

static enum wire_error handle_set_link(struct request *request) {
    struct plane *plane = request->plane;
    struct set_link_request wanted;
    memcpy(&wanted, request->body, sizeof(wanted));
    enum wire_error error = link_check(&plane->link, &wanted, request->fds, request->fd_count);
    if (error != 0) {
        return error;
    }
    unsigned workers = wanted.queues > 0 ? wanted.queues : plane->outbound.count;
    if (crew_grow(&plane->outbound, workers) < 0) {
        return WIRE_ERROR_no_memory;
    }
    pthread_rwlock_wrlock(&plane->tables);
    link_set(plane, &wanted, request->fds);
    pthread_rwlock_unlock(&plane->tables);
    crew_shrink(&plane->outbound, workers);
    store_link(plane, wanted.queues > 0);
    request->fds_taken = true;
    return 0;
}

static enum wire_error handle_set_sockets(struct request *request) {
    struct plane *plane = request->plane;
    struct set_sockets_request wanted;
    struct udp_socket list[WIRE_SOCKETS_MAX];
    memcpy(&wanted, request->body, sizeof(wanted));
    if (wanted.workers > WORKERS_MAX || wanted.count > WIRE_SOCKETS_MAX) {
        return WIRE_ERROR_bad_value;
    }
    if (wanted.count != request->fd_count) {
        return WIRE_ERROR_bad_descriptors;
    }
    enum wire_error error = sockets_check(request->fds, wanted.count, list);
    if (error != 0) {
        return error;
    }
    unsigned workers = wanted.workers > 0 ? wanted.workers : 1;
    if (crew_grow(&plane->inbound, workers) < 0) {
        return WIRE_ERROR_no_memory;
    }
    pthread_rwlock_wrlock(&plane->tables);
    sockets_set(plane, list, wanted.count, workers);
    pairing_settle(plane);
    pthread_rwlock_unlock(&plane->tables);
    crew_shrink(&plane->inbound, workers);
    store_sockets(plane);
    request->fds_taken = true;
    return 0;
}

/* ---- peers ---- */

static enum wire_error check_set_peer(const struct request *request,
                                      const struct set_peer_request *wanted) {
    static const uint8_t no_key[32];
    const uint8_t *networks = request->body + sizeof(*wanted);
    if (wanted->network_count !=
            (request->length - sizeof(*wanted)) / sizeof(struct wire_network) ||
        (request->length - sizeof(*wanted)) % sizeof(struct wire_network) != 0) {
        return WIRE_ERROR_bad_length;
    }
    if (wanted->peer >= COUNTERS_PEER_MAX || wanted->zero != 0 ||
        (wanted->flags & ~(uint32_t)(PEER_APPEND_NETWORKS | PEER_RENAME)) != 0 ||
        !endpoint_is_valid_or_none(&wanted->endpoint) ||
        memcmp(wanted->public_key, no_key, sizeof(no_key)) == 0) {
        return WIRE_ERROR_bad_value;
    }
    for (uint32_t i = 0; i < wanted->network_count; i++) {
        struct wire_network network;
        memcpy(&network, networks + i * sizeof(network), sizeof(network));
        if (!network_is_valid(&network)) {
            return WIRE_ERROR_bad_value;
        }
    }
    const struct peer *peer = request_peer(request, wanted->peer);
    if (peer != NULL && (wanted->flags & PEER_RENAME) == 0 &&
        memcmp(peer->public_key, wanted->public_key, 32) != 0) {
        return WIRE_ERROR_peer_exists;
    }
    return 0;
}

/* The source address is chosen anew too: that is how vpnd makes a peer follow a change of
 * routes. */
static void apply_set_peer(const struct request *request, const struct set_peer_request *wanted,
                           struct peer *peer) {
    struct plane *plane = request->plane;
    const uint8_t *networks = request->body + sizeof(*wanted);
    peer_rename(peer, wanted->public_key);
    if ((wanted->flags & PEER_APPEND_NETWORKS) == 0) {
        networks_remove_peer(plane->networks, peer->number);
    }
    for (uint32_t i = 0; i < wanted->network_count; i++) {
        struct wire_network network;
        memcpy(&network, networks + i * sizeof(network), sizeof(network));
        (void)networks_add(plane->networks, &network, peer->number);
    }
    if (wanted->endpoint.family != 0) {
        struct destination to = {.to = wanted->endpoint};
        pthread_mutex_lock(&peer->lock);
        path_leave(&peer->path, &to.to, request->now_ns);
        peer_set_endpoint(plane, peer, &to);
        pthread_mutex_unlock(&peer->lock);
    }
}

static enum wire_error handle_set_peer(struct request *request) {
    struct plane *plane = request->plane;
    struct set_peer_request wanted;
    memcpy(&wanted, request->body, sizeof(wanted));
    enum wire_error error = check_set_peer(request, &wanted);
    if (error != 0) {
        return error;
    }
    pthread_rwlock_wrlock(&plane->tables);
    struct peer *peer = request_peer(request, wanted.peer);
    if (networks_reserve(plane->networks, wanted.network_count) < 0 ||
        (peer == NULL && peer_new(plane, wanted.peer, wanted.public_key, &peer) < 0)) {
        error = WIRE_ERROR_no_memory;
    } else {
        apply_set_peer(request, &wanted, peer);
    }
    store_peers_changed(plane);
    pthread_rwlock_unlock(&plane->tables);
    return error;
}

/* The peer of a peer_request, or NULL and the error. */
static struct peer *peer_asked(const struct request *request, enum wire_error *error) {
    struct peer_request asked;
    memcpy(&asked, request->body, sizeof(asked));
    *error = asked.zero != 0 ? WIRE_ERROR_bad_value : WIRE_ERROR_no_such_peer;
    return asked.zero != 0 ? NULL : request_peer(request, asked.peer);
}

static enum wire_error handle_remove_peer(struct request *request) {
    struct plane *plane = request->plane;
    enum wire_error error;
    struct peer *peer = peer_asked(request, &error);
    if (peer == NULL) {
        return error;
    }
    pthread_mutex_lock(&peer->lock);
    peer_end_all(plane, peer);
    pthread_mutex_unlock(&peer->lock);
    sessions_reap(plane);
    pthread_rwlock_wrlock(&plane->tables);
    peer_free(plane, peer);
    pthread_rwlock_unlock(&plane->tables);
    store_peers_changed(plane);
    return 0;
}

static enum wire_error handle_set_peer_mtu(struct request *request) {
    struct set_peer_mtu_request wanted;
    memcpy(&wanted, request->body, sizeof(wanted));
    if (wanted.mtu != 0 && (wanted.mtu < LINK_MTU_MIN || wanted.mtu > LINK_MTU_MAX)) {
        return WIRE_ERROR_bad_value;
    }
    struct peer *peer = request_peer(request, wanted.peer);
    if (peer == NULL) {
        return WIRE_ERROR_no_such_peer;
    }
    atomic_store(&peer->mtu, wanted.mtu);
    store_peers_moved(request->plane);
    return 0;
}

static enum wire_error handle_set_peer_frames(struct request *request) {
    struct plane *plane = request->plane;
    struct set_peer_frames_request wanted;
    struct wire_mac macs[WIRE_MACS_MAX];
    memcpy(&wanted, request->body, sizeof(wanted));
    size_t size = request->length - sizeof(wanted);
    if (wanted.mac_count > WIRE_MACS_MAX) {
        return WIRE_ERROR_bad_value;
    }
    if (size != wanted.mac_count * sizeof(macs[0])) {
        return WIRE_ERROR_bad_length;
    }
    memcpy(macs, request->body + sizeof(wanted), size);
    if (!frames_are_valid(&wanted, macs)) {
        return WIRE_ERROR_bad_value;
    }
    struct peer *peer = request_peer(request, wanted.peer);
    if (peer == NULL) {
        return WIRE_ERROR_no_such_peer;
    }
    pthread_rwlock_wrlock(&plane->tables);
    int error = frames_set(plane, peer, &wanted, macs);
    store_peers_changed(plane);
    pthread_rwlock_unlock(&plane->tables);
    return error < 0 ? WIRE_ERROR_no_memory : (enum wire_error)0;
}

static enum wire_error handle_flush_staged(struct request *request) {
    enum wire_error error;
    struct peer *peer = peer_asked(request, &error);
    if (peer == NULL) {
        return error;
    }
    pthread_mutex_lock(&peer->lock);
    peer_flush_staged(request->plane, peer);
    pthread_mutex_unlock(&peer->lock);
    return 0;
}

/* ---- sending ---- */

/* Sends what was put; the kernel's refusal is the request's. */
static enum wire_error flush(struct plane *plane, enum send_result result) {
    plane->sender->failed = 0;
    sender_flush(plane->sender);
    switch (result) {
    case SEND_DONE:
        return plane->sender->failed == 0 ? (enum wire_error)0 : WIRE_ERROR_send_failed;
    case SEND_NO_SESSION:
        return WIRE_ERROR_no_session;
    case SEND_NO_ENDPOINT:
        return WIRE_ERROR_no_endpoint;
    case SEND_NO_SOCKET:
        return WIRE_ERROR_no_socket;
    case SEND_OVER_BUDGET:
        break;
    }
    return WIRE_ERROR_send_failed;
}

static enum wire_error handle_send_datagram(struct request *request) {
    struct plane *plane = request->plane;
    struct send_datagram_request wanted;
    memcpy(&wanted, request->body, sizeof(wanted));
    size_t size = request->length - sizeof(wanted);
    if (size == 0 || size > WIRE_DATAGRAM_MAX) {
        return WIRE_ERROR_bad_length;
    }
    if (!endpoint_is_valid(&wanted.to)) {
        return WIRE_ERROR_bad_value;
    }
    struct destination to = way_to(plane->ways, &wanted.to);
    uint8_t *bytes = sender_put(plane->sender, &to, size, NULL, 0);
    if (bytes == NULL) {
        return WIRE_ERROR_no_socket;
    }
    memcpy(bytes, request->body + sizeof(wanted), size);
    /* Where nobody waits, it leaves together with those of the requests that follow. */
    return request->is_awaited ? flush(plane, SEND_DONE) : (enum wire_error)0;
}

static enum wire_error handle_send_control(struct request *request) {
    struct plane *plane = request->plane;
    struct send_control_request wanted;
    struct session *session = NULL;
    memcpy(&wanted, request->body, sizeof(wanted));
    const uint8_t *bytes = request->body + sizeof(wanted);
    size_t size = request->length - sizeof(wanted);
    if (size == 0 || size > (bytes[0] == CONTROL_PROBE ? CONTROL_MAX : WIRE_DATAGRAM_MAX)) {
        return WIRE_ERROR_bad_length;
    }
    if ((bytes[0] & 0xf0) != CONTROL_NIBBLE || !endpoint_is_valid_or_none(&wanted.to)) {
        return WIRE_ERROR_bad_value;
    }
    struct peer *peer = request_peer(request, wanted.peer);
    if (peer == NULL) {
        return WIRE_ERROR_no_such_peer;
    }
    if (wanted.local_index != 0) {
        session = session_find(&plane->sessions, wanted.local_index);
        if (session == NULL || session->peer != peer) {
            return WIRE_ERROR_no_such_session;
        }
    }
    struct destination to = way_to(plane->ways, &wanted.to);
    return flush(plane,
                 send_control(plane, plane->sender, peer, session,
                              wanted.to.family == 0 ? NULL : &to, bytes, size, request->now_ns));
}

static enum wire_error handle_send_keepalive(struct request *request) {
    struct plane *plane = request->plane;
    enum wire_error error;
    struct peer *peer = peer_asked(request, &error);
    if (peer == NULL) {
        return error;
    }
    return flush(plane, send_control(plane, plane->sender, peer, NULL, NULL, (const uint8_t *)"", 0,
                                     request->now_ns));
}

/* ---- all of them ---- */

struct request_kind {
    enum wire_error (*handle)(struct request *request);
    size_t size;    /* of the body, at least */
    bool has_bytes; /* more may follow */
    bool has_fds;
};

static const struct request_kind kinds[] = {
    [WIRE_HELLO] = {handle_hello, sizeof(struct hello_request), false, false},
    [WIRE_INVENTORY] = {handle_inventory, 0, false, false},
    [WIRE_LIST_PEERS] = {handle_list_peers, sizeof(struct list_request), false, false},
    [WIRE_LIST_SESSIONS] = {handle_list_sessions, sizeof(struct list_request), false, false},
    [WIRE_LIST_MACS] = {handle_list_macs, sizeof(struct list_request), false, false},
    [WIRE_SET_LINK] = {handle_set_link, sizeof(struct set_link_request), false, true},
    [WIRE_SET_SOCKETS] = {handle_set_sockets, sizeof(struct set_sockets_request), false, true},
    [WIRE_SET_PEER] = {handle_set_peer, sizeof(struct set_peer_request), true, false},
    [WIRE_REMOVE_PEER] = {handle_remove_peer, sizeof(struct peer_request), false, false},
    [WIRE_INSTALL_SESSION] = {handle_install_session, sizeof(struct install_session_request), false,
                              false},
    [WIRE_RETIRE_SESSION] = {handle_retire_session, sizeof(struct session_request), false, false},
    [WIRE_SEND_DATAGRAM] = {handle_send_datagram, sizeof(struct send_datagram_request), true,
                            false},
    [WIRE_SEND_CONTROL] = {handle_send_control, sizeof(struct send_control_request), true, false},
    [WIRE_SEND_KEEPALIVE] = {handle_send_keepalive, sizeof(struct peer_request), false, false},
    [WIRE_FLUSH_STAGED] = {handle_flush_staged, sizeof(struct peer_request), false, false},
    [WIRE_SET_OPTIONS] = {handle_set_options, sizeof(struct set_options_request), false, false},
    [WIRE_STOP] = {handle_stop, 0, false, false},
    [WIRE_SET_GATE] = {handle_set_gate, sizeof(struct set_gate_request), false, false},
    [WIRE_CLOSE_GATE] = {handle_close_gate, sizeof(struct close_gate_request), false, false},
    [WIRE_START_CAPTURE] = {handle_start_capture, sizeof(struct start_capture_request), false,
                            true},
    [WIRE_STOP_CAPTURE] = {handle_stop_capture, 0, false, false},
    [WIRE_SET_PEER_MTU] = {handle_set_peer_mtu, sizeof(struct set_peer_mtu_request), false, false},
    [WIRE_SET_PEER_FRAMES] = {handle_set_peer_frames, sizeof(struct set_peer_frames_request), true,
                              false},
};

enum wire_error request_handle(struct request *request, uint16_t type) {
    if (!request->is_greeted && type != WIRE_HELLO) {
        return WIRE_ERROR_no_hello;
    }
    if (type >= sizeof(kinds) / sizeof(kinds[0]) || kinds[type].handle == NULL) {
        return WIRE_ERROR_unknown_request;
    }
    const struct request_kind *kind = &kinds[type];
    if (request->length < kind->size || (request->length > kind->size && !kind->has_bytes)) {
        return WIRE_ERROR_bad_length;
    }
    if (request->fd_count > 0 && !kind->has_fds) {
        return WIRE_ERROR_bad_descriptors;
    }
    sessions_reap(request->plane);
    return kind->handle(request);
}
