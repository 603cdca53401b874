/* JWS: signing with a private key from a PEM, for private_key_jwt (RFC 7523). Any thread. State:
 * each thread keeps the last few keys that it read, since reading one costs more than signing does;
 * a key's destructor drops them, also for threads that are not ours. */
#include "crypto/jws.h"

#include "codec/text.h"
#include "crypto/digest.h"
#include "crypto/jose.h"

#include <openssl/bio.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <pthread.h>
#include <stdlib.h>

enum { SIGNATURE_MAX = 1024, PEM_MAX = 64 << 10 /* bytes */, KEPT = 4 };

struct kept_keys {
    unsigned next; /* the place of the next one */
    struct {
        struct ml_digest pem;
        EVP_PKEY *key; /* NULL: free */
    } list[KEPT];
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key_of_kept;
static bool ready;
static _Thread_local struct kept_keys *kept;

static void free_kept(void *p)
{
    struct kept_keys *k = p;
    for (size_t i = 0; i < KEPT; i++)
        EVP_PKEY_free(k->list[i].key);
    free(k);
    kept = NULL;
}

static void init(void)
{
    ready = pthread_key_create(&key_of_kept, free_kept) == 0;
}

/* This thread's, or NULL: keys can do without being kept. */
static struct kept_keys *get_kept(void)
{
    pthread_once(&once, init);
    if (kept || !ready)
        return kept;
    kept = calloc(1, sizeof *kept);
    if (kept && pthread_setspecific(key_of_kept, kept) != 0)
        free_kept(kept);
    return kept;
}

/* Instead of OpenSSL's, which asks on the terminal. */
static int no_passphrase(char *buf, int size, int writing, void *arg)
{
    return -1;
}

static EVP_PKEY *read_key(struct ml_str pem)
{
    BIO *bio = pem.n && pem.n <= PEM_MAX ? BIO_new_mem_buf(pem.p, (int)pem.n) : NULL;
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
    BIO_free(bio);
    return key;
}

/* A reference of the caller's own, or NULL. */
static EVP_PKEY *find_kept(const struct kept_keys *k, const struct ml_digest *pem)
{
    for (size_t i = 0; i < KEPT; i++)
        if (k->list[i].key && memcmp(&k->list[i].pem, pem, sizeof *pem) == 0)
            return EVP_PKEY_up_ref(k->list[i].key) == 1 ? k->list[i].key : NULL;
    return NULL;
}

static void keep(struct kept_keys *k, const struct ml_digest *pem, EVP_PKEY *key)
{
    if (EVP_PKEY_up_ref(key) != 1)
        return;
    EVP_PKEY_free(k->list[k->next].key);
    k->list[k->next].key = key;
    k->list[k->next].pem = *pem;
    k->next = (k->next + 1) % KEPT;
}

/* The row of the table for key: the one that is asked for or, as RS256 is before the others, the
 * first that fits. */
static const struct ml_jwa *choose(EVP_PKEY *key, struct ml_str alg, struct ml_err *err)
{
    const char *why = "";
    uint32_t mask = ml_jwa_of_key(key, &why);
    if (!mask) {
        ml_fail(err, ML_E_INVALID, "the signing key cannot be used: %s", why);
        return NULL;
    }
    for (size_t i = 0; i < ML_JWA_COUNT; i++)
        if (mask & UINT32_C(1) << i && (!alg.n || ml_str_eq(alg, ml_str_z(ml_jwa_table[i].name))))
            return &ml_jwa_table[i];
    ml_fail(err, ML_E_INVALID, "the signing key is not one for this alg");
    return NULL;
}

static void member(struct ml_json_out *o, const char *name, struct ml_str value)
{
    if (value.n) {
        ml_json_name(o, ml_str_z(name));
        ml_json_text(o, value);
    }
}

/* Appends header "." payload. */
static bool write_input(const struct ml_jws_sign *what, const struct ml_jwa *a, struct ml_buf *out)
{
    struct ml_buf header;
    ml_buf_init(&header, ML_JWS_MAX);
    struct ml_json_out o = {&header, false};
    ml_json_begin(&o, '{');
    member(&o, "alg", ml_str_z(a->name));
    member(&o, "typ", what->typ);
    member(&o, "kid", what->kid);
    ml_json_end(&o, '}');
    bool ok = !header.failed && ml_base64url_encode(ml_buf_str(&header), out) &&
              ml_buf_add(out, ".", 1) && ml_base64url_encode(what->payload, out);
    ml_buf_done(&header);
    return ok;
}

/* RFC 7518 section 3.4: DER to r and s of the curve's length each. 0: OpenSSL failed. */
static size_t raw_of(const uint8_t *der, size_t n, size_t half, uint8_t *out)
{
    ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &der, (long)n);
    bool ok = sig && BN_bn2binpad(ECDSA_SIG_get0_r(sig), out, (int)half) == (int)half &&
              BN_bn2binpad(ECDSA_SIG_get0_s(sig), out + half, (int)half) == (int)half;
    ECDSA_SIG_free(sig);
    return ok ? 2 * half : 0;
}

