/* The LMDB store: what it keeps, in which order it lets go, and who may have it. */
#include "c/store/lmdb_world.h"

#include <pthread.h>

enum { LONG = 3600 * 1000 };

static void keeps_and_removes(void **state)
{
    struct world w;
    world_open(&w);
    assert_false(get(&w, 1).found);
    assert_true(put(&w, 1, "one", LONG, 0, 100).found);
    assert_true(put(&w, 2, "two", LONG, 0, 100).found);
    assert_false(put(&w, 1, "again", LONG, 0, 100).found); /* there is one */
    assert_false(put(&w, 1, "again", LONG, 7, 100).found);
    assert_false(put(&w, 3, "x", LONG, 7, 100).found); /* there is none */
    assert_string_equal(get(&w, 1).value, "one");
    assert_true(put(&w, 1, "1", LONG, 1, 100).found);
    assert_false(put(&w, 1, "late", LONG, 1, 100).found);
    assert_string_equal(get(&w, 1).value, "1");
    assert_int_equal(stats(&w).sessions, 2);
    world_close(&w);
    world_open(&w); /* another process */
    assert_string_equal(get(&w, 1).value, "1");
    assert_string_equal(get(&w, 2).value, "two");
    assert_true(end(&w, 1).found);
    assert_false(end(&w, 1).found);
    assert_false(get(&w, 1).found);
    assert_int_equal(stats(&w).sessions, 1);
    world_close(&w);
}

static void values_of_all_sizes(void **state)
{
    struct world w;
    world_open(&w);
    char *text = malloc(ML_SESSION_VALUE_MAX + 1);
    memset(text, 'v', ML_SESSION_VALUE_MAX + 1);
    unsigned n = 0;
    for (size_t size = 0; size <= ML_SESSION_VALUE_MAX; size = size * 2 + 1, n++) {
        struct got g = {.times = 0};
        start_put(&w, n, ml_str(text, size), LONG, 0, 1, &g);
        assert_true(wait_for(&w, &g)->found);
        assert_int_equal(get(&w, n).n, size);
    }
    struct got g = {.times = 0};
    start_put(&w, n, ml_str(text, ML_SESSION_VALUE_MAX + 1), LONG, 0, 1, &g);
    assert_int_equal(wait_for(&w, &g)->error, ML_E_TOOBIG);
    free(text);
    world_close(&w);
}

static void kills_by_index(void **state)
{
    struct world w;
    world_open(&w);
    for (unsigned n = 0; n < 50; n++)
        put(&w, n, "x", n == 7 ? 1 : LONG, 0, 100 + n % 2);
    put(&w, 3, "x", LONG, 1, 102); /* from one index to another */
    usleep(5000);
    assert_int_equal(end_all(&w, 99).count, 0);
    assert_int_equal(end_all(&w, 101).count, 23); /* without 3, which moved, and 7, which is over */
    assert_int_equal(end_all(&w, 101).count, 0);
    assert_int_equal(end_all(&w, 102).count, 1);
    for (unsigned n = 0; n < 50; n++)
        assert_int_equal(get(&w, n).found, n % 2 == 0);
    assert_int_equal(stats(&w).sessions, 25);
    world_close(&w);
}

/* More than one transaction takes. */
static void kills_many(void **state)
{
    enum { COUNT = 4500 };
    struct world w;
    static struct got got[COUNT];
    world_open(&w);
    for (unsigned n = 0; n < COUNT; n++) {
        got[n] = (struct got){.times = 0};
        start_put(&w, n, ML_STR("x"), LONG, 0, n == 77 ? 2 : 1, &got[n]);
    }
    for (unsigned n = 0; n < COUNT; n++)
        assert_true(wait_for(&w, &got[n])->found);
    struct got killed = end_all(&w, 1);
    assert_int_equal(killed.error, 0);
    assert_int_equal(killed.count, COUNT - 1);
    assert_int_equal(stats(&w).sessions, 1);
    assert_true(get(&w, 77).found);
    world_close(&w);
}

static void expires_and_is_swept(void **state)
{
    struct world w;
    world_open(&w);
    for (unsigned n = 0; n < 20; n++)
        put(&w, n, "x", n < 10 ? 20000 : LONG, 0, 1);
    assert_true(get(&w, 3).found);
    ml_clock_advance(20001);
    assert_false(get(&w, 3).found); /* before it is swept */
    assert_true(put(&w, 3, "new", LONG, 0, 1).found);
    for (int i = 0; i < 3000 && stats(&w).swept < 9; i++)
        usleep(1000);
    assert_int_equal(stats(&w).swept, 9);
    assert_int_equal(stats(&w).sessions, 11);
    assert_string_equal(get(&w, 3).value, "new");
    assert_true(get(&w, 15).found);
    world_close(&w);
}

