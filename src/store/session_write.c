/* Changing sessions: create, replace, end one, end by index; locks. On the thread of the seat. */
#include "store/session_internal.h"

#include "base/clock.h"
#include "codec/text.h"

#include <stdlib.h>

enum { REPLACE_TRIES = 4 };

/* Ten years in ms: what is longer is not meant. */
static const int64_t longest_ms = INT64_C(1000) * 86400 * 3660;

static void fail(ml_session_fn done, void *arg, int error, const char *text)
{
    done(arg, &(struct ml_session_reply){.error = error, .text = text});
}

/* The label keeps these hashes apart from all others; no secret, since replicas and a new key must
 * find them again. */
static bool index_hash(struct ml_str kind, struct ml_str value, struct ml_digest *ret)
{
    static const uint8_t label[32] = "moonlatch session index 1";
    return ml_keyed_hash(label, (const struct ml_str[]){kind, value}, 2, ret);
}

static const char *seal_failure(int error)
{
    return error == ML_E_TOOBIG  ? "the session is larger than 64 KiB"
           : error == ML_E_NOMEM ? "out of memory"
                                 : "the session cannot be sealed";
}

/* Seals r and puts it in place of the version before. 0, or what ml_session_record_seal says: then
 * done will not run. */
static int put(struct ml_session_seat *seat, const struct ml_digest *key,
               const struct ml_session_record *r, ml_session_done done, void *arg)
{
    struct ml_sessions *s = seat->sessions;
    struct ml_buf sealed;
    ml_buf_init(&sealed, ML_SESSION_VALUE_MAX);
    int result = ml_session_record_seal(r, s->keys, key, &sealed);
    if (result == 0) {
        ml_session_count(&s->writes);
        s->backend->put(seat->link,
                        &(struct ml_session_put){.key = key,
                                                 .value = ml_buf_str(&sealed),
                                                 .expires_ms = ml_session_record_expiry(r),
                                                 .revision = r->version,
                                                 .replaces = r->version - 1,
                                                 .index = r->index,
                                                 .index_count = r->index_count},
                        done, arg);
    }
    ml_buf_done(&sealed);
    return result;
}

/* Create -------------------------------------------------------------------------------------- */

struct create {
    struct ml_session_op op;
    char id[ML_SESSION_ID + 1];
};

static bool make_id(char id[ML_SESSION_ID + 1], struct ml_digest *key)
{
    uint8_t random[32];
    struct ml_buf text;
    ml_buf_init(&text, 64);
    bool ok = ml_random(random, sizeof random) &&
              ml_buf_add_str(&text, ML_STR(ML_SESSION_PREFIX)) &&
              ml_base64url_encode(ml_str((const char *)random, sizeof random), &text) &&
              text.n == ML_SESSION_ID;
    if (ok) {
        memcpy(id, text.p, ML_SESSION_ID);
        id[ML_SESSION_ID] = 0;
        ok = ml_session_key(ml_buf_str(&text), key);
    }
    ml_wipe(random, sizeof random);
    ml_buf_done(&text);
    return ok;
}

static void on_created(void *arg, const struct ml_session_answer *answer)
{
    struct create *c = arg;
    struct ml_session_reply reply = {.error = answer->error, .text = answer->text};
    if (!answer->error && !answer->found) { /* 2^-256 */
        reply.error = ML_E_BUSY;
        reply.text = "the session id is taken";
    }
    if (reply.error)
        ml_session_count(&c->op.seat->sessions->failures);
    else
        memcpy(reply.id, c->id, sizeof reply.id);
    c->op.done(c->op.arg, &reply);
    ml_wipe(&reply, sizeof reply);
    ml_wipe(c->id, sizeof c->id);
    free(c);
}

static bool new_record(const struct ml_session_new *what, struct ml_session_record *r)
{
    int64_t now = ml_wall_ms();
    int64_t life = what->lifetime_ms < longest_ms ? what->lifetime_ms : longest_ms;
    *r = (struct ml_session_record){.revision = 1,
                                    .version = 1,
                                    .created_ms = now,
                                    .ends_ms = now + life,
                                    .touched_ms = now,
                                    .idle_ms = what->idle_ms < life ? what->idle_ms : life,
                                    .index_count = what->index_count,
                                    .open = what->open,
                                    .closed = what->closed};
    for (size_t i = 0; i < what->index_count; i++)
        if (!index_hash(what->kinds[i], what->values[i], &r->index[i]))
            return false;
    /* By which all are found. */
    return index_hash(ML_STR("all"), ML_STR(""), &r->index[r->index_count++]);
}

