/* The shipped back end made to use ChaCha20-Poly1305 for every session, in place of aead.c: what
 * two machines of this speed would reach had one of them no AES instructions. Both ends of the
 * measured tunnel run it, so the suite that they agreed on by name does not matter. */
#include "aead.h"

#include <stddef.h>

#ifdef VPND_HAVE_IPSEC_MB
#define SHIPPED aead_ipsec_mb
#else
#define SHIPPED aead_openssl
#endif

static int key_new(struct aead_key **out, uint8_t suite, const uint8_t key[AEAD_KEY_SIZE]) {
    (void)suite;
    return SHIPPED.key_new(out, AEAD_CHACHA20_POLY1305, key);
}

static struct aead_backend chacha20; /* filled in before any thread begins */

const struct aead_backend *aead_choose(const char *wanted) {
    (void)wanted;
    if (!SHIPPED.offers(AEAD_CHACHA20_POLY1305)) {
        return NULL;
    }
    chacha20 = SHIPPED;
    chacha20.name = "ChaCha20-Poly1305 alone";
    chacha20.key_new = key_new;
    return &chacha20;
}

bool aead_cpu_has_aes(void) {
    return true; /* else the shipped back end would not work; whether it does, it finds out itself
                  */
}
