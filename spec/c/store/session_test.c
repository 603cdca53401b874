/* Sessions over the memory store: what is dead stays dead, what is cached is at most a second old,
 * and nothing in the store can be read or moved. */
#include "base/clock.h"
#include "base/mem.h"
#include "store/session.h"
#include "store/session_internal.h"
#include "store/session_memory.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum { CACHE_MS = 1000, MAX = 16 };

/* One process with one seat over the memory store; publish() is written down. */
struct world {
    uv_loop_t loop;
    struct ml_cache *cache;
    struct ml_seal_keys *keys;
    void *store;
    struct ml_sessions *sessions;
    struct ml_session_seat *seat;
    bool closed;
};

static char published[8192];
static void (*deliver)(void *ctx, struct ml_str message);
static void *deliver_ctx;
static struct ml_session_backend backend;

static void publish(struct ml_session_link *l, struct ml_str message)
{
    snprintf(published, sizeof published, "%.*s", ML_FMT(message));
}

static void on_message(struct ml_session_link *l, void (*fn)(void *ctx, struct ml_str message),
                       void *ctx)
{
    deliver = fn;
    deliver_ctx = ctx;
}

static void world_open(struct world *w, const char *keys, uint32_t cache_ms)
{
    struct ml_err err;
    *w = (struct world){.closed = false};
    backend = ml_session_memory;
    backend.publish = publish;
    backend.on_message = on_message;
    published[0] = 0;
    assert_int_equal(uv_loop_init(&w->loop), 0);
    assert_int_equal(ml_seal_keys_new(&w->keys, ml_str_z(keys), &err), 0);
    w->cache = ml_cache_new(4 << 20);
    w->store = ml_session_memory_new(MAX);
    w->sessions = ml_sessions_new(&(struct ml_sessions_options){.backend = &backend,
                                                                .store = w->store,
                                                                .keys = w->keys,
                                                                .cache = w->cache,
                                                                .cache_ms = cache_ms});
    assert_int_equal(ml_session_sit(&w->seat, w->sessions, &w->loop, &err), 0);
}

static void on_closed(void *ctx)
{
    ((struct world *)ctx)->closed = true;
}

static void world_close(struct world *w)
{
    ml_session_leave(w->seat, on_closed, w);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_true(w->closed);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    ml_sessions_free(w->sessions);
    ml_cache_free(w->cache);
    ml_seal_keys_free(w->keys);
}

static const char key_a[] = "the first key of all these tests: 1";

struct got {
    int times, error;
    bool found, conflict;
    char id[ML_SESSION_ID + 1], open[64], closed[64];
    uint64_t entry_id, revision;
    size_t count;
};

static void on_reply(void *arg, const struct ml_session_reply *reply)
{
    struct got *g = arg;
    g->times++;
    g->error = reply->error;
    assert_true((reply->error != 0) == (reply->text != NULL));
    g->found = reply->found;
    g->conflict = reply->conflict;
    memcpy(g->id, reply->id, sizeof g->id);
    g->revision = reply->revision;
    g->count = reply->count;
    snprintf(g->closed, sizeof g->closed, "%.*s", ML_FMT(reply->closed));
    if (reply->entry) {
        snprintf(g->open, sizeof g->open, "%s", reply->entry->bytes);
        g->entry_id = reply->entry->id;
        ml_entry_unref(reply->entry);
    }
}

static struct ml_str id_of(const struct got *g)
{
    return ml_str_z(g->id);
}

static struct got create(struct world *w, const char *open, const char *user, int64_t life,
                         int64_t idle)
{
    struct got g = {.times = 0};
    struct ml_str kinds[] = {ML_STR("user"), ML_STR("sid")},
                  values[] = {ml_str_z(user), ML_STR("s")};
    struct ml_session_new what = {.open = ml_str_z(open),
                                  .closed = ML_STR("{\"refresh\":\"r\"}"),
                                  .lifetime_ms = life,
                                  .idle_ms = idle,
                                  .kinds = kinds,
                                  .values = values,
                                  .index_count = 2};
    ml_session_create(w->seat, &what, on_reply, &g);
    assert_int_equal(g.times, 1);
    return g;
}

static struct got new_session(struct world *w)
{
    struct got g = create(w, "{\"a\":1}", "alice", 60000, 0);
    assert_int_equal(g.error, 0);
    assert_int_equal(strlen(g.id), ML_SESSION_ID);
    return g;
}

