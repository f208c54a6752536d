#include "gate.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "bytes.h"
#include "clock.h"

/* HS_INIT, protocol section 3.1. */
#define INITIATION_FIXED 136u
#define PARAMETERS_STEP  64u
#define PARAMETERS_MAX   512u
#define MAC_SIZE         16u
#define SENDER_AT        4u /* sender_index */

#define COOKIE_TYPE  0x0au
#define COOKIE_NONCE 8u  /* where it stands in the message */
#define COOKIE_BOX   32u /* likewise */
#define PLACE_SIZE   18u /* address and port */
#define SECRET_SIZE  32u
#define SEEN_COUNT   4096u
#define SEEN_LIFE_NS (10 * NS_PER_SECOND)
#define LOAD_HOLD_NS NS_PER_SECOND
#define SOURCE_COST  (NS_PER_SECOND / 20)
#define SOURCE_DEPTH (5 * SOURCE_COST) /* so many at once */
#define ASKED_COUNT  131072u
#define ASKED_COST   NS_PER_SECOND /* an initiator's first retry comes after so long */
#define ASKED_DEPTH  (3 * ASKED_COST)
#define SPARE_COST   (NS_PER_SECOND / 4000) /* cookies beyond what places may have */
#define SPARE_DEPTH  (100 * SPARE_COST)
#define RANDOM_SIZE  1024u

_Static_assert(crypto_secretbox_NONCEBYTES == COOKIE_BOX - COOKIE_NONCE, "the cookie's nonce");
_Static_assert(crypto_secretbox_MACBYTES + MAC_SIZE == GATE_COOKIE_SIZE - COOKIE_BOX, "its box");
_Static_assert(crypto_generichash_blake2b_PERSONALBYTES == 16, "labels have 16 bytes");

/* An initiation that was let in, by its MACs. */
struct seen {
    uint64_t hash;
    uint64_t at_ns; /* 0: none */
};

/* An address and port that was asked for a cookie of late. */
struct asked {
    uint64_t full_at_ns;
    uint64_t tag; /* whose it is */
};

struct gate {
    struct set_gate_request keys;
    uint64_t closed_until_ns;
    uint64_t seed; /* random: a flood can not choose whose place it shares */
    uint64_t full_at_ns[GATE_SOURCES];
    struct seen seen[SEEN_COUNT];
    struct asked asked[ASKED_COUNT];
    uint64_t spare_full_at_ns;
    size_t random_left;
    uint8_t
        random[RANDOM_SIZE]; /* for nonces; a system call for each would cost more than the box */
};

struct gate *gate_new(void) {
    /* Untouched pages cost nothing until a flood comes. */
    struct gate *gate = calloc(1, sizeof(*gate));
    if (gate != NULL && (sodium_init() < 0 || getrandom(&gate->seed, sizeof(gate->seed), 0) !=
                                                  (ssize_t)sizeof(gate->seed))) {
        free(gate);
        return NULL;
    }
    return gate;
}

void gate_free(struct gate *gate) {
    if (gate != NULL) {
        explicit_bzero(&gate->keys, sizeof(gate->keys));
        free(gate);
    }
}

void gate_set(struct gate *gate, const struct set_gate_request *keys) {
    gate->keys = *keys;
}

void gate_note_depth(struct gate *gate, unsigned waiting, uint64_t now_ns) {
    if (waiting > GATE_LOAD_DEPTH) {
        gate_close(gate, now_ns + LOAD_HOLD_NS);
    }
}

void gate_close(struct gate *gate, uint64_t until_ns) {
    if (until_ns > gate->closed_until_ns) {
        gate->closed_until_ns = until_ns;
    }
}

bool gate_is_closed(const struct gate *gate, uint64_t now_ns) {
    return gate->keys.secret_count > 0 && now_ns < gate->closed_until_ns;
}

/* ---- hashes, protocol section 2 ---- */

static void keyed(uint8_t *out, size_t out_size, const char *label, const uint8_t *key,
                  size_t key_size, const uint8_t *bytes, size_t size) {
    uint8_t person[16] = {0};
    memcpy(person, label, strlen(label));
    (void)crypto_generichash_blake2b_salt_personal(out, out_size, bytes, size, key, key_size, NULL,
                                                   person);
}

