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

/* A header that counts only when it is there once. */
struct single {
    struct ml_str value;
    unsigned count;
};

static void note(struct single *s, const struct ml_header *h, struct ml_str name)
{
    if (!ml_str_ieq(h->name, name))
        return;
    s->value = h->value.p ? h->value : ML_STR("");
    s->count++;
}

static struct ml_str only(const struct single *s)
{
    return s->count == 1 ? s->value : (struct ml_str){NULL, 0};
}

/* What the gate itself wants to know of the headers. */
struct known {
    struct single host, id, patience, authorization;
};

static void look_at(struct known *k, const struct ml_header *h)
{
    switch (h->name.n) {
    case 4:
        note(&k->host, h, ML_STR("host"));
        break;
    case 12:
        note(&k->id, h, ML_STR("x-request-id"));
        break;
    case 13:
        note(&k->authorization, h, ML_STR("authorization"));
        break;
    case 30:
        note(&k->patience, h, ML_STR("x-envoy-expected-rq-timeout-ms"));
        break;
    default:
        break;
    }
}

/* One pass over the headers. Returns why they cannot be judged, or NULL. */
static const char *read_headers(struct ml_worker *w, const struct ml_http_request *req,
                                struct known *known)
{
    const struct ml_str *owned = NULL;
    size_t count = w->vm ? ml_vm_owned_headers(w->vm, &owned) : 0;
    uint64_t lengths = 0; /* of owned names, modulo 64: most headers have none of them */
    for (size_t k = 0; k < count; k++)
        lengths |= UINT64_C(1) << (owned[k].n % 64);
    for (size_t i = 0; i < req->header_count; i++) {
        const struct ml_header *h = &req->headers[i];
        look_at(known, h);
        if (ml_str_ieq(h->name, ML_STR("connection")) && connection_names(h, owned, count))
            return "the Connection header names an identity header\n";
        if (!(lengths >> (h->name.n % 64) & 1))
            continue;
        for (size_t k = 0; k < count; k++)
            if (h->name.n == owned[k].n && ml_header_is_alias(h->name, owned[k]))
                return "a header is a misspelt identity header\n";
    }
    return known->authorization.count > 1 ? "more than one Authorization header\n" : NULL;
}

/* The gateway's patience, less a tenth, as a moment; 0: it does not say. */
static uint64_t gateway_deadline(struct ml_str patience)
{
    unsigned long long ms;
    if (!patience.p || !ml_str_u64(patience, &ms) || ms == 0 || ms > DEADLINE_MAX_MS)
        return 0;
    return ml_mono_ms() + (ms * 9 + 9) / 10;
}

static struct ml_str request_id(struct ml_worker *w, struct ml_arena *arena, struct ml_str given)
{
    char id[17];
    if (given.n && given.n <= 128 &&
        ml_header_name_ok(given)) /* a token: safe wherever it is printed */
        return given;
    ml_worker_request_id(w, id);
    return ml_arena_dup(arena, ml_str(id, 16));
}

int ml_incoming_read(struct ml_worker *w, struct ml_arena *arena, const struct ml_http_request *req,
                     struct ml_request *r, const char **why)
{
    struct ml_target target;
    struct known known = {.host = {{NULL, 0}, 0}};
    struct ml_err err;
    unsigned port;
    err.code = 0; /* the text stays as it is: half a kilobyte */
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
    const char *unfit = read_headers(w, req, &known);
    struct ml_str host = target.host.p ? target.host : only(&known.host);
    *why = "the host is missing or malformed\n";
    if (ml_host_parse(r->arena, host, &r->host, &port, &err) != 0)
        return 400;
    r->path = target.path;
    r->raw_path = target.raw_path;
    r->query = target.query;
    r->has_params = target.has_params;
    *why = unfit;
    if (unfit)
        return 400;
    r->id = request_id(w, arena, only(&known.id));
    r->deadline_ms = gateway_deadline(only(&known.patience));
    return 0;
}
