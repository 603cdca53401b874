/* The identity cache: verified claims and definite refusals by key, shared by all workers. Sharded,
 * each shard a mutex; bounded in bytes; scan-resistant, so that random tokens cannot evict the
 * working set. Any thread. */
#pragma once

#include "base/str.h"
#include "crypto/digest.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum ml_entry_kind { ML_ENTRY_CLAIMS, ML_ENTRY_REFUSAL };

/* Immutable once made; counted. */
struct ml_entry {
    _Atomic uint32_t refs;
    uint32_t n;         /* bytes */
    uint64_t id;        /* unique in this process: names the content for memos */
    int64_t expires_ms; /* ml_wall_ms() from which it is dead */
    uint32_t tag;       /* of the credential, 0: none; a revocation finds it by this */
    uint8_t kind;       /* enum ml_entry_kind */
    char bytes[];       /* JSON of the claims, or the reason of the refusal; then a NUL */
};
struct ml_entry *ml_entry_new(enum ml_entry_kind kind, struct ml_str bytes,
                              int64_t expires_ms); /* NULL: no memory */
struct ml_entry *ml_entry_ref(struct ml_entry *e);
void ml_entry_unref(struct ml_entry *e); /* NULL allowed */

struct ml_cache;
struct ml_cache *ml_cache_new(size_t max_bytes); /* all bookkeeping included */
void ml_cache_free(struct ml_cache *c);
/* A reference, or NULL. An entry past its expires_ms is never returned. */
struct ml_entry *ml_cache_get(struct ml_cache *c, const struct ml_digest *key);
/* Takes a reference of its own; replaces. An entry larger than a 1/64 of the cache is not kept. */
void ml_cache_put(struct ml_cache *c, const struct ml_digest *key, struct ml_entry *e);
void ml_cache_remove(struct ml_cache *c, const struct ml_digest *key);
/* Removes what match says (called under a shard's lock: it must be quick); returns how many. Scans
 * everything: for a revocation, not for a request. */
size_t ml_cache_purge(struct ml_cache *c, bool (*match)(void *ctx, const struct ml_entry *e),
                      void *ctx);
/* Purges that have begun. What was asked of somebody before one must not be put after it: put_since
 * puts only when there was none since then. */
uint64_t ml_cache_purges(const struct ml_cache *c);
void ml_cache_put_since(struct ml_cache *c, const struct ml_digest *key, struct ml_entry *e,
                        uint64_t purges);

/* A credential's tag: never 0. */
uint32_t ml_cache_tag(struct ml_str credential);

struct ml_cache_stats {
    uint64_t hits, misses, evictions, expired;
    uint64_t entries, bytes, max_bytes;
};
struct ml_cache_stats ml_cache_stats(struct ml_cache *c);

/* Life of an answer: min(ttl, what is left until the token's exp), shortened by up to a tenth at
 * random so that what was filled together does not expire together. exp_ms 0: none. Returns an
 * absolute ml_wall_ms(). */
int64_t ml_cache_expiry(int64_t now_ms, int64_t ttl_ms, int64_t exp_ms);
