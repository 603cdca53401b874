/* JWS: taking a compact token apart, and verifying it. No state; any thread. */
#include "crypto/jws.h"

#include "codec/text.h"
#include "crypto/digest.h"
#include "crypto/jose.h"

#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <stdlib.h>

enum { SIGNATURE_MAX = 1024 }; /* bytes: RSA 8192 */

/* ALG to TYP are read; CRIT to B64 change what the token means and are refused when they are there,
 * whatever they say. */
enum { ALG, KID, TYP, CRIT, ENC, ZIP, B64, MEMBERS };

static const char *const names[MEMBERS] = {"alg", "kid", "typ", "crit", "enc", "zip", "b64"};

struct reader {
    unsigned depth;
    struct ml_member *current;
    struct ml_member members[MEMBERS];
    struct ml_jws *jws;
    struct ml_err *err;
    int error; /* filled by on_end */
};

int ml_jws_split(struct ml_str token, struct ml_jws_parts *ret, struct ml_err *err)
{
    size_t dots = 0;
    if (token.n > ML_JWS_MAX)
        return ml_fail(err, ML_E_TOOBIG, "the token is longer than %d bytes", ML_JWS_MAX);
    for (size_t i = 0; i < token.n && dots < 5; i++)
        dots += token.p[i] == '.';
    if (dots == 4)
        return ml_fail(err, ML_E_INVALID, "the token is encrypted (JWE), which is not accepted");
    if (dots != 2)
        return ml_fail(err, ML_E_INVALID, "the token has not three parts");
    struct ml_str rest;
    struct ml_jws_parts p = {.header = ml_str_cut(token, '.', &rest)};
    p.payload = ml_str_cut(rest, '.', &p.signature);
    p.input = ml_str(token.p, p.header.n + 1 + p.payload.n);
    if (!p.header.n || !p.payload.n || !p.signature.n)
        return ml_fail(err, ML_E_INVALID, "the token has an empty part");
    *ret = p;
    return 0;
}

static bool begin(void *ctx, enum ml_json_kind kind, size_t size)
{
    struct reader *r = ctx;
    if (r->depth++ == 0)
        return kind == ML_JSON_OBJECT;
    if (r->depth == 2 && r->current)
        r->current->kind = kind;
    return true;
}

static bool key(void *ctx, struct ml_str name)
{
    struct reader *r = ctx;
    if (r->depth == 1)
        r->current = ml_member_find(r->members, MEMBERS, name);
    return true;
}

static bool scalar(void *ctx, enum ml_json_kind kind, struct ml_str text, long long integer,
                   double real)
{
    struct reader *r = ctx;
    if (r->depth == 1 && r->current) {
        r->current->kind = kind;
        r->current->text = text;
    }
    return r->depth > 0;
}

/* A text of at most `max` bytes into out; absent is fine. */
static int copy(const struct ml_member *m, char *out, size_t max, bool *ret_has, struct ml_str *ret,
                struct ml_err *err)
{
    *ret_has = m->there;
    *ret = ml_str(out, 0);
    if (!m->there)
        return 0;
    if (m->kind != ML_JSON_STRING || m->text.n > max)
        return ml_fail(err, ML_E_INVALID, "the token's %s is no text of at most %zu bytes", m->name,
                       max);
    memcpy(out, m->text.p, m->text.n);
    out[m->text.n] = 0;
    ret->n = m->text.n;
    return 0;
}

/* JWE is refused by its header too: "enc" is there, or alg is one of key management. */
static int judge(struct reader *r)
{
    const struct ml_member *m = r->members;
    struct ml_jws *jws = r->jws;
    for (size_t i = CRIT; i < MEMBERS; i++)
        if (m[i].there)
            return ml_fail(r->err, ML_E_INVALID, "the token's header has %s, which is not accepted",
                           m[i].name);
    if (m[ALG].kind != ML_JSON_STRING)
        return ml_fail(r->err, ML_E_INVALID, "the token's header has no alg");
    if (ml_str_ieq(m[ALG].text, ML_STR("none")))
        return ml_fail(r->err, ML_E_INVALID, "the token is not signed (alg is none)");
    jws->algorithm = ml_jws_algorithm(m[ALG].text);
    if (!jws->algorithm)
        return ml_fail(r->err, ML_E_INVALID, "the token's alg is not known");
    int e = copy(&m[KID], jws->kid_text, ML_JWK_KID_MAX, &jws->has_kid, &jws->kid, r->err);
    return e ? e : copy(&m[TYP], jws->typ_text, ML_JWS_TYP_MAX, &jws->has_typ, &jws->typ, r->err);
}

