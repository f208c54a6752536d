#include "events.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "plane.h"

#define INITIATION 0x08u
#define MAC2_SIZE  16u

_Static_assert(EVENT_MAX >=
                   sizeof(struct wire_header) + sizeof(struct control_event) + WIRE_DATAGRAM_MAX,
               "the largest event");

static bool queue_open(struct message_queue *queue, unsigned room) {
    /* Untouched pages cost nothing until a flood comes. */
    queue->messages = calloc(room, sizeof(*queue->messages));
    queue->room = room;
    return queue->messages != NULL;
}

int events_open(struct events *events) {
    pthread_mutex_init(&events->lock, NULL);
    events->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    events->peers = calloc(COUNTERS_PEER_MAX, sizeof(*events->peers));
    if (events->wake_fd < 0 || events->peers == NULL ||
        !queue_open(&events->strangers, STRANGERS_QUEUED_MAX) ||
        !queue_open(&events->known, KNOWN_QUEUED_MAX) ||
        !queue_open(&events->controls, CONTROLS_QUEUED_MAX)) {
        return -ENOMEM;
    }
    return 0;
}

void events_close(struct events *events) {
    close(events->wake_fd);
    free(events->strangers.messages);
    free(events->known.messages);
    free(events->controls.messages);
    free(events->news);
    free(events->peers);
    pthread_mutex_destroy(&events->lock);
}

void events_wake(struct events *events) {
    if (!atomic_exchange(&events->is_awake, true)) {
        uint64_t one = 1;
        (void)!write(events->wake_fd, &one, sizeof(one));
    }
}

static void forget_peers(struct plane *plane) {
    struct events *events = &plane->events;
    for (; events->peers_count > 0; events->peers_count--) {
        struct peer *peer = peer_find(&plane->peers, events->peers[events->peers_first]);
        if (peer != NULL) {
            peer->pending_news = 0;
        }
        events->peers_first = (events->peers_first + 1) % COUNTERS_PEER_MAX;
    }
}

void events_listen(struct plane *plane, bool is_listening) {
    struct events *events = &plane->events;
    pthread_mutex_lock(&events->lock);
    drop_count(plane, NULL, DROP_hs_no_daemon, events->strangers.count + events->known.count);
    events->strangers.count = 0;
    events->known.count = 0;
    memset(events->shares, 0, sizeof(events->shares));
    events->controls.count = 0;
    events->news_count = 0;
    events->failed_type[0] = 0;
    events->failed_type[1] = 0;
    forget_peers(plane);
    events->is_listening = is_listening;
    events->is_broken = false;
    pthread_mutex_unlock(&events->lock);
}

bool events_broken(struct events *events) {
    pthread_mutex_lock(&events->lock);
    bool is_broken = events->is_broken;
    pthread_mutex_unlock(&events->lock);
    return is_broken;
}

/* ---- putting ---- */

static bool news_grow(struct events *events) {
    size_t room = events->news_room == 0 ? 64 : events->news_room * 2;
    struct session_news *news = malloc(room * sizeof(*news));
    if (news == NULL) {
        return false;
    }
    for (size_t i = 0; i < events->news_count; i++) {
        news[i] = events->news[(events->news_first + i) % events->news_room];
    }
    free(events->news);
    events->news = news;
    events->news_room = room;
    events->news_first = 0;
    return true;
}

void events_session(struct events *events, uint16_t type, const struct session_event *event) {
    pthread_mutex_lock(&events->lock);
    if (events->is_listening) {
        if (events->news_count == events->news_room && !news_grow(events)) {
            events->is_broken = true;
        } else {
            size_t place = (events->news_first + events->news_count++) % events->news_room;
            events->news[place] = (struct session_news){type, *event};
        }
    }
    pthread_mutex_unlock(&events->lock);
    events_wake(events);
}

/* The caller holds the lock. */
static void note_peer(struct events *events, struct peer *peer, enum peer_news news) {
    if (peer->pending_news == 0) {
        uint32_t place = (events->peers_first + events->peers_count++) % COUNTERS_PEER_MAX;
        events->peers[place] = peer->number;
    }
    peer->pending_news |= (uint8_t)news;
}

void events_wanted(struct events *events, struct peer *peer) {
    pthread_mutex_lock(&events->lock);
    if (events->is_listening) {
        note_peer(events, peer, NEWS_WANTED);
    }
    pthread_mutex_unlock(&events->lock);
    events_wake(events);
}

