/* A loop, a client, and fetches that are waited for. */
#pragma once

#include "base/clock.h"
#include "c/client/loopback.h"
#include "client/fetch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct world {
    uv_loop_t loop;
    struct ml_client *client;
    struct ml_upstream *upstream;
    struct loopback server;
    bool closed;
};

struct answer {
    bool done;
    struct ml_fetch_result *result;
};

static inline void on_answer(void *arg, struct ml_fetch_result *result)
{
    struct answer *a = arg;
    assert_false(a->done);
    a->done = true;
    a->result = result;
}

static inline void on_world_closed(void *ctx)
{
    ((struct world *)ctx)->closed = true;
}

static inline struct ml_upstream *upstream_of(struct world *w, struct ml_upstream_options o)
{
    struct ml_err err = {0};
    struct ml_upstream *u = ml_upstream_get(w->client, &o, &err);
    if (!u)
        print_error("upstream: %s\n", err.text);
    return u;
}

static inline void world_open(struct world *w, struct ml_client_options o, SSL_CTX *tls)
{
    memset(w, 0, sizeof *w);
    assert_int_equal(uv_loop_init(&w->loop), 0);
    o.loop = &w->loop;
    assert_int_equal(ml_client_new(&w->client, &o), 0);
    w->upstream = upstream_of(w, (struct ml_upstream_options){.name = "test"});
    assert_non_null(w->upstream);
    loopback_start(&w->server, 0, tls);
}

/* The end of each test: everything closed, and the loop agrees. */
static inline void world_close(struct world *w)
{
    ml_upstream_unref(w->upstream);
    ml_client_close(w->client, on_world_closed, w);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_true(w->closed);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    loopback_stop(&w->server);
}

static inline const char *url_of(struct world *w, const char *path)
{
    static char url[512];
    snprintf(url, sizeof url, "%s://127.0.0.1:%d%s", w->server.tls ? "https" : "http",
             w->server.port, path);
    return url;
}

static inline int start(struct world *w, struct ml_fetch_request r, const char *url,
                        struct answer *a, struct ml_fetch **ret, struct ml_err *err)
{
    *a = (struct answer){.done = false};
    if (!r.upstream)
        r.upstream = w->upstream;
    if (!r.method.p)
        r.method = ML_STR("GET");
    if (!r.timeout_ms)
        r.timeout_ms = 5000;
    r.url = ml_str_z(url);
    return ml_fetch_start(w->client, &r, on_answer, a, ret, err);
}

static inline void run_until(struct world *w, struct answer *a)
{
    while (!a->done && uv_run(&w->loop, UV_RUN_ONCE))
        ;
    assert_true(a->done);
}

/* The result of a fetch; the caller frees it. A refusal at the start becomes a result too. */
static inline struct ml_fetch_result *fetch(struct world *w, struct ml_fetch_request r,
                                            const char *url)
{
    struct answer a;
    struct ml_err err = {0};
    int code = start(w, r, url, &a, NULL, &err);
    if (code < 0) {
        a.result = calloc(1, sizeof *a.result);
        a.result->error = code;
        snprintf(a.result->text, sizeof a.result->text, "%.255s", err.text);
        return a.result;
    }
    assert_false(a.done); /* never from within start */
    run_until(w, &a);
    return a.result;
}

static inline struct ml_fetch_result *get(struct world *w, const char *path)
{
    return fetch(w, (struct ml_fetch_request){0}, url_of(w, path));
}

static inline struct ml_str header_of(const struct ml_fetch_result *r, const char *name)
{
    for (size_t i = 0; i < r->header_count; i++)
        if (ml_str_eq(r->headers[i].name, ml_str_z(name)))
            return r->headers[i].value;
    return (struct ml_str){NULL, 0};
}

static inline void assert_str(struct ml_str s, const char *expected)
{
    assert_int_equal(s.n, strlen(expected));
    assert_memory_equal(s.p, expected, s.n);
}

/* Runs the loop for so long. */
static inline void on_pause(uv_timer_t *timer)
{
    *(bool *)timer->data = true;
}

static inline void pause_ms(struct world *w, uint64_t ms)
{
    uv_timer_t timer;
    bool over = false;
    uv_timer_init(&w->loop, &timer);
    timer.data = &over;
    uv_update_time(&w->loop);
    uv_timer_start(&timer, on_pause, ms, 0);
    while (!over)
        uv_run(&w->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(&w->loop, UV_RUN_NOWAIT);
}

/* A few of everything, and a breaker that stays out of the way. */
static inline void open_plain(struct world *w)
{
    world_open(w,
               (struct ml_client_options){
                   .in_flight = 8, .queue = 16, .open_after = 32, .connect_ms = 500},
               NULL);
}

/* Group setup and teardown. */
static inline int global_open(void **state)
{
    return ml_client_global_init();
}

static inline int global_close(void **state)
{
    ml_client_global_done();
    return 0;
}
