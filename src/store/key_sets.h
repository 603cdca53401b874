/* Parsed JWK Sets of the board's snapshots, shared by all workers: a set is parsed once, when the
 * first token needs it. Any thread; the mutex is held for a look at the slots only. */
#pragma once

#include "base/err.h"
#include "crypto/jwk.h"
#include "store/cache.h"

struct ml_key_sets;
enum { ML_KEY_SETS_MAX = 64 }; /* the one that was used longest ago makes room */

struct ml_key_sets *ml_key_sets_new(void);
void ml_key_sets_free(struct ml_key_sets *sets); /* NULL allowed */
/* The set that e's JSON holds: a reference. sets NULL: parsed each time. Fails as ml_jwks_new does;
 * a snapshot that is no set is remembered as well. */
int ml_key_sets_get(struct ml_key_sets *sets, const struct ml_entry *e, struct ml_jwks **ret,
                    struct ml_err *err);