void events_roamed(struct events *events, struct peer *peer, enum roam_state state,
                   const struct wire_endpoint *endpoint) {
    pthread_mutex_lock(&events->lock);
    if (events->is_listening) {
        peer->roamed_state = state;
        peer->roamed_to = *endpoint;
        note_peer(events, peer, NEWS_ROAMED);
    }
    pthread_mutex_unlock(&events->lock);
    events_wake(events);
}

void events_forget_peer(struct events *events, const struct peer *peer) {
    pthread_mutex_lock(&events->lock);
    uint32_t kept = 0;
    for (uint32_t i = 0; peer->pending_news != 0 && i < events->peers_count; i++) {
        uint32_t number = events->peers[(events->peers_first + i) % COUNTERS_PEER_MAX];
        if (number != peer->number) {
            events->peers[(events->peers_first + kept++) % COUNTERS_PEER_MAX] = number;
        }
    }
    if (peer->pending_news != 0) {
        events->peers_count = kept;
    }
    pthread_mutex_unlock(&events->lock);
}

void events_failed(struct events *events, enum wire_type type, int error) {
    unsigned place = type == WIRE_EVENT_LINK_FAILED ? 0 : 1;
    pthread_mutex_lock(&events->lock);
    if (events->is_listening) {
        events->failed_type[place] = type;
        events->failed_error[place] = error;
    }
    pthread_mutex_unlock(&events->lock);
    events_wake(events);
}

/* The caller holds the lock. */
static bool queue_put(struct message_queue *queue, const struct queued_message *head,
                      const uint8_t *bytes) {
    if (queue->count == queue->room) {
        return false;
    }
    if (queue->count == 0) {
        queue->first = 0; /* the same few pages serve as long as nothing waits */
    }
    struct queued_message *message =
        &queue->messages[(queue->first + queue->count++) % queue->room];
    memcpy(message, head, offsetof(struct queued_message, bytes));
    memcpy(message->bytes, bytes, head->size);
    return true;
}

/* An initiation whose last field, mac2, is zero: whoever knows our public key can make it. */
static bool is_strangers(const struct datagram *datagram) {
    static const uint8_t none[MAC2_SIZE];
    return datagram->bytes[0] == INITIATION && datagram->size > MAC2_SIZE &&
           memcmp(datagram->bytes + datagram->size - MAC2_SIZE, none, MAC2_SIZE) == 0;
}

/* The caller holds the lock. */
static void put_handshake(struct plane *plane, const struct datagram *datagram, uint64_t now_ns) {
    struct events *events = &plane->events;
    struct queued_message head;
    head.received_at_ns = now_ns;
    head.peer = 0;
    head.local_index = 0;
    head.share = gate_source(plane->gate, &datagram->reception->from.to) % SHARES_COUNT;
    head.size = (uint32_t)datagram->size;
    head.from = datagram->reception->from;
    if (events->shares[head.share] == HANDSHAKE_SHARE ||
        !queue_put(is_strangers(datagram) ? &events->strangers : &events->known, &head,
                   datagram->bytes)) {
        drop_count(plane, NULL, DROP_hs_queue_full, 1);
        return;
    }
    events->shares[head.share]++;
    counter_add(&plane->counters->handshakes_queued, 1);
}

void events_handshakes(struct plane *plane, const struct datagram *const *datagrams, unsigned count,
                       uint64_t now_ns) {
    struct events *events = &plane->events;
    pthread_mutex_lock(&events->lock);
    if (events->is_listening) {
        for (unsigned i = 0; i < count; i++) {
            put_handshake(plane, datagrams[i], now_ns);
        }
    } else {
        drop_count(plane, NULL, DROP_hs_no_daemon, count);
    }
    pthread_mutex_unlock(&events->lock);
    events_wake(events);
}

bool events_control(struct plane *plane, uint32_t peer, uint32_t local_index,
                    const struct destination *from, const uint8_t *bytes, size_t size,
                    uint64_t now_ns) {
    struct events *events = &plane->events;
    struct queued_message head;
    head.received_at_ns = now_ns;
    head.peer = peer;
    head.local_index = local_index;
    head.share = 0;
    head.size = (uint32_t)size;
    head.from = *from;
    pthread_mutex_lock(&events->lock);
    bool is_kept = !events->is_listening || queue_put(&events->controls, &head, bytes);
    pthread_mutex_unlock(&events->lock);
    events_wake(events);
    return is_kept;
}

/* ---- taking; the caller holds the lock ---- */

static size_t compose(uint8_t *message, uint32_t type, const void *body, size_t body_size,
                      const uint8_t *bytes, size_t size) {
    struct wire_header header = {.type = (uint16_t)type, .length = (uint32_t)(body_size + size)};
    memcpy(message, &header, sizeof(header));
    memcpy(message + sizeof(header), body, body_size);
    if (size > 0) {
        memcpy(message + sizeof(header) + body_size, bytes, size);
    }
    return sizeof(header) + body_size + size;
}

