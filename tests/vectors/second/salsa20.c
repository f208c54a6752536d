/* The Salsa20 core and what NaCl makes of it: HSalsa20 and XSalsa20. Owns nothing else. */
#include "second.h"

#include <string.h>

static uint32_t load32(const uint8_t *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

static void store32(uint8_t *bytes, uint32_t value) {
    for (int i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(value >> 8 * i);
}

static uint32_t rotate_left(uint32_t value, unsigned bits) {
    return value << bits | value >> (32u - bits);
}

static void quarter(uint32_t x[16], int a, int b, int c, int d) {
    x[b] ^= rotate_left(x[a] + x[d], 7);
    x[c] ^= rotate_left(x[b] + x[a], 9);
    x[d] ^= rotate_left(x[c] + x[b], 13);
    x[a] ^= rotate_left(x[d] + x[c], 18);
}

/* The input matrix: the constant on the diagonal, key and 16 bytes of input between. */
static void fill(uint32_t x[16], const uint8_t key[32], const uint8_t input[16]) {
    static const uint8_t constant[16] = {'e', 'x', 'p', 'a', 'n', 'd', ' ', '3',
                                         '2', '-', 'b', 'y', 't', 'e', ' ', 'k'};
    for (int i = 0; i < 4; i++) {
        x[5 * i] = load32(constant + 4 * i);
        x[1 + i] = load32(key + 4 * i);
        x[11 + i] = load32(key + 16 + 4 * i);
        x[6 + i] = load32(input + 4 * i);
    }
}

static void twenty_rounds(uint32_t x[16]) {
    for (int i = 0; i < 10; i++) {
        quarter(x, 0, 4, 8, 12);
        quarter(x, 5, 9, 13, 1);
        quarter(x, 10, 14, 2, 6);
        quarter(x, 15, 3, 7, 11);
        quarter(x, 0, 1, 2, 3);
        quarter(x, 5, 6, 7, 4);
        quarter(x, 10, 11, 8, 9);
        quarter(x, 15, 12, 13, 14);
    }
}

void hsalsa20(uint8_t out[32], const uint8_t key[32], const uint8_t input[16]) {
    uint32_t x[16];
    fill(x, key, input);
    twenty_rounds(x);
    for (int i = 0; i < 4; i++) {
        store32(out + 4 * i, x[5 * i]);
        store32(out + 16 + 4 * i, x[6 + i]);
    }
}

void xsalsa20_xor(uint8_t *out, const uint8_t *in, size_t size, const uint8_t nonce[24],
                  const uint8_t key[32]) {
    uint8_t subkey[32], input[16] = {0}, stream[64];
    hsalsa20(subkey, key, nonce);
    memcpy(input, nonce + 16, 8);
    for (size_t at = 0; at < size; at++) {
        if (at % 64 == 0) {
            uint32_t x[16], start[16];
            uint64_t block = at / 64;
            for (int i = 0; i < 8; i++)
                input[8 + i] = (uint8_t)(block >> 8 * i);
            fill(start, subkey, input);
            memcpy(x, start, sizeof x);
            twenty_rounds(x);
            for (int i = 0; i < 16; i++)
                store32(stream + 4 * i, x[i] + start[i]);
        }
        out[at] = in[at] ^ stream[at % 64];
    }
}
