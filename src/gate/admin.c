/* Admin requests. Main thread; owns a small struct per reload in flight. */
#include "gate/admin.h"

#include "base/mem.h"
#include "codec/header.h"

#include <stdlib.h>

static void answer(struct ml_exchange *x, int status, const char *type, struct ml_str body)
{
    struct ml_header headers[] = {{ML_STR("content-type"), ml_str_z(type)},
                                  {ML_STR("cache-control"), ML_STR("no-store")},
                                  {ML_STR("www-authenticate"), ML_STR("Bearer")}};
    struct ml_http_response res = {
        .status = status, .headers = headers, .header_count = status == 401 ? 3 : 2, .body = body};
    ml_exchange_reply(x, &res);
}

static void say(struct ml_exchange *x, int status, struct ml_str text)
{
    answer(x, status, "text/plain; charset=utf-8", text);
}

struct reload {
    struct ml_exchange *x; /* NULL: the caller went away; the reload goes on */
};

static void on_reloaded(void *arg, bool ok, struct ml_str text)
{
    struct reload *r = arg;
    if (r->x)
        say(r->x, ok ? 200 : 422, text.n ? text : ML_STR("reloaded\n"));
    free(r);
}

static void on_gone(void *arg)
{
    struct reload *r = arg;
    r->x = NULL;
}

static void reload(struct ml_engine *e, struct ml_exchange *x)
{
    struct reload *r = ML_NEW(struct reload);
    r->x = x;
    ml_exchange_on_cancel(x, on_gone, r);
    ml_engine_reload(e, "admin", true, on_reloaded, r);
}

static void describe(struct ml_engine *e, struct ml_exchange *x)
{
    struct ml_buf b;
    ml_buf_init(&b, 256 * 1024);
    ml_engine_describe(e, &b);
    if (b.failed)
        say(x, 500, ML_STR("too large\n"));
    else
        answer(x, 200, "application/json", ml_buf_str(&b));
    ml_buf_done(&b);
}

static bool permitted(const struct ml_admin *a, const struct ml_http_request *req)
{
    struct ml_request r = {.headers = req->headers, .header_count = req->header_count};
    if (!a->token)
        return true;
    struct ml_str token = ml_bearer(ml_request_header(&r, ML_STR("authorization"), NULL));
    return token.p && ml_equal_ct(token.p, token.n, a->token, strlen(a->token));
}

void ml_admin_handle(void *ctx, struct ml_exchange *x, const struct ml_http_request *req)
{
    struct ml_admin *a = ctx;
    bool is_reload = ml_str_eq(req->target, ML_STR("/reload")),
         is_policy = ml_str_eq(req->target, ML_STR("/policy"));
    if (!permitted(a, req))
        say(x, 401, ML_STR("ADMIN_TOKEN is required\n"));
    else if (is_reload && ml_str_eq(req->method, ML_STR("POST")))
        reload(a->engine, x);
    else if (is_policy && ml_str_eq(req->method, ML_STR("GET")))
        describe(a->engine, x);
    else if (is_reload || is_policy)
        say(x, 405, ML_STR("POST /reload, GET /policy\n"));
    else
        say(x, 404, ML_STR("POST /reload, GET /policy\n"));
}