/* S-431: those that end first go first. */
static void full(void **state)
{
    enum { COUNT = 1200, BYTES = 4000 };
    struct world w;
    static struct got got[COUNT];
    char text[BYTES];
    memset(text, 'x', sizeof text);
    world_open_with(&w, &(struct ml_lmdb_options){.path = path_of("store"), .max_bytes = 2 << 20});
    assert_true(ready_within(&w, 5000));
    for (unsigned n = 0; n < COUNT; n++) {
        got[n] = (struct got){.times = 0};
        start_put(&w, n, ml_str(text, sizeof text), LONG + (int64_t)n * 1000, 0, n, &got[n]);
    }
    for (unsigned n = 0; n < COUNT; n++)
        assert_int_equal(wait_for(&w, &got[n])->error, 0);
    struct ml_session_store_stats s = stats(&w);
    assert_true(s.bytes <= 2 << 20);
    assert_true(s.sessions >= 200); /* of 8 KiB each: the bound, not much less */
    assert_int_equal(s.sessions, COUNT - s.evicted);
    for (unsigned n = 0; n < COUNT; n++)
        assert_int_equal(get(&w, n).found, n >= s.evicted);
    struct stat st;
    assert_int_equal(stat(path_of("store"), &st), 0);
    assert_true(st.st_size <= (2 << 20) * 5 / 4 + (4 << 20));
    world_close(&w);
}

/* All that waits goes into one transaction. */
static void commits_in_groups(void **state)
{
    enum { COUNT = 500 };
    struct world w;
    static struct got got[COUNT];
    world_open(&w);
    for (unsigned n = 0; n < COUNT; n++) {
        got[n] = (struct got){.times = 0};
        start_put(&w, n, ML_STR("x"), LONG, 0, n, &got[n]);
    }
    for (unsigned n = 0; n < COUNT; n++)
        assert_true(wait_for(&w, &got[n])->found);
    assert_true(stats(&w).commits < COUNT / 4);
    world_close(&w);
}

static void the_queue_is_bounded(void **state)
{
    enum { MANY = 20000 };
    struct world w;
    unsigned n = 0, busy = 0;
    struct got *got = calloc(MANY, sizeof *got);
    char *large = calloc(1, ML_SESSION_VALUE_MAX);
    world_open(&w);
    for (; n < MANY && !busy; n++) { /* faster than the disk */
        start_put(&w, n, ml_str(large, ML_SESSION_VALUE_MAX), LONG, 0, n, &got[n]);
        busy = got[n].error == ML_E_BUSY;
    }
    assert_true(busy);
    for (unsigned i = 0; i + 1 < n; i++)
        assert_int_equal(wait_for(&w, &got[i])->error, 0);
    free(large);
    free(got);
    world_close(&w);
}

static void closing_cancels(void **state)
{
    struct world w;
    struct got got[100];
    unsigned canceled = 0;
    world_open(&w);
    for (unsigned n = 0; n < 100; n++) {
        got[n] = (struct got){.times = 0};
        start_put(&w, n, ML_STR("x"), LONG, 0, n, &got[n]);
    }
    ml_session_lmdb.unlink(w.link, on_unlinked, &w);
    for (unsigned n = 0; n < 100; n++) {
        assert_int_equal(got[n].times, 1);
        canceled += got[n].error == ML_E_CANCELED;
    }
    assert_int_equal(canceled, 100);
    uv_run(&w.loop, UV_RUN_DEFAULT);
    assert_true(w.closed);
    assert_int_equal(uv_loop_close(&w.loop), 0);
    ml_session_lmdb.close(w.store);
    world_open(&w); /* what was asked for has been done */
    assert_true(get(&w, 99).found);
    world_close(&w);
}

/* S-436. */
static void one_process_at_a_time(void **state)
{
    struct world w, second;
    struct ml_err err;
    world_open(&w);
    put(&w, 1, "one", LONG, 0, 1);
    world_open_with(&second,
                    &(struct ml_lmdb_options){.path = path_of("store"), .max_bytes = 64 << 20});
    assert_false(ready_within(&second, 100));
    ml_session_lmdb.ready(second.link, &err);
    assert_non_null(strstr(err.text, "in use by another process"));
    assert_int_equal(get(&second, 1).error, ML_E_UNAVAILABLE);
    assert_int_equal(put(&second, 2, "x", LONG, 0, 1).error, ML_E_UNAVAILABLE);
    assert_string_equal(get(&w, 1).value, "one");
    world_close(&w);
    assert_true(ready_within(&second, 3000)); /* its turn */
    assert_string_equal(get(&second, 1).value, "one");
    world_close(&second);
}

