/* What jwk.c, jws.c and jws_sign.c share: the table of algorithms (RFC 7518 section 3.1, RFC 8037)
 * and what a parsed key is. Only they include this. */
#pragma once

#include "codec/json.h"
#include "crypto/jws.h"

#include <openssl/bn.h>
#include <openssl/evp.h>
#include <stdatomic.h>

enum ml_jwa_kind { ML_JWA_RSA, ML_JWA_PSS, ML_JWA_ECDSA, ML_JWA_EDDSA };

struct ml_jwa {
    const char *name;
    enum ml_jwa_kind kind;
    const char *digest; /* its name in digest.h, and OpenSSL's; NULL: the algorithm's own */
    const char *curve;  /* "crv"; NULL: any that the kind has */
    const char *group;  /* the curve as OpenSSL calls it */
    size_t half;        /* bytes of r and of s, of a coordinate */
};
enum { ML_JWA_COUNT = 10 };
extern const struct ml_jwa ml_jwa_table[ML_JWA_COUNT]; /* bit i of a mask is row i */
/* NULL for other names, "none" among them. */
const struct ml_jwa *ml_jwa_find(struct ml_str name);
static inline uint32_t ml_jwa_bit(const struct ml_jwa *a)
{
    return UINT32_C(1) << (a - ml_jwa_table);
}
uint32_t ml_jwa_kind(enum ml_jwa_kind kind); /* the bits of all of a kind */
/* What makes RSA keys unfit; NULL: nothing. */
const char *ml_jwa_rsa_problem(const BIGNUM *n, const BIGNUM *e);
/* The algorithms that a key from a PEM may be used with, by its type, curve and numbers. 0: none,
 * and *why says what is wrong with it. */
uint32_t ml_jwa_of_key(const EVP_PKEY *key, const char **why);

/* Keys are used by any number of threads at a time: OpenSSL only reads them. */
struct ml_jwk {
    EVP_PKEY *key;
    uint32_t algorithms; /* those it may be used with */
    struct ml_str kid;   /* owned; p == NULL: it has none */
    /* A verification by each of the algorithms, begun and never gone on with: copying one costs
     * less than beginning. NULL where there is no digest. */
    EVP_PKEY_CTX *begun[ML_JWA_COUNT];
};
/* Begins for all of key's algorithms. false: no memory. */
bool ml_jwk_begin(struct ml_jwk *key);

struct ml_jwks {
    _Atomic uint32_t refs;
    size_t n;
    struct ml_jwk keys[ML_JWKS_MAX];
    char complaint[160];
};

/* One member of an object that is wanted while JSON is walked. */
struct ml_member {
    const char *name;
    bool there;
    enum ml_json_kind kind;
    struct ml_str text; /* of a string; lives until the walk ends */
};
/* The one of that name, marked as there; NULL when nobody wants it. */
struct ml_member *ml_member_find(struct ml_member *list, size_t count, struct ml_str name);
bool ml_member_is_text(const struct ml_member *m);
bool ml_member_is(const struct ml_member *m, const char *text);

/* The members of a JWK that are looked at. */
enum {
    ML_JWK_KTY,
    ML_JWK_CRV,
    ML_JWK_ALG,
    ML_JWK_USE,
    ML_JWK_KID,
    ML_JWK_KEY_OPS,
    ML_JWK_N,
    ML_JWK_E,
    ML_JWK_X,
    ML_JWK_Y,
    ML_JWK_D,
    ML_JWK_K,
    ML_JWK_MEMBERS
};
/* The row whose curve m names; NULL when there is none. */
const struct ml_jwa *ml_jwa_of_curve(const struct ml_member *m);
/* The key and all algorithms that it allows. ML_E_INVALID: it is none, and *why says why (else it
 * is NULL); ML_E_NOMEM. */
int ml_jwk_make(const struct ml_member *members, struct ml_jwk *ret, const char **why);
