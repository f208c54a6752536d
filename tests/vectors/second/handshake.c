/* A second implementation of the vpnd/1 handshake and data message, for test vectors only.
 *
 * Shares no code and no library with the first one: Salsa20 and BLAKE2b stand beside this
 * file, X25519, Poly1305 and the two transport AEADs come from OpenSSL's libcrypto.
 *
 * Reads lines "name value" from standard input (hexadecimal; the two indices decimal) and
 * prints lines of the same form. Both sides of every Diffie-Hellman step are computed and
 * must agree. Exit status 1 and a line on standard error when anything does not.
 */
#include "second.h"

#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bytes {
    size_t size;
    uint8_t at[2048];
};

struct inputs {
    struct bytes s_i, s_r, e_i, e_r, psk, knock, p1, p2, cookie_secret, cookie_nonce, source, data;
    struct bytes urandom, monotonic_ns;
    unsigned long idx_i, idx_r;
};

_Noreturn static void die(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

/* ---- bytes ---- */

static void add(struct bytes *to, const void *data, size_t size) {
    if (size > sizeof to->at - to->size)
        die("a message outgrew its buffer");
    memcpy(to->at + to->size, data, size);
    to->size += size;
}

static void add_number(struct bytes *to, uint64_t value, unsigned size) {
    for (unsigned i = 0; i < size; i++)
        add(to, &(uint8_t){(uint8_t)(value >> 8 * i)}, 1);
}

static void print(const char *name, const uint8_t *data, size_t size) {
    printf("%s ", name);
    for (size_t i = 0; i < size; i++)
        printf("%02x", data[i]);
    printf("\n");
}

/* ---- primitives ---- */

static void public_of(uint8_t out[32], const uint8_t private[32]) {
    size_t size = 32;
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, private, 32);
    if (key == NULL || EVP_PKEY_get_raw_public_key(key, out, &size) != 1)
        die("no public key");
    EVP_PKEY_free(key);
}

/* crypto_box_beforenm: HSalsa20 with a zero input over X25519. */
static void box_key(uint8_t out[32], const uint8_t private[32], const uint8_t public[32]) {
    static const uint8_t zero[16];
    uint8_t shared[32];
    size_t size = sizeof shared;
    EVP_PKEY *ours = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, private, 32);
    EVP_PKEY *theirs = EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, public, 32);
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new(ours, NULL);
    if (ours == NULL || theirs == NULL || context == NULL || EVP_PKEY_derive_init(context) != 1 ||
        EVP_PKEY_derive_set_peer(context, theirs) != 1 ||
        EVP_PKEY_derive(context, shared, &size) != 1)
        die("X25519 refused the point");
    hsalsa20(out, shared, zero);
    EVP_PKEY_CTX_free(context);
    EVP_PKEY_free(theirs);
    EVP_PKEY_free(ours);
}

static void poly1305(uint8_t tag[16], const uint8_t key[32], const uint8_t *data, size_t size) {
    size_t tag_size = 16;
    if (EVP_Q_mac(NULL, "POLY1305", NULL, NULL, NULL, key, 32, data, size, tag, 16, &tag_size) ==
        NULL)
        die("Poly1305 failed");
}

/* NaCl's secretbox: the stream's first 32 bytes key the tag, which stands before the ciphertext. */
static void secretbox(struct bytes *to, const uint8_t key[32], const uint8_t nonce[24],
                      const uint8_t *plain, size_t size) {
    uint8_t stream[32 + 1024] = {0};
    if (size > 1024)
        die("a box outgrew its buffer");
    memcpy(stream + 32, plain, size);
    xsalsa20_xor(stream, stream, 32 + size, nonce, key);
    uint8_t tag[16];
    poly1305(tag, stream, stream + 32, size);
    add(to, tag, sizeof tag);
    add(to, stream + 32, size);
}

static void hash(uint8_t *out, size_t out_size, const char *person, const uint8_t *key,
                 size_t key_size, const struct bytes *data) {
    char personal[17];
    snprintf(personal, sizeof personal, "vpnd1.%s", person);
    blake2b(out, out_size, personal, key, key_size, data->at, data->size);
}

/* ---- the state C ---- */

static void absorb(uint8_t c[64], const char *tag, const void *data, size_t size) {
    struct bytes value = {.size = 0};
    uint8_t next[64];
    char person[16];
    snprintf(person, sizeof person, "a.%s", tag);
    add(&value, data, size);
    hash(next, 64, person, c, 64, &value);
    memcpy(c, next, 64);
}

static void derive(uint8_t *out, size_t out_size, const uint8_t c[64], const char *tag,
                   const void *data, size_t size) {
    struct bytes value = {.size = 0};
    char person[16];
    snprintf(person, sizeof person, "k.%s", tag);
    add(&value, data, size);
    hash(out, out_size, person, c, 64, &value);
}

static void seal(struct bytes *to, const uint8_t c[64], const char *tag, const uint8_t *plain,
                 size_t size) {
    uint8_t key[32], nonce[25] = {0};
    derive(key, 32, c, tag, "", 0);
    snprintf((char *)nonce, sizeof nonce, "vpnd1.n.%s", tag);
    secretbox(to, key, nonce, plain, size);
}

