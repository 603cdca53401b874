/* JWK Sets: JSON to keys of OpenSSL. A set is filled while its JSON is walked and never changes
 * after that; the last reference, on any thread, frees it. */
#include "crypto/jwk.h"

#include "base/mem.h"
#include "codec/text.h"
#include "crypto/jose.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    NUMBER_MAX = 1025, /* bytes of an RSA number: 8192 bits and a zero that some put in front */
    OCTETS_MAX = 66,   /* of a coordinate, of an Ed448 key */
};

enum { KTY, CRV, ALG, USE, KID, KEY_OPS, N, E, X, Y, D, K, MEMBERS };

struct reader {
    struct ml_jwks *set;
    struct ml_err err; /* why we stopped the walk; code 0: we did not */
    unsigned depth;
    bool in_keys, there; /* inside of "keys"; it was there */
    size_t place;        /* of the current key, from 1 */
    struct ml_member *current;
    struct ml_member members[MEMBERS];
    bool may_verify; /* "key_ops" has it */
};

static const char *const names[MEMBERS] = {"kty", "crv", "alg", "use", "kid", "key_ops",
                                           "n",   "e",   "x",   "y",   "d",   "k"};

static bool is_text(const struct ml_member *m)
{
    return m->there && m->kind == ML_JSON_STRING;
}

/* Absent, or a text that equals z. */
static bool is_absent_or(const struct ml_member *m, const char *z)
{
    return !m->there || (is_text(m) && ml_str_eq(m->text, ml_str_z(z)));
}

/* A member in base64url as bytes; 0 when it is not one or longer than out. */
static size_t octets(const struct ml_member *m, uint8_t *out, size_t max)
{
    char room[NUMBER_MAX + 4]; /* the decoder wants to have some left */
    struct ml_buf b = {.p = room, .cap = sizeof room, .max = sizeof room}; /* never grows */
    if (!is_text(m) || !ml_base64url_decode(m->text, &b) || b.n > max)
        return 0;
    memcpy(out, room, b.n);
    return b.n;
}

static EVP_PKEY *key_from(const char *type, OSSL_PARAM *params)
{
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *c = params ? EVP_PKEY_CTX_new_from_name(NULL, type, NULL) : NULL;
    if (!c || EVP_PKEY_fromdata_init(c) != 1 ||
        EVP_PKEY_fromdata(c, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
        key = NULL;
    EVP_PKEY_CTX_free(c);
    return key;
}

/* RFC 7518 section 6.3.1. */
static EVP_PKEY *make_rsa(const struct ml_member *m)
{
    uint8_t n[NUMBER_MAX], e[NUMBER_MAX];
    size_t n_bytes = octets(&m[N], n, sizeof n), e_bytes = octets(&m[E], e, sizeof e);
    if (!n_bytes || !e_bytes)
        return NULL;
    BIGNUM *n_number = BN_bin2bn(n, (int)n_bytes, NULL),
           *e_number = BN_bin2bn(e, (int)e_bytes, NULL);
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    OSSL_PARAM *params = NULL;
    if (n_number && e_number && build &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n_number) == 1 &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, e_number) == 1)
        params = OSSL_PARAM_BLD_to_param(build);
    EVP_PKEY *key = key_from("RSA", params);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    BN_free(n_number);
    BN_free(e_number);
    return key;
}

/* RFC 7518 section 6.2.1: coordinates of exactly the field's length. */
static EVP_PKEY *make_ec(const struct ml_member *m)
{
    for (size_t i = 0; i < ML_JWA_COUNT; i++) {
        const struct ml_jwa *a = &ml_jwa_table[i];
        if (!a->curve || !is_text(&m[CRV]) || !ml_str_eq(m[CRV].text, ml_str_z(a->curve)))
            continue;
        uint8_t point[1 + 2 * OCTETS_MAX] = {4}; /* uncompressed: 04 x y */
        if (octets(&m[X], point + 1, a->half) != a->half ||
            octets(&m[Y], point + 1 + a->half, a->half) != a->half)
            return NULL;
        OSSL_PARAM params[] = {
            OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)a->group, 0),
            OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point, 1 + 2 * a->half),
            OSSL_PARAM_construct_end(),
        };
        return key_from("EC", params);
    }
    return NULL;
}

/* RFC 8037 section 2; X25519 and X448 sign nothing. */
static EVP_PKEY *make_okp(const struct ml_member *m)
{
    static const char *const curves[] = {"Ed25519", "Ed448"};
    for (size_t i = 0; i < 2; i++) {
        uint8_t x[OCTETS_MAX];
        if (!is_text(&m[CRV]) || !ml_str_eq(m[CRV].text, ml_str_z(curves[i])))
            continue;
        size_t n = octets(&m[X], x, sizeof x);
        return n ? EVP_PKEY_new_raw_public_key_ex(NULL, curves[i], NULL, x, n) : NULL;
    }
    return NULL;
}

static EVP_PKEY *make_key(const struct ml_member *m)
{
    if (ml_str_eq(m[KTY].text, ML_STR("RSA")))
        return make_rsa(m);
    if (ml_str_eq(m[KTY].text, ML_STR("EC")))
        return make_ec(m);
    if (ml_str_eq(m[KTY].text, ML_STR("OKP")))
        return make_okp(m);
    return NULL;
}

