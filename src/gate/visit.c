/* The life of a request that policies judge. Worker threads; owns a struct ml_visit for each
 * request in flight, in the exchange's arena. */
#include "gate/visit.h"

#include "base/clock.h"
#include "engine/decision_log.h"
#include "gate/answer.h"
#include "gate/incoming.h"

/* Anything that is not an allow is a denial; anything that is neither is a 503. */
static void on_decided(void *arg)
{
    struct ml_visit *v = arg;
    uint64_t elapsed = ml_mono_ns() - v->started_ns;
    v->run = NULL;
    if (v->d.action == ML_UNDECIDED)
        ml_decision_deny(&v->d, 503, ML_STR("error"), ML_STR("no decision\n"));
    ml_counters_add(&v->worker->counters, ml_result_of(&v->d), elapsed);
    ml_decision_log(&v->request, &v->d, elapsed);
    if (v->d.action == ML_ALLOW)
        v->gate->allow(v);
    else
        ml_answer_client(v->x, &v->d, v->gate->lowest);
}

static void on_cancel(void *arg)
{
    struct ml_visit *v = arg;
    ml_counters_add(&v->worker->counters, ML_R_CANCELED, ml_mono_ns() - v->started_ns);
    if (v->run)
        ml_run_cancel(v->run);
    v->run = NULL;
}

void ml_visit_start(const struct ml_gate *gate, struct ml_worker *w, struct ml_exchange *x,
                    const struct ml_http_request *req)
{
    uint64_t started = ml_mono_ns();
    const char *why = "the request is too large\n";
    struct ml_visit *v = ml_arena_alloc(ml_exchange_arena(x), sizeof *v);
    if (!v) {
        ml_answer_refused(w, x, 431, why, started);
        return;
    }
    v->gate = gate;
    v->worker = w;
    v->x = x;
    v->run = NULL;
    v->started_ns = started;
    ml_decision_init(&v->d);
    int status = ml_incoming_read(w, ml_exchange_arena(x), req, &v->request, &why);
    v->request.web = gate->web;
    if (status == 0)
        status = gate->locate(v, &why);
    if (status > 0)
        ml_answer_refused(w, x, status, why, started);
    if (status != 0)
        return;
    ml_exchange_on_cancel(x, on_cancel, v);
    ml_worker_decide(w, &v->request, &v->d, on_decided, v, &v->run);
}