static struct got read_id(struct world *w, struct ml_str id)
{
    struct got g = {.times = 0};
    ml_session_read(w->seat, id, on_reply, &g);
    assert_int_equal(g.times, 1);
    return g;
}

static struct got tokens(struct world *w, struct ml_str id)
{
    struct got g = {.times = 0};
    ml_session_tokens(w->seat, id, on_reply, &g);
    assert_int_equal(g.times, 1);
    return g;
}

static struct got replace(struct world *w, struct ml_str id, uint64_t revision, const char *open)
{
    struct got g = {.times = 0};
    ml_session_replace(w->seat, id, revision, ml_str_z(open), ML_STR("{\"refresh\":\"s\"}"),
                       on_reply, &g);
    assert_int_equal(g.times, 1);
    return g;
}

static struct got end(struct world *w, struct ml_str id)
{
    struct got g = {.times = 0};
    ml_session_delete(w->seat, id, on_reply, &g);
    assert_int_equal(g.times, 1);
    return g;
}

static struct got end_all(struct world *w, const char *kind, const char *value)
{
    struct got g = {.times = 0};
    ml_session_kill(w->seat, ml_str_z(kind), ml_str_z(value), on_reply, &g);
    assert_int_equal(g.times, 1);
    return g;
}

static void life_of_a_session(void **state)
{
    struct world w;
    world_open(&w, key_a, CACHE_MS);
    struct got s = new_session(&w), other = new_session(&w);
    assert_string_not_equal(s.id, other.id);
    struct got r = read_id(&w, id_of(&s));
    assert_true(r.found);
    assert_string_equal(r.open, "{\"a\":1}");
    struct got t = tokens(&w, id_of(&s));
    assert_string_equal(t.closed, "{\"refresh\":\"r\"}");
    assert_int_equal(t.revision, 1);
    assert_true(replace(&w, id_of(&s), t.revision, "{\"a\":2}").found);
    r = read_id(&w, id_of(&s)); /* at once, not after the cache's second */
    assert_string_equal(r.open, "{\"a\":2}");
    assert_string_equal(tokens(&w, id_of(&s)).closed, "{\"refresh\":\"s\"}");
    assert_int_equal(tokens(&w, id_of(&s)).revision, 2);
    assert_true(end(&w, id_of(&s)).found);
    assert_false(read_id(&w, id_of(&s)).found);
    assert_false(tokens(&w, id_of(&s)).found);
    r = replace(&w, id_of(&s), 2, "{}");
    assert_false(r.found);
    assert_false(r.conflict);
    assert_true(read_id(&w, id_of(&other)).found);
    world_close(&w);
}

/* S-002: every other text is nobody's. */
static void only_the_untouched_id(void **state)
{
    struct world w;
    char text[256];
    world_open(&w, key_a, CACHE_MS);
    struct got s = new_session(&w);
    for (size_t i = 0; i < ML_SESSION_ID; i++) {
        for (int bit = 0; bit < 8; bit++) {
            memcpy(text, s.id, sizeof s.id);
            text[i] = (char)(text[i] ^ 1 << bit);
            assert_false(read_id(&w, ml_str(text, ML_SESSION_ID)).found);
        }
        assert_false(read_id(&w, ml_str(s.id, i)).found);
        memcpy(text, s.id, sizeof s.id);
        memmove(text + i, text + i + 1, ML_SESSION_ID - i);
        assert_false(read_id(&w, ml_str(text, ML_SESSION_ID - 1)).found);
    }
    snprintf(text, sizeof text, "%s=", s.id);
    assert_false(read_id(&w, ml_str_z(text)).found);
    assert_false(end(&w, ml_str_z(text)).found);
    assert_true(read_id(&w, id_of(&s)).found);
    world_close(&w);
}

static void lifetimes(void **state)
{
    struct world w;
    world_open(&w, key_a, CACHE_MS);
    struct got s = create(&w, "{}", "a", 60000, 0), idle = create(&w, "{}", "b", 600000, 10000);
    for (int i = 0; i < 11; i++) { /* touched all the time */
        ml_clock_advance(5000);
        assert_true(read_id(&w, id_of(&idle)).found);
        assert_true(read_id(&w, id_of(&s)).found);
    }
    ml_clock_advance(4500);
    assert_true(read_id(&w, id_of(&s)).found);
    ml_clock_advance(501); /* although it is in the cache for a second */
    assert_false(read_id(&w, id_of(&s)).found);
    assert_true(read_id(&w, id_of(&idle)).found);
    ml_clock_advance(10001);
    assert_false(read_id(&w, id_of(&idle)).found);
    assert_int_equal(create(&w, "{}", "a", 0, 0).error, ML_E_INVALID);
    world_close(&w);
}