static bool end(void *ctx, enum ml_json_kind kind)
{
    struct reader *r = ctx;
    if (--r->depth == 0)
        r->error = judge(r);
    return true;
}

static int parse_header(struct ml_str json, struct ml_jws *jws, struct ml_err *err)
{
    static const struct ml_json_events events = {scalar, begin, key, end};
    struct reader r = {.jws = jws, .err = err};
    for (size_t i = 0; i < MEMBERS; i++)
        r.members[i] = (struct ml_member){.name = names[i]};
    int e = ml_json_walk(json, &events, &r, err);
    if (e == ML_E_NOMEM)
        return e;
    if (e != 0)
        return ml_fail(err, ML_E_INVALID, "the token's header is no strict JSON object");
    return r.error;
}

int ml_jws_parse(struct ml_str token, struct ml_jws *ret, struct ml_err *err)
{
    char header[ML_JWS_MAX];
    struct ml_buf b = {.p = header, .cap = sizeof header, .max = sizeof header}; /* never grows */
    int e = ml_jws_split(token, &ret->parts, err);
    if (e != 0)
        return e;
    if (!ml_base64url_decode(ret->parts.header, &b))
        return ml_fail(err, ML_E_INVALID, "the token's header is not base64url");
    return parse_header(ml_buf_str(&b), ret, err);
}

/* RFC 7518 section 3.4: r and s as they are; OpenSSL wants them in DER. 0 bytes: no memory. */
static size_t der_of(struct ml_str raw, uint8_t *out, size_t max)
{
    const uint8_t *p = (const uint8_t *)raw.p;
    int half = (int)raw.n / 2;
    size_t n = 0;
    ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(p, half, NULL), *s = BN_bin2bn(p + half, half, NULL);
    if (sig && r && s && ECDSA_SIG_set0(sig, r, s) == 1) {
        int need = i2d_ECDSA_SIG(sig, NULL);
        if (need > 0 && (size_t)need <= max)
            n = (size_t)i2d_ECDSA_SIG(sig, &out);
    } else {
        BN_free(r);
        BN_free(s);
    }
    ECDSA_SIG_free(sig);
    return n;
}

/* The length that a signature of this key has; others are wrong before any arithmetic. */
static size_t signature_size(const struct ml_jwa *a, const EVP_PKEY *key)
{
    return a->half ? 2 * a->half : (size_t)EVP_PKEY_get_size(key);
}

/* Whether a verification that failed says that the signature is wrong: not when memory was short,
 * which OpenSSL reports as a failure of digests or, of RSA, by no word about RSA at all. */
static bool is_wrong(const struct ml_jwa *a)
{
    bool short_of_memory = false, rsa = false;
#ifdef EVP_R_PROVIDER_SIGNATURE_FAILURE
    /* OpenSSL 3.4 and later say something of each wrong signature, and of some failed allocations
     * nothing. */
    short_of_memory = ERR_peek_error() == 0;
#endif
    for (unsigned long e; (e = ERR_get_error());) {
#ifdef EVP_R_PROVIDER_SIGNATURE_FAILURE /* this where 3.0 is silent */
        if (ERR_GET_LIB(e) == ERR_LIB_EVP && ERR_GET_REASON(e) == EVP_R_PROVIDER_SIGNATURE_FAILURE)
            continue;
#endif
        short_of_memory |=
            ERR_GET_REASON(e) == ERR_R_MALLOC_FAILURE || ERR_GET_LIB(e) == ERR_LIB_EVP;
        rsa |= ERR_GET_LIB(e) == ERR_LIB_RSA;
    }
    return !short_of_memory && (rsa || a->half || a->kind == ML_JWA_EDDSA);
}

/* OpenSSL's result as ours. 0, ML_E_INVALID: wrong, ML_E_NOMEM: cannot be found out. */
static int outcome(const struct ml_jwa *a, int result)
{
    return result == 1 ? 0 : is_wrong(a) ? ML_E_INVALID : ML_E_NOMEM;
}

