/* Sessions in Redis. Everything is one command on one key, so that it works in a cluster:
 *
 *   moonlatch:s:KEY    the record: revision and end (16 hex digits each), then the value; PX
 *   moonlatch:i:INDEX  sorted set of KEYs by end, with its own expiry
 *   moonlatch:l:KEY    a lock: a random token; PX
 *
 * An index entry is there before its record is: a kill that comes in between leaves the entry, and
 * the next one finds it. Entries of records that are gone stay until their time; nobody minds.
 *
 * A Redis user needs ~moonlatch:* and &moonlatch:events, and: get set del eval zadd zrange zrem
 * zremrangebyscore pexpireat publish subscribe ping select; role, asking, cluster|slots where they
 * apply.
 *
 * The store is any thread's; a link, and all that it starts, belongs to its loop's thread. */
#include "store/session_redis_internal.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    HEAD = 32, /* in front of a value */
    TOKEN = 32,
    LOCKS_MAX = 1024, /* held by a link */
};

struct store {
    struct ml_redis_setup *setup;
};

struct lock {
    TAILQ_ENTRY(lock) link;
    struct ml_digest key;
    char token[TOKEN + 1];
    uint64_t until_ms; /* of the loop's time: nothing is there to unlock after it */
};
TAILQ_HEAD(locks, lock);

struct ml_session_link {
    struct ml_redis *redis;
    uv_loop_t *loop;
    struct locks locks;
    size_t lock_count;
    struct ml_session_redis_notes notes;
    unsigned parts; /* not closed yet: the notes, the client */
    void (*closed)(void *ctx);
    void *closed_ctx;
};

/* What goes with a command that has one answer. */
struct call {
    struct ml_session_link *l;
    ml_session_done done;
    void *arg;
    struct ml_digest key; /* of a lock */
};

static struct call *call_new(struct ml_session_link *l, ml_session_done done, void *arg)
{
    struct call *c = ML_NEW(struct call);
    *c = (struct call){.l = l, .done = done, .arg = arg};
    return c;
}

static void end(struct call *c, const struct ml_session_answer *answer)
{
    ml_session_done done = c->done;
    void *arg = c->arg;
    free(c);
    done(arg, answer);
}

/* Get ----------------------------------------------------------------------------------------- */

/* What is not ours is not found: a foreign value is no record (S-425). */
static void read_record(struct ml_str text, struct ml_session_answer *ret)
{
    uint64_t revision, expires;
    if (text.n < HEAD || text.n > HEAD + ML_SESSION_VALUE_MAX ||
        !ml_session_redis_hex(text.p, &revision) || !ml_session_redis_hex(text.p + 16, &expires) ||
        expires > INT64_MAX)
        return;
    if ((int64_t)expires <= ml_wall_ms())
        return;
    ret->found = true;
    ret->value = ml_str(text.p + HEAD, text.n - HEAD);
    ret->expires_ms = (int64_t)expires;
}

static void on_got(void *arg, const struct ml_redis_answer *a)
{
    struct ml_session_answer answer = {.error = a->error, .text = a->text};
    if (a->error == 0 && a->reply->type == ML_REDIS_STRING)
        read_record(a->reply->text, &answer);
    end(arg, &answer);
}

static void get(struct ml_session_link *l, const struct ml_digest *key, ml_session_done done,
                void *arg)
{
    char text[ML_SESSION_REDIS_KEY];
    struct ml_str args[] = {ML_STR("GET"), ml_session_redis_key(text, 's', key)};
    ml_redis_call(l->redis, args, 2, 1, on_got, call_new(l, done, arg));
}

/* Put ----------------------------------------------------------------------------------------- */

/* A put waits for its index entries before its record goes. */
struct put {
    struct ml_session_link *l;
    ml_session_done done;
    void *arg;
    struct ml_digest key;
    int64_t expires_ms;
    uint64_t revision, replaces;
    unsigned waiting;
    int error;
    char why[256];
    size_t n;
    char value[]; /* with its head */
};

static void put_end(struct put *p, bool found)
{
    struct ml_session_answer answer = {.error = p->error, .text = p->why, .found = found};
    p->done(p->arg, &answer);
    free(p);
}

static void put_failed(struct put *p, const struct ml_redis_answer *a)
{
    p->error = a->error;
    snprintf(p->why, sizeof p->why, "%s", a->text);
}

static void on_put(void *arg, const struct ml_redis_answer *a)
{
    struct put *p = arg;
    if (a->error)
        put_failed(p, a);
    put_end(p, a->error == 0 && (a->reply->type == ML_REDIS_STATUS ||
                                 (a->reply->type == ML_REDIS_INTEGER && a->reply->integer == 1)));
}

