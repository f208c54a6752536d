/* Initiations while they are more than vpnd can serve: the steps of protocol section 5.2 that come
 * before the first Diffie-Hellman, done where a flood costs least.
 *
 * Owns the sense of load, mac1, cookies and the rate of each source. The keys and the cookies'
 * secrets are vpnd's, which takes the same steps for whatever passes. Knows no peer and no socket.
 */
#ifndef VPND_GATE_H
#define VPND_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire.h"

#define GATE_COOKIE_SIZE 64u
#define GATE_LOAD_DEPTH  64u /* handshake messages that wait for vpnd */
#define GATE_SOURCES     65536u

enum gate_verdict {
    GATE_PASS,
    GATE_MALFORMED,
    GATE_MAC1,   /* mac1 is not right */
    GATE_COOKIE, /* to be answered by a cookie */
    GATE_RATE,   /* the source sends too many, with a proof of its address or without */
};

/* The main thread's own; only gate_source is for all. */
struct gate;

struct gate *gate_new(void);
void gate_free(struct gate *gate);

/* Replaces the keys; without a secret the gate stays open. */
void gate_set(struct gate *gate, const struct set_gate_request *keys);

/* So many messages wait: more than GATE_LOAD_DEPTH close the gate for a second. */
void gate_note_depth(struct gate *gate, unsigned waiting, uint64_t now_ns);

/* vpnd is under load until then. */
void gate_close(struct gate *gate, uint64_t until_ns);

/* Whom a message is charged to: a number below GATE_SOURCES for each IPv4 address and IPv6 /64. */
uint32_t gate_source(const struct gate *gate, const struct wire_endpoint *from);

/* Was this very initiation let in during the last 10 s? A replay costs one look. */
bool gate_has_seen(const struct gate *gate, const uint8_t *bytes, size_t size, uint64_t now_ns);
/* It is let in. */
void gate_remember(struct gate *gate, const uint8_t *bytes, size_t size, uint64_t now_ns);

bool gate_is_closed(const struct gate *gate, uint64_t now_ns);

/* Judges an initiation. */
enum gate_verdict gate_judge(struct gate *gate, const struct wire_endpoint *from,
                             const uint8_t *bytes, size_t size, uint64_t now_ns);

/* May this address and port be answered by a cookie, which costs more than all the rest? Three at
 * once and one a second, and at once whoever is new, so that a flood keeps nobody else from being
 * answered. Beyond that 4,000 a second of all together: a stranger who writes somebody's address on
 * his own initiations does not have that one go without. Counts it if so. */
bool gate_may_ask(struct gate *gate, const struct wire_endpoint *from, uint64_t now_ns);

/* The answer to an initiation that was judged GATE_COOKIE; false without randomness. */
bool gate_make_cookie(struct gate *gate, const struct wire_endpoint *from, const uint8_t *bytes,
                      size_t size, uint8_t out[GATE_COOKIE_SIZE]);

#endif