/* S-432: more links than the table of readers has places. */
static void readers_are_bounded(void **state)
{
    struct world w;
    struct ml_session_link *links[4];
    struct got g = {.times = 0};
    struct ml_digest key = key_of(1);
    world_open_with(&w, &(struct ml_lmdb_options){
                            .path = path_of("store"), .max_bytes = 1 << 20, .readers = 2});
    assert_true(ready_within(&w, 5000));
    put(&w, 1, "one", LONG, 0, 1);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(ml_session_lmdb.link(w.store, &w.loop, &links[i], NULL), 0);
        g.times = 0;
        ml_session_lmdb.get(links[i], &key, on_answer, &g);
        assert_int_equal(g.times, 1);
        assert_int_equal(g.error, i < 2 ? 0 : ML_E_UNAVAILABLE);
    }
    for (int i = 0; i < 4; i++) {
        w.closed = false;
        ml_session_lmdb.unlink(links[i], on_unlinked, &w);
        while (!w.closed)
            uv_run(&w.loop, UV_RUN_ONCE);
    }
    w.closed = false;
    assert_string_equal(get(&w, 1).value, "one"); /* places are free again */
    world_close(&w);
}

static void the_key_is_kept(void **state)
{
    struct world w;
    struct stat st;
    char text[ML_LMDB_KEY_TEXT];
    struct ml_err err;
    struct ml_lmdb_options options = {
        .path = path_of("sub/store"), .max_bytes = 1 << 20, .key = "a key of forty-three letters"};
    assert_int_equal(ml_lmdb_key_read(options.path, text, &err), ML_E_NOTFOUND);
    world_open_with(&w, &options);
    assert_true(ready_within(&w, 5000)); /* makes the directory */
    world_close(&w);
    assert_int_equal(stat(path_of("sub/store.key"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(ml_lmdb_key_read(path_of("sub/store"), text, &err), 0);
    assert_string_equal(text, options.key);
    options.path = path_of("sub/store");
    options.key = "another key, which must not replace it";
    world_open_with(&w, &options);
    assert_true(ready_within(&w, 5000));
    world_close(&w);
    assert_int_equal(ml_lmdb_key_read(path_of("sub/store"), text, &err), 0);
    assert_string_equal(text, "a key of forty-three letters");
}

struct worker {
    pthread_t thread;
    void *store;
    unsigned first, wrong;
};

/* A worker: a loop and a link of its own, and keys that nobody else writes. */
static void *work(void *arg)
{
    enum { ROUNDS = 120, KEYS = 10 };
    struct worker *me = arg;
    struct world w = {.store = me->store};
    bool there[KEYS] = {false};
    unsigned seed = me->first;
    if (uv_loop_init(&w.loop) != 0 || ml_session_lmdb.link(w.store, &w.loop, &w.link, NULL) != 0)
        abort();
    for (int i = 0; i < ROUNDS; i++) {
        unsigned k = (unsigned)rand_r(&seed) % KEYS, n = me->first + k;
        if (rand_r(&seed) % 3) {
            me->wrong += put(&w, n, "x", LONG, 0, me->first).found == there[k];
            there[k] = true;
        } else {
            me->wrong += end(&w, n).found != there[k];
            there[k] = false;
        }
        me->wrong += get(&w, n).found != there[k];
    }
    ml_session_lmdb.unlink(w.link, on_unlinked, &w);
    uv_run(&w.loop, UV_RUN_DEFAULT);
    me->wrong += !w.closed || uv_loop_close(&w.loop) != 0;
    return NULL;
}

static void many_workers(void **state)
{
    struct world w;
    struct worker workers[4];
    world_open(&w);
    for (unsigned i = 0; i < 4; i++) {
        workers[i] = (struct worker){.store = w.store, .first = 1000 * (i + 1)};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < 50; i++) {
        usleep(2000);
        stats(&w);
        get(&w, 1000);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(workers[i].thread, NULL);
        assert_int_equal(workers[i].wrong, 0);
    }
    world_close(&w);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, make_directory, remove_directory)
    const struct CMUnitTest tests[] = {
        TEST(keeps_and_removes),    TEST(values_of_all_sizes),
        TEST(kills_by_index),       TEST(kills_many),
        TEST(expires_and_is_swept), TEST(full),
        TEST(commits_in_groups),    TEST(the_queue_is_bounded),
        TEST(closing_cancels),      TEST(one_process_at_a_time),
        TEST(readers_are_bounded),  TEST(the_key_is_kept),
        TEST(many_workers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
