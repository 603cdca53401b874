/* Bounds, cancels, identities and ends: what happens between a start and a delivery. */
#include "c/client/support.h"

static struct ml_upstream_stats last_stats;

static void on_stats(void *ctx, const struct ml_upstream_stats *s)
{
    last_stats = *s;
    ++*(int *)ctx;
}

static struct ml_upstream_stats stats_of(struct world *w)
{
    int count = 0;
    ml_client_stats(w->client, on_stats, &count);
    assert_int_equal(count, 1);
    return last_stats;
}

/* S-414: what is in flight is bounded, what waits is bounded, the rest fails at once. */
static void queue_is_bounded(void **state)
{
    struct world w;
    struct answer answers[30];
    int started = 0, busy = 0;
    open_plain(&w);
    for (int i = 0; i < 30; i++) {
        int code = start(&w, (struct ml_fetch_request){0}, url_of(&w, "/wait"), &answers[started],
                         NULL, NULL);
        if (code == 0)
            started++;
        else
            assert_int_equal(code, ML_E_BUSY), busy++;
    }
    assert_int_equal(started, 8 + 16);
    assert_int_equal(busy, 6);
    assert_int_equal(stats_of(&w).in_flight, 8);
    assert_int_equal(stats_of(&w).queued, 16);
    assert_int_equal(stats_of(&w).rejected, 6);
    for (int i = 0; i < started; i++) {
        run_until(&w, &answers[i]);
        assert_int_equal(answers[i].result->status, 200);
        ml_fetch_result_free(answers[i].result);
    }
    assert_int_equal(w.server.most_in_flight, 8);
    assert_int_equal(w.server.connections, 8);
    world_close(&w);
}

static void queue_keeps_deadlines(void **state)
{
    struct world w;
    struct answer hung[8], quick[3];
    open_plain(&w);
    for (int i = 0; i < 8; i++)
        assert_int_equal(start(&w, (struct ml_fetch_request){.timeout_ms = 600},
                               url_of(&w, "/never"), &hung[i], NULL, NULL),
                         0);
    /* Not in the order of their deadlines. */
    static const uint32_t timeouts[] = {200, 100, 5000};
    for (int i = 0; i < 3; i++)
        assert_int_equal(start(&w, (struct ml_fetch_request){.timeout_ms = timeouts[i]},
                               url_of(&w, "/ok"), &quick[i], NULL, NULL),
                         0);
    run_until(&w, &quick[0]);
    assert_true(quick[1].done);
    assert_false(hung[0].done);
    assert_int_equal(quick[0].result->error, ML_E_TIMEOUT);
    assert_int_equal(quick[1].result->error, ML_E_TIMEOUT);
    assert_in_range(quick[1].result->elapsed_ms, 90, 190);
    run_until(&w, &quick[2]);
    assert_int_equal(quick[2].result->status, 200);
    for (int i = 0; i < 8; i++) {
        run_until(&w, &hung[i]);
        ml_fetch_result_free(hung[i].result);
    }
    for (int i = 0; i < 3; i++)
        ml_fetch_result_free(quick[i].result);
    world_close(&w);
}

static void cancel_in_each_state(void **state)
{
    struct world w;
    struct answer a[20];
    struct ml_fetch *f[20];
    open_plain(&w);
    for (int i = 0; i < 12; i++)
        assert_int_equal(
            start(&w, (struct ml_fetch_request){0}, url_of(&w, "/never"), &a[i], &f[i], NULL), 0);
    ml_fetch_cancel(f[9]); /* queued */
    ml_fetch_cancel(f[0]); /* connecting: its place goes to a queued one */
    pause_ms(&w, 50);
    ml_fetch_cancel(f[1]); /* waiting for the answer */
    for (int i = 2; i < 12; i++)
        if (i != 9)
            ml_fetch_cancel(f[i]);
    /* Receiving. */
    assert_int_equal(
        start(&w, (struct ml_fetch_request){0}, url_of(&w, "/slow"), &a[0], &f[0], NULL), 0);
    pause_ms(&w, 150);
    ml_fetch_cancel(f[0]);
    /* Finished at once (no such port), not delivered yet. */
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d/", unused_port());
    for (int i = 0; i < 2; i++)
        assert_int_equal(start(&w, (struct ml_fetch_request){0}, url, &a[i], &f[i], NULL), 0);
    ml_fetch_cancel(f[0]);
    run_until(&w, &a[1]);
    ml_fetch_result_free(a[1].result);
    pause_ms(&w, 50);
    for (int i = 0; i < 12; i++)
        assert_true(i == 1 || !a[i].done);
    assert_int_equal(stats_of(&w).in_flight, 0);
    assert_int_equal(stats_of(&w).queued, 0);
    world_close(&w);
}

/* Callbacks that start and cancel others. */
struct chain {
    struct world *w;
    int left;
    struct ml_fetch *victim;
    bool finished;
};

static void never_called(void *arg, struct ml_fetch_result *result)
{
    fail();
}