static bool is_mac(const uint8_t *key, size_t key_size, const uint8_t *bytes, size_t size,
                   const uint8_t *claimed) {
    uint8_t mac[MAC_SIZE];
    keyed(mac, sizeof(mac), "vpnd1.mac", key, key_size, bytes, size);
    return sodium_memcmp(mac, claimed, sizeof(mac)) == 0;
}

/* Address and port as cookies bind them: IPv4 as a mapped address. */
static void place_of(const struct wire_endpoint *from, uint8_t place[PLACE_SIZE]) {
    memset(place, 0, PLACE_SIZE);
    if (from->family == 4) {
        place[10] = 0xff;
        place[11] = 0xff;
        memcpy(place + 12, from->address, 4);
    } else {
        memcpy(place, from->address, 16);
    }
    place[16] = (uint8_t)(from->port >> 8);
    place[17] = (uint8_t)from->port;
}

/* ---- replays ---- */

static uint64_t mix(uint64_t hash, uint64_t value) {
    hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ (hash >> 32);
}

/* Of every byte: mac1 alone, unchecked, would let whoever sees an initiation have it refused by
 * being quicker with that mac1 in a message of their own. */
static uint64_t hash_of(const struct gate *gate, const uint8_t *bytes, size_t size) {
    uint64_t hash = mix(gate->seed, size);
    size_t at = 0;
    for (; at + 8 <= size; at += 8) {
        hash = mix(hash, load_le64(bytes + at));
    }
    for (; at < size; at++) {
        hash = mix(hash, bytes[at]);
    }
    return hash;
}

bool gate_has_seen(const struct gate *gate, const uint8_t *bytes, size_t size, uint64_t now_ns) {
    uint64_t hash = hash_of(gate, bytes, size);
    const struct seen *seen = &gate->seen[hash % SEEN_COUNT];
    return seen->at_ns != 0 && seen->hash == hash && elapsed_ns(seen->at_ns, now_ns) < SEEN_LIFE_NS;
}

void gate_remember(struct gate *gate, const uint8_t *bytes, size_t size, uint64_t now_ns) {
    uint64_t hash = hash_of(gate, bytes, size);
    gate->seen[hash % SEEN_COUNT] = (struct seen){hash, now_ns};
}

/* ---- the steps ---- */

static bool is_well_formed(const struct gate *gate, const uint8_t *bytes, size_t size) {
    return size >= INITIATION_FIXED + PARAMETERS_STEP &&
           size <= INITIATION_FIXED + PARAMETERS_MAX &&
           (size - INITIATION_FIXED) % PARAMETERS_STEP == 0 && bytes[1] < 32 &&
           (gate->keys.versions >> bytes[1] & 1) != 0 && bytes[2] == 0 && bytes[3] == 0;
}

static bool is_for(const uint8_t mac1_key[32], const uint8_t *bytes, size_t size) {
    size_t covered = size - 2 * MAC_SIZE;
    return is_mac(mac1_key, 32, bytes, covered, bytes + covered);
}

static bool is_for_previous(const struct gate *gate, const uint8_t *bytes, size_t size) {
    return gate->keys.has_previous_key != 0 && is_for(gate->keys.previous_mac1_key, bytes, size);
}

static bool has_cookie(const struct gate *gate, const uint8_t place[PLACE_SIZE],
                       const uint8_t *bytes, size_t size) {
    static const uint8_t none[MAC_SIZE];
    const uint8_t *mac2 = bytes + size - MAC_SIZE;
    if (memcmp(mac2, none, MAC_SIZE) == 0) {
        return false;
    }
    const uint8_t *const secrets[] = {gate->keys.secret, gate->keys.previous_secret};
    for (uint32_t i = 0; i < gate->keys.secret_count; i++) {
        uint8_t cookie[MAC_SIZE];
        keyed(cookie, sizeof(cookie), "vpnd1.ck", secrets[i], SECRET_SIZE, place, PLACE_SIZE);
        if (is_mac(cookie, sizeof(cookie), bytes, size - MAC_SIZE, mac2)) {
            return true;
        }
    }
    return false;
}