/* Over 2038 and 2106 as in any other minute (S-079). */
static void over_the_wraps(void **state)
{
    static const int64_t wraps_ms[] = {INT64_C(0x7fffffff) * 1000, INT64_C(0xffffffff) * 1000};
    for (size_t i = 0; i < 2; i++) {
        struct world w;
        int64_t jump = wraps_ms[i] - 5000 - ml_wall_ms();
        world_open(&w, key_a, CACHE_MS);
        ml_clock_advance(jump);
        struct got s = create(&w, "{}", "a", 60000, 0), idle = create(&w, "{}", "b", 600000, 8000);
        for (int k = 0; k < 3; k++) {
            ml_clock_advance(4000);
            assert_true(read_id(&w, id_of(&s)).found);
            assert_true(read_id(&w, id_of(&idle)).found);
        }
        ml_clock_advance(48001);
        assert_false(read_id(&w, id_of(&s)).found);
        assert_false(read_id(&w, id_of(&idle)).found);
        world_close(&w);
        ml_clock_advance(-jump - 60001);
    }
}

/* A touch does not count as a change: who refreshes meanwhile is not told of a conflict. */
static void touches(void **state)
{
    struct world w;
    world_open(&w, key_a, CACHE_MS);
    struct got s = create(&w, "{}", "a", 600000, 100000);
    uint64_t revision = tokens(&w, id_of(&s)).revision;
    uint64_t writes = ml_sessions_stats(w.sessions).writes;
    for (int i = 0; i < 20; i++) {
        ml_clock_advance(2000);
        read_id(&w, id_of(&s));
    }
    writes = ml_sessions_stats(w.sessions).writes - writes;
    assert_true(writes >= 3 && writes <= 4); /* each tenth of the limit */
    assert_true(replace(&w, id_of(&s), revision, "{}").found);
    struct got again = replace(&w, id_of(&s), revision, "{}");
    assert_false(again.found);
    assert_true(again.conflict);
    world_close(&w);
}

static void cached_for_a_second(void **state)
{
    struct world w;
    world_open(&w, key_a, CACHE_MS);
    struct got s = new_session(&w), first = read_id(&w, id_of(&s));
    ml_session_memory_fail(w.store, true);
    assert_true(read_id(&w, id_of(&s)).found);
    struct ml_entry *e = ml_session_cached(w.seat, id_of(&s));
    assert_non_null(e);
    ml_entry_unref(e);
    ml_clock_advance(CACHE_MS);
    assert_null(ml_session_cached(w.seat, id_of(&s)));
    assert_int_equal(read_id(&w, id_of(&s)).error, ML_E_UNAVAILABLE); /* never "none" */
    ml_session_memory_fail(w.store, false);
    struct got second = read_id(&w, id_of(&s));
    assert_true(second.found);
    assert_int_equal(second.entry_id, first.entry_id); /* unchanged: what was decoded is good */
    replace(&w, id_of(&s), 1, "{\"a\":2}");
    assert_int_not_equal(read_id(&w, id_of(&s)).entry_id, first.entry_id);
    world_close(&w);
    world_open(&w, key_a, 0); /* no cache */
    s = new_session(&w);
    read_id(&w, id_of(&s));
    assert_null(ml_session_cached(w.seat, id_of(&s)));
    ml_session_memory_fail(w.store, true);
    assert_int_equal(read_id(&w, id_of(&s)).error, ML_E_UNAVAILABLE);
    world_close(&w);
}

static void run_for(struct world *w, uint64_t ms)
{
    uint64_t until = uv_hrtime() + ms * 1000000;
    while (uv_hrtime() < until)
        uv_run(&w->loop, UV_RUN_NOWAIT);
}

