/* Reading sessions: open parts through the cache, tokens from the store; and the touch that keeps
 * an idle limit alive. On the thread of the seat. */
#include "store/session_internal.h"

#include "base/clock.h"

#include <stdlib.h>

struct read {
    struct ml_session_op op;
    struct ml_entry *old; /* what the cache had, no longer fresh */
};

static void answer_none(ml_session_fn done, void *arg)
{
    done(arg, &(struct ml_session_reply){.found = false});
}

static void on_touched(void *arg, const struct ml_session_answer *answer)
{
    struct ml_session_seat *seat = arg;
    if (answer->error) /* the next read tries again */
        ml_session_count(&seat->sessions->failures);
}

/* By compare and set: who lost the race was touched, replaced or ended by another. */
static void touch(struct ml_session_seat *seat, const struct ml_digest *key,
                  struct ml_session_record *r, int64_t now_ms)
{
    struct ml_sessions *s = seat->sessions;
    struct ml_buf sealed;
    r->touched_ms = now_ms;
    r->version++;
    ml_buf_init(&sealed, ML_SESSION_VALUE_MAX);
    if (ml_session_record_seal(r, s->keys, key, &sealed) == 0) {
        ml_session_count(&s->writes);
        s->backend->put(seat->link,
                        &(struct ml_session_put){.key = key,
                                                 .value = ml_buf_str(&sealed),
                                                 .expires_ms = ml_session_record_expiry(r),
                                                 .revision = r->version,
                                                 .replaces = r->version - 1,
                                                 .index = r->index,
                                                 .index_count = r->index_count},
                        on_touched, seat);
    }
    ml_buf_done(&sealed);
}

/* A session that has ended here and is in the store yet: a replica that lags behind, or a fail-over
 * that lost the end. The end is asked for again (S-423). */
static void end_again(struct ml_session_op *op)
{
    struct ml_sessions *s = op->seat->sessions;
    ml_tombstones_add(s->tombstones, &op->key, false);
    ml_cache_remove(s->cache, &op->key);
    ml_session_retry_soon(op->seat);
}

static void give_entry(struct read *read, struct ml_session_record *r, int64_t now)
{
    struct ml_session_op *op = &read->op;
    struct ml_sessions *s = op->seat->sessions;
    bool ended;
    struct ml_entry *e = ml_session_cache_put(s, &op->key, r, now, read->old, &ended);
    if (ended)
        end_again(op);
    else if (e && ml_session_record_stale(r, now))
        touch(op->seat, &op->key, r, now);
    op->done(op->arg, &(struct ml_session_reply){.error = e || ended ? 0 : ML_E_NOMEM,
                                                 .text = e || ended ? NULL : "out of memory",
                                                 .found = e != NULL,
                                                 .entry = e});
}

static void on_read(void *arg, const struct ml_session_answer *answer)
{
    struct read *read = arg;
    struct ml_session_op *op = &read->op;
    struct ml_sessions *s = op->seat->sessions;
    struct ml_session_record r;
    struct ml_buf plain;
    int64_t now = ml_wall_ms();
    ml_session_plain_init(&plain);
    if (answer->error) {
        ml_session_count(&s->failures);
        op->done(op->arg, &(struct ml_session_reply){.error = answer->error, .text = answer->text});
    } else if (!answer->found) {
        ml_cache_remove(s->cache, &op->key);
        answer_none(op->done, op->arg);
    } else if (!ml_session_record_open(&r, s->keys, &op->key, now, answer->value, &plain)) {
        ml_session_count(&s->unreadable);
        ml_cache_remove(s->cache, &op->key);
        answer_none(op->done, op->arg);
    } else {
        give_entry(read, &r, now);
    }
    ml_session_plain_done(&plain);
    ml_entry_unref(read->old);
    free(read);
}

void ml_session_read(struct ml_session_seat *seat, struct ml_str id, ml_session_fn done, void *arg)
{
    struct ml_sessions *s = seat->sessions;
    struct ml_digest key;
    bool fresh = false;
    if (!ml_session_key(id, &key) || ml_tombstones_has(s->tombstones, &key)) {
        answer_none(done, arg);
        return;
    }
    struct ml_entry *e = ml_session_cache_get(s, &key, &fresh);
    if (e && fresh) {
        done(arg, &(struct ml_session_reply){.found = true, .entry = e});
        return;
    }
    struct read *read = ML_NEW(struct read);
    *read = (struct read){{seat, key, done, arg}, e};
    ml_session_count(&s->reads);
    s->backend->get(seat->link, &key, on_read, read);
}

static void on_tokens(void *arg, const struct ml_session_answer *answer)
{
    struct ml_session_op *op = arg;
    struct ml_sessions *s = op->seat->sessions;
    struct ml_session_record r;
    struct ml_session_reply reply = {.error = answer->error, .text = answer->text};
    struct ml_buf plain;
    ml_session_plain_init(&plain);
    if (answer->error) {
        ml_session_count(&s->failures);
    } else if (answer->found && !ml_tombstones_has(s->tombstones, &op->key)) {
        reply.found =
            ml_session_record_open(&r, s->keys, &op->key, ml_wall_ms(), answer->value, &plain);
        if (reply.found) {
            reply.closed = r.closed;
            reply.revision = r.revision;
        } else {
            ml_session_count(&s->unreadable);
        }
    }
    op->done(op->arg, &reply);
    ml_session_plain_done(&plain);
    free(op);
}

void ml_session_tokens(struct ml_session_seat *seat, struct ml_str id, ml_session_fn done,
                       void *arg)
{
    struct ml_digest key;
    if (!ml_session_key(id, &key) || ml_tombstones_has(seat->sessions->tombstones, &key)) {
        answer_none(done, arg);
        return;
    }
    struct ml_session_op *op = ML_NEW(struct ml_session_op);
    *op = (struct ml_session_op){seat, key, done, arg};
    ml_session_count(&seat->sessions->reads);
    seat->sessions->backend->get(seat->link, &key, on_tokens, op);
}
