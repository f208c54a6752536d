/* Initiations at a closed gate: whatever comes is judged without a step beyond its end, also behind
 * a right mac1, and only a cookie's own form leaves. The input is exactly as long as its buffer, so
 * that a step beyond it is seen by AddressSanitizer. */
#include "gate.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define MACS_SIZE 32u /* mac1 and mac2, the last fields */
#define MAC_SIZE  16u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t mac1_key[32] = {1};

static struct gate *closed_gate(void) {
    struct set_gate_request keys = {.secret_count = 2, .versions = 1u << 1};
    struct gate *gate = gate_new();
    if (gate == NULL) {
        abort();
    }
    memcpy(keys.mac1_key, mac1_key, sizeof(mac1_key));
    gate_set(gate, &keys);
    return gate;
}

static void make_mac1(uint8_t *bytes, size_t size) {
    static const uint8_t person[16] = "vpnd1.mac";
    uint8_t *mac1 = bytes + size - MACS_SIZE;
    (void)crypto_generichash_blake2b_salt_personal(mac1, MAC_SIZE, bytes, size - MACS_SIZE,
                                                   mac1_key, sizeof(mac1_key), NULL, person);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct gate *gate;
    static uint64_t now_ns;
    const struct wire_endpoint from = {.family = 4, .port = 5180, .address = {192, 0, 2, 1}};
    uint8_t cookie[GATE_COOKIE_SIZE] = {0};
    if (gate == NULL) {
        gate = closed_gate();
    }
    if (size < 2) {
        return 0; /* what is shorter never reaches the gate */
    }
    bool has_mac1 = (data[0] & 1) != 0;
    data++;
    size--;
    uint8_t *bytes = malloc(size);
    if (bytes == NULL) {
        abort();
    }
    memcpy(bytes, data, size);
    if (has_mac1 && size > MACS_SIZE) {
        make_mac1(bytes, size);
    }
    enum gate_verdict verdict = gate_judge(gate, &from, bytes, size, ++now_ns, cookie);
    if ((verdict == GATE_COOKIE) != (cookie[0] == 0x0a) || (!has_mac1 && verdict == GATE_PASS)) {
        abort();
    }
    free(bytes);
    return 0;
}