static void absorb_box_key(uint8_t c[64], const char *tag, const uint8_t x[32],
                           const uint8_t x_pub[32], const uint8_t y[32], const uint8_t y_pub[32]) {
    uint8_t one[32], other[32];
    box_key(one, x, y_pub);
    box_key(other, y, x_pub);
    if (memcmp(one, other, 32) != 0)
        die("the two sides of a Diffie-Hellman step differ");
    absorb(c, tag, one, 32);
}

static void mac(uint8_t out[16], const uint8_t *key, size_t key_size, const struct bytes *data) {
    hash(out, 16, "mac", key, key_size, data);
}

static void addressing_key(uint8_t out[32], const char *person, const uint8_t s_pub[32],
                           const struct bytes *knock) {
    struct bytes value = {.size = 0};
    add(&value, s_pub, 32);
    add(&value, knock->at, 32);
    hash(out, 32, person, NULL, 0, &value);
}

/* ---- messages ---- */

static void print_data(const char *name, int suite, const uint8_t key[36], uint64_t counter,
                       uint32_t receiver, const struct bytes *plain) {
    struct bytes message = {.size = 0};
    uint8_t nonce[12], cipher[1024], tag[16];
    int size = 0, rest = 0;

    add_number(&message, 0x0c, 4);
    add_number(&message, receiver, 4);
    add_number(&message, counter, 8);
    memcpy(nonce, key + 32, 4);
    memcpy(nonce + 4, message.at + 8, 8);
    if (plain->size > sizeof cipher)
        die("the data is too long");
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    const EVP_CIPHER *kind = suite == 1 ? EVP_aes_256_gcm() : EVP_chacha20_poly1305();
    if (context == NULL || EVP_EncryptInit_ex(context, kind, NULL, key, nonce) != 1 ||
        EVP_EncryptUpdate(context, NULL, &size, message.at, 16) != 1 ||
        EVP_EncryptUpdate(context, cipher, &size, plain->at, (int)plain->size) != 1 ||
        EVP_EncryptFinal_ex(context, cipher + size, &rest) != 1 ||
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, tag) != 1)
        die("sealing failed");
    EVP_CIPHER_CTX_free(context);
    add(&message, cipher, plain->size);
    add(&message, tag, 16);
    print(name, message.at, message.size);
}

static void print_cookie(const struct inputs *in, const uint8_t s_r_pub[32], struct bytes *msg1) {
    uint8_t cookie[16], cookie_key[32], key[32], mac2[16];
    struct bytes reply = {.size = 0}, mac1 = {.size = 0}, before = {.size = 0};

    hash(cookie, 16, "ck", in->cookie_secret.at, in->cookie_secret.size, &in->source);
    print("cookie", cookie, 16);
    addressing_key(cookie_key, "cookie", s_r_pub, &in->knock);
    add(&mac1, msg1->at + msg1->size - 32, 16);
    hash(key, 32, "ckbox", cookie_key, 32, &mac1);
    add_number(&reply, 0x010a, 4);
    add_number(&reply, in->idx_i, 4);
    add(&reply, in->cookie_nonce.at, 24);
    secretbox(&reply, key, in->cookie_nonce.at, cookie, 16);
    print("cookie_reply", reply.at, reply.size);

    add(&before, msg1->at, msg1->size - 16);
    mac(mac2, cookie, 16, &before);
    memcpy(msg1->at + msg1->size - 16, mac2, 16);
    print("msg1_with_mac2", msg1->at, msg1->size);
}

static void print_transport(const struct inputs *in, const uint8_t c[64]) {
    static const char *const names[2][4] = {
        {"suite1_i2r", "suite1_r2i", "data_suite1_ctr0", "data_suite1_ctr1"},
        {"suite2_i2r", "suite2_r2i", "data_suite2_ctr0", "data_suite2_ctr1"},
    };
    const struct bytes empty = {.size = 0};
    for (int suite = 1; suite <= 2; suite++) {
        uint8_t version_suite[2] = {1, (uint8_t)suite}, i2r[36], r2i[36];
        const char *const *name = names[suite - 1];
        derive(i2r, 36, c, "i2r", version_suite, 2);
        derive(r2i, 36, c, "r2i", version_suite, 2);
        print(name[0], i2r, 36);
        print(name[1], r2i, 36);
        print_data(name[2], suite, i2r, 0, (uint32_t)in->idx_r, &empty);
        if (in->data.size > 0)
            print_data(name[3], suite, i2r, 1, (uint32_t)in->idx_r, &in->data);
    }
    uint8_t session_id[8];
    derive(session_id, 8, c, "sid", "", 0);
    print("session_id", session_id, 8);
}