static bool prepare(EVP_MD_CTX *c, const struct ml_jwa *a, EVP_PKEY *key)
{
    EVP_PKEY_CTX *pkey = NULL; /* c's */
    if (EVP_DigestSignInit_ex(c, &pkey, a->digest, NULL, NULL, key, NULL) != 1)
        return false;
    return a->kind != ML_JWA_PSS ||
           (EVP_PKEY_CTX_set_rsa_padding(pkey, RSA_PKCS1_PSS_PADDING) == 1 &&
            EVP_PKEY_CTX_set_rsa_pss_saltlen(pkey, RSA_PSS_SALTLEN_DIGEST) == 1);
}

/* Bytes of the signature in out; 0: OpenSSL failed. */
static size_t sign(const struct ml_jwa *a, EVP_PKEY *key, struct ml_str input,
                   uint8_t out[SIGNATURE_MAX])
{
    uint8_t made[SIGNATURE_MAX];
    size_t n = sizeof made;
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    bool ok = c && prepare(c, a, key) &&
              EVP_DigestSign(c, made, &n, (const uint8_t *)input.p, input.n) == 1;
    EVP_MD_CTX_free(c);
    if (!ok)
        return 0;
    if (a->half)
        return raw_of(made, n, a->half, out);
    memcpy(out, made, n);
    return n;
}

static int sign_with(EVP_PKEY *key, const struct ml_jws_sign *what, struct ml_buf *out,
                     struct ml_err *err)
{
    uint8_t signature[SIGNATURE_MAX];
    size_t start = out->n;
    const struct ml_jwa *a = choose(key, what->alg, err);
    if (!a)
        return ML_E_INVALID;
    if (!write_input(what, a, out))
        return ml_fail(err, ML_E_TOOBIG, "the token to sign is too long");
    struct ml_str input = {out->p + start, out->n - start};
    size_t n = sign(a, key, input, signature);
    if (!n)
        return ml_fail(err, ML_E_NOMEM, "OpenSSL cannot sign");
    ml_buf_add(out, ".", 1);
    ml_base64url_encode(ml_str((char *)signature, n), out);
    if (out->failed || out->n - start > ML_JWS_MAX)
        return ml_fail(err, ML_E_TOOBIG, "the token to sign is too long");
    return 0;
}

/* Only a key that has signed is kept: short of memory, OpenSSL 3.0 may read half of one. */
int ml_jws_sign(const struct ml_jws_sign *what, struct ml_buf *out, struct ml_err *err)
{
    size_t start = out->n;
    struct ml_digest pem;
    ERR_clear_error();
    struct kept_keys *k = ml_sha256(what->pem, &pem) ? get_kept() : NULL;
    EVP_PKEY *found = k ? find_kept(k, &pem) : NULL, *key = found ? found : read_key(what->pem);
    int e = key ? sign_with(key, what, out, err)
                : ml_fail(err, ML_E_INVALID,
                          "the signing key is no private key in PEM form without a passphrase");
    if (e == 0 && k && !found)
        keep(k, &pem, key);
    EVP_PKEY_free(key);
    ERR_clear_error(); /* what it says of ours is nobody else's error */
    if (e != 0)
        out->n = start;
    return e;
}
