/* The web port. Worker threads; no state. */
#include "gate/web.h"

#include "engine/engine.h"
#include "gate/answer.h"
#include "gate/places.h"
#include "gate/theme.h"
#include "gate/visit.h"

static void send_file(struct ml_exchange *x, const struct ml_theme_file *file)
{
    struct ml_header headers[] = {
        {ML_STR("content-type"), ml_str_z(file->type)},
        {ML_STR("cache-control"), ML_STR("public, max-age=3600")},
        {ML_STR("x-content-type-options"), ML_STR("nosniff")},
        /* An image of the theme that holds script stays an image. */
        {ML_STR("content-security-policy"), ML_STR("default-src 'none'; sandbox")},
    };
    struct ml_http_response res = {
        .status = 200, .headers = headers, .header_count = 4, .body = file->body};
    ml_exchange_reply(x, &res);
}

static bool reads(struct ml_str method)
{
    return ml_str_eq(method, ML_STR("GET")) || ml_str_eq(method, ML_STR("HEAD"));
}

static int locate(struct ml_visit *v, const char **why)
{
    const struct ml_vm *vm = v->worker->vm;
    enum ml_ground ground = ml_places_find(ml_engine_settings(v->worker->engine), &v->request);
    struct ml_str name = ml_below(v->request.path, ml_themes);
    const struct ml_theme_file *file = ml_theme_find(ml_engine_site(v->worker->engine), name);
    *why = "not found\n";
    if (ground == ML_GROUND_PLACE && file && reads(v->request.method)) {
        send_file(v->x, file);
        return -1;
    }
    if (ground != ML_GROUND_PLACE || !vm || !ml_vm_serves_places(vm) || name.p)
        return 404;
    return 0;
}

/* Nothing is allowed here: there is no application behind this port. */
static void allow(struct ml_visit *v)
{
    struct ml_decision d;
    ml_decision_init(&d);
    ml_decision_deny(&d, 404, ML_STR("error"), ML_STR("not found\n"));
    ml_answer_client(v->x, &d, 200);
}

void ml_web_handle(void *ctx, struct ml_exchange *x, const struct ml_http_request *req)
{
    static const struct ml_gate gate = {
        .web = true, .lowest = 200, .locate = locate, .allow = allow};
    ml_visit_start(&gate, ctx, x, req);
}
