/* What vpnd shall hear, waiting for the control socket.
 *
 * Owns bounded queues for messages of strangers and peers, and the news of sessions, which are
 * never lost: they are few, since each belongs to a session that vpnd installed. News of a peer
 * are merged into the latest. Nothing waits while no vpnd listens. Knows no socket.
 */
#ifndef VPND_EVENTS_H
#define VPND_EVENTS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "path.h"
#include "wire.h"

#define STRANGERS_QUEUED_MAX 1024u
#define KNOWN_QUEUED_MAX     512u
#define STRANGERS_TURN       4u /* one in so many is a stranger's while others wait */
#define CONTROLS_QUEUED_MAX  256u
#define HANDSHAKE_SHARE      128u /* places that one source may take */
#define SHARES_COUNT         4096u
#define EVENT_MAX            (sizeof(struct wire_header) + 64u + WIRE_DATAGRAM_MAX)

struct datagram;
struct peer;
struct plane;

struct queued_message {
    uint64_t received_at_ns;
    uint32_t peer; /* of control messages */
    uint32_t local_index;
    uint32_t share; /* of handshake messages: in whose share it stands */
    uint32_t size;
    struct destination from;
    uint8_t bytes[WIRE_DATAGRAM_MAX];
};

struct message_queue {
    struct queued_message *messages;
    unsigned room, first, count;
};

struct session_news {
    uint16_t type; /* WIRE_EVENT_SESSION_PLACED or _ENDED */
    struct session_event event;
};

/* Every member is guarded by `lock`, the last in the order. */
struct events {
    pthread_mutex_t lock;
    int wake_fd; /* an eventfd: the main thread has something to do */
    atomic_bool is_awake;
    bool is_listening;
    bool is_broken; /* news of a session found no memory: the connection must begin anew */
    struct message_queue strangers; /* initiations without a cookie's proof */
    struct message_queue known;     /* what only those send that heard from us, or say so */
    unsigned handshake_turns;
    uint16_t shares[SHARES_COUNT]; /* waiting messages, by where they came from */
    struct message_queue controls;
    struct session_news *news;
    size_t news_room, news_first, news_count;
    uint32_t *peers; /* a ring of those with pending_news, each once */
    uint32_t peers_first, peers_count;
    uint32_t failed_type[2];
    int failed_error[2];
};

enum peer_news { NEWS_WANTED = 1, NEWS_ROAMED = 2 };

int events_open(struct events *events);
void events_close(struct events *events);

/* Starts or stops collecting; both begin empty. Waiting handshake messages count as dropped. */
void events_listen(struct plane *plane, bool is_listening);

/* Was news of a session lost for want of memory? Then the connection must begin anew. */
bool events_broken(struct events *events);

/* Any thread: the main thread shall look at what changed. */
void events_wake(struct events *events);

void events_session(struct events *events, uint16_t type, const struct session_event *event);
void events_wanted(struct events *events, struct peer *peer);
void events_roamed(struct events *events, struct peer *peer, enum roam_state state,
                   const struct wire_endpoint *endpoint);
/* The peer is about to go. */
void events_forget_peer(struct events *events, const struct peer *peer);
void events_failed(struct events *events, enum wire_type type, int error);

/* Handshake messages of one batch; counts those that have no place. */
void events_handshakes(struct plane *plane, const struct datagram *const *datagrams, unsigned count,
                       uint64_t now_ns);

/* A control message of a peer; false if the queue is full. */
bool events_control(struct plane *plane, uint32_t peer, uint32_t local_index,
                    const struct destination *from, const uint8_t *bytes, size_t size,
                    uint64_t now_ns);

/* Takes the most important event, header and all, in at most EVENT_MAX bytes; 0 if there is none.
 * The source of a handshake message goes to *from, else family 0. */
size_t events_take(struct plane *plane, uint8_t *message, struct destination *from);

#endif
