/* Requests and decisions: plain values, no state; any thread (each value belongs to one). */
#include "codec/request.h"

struct ml_str ml_request_header(const struct ml_request *r, struct ml_str name, size_t *count)
{
    struct ml_str found = {NULL, 0};
    size_t n = 0;
    for (size_t i = 0; i < r->header_count; i++) {
        if (!ml_str_ieq(r->headers[i].name, name))
            continue;
        n++;
        found = r->headers[i].value;
        if (!found.p)
            found = ML_STR(""); /* there, and empty: not the same as absent */
    }
    if (count)
        *count = n;
    return n == 1 ? found : (struct ml_str){NULL, 0};
}

void ml_decision_init(struct ml_decision *d)
{
    d->action = ML_UNDECIDED;
    d->status = 0;
    d->reason = d->user = d->route = d->strip = d->content_type = d->body =
        (struct ml_str){NULL, 0};
    d->upstream_count = d->client_count = d->step_count = 0;
}

bool ml_decision_allow(struct ml_decision *d)
{
    if (d->action != ML_UNDECIDED)
        return false;
    d->action = ML_ALLOW;
    d->status = 200;
    d->reason = ML_STR("allowed");
    return true;
}

bool ml_decision_deny(struct ml_decision *d, int status, struct ml_str reason, struct ml_str body)
{
    if (d->action != ML_UNDECIDED)
        return false;
    bool valid = status >= 301 && status <= 599;
    d->action = ML_DENY;
    d->status = valid ? status : 503; /* a bug above us must not turn into a 200 */
    d->reason = valid ? reason : ML_STR("error");
    d->body = body;
    return true;
}

bool ml_decision_answer(struct ml_decision *d, int status, struct ml_str reason,
                        struct ml_str content_type, struct ml_str body)
{
    if (d->action != ML_UNDECIDED)
        return false;
    bool valid = status >= 200 && status <= 599;
    d->action = valid ? ML_ANSWER : ML_DENY;
    d->status = valid ? status : 503;
    d->reason = valid ? reason : ML_STR("error");
    d->content_type = content_type;
    d->body = body;
    return true;
}

void ml_decision_step(struct ml_decision *d, struct ml_str name, struct ml_str outcome,
                      struct ml_str reason)
{
    if (d->step_count < ML_STEPS_MAX)
        d->steps[d->step_count++] = (struct ml_step){name, outcome, reason};
    else
        d->steps[ML_STEPS_MAX - 1] = (struct ml_step){ML_STR("..."), ML_STR(""), ML_STR("")};
}
