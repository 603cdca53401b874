/* A link to sessions in Redis, and its calls as if they did not wait. */
#pragma once

#include "c/client/redis_support.h"
#include "store/session_redis.h"

struct place {
    struct world w;
    void *store;
    struct ml_session_link *link;
    bool closed;
};

static const struct ml_session_backend *const redis = &ml_session_redis;

static inline void on_link_closed(void *ctx)
{
    ((struct place *)ctx)->closed = true;
}

static inline void place_open(struct place *p, struct ml_redis_options o)
{
    struct ml_err err = {0};
    memset(p, 0, sizeof *p);
    world_loop(&p->w);
    if (ml_redis_store_new(&p->store, &o, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(redis->link(p->store, &p->w.loop, &p->link, &err), 0);
}

static inline void place_close(struct place *p)
{
    redis->unlink(p->link, on_link_closed, p);
    world_close(&p->w);
    assert_true(p->closed);
    redis->close(p->store);
}

struct got {
    bool done, found;
    int error;
    char text[256], value[256];
    size_t n;
    int64_t expires_ms;
    struct ml_digest keys[2000];
    size_t key_count;
};

static inline void on_got(void *arg, const struct ml_session_answer *a)
{
    struct got *g = arg;
    assert_false(g->done);
    g->done = true;
    g->error = a->error;
    g->found = a->found;
    snprintf(g->text, sizeof g->text, "%s", a->text ? a->text : "");
    g->n = a->value.n;
    if (a->value.n > 0 && a->value.n < sizeof g->value)
        memcpy(g->value, a->value.p, a->value.n);
    g->expires_ms = a->expires_ms;
    g->key_count = a->key_count;
    assert_true(a->key_count <= 2000);
    if (a->key_count)
        memcpy(g->keys, a->keys, a->key_count * sizeof *a->keys);
}

static struct got last;

static inline struct got *wait_for(struct place *p)
{
    WAIT_FOR(&p->w, last.done, 5000);
    return &last;
}

static inline struct got *begin(struct place *p)
{
    memset(&last, 0, sizeof last);
    uv_update_time(&p->w.loop);
    return &last;
}

static inline struct ml_digest digest_of(unsigned n)
{
    struct ml_digest d;
    memset(&d, 0xa5, sizeof d);
    memcpy(d.b + 20, &n, sizeof n);
    return d;
}

static inline struct got *get(struct place *p, unsigned key)
{
    struct ml_digest d = digest_of(key);
    redis->get(p->link, &d, on_got, begin(p));
    return wait_for(p);
}

static inline struct got *put_indexed(struct place *p, unsigned key, const char *value,
                                      uint64_t revision, uint64_t replaces, int64_t life,
                                      unsigned index)
{
    struct ml_digest d = digest_of(key), i[2] = {digest_of(index), digest_of(index + 1)};
    struct ml_session_put what = {&d, ml_str_z(value), ml_wall_ms() + life, revision, replaces,
                                  i,  index ? 2 : 0};
    redis->put(p->link, &what, on_got, begin(p));
    return wait_for(p);
}

static inline struct got *put(struct place *p, unsigned key, const char *value, uint64_t revision,
                              uint64_t replaces, int64_t life)
{
    return put_indexed(p, key, value, revision, replaces, life, 0);
}

static inline struct got *remove_one(struct place *p, unsigned key)
{
    struct ml_digest d = digest_of(key);
    redis->remove(p->link, &d, on_got, begin(p));
    return wait_for(p);
}

static inline struct got *kill_all(struct place *p, unsigned index)
{
    struct ml_digest d = digest_of(index);
    redis->kill(p->link, &d, on_got, begin(p));
    return wait_for(p);
}

static inline struct got *lock(struct place *p, unsigned key, uint32_t ms)
{
    struct ml_digest d = digest_of(key);
    redis->lock(p->link, &d, ms, on_got, begin(p));
    return wait_for(p);
}

static inline void unlock(struct place *p, unsigned key)
{
    struct ml_digest d = digest_of(key);
    redis->unlock(p->link, &d);
    run_for(&p->w, 20);
}
