/* The AEAD back ends: what one seals, each opens to the same bytes; a changed message none. The
 * buffers are exactly as long as the message. */
#include "aead.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HEAD = 1 + 12 + 32, AAD_SIZE = 16, NAMES = 2 };

static const char *const names[NAMES] = {"openssl", "ipsec-mb"};

static void require(bool kept) {
    if (!kept) {
        abort();
    }
}

static void try_back_end(const struct aead_backend *backend, const uint8_t *head,
                         const uint8_t *plain, size_t size, uint8_t *sealed, uint8_t flip) {
    struct aead_key *key = NULL;
    require(backend->key_new(&key, head[0] % 2 + 1, head + 13) == 0);
    uint8_t *text = malloc(size == 0 ? 1 : size);
    uint8_t tag[AEAD_TAG_SIZE];
    require(text != NULL);
    memcpy(text, plain, size);
    backend->seal(key, head + 1, head + 13, AAD_SIZE, text, size, text, tag);
    if (sealed[0] == 0) {
        sealed[0] = 1;
        memcpy(sealed + 1, text, size);
        memcpy(sealed + 1 + size, tag, sizeof(tag));
    } else {
        require(memcmp(sealed + 1, text, size) == 0);
        require(memcmp(sealed + 1 + size, tag, sizeof(tag)) == 0);
    }
    uint8_t changed[AEAD_TAG_SIZE];
    memcpy(changed, tag, sizeof(tag));
    changed[flip / 8 % AEAD_TAG_SIZE] ^= (uint8_t)(1u << flip % 8);
    uint8_t *opened = malloc(size == 0 ? 1 : size);
    require(opened != NULL);
    require(!backend->open(key, head + 1, head + 13, AAD_SIZE, text, size, opened, changed));
    for (size_t i = 0; i < size; i++) {
        require(opened[i] == 0);
    }
    require(backend->open(key, head + 1, head + 13, AAD_SIZE, text, size, text, tag));
    require(memcmp(text, plain, size) == 0);
    free(opened);
    free(text);
    backend->key_free(key);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < HEAD) {
        return 0;
    }
    size_t text = size - HEAD;
    uint8_t *sealed = calloc(1, 1 + text + AEAD_TAG_SIZE);
    require(sealed != NULL);
    for (unsigned i = 0; i < NAMES; i++) {
        const struct aead_backend *backend = aead_choose(names[i]);
        if (backend != NULL) {
            try_back_end(backend, data, data + HEAD, text, sealed, data[size - 1]);
        }
    }
    require(sealed[0] == 1);
    free(sealed);
    return 0;
}