/* With a copy of what was begun, which stays as it is for other threads. */
static int check_digest(const struct ml_jwa *a, const struct ml_jwk *k, struct ml_str input,
                        struct ml_str signature)
{
    uint8_t digest[ML_DIGEST_MAX];
    size_t n = ml_digest_named(ml_str_z(a->digest), input, digest);
    EVP_PKEY_CTX *c = n ? EVP_PKEY_CTX_dup(k->begun[a - ml_jwa_table]) : NULL;
    int e = ML_E_NOMEM;
    if (c)
        e = outcome(a, EVP_PKEY_verify(c, (const uint8_t *)signature.p, signature.n, digest, n));
    EVP_PKEY_CTX_free(c);
    return e;
}

/* EdDSA has no digest of its own to begin with. */
static int check_text(const struct ml_jwa *a, const struct ml_jwk *k, struct ml_str input,
                      struct ml_str signature)
{
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    int e = ML_E_NOMEM;
    if (c && EVP_DigestVerifyInit_ex(c, NULL, NULL, NULL, NULL, k->key, NULL) == 1)
        e = outcome(a, EVP_DigestVerify(c, (const uint8_t *)signature.p, signature.n,
                                        (const uint8_t *)input.p, input.n));
    EVP_MD_CTX_free(c);
    return e;
}

/* As outcome. */
static int check(const struct ml_jwa *a, const struct ml_jwk *k, struct ml_str input,
                 struct ml_str signature)
{
    uint8_t der[160];
    if (signature.n != signature_size(a, k->key))
        return ML_E_INVALID;
    if (a->half)
        signature = ml_str((const char *)der, der_of(signature, der, sizeof der));
    if (!signature.n)
        return ML_E_NOMEM;
    return a->digest ? check_digest(a, k, input, signature) : check_text(a, k, input, signature);
}

/* Tries the keys that kid and algorithm select. */
static int try_keys(const struct ml_jws *jws, const struct ml_jwks *set, struct ml_str signature,
                    struct ml_err *err)
{
    unsigned named = 0, tried = 0;
    const struct ml_jwa *a = ml_jwa_find(ml_str_z(ml_jws_algorithm_name(jws->algorithm)));
    for (size_t i = 0; i < set->n && tried < ML_JWS_TRIES; i++) {
        const struct ml_jwk *k = &set->keys[i];
        if (jws->has_kid && !(k->kid.p && ml_str_eq(k->kid, jws->kid)))
            continue;
        named++;
        if (!(k->algorithms & jws->algorithm))
            continue;
        tried++;
        int e = check(a, k, jws->parts.input, signature);
        if (e == 0)
            return 0;
        if (e != ML_E_INVALID)
            return ml_fail(err, e, "the signature cannot be checked: no memory");
    }
    if (jws->has_kid && tried)
        return ml_fail(err, ML_E_INVALID, "bad signature");
    if (jws->has_kid && named)
        return ml_fail(err, ML_E_INVALID, "the token's key is not one for its alg");
    return ml_fail(err, ML_E_NOTFOUND, "%s",
                   tried ? "the token's signature fits no key" : "the token's key is not known");
}

int ml_jws_verify(const struct ml_jws *jws, const struct ml_jwks *set, uint32_t algorithms,
                  struct ml_buf *out, struct ml_err *err)
{
    char signature[SIGNATURE_MAX + 4]; /* the decoder wants to have some left */
    struct ml_buf b = {.p = signature, .cap = sizeof signature, .max = sizeof signature};
    size_t start = out->n;
    if (!(jws->algorithm & algorithms))
        return ml_fail(err, ML_E_INVALID, "the token's alg is not one of those accepted");
    if (!ml_base64url_decode(jws->parts.signature, &b))
        return ml_fail(err, ML_E_INVALID, "the token's signature is not base64url, or too long");
    if (!ml_base64url_decode(jws->parts.payload, out))
        return out->failed ? ml_fail(err, ML_E_NOMEM, "no memory for the token's payload")
                           : ml_fail(err, ML_E_INVALID, "the token's payload is not base64url");
    ERR_clear_error();
    int e = try_keys(jws, set, ml_buf_str(&b), err);
    ERR_clear_error(); /* what it says of ours is nobody else's error */
    if (e != 0)
        out->n = start;
    return e;
}
