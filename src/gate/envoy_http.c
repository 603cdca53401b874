/* Envoy HTTP ext_authz: makes an ml_request of what came, and HTTP of the decision. Owns a struct
 * check for each request in flight, in the exchange's arena. Worker threads. */
#include "gate/envoy_http.h"

#include "base/clock.h"
#include "base/mem.h"
#include "codec/header.h"
#include "codec/path.h"
#include "engine/decision_log.h"
#include "engine/engine.h"

#include <stdlib.h>

enum { DEADLINE_MAX_MS = 600000 };

struct check {
    struct ml_worker *worker;
    struct ml_exchange *x;
    struct ml_run *run;
    uint64_t started_ns;
    struct ml_request request;
    struct ml_decision d;
};

/* Answers -------------------------------------------------------------------------------------- */

static const struct ml_header no_store = {{"cache-control", 13}, {"no-store", 8}};
static const struct ml_header plain_text = {{"content-type", 12},
                                            {"text/plain; charset=utf-8", 25}};

static void refuse(struct ml_worker *w, struct ml_exchange *x, int status, const char *text,
                   uint64_t started_ns)
{
    struct ml_header headers[] = {no_store, plain_text};
    struct ml_http_response res = {
        .status = status, .headers = headers, .header_count = 2, .body = ml_str_z(text)};
    ml_counters_add(&w->counters, status == 404 ? ML_R_NOT_FOUND : ML_R_BAD_REQUEST,
                    ml_mono_ns() - started_ns);
    ml_exchange_reply(x, &res);
}

/* "a,b": what the gateway must take out of the client's request. A blanked header is named as well
 * as sent empty: a gateway that knows no removal overwrites it at least. false: no memory. */
static bool removals(const struct check *c, struct ml_str *ret)
{
    struct ml_buf b;
    size_t more = 0;
    *ret = c->d.strip;
    for (size_t i = 0; i < c->d.upstream_count; i++)
        more += c->d.upstream[i].op != ML_HEADER_SET;
    if (!more)
        return true;
    ml_buf_init(&b, 16 * 1024);
    ml_buf_add_str(&b, c->d.strip);
    for (size_t i = 0; i < c->d.upstream_count; i++) {
        if (c->d.upstream[i].op == ML_HEADER_SET)
            continue;
        if (b.n)
            ml_buf_add(&b, ",", 1);
        ml_buf_add_str(&b, c->d.upstream[i].name);
    }
    *ret = b.failed ? (struct ml_str){NULL, 0} : ml_arena_dup(c->request.arena, ml_buf_str(&b));
    ml_buf_done(&b);
    return ret->p != NULL;
}

static void answer_allow(struct check *c)
{
    struct ml_header headers[ML_UPSTREAM_HEADERS_MAX + 2];
    size_t n = 0;
    struct ml_str remove;
    if (!removals(c, &remove)) { /* a header that should not pass would */
        struct ml_header only[] = {no_store};
        ml_exchange_reply(
            c->x, &(struct ml_http_response){.status = 503, .headers = only, .header_count = 1});
        return;
    }
    for (size_t i = 0; i < c->d.upstream_count; i++)
        if (c->d.upstream[i].op != ML_HEADER_REMOVE)
            headers[n++] = (struct ml_header){c->d.upstream[i].name, c->d.upstream[i].value};
    if (remove.n)
        headers[n++] = (struct ml_header){ML_STR("x-envoy-auth-headers-to-remove"), remove};
    headers[n++] = no_store;
    struct ml_http_response res = {
        .status = c->request.verify ? 204 : 200, .headers = headers, .header_count = n};
    ml_exchange_reply(c->x, &res);
}

static void answer_deny(struct check *c)
{
    struct ml_header headers[ML_CLIENT_HEADERS_MAX + 2];
    size_t n = 0;
    headers[n++] = no_store;
    headers[n++] = (struct ml_header){plain_text.name,
                                      c->d.content_type.n ? c->d.content_type : plain_text.value};
    for (size_t i = 0; i < c->d.client_count; i++)
        headers[n++] = c->d.client[i];
    struct ml_http_response res = {
        .status = c->d.status, .headers = headers, .header_count = n, .body = c->d.body};
    ml_exchange_reply(c->x, &res);
}

/* Anything that is not an allow is a denial; anything that is neither is a 503. */
static void on_decided(void *arg)
{
    struct check *c = arg;
    uint64_t elapsed = ml_mono_ns() - c->started_ns;
    c->run = NULL;
    if (c->d.action == ML_UNDECIDED)
        ml_decision_deny(&c->d, 503, ML_STR("error"), ML_STR("no decision\n"));
    ml_counters_add(&c->worker->counters, ml_result_of(&c->d), elapsed);
    ml_decision_log(&c->request, &c->d, elapsed);
    if (c->d.action == ML_ALLOW)
        answer_allow(c);
    else
        answer_deny(c);
}

static void on_cancel(void *arg)
{
    struct check *c = arg;
    ml_counters_add(&c->worker->counters, ML_R_CANCELED, ml_mono_ns() - c->started_ns);
    if (c->run)
        ml_run_cancel(c->run);
    c->run = NULL;
}

/* Requests ---------------------------------------------------------------------------------------
 */