/* S-423, S-430: ended while the store is away. */
static void an_end_outlives_the_outage(void **state)
{
    struct world w;
    world_open(&w, key_a, CACHE_MS);
    struct got s = new_session(&w);
    read_id(&w, id_of(&s));
    ml_session_memory_fail(w.store, true);
    assert_int_equal(end(&w, id_of(&s)).error, ML_E_UNAVAILABLE);
    assert_null(ml_session_cached(w.seat, id_of(&s)));
    assert_false(read_id(&w, id_of(&s)).found);
    assert_int_equal(read_id(&w, id_of(&s)).error, 0);
    assert_int_equal(ml_sessions_stats(w.sessions).unconfirmed, 1);
    ml_session_memory_fail(w.store, false);
    assert_int_equal(ml_sessions_stats(w.sessions).store.sessions, 1);
    assert_false(read_id(&w, id_of(&s)).found);
    run_for(&w, 1200); /* the retry */
    assert_int_equal(ml_sessions_stats(w.sessions).unconfirmed, 0);
    assert_int_equal(ml_sessions_stats(w.sessions).store.sessions, 0);
    assert_memory_equal(published, "gone ", 5);
    world_close(&w);
}

static void kills(void **state)
{
    struct world w;
    world_open(&w, key_a, CACHE_MS);
    struct got a = create(&w, "{}", "alice", 60000, 0), b = create(&w, "{}", "alice", 60000, 0),
               c = create(&w, "{}", "bob", 60000, 0);
    read_id(&w, id_of(&a));
    assert_int_equal(end_all(&w, "user", "alic").count, 0);
    assert_int_equal(end_all(&w, "sid", "alice").count, 0);
    assert_int_equal(end_all(&w, "user", "alice").count, 2);
    assert_int_equal(strlen(published), 5 + 64 + 1 + 64);
    assert_false(read_id(&w, id_of(&a)).found);
    assert_false(read_id(&w, id_of(&b)).found);
    assert_true(read_id(&w, id_of(&c)).found);
    assert_int_equal(end_all(&w, "sid", "s").count, 1);
    ml_session_memory_fail(w.store, true);
    assert_int_equal(end_all(&w, "user", "bob").error, ML_E_UNAVAILABLE);
    world_close(&w);
}

static char heard[64];

static void listener(void *ctx, struct ml_str message)
{
    snprintf(heard, sizeof heard, "%.*s", ML_FMT(message));
}

static void messages(void **state)
{
    struct world w;
    world_open(&w, key_a, 60000);
    ml_session_listen(w.seat, listener, NULL);
    struct got s = new_session(&w), s2 = new_session(&w);
    read_id(&w, id_of(&s));
    read_id(&w, id_of(&s2));
    /* Ended on another replica. */
    struct ml_digest key;
    char text[128] = "gone ", hex[65];
    ml_sha256(id_of(&s), &key);
    ml_digest_hex(&key, hex);
    strcat(text, hex);
    deliver(deliver_ctx, ml_str_z(text));
    assert_false(read_id(&w, id_of(&s)).found);
    struct ml_entry *e = ml_session_cached(w.seat, id_of(&s2));
    assert_non_null(e);
    ml_entry_unref(e);
    ml_clock_advance(1);
    deliver(deliver_ctx, ML_STR("lost"));
    assert_null(ml_session_cached(w.seat, id_of(&s2)));
    assert_true(read_id(&w, id_of(&s2)).found);
    assert_string_equal(heard, "");
    static const char *const noise[] = {"",       " ",         "gone", "gone ,",
                                        "gone x", "gone 00,,", ",",    "\xff"};
    for (size_t i = 0; i < sizeof noise / sizeof noise[0]; i++)
        deliver(deliver_ctx, ml_str_z(noise[i]));
    assert_true(read_id(&w, id_of(&s2)).found);
    deliver(deliver_ctx, ML_STR("revoke user alice"));
    assert_string_equal(heard, "revoke user alice");
    ml_session_publish(w.seat, ML_STR("revoke all"));
    assert_string_equal(published, "revoke all");
    world_close(&w);
}

