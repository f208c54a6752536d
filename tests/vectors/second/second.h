/* What the second implementation of the handshake is made of. See handshake.c. */
#ifndef VPND_TESTS_SECOND_H
#define VPND_TESTS_SECOND_H

#include <stddef.h>
#include <stdint.h>

/* RFC 7693 with the parameter block's 16 bytes of personalization; key_size 0 to 64, out_size 1
 * to 64. */
void blake2b(uint8_t *out, size_t out_size, const char *personal, const uint8_t *key,
             size_t key_size, const uint8_t *data, size_t size);

/* HSalsa20 of "Extending the Salsa20 nonce": 32 bytes from a key and 16 bytes of input. */
void hsalsa20(uint8_t out[32], const uint8_t key[32], const uint8_t input[16]);

/* XORs `size` bytes with the XSalsa20 stream from its first byte on; `out` may be `in`. */
void xsalsa20_xor(uint8_t *out, const uint8_t *in, size_t size, const uint8_t nonce[24],
                  const uint8_t key[32]);

#endif
