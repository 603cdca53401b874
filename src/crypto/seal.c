/* Sealing. State: the fetched algorithms, process-wide; one set of contexts a thread, freed when
 * the thread ends (a key's destructor, also for threads that are not ours). Keys are only read. */
#include "crypto/seal.h"

#include "codec/text.h"
#include "crypto/digest.h"

#include <ctype.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>

enum {
    VERSION = 1,
    KEY_BYTES = ML_SEAL_KEY_BYTES,
    ID_BYTES = 4,
    EXPIRY_AT = 1 + ID_BYTES,
    NONCE_AT = EXPIRY_AT + 8,
    NONCE_BYTES = 12,
    HEAD_BYTES = NONCE_AT + NONCE_BYTES,
    TAG_BYTES = 16,
    TEXT_MIN = 32,    /* characters of a key that is no encoding of 32 bytes */
    DISTINCT_MIN = 8, /* different bytes in a key: "aaaa..." is none */
    LABEL_MAX = 64,   /* bytes of a purpose */
};
_Static_assert(HEAD_BYTES + TAG_BYTES == ML_SEAL_OVERHEAD, "the layout that seal.h describes");

struct key {
    uint8_t prk[KEY_BYTES]; /* what HKDF-Extract made of the key */
    uint8_t id[ID_BYTES];
};

struct ml_seal_keys {
    size_t n;
    struct key keys[ML_SEAL_KEYS_MAX];
};

struct contexts {
    EVP_MAC_CTX *mac;
    EVP_CIPHER_CTX *cipher;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key_of_contexts;
static bool ready;
static EVP_MAC *hmac;
static EVP_CIPHER *aes;
static _Thread_local struct contexts *contexts;

static void free_contexts(void *p)
{
    struct contexts *c = p;
    EVP_MAC_CTX_free(c->mac);
    EVP_CIPHER_CTX_free(c->cipher);
    free(c);
    contexts = NULL;
}

static void init(void)
{
    hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    aes = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    ready = hmac && aes && pthread_key_create(&key_of_contexts, free_contexts) == 0;
}

/* This thread's contexts. NULL when OpenSSL or memory fails. */
static struct contexts *get_contexts(void)
{
    char digest[] = "SHA256";
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    pthread_once(&once, init);
    if (contexts || !ready)
        return contexts;
    struct contexts *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->mac = EVP_MAC_CTX_new(hmac);
    c->cipher = EVP_CIPHER_CTX_new();
    if (c->mac && c->cipher && EVP_MAC_CTX_set_params(c->mac, params) == 1 &&
        pthread_setspecific(key_of_contexts, c) == 0)
        contexts = c;
    else
        free_contexts(c);
    return contexts;
}

/* HMAC-SHA256 of one text and, when it is not 0, one byte after it. */
static bool mac(struct ml_str key, struct ml_str text, uint8_t last, uint8_t out[KEY_BYTES])
{
    struct contexts *c = get_contexts();
    size_t n = 0;
    return c && EVP_MAC_init(c->mac, (const uint8_t *)key.p, key.n, NULL) == 1 &&
           EVP_MAC_update(c->mac, (const uint8_t *)text.p, text.n) == 1 &&
           EVP_MAC_update(c->mac, &last, last ? 1 : 0) == 1 &&
           EVP_MAC_final(c->mac, out, &n, KEY_BYTES) == 1 && n == KEY_BYTES;
}

/* RFC 5869 section 2.2: PRK = HMAC(salt, key). */
static bool extract(struct ml_str key, uint8_t prk[KEY_BYTES])
{
    return mac(ML_STR("moonlatch seal 1"), key, 0, prk);
}

/* RFC 5869 section 2.3, one block: OKM = HMAC(PRK, info 01). info is a class and a label, so that
 * no purpose is the key's id. */
static bool expand(const struct key *k, char class, struct ml_str label, uint8_t okm[KEY_BYTES])
{
    char info[1 + LABEL_MAX];
    if (label.n > LABEL_MAX)
        return false;
    info[0] = class;
    if (label.n)
        memcpy(info + 1, label.p, label.n);
    return mac(ml_str((const char *)k->prk, KEY_BYTES), ml_str(info, 1 + label.n), 1, okm);
}

static struct ml_str trim(struct ml_str s)
{
    while (s.n && isspace((unsigned char)s.p[0]))
        s = ml_str(s.p + 1, s.n - 1);
    while (s.n && isspace((unsigned char)s.p[s.n - 1]))
        s.n--;
    return s;
}

static bool hex_decode(struct ml_str in, struct ml_buf *out)
{
    for (size_t i = 0; i + 1 < in.n; i += 2) {
        int byte = ml_url_hex(in.p + i, 2);
        char c = (char)byte;
        if (byte < 0 || !ml_buf_add(out, &c, 1))
            return false;
    }
    return in.n % 2 == 0;
}

/* What one item of the list stands for, into bytes: 32 bytes, or the text itself. */
static void decode_key(struct ml_str item, struct ml_buf *bytes)
{
    bool (*const forms[])(struct ml_str, struct ml_buf *) = {hex_decode, ml_base64_decode,
                                                             ml_base64url_decode};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        ml_buf_clear(bytes);
        if (forms[i](item, bytes) && bytes->n == KEY_BYTES)
            return;
    }
    ml_buf_clear(bytes);
    ml_buf_add_str(bytes, item);
}