static void too_large_and_full(void **state)
{
    struct world w;
    struct got g = {.times = 0};
    world_open(&w, key_a, CACHE_MS);
    char *large = malloc(ML_SESSION_VALUE_MAX + 1);
    memset(large, 'x', ML_SESSION_VALUE_MAX);
    large[ML_SESSION_VALUE_MAX] = 0;
    struct ml_session_new what = {.open = ML_STR("{}"), .lifetime_ms = 1000};
    for (size_t n = ML_SESSION_VALUE_MAX - 512; n <= ML_SESSION_VALUE_MAX; n += 64) {
        what.closed = ml_str(large, n);
        ml_session_create(w.seat, &what, on_reply, &g);
        assert_true(g.error == 0 || g.error == ML_E_TOOBIG);
    }
    assert_int_equal(g.error, ML_E_TOOBIG);
    struct got s;
    while ((s = create(&w, "{}", "a", 60000, 0)).error == 0)
        g = s;
    assert_int_equal(s.error, ML_E_BUSY);
    assert_true(ml_sessions_stats(w.sessions).store.sessions == MAX);
    assert_int_equal(replace(&w, id_of(&g), 1, large).error, ML_E_TOOBIG);
    assert_string_equal(tokens(&w, id_of(&g)).closed, "{\"refresh\":\"r\"}");
    free(large);
    world_close(&w);
}

static void forms_of_ids(void **state)
{
    char id[ML_SESSION_ID + 2] = ML_SESSION_PREFIX "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ";
    struct ml_digest key;
    assert_true(ml_session_key(ml_str(id, ML_SESSION_ID), &key));
    assert_false(ml_session_key(ml_str(id, ML_SESSION_ID - 1), &key));
    id[ML_SESSION_ID] = 'a';
    assert_false(ml_session_key(ml_str(id, ML_SESSION_ID + 1), &key));
    for (size_t at = 0; at < ML_SESSION_ID; at++) {
        char was = id[at];
        for (int c = 0; c < 256; c++) {
            bool good = at < strlen(ML_SESSION_PREFIX)
                            ? c == was
                            : c && strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                          "0123456789-_",
                                          c);
            id[at] = (char)c;
            assert_true(ml_session_key(ml_str(id, ML_SESSION_ID), &key) == good);
        }
        id[at] = was;
    }
}

/* Two workers at the same sessions: whoever sees one after its end was answered is wrong. */
struct worker {
    pthread_t thread;
    struct ml_sessions *sessions;
    _Atomic(const char *) *shared; /* an id, or NULL while there is none */
    unsigned wrong;
};

static void *read_shared(void *arg)
{
    struct worker *me = arg;
    struct world w = {.sessions = me->sessions};
    if (uv_loop_init(&w.loop) != 0 ||
        ml_session_sit(&w.seat, w.sessions, &w.loop, &(struct ml_err){.code = 0}) != 0)
        abort();
    for (int i = 0; i < 20000; i++) {
        const char *id = atomic_load(me->shared);
        bool found = id && read_id(&w, ml_str(id, ML_SESSION_ID)).found;
        /* It was there all the time, or it was ended meanwhile. */
        me->wrong += id && !found && atomic_load(me->shared) == id;
    }
    ml_session_leave(w.seat, on_closed, &w);
    uv_run(&w.loop, UV_RUN_DEFAULT);
    me->wrong += !w.closed || uv_loop_close(&w.loop) != 0;
    return NULL;
}

static void two_workers(void **state)
{
    enum { ROUNDS = 300 };
    static struct got made[ROUNDS];
    struct world w;
    _Atomic(const char *) shared = NULL;
    world_open(&w, key_a, CACHE_MS);
    struct worker reader = {.sessions = w.sessions, .shared = &shared};
    assert_int_equal(pthread_create(&reader.thread, NULL, read_shared, &reader), 0);
    for (int i = 0; i < ROUNDS; i++) {
        made[i] = new_session(&w);
        atomic_store(&shared, made[i].id);
        usleep(100);
        atomic_store(&shared, NULL);
        assert_true(end(&w, id_of(&made[i])).found);
        assert_null(ml_session_cached(w.seat, id_of(&made[i])));
        assert_false(read_id(&w, id_of(&made[i])).found);
    }
    pthread_join(reader.thread, NULL);
    assert_int_equal(reader.wrong, 0);
    for (int i = 0; i < ROUNDS; i++)
        assert_null(ml_session_cached(w.seat, id_of(&made[i])));
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(life_of_a_session),
        cmocka_unit_test(only_the_untouched_id),
        cmocka_unit_test(lifetimes),
        cmocka_unit_test(over_the_wraps),
        cmocka_unit_test(touches),
        cmocka_unit_test(cached_for_a_second),
        cmocka_unit_test(an_end_outlives_the_outage),
        cmocka_unit_test(kills),
        cmocka_unit_test(messages),
        cmocka_unit_test(forms_of_ids),
        cmocka_unit_test(too_large_and_full),
        cmocka_unit_test(two_workers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
