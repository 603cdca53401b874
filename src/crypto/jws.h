/* JWS in compact form (RFC 7515) on OpenSSL 3 EVP, for JWTs (RFC 7519, RFC 8725). Any thread.
 *
 * Nothing in a token chooses what is trusted: the caller's list has the algorithms, the caller's
 * set the keys. Of the header alg, kid, typ are read; crit, b64, zip and enc are refused; jwk, jku,
 * x5c, x5u are never looked at. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"
#include "crypto/jwk.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    ML_JWS_MAX = 16 << 10, /* bytes of a token */
    ML_JWS_TYP_MAX = 63,
    ML_JWS_TRIES = 5, /* keys that one token is tried against */
};

/* A set of algorithms is a mask: the bit of RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512
 * EdDSA; 0 for every other name, "none" among them. */
uint32_t ml_jws_algorithm(struct ml_str name);
const char *ml_jws_algorithm_name(uint32_t bit);

struct ml_jws_parts {
    struct ml_str header, payload, signature; /* base64url; slices of the token */
    struct ml_str input;                      /* what is signed: header "." payload */
};
/* Three parts that are not empty, or why not. ML_E_INVALID, ML_E_TOOBIG. */
int ml_jws_split(struct ml_str token, struct ml_jws_parts *ret, struct ml_err *err);

/* A token whose form and header are right; slices live as long as the token. */
struct ml_jws {
    struct ml_jws_parts parts;
    uint32_t algorithm; /* its bit */
    bool has_kid, has_typ;
    struct ml_str kid, typ; /* of the texts below */
    char kid_text[ML_JWK_KID_MAX + 1], typ_text[ML_JWS_TYP_MAX + 1];
};
/* ML_E_INVALID, ML_E_TOOBIG; err names what is wrong and never quotes the token. */
int ml_jws_parse(struct ml_str token, struct ml_jws *ret, struct ml_err *err);

/* 0: signed with a key of the set by an algorithm of the mask, and the payload is appended to out
 * (any bytes). ML_E_NOTFOUND: the set has no key for it (with a newer set it may be good); without
 * a kid also when none of the keys fits. ML_E_INVALID: it is bad. ML_E_NOMEM: it could not be found
 * out. Nothing is appended but for 0. */
int ml_jws_verify(const struct ml_jws *jws, const struct ml_jwks *set, uint32_t algorithms,
                  struct ml_buf *out, struct ml_err *err);

struct ml_jws_sign {
    struct ml_str pem;      /* private key: PKCS#8, PKCS#1 or SEC 1, not encrypted */
    struct ml_str alg;      /* empty: RS256, ES256 to ES512 or EdDSA, as the key is */
    struct ml_str kid, typ; /* empty: none */
    struct ml_str payload;
};
/* Appends the token. ML_E_INVALID: not a key, too weak (see jwk.h), or not one for alg; err never
 * quotes the key. Costs what signing costs (RSA 2048: a quarter of a millisecond), and more when
 * the key is not one of the last few that this thread has signed with. */
int ml_jws_sign(const struct ml_jws_sign *what, struct ml_buf *out, struct ml_err *err);
