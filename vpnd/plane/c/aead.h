/* Sealing and opening of one message, and which library does it.
 *
 * Owns the choice between the back ends; each of them gives the same bytes for the same
 * suite. Knows no session, counter or packet: nonces and keys come in, and whoever hands
 * the same nonce in twice under one key has broken the cipher.
 */
#ifndef VPND_AEAD_H
#define VPND_AEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum aead_suite { AEAD_AES_256_GCM = 1, AEAD_CHACHA20_POLY1305 = 2 };

#define AEAD_KEY_SIZE   32u
#define AEAD_NONCE_SIZE 12u
#define AEAD_TAG_SIZE   16u

/* One direction of one session, ready for use by any thread at any time. A back end's own struct
 * begins with this one. */
struct aead_key {
    uint8_t suite;
};

struct aead_backend {
    const char *name; /* as shown in status; at most 31 bytes */

    /* May this back end be asked for the suite on this processor? */
    bool (*offers)(uint8_t suite);

    /* 0 and *out, or -EINVAL for a suite not offered, or -ENOMEM. */
    int (*key_new)(struct aead_key **out, uint8_t suite, const uint8_t key[AEAD_KEY_SIZE]);

    /* Wipes the key; NULL is allowed. */
    void (*key_free)(struct aead_key *key);

    /* Writes `size` bytes of ciphertext and the tag. `cipher` is `plain` or does not overlap it. */
    void (*seal)(struct aead_key *key, const uint8_t nonce[AEAD_NONCE_SIZE], const uint8_t *aad,
                 size_t aad_size, const uint8_t *plain, size_t size, uint8_t *cipher,
                 uint8_t tag[AEAD_TAG_SIZE]);

    /* True and the plaintext, or false and `plain` all zero. `plain` is `cipher` or does not
     * overlap it; a refused message opened in place is therefore lost. */
    bool (*open)(struct aead_key *key, const uint8_t nonce[AEAD_NONCE_SIZE], const uint8_t *aad,
                 size_t aad_size, const uint8_t *cipher, size_t size, uint8_t *plain,
                 const uint8_t tag[AEAD_TAG_SIZE]);
};

extern const struct aead_backend aead_openssl;
#ifdef VPND_HAVE_IPSEC_MB
extern const struct aead_backend aead_ipsec_mb;
#endif

/* The back end of that name ("ipsec-mb", "openssl"), or with NULL the fastest that offers
 * every suite here. NULL when there is no such back end or it cannot work on this machine.
 * Call it once before the sandbox and before threads: back ends load their tables then. */
const struct aead_backend *aead_choose(const char *wanted);

/* Does the processor have AES and carry-less multiplication? Decides the suites we propose. */
bool aead_cpu_has_aes(void);

#endif
