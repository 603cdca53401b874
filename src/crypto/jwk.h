/* JWK Sets (RFC 7517): public keys for ml_jws_verify. Parsed once, immutable, counted; any thread.
 *
 * A key may be used with few algorithms, fixed when it is parsed: what kty and crv allow, no more
 * than its `alg` says, and only when `use` and `key_ops` allow verifying (RFC 8725 sections 3.1 and
 * 3.2). A key that cannot be used is left out, and the others stay: one that is weak (RSA below
 * 2048 or above 8192 bits, an even exponent or one below 3, a factor pattern of CVE-2017-15361),
 * not on its curve, symmetric, private, of an unknown kind. */
#pragma once

#include "base/err.h"
#include "base/str.h"

#include <stddef.h>

struct ml_jwks;

enum { ML_JWKS_MAX = 64, ML_JWK_KID_MAX = 255 };

/* json: {"keys":[...]}. ML_E_INVALID: no such object; ML_E_TOOBIG: more than ML_JWKS_MAX keys or
 * past the bounds of ml_json_walk; ML_E_NOMEM. A set without any usable key is one. */
int ml_jwks_new(struct ml_jwks **ret, struct ml_str json, struct ml_err *err);
struct ml_jwks *ml_jwks_ref(struct ml_jwks *set);
void ml_jwks_unref(struct ml_jwks *set);         /* NULL allowed */
size_t ml_jwks_count(const struct ml_jwks *set); /* usable keys */
/* Why the first of the keys that were left out was left out: "key 2: ..."; "" when none was. */
const char *ml_jwks_complaint(const struct ml_jwks *set);
