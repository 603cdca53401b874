/* Sessions: life of the shared part and of seats, the cache of open parts, tombstones' retries,
 * messages. Seats and their timers belong to a worker's loop; ml_sessions to all threads: it has
 * nothing but atomics and parts with locks of their own.
 *
 * An open part stays in the cache for ML_SESSION_STALE_MS longer than it may be used: when the
 * record turns out to be unchanged, the new entry takes over the id, and with it the decoded table
 * and the chain's work that every Lua state remembers by that id. */
#include "store/session_internal.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>

enum { RETRY_MS = 1000, RETRY_BATCH = 256, GONE_MAX = 60, HEX = 64 };

struct ml_sessions *ml_sessions_new(const struct ml_sessions_options *options)
{
    struct ml_sessions *s = ML_NEW(struct ml_sessions);
    s->backend = options->backend;
    s->store = options->store;
    s->keys = options->keys;
    s->cache = options->cache;
    s->cache_ms = options->cache_ms;
    s->tombstones = ml_tombstones_new(ML_SESSION_TOMBSTONES);
    return s;
}

void ml_sessions_free(struct ml_sessions *s)
{
    if (!s)
        return;
    s->backend->close(s->store);
    ml_tombstones_free(s->tombstones);
    free(s);
}

struct ml_sessions_stats ml_sessions_stats(struct ml_sessions *s)
{
    struct ml_sessions_stats ret = {.reads = s->reads,
                                    .writes = s->writes,
                                    .failures = s->failures,
                                    .unreadable = s->unreadable};
    size_t all, unconfirmed;
    ml_tombstones_count(s->tombstones, &all, &unconfirmed);
    ret.tombstones = all;
    ret.unconfirmed = unconfirmed;
    if (s->backend->stats)
        s->backend->stats(s->store, &ret.store);
    return ret;
}

/* base64url. A table: ids are random, so that a processor guesses each comparison wrong. */
static const bool is_id_char[256] = {
    ['A' ... 'Z'] = true, ['a' ... 'z'] = true, ['0' ... '9'] = true, ['-'] = true, ['_'] = true,
};

bool ml_session_key(struct ml_str id, struct ml_digest *ret)
{
    bool good = id.n == ML_SESSION_ID && ml_str_starts(id, ML_STR(ML_SESSION_PREFIX));
    for (size_t i = 0; good && i < ML_SESSION_ID; i++)
        good &= is_id_char[(uint8_t)id.p[i]];
    return good && ml_sha256(id, ret);
}

/* Cache --------------------------------------------------------------------------------------- */

struct ml_entry *ml_session_cache_get(struct ml_sessions *s, const struct ml_digest *key,
                                      bool *fresh)
{
    struct ml_entry *e = ml_cache_get(s->cache, key);
    if (!e)
        return NULL;
    int64_t until = e->expires_ms - ML_SESSION_STALE_MS;
    *fresh = until > ml_wall_ms() &&
             until - s->cache_ms >= atomic_load_explicit(&s->lost_ms, memory_order_relaxed);
    return e;
}

struct ml_entry *ml_session_cached(struct ml_session_seat *seat, struct ml_str id)
{
    struct ml_digest key;
    bool fresh;
    if (!ml_session_key(id, &key))
        return NULL;
    struct ml_entry *e = ml_session_cache_get(seat->sessions, &key, &fresh);
    if (!e || fresh)
        return e;
    ml_entry_unref(e);
    return NULL;
}

/* Who ends a session adds the tombstone first and empties the cache then; here it is the other way
 * round: whatever comes first, nothing dead stays in the cache. */
struct ml_entry *ml_session_cache_put(struct ml_sessions *s, const struct ml_digest *key,
                                      const struct ml_session_record *r, int64_t now_ms,
                                      const struct ml_entry *old, bool *ended)
{
    int64_t until = now_ms + s->cache_ms, over = ml_session_record_expiry(r);
    struct ml_entry *e =
        ml_entry_new(ML_ENTRY_CLAIMS, r->open, (until < over ? until : over) + ML_SESSION_STALE_MS);
    *ended = false;
    if (!e)
        return NULL;
    if (old && ml_str_eq(ml_str(old->bytes, old->n), r->open))
        e->id = old->id; /* not shared yet */
    ml_cache_put(s->cache, key, e);
    if (!ml_tombstones_has(s->tombstones, key))
        return e;
    ml_cache_remove(s->cache, key);
    ml_entry_unref(e);
    *ended = true;
    return NULL;
}

/* Ends ---------------------------------------------------------------------------------------- */

void ml_session_gone(struct ml_sessions *s, const struct ml_digest *key)
{
    ml_tombstones_add(s->tombstones, key, true);
    ml_cache_remove(s->cache, key);
}

