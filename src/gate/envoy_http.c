/* Envoy HTTP ext_authz: what an allow looks like, and which paths are judged. Worker threads; no
 * state. */
#include "gate/envoy_http.h"

#include "engine/engine.h"
#include "gate/answer.h"
#include "gate/places.h"
#include "gate/theme.h"
#include "gate/visit.h"

/* "a,b": what the gateway must take out of the client's request. A blanked header is named as well
 * as sent empty: a gateway that knows no removal overwrites it at least. false: no memory. */
static bool removals(const struct ml_visit *v, struct ml_str *ret)
{
    struct ml_buf b;
    size_t more = 0;
    *ret = v->d.strip;
    for (size_t i = 0; i < v->d.upstream_count; i++)
        more += v->d.upstream[i].op != ML_HEADER_SET;
    if (!more)
        return true;
    ml_buf_init(&b, 16 * 1024);
    ml_buf_add_str(&b, v->d.strip);
    for (size_t i = 0; i < v->d.upstream_count; i++) {
        if (v->d.upstream[i].op == ML_HEADER_SET)
            continue;
        if (b.n)
            ml_buf_add(&b, ",", 1);
        ml_buf_add_str(&b, v->d.upstream[i].name);
    }
    *ret = b.failed ? (struct ml_str){NULL, 0} : ml_arena_dup(v->request.arena, ml_buf_str(&b));
    ml_buf_done(&b);
    return ret->p != NULL;
}

static void allow(struct ml_visit *v)
{
    struct ml_header headers[ML_UPSTREAM_HEADERS_MAX + 2];
    size_t n = 0;
    struct ml_str remove;
    if (!removals(v, &remove)) { /* a header that should not pass would */
        struct ml_header only[] = {ml_no_store};
        ml_exchange_reply(
            v->x, &(struct ml_http_response){.status = 503, .headers = only, .header_count = 1});
        return;
    }
    for (size_t i = 0; i < v->d.upstream_count; i++)
        if (v->d.upstream[i].op != ML_HEADER_REMOVE)
            headers[n++] = (struct ml_header){v->d.upstream[i].name, v->d.upstream[i].value};
    if (remove.n)
        headers[n++] = (struct ml_header){ML_STR("x-envoy-auth-headers-to-remove"), remove};
    headers[n++] = ml_no_store;
    struct ml_http_response res = {
        .status = v->request.verify ? 204 : 200, .headers = headers, .header_count = n};
    ml_exchange_reply(v->x, &res);
}

/* 0, or the status of a request that no policy sees. A place that the policy does not serve is not
 * there. */
static int locate(struct ml_visit *v, const char **why)
{
    const struct ml_vm *vm = v->worker->vm;
    enum ml_ground ground = ml_places_find(ml_engine_settings(v->worker->engine), &v->request);
    struct ml_str file = ml_below(v->request.path, ml_themes);
    *why = "not found\n";
    if (v->request.place == ML_PLACE_PAGE && file.p &&
        !ml_theme_find(ml_engine_site(v->worker->engine), file))
        return 404; /* what is passed on must be there */
    if (ground == ML_GROUND_PLACE && vm && ml_vm_serves_places(vm))
        return 0;
    return ground == ML_GROUND_PLACE || ground == ML_GROUND_NOTHING ? 404 : 0;
}

void ml_envoy_http_check(void *ctx, struct ml_exchange *x, const struct ml_http_request *req)
{
    /* Envoy passes a request on for a 200 and for nothing else; the ancestor's logout is a 201. */
    static const struct ml_gate gate = {.lowest = 201, .locate = locate, .allow = allow};
    ml_visit_start(&gate, ctx, x, req);
}