static unsigned count_distinct(struct ml_str s)
{
    bool seen[256] = {false};
    unsigned n = 0;
    for (size_t i = 0; i < s.n; i++) {
        n += !seen[(uint8_t)s.p[i]];
        seen[(uint8_t)s.p[i]] = true;
    }
    return n;
}

/* place: in the list, from 1. */
static int add_key(struct ml_seal_keys *keys, struct ml_str item, struct ml_buf *bytes,
                   struct ml_err *err)
{
    struct key *k = &keys->keys[keys->n];
    size_t place = keys->n + 1;
    uint8_t id[KEY_BYTES];
    decode_key(item, bytes);
    struct ml_str key = ml_buf_str(bytes);
    if (!item.n)
        return ml_fail(err, ML_E_INVALID, "key %zu is empty", place);
    if (key.n < TEXT_MIN)
        return ml_fail(err, ML_E_INVALID,
                       "key %zu has %zu characters; it must be 32 bytes as hex or base64, or a "
                       "text of at least %d characters",
                       place, item.n, TEXT_MIN);
    if (count_distinct(key) < DISTINCT_MIN)
        return ml_fail(err, ML_E_INVALID, "key %zu repeats a few characters only", place);
    if (!extract(key, k->prk) || !expand(k, 'i', ML_STR(""), id))
        return ml_fail(err, ML_E_NOMEM, "the keys cannot be set up: OpenSSL fails");
    for (size_t i = 0; i < keys->n; i++)
        if (memcmp(keys->keys[i].prk, k->prk, KEY_BYTES) == 0)
            return ml_fail(err, ML_E_INVALID, "key %zu is the same as key %zu", place, i + 1);
    memcpy(k->id, id, ID_BYTES);
    keys->n++;
    return 0;
}

static int add_keys(struct ml_seal_keys *keys, struct ml_str list, struct ml_buf *bytes,
                    struct ml_err *err)
{
    struct ml_str rest = list;
    do {
        struct ml_str item = trim(ml_str_cut(rest, ',', &rest));
        if (keys->n == ML_SEAL_KEYS_MAX)
            return ml_fail(err, ML_E_INVALID, "more than %d keys", ML_SEAL_KEYS_MAX);
        int r = add_key(keys, item, bytes, err);
        if (r != 0)
            return r;
    } while (rest.p);
    return 0;
}

int ml_seal_keys_new(struct ml_seal_keys **ret, struct ml_str list, struct ml_err *err)
{
    struct ml_seal_keys *keys = ML_NEW(struct ml_seal_keys);
    struct ml_buf bytes; /* as large as it will get at once: growing would leave copies of keys */
    ml_buf_init(&bytes, list.n + KEY_BYTES);
    int r = ml_buf_reserve(&bytes, list.n + KEY_BYTES)
                ? add_keys(keys, list, &bytes, err)
                : ml_fail(err, ML_E_NOMEM, "no memory for the keys");
    ml_wipe(bytes.p, bytes.cap);
    ml_buf_done(&bytes);
    if (r == 0)
        *ret = keys;
    else
        ml_seal_keys_free(keys);
    return r;
}

void ml_seal_keys_free(struct ml_seal_keys *k)
{
    if (!k)
        return;
    ml_wipe(k, sizeof *k);
    free(k);
}

bool ml_seal_key_make(char out[ML_SEAL_KEY_TEXT])
{
    char key[KEY_BYTES];
    struct ml_buf text;
    ml_buf_init(&text, 64);
    bool ok = ml_random(key, sizeof key) && ml_base64url_encode(ml_str(key, sizeof key), &text);
    if (ok) {
        memcpy(out, text.p, ML_SEAL_KEY_TEXT - 1);
        out[ML_SEAL_KEY_TEXT - 1] = 0;
    }
    ml_wipe(key, sizeof key);
    ml_wipe(text.p, text.cap);
    ml_buf_done(&text);
    return ok;
}

static void put_expiry(uint8_t *head, int64_t ms)
{
    for (int i = 0; i < 8; i++)
        head[EXPIRY_AT + i] = (uint8_t)((uint64_t)ms >> (56 - 8 * i));
}

