/* BLAKE2b by RFC 7693, one call for a whole message. Owns nothing else. */
#include "second.h"

#include <string.h>

struct state {
    uint64_t h[8];
    uint64_t count; /* bytes compressed; a test message never passes 2^64 */
};

static const uint64_t iv[8] = {
    0x6a09e667f3bcc908u, 0xbb67ae8584caa73bu, 0x3c6ef372fe94f82bu, 0xa54ff53a5f1d36f1u,
    0x510e527fade682d1u, 0x9b05688c2b3e6c1fu, 0x1f83d9abfb41bd6bu, 0x5be0cd19137e2179u,
};

static const uint8_t sigma[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

static uint64_t load64(const uint8_t *bytes) {
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | bytes[i];
    return value;
}

static uint64_t rotate_right(uint64_t value, unsigned bits) {
    return value >> bits | value << (64u - bits);
}

static void mix(uint64_t v[16], int a, int b, int c, int d, uint64_t x, uint64_t y) {
    v[a] = v[a] + v[b] + x;
    v[d] = rotate_right(v[d] ^ v[a], 32);
    v[c] = v[c] + v[d];
    v[b] = rotate_right(v[b] ^ v[c], 24);
    v[a] = v[a] + v[b] + y;
    v[d] = rotate_right(v[d] ^ v[a], 16);
    v[c] = v[c] + v[d];
    v[b] = rotate_right(v[b] ^ v[c], 63);
}

static void compress(struct state *state, const uint8_t block[128], size_t fresh, int is_last) {
    uint64_t m[16], v[16];
    state->count += fresh;
    for (int i = 0; i < 16; i++)
        m[i] = load64(block + 8 * i);
    memcpy(v, state->h, sizeof state->h);
    memcpy(v + 8, iv, sizeof iv);
    v[12] ^= state->count;
    if (is_last)
        v[14] = ~v[14];
    for (int round = 0; round < 12; round++) {
        const uint8_t *s = sigma[round % 10];
        mix(v, 0, 4, 8, 12, m[s[0]], m[s[1]]);
        mix(v, 1, 5, 9, 13, m[s[2]], m[s[3]]);
        mix(v, 2, 6, 10, 14, m[s[4]], m[s[5]]);
        mix(v, 3, 7, 11, 15, m[s[6]], m[s[7]]);
        mix(v, 0, 5, 10, 15, m[s[8]], m[s[9]]);
        mix(v, 1, 6, 11, 12, m[s[10]], m[s[11]]);
        mix(v, 2, 7, 8, 13, m[s[12]], m[s[13]]);
        mix(v, 3, 4, 9, 14, m[s[14]], m[s[15]]);
    }
    for (int i = 0; i < 8; i++)
        state->h[i] ^= v[i] ^ v[i + 8];
}

void blake2b(uint8_t *out, size_t out_size, const char *personal, const uint8_t *key,
             size_t key_size, const uint8_t *data, size_t size) {
    uint8_t parameters[64] = {0}, block[128] = {0};
    struct state state = {.count = 0};

    parameters[0] = (uint8_t)out_size;
    parameters[1] = (uint8_t)key_size;
    parameters[2] = 1; /* fanout */
    parameters[3] = 1; /* depth */
    memcpy(parameters + 48, personal, strnlen(personal, 16));
    for (int i = 0; i < 8; i++)
        state.h[i] = iv[i] ^ load64(parameters + 8 * i);

    if (key_size > 0) {
        memcpy(block, key, key_size);
        compress(&state, block, 128, size == 0);
    }
    while (size > 128) {
        compress(&state, data, 128, 0);
        data += 128;
        size -= 128;
    }
    if (size > 0 || key_size == 0) {
        memset(block, 0, sizeof block);
        if (size > 0)
            memcpy(block, data, size);
        compress(&state, block, size, 1);
    }
    for (size_t i = 0; i < out_size; i++)
        out[i] = (uint8_t)(state.h[i / 8] >> 8 * (i % 8));
}