/* What can be said before the numbers are looked at; NULL: nothing against it. */
static const char *label_problem(const struct reader *r)
{
    const struct ml_member *m = r->members;
    if (!is_text(&m[KTY]))
        return "no kty";
    if (m[D].there || m[K].there || ml_str_eq(m[KTY].text, ML_STR("oct")))
        return "it holds a secret, which no set may";
    if (!is_absent_or(&m[USE], "sig"))
        return "its use is not sig";
    if (m[KEY_OPS].there && !r->may_verify)
        return "its key_ops have no verify";
    if (m[ALG].there && (!is_text(&m[ALG]) || !ml_jwa_find(m[ALG].text)))
        return "its alg is none that signs here";
    if (m[KID].there && (!is_text(&m[KID]) || m[KID].text.n > ML_JWK_KID_MAX))
        return "its kid is no text of at most 255 bytes";
    return NULL;
}

/* Adds the key that was read. NULL, or why it is left out. */
static const char *add_key(struct reader *r)
{
    const struct ml_member *m = r->members;
    const char *why = label_problem(r);
    if (why)
        return why;
    struct ml_jwk k = {.key = make_key(m)};
    if (!k.key)
        return "its numbers are no key of its kty and crv";
    k.algorithms = ml_jwa_of_key(k.key, &why);
    if (m[ALG].there && k.algorithms) {
        k.algorithms &= ml_jwa_bit(ml_jwa_find(m[ALG].text));
        why = "its alg does not fit its kty and crv";
    }
    if (!k.algorithms) {
        EVP_PKEY_free(k.key);
        return why;
    }
    if (m[KID].there)
        k.kid = ml_str(ml_xstrndup(m[KID].text.p, m[KID].text.n), m[KID].text.n);
    r->set->keys[r->set->n++] = k;
    return NULL;
}

static bool on_key_end(struct reader *r)
{
    struct ml_jwks *set = r->set;
    const char *why = add_key(r);
    if (why && ml_jose_no_memory()) {
        ml_fail(&r->err, ML_E_NOMEM, "no memory for a key");
        return false;
    }
    if (why && !set->complaint[0])
        snprintf(set->complaint, sizeof set->complaint, "key %zu: %s", r->place, why);
    return true;
}

static bool on_key_begin(struct reader *r)
{
    if (r->place++ == ML_JWKS_MAX) {
        ml_fail(&r->err, ML_E_TOOBIG, "more than %d keys", ML_JWKS_MAX);
        return false;
    }
    r->may_verify = false;
    for (size_t i = 0; i < MEMBERS; i++)
        r->members[i] = (struct ml_member){.name = names[i]};
    return true;
}

/* The set is at depth 1, "keys" at 2, a key at 3, its key_ops at 4. */
static bool begin(void *ctx, enum ml_json_kind kind, size_t size)
{
    struct reader *r = ctx;
    unsigned depth = ++r->depth;
    if ((depth == 1 && kind != ML_JSON_OBJECT) ||
        (depth == 2 && r->in_keys && kind != ML_JSON_ARRAY))
        return false;
    if (depth == 3 && r->in_keys && kind == ML_JSON_OBJECT)
        return on_key_begin(r);
    if (depth == 4 && r->current)
        r->current->kind = kind;
    return true;
}

static bool end(void *ctx, enum ml_json_kind kind)
{
    struct reader *r = ctx;
    unsigned depth = r->depth--;
    if (depth == 3)
        r->current = NULL;
    return depth == 3 && r->in_keys && kind == ML_JSON_OBJECT ? on_key_end(r) : true;
}

static bool key(void *ctx, struct ml_str name)
{
    struct reader *r = ctx;
    if (r->depth == 1) {
        r->in_keys = ml_str_eq(name, ML_STR("keys"));
        r->there |= r->in_keys;
    }
    if (r->depth == 3 && r->in_keys)
        r->current = ml_member_find(r->members, MEMBERS, name);
    return true;
}

static bool scalar(void *ctx, enum ml_json_kind kind, struct ml_str text, long long integer,
                   double real)
{
    struct reader *r = ctx;
    if (r->depth == 3 && r->current) {
        r->current->kind = kind;
        r->current->text = text;
    }
    if (r->depth == 4 && r->current == &r->members[KEY_OPS] && r->current->kind == ML_JSON_ARRAY &&
        kind == ML_JSON_STRING)
        r->may_verify |= ml_str_eq(text, ML_STR("verify"));
    return r->depth != 1 || !r->in_keys;
}

int ml_jwks_new(struct ml_jwks **ret, struct ml_str json, struct ml_err *err)
{
    static const struct ml_json_events events = {scalar, begin, key, end};
    struct reader r = {.set = calloc(1, sizeof(struct ml_jwks))};
    if (!r.set)
        return ml_fail(err, ML_E_NOMEM, "no memory for a JWK Set");
    atomic_init(&r.set->refs, 1);
    ERR_set_mark(); /* what OpenSSL says of a bad key is nobody else's error */
    int code = ml_json_walk(json, &events, &r, err);
    ERR_pop_to_mark();
    if (code == ML_E_CANCELED && r.err.code)
        code = ml_fail(err, r.err.code, "%s", r.err.text);
    else if (code == ML_E_CANCELED || (code == 0 && !r.there))
        code = ml_fail(err, ML_E_INVALID, "no JWK Set: it must be an object with a list of keys");
    if (code == 0)
        *ret = r.set;
    else
        ml_jwks_unref(r.set);
    return code;
}

struct ml_jwks *ml_jwks_ref(struct ml_jwks *set)
{
    atomic_fetch_add_explicit(&set->refs, 1, memory_order_relaxed);
    return set;
}

void ml_jwks_unref(struct ml_jwks *set)
{
    if (!set || atomic_fetch_sub_explicit(&set->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < set->n; i++) {
        EVP_PKEY_free(set->keys[i].key);
        free((char *)set->keys[i].kid.p);
    }
    free(set);
}

size_t ml_jwks_count(const struct ml_jwks *set)
{
    return set->n;
}

const char *ml_jwks_complaint(const struct ml_jwks *set)
{
    return set->complaint;
}