static void put_record(struct put *p)
{
    static const char replace[] = "local v = redis.call('GET', KEYS[1]) "
                                  "if not v or string.sub(v, 1, 16) ~= ARGV[1] then return 0 end "
                                  "redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1";
    char key[ML_SESSION_REDIS_KEY], ms[24], revision[24];
    int64_t left = p->expires_ms - ml_wall_ms();
    struct ml_str record = ml_session_redis_key(key, 's', &p->key),
                  life = ml_session_redis_number(ms, left > 0 ? left : 1);
    struct ml_str value = ml_str(p->value, p->n);
    if (p->replaces == 0) {
        struct ml_str args[] = {ML_STR("SET"), record, value, ML_STR("NX"), ML_STR("PX"), life};
        ml_redis_call(p->l->redis, args, 6, 1, on_put, p);
    } else {
        snprintf(revision, sizeof revision, "%016llx", (unsigned long long)p->replaces);
        struct ml_str args[] = {ML_STR("EVAL"),
                                ml_str_z(replace),
                                ML_STR("1"),
                                record,
                                ml_str(revision, 16),
                                value,
                                life};
        ml_redis_call(p->l->redis, args, 7, 3, on_put, p);
    }
}

static void on_indexed(void *arg, const struct ml_redis_answer *a)
{
    struct put *p = arg;
    if (a->error)
        put_failed(p, a);
    if (--p->waiting > 0)
        return;
    if (p->error)
        put_end(p, false);
    else
        put_record(p);
}

static void put(struct ml_session_link *l, const struct ml_session_put *what, ml_session_done done,
                void *arg)
{
    if (what->value.n > ML_SESSION_VALUE_MAX) {
        struct ml_session_answer answer = {.error = ML_E_TOOBIG, .text = "the record is too big"};
        done(arg, &answer);
        return;
    }
    struct put *p = ml_xcalloc(1, sizeof *p + HEAD + what->value.n + 1);
    p->l = l;
    p->done = done;
    p->arg = arg;
    p->key = *what->key;
    p->expires_ms = what->expires_ms > 0 ? what->expires_ms : 0;
    p->revision = what->revision;
    p->replaces = what->replaces;
    p->n = HEAD + what->value.n;
    snprintf(p->value, HEAD + 1, "%016llx%016llx", (unsigned long long)p->revision,
             (unsigned long long)p->expires_ms);
    if (what->value.n)
        memcpy(p->value + HEAD, what->value.p, what->value.n);
    size_t count = what->index_count;
    ML_REQUIRE(count <= ML_SESSION_INDEX_MAX);
    p->waiting = (unsigned)count;
    if (count == 0)
        put_record(p);
    for (size_t i = 0; i < count; i++) /* the last may be the end of p */
        ml_session_redis_index(l, &what->index[i], what->key, what->expires_ms, on_indexed, p);
}

/* Remove -------------------------------------------------------------------------------------- */

static void on_removed(void *arg, const struct ml_redis_answer *a)
{
    struct ml_session_answer answer = {.error = a->error, .text = a->text};
    answer.found = a->error == 0 && a->reply->integer > 0;
    end(arg, &answer);
}

static void remove_record(struct ml_session_link *l, const struct ml_digest *key,
                          ml_session_done done, void *arg)
{
    char text[ML_SESSION_REDIS_KEY];
    struct ml_str args[] = {ML_STR("DEL"), ml_session_redis_key(text, 's', key)};
    ml_redis_call(l->redis, args, 2, 1, on_removed, call_new(l, done, arg));
}

/* Locks --------------------------------------------------------------------------------------- */

static void forget_lock(struct ml_session_link *l, struct lock *lock)
{
    TAILQ_REMOVE(&l->locks, lock, link);
    l->lock_count--;
    free(lock);
}

static struct lock *find_lock(struct ml_session_link *l, const struct ml_digest *key)
{
    struct lock *lock;
    TAILQ_FOREACH(lock, &l->locks, link)
    {
        if (memcmp(lock->key.b, key->b, sizeof key->b) == 0)
            return lock;
    }
    return NULL;
}

static void forget_locks_until(struct ml_session_link *l, uint64_t until_ms)
{
    struct lock *lock, *next;
    for (lock = TAILQ_FIRST(&l->locks); lock; lock = next) {
        next = TAILQ_NEXT(lock, link);
        if (lock->until_ms <= until_ms)
            forget_lock(l, lock);
    }
}

static void on_locked(void *arg, const struct ml_redis_answer *a)
{
    struct call *c = arg;
    struct ml_session_answer answer = {.error = a->error, .text = a->text};
    answer.found = a->error == 0 && a->reply->type == ML_REDIS_STATUS;
    /* After an error it may be ours; then it ends by itself. */
    struct lock *lock = answer.found ? NULL : find_lock(c->l, &c->key);
    if (lock)
        forget_lock(c->l, lock);
    end(c, &answer);
}