void ml_session_create(struct ml_session_seat *seat, const struct ml_session_new *what,
                       ml_session_fn done, void *arg)
{
    struct ml_session_record r;
    struct create *c = ML_NEW(struct create);
    c->op = (struct ml_session_op){.seat = seat, .done = done, .arg = arg};
    if (what->index_count >= ML_SESSION_INDEX_MAX || what->lifetime_ms <= 0) {
        fail(done, arg, ML_E_INVALID, "a session needs a life, and has at most three index values");
    } else if (!new_record(what, &r) || !make_id(c->id, &c->op.key)) {
        fail(done, arg, ML_E_IO, "no session id can be made"); /* S-072 */
    } else {
        int result = put(seat, &c->op.key, &r, on_created, c);
        if (result == 0)
            return;
        fail(done, arg, result, seal_failure(result));
    }
    free(c);
}

/* Replace: read, compare the revision, write; again when a touch came between ------------------ */

struct replace {
    struct ml_session_op op;
    uint64_t revision;
    struct ml_buf open, closed; /* copies */
    int tries;
};

static void end_replace(struct replace *r, const struct ml_session_reply *reply)
{
    if (reply->error)
        ml_session_count(&r->op.seat->sessions->failures);
    r->op.done(r->op.arg, reply);
    if (r->closed.p)
        ml_wipe(r->closed.p, r->closed.n);
    ml_buf_done(&r->closed);
    ml_buf_done(&r->open);
    free(r);
}

static void read_for_replace(struct replace *r);

static void on_replaced(void *arg, const struct ml_session_answer *answer)
{
    struct replace *r = arg;
    struct ml_sessions *s = r->op.seat->sessions;
    if (!answer->error && !answer->found && r->tries < REPLACE_TRIES) {
        read_for_replace(r);
        return;
    }
    ml_cache_remove(s->cache, &r->op.key);
    end_replace(r, &(struct ml_session_reply){.error = answer->error,
                                              .text = answer->text,
                                              .found = !answer->error && answer->found,
                                              .conflict = !answer->error && !answer->found});
}

static void on_read_for_replace(void *arg, const struct ml_session_answer *answer)
{
    struct replace *r = arg;
    struct ml_sessions *s = r->op.seat->sessions;
    struct ml_session_record record;
    struct ml_session_reply reply = {.error = answer->error, .text = answer->text};
    struct ml_buf plain;
    int64_t now = ml_wall_ms();
    bool put_it = false;
    ml_session_plain_init(&plain);
    if (!answer->error && answer->found && !ml_tombstones_has(s->tombstones, &r->op.key) &&
        ml_session_record_open(&record, s->keys, &r->op.key, now, answer->value, &plain)) {
        put_it = record.revision == r->revision;
        reply.conflict = !put_it;
    }
    if (put_it) {
        record.revision++;
        record.version++;
        record.touched_ms = now;
        record.open = ml_buf_str(&r->open);
        record.closed = ml_buf_str(&r->closed);
        reply.error = put(r->op.seat, &r->op.key, &record, on_replaced, r);
        if (reply.error)
            reply.text = seal_failure(reply.error);
        put_it = reply.error == 0; /* r may be gone */
    }
    ml_session_plain_done(&plain);
    if (!put_it)
        end_replace(r, &reply);
}

static void read_for_replace(struct replace *r)
{
    struct ml_session_seat *seat = r->op.seat;
    r->tries++;
    ml_session_count(&seat->sessions->reads);
    seat->sessions->backend->get(seat->link, &r->op.key, on_read_for_replace, r);
}

void ml_session_replace(struct ml_session_seat *seat, struct ml_str id, uint64_t revision,
                        struct ml_str open, struct ml_str closed, ml_session_fn done, void *arg)
{
    struct ml_digest key;
    if (!ml_session_key(id, &key)) {
        done(arg, &(struct ml_session_reply){.found = false});
        return;
    }
    struct replace *r = ML_NEW(struct replace);
    r->op = (struct ml_session_op){seat, key, done, arg};
    r->revision = revision;
    ml_buf_init(&r->open, ML_SESSION_VALUE_MAX);
    ml_buf_init(&r->closed, ML_SESSION_VALUE_MAX);
    if (ml_buf_add_str(&r->open, open) && ml_buf_add_str(&r->closed, closed))
        read_for_replace(r);
    else
        end_replace(
            r, &(struct ml_session_reply){.error = ML_E_TOOBIG, .text = seal_failure(ML_E_TOOBIG)});
}

