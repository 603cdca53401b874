/* Admin requests. Main thread; owns a struct errand for each reload and revocation under way. */
#include "gate/admin.h"

#include "base/mem.h"
#include "codec/header.h"
#include "codec/text.h"

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

/* A reload or a revocation under way. */
struct errand {
    struct ml_exchange *x; /* NULL: the caller went away; the errand goes on */
};

static void on_reloaded(void *arg, bool ok, struct ml_str text)
{
    struct errand *r = arg;
    if (r->x)
        say(r->x, ok ? 200 : 422, text.n ? text : ML_STR("reloaded\n"));
    free(r);
}

static void on_gone(void *arg)
{
    struct errand *r = arg;
    r->x = NULL;
}

static void reload(struct ml_engine *e, struct ml_exchange *x)
{
    struct errand *r = ML_NEW(struct errand);
    r->x = x;
    ml_exchange_on_cancel(x, on_gone, r);
    ml_engine_reload(e, "admin", true, on_reloaded, r);
}

/* The value of a field of the form, decoded; p == NULL: not there, or not one. */
static struct ml_str form_field(struct ml_arena *arena, struct ml_str form, struct ml_str name)
{
    struct ml_buf b;
    struct ml_str found = {NULL, 0};
    ml_buf_init(&b, form.n + 1);
    while (form.n && !found.p) {
        struct ml_str pair = ml_str_cut(form, '&', &form), value;
        struct ml_str key = ml_str_cut(pair, '=', &value);
        if (ml_str_eq(key, name) && ml_url_unescape(value.p ? value : ML_STR(""), true, &b))
            found = ml_arena_dup(arena, b.p ? ml_buf_str(&b) : ML_STR(""));
    }
    ml_buf_done(&b);
    return found;
}

static void on_revoked(void *arg, bool ok, struct ml_str text)
{
    struct errand *r = arg;
    if (r->x)
        say(r->x, ok ? 200 : 503, text);
    free(r);
}

/* kind=value, and issuer=URL for a subject or sid. */
static void revocation(struct ml_engine *e, struct ml_exchange *x, struct ml_str form)
{
    struct ml_arena *arena = ml_exchange_arena(x);
    struct ml_str whole, kind = ml_str_cut(form, '=', &whole);
    struct ml_str value = form_field(arena, form, kind),
                  issuer = form_field(arena, form, ML_STR("issuer"));
    if (value.p && (ml_str_eq(kind, ML_STR("subject")) || ml_str_eq(kind, ML_STR("sid"))))
        value = issuer.n && value.n
                    ? ml_arena_printf(arena, "%.*s %.*s", ML_FMT(issuer), ML_FMT(value))
                    : ML_STR("");
    struct errand *r = ML_NEW(struct errand);
    r->x = x;
    ml_exchange_on_cancel(x, on_gone, r);
    if (!value.p || ml_engine_revoke(e, kind, value, on_revoked, r) != 0) {
        free(r);
        ml_exchange_on_cancel(x, NULL, NULL);
        say(x, 400,
            ML_STR(
                "user=NAME, subject=SUB&issuer=URL, sid=SID&issuer=URL, token=TOKEN, or all=\n"));
    }
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
    static const struct {
        const char *method, *target;
    } calls[] = {{"POST", "/reload"}, {"GET", "/policy"}, {"POST", "/revoke"}};
    struct ml_admin *a = ctx;
    size_t call = 0;
    while (call < 3 && !ml_str_eq(req->target, ml_str_z(calls[call].target)))
        call++;
    if (!permitted(a, req))
        say(x, 401, ML_STR("ADMIN_TOKEN is required\n"));
    else if (call == 3 || !ml_str_eq(req->method, ml_str_z(calls[call].method)))
        say(x, call == 3 ? 404 : 405, ML_STR("POST /reload, GET /policy, POST /revoke\n"));
    else if (call == 0)
        reload(a->engine, x);
    else if (call == 1)
        describe(a->engine, x);
    else
        revocation(a->engine, x, req->body);
}
