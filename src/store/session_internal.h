/* What session.c (life, cache, messages), session_read.c and session_write.c share. */
#pragma once

#include "base/mem.h"
#include "store/session.h"
#include "store/session_record.h"
#include "store/tombstone.h"

#include <stdatomic.h>

enum {
    ML_SESSION_STALE_MS = 60 * 1000, /* an open part that is no longer fresh keeps its id so long */
    ML_SESSION_TOMBSTONES = 1 << 16,
};

struct ml_sessions {
    const struct ml_session_backend *backend;
    void *store;
    const struct ml_seal_keys *keys;
    struct ml_cache *cache;
    uint32_t cache_ms;
    struct ml_tombstones *tombstones;
    _Atomic int64_t lost_ms; /* open parts that were read before are not fresh */
    _Atomic uint64_t reads, writes, failures, unreadable;
};

struct ml_session_seat {
    struct ml_sessions *sessions;
    struct ml_session_link *link;
    uv_timer_t retry; /* runs while the store has ends to confirm */
    bool leaving;
    unsigned open; /* link and timer */
    void (*listener)(void *ctx, struct ml_str message);
    void *listener_ctx;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

/* An operation under way at the backend. Its own file casts it to what it embeds it in. */
struct ml_session_op {
    struct ml_session_seat *seat;
    struct ml_digest key;
    ml_session_fn done;
    void *arg;
};

/* The key of an id in the store; false: it has not the form of an id. */
bool ml_session_key(struct ml_str id, struct ml_digest *ret);
static inline void ml_session_count(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* The cached open part, fresh or not, or NULL; a reference. */
struct ml_entry *ml_session_cache_get(struct ml_sessions *s, const struct ml_digest *key,
                                      bool *fresh);
/* Keeps the open part of a record that was just read. `old` (or NULL) is what the cache had: with
 * the same bytes the new entry has its id, so that what was worked out for it stays good. Returns a
 * reference; NULL: no memory, or the session has ended meanwhile (*ended). */
struct ml_entry *ml_session_cache_put(struct ml_sessions *s, const struct ml_digest *key,
                                      const struct ml_session_record *r, int64_t now_ms,
                                      const struct ml_entry *old, bool *ended);

/* The session is over, and the store knows. */
void ml_session_gone(struct ml_sessions *s, const struct ml_digest *key);
/* Tells the other replicas. */
void ml_session_tell_gone(struct ml_session_seat *seat, const struct ml_digest *keys, size_t n);
/* Asks the store to remove what has a tombstone, again and again until it has. */
void ml_session_retry_soon(struct ml_session_seat *seat);