/* What follows `place` when path is it or below it, by whole segments; p == NULL when it is not. */
static struct ml_str below(struct ml_str path, const char *place)
{
    struct ml_str prefix = ml_str_z(place);
    if (!path.p || !ml_str_starts(path, prefix) || (path.n > prefix.n && path.p[prefix.n] != '/'))
        return (struct ml_str){NULL, 0};
    return ml_str(path.p + prefix.n, path.n - prefix.n);
}

/* A client that names an identity header in Connection would have the gateway drop it after we set
 * it (S-033). */
static bool connection_names(const struct ml_header *h, const struct ml_str *owned, size_t count)
{
    struct ml_str rest = h->value;
    while (rest.p) {
        struct ml_str token = ml_str_trim(ml_str_cut(rest, ',', &rest));
        for (size_t i = 0; i < count; i++)
            if (ml_str_ieq(token, owned[i]))
                return true;
    }
    return false;
}

/* Why the headers cannot be judged, or NULL. */
static const char *check_headers(struct ml_worker *w, const struct ml_http_request *req)
{
    const struct ml_str *owned = NULL;
    size_t count = w->vm ? ml_vm_owned_headers(w->vm, &owned) : 0, credentials = 0;
    for (size_t i = 0; i < req->header_count; i++) {
        const struct ml_header *h = &req->headers[i];
        if (ml_str_ieq(h->name, ML_STR("authorization")) && ++credentials > 1)
            return "more than one Authorization header\n";
        if (ml_str_ieq(h->name, ML_STR("connection")) && connection_names(h, owned, count))
            return "the Connection header names an identity header\n";
        for (size_t k = 0; k < count; k++)
            if (h->name.n == owned[k].n && ml_header_is_alias(h->name, owned[k]))
                return "a header is a misspelt identity header\n";
    }
    return NULL;
}

/* The gateway's patience, less a tenth, as a moment; 0: it does not say. */
static uint64_t gateway_deadline(const struct ml_request *r)
{
    unsigned long long ms;
    struct ml_str v = ml_request_header(r, ML_STR("x-envoy-expected-rq-timeout-ms"), NULL);
    if (!v.p || !ml_str_u64(v, &ms) || ms == 0 || ms > DEADLINE_MAX_MS)
        return 0;
    return ml_mono_ms() + (ms * 9 + 9) / 10;
}

static struct ml_str request_id(struct ml_worker *w, const struct ml_request *r)
{
    char id[17];
    struct ml_str given = ml_request_header(r, ML_STR("x-request-id"), NULL);
    if (given.n && given.n <= 128 &&
        ml_header_name_ok(given)) /* a token: safe wherever it is printed */
        return given;
    ml_worker_request_id(w, id);
    return ml_arena_dup(r->arena, ml_str(id, 16));
}

/* Fills c->request; 0, or the status of the refusal with its text. */
static int read_request(struct check *c, const struct ml_http_request *req, const char **why)
{
    struct ml_request *r = &c->request;
    struct ml_target target;
    struct ml_err err = {.text = ""};
    unsigned port;
    *r = (struct ml_request){.arena = ml_exchange_arena(c->x),
                             .method = req->method,
                             .scheme = ML_STR("http"),
                             .headers = req->headers,
                             .header_count = req->header_count,
                             .client_ip = req->peer};
    *why = "the request target is ambiguous or malformed\n";
    if (ml_target_parse(r->arena, req->target, &target, &err) != 0)
        return err.code == ML_E_TOOBIG ? 414 : 400;
    struct ml_str host = target.host.p ? target.host : ml_request_header(r, ML_STR("host"), NULL);
    *why = "the host is missing or malformed\n";
    if (ml_host_parse(r->arena, host, &r->host, &port, &err) != 0)
        return 400;
    r->path = target.path;
    r->raw_path = target.raw_path;
    r->query = target.query;
    r->has_params = target.has_params;
    *why = check_headers(c->worker, req);
    if (*why)
        return 400;
    r->id = request_id(c->worker, r);
    r->deadline_ms = gateway_deadline(r);
    return 0;
}

/* Reserved paths are answered here, whatever the policy says (compat.md Q1 to Q3): verify asks the
 * policy about the rest of the path, everything else is not there. */
static bool is_reserved(struct check *c)
{
    const struct ml_settings *settings = ml_engine_settings(c->worker->engine);
    struct ml_request *r = &c->request;
    struct ml_str rest = below(r->path, ml_settings_verify(settings));
    if (rest.p) {
        r->verify = true;
        r->path = rest.n ? rest : ML_STR("/");
        return false;
    }
    return below(r->path, ml_settings_prefix(settings)).p != NULL;
}

void ml_envoy_http_check(void *ctx, struct ml_exchange *x, const struct ml_http_request *req)
{
    struct ml_worker *w = ctx;
    uint64_t started = ml_mono_ns();
    const char *why = "the request is too large\n";
    struct check *c = ml_arena_alloc(ml_exchange_arena(x), sizeof *c);
    if (!c) {
        refuse(w, x, 431, why, started);
        return;
    }
    c->worker = w;
    c->x = x;
    c->run = NULL;
    c->started_ns = started;
    ml_decision_init(&c->d);
    int status = read_request(c, req, &why);
    if (status == 0 && is_reserved(c)) {
        status = 404;
        why = "not found\n";
    }
    if (status != 0) {
        refuse(w, x, status, why, started);
        return;
    }
    ml_exchange_on_cancel(x, on_cancel, c);
    ml_worker_decide(w, &c->request, &c->d, on_decided, c, &c->run);
}