static size_t take_failed(struct events *events, uint8_t *message) {
    for (unsigned i = 0; i < 2; i++) {
        if (events->failed_type[i] != 0) {
            struct failed_event event = {.error = (uint32_t)events->failed_error[i]};
            size_t size = compose(message, events->failed_type[i], &event, sizeof(event), NULL, 0);
            events->failed_type[i] = 0;
            return size;
        }
    }
    return 0;
}

static size_t take_session(struct events *events, uint8_t *message) {
    if (events->news_count == 0) {
        return 0;
    }
    const struct session_news *news = &events->news[events->news_first];
    events->news_first = (events->news_first + 1) % events->news_room;
    events->news_count--;
    return compose(message, news->type, &news->event, sizeof(news->event), NULL, 0);
}

static size_t take_peer(struct plane *plane, uint8_t *message) {
    struct events *events = &plane->events;
    while (events->peers_count > 0) {
        struct peer *peer = peer_find(&plane->peers, events->peers[events->peers_first]);
        if (peer != NULL && (peer->pending_news & NEWS_ROAMED) != 0) {
            struct roamed_event event = {.peer = peer->number,
                                         .state = (uint8_t)peer->roamed_state,
                                         .endpoint = peer->roamed_to};
            peer->pending_news &= (uint8_t)~NEWS_ROAMED;
            if (peer->pending_news == 0) {
                events->peers_first = (events->peers_first + 1) % COUNTERS_PEER_MAX;
                events->peers_count--;
            }
            return compose(message, WIRE_EVENT_PEER_ROAMED, &event, sizeof(event), NULL, 0);
        }
        events->peers_first = (events->peers_first + 1) % COUNTERS_PEER_MAX;
        events->peers_count--;
        if (peer != NULL && (peer->pending_news & NEWS_WANTED) != 0) {
            struct peer_event event = {.peer = peer->number};
            peer->pending_news = 0;
            return compose(message, WIRE_EVENT_SESSION_WANTED, &event, sizeof(event), NULL, 0);
        }
    }
    return 0;
}

static struct queued_message *queue_take(struct message_queue *queue) {
    if (queue->count == 0) {
        return NULL;
    }
    struct queued_message *message = &queue->messages[queue->first];
    queue->first = (queue->first + 1) % queue->room;
    queue->count--;
    return message;
}

static size_t take_control(struct events *events, uint8_t *message) {
    const struct queued_message *queued = queue_take(&events->controls);
    if (queued == NULL) {
        return 0;
    }
    struct control_event event = {.received_at_ns = queued->received_at_ns,
                                  .peer = queued->peer,
                                  .local_index = queued->local_index,
                                  .from = queued->from.to};
    return compose(message, WIRE_EVENT_CONTROL, &event, sizeof(event), queued->bytes, queued->size);
}

/* A flood of strangers delays nobody else, and a flood of the others strangers a little. */
static struct queued_message *take_waiting(struct events *events) {
    bool is_strangers_turn = ++events->handshake_turns % STRANGERS_TURN == 0;
    struct message_queue *first = is_strangers_turn ? &events->strangers : &events->known;
    struct message_queue *second = is_strangers_turn ? &events->known : &events->strangers;
    return queue_take(first->count > 0 ? first : second);
}

static size_t take_handshake(struct events *events, uint8_t *message, struct destination *from) {
    const struct queued_message *queued = take_waiting(events);
    if (queued == NULL) {
        return 0;
    }
    events->shares[queued->share]--;
    struct datagram_event event = {.received_at_ns = queued->received_at_ns,
                                   .queue_depth = events->strangers.count + events->known.count,
                                   .from = queued->from.to};
    *from = queued->from;
    return compose(message, WIRE_EVENT_DATAGRAM, &event, sizeof(event), queued->bytes,
                   queued->size);
}

size_t events_take(struct plane *plane, uint8_t *message, struct destination *from) {
    struct events *events = &plane->events;
    memset(from, 0, sizeof(*from));
    pthread_mutex_lock(&events->lock);
    size_t size = take_failed(events, message);
    if (size == 0) {
        size = take_session(events, message);
    }
    if (size == 0) {
        size = take_peer(plane, message);
    }
    if (size == 0) {
        size = take_control(events, message);
    }
    if (size == 0) {
        size = take_handshake(events, message, from);
    }
    pthread_mutex_unlock(&events->lock);
    return size;
}