static bool take_random(struct gate *gate, uint8_t *out, size_t size) {
    if (gate->random_left < size) {
        if (getrandom(gate->random, RANDOM_SIZE, 0) != (ssize_t)RANDOM_SIZE) {
            return false;
        }
        gate->random_left = RANDOM_SIZE;
    }
    gate->random_left -= size;
    memcpy(out, gate->random + gate->random_left, size);
    return true;
}

bool gate_make_cookie(struct gate *gate, const struct wire_endpoint *from, const uint8_t *bytes,
                      size_t size, uint8_t out[GATE_COOKIE_SIZE]) {
    uint8_t place[PLACE_SIZE];
    uint8_t cookie[MAC_SIZE];
    uint8_t key[crypto_secretbox_KEYBYTES];
    memset(out, 0, COOKIE_NONCE);
    out[0] = COOKIE_TYPE;
    out[1] = bytes[1];
    memcpy(out + 4, bytes + SENDER_AT, 4);
    if (!take_random(gate, out + COOKIE_NONCE, crypto_secretbox_NONCEBYTES)) {
        return false;
    }
    place_of(from, place);
    keyed(cookie, sizeof(cookie), "vpnd1.ck", gate->keys.secret, SECRET_SIZE, place, PLACE_SIZE);
    const uint8_t *cookie_key =
        is_for_previous(gate, bytes, size) ? gate->keys.previous_cookie_key : gate->keys.cookie_key;
    keyed(key, sizeof(key), "vpnd1.ckbox", cookie_key, sizeof(gate->keys.cookie_key),
          bytes + size - 2 * MAC_SIZE, MAC_SIZE);
    (void)crypto_secretbox_easy(out + COOKIE_BOX, cookie, sizeof(cookie), out + COOKIE_NONCE, key);
    return true;
}

uint32_t gate_source(const struct gate *gate, const struct wire_endpoint *from) {
    uint64_t source = from->family == 4 ? load_le32(from->address) : load_le64(from->address);
    uint64_t hash = (source ^ gate->seed) * UINT64_C(0x9e3779b97f4a7c15);
    hash = (hash ^ (hash >> 29) ^ from->family) * UINT64_C(0xbf58476d1ce4e5b9);
    return (uint32_t)(hash >> 40) % GATE_SOURCES;
}

/* Takes one from a token bucket, which is no more than the moment when it will be full again. */
static bool take(uint64_t *full_at_ns, uint64_t cost_ns, uint64_t depth_ns, uint64_t now_ns) {
    uint64_t level = *full_at_ns > now_ns ? *full_at_ns : now_ns;
    if (level + cost_ns - now_ns > depth_ns) {
        return false;
    }
    *full_at_ns = level + cost_ns;
    return true;
}

bool gate_may_ask(struct gate *gate, const struct wire_endpoint *from, uint64_t now_ns) {
    uint8_t place[PLACE_SIZE];
    place_of(from, place);
    uint64_t tag =
        mix(mix(mix(gate->seed, load_le64(place)), load_le64(place + 8)), load_le16(place + 16));
    struct asked *asked = &gate->asked[tag % ASKED_COUNT];
    if (asked->tag != tag) {
        *asked = (struct asked){0, tag};
    }
    return take(&asked->full_at_ns, ASKED_COST, ASKED_DEPTH, now_ns) ||
           take(&gate->spare_full_at_ns, SPARE_COST, SPARE_DEPTH, now_ns);
}

enum gate_verdict gate_judge(struct gate *gate, const struct wire_endpoint *from,
                             const uint8_t *bytes, size_t size, uint64_t now_ns) {
    uint8_t place[PLACE_SIZE];
    if (!is_well_formed(gate, bytes, size)) {
        return GATE_MALFORMED;
    }
    if (!is_for(gate->keys.mac1_key, bytes, size) && !is_for_previous(gate, bytes, size)) {
        return GATE_MAC1;
    }
    place_of(from, place);
    if (!has_cookie(gate, place, bytes, size)) {
        return GATE_COOKIE;
    }
    uint64_t *full_at_ns = &gate->full_at_ns[gate_source(gate, from)];
    return take(full_at_ns, SOURCE_COST, SOURCE_DEPTH, now_ns) ? GATE_PASS : GATE_RATE;
}
