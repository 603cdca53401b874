/* Sessions: who is logged in. 256-bit random ids that only the browser has; the store behind
 * (session_backend.h) has their hash and a record sealed to it. In front of it a cache of open
 * parts, at most `cache_ms` old, and the tombstones of what was ended while the store was away.
 *
 * A record has an open part (claims: what a check needs; cached) and a closed part (tokens: read
 * from the store when they are needed, never cached). Both are JSON to Lua and bytes here.
 *
 * ml_sessions is shared and any thread's; a link belongs to a worker's loop. */
#pragma once

#include "store/cache.h"
#include "store/session_backend.h"

struct ml_sessions;
struct ml_session_seat; /* a worker's place at it */

struct ml_sessions_options {
    const struct ml_session_backend *backend;
    void *store;            /* the backend's; owned from now on */
    const char *keys;       /* SESSION_KEY: comma-separated, the first seals; see crypto/seal.h */
    struct ml_cache *cache; /* for open parts */
    const uint8_t *secret;  /* 32 bytes, per process, for its keys */
    uint32_t cache_ms;      /* SESSION_CACHE_SECONDS; 0: always ask the store */
};
int ml_sessions_new(struct ml_sessions **ret, const struct ml_sessions_options *options,
                    struct ml_err *err);
void ml_sessions_free(struct ml_sessions *s);

/* On the worker's thread. */
int ml_session_sit(struct ml_session_seat **ret, struct ml_sessions *s, uv_loop_t *loop,
                   struct ml_err *err);
void ml_session_leave(struct ml_session_seat *seat, void (*closed)(void *ctx), void *ctx);
bool ml_session_ready(struct ml_session_seat *seat, struct ml_err *err);

enum { ML_SESSION_ID = 43 }; /* base64url of 32 bytes */

struct ml_session_new {
    struct ml_str open, closed;
    int64_t lifetime_ms; /* absolute end, from now */
    int64_t idle_ms;     /* dead when not read for so long; 0: no such limit */
    const struct ml_str *kinds,
        *values; /* index: (user, alice), (subject, issuer + sub), (sid, ...) */
    size_t index_count;
};

struct ml_session_reply {
    int error; /* 0, or as session_backend.h says: the store is down */
    char text[256];
    bool found;    /* read, tokens: there is one; replace: it was replaced; lock: ours */
    bool conflict; /* replace: another version stands there */
    char id[ML_SESSION_ID + 1]; /* of create */
    struct ml_entry *entry;     /* of read: the open part; a reference for the callee */
    struct ml_str closed;       /* of tokens: lives until done returns */
    uint64_t revision;
    size_t count; /* of kill */
};
typedef void (*ml_session_ready_fn)(void *arg, const struct ml_session_reply *reply);

/* Each calls done exactly once, perhaps before it returns. An id that has not the form of one is
 * not found. */
void ml_session_create(struct ml_session_seat *seat, const struct ml_session_new *what,
                       ml_session_ready_fn done, void *arg);
void ml_session_read(struct ml_session_seat *seat, struct ml_str id, ml_session_ready_fn done,
                     void *arg);
void ml_session_tokens(struct ml_session_seat *seat, struct ml_str id, ml_session_ready_fn done,
                       void *arg);
/* Keeps lifetime and index. */
void ml_session_replace(struct ml_session_seat *seat, struct ml_str id, uint64_t revision,
                        struct ml_str open, struct ml_str closed, ml_session_ready_fn done,
                        void *arg);
/* Dead for this process at once, whatever the store says; retried until the store has confirmed. */
void ml_session_delete(struct ml_session_seat *seat, struct ml_str id, ml_session_ready_fn done,
                       void *arg);
void ml_session_lock(struct ml_session_seat *seat, struct ml_str id, uint32_t ms,
                     ml_session_ready_fn done, void *arg);
void ml_session_unlock(struct ml_session_seat *seat, struct ml_str id);
/* Ends all sessions with that index, on every replica; reply.count says how many. */
void ml_session_kill(struct ml_session_seat *seat, struct ml_str kind, struct ml_str value,
                     ml_session_ready_fn done, void *arg);
