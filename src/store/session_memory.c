/* The memory store: a chained hash table under one lock; every call is answered before it returns.
 * Indexes are found by looking at every record: it is for tests. Any thread. */
#include "store/session_memory.h"

#include "base/clock.h"
#include "base/mem.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 1 << 10 };

struct record {
    struct record *next;
    struct ml_digest key;
    int64_t expires_ms;
    uint64_t revision;
    struct ml_digest index[ML_SESSION_INDEX_MAX];
    size_t index_count, n;
    char value[];
};

struct store {
    pthread_mutex_t lock;
    size_t count, max;
    struct record *buckets[BUCKETS];
    _Atomic bool failing;
};

struct ml_session_link {
    struct store *store;
    uv_timer_t timer; /* never runs: it is there to be closed */
    void (*closed)(void *ctx);
    void *ctx;
};

void *ml_session_memory_new(size_t max)
{
    struct store *s = ML_NEW(struct store);
    pthread_mutex_init(&s->lock, NULL);
    s->max = max;
    return s;
}

void ml_session_memory_fail(void *store, bool on)
{
    struct store *s = store;
    s->failing = on;
}

/* The link that points at the key's record, or at NULL. What is over is dropped on the way. */
static struct record **find(struct store *s, const struct ml_digest *key)
{
    int64_t now = ml_wall_ms();
    struct record **link = &s->buckets[(key->b[0] | key->b[1] << 8) % BUCKETS];
    while (*link) {
        struct record *r = *link;
        if (r->expires_ms <= now) {
            *link = r->next;
            s->count--;
            free(r);
            continue;
        }
        if (memcmp(&r->key, key, sizeof *key) == 0)
            break;
        link = &r->next;
    }
    return link;
}

static void drop(struct store *s, struct record **link)
{
    struct record *r = *link;
    *link = r->next;
    s->count--;
    free(r);
}

static bool failing(struct ml_session_link *l, ml_session_done done, void *arg)
{
    if (!l->store->failing)
        return false;
    done(arg, &(struct ml_session_answer){.error = ML_E_UNAVAILABLE,
                                          .text = "the store is told to fail"});
    return true;
}

static int link_open(void *store, uv_loop_t *loop, struct ml_session_link **ret, struct ml_err *err)
{
    struct ml_session_link *l = ML_NEW(struct ml_session_link);
    l->store = store;
    uv_timer_init(loop, &l->timer);
    l->timer.data = l;
    *ret = l;
    return 0;
}

static void on_closed(uv_handle_t *timer)
{
    struct ml_session_link *l = timer->data;
    void (*closed)(void *) = l->closed;
    void *ctx = l->ctx;
    free(l);
    closed(ctx);
}

static void link_close(struct ml_session_link *l, void (*closed)(void *ctx), void *ctx)
{
    l->closed = closed;
    l->ctx = ctx;
    uv_close((uv_handle_t *)&l->timer, on_closed);
}

static void get(struct ml_session_link *l, const struct ml_digest *key, ml_session_done done,
                void *arg)
{
    struct ml_session_answer answer = {.found = false};
    char *copy = NULL;
    if (failing(l, done, arg))
        return;
    pthread_mutex_lock(&l->store->lock);
    const struct record *r = *find(l->store, key);
    if (r) {
        copy = ml_xmalloc(r->n ? r->n : 1);
        memcpy(copy, r->value, r->n);
        answer.found = true;
        answer.value = ml_str(copy, r->n);
        answer.expires_ms = r->expires_ms;
    }
    pthread_mutex_unlock(&l->store->lock);
    done(arg, &answer);
    free(copy);
}

static struct record *record_new(const struct ml_session_put *put)
{
    struct record *r = ml_xcalloc(1, sizeof *r + put->value.n);
    r->key = *put->key;
    r->expires_ms = put->expires_ms;
    r->revision = put->revision;
    r->index_count = put->index_count;
    for (size_t i = 0; i < put->index_count; i++)
        r->index[i] = put->index[i];
    r->n = put->value.n;
    memcpy(r->value, put->value.p, put->value.n);
    return r;
}

