/* What came on a listener, as the request that policies judge. Worker threads; no state. */
#include "gate/incoming.h"

#include "base/clock.h"
#include "codec/header.h"
#include "codec/path.h"

enum { DEADLINE_MAX_MS = 600000 };

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

int ml_incoming_read(struct ml_worker *w, struct ml_arena *arena, const struct ml_http_request *req,
                     struct ml_request *r, const char **why)
{
    struct ml_target target;
    struct ml_err err = {.text = ""};
    unsigned port;
    *r = (struct ml_request){.arena = arena,
                             .method = req->method,
                             .scheme = ML_STR("http"),
                             .headers = req->headers,
                             .header_count = req->header_count,
                             .client_ip = req->peer,
                             .body = req->body};
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
    *why = check_headers(w, req);
    if (*why)
        return 400;
    r->id = request_id(w, r);
    r->deadline_ms = gateway_deadline(r);
    return 0;
}