/* "gone HEX,HEX": at most 4 KiB each. */
void ml_session_tell_gone(struct ml_session_seat *seat, const struct ml_digest *keys, size_t n)
{
    char text[8 + GONE_MAX * (HEX + 1)];
    while (n && !seat->leaving) {
        size_t some = n < GONE_MAX ? n : GONE_MAX, at = 5;
        memcpy(text, "gone ", at);
        for (size_t i = 0; i < some; i++, at += HEX + 1) {
            ml_digest_hex(&keys[i], text + at);
            text[at + HEX] = ',';
        }
        seat->sessions->backend->publish(seat->link, ml_str(text, at - 1));
        keys += some;
        n -= some;
    }
}

static void on_retried(void *arg, const struct ml_session_answer *answer)
{
    struct ml_session_op *op = arg;
    if (answer->error) {
        ml_session_count(&op->seat->sessions->failures);
    } else {
        ml_session_gone(op->seat->sessions, &op->key);
        ml_session_tell_gone(op->seat, &op->key, 1);
    }
    free(op);
}

static void on_retry(uv_timer_t *timer)
{
    struct ml_session_seat *seat = timer->data;
    struct ml_sessions *s = seat->sessions;
    struct ml_digest due[RETRY_BATCH];
    size_t all, unconfirmed, n = ml_tombstones_due(s->tombstones, RETRY_MS, due, RETRY_BATCH);
    for (size_t i = 0; i < n; i++) {
        struct ml_session_op *op = ML_NEW(struct ml_session_op);
        *op = (struct ml_session_op){.seat = seat, .key = due[i]};
        ml_session_count(&s->writes);
        s->backend->remove(seat->link, &due[i], on_retried, op);
    }
    ml_tombstones_count(s->tombstones, &all, &unconfirmed);
    if (!unconfirmed)
        uv_timer_stop(timer);
}

void ml_session_retry_soon(struct ml_session_seat *seat)
{
    if (!seat->leaving && !uv_is_active((uv_handle_t *)&seat->retry))
        uv_timer_start(&seat->retry, on_retry, RETRY_MS, RETRY_MS);
}

/* Messages ------------------------------------------------------------------------------------ */

static bool read_hex(struct ml_str hex, struct ml_digest *ret)
{
    if (hex.n != HEX)
        return false;
    for (size_t i = 0; i < HEX; i++) {
        char c = hex.p[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0)
            return false;
        ret->b[i / 2] = (uint8_t)(ret->b[i / 2] << 4 | digit);
    }
    return true;
}

static void on_message(void *ctx, struct ml_str message)
{
    struct ml_session_seat *seat = ctx;
    struct ml_digest key;
    struct ml_str rest, word = ml_str_cut(message, ' ', &rest);
    if (ml_str_eq(word, ML_STR("gone"))) {
        while (rest.n)
            if (read_hex(ml_str_cut(rest, ',', &rest), &key))
                ml_session_gone(seat->sessions, &key);
    } else if (ml_str_eq(word, ML_STR("lost"))) {
        atomic_store_explicit(&seat->sessions->lost_ms, ml_wall_ms(), memory_order_relaxed);
    } else if (seat->listener) {
        seat->listener(seat->listener_ctx, message);
    }
}

void ml_session_publish(struct ml_session_seat *seat, struct ml_str message)
{
    seat->sessions->backend->publish(seat->link, message);
}

void ml_session_listen(struct ml_session_seat *seat, void (*fn)(void *ctx, struct ml_str message),
                       void *ctx)
{
    seat->listener = fn;
    seat->listener_ctx = ctx;
}

/* Seats --------------------------------------------------------------------------------------- */

int ml_session_sit(struct ml_session_seat **ret, struct ml_sessions *s, uv_loop_t *loop,
                   struct ml_err *err)
{
    struct ml_session_seat *seat = ML_NEW(struct ml_session_seat);
    seat->sessions = s;
    int r = s->backend->link(s->store, loop, &seat->link, err);
    if (r != 0) {
        free(seat);
        return r;
    }
    s->backend->on_message(seat->link, on_message, seat);
    uv_timer_init(loop, &seat->retry);
    seat->retry.data = seat;
    seat->open = 2;
    *ret = seat;
    return 0;
}

static void on_part_closed(struct ml_session_seat *seat)
{
    if (--seat->open > 0)
        return;
    void (*closed)(void *) = seat->closed;
    void *ctx = seat->closed_ctx;
    free(seat);
    closed(ctx);
}

static void on_timer_closed(uv_handle_t *timer)
{
    on_part_closed(timer->data);
}

static void on_unlinked(void *ctx)
{
    on_part_closed(ctx);
}

void ml_session_leave(struct ml_session_seat *seat, void (*closed)(void *ctx), void *ctx)
{
    seat->leaving = true;
    seat->closed = closed;
    seat->closed_ctx = ctx;
    uv_close((uv_handle_t *)&seat->retry, on_timer_closed);
    seat->sessions->backend->unlink(seat->link, on_unlinked, seat);
}

bool ml_session_ready(struct ml_session_seat *seat, struct ml_err *err)
{
    return seat->sessions->backend->ready(seat->link, err);
}