static void on_chain(void *arg, struct ml_fetch_result *result)
{
    struct chain *c = arg;
    ml_fetch_result_free(result);
    if (c->victim)
        ml_fetch_cancel(c->victim);
    c->victim = NULL;
    c->finished = --c->left == 0;
    if (c->finished)
        return;
    char url[512];
    snprintf(url, sizeof url, "%s", url_of(c->w, "/ok"));
    struct ml_fetch_request r = {.upstream = c->w->upstream,
                                 .method = ML_STR("GET"),
                                 .url = ml_str_z(url),
                                 .timeout_ms = 1000};
    assert_int_equal(ml_fetch_start(c->w->client, &r, on_chain, c, NULL, NULL), 0);
    char silent[512];
    snprintf(silent, sizeof silent, "%s", url_of(c->w, "/never"));
    r.url = ml_str_z(silent);
    assert_int_equal(ml_fetch_start(c->w->client, &r, never_called, c, &c->victim, NULL), 0);
}

static void callbacks_may_start_and_cancel(void **state)
{
    struct world w;
    open_plain(&w);
    struct chain c = {.w = &w, .left = 50};
    struct ml_fetch_request r = {.upstream = w.upstream,
                                 .method = ML_STR("GET"),
                                 .url = ml_str_z(url_of(&w, "/ok")),
                                 .timeout_ms = 1000};
    assert_int_equal(ml_fetch_start(w.client, &r, on_chain, &c, NULL, NULL), 0);
    while (!c.finished && uv_run(&w.loop, UV_RUN_ONCE))
        ;
    assert_true(c.finished);
    world_close(&w);
}

static void close_with_transfers(void **state)
{
    struct world w;
    struct answer a[20];
    open_plain(&w);
    for (int i = 0; i < 20; i++)
        assert_int_equal(start(&w, (struct ml_fetch_request){0},
                               url_of(&w, i % 2 ? "/never" : "/slow"), &a[i], NULL, NULL),
                         0);
    pause_ms(&w, 50);
    ml_client_close(w.client, on_world_closed, &w);
    struct ml_err err;
    struct answer late;
    assert_int_equal(start(&w, (struct ml_fetch_request){0}, url_of(&w, "/ok"), &late, NULL, &err),
                     ML_E_CANCELED);
    uv_run(&w.loop, UV_RUN_DEFAULT);
    assert_true(w.closed);
    for (int i = 0; i < 20; i++) {
        assert_true(a[i].done);
        assert_int_equal(a[i].result->error, ML_E_CANCELED);
        ml_fetch_result_free(a[i].result);
    }
    ml_upstream_unref(w.upstream); /* a holder may outlive the client */
    assert_int_equal(uv_loop_close(&w.loop), 0);
    loopback_stop(&w.server);
}

static void upstreams_are_counted(void **state)
{
    struct world w;
    struct answer a;
    open_plain(&w);
    struct ml_upstream_options o = {.name = "other"};
    struct ml_upstream *u = upstream_of(&w, o), *same = upstream_of(&w, o);
    assert_ptr_equal(u, same);
    assert_ptr_not_equal(u, w.upstream);
    ml_upstream_unref(same);
    /* Its last holder goes, its transfer ends as usual. */
    assert_int_equal(
        start(&w, (struct ml_fetch_request){.upstream = u}, url_of(&w, "/wait"), &a, NULL, NULL),
        0);
    ml_upstream_unref(u);
    run_until(&w, &a);
    assert_int_equal(a.result->status, 200);
    ml_fetch_result_free(a.result);
    int count = 0;
    ml_client_stats(w.client, on_stats, &count);
    assert_int_equal(count, 1);

    struct ml_upstream *many[300];
    struct ml_err err = {0};
    int got = 0;
    for (; got < 300; got++) {
        char name[16];
        snprintf(name, sizeof name, "u%d", got);
        many[got] = ml_upstream_get(w.client, &(struct ml_upstream_options){.name = name}, &err);
        if (!many[got])
            break;
    }
    assert_int_equal(got, 255); /* and "test" */
    assert_int_equal(err.code, ML_E_BUSY);
    while (got)
        ml_upstream_unref(many[--got]);
    world_close(&w);
}

