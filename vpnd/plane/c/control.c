#include "control.h"

#include <string.h>

#include "plane.h"
#include "sealing.h"

#define PONGS_PER_S    10u
#define PROBES_PER_S   20u /* a search asks for a dozen sizes at most */
#define CONTROLS_PER_S 100u
#define PING_SIZE      9u /* the type and 8 bytes that come back */
#define PROBE_SIZE     5u /* the type and 4 bytes that come back */
#define PROBE_ACK_SIZE 7u
#define UDP_HEADER     8u

bool control_is_proof(const uint8_t *bytes, size_t size) {
    return size > 0 && (bytes[0] == CONTROL_PATH_CHALLENGE || bytes[0] == CONTROL_PATH_RESPONSE);
}

static void answer_ping(struct plane *plane, struct sender *sender, struct peer *peer,
                        const uint8_t *bytes, uint64_t now_ns) {
    pthread_mutex_lock(&peer->lock);
    bool may = rate_allows(&peer->pongs, PONGS_PER_S, now_ns);
    pthread_mutex_unlock(&peer->lock);
    if (!may) {
        drop_count(plane, peer, DROP_control_rate, 1);
        return;
    }
    uint8_t pong[PING_SIZE] = {CONTROL_PONG};
    memcpy(pong + 1, bytes + 1, PING_SIZE - 1);
    (void)send_control(plane, sender, peer, NULL, NULL, pong, sizeof(pong), now_ns);
}

/* Bytes of the message that one piece of its datagram held. The kernel says how large the pieces
 * were: fragments are the network's word about its MTU that nobody can forge, for together they
 * were an authentic message. */
static size_t size_in_one_piece(const struct reception *reception, size_t size) {
    size_t around = (reception->from.to.family == 4 ? 20u : 40u) + UDP_HEADER + DATA_OVERHEAD;
    if (reception->fragment == 0) {
        return size;
    }
    size_t held = reception->fragment > around ? reception->fragment - around : 0;
    return held < size ? held : size;
}

static void answer_probe(struct plane *plane, struct sender *sender, struct peer *peer,
                         const struct reception *reception, const uint8_t *bytes, size_t size,
                         uint64_t now_ns) {
    pthread_mutex_lock(&peer->lock);
    bool may = rate_allows(&peer->probes, PROBES_PER_S, now_ns);
    pthread_mutex_unlock(&peer->lock);
    if (!may) {
        drop_count(plane, peer, DROP_control_rate, 1);
        return;
    }
    uint8_t answer[PROBE_ACK_SIZE] = {CONTROL_PROBE_ACK};
    memcpy(answer + 1, bytes + 1, PROBE_SIZE - 1);
    store_le16(answer + PROBE_SIZE, (uint16_t)size_in_one_piece(reception, size));
    (void)send_control(plane, sender, peer, NULL, &reception->from, answer, sizeof(answer), now_ns);
}

/* The answer goes to where the challenge came from, wherever the endpoint is. */
static void answer_challenge(struct plane *plane, struct sender *sender, struct peer *peer,
                             const struct destination *from, const uint8_t *bytes,
                             uint64_t now_ns) {
    pthread_mutex_lock(&peer->lock);
    bool may = path_may_answer(&peer->path, &from->to, now_ns);
    pthread_mutex_unlock(&peer->lock);
    if (!may) {
        drop_count(plane, peer, DROP_control_rate, 1);
        return;
    }
    uint8_t response[1 + PATH_TOKEN_SIZE] = {CONTROL_PATH_RESPONSE};
    memcpy(response + 1, bytes + 1, PATH_TOKEN_SIZE);
    (void)send_control(plane, sender, peer, NULL, from, response, sizeof(response), now_ns);
}

static void take_response(struct plane *plane, struct peer *peer, const uint8_t *bytes) {
    pthread_mutex_lock(&peer->lock);
    if (path_answered(&peer->path, bytes + 1)) {
        atomic_fetch_sub(&plane->probations, 1);
        events_roamed(&plane->events, peer, ROAM_VALIDATED, &peer->path.now.to);
    }
    pthread_mutex_unlock(&peer->lock);
}

static void pass_up(struct plane *plane, struct session *session, const struct destination *from,
                    const uint8_t *bytes, size_t size, uint64_t now_ns) {
    struct peer *peer = session->peer;
    pthread_mutex_lock(&peer->lock);
    bool may = rate_allows(&peer->controls, CONTROLS_PER_S, now_ns);
    pthread_mutex_unlock(&peer->lock);
    if (!may ||
        !events_control(plane, peer->number, session->local_index, from, bytes, size, now_ns)) {
        drop_count(plane, peer, DROP_control_rate, 1);
    }
}

static bool is_well_formed(const uint8_t *bytes, size_t size) {
    if (bytes[0] == CONTROL_PROBE) {
        return size >= PROBE_SIZE;
    }
    if (control_is_proof(bytes, size)) {
        return size == 1 + PATH_TOKEN_SIZE;
    }
    return size <= WIRE_DATAGRAM_MAX && (bytes[0] != CONTROL_PING || size >= PING_SIZE);
}

void control_receive(struct plane *plane, struct sender *sender, struct session *session,
                     const struct reception *reception, const uint8_t *bytes, size_t size,
                     uint64_t now_ns) {
    struct peer *peer = session->peer;
    if (!is_well_formed(bytes, size)) {
        drop_count(plane, peer, DROP_data_inner, 1);
        return;
    }
    switch (bytes[0]) {
    case CONTROL_PING:
        answer_ping(plane, sender, peer, bytes, now_ns);
        break;
    case CONTROL_PROBE:
        answer_probe(plane, sender, peer, reception, bytes, size, now_ns);
        break;
    case CONTROL_PATH_CHALLENGE:
        answer_challenge(plane, sender, peer, &reception->from, bytes, now_ns);
        break;
    case CONTROL_PATH_RESPONSE:
        take_response(plane, peer, bytes);
        break;
    default:
        pass_up(plane, session, &reception->from, bytes, size, now_ns);
        break;
    }
}
