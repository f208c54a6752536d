/* The gate: whatever comes is judged, a passage needs a right mac1 and mac2, and an answer is
 * never longer than the question. The message begins as an initiation and has MACs that are
 * right as often as the first byte says so. */
#include "gate.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define MAC_SIZE 16u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool kept) {
    if (!kept) {
        abort();
    }
}

static void hash(uint8_t out[MAC_SIZE], const char *label, const uint8_t *key, size_t key_size,
                 const uint8_t *bytes, size_t size) {
    uint8_t person[16] = {0};
    memcpy(person, label, strlen(label));
    require(crypto_generichash_blake2b_salt_personal(out, MAC_SIZE, bytes, size, key, key_size,
                                                     NULL, person) == 0);
}

/* Makes the MACs of the message right, those that `wish` asks for. */
static void forge(const struct set_gate_request *keys, const struct wire_endpoint *from,
                  uint8_t *message, size_t size, uint8_t wish) {
    if (size < 2 * MAC_SIZE) {
        return;
    }
    uint8_t *macs = message + size - 2 * MAC_SIZE;
    if ((wish & 1) != 0) {
        const uint8_t *key = (wish & 8) != 0 ? keys->previous_mac1_key : keys->mac1_key;
        hash(macs, "vpnd1.mac", key, sizeof(keys->mac1_key), message, size - 2 * MAC_SIZE);
    }
    if ((wish & 2) != 0) {
        uint8_t place[18] = {0};
        uint8_t cookie[MAC_SIZE];
        place[10] = place[11] = 0xff;
        memcpy(place + 12, from->address, 4);
        place[16] = (uint8_t)(from->port >> 8);
        place[17] = (uint8_t)from->port;
        hash(cookie, "vpnd1.ck", keys->secret, sizeof(keys->secret), place, sizeof(place));
        hash(macs + MAC_SIZE, "vpnd1.mac", cookie, sizeof(cookie), message, size - MAC_SIZE);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct gate *gate;
    struct set_gate_request keys = {.secret_count = 1, .versions = 2, .has_previous_key = 1};
    struct wire_endpoint from = {.family = 4, .port = 5180, .address = {192, 0, 2, 7}};
    static uint64_t now_ns = 1;
    if (gate == NULL) {
        gate = gate_new();
        require(gate != NULL);
    }
    memset(keys.mac1_key, 1, sizeof(keys.mac1_key));
    memset(keys.secret, 2, sizeof(keys.secret));
    memset(keys.previous_mac1_key, 3, sizeof(keys.previous_mac1_key));
    gate_set(gate, &keys);
    if (size < 2) {
        return 0;
    }
    /* Most inputs have a length that the protocol knows. */
    size_t wanted = data[1] % 4 != 0 ? 200 + 64 * (size_t)(data[1] % 8) : size - 1;
    uint8_t *message = calloc(1, wanted + 1);
    require(message != NULL);
    memcpy(message, data + 1, size - 1 < wanted ? size - 1 : wanted);
    if (wanted > 4 && (data[0] & 4) == 0) {
        memcpy(message, (const uint8_t[]){0x08, 1, 0, 0}, 4);
    }
    forge(&keys, &from, message, wanted, data[0]);
    uint8_t *exact = malloc(wanted);
    require(exact != NULL || wanted == 0);
    memcpy(exact, message, wanted);
    uint8_t cookie[GATE_COOKIE_SIZE] = {0};
    now_ns += UINT64_C(1000000000);
    gate_note_depth(gate, data[1], now_ns);
    (void)gate_has_seen(gate, exact, wanted, now_ns);
    enum gate_verdict verdict = gate_judge(gate, &from, exact, wanted, now_ns);
    if (verdict == GATE_PASS) {
        gate_remember(gate, exact, wanted, now_ns);
        require(gate_has_seen(gate, exact, wanted, now_ns));
        require((data[0] & 3) == 3);
    }
    if (verdict == GATE_COOKIE) {
        require(gate_make_cookie(gate, &from, exact, wanted, cookie));
        unsigned answered = 0;
        for (unsigned i = 0; i < 110; i++) {
            answered += gate_may_ask(gate, &from, now_ns);
        }
        require(answered >= 101 && answered <= 103);
        require((data[0] & 1) != 0 && wanted > sizeof(cookie) && cookie[0] == 0x0a);
    }
    require(memcmp(exact, message, wanted) == 0);
    free(exact);
    free(message);
    return 0;
}