/* S-160: two identities on one origin never share a connection. */
static void identities_do_not_share(void **state)
{
    struct world w;
    open_plain(&w);
    struct ml_upstream *other = upstream_of(&w, (struct ml_upstream_options){.name = "other"});
    for (int i = 0; i < 50; i++) {
        struct ml_fetch_result *r = fetch(
            &w, (struct ml_fetch_request){.upstream = i % 2 ? other : NULL}, url_of(&w, "/ok"));
        assert_int_equal(r->status, 200);
        ml_fetch_result_free(r);
    }
    assert_int_equal(w.server.connections, 2);
    ml_upstream_unref(other);
    world_close(&w);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void expect_bearer(struct world *w, struct ml_upstream *u, const char *path,
                          const char *line)
{
    struct ml_fetch_result *r = fetch(w, (struct ml_fetch_request){.upstream = u}, url_of(w, path));
    assert_int_equal(r->error, 0);
    ml_fetch_result_free(r);
    pthread_mutex_lock(&w->server.lock);
    bool there = strstr(w->server.last_request, line);
    pthread_mutex_unlock(&w->server.lock);
    assert_true(there);
}

static void token_file(void **state)
{
    struct world w;
    char path[] = "/tmp/ml-token-XXXXXX";
    close(mkstemp(path));
    open_plain(&w);
    struct ml_upstream *u =
        upstream_of(&w, (struct ml_upstream_options){.name = "k", .token_file = path});
    struct ml_fetch_result *r =
        fetch(&w, (struct ml_fetch_request){.upstream = u}, url_of(&w, "/ok"));
    assert_int_equal(r->error, ML_E_UNAVAILABLE); /* empty */
    ml_fetch_result_free(r);
    write_file(path, "first\n");
    expect_bearer(&w, u, "/ok", "\r\nAuthorization: Bearer first\r\n");
    write_file(path, "second");
    expect_bearer(&w, u, "/401", "\r\nAuthorization: Bearer first\r\n");
    expect_bearer(&w, u, "/ok", "\r\nAuthorization: Bearer second\r\n"); /* after a 401 */
    write_file(path, "third");
    expect_bearer(&w, u, "/ok", "\r\nAuthorization: Bearer second\r\n");
    ml_clock_advance(10001);
    expect_bearer(&w, u, "/ok", "\r\nAuthorization: Bearer third\r\n");
    r = fetch(&w, (struct ml_fetch_request){.upstream = u, .bearer = ML_STR("own")},
              url_of(&w, "/echo"));
    assert_non_null(memmem(r->body.p, r->body.n, "Bearer own\r\n", 12));
    assert_null(memmem(r->body.p, r->body.n, "third", 5)); /* the request's own wins */
    ml_fetch_result_free(r);
    int before = w.server.requests;
    static const char *const bad[] = {"two words", "a\x01z", "line\nbreak"};
    for (size_t i = 0; i < 3; i++) {
        write_file(path, bad[i]);
        ml_clock_advance(10001);
        r = fetch(&w, (struct ml_fetch_request){.upstream = u}, url_of(&w, "/ok"));
        assert_int_equal(r->error, ML_E_UNAVAILABLE);
        assert_null(strstr(r->text, "words"));
        ml_fetch_result_free(r);
    }
    unlink(path);
    r = fetch(&w, (struct ml_fetch_request){.upstream = u}, url_of(&w, "/ok"));
    assert_int_equal(r->error, ML_E_UNAVAILABLE);
    ml_fetch_result_free(r);
    assert_int_equal(w.server.requests, before);
    ml_upstream_unref(u);
    world_close(&w);
}

/* S-164: random cancels under ASan. */
static void thousand_with_random_cancels(void **state)
{
    static const char *const paths[] = {"/ok",   "/wait",         "/204",     "/fin",  "/rst-mid",
                                        "/slow", "/headers-many", "/trailer", "/echo", "/never"};
    struct world w;
    world_open(&w, (struct ml_client_options){.in_flight = 16, .queue = 64, .open_after = 1000},
               NULL);
    struct answer a[64];
    struct ml_fetch *f[64];
    int delivered = 0, canceled = 0;
    srand(7);
    memset(a, 0, sizeof a);
    memset(f, 0, sizeof f);
    for (int i = 0; i < 1000; i++) {
        int at = rand() % 64;
        if (f[at] && !a[at].done) {
            ml_fetch_cancel(f[at]);
            canceled++;
        } else if (a[at].done) {
            delivered++;
            ml_fetch_result_free(a[at].result);
        }
        f[at] = NULL;
        if (start(&w, (struct ml_fetch_request){.timeout_ms = 200 + (uint32_t)(rand() % 200)},
                  url_of(&w, paths[rand() % 10]), &a[at], &f[at], NULL) < 0)
            f[at] = NULL;
        for (int turns = rand() % 4; turns > 0; turns--)
            uv_run(&w.loop, UV_RUN_NOWAIT);
        if (i % 50 == 0)
            pause_ms(&w, 10);
    }
    for (int i = 0; i < 64; i++) {
        if (f[i] && !a[i].done)
            run_until(&w, &a[i]);
        if (a[i].done)
            ml_fetch_result_free(a[i].result);
    }
    assert_true(delivered > 50);
    assert_true(canceled > 50);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queue_is_bounded),
        cmocka_unit_test(queue_keeps_deadlines),
        cmocka_unit_test(cancel_in_each_state),
        cmocka_unit_test(callbacks_may_start_and_cancel),
        cmocka_unit_test(close_with_transfers),
        cmocka_unit_test(upstreams_are_counted),
        cmocka_unit_test(identities_do_not_share),
        cmocka_unit_test(token_file),
        cmocka_unit_test(thousand_with_random_cancels),
    };
    return cmocka_run_group_tests(tests, global_open, global_close);
}