static void first_message(const struct inputs *in, struct bytes *msg1, uint8_t c[64],
                          const uint8_t pub[4][32]) {
    const uint8_t *s_i_pub = pub[0], *s_r_pub = pub[1], *e_i_pub = pub[2];
    uint8_t id[32], mac1_key[32], mac1[16];
    struct bytes identity = {.size = 0};

    absorb(c, "sr", s_r_pub, 32);
    add_number(msg1, 0x0108, 4);
    add_number(msg1, in->idx_i, 4);
    add(msg1, e_i_pub, 32);
    absorb(c, "e1", msg1->at, msg1->size);
    absorb_box_key(c, "es", in->e_i.at, e_i_pub, in->s_r.at, s_r_pub);
    add(&identity, s_i_pub, 32);
    hash(id, 32, "id", NULL, 0, &identity);
    seal(msg1, c, "id", id, 32);
    absorb(c, "s", s_i_pub, 32);
    absorb_box_key(c, "ss", in->s_i.at, s_i_pub, in->s_r.at, s_r_pub);
    absorb(c, "psk1", in->psk.at, 32);
    seal(msg1, c, "p1", in->p1.at, in->p1.size);
    absorb(c, "p1", in->p1.at, in->p1.size);
    addressing_key(mac1_key, "mac1", s_r_pub, &in->knock);
    mac(mac1, mac1_key, 32, msg1);
    add(msg1, mac1, 16);
    add_number(msg1, 0, 8);
    add_number(msg1, 0, 8);
}

static void second_message(const struct inputs *in, struct bytes *msg2, uint8_t c[64],
                           const uint8_t pub[4][32]) {
    const uint8_t *s_i_pub = pub[0], *e_i_pub = pub[2], *e_r_pub = pub[3];
    uint8_t response_key[32], mac_r[16];

    derive(response_key, 32, c, "mr", "", 0);
    add_number(msg2, 0x0109, 4);
    add_number(msg2, in->idx_i, 4);
    add_number(msg2, in->idx_r, 4);
    add(msg2, e_r_pub, 32);
    absorb(c, "e2", msg2->at, msg2->size);
    absorb_box_key(c, "ee", in->e_i.at, e_i_pub, in->e_r.at, e_r_pub);
    absorb_box_key(c, "se", in->s_i.at, s_i_pub, in->e_r.at, e_r_pub);
    absorb(c, "psk2", in->psk.at, 32);
    seal(msg2, c, "p2", in->p2.at, in->p2.size);
    absorb(c, "p2", in->p2.at, in->p2.size);
    mac(mac_r, response_key, 32, msg2);
    add(msg2, mac_r, 16);
}

static void run(const struct inputs *in) {
    static const char protocol[] = "vpnd/1 IKpsk1+2 X25519-HSalsa20 XSalsa20Poly1305 BLAKE2b";
    uint8_t c[64], pub[4][32];
    struct bytes msg1 = {.size = 0}, msg2 = {.size = 0}, name = {.size = 0};

    public_of(pub[0], in->s_i.at);
    public_of(pub[1], in->s_r.at);
    public_of(pub[2], in->e_i.at);
    public_of(pub[3], in->e_r.at);
    add(&name, protocol, sizeof protocol - 1);
    hash(c, 64, "a.init", NULL, 0, &name);
    first_message(in, &msg1, c, pub);
    print("msg1", msg1.at, msg1.size);
    second_message(in, &msg2, c, pub);
    print("msg2", msg2.at, msg2.size);
    print("C_final", c, 64);
    print_transport(in, c);
    if (in->cookie_secret.size > 0)
        print_cookie(in, pub[1], &msg1);
    if (in->urandom.size > 0) {
        struct bytes seed = in->urandom;
        uint8_t ephemeral[32];
        add(&seed, in->monotonic_ns.at, in->monotonic_ns.size);
        hash(ephemeral, 32, "eph", in->s_i.at, 32, &seed);
        print("ephemeral", ephemeral, 32);
    }
}

/* ---- input ---- */

static void parse_hex(struct bytes *to, const char *text) {
    unsigned value;
    for (; sscanf(text, "%2x", &value) == 1; text += 2)
        add(to, &(uint8_t){(uint8_t)value}, 1);
}

int main(void) {
    static struct inputs in;
    static char line[8192];
    const struct {
        const char *name;
        struct bytes *to;
    } fields[] = {
        {"s_i", &in.s_i},
        {"s_r", &in.s_r},
        {"e_i", &in.e_i},
        {"e_r", &in.e_r},
        {"psk", &in.psk},
        {"knock", &in.knock},
        {"P1", &in.p1},
        {"P2", &in.p2},
        {"cookie_secret", &in.cookie_secret},
        {"cookie_nonce", &in.cookie_nonce},
        {"source", &in.source},
        {"data", &in.data},
        {"urandom", &in.urandom},
        {"monotonic_ns", &in.monotonic_ns},
    };
    while (fgets(line, sizeof line, stdin) != NULL) {
        char *value = strchr(line, ' ');
        if (value == NULL)
            die("a line without a value");
        *value++ = '\0';
        value[strcspn(value, "\n")] = '\0';
        if (strcmp(line, "idx_i") == 0)
            in.idx_i = strtoul(value, NULL, 10);
        else if (strcmp(line, "idx_r") == 0)
            in.idx_r = strtoul(value, NULL, 10);
        for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
            if (strcmp(line, fields[i].name) == 0)
                parse_hex(fields[i].to, value);
    }
    run(&in);
    return 0;
}
