/* What a session store must be able to do: LMDB, Redis and memory behind one set of functions. The
 * bytes are sealed before they get here and the keys are hashes: a backend keeps neither an id nor
 * a readable record.
 *
 * A store is opened once per process; each worker has a link to it on its own loop. Every function
 * of a link calls done exactly once, on that loop's thread, perhaps before it returns; what it is
 * given need not live longer than the call. Closing a link fails what is under way with
 * ML_E_CANCELED. */
#pragma once

#include "base/err.h"
#include "base/str.h"
#include "crypto/digest.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

enum { ML_SESSION_VALUE_MAX = 64 << 10, ML_SESSION_INDEX_MAX = 4 };

struct ml_session_answer {
    int error; /* 0, or ML_E_UNAVAILABLE, ML_E_TIMEOUT, ML_E_BUSY, ML_E_TOOBIG, ML_E_CANCELED */
    const char *text; /* of an error, for the log; never a record, a key or a password */
    bool found; /* get: there is one; put: it was written; remove: there was one; lock: ours */
    struct ml_str value; /* of get; lives until done returns */
    int64_t expires_ms;
    const struct ml_digest *keys; /* of kill: what was removed, also before an error */
    size_t key_count;
};
typedef void (*ml_session_done)(void *arg, const struct ml_session_answer *answer);

/* One record. `index` are hashes of (kind, value), such as (user, alice): kill finds it by them.
 * revision counts its versions: a put succeeds only when what is there has the revision `replaces`
 * (0: only when nothing is there). */
struct ml_session_put {
    const struct ml_digest *key;
    struct ml_str value;
    int64_t expires_ms; /* ml_wall_ms() from which it is dead: never returned, swept later */
    uint64_t revision, replaces;
    const struct ml_digest *index;
    size_t index_count;
};

struct ml_session_store_stats {
    uint64_t sessions, bytes;                    /* now; 0 where the store cannot say cheaply */
    uint64_t commits, swept, evicted, set_aside; /* since the start */
};

struct ml_session_link; /* each backend's own */

struct ml_session_backend {
    const char *name; /* "memory" "lmdb" "redis" */
    /* On the worker's thread. */
    int (*link)(void *store, uv_loop_t *loop, struct ml_session_link **ret, struct ml_err *err);
    /* closed(ctx) when the last handle of it is gone. */
    void (*unlink)(struct ml_session_link *l, void (*closed)(void *ctx), void *ctx);
    void (*get)(struct ml_session_link *l, const struct ml_digest *key, ml_session_done done,
                void *arg);
    void (*put)(struct ml_session_link *l, const struct ml_session_put *put, ml_session_done done,
                void *arg);
    void (*remove)(struct ml_session_link *l, const struct ml_digest *key, ml_session_done done,
                   void *arg);
    /* Removes every record with that index. */
    void (*kill)(struct ml_session_link *l, const struct ml_digest *index, ml_session_done done,
                 void *arg);
    /* A lock between replicas, gone by itself after ms. Stores of one process only may always say
     * found: workers are kept apart by flights. unlock is best effort. */
    void (*lock)(struct ml_session_link *l, const struct ml_digest *key, uint32_t ms,
                 ml_session_done done, void *arg);
    void (*unlock)(struct ml_session_link *l, const struct ml_digest *key);
    /* Tells the other replicas (at most 4 KiB of text); what they tell comes by on_message, on the
     * link's thread, on every link (that our own comes back as well does no harm). A store of one
     * process does nothing: session.c has told this process itself. The word "lost" from the
     * backend says that messages may have been missed. */
    void (*publish)(struct ml_session_link *l, struct ml_str message);
    void (*on_message)(struct ml_session_link *l, void (*fn)(void *ctx, struct ml_str message),
                       void *ctx);
    /* Whether it answers now; if not, why. */
    bool (*ready)(struct ml_session_link *l, struct ml_err *err);
    /* Any thread. NULL allowed: it has none. */
    void (*stats)(void *store, struct ml_session_store_stats *ret);
    /* Any thread, after the last link is closed. */
    void (*close)(void *store);
};
