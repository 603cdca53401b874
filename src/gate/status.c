/* Readiness, liveness, metrics. Main thread; owns a small struct per metrics request in flight. */
#include "gate/status.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

static void answer(struct ml_exchange *x, int status, const char *type, struct ml_str body)
{
    struct ml_header headers[] = {{ML_STR("content-type"), ml_str_z(type)},
                                  {ML_STR("cache-control"), ML_STR("no-store")}};
    struct ml_http_response res = {
        .status = status, .headers = headers, .header_count = body.n ? 2 : 1, .body = body};
    if (!body.n)
        headers[0] = headers[1];
    ml_exchange_reply(x, &res);
}

/* The collection cannot be called back, so that it must find out whether anybody still waits. */
struct scrape {
    struct ml_exchange *x; /* NULL: the scraper went away */
};

static void on_metrics(void *arg, struct ml_str text)
{
    struct scrape *s = arg;
    if (s->x)
        answer(s->x, 200, "text/plain; version=0.0.4; charset=utf-8", text);
    free(s);
}

static void on_gone(void *arg)
{
    struct scrape *s = arg;
    s->x = NULL;
}

static void metrics(struct ml_engine *e, struct ml_exchange *x)
{
    struct scrape *s = ML_NEW(struct scrape);
    s->x = x;
    ml_exchange_on_cancel(x, on_gone, s);
    ml_engine_metrics(e, on_metrics, s);
}

static void readiness(struct ml_status *st, struct ml_exchange *x)
{
    char text[600];
    struct ml_err err = {.text = ""};
    bool ready = ml_engine_ready(st->engine, &err);
    if (ready && !st->draining) {
        answer(x, 200, "", ML_STR(""));
        return;
    }
    int n = snprintf(text, sizeof text, "not ready: %s\n",
                     st->draining ? "the server is stopping" : err.text);
    answer(x, 503, "text/plain; charset=utf-8",
           ml_str(text, n < (int)sizeof text ? (size_t)n : sizeof text - 1));
}

void ml_status_handle(void *ctx, struct ml_exchange *x, const struct ml_http_request *req)
{
    struct ml_status *st = ctx;
    struct ml_str query, path = ml_str_cut(req->target, '?', &query);
    if (ml_str_eq(path, ML_STR("/metrics")))
        metrics(st->engine, x);
    else if (ml_str_eq(path, ML_STR("/livez")))
        answer(x, 200, "text/plain; charset=utf-8", ML_STR("ok\n"));
    else
        readiness(st, x);
}