/* Ends ---------------------------------------------------------------------------------------- */

struct end {
    struct ml_session_op op;
    bool dead; /* has a tombstone */
};

static void on_removed(void *arg, const struct ml_session_answer *answer)
{
    struct end *end = arg;
    struct ml_session_seat *seat = end->op.seat;
    struct ml_session_reply reply = {.error = answer->error, .text = answer->text};
    if (!answer->error) {
        ml_session_gone(seat->sessions, &end->op.key);
        ml_session_tell_gone(seat, &end->op.key, 1);
        reply.found = answer->found;
    } else {
        ml_session_count(&seat->sessions->failures);
        if (!end->dead) {
            reply.error = ML_E_BUSY;
            reply.text = "too many sessions wait for their end, and the store is away";
        }
        ml_session_retry_soon(seat);
    }
    end->op.done(end->op.arg, &reply);
    free(end);
}

void ml_session_delete(struct ml_session_seat *seat, struct ml_str id, ml_session_fn done,
                       void *arg)
{
    struct ml_sessions *s = seat->sessions;
    struct ml_digest key;
    if (!ml_session_key(id, &key)) {
        done(arg, &(struct ml_session_reply){.found = false});
        return;
    }
    struct end *end = ML_NEW(struct end);
    *end = (struct end){{seat, key, done, arg}, ml_tombstones_add(s->tombstones, &key, false)};
    ml_cache_remove(s->cache, &key);
    ml_session_count(&s->writes);
    s->backend->remove(seat->link, &key, on_removed, end);
}

static void on_killed(void *arg, const struct ml_session_answer *answer)
{
    struct ml_session_op *op = arg;
    struct ml_session_reply reply = {.error = answer->error, .text = answer->text};
    /* Also with an error: what the store managed to remove is gone. */
    for (size_t i = 0; i < answer->key_count; i++)
        ml_session_gone(op->seat->sessions, &answer->keys[i]);
    ml_session_tell_gone(op->seat, answer->keys, answer->key_count);
    if (answer->error)
        ml_session_count(&op->seat->sessions->failures);
    else
        reply.count = answer->key_count;
    op->done(op->arg, &reply);
    free(op);
}

void ml_session_kill(struct ml_session_seat *seat, struct ml_str kind, struct ml_str value,
                     ml_session_fn done, void *arg)
{
    struct ml_digest index;
    if (!index_hash(kind, value, &index)) {
        fail(done, arg, ML_E_IO, "the index cannot be hashed");
        return;
    }
    struct ml_session_op *op = ML_NEW(struct ml_session_op);
    *op = (struct ml_session_op){.seat = seat, .done = done, .arg = arg};
    ml_session_count(&seat->sessions->writes);
    seat->sessions->backend->kill(seat->link, &index, on_killed, op);
}

/* Locks --------------------------------------------------------------------------------------- */

static void on_locked(void *arg, const struct ml_session_answer *answer)
{
    struct ml_session_op *op = arg;
    if (answer->error)
        ml_session_count(&op->seat->sessions->failures);
    op->done(op->arg, &(struct ml_session_reply){.error = answer->error,
                                                 .text = answer->text,
                                                 .found = !answer->error && answer->found});
    free(op);
}

void ml_session_lock(struct ml_session_seat *seat, struct ml_str id, uint32_t ms,
                     ml_session_fn done, void *arg)
{
    struct ml_digest key;
    if (!ml_session_key(id, &key)) {
        done(arg, &(struct ml_session_reply){.found = false});
        return;
    }
    struct ml_session_op *op = ML_NEW(struct ml_session_op);
    *op = (struct ml_session_op){seat, key, done, arg};
    seat->sessions->backend->lock(seat->link, &key, ms, on_locked, op);
}

void ml_session_unlock(struct ml_session_seat *seat, struct ml_str id)
{
    struct ml_digest key;
    if (ml_session_key(id, &key))
        seat->sessions->backend->unlock(seat->link, &key);
}
