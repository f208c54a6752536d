/* OpenSSL's libcrypto: the AEAD for every machine. The algorithms are fetched once, a key is
 * set up once in a context of its own, and a message only brings its nonce. */
#include "aead.h"

#include <errno.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static EVP_CIPHER *aes_256_gcm; /* fetched once, never freed, read by all threads */
static EVP_CIPHER *chacha20_poly1305;
static pthread_once_t fetch_once = PTHREAD_ONCE_INIT;

struct openssl_key {
    struct aead_key head;
    pthread_mutex_t lock; /* guards the context, which holds a message's state */
    EVP_CIPHER_CTX *context;
};

static void fetch(void) {
    /* No configuration file decides about our ciphers, and none is opened behind the sandbox. */
    OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
    aes_256_gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    chacha20_poly1305 = EVP_CIPHER_fetch(NULL, "ChaCha20-Poly1305", NULL);
}

static const EVP_CIPHER *cipher_of(uint8_t suite) {
    pthread_once(&fetch_once, fetch);
    switch (suite) {
    case AEAD_AES_256_GCM:
        return aes_256_gcm;
    case AEAD_CHACHA20_POLY1305:
        return chacha20_poly1305;
    default:
        return NULL;
    }
}

static bool offers(uint8_t suite) {
    return cipher_of(suite) != NULL;
}

static void key_free(struct aead_key *head) {
    if (head != NULL) {
        struct openssl_key *key = (struct openssl_key *)head;
        EVP_CIPHER_CTX_free(key->context); /* wipes what it holds */
        pthread_mutex_destroy(&key->lock);
        free(key);
    }
}

static int key_new(struct aead_key **out, uint8_t suite, const uint8_t key[AEAD_KEY_SIZE]) {
    const EVP_CIPHER *cipher = cipher_of(suite);
    if (cipher == NULL) {
        return -EINVAL;
    }
    struct openssl_key *fresh = calloc(1, sizeof(*fresh));
    if (fresh == NULL) {
        return -ENOMEM;
    }
    fresh->head.suite = suite;
    pthread_mutex_init(&fresh->lock, NULL);
    fresh->context = EVP_CIPHER_CTX_new();
    if (fresh->context == NULL ||
        EVP_EncryptInit_ex2(fresh->context, cipher, key, NULL, NULL) != 1) {
        key_free(&fresh->head);
        return -ENOMEM;
    }
    *out = &fresh->head;
    return 0;
}

/* Feeds associated data (`out` NULL) or text. An empty input would mean "finish" to some modes. */
static bool feed(EVP_CIPHER_CTX *context, uint8_t *out, const uint8_t *in, size_t size) {
    int written;
    return size == 0 ||
           (size <= INT_MAX && EVP_CipherUpdate(context, out, &written, in, (int)size) == 1);
}

static bool finish(EVP_CIPHER_CTX *context) {
    uint8_t rest[EVP_MAX_BLOCK_LENGTH]; /* both suites are stream modes: nothing comes */
    int written;
    return EVP_CipherFinal_ex(context, rest, &written) == 1;
}

static void seal(struct aead_key *head, const uint8_t nonce[AEAD_NONCE_SIZE], const uint8_t *aad,
                 size_t aad_size, const uint8_t *plain, size_t size, uint8_t *cipher,
                 uint8_t tag[AEAD_TAG_SIZE]) {
    struct openssl_key *key = (struct openssl_key *)(void *)head;
    EVP_CIPHER_CTX *context = key->context;
    pthread_mutex_lock(&key->lock);
    if (EVP_EncryptInit_ex2(context, NULL, NULL, nonce, NULL) != 1 ||
        !feed(context, NULL, aad, aad_size) || !feed(context, cipher, plain, size) ||
        !finish(context) ||
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG_SIZE, tag) != 1) {
        abort(); /* going on would send the plaintext that still stands in the buffer */
    }
    pthread_mutex_unlock(&key->lock);
}

static bool open_message(struct aead_key *head, const uint8_t nonce[AEAD_NONCE_SIZE],
                         const uint8_t *aad, size_t aad_size, const uint8_t *cipher, size_t size,
                         uint8_t *plain, const uint8_t tag[AEAD_TAG_SIZE]) {
    struct openssl_key *key = (struct openssl_key *)(void *)head;
    EVP_CIPHER_CTX *context = key->context;
    uint8_t expected[AEAD_TAG_SIZE]; /* the call takes no pointer to const */
    memcpy(expected, tag, sizeof(expected));
    pthread_mutex_lock(&key->lock);
    bool is_authentic =
        EVP_DecryptInit_ex2(context, NULL, NULL, nonce, NULL) == 1 &&
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG_SIZE, expected) == 1 &&
        feed(context, NULL, aad, aad_size) && feed(context, plain, cipher, size) && finish(context);
    pthread_mutex_unlock(&key->lock);
    if (!is_authentic) {
        memset(plain, 0, size);
    }
    return is_authentic;
}

const struct aead_backend aead_openssl = {
    .name = "openssl",
    .offers = offers,
    .key_new = key_new,
    .key_free = key_free,
    .seal = seal,
    .open = open_message,
};