static int64_t get_expiry(const uint8_t *head)
{
    uint64_t ms = 0;
    for (int i = 0; i < 8; i++)
        ms = ms << 8 | head[EXPIRY_AT + i];
    return (int64_t)ms;
}

/* The cipher keyed for the purpose and fed with what is authenticated only; NULL when that fails.
 * head has a fixed length, so that head and bound cannot be shifted against each other. */
static EVP_CIPHER_CTX *begin(const struct key *k, bool encrypt, struct ml_str purpose,
                             struct ml_str bound, const uint8_t *head)
{
    struct contexts *c = get_contexts();
    uint8_t okm[KEY_BYTES];
    int n;
    bool ok = c && bound.n <= ML_SEAL_PLAIN_MAX && expand(k, 'p', purpose, okm) &&
              EVP_CipherInit_ex2(c->cipher, aes, okm, head + NONCE_AT, encrypt, NULL) == 1 &&
              EVP_CipherUpdate(c->cipher, NULL, &n, head, HEAD_BYTES) == 1 &&
              (!bound.n ||
               EVP_CipherUpdate(c->cipher, NULL, &n, (const uint8_t *)bound.p, (int)bound.n) == 1);
    ml_wipe(okm, sizeof okm);
    return ok ? c->cipher : NULL;
}

/* The text through the cipher, to out. */
static bool run(EVP_CIPHER_CTX *c, struct ml_str in, uint8_t *out)
{
    int n = 0;
    return !in.n || (EVP_CipherUpdate(c, out, &n, (const uint8_t *)in.p, (int)in.n) == 1 &&
                     (size_t)n == in.n);
}

bool ml_seal(const struct ml_seal_keys *k, struct ml_str purpose, struct ml_str bound,
             int64_t expires_ms, struct ml_str plain, struct ml_buf *out)
{
    uint8_t rest[TAG_BYTES];
    int n = 0;
    if (plain.n > ML_SEAL_PLAIN_MAX || !ml_buf_reserve(out, plain.n + ML_SEAL_OVERHEAD))
        return false;
    uint8_t *head = (uint8_t *)out->p + out->n, *text = head + HEAD_BYTES;
    head[0] = VERSION;
    memcpy(head + 1, k->keys[0].id, ID_BYTES);
    put_expiry(head, expires_ms);
    if (!ml_random(head + NONCE_AT, NONCE_BYTES))
        return false;
    EVP_CIPHER_CTX *c = begin(&k->keys[0], true, purpose, bound, head);
    if (!c || !run(c, plain, text) || EVP_CipherFinal_ex(c, rest, &n) != 1 || n != 0 ||
        EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, text + plain.n) != 1)
        return false;
    out->n += plain.n + ML_SEAL_OVERHEAD;
    return true;
}

static bool open_with(const struct key *k, struct ml_str purpose, struct ml_str bound,
                      struct ml_str sealed, uint8_t *out)
{
    const uint8_t *head = (const uint8_t *)sealed.p;
    struct ml_str text = {sealed.p + HEAD_BYTES, sealed.n - ML_SEAL_OVERHEAD};
    uint8_t tag[TAG_BYTES], rest[TAG_BYTES];
    int n = 0;
    if (memcmp(head + 1, k->id, ID_BYTES) != 0)
        return false;
    memcpy(tag, text.p + text.n, TAG_BYTES);
    EVP_CIPHER_CTX *c = begin(k, false, purpose, bound, head);
    return c && EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, tag) == 1 &&
           run(c, text, out) && EVP_CipherFinal_ex(c, rest, &n) == 1 && n == 0;
}

enum ml_unsealed ml_unseal(const struct ml_seal_keys *k, struct ml_str purpose, struct ml_str bound,
                           int64_t now_ms, struct ml_str sealed, struct ml_buf *out)
{
    if (sealed.n < ML_SEAL_OVERHEAD || sealed.n > ML_SEAL_PLAIN_MAX + ML_SEAL_OVERHEAD ||
        sealed.p[0] != VERSION)
        return ML_UNSEAL_REFUSED;
    size_t n = sealed.n - ML_SEAL_OVERHEAD;
    if (!ml_buf_reserve(out, n ? n : 1))
        return ML_UNSEAL_REFUSED;
    uint8_t *plain = (uint8_t *)out->p + out->n;
    bool ours = false;
    for (size_t i = 0; i < k->n && !ours; i++) /* two keys may have one id */
        ours = open_with(&k->keys[i], purpose, bound, sealed, plain);
    int64_t expires_ms = get_expiry((const uint8_t *)sealed.p);
    bool expired = expires_ms && now_ms >= expires_ms;
    if (!ours || expired) {
        ml_wipe(plain, n);
        return ours ? ML_UNSEAL_EXPIRED : ML_UNSEAL_REFUSED;
    }
    out->n += n;
    return ML_UNSEALED;
}
