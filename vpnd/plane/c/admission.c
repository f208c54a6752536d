#include "admission.h"

#include <string.h>

#include "plane.h"

#define INITIATION 0x08u

static void count(struct plane *plane, enum drop_reason reason) {
    drop_count(plane, NULL, reason, 1);
}

static void ask_for_cookie(struct plane *plane, const struct destination *to, const uint8_t *bytes,
                           size_t size, uint64_t now_ns) {
    uint8_t cookie[GATE_COOKIE_SIZE];
    if (!gate_may_ask(plane->gate, &to->to, now_ns) ||
        !gate_make_cookie(plane->gate, &to->to, bytes, size, cookie)) {
        count(plane, DROP_hs_ratelimited);
        return;
    }
    uint8_t *place = sender_put(plane->sender, to, GATE_COOKIE_SIZE, NULL, 0);
    if (place != NULL) {
        memcpy(place, cookie, GATE_COOKIE_SIZE);
    }
    count(plane, DROP_hs_cookie_sent);
}

bool admission_passes(struct plane *plane, const struct destination *from, const uint8_t *event,
                      size_t size, uint64_t now_ns) {
    struct datagram_event head;
    enum gate_verdict verdict = GATE_PASS;
    const uint8_t *bytes = event + sizeof(struct wire_header) + sizeof(head);
    memcpy(&head, event + sizeof(struct wire_header), sizeof(head));
    size -= sizeof(struct wire_header) + sizeof(head);
    gate_note_depth(plane->gate, head.queue_depth, now_ns);
    if (bytes[0] == INITIATION) {
        if (gate_has_seen(plane->gate, bytes, size, now_ns)) {
            count(plane, DROP_hs_dup);
            return false;
        }
        if (gate_is_closed(plane->gate, now_ns)) {
            verdict = gate_judge(plane->gate, &from->to, bytes, size, now_ns);
        }
        if (verdict == GATE_PASS) {
            gate_remember(plane->gate, bytes, size, now_ns);
        }
    }
    switch (verdict) {
    case GATE_PASS:
        ways_remember(plane->ways, from);
        return true;
    case GATE_COOKIE:
        ask_for_cookie(plane, from, bytes, size, now_ns);
        break;
    case GATE_MALFORMED:
        count(plane, DROP_rx_malformed);
        break;
    case GATE_MAC1:
        count(plane, DROP_rx_mac1);
        break;
    case GATE_RATE:
        count(plane, DROP_hs_ratelimited);
        break;
    }
    return false;
}