static struct lock *lock_new(struct ml_session_link *l, const struct ml_digest *key, uint32_t ms)
{
    uint8_t random[TOKEN / 2];
    struct lock *lock = ML_NEW(struct lock);
    lock->key = *key;
    lock->until_ms = uv_now(l->loop) + ms;
    if (!ml_random(random, sizeof random)) {
        free(lock);
        return NULL;
    }
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(lock->token + 2 * i, 3, "%02x", random[i]);
    TAILQ_INSERT_TAIL(&l->locks, lock, link);
    l->lock_count++;
    return lock;
}

static void take_lock(struct ml_session_link *l, const struct ml_digest *key, uint32_t ms,
                      ml_session_done done, void *arg)
{
    char text[ML_SESSION_REDIS_KEY], life[24];
    struct ml_session_answer answer = {0};
    forget_locks_until(l, uv_now(l->loop));
    if (find_lock(l, key)) { /* our own: taken */
        done(arg, &answer);
        return;
    }
    struct lock *lock = l->lock_count < LOCKS_MAX ? lock_new(l, key, ms) : NULL;
    if (!lock) {
        answer = (struct ml_session_answer){.error = ML_E_BUSY, .text = "too many locks"};
        done(arg, &answer);
        return;
    }
    struct call *c = call_new(l, done, arg);
    c->key = *key;
    struct ml_str args[] = {ML_STR("SET"),
                            ml_session_redis_key(text, 'l', key),
                            ml_str(lock->token, TOKEN),
                            ML_STR("NX"),
                            ML_STR("PX"),
                            ml_session_redis_number(life, ms)};
    ml_redis_call(l->redis, args, 6, 1, on_locked, c);
}

static void release_lock(struct ml_session_link *l, const struct ml_digest *key)
{
    static const char release[] = "if redis.call('GET', KEYS[1]) == ARGV[1] then "
                                  "return redis.call('DEL', KEYS[1]) end return 0";
    char text[ML_SESSION_REDIS_KEY];
    struct lock *lock = find_lock(l, key);
    if (!lock)
        return;
    struct ml_str args[] = {ML_STR("EVAL"), ml_str_z(release), ML_STR("1"),
                            ml_session_redis_key(text, 'l', key), ml_str(lock->token, TOKEN)};
    ml_redis_call(l->redis, args, 5, 3, NULL, NULL);
    forget_lock(l, lock);
}

/* Messages, life ------------------------------------------------------------------------------ */

static void publish(struct ml_session_link *l, struct ml_str message)
{
    ml_session_redis_publish(&l->notes, message);
}

static void on_message(struct ml_session_link *l, void (*fn)(void *ctx, struct ml_str message),
                       void *ctx)
{
    ml_redis_subscribe(l->redis, ML_SESSION_REDIS_CHANNEL, fn, ctx);
}

static bool ready(struct ml_session_link *l, struct ml_err *err)
{
    return ml_redis_ready(l->redis, err);
}

struct ml_redis *ml_session_redis_client(struct ml_session_link *l)
{
    return l->redis;
}

static int link_to(void *store, uv_loop_t *loop, struct ml_session_link **ret, struct ml_err *err)
{
    struct ml_session_link *l = ML_NEW(struct ml_session_link);
    l->loop = loop;
    TAILQ_INIT(&l->locks);
    int r = ml_redis_new(&l->redis, loop, ((struct store *)store)->setup);
    if (r < 0) {
        free(l);
        return ml_fail(err, r, "Redis: no client");
    }
    ml_session_redis_notes_init(&l->notes, l->redis, loop);
    l->parts = 2;
    *ret = l;
    return 0;
}

static void on_part_closed(void *ctx)
{
    struct ml_session_link *l = ctx;
    if (--l->parts > 0)
        return;
    void (*closed)(void *ctx) = l->closed;
    void *closed_ctx = l->closed_ctx;
    forget_locks_until(l, UINT64_MAX);
    free(l);
    closed(closed_ctx);
}

static void unlink_from(struct ml_session_link *l, void (*closed)(void *ctx), void *ctx)
{
    l->closed = closed;
    l->closed_ctx = ctx;
    ml_session_redis_notes_close(&l->notes, on_part_closed, l);
    ml_redis_close(l->redis, on_part_closed, l);
}

static void store_close(void *store)
{
    struct store *s = store;
    ml_redis_setup_free(s->setup);
    free(s);
}

int ml_redis_store_new(void **store, const struct ml_redis_options *options, struct ml_err *err)
{
    struct store *s = ML_NEW(struct store);
    int r = ml_redis_setup_new(&s->setup, options, err);
    if (r < 0) {
        free(s);
        return r;
    }
    *store = s;
    return 0;
}

const struct ml_session_backend ml_session_redis = {
    .name = "redis",
    .link = link_to,
    .unlink = unlink_from,
    .get = get,
    .put = put,
    .remove = remove_record,
    .kill = ml_session_redis_kill,
    .lock = take_lock,
    .unlock = release_lock,
    .publish = publish,
    .on_message = on_message,
    .ready = ready,
    .close = store_close,
};