static void put_record(struct ml_session_link *l, const struct ml_session_put *put,
                       ml_session_done done, void *arg)
{
    struct store *s = l->store;
    struct ml_session_answer answer = {.found = false};
    if (failing(l, done, arg))
        return;
    pthread_mutex_lock(&s->lock);
    struct record **link = find(s, put->key);
    if ((*link ? (*link)->revision : 0) == put->replaces) {
        if (*link)
            drop(s, link);
        if (s->count >= s->max) {
            answer.error = ML_E_BUSY;
            answer.text = "the memory store is full";
        } else {
            struct record *r = record_new(put), **head = find(s, put->key);
            r->next = *head;
            *head = r;
            s->count++;
            answer.found = true;
        }
    }
    pthread_mutex_unlock(&s->lock);
    done(arg, &answer);
}

static void remove_record(struct ml_session_link *l, const struct ml_digest *key,
                          ml_session_done done, void *arg)
{
    struct ml_session_answer answer = {.found = false};
    if (failing(l, done, arg))
        return;
    pthread_mutex_lock(&l->store->lock);
    struct record **link = find(l->store, key);
    answer.found = *link != NULL;
    if (*link)
        drop(l->store, link);
    pthread_mutex_unlock(&l->store->lock);
    done(arg, &answer);
}

static bool has_index(const struct record *r, const struct ml_digest *index)
{
    for (size_t i = 0; i < r->index_count; i++)
        if (memcmp(&r->index[i], index, sizeof *index) == 0)
            return true;
    return false;
}

static void kill_index(struct ml_session_link *l, const struct ml_digest *index,
                       ml_session_done done, void *arg)
{
    struct store *s = l->store;
    size_t n = 0;
    if (failing(l, done, arg))
        return;
    pthread_mutex_lock(&s->lock);
    struct ml_digest *keys = ml_xcalloc(s->count + 1, sizeof *keys);
    for (size_t b = 0; b < BUCKETS; b++) {
        for (struct record **link = &s->buckets[b]; *link;) {
            if (!has_index(*link, index)) {
                link = &(*link)->next;
                continue;
            }
            keys[n++] = (*link)->key;
            drop(s, link);
        }
    }
    pthread_mutex_unlock(&s->lock);
    done(arg, &(struct ml_session_answer){.found = n > 0, .keys = keys, .key_count = n});
    free(keys);
}

static void lock(struct ml_session_link *l, const struct ml_digest *key, uint32_t ms,
                 ml_session_done done, void *arg)
{
    if (!failing(l, done, arg))
        done(arg, &(struct ml_session_answer){.found = true});
}

static void unlock(struct ml_session_link *l, const struct ml_digest *key)
{
}

static void publish(struct ml_session_link *l, struct ml_str message)
{
}

static void on_message(struct ml_session_link *l, void (*fn)(void *ctx, struct ml_str message),
                       void *ctx)
{
}

static bool ready(struct ml_session_link *l, struct ml_err *err)
{
    if (l->store->failing)
        ml_fail(err, ML_E_UNAVAILABLE, "the store is told to fail");
    return !l->store->failing;
}

static void stats(void *store, struct ml_session_store_stats *ret)
{
    struct store *s = store;
    pthread_mutex_lock(&s->lock);
    ret->sessions = s->count;
    pthread_mutex_unlock(&s->lock);
}

static void store_close(void *store)
{
    struct store *s = store;
    for (size_t b = 0; b < BUCKETS; b++)
        while (s->buckets[b])
            drop(s, &s->buckets[b]);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

const struct ml_session_backend ml_session_memory = {
    .name = "memory",
    .link = link_open,
    .unlink = link_close,
    .get = get,
    .put = put_record,
    .remove = remove_record,
    .kill = kill_index,
    .lock = lock,
    .unlock = unlock,
    .publish = publish,
    .on_message = on_message,
    .ready = ready,
    .stats = stats,
    .close = store_close,
};
