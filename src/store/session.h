/* Sessions: who is logged in. 256-bit random ids that only the browser has; the store behind
 * (session_backend.h) has their hash and a record sealed to it. In front of it a cache of open
 * parts, at most `cache_ms` old, and the tombstones of what was ended here.
 *
 * A record has an open part (claims: what a check needs; cached) and a closed part (tokens: read
 * from the store when they are needed, never cached). Both are JSON to Lua and bytes here.
 *
 * ml_sessions is shared and any thread's; a seat belongs to a worker's loop. */
#pragma once

#include "crypto/seal.h"
#include "store/cache.h"
#include "store/session_backend.h"

struct ml_sessions;
struct ml_session_seat; /* a worker's place at it */

struct ml_sessions_options {
    const struct ml_session_backend *backend;
    void *store;                     /* the backend's; owned from now on */
    const struct ml_seal_keys *keys; /* outlives it */
    struct ml_cache *cache;          /* for open parts; outlives it */
    uint32_t cache_ms;               /* SESSION_CACHE_SECONDS; 0: always ask the store */
};
struct ml_sessions *ml_sessions_new(const struct ml_sessions_options *options);
/* After the last seat was left. NULL allowed. */
void ml_sessions_free(struct ml_sessions *s);

struct ml_sessions_stats {
    uint64_t reads, writes, failures; /* of the store; a write is a create, replace, touch, end */
    uint64_t unreadable;              /* records that were not ours, or of another version */
    uint64_t tombstones, unconfirmed; /* now: all, and those that the store has not confirmed */
    struct ml_session_store_stats store;
};
struct ml_sessions_stats ml_sessions_stats(struct ml_sessions *s);

/* On the worker's thread. */
int ml_session_sit(struct ml_session_seat **ret, struct ml_sessions *s, uv_loop_t *loop,
                   struct ml_err *err);
/* What is under way ends with ML_E_CANCELED; closed(ctx) when the last handle is gone. */
void ml_session_leave(struct ml_session_seat *seat, void (*closed)(void *ctx), void *ctx);
/* Whether the store answers now; if not, why. */
bool ml_session_ready(struct ml_session_seat *seat, struct ml_err *err);

/* Tells all other replicas: at most 4 KiB of text whose first word is not one of session.c's (gone,
 * lost). Such messages come by fn, on every seat that listens. */
void ml_session_publish(struct ml_session_seat *seat, struct ml_str message);
void ml_session_listen(struct ml_session_seat *seat, void (*fn)(void *ctx, struct ml_str message),
                       void *ctx);

/* "mls_", so that everybody can tell an id from a token and none goes to a provider (Q7), and
 * base64url of 32 bytes. */
#define ML_SESSION_PREFIX "mls_"
enum { ML_SESSION_ID = 4 + 43 };

struct ml_session_new {
    struct ml_str open, closed;
    int64_t lifetime_ms; /* absolute end, from now */
    int64_t idle_ms;     /* dead when not read for so long; 0: no such limit */
    const struct ml_str *kinds,
        *values;        /* index: (user, alice), (subject, issuer + sub), (sid, ...) */
    size_t index_count; /* at most ML_SESSION_INDEX_MAX - 1: (all, "") is added */
};

struct ml_session_reply {
    int error;        /* 0, or as session_backend.h says: the store is down */
    const char *text; /* of an error; lives until done returns */
    bool found;       /* read, tokens: there is one; replace: it was replaced; lock: ours */
    bool conflict;    /* replace: another revision stands there */
    char id[ML_SESSION_ID + 1]; /* of create */
    struct ml_entry *entry;     /* of read: the open part; a reference for the callee */
    struct ml_str closed;       /* of tokens: lives until done returns */
    uint64_t revision;          /* of tokens: counts what replace changed */
    size_t count;               /* of kill */
};
typedef void (*ml_session_fn)(void *arg, const struct ml_session_reply *reply);

/* The open part when the cache has it, else NULL: then ask by ml_session_read. */
struct ml_entry *ml_session_cached(struct ml_session_seat *seat, struct ml_str id);

/* Each calls done exactly once, perhaps before it returns. An id that has not the form of one is
 * not found. */
void ml_session_create(struct ml_session_seat *seat, const struct ml_session_new *what,
                       ml_session_fn done, void *arg);
void ml_session_read(struct ml_session_seat *seat, struct ml_str id, ml_session_fn done, void *arg);
void ml_session_tokens(struct ml_session_seat *seat, struct ml_str id, ml_session_fn done,
                       void *arg);
/* Keeps lifetime and index. */
void ml_session_replace(struct ml_session_seat *seat, struct ml_str id, uint64_t revision,
                        struct ml_str open, struct ml_str closed, ml_session_fn done, void *arg);
/* Dead for this process at once, whatever the store says (but ML_E_BUSY: too many wait for their
 * end); retried until the store has confirmed. */
void ml_session_delete(struct ml_session_seat *seat, struct ml_str id, ml_session_fn done,
                       void *arg);
void ml_session_lock(struct ml_session_seat *seat, struct ml_str id, uint32_t ms,
                     ml_session_fn done, void *arg);
void ml_session_unlock(struct ml_session_seat *seat, struct ml_str id);
/* Ends all sessions with that index, on every replica; reply.count says how many. */
void ml_session_kill(struct ml_session_seat *seat, struct ml_str kind, struct ml_str value,
                     ml_session_fn done, void *arg);
