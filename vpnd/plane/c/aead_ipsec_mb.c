/* libipsec-mb: the fastest AEAD on x86-64, by its direct calls for one message. It has no state
 * per call beyond the key's scratch, and its manager is only read after it was made. */
#include "aead.h"

#include <errno.h>
#include <intel-ipsec-mb.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"

static IMB_MGR *manager; /* made once, never freed, read by all threads */
static pthread_once_t manager_once = PTHREAD_ONCE_INIT;

#define CACHE_LINE 64 /* the library's aligned stores rely on it without declaring it */

struct ipsec_mb_key {
    struct aead_key head;
    union {
        _Alignas(CACHE_LINE) struct gcm_key_data gcm;
        uint8_t chacha[AEAD_KEY_SIZE];
    };
};

/* The state of one message. It holds keystream, and for ChaCha20 the key of the tag: it is wiped
 * when the message is done. */
struct scratch {
    union {
        _Alignas(CACHE_LINE) struct gcm_context_data gcm;
        _Alignas(CACHE_LINE) struct chacha20_poly1305_context_data chacha;
    };
};

/* The direct calls without AES instructions are emulated and slow: not offered there. */
static void make_manager(void) {
    const uint64_t needed = IMB_FEATURE_AESNI | IMB_FEATURE_PCLMULQDQ | IMB_FEATURE_SSE4_2;
    if (!aead_cpu_has_aes()) {
        return;
    }
    IMB_MGR *fresh = alloc_mb_mgr(0);
    if (fresh == NULL) {
        return;
    }
    init_mb_mgr_auto(fresh, NULL);
    uint64_t tested = fresh->features & (IMB_FEATURE_SELF_TEST | IMB_FEATURE_SELF_TEST_PASS);
    if (imb_get_errno(fresh) != 0 || (fresh->features & needed) != needed ||
        tested == IMB_FEATURE_SELF_TEST) {
        free_mb_mgr(fresh);
        return;
    }
    manager = fresh;
}

static bool offers(uint8_t suite) {
    pthread_once(&manager_once, make_manager);
    return manager != NULL && (suite == AEAD_AES_256_GCM || suite == AEAD_CHACHA20_POLY1305);
}

static int key_new(struct aead_key **out, uint8_t suite, const uint8_t key[AEAD_KEY_SIZE]) {
    if (!offers(suite)) {
        return -EINVAL;
    }
    struct ipsec_mb_key *fresh = aligned_alloc(_Alignof(struct ipsec_mb_key), sizeof(*fresh));
    if (fresh == NULL) {
        return -ENOMEM;
    }
    memset(fresh, 0, sizeof(*fresh));
    fresh->head.suite = suite;
    if (suite == AEAD_AES_256_GCM) {
        IMB_AES256_GCM_PRE(manager, key, &fresh->gcm);
    } else {
        memcpy(fresh->chacha, key, AEAD_KEY_SIZE);
    }
    *out = &fresh->head;
    return 0;
}

static void key_free(struct aead_key *key) {
    if (key != NULL) {
        explicit_bzero(key, sizeof(struct ipsec_mb_key));
        free(key);
    }
}

static void seal(struct aead_key *head, const uint8_t nonce[AEAD_NONCE_SIZE], const uint8_t *aad,
                 size_t aad_size, const uint8_t *plain, size_t size, uint8_t *cipher,
                 uint8_t tag[AEAD_TAG_SIZE]) {
    struct ipsec_mb_key *key = (struct ipsec_mb_key *)(void *)head;
    struct scratch scratch;
    if (head->suite == AEAD_AES_256_GCM) {
        IMB_AES256_GCM_ENC(manager, &key->gcm, &scratch.gcm, cipher, plain, size, nonce, aad,
                           aad_size, tag, AEAD_TAG_SIZE);
        explicit_bzero(&scratch.gcm, sizeof(scratch.gcm));
        return;
    }
    IMB_CHACHA20_POLY1305_INIT(manager, key->chacha, &scratch.chacha, nonce, aad, aad_size);
    IMB_CHACHA20_POLY1305_ENC_UPDATE(manager, key->chacha, &scratch.chacha, cipher, plain, size);
    IMB_CHACHA20_POLY1305_ENC_FINALIZE(manager, &scratch.chacha, tag, AEAD_TAG_SIZE);
    explicit_bzero(&scratch.chacha, sizeof(scratch.chacha));
}

/* In whole words without a branch between: its time does not tell where they differ. */
static bool tags_equal(const uint8_t a[AEAD_TAG_SIZE], const uint8_t b[AEAD_TAG_SIZE]) {
    uint64_t low = load_le64(a) ^ load_le64(b);
    uint64_t high = load_le64(a + 8) ^ load_le64(b + 8);
    return (low | high) == 0;
}

static bool open_message(struct aead_key *head, const uint8_t nonce[AEAD_NONCE_SIZE],
                         const uint8_t *aad, size_t aad_size, const uint8_t *cipher, size_t size,
                         uint8_t *plain, const uint8_t tag[AEAD_TAG_SIZE]) {
    struct ipsec_mb_key *key = (struct ipsec_mb_key *)(void *)head;
    struct scratch scratch;
    uint8_t computed[AEAD_TAG_SIZE];
    if (head->suite == AEAD_AES_256_GCM) {
        IMB_AES256_GCM_DEC(manager, &key->gcm, &scratch.gcm, plain, cipher, size, nonce, aad,
                           aad_size, computed, AEAD_TAG_SIZE);
    } else {
        IMB_CHACHA20_POLY1305_INIT(manager, key->chacha, &scratch.chacha, nonce, aad, aad_size);
        IMB_CHACHA20_POLY1305_DEC_UPDATE(manager, key->chacha, &scratch.chacha, plain, cipher,
                                         size);
        IMB_CHACHA20_POLY1305_DEC_FINALIZE(manager, &scratch.chacha, computed, AEAD_TAG_SIZE);
    }
    bool authentic = tags_equal(computed, tag);
    if (!authentic) {
        memset(plain, 0, size);
    }
    explicit_bzero(&scratch, sizeof(scratch));
    explicit_bzero(computed, sizeof(computed));
    return authentic;
}

const struct aead_backend aead_ipsec_mb = {
    .name = "ipsec-mb",
    .offers = offers,
    .key_new = key_new,
    .key_free = key_free,
    .seal = seal,
    .open = open_message,
};
