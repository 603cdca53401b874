/* Decision lines. Worker threads; no state. */
#include "engine/decision_log.h"

#include "base/buf.h"
#include "base/log.h"

static void add_steps(struct ml_buf *b, const struct ml_decision *d)
{
    for (size_t i = 0; i < d->step_count; i++) {
        const struct ml_step *s = &d->steps[i];
        ml_buf_printf(b, "%s%.*s %.*s", i ? "; " : "", ML_FMT(s->name), ML_FMT(s->outcome));
        if (s->reason.n)
            ml_buf_printf(b, " (%.*s)", ML_FMT(s->reason));
    }
}

static enum ml_log_level level_of(const struct ml_decision *d)
{
    if (d->action == ML_ALLOW)
        return ML_LOG_DEBUG;
    return d->status >= 500 ? ML_LOG_WARN : ML_LOG_INFO;
}

void ml_decision_log(const struct ml_request *r, const struct ml_decision *d, uint64_t elapsed_ns)
{
    struct ml_buf steps;
    if (!ml_log_on(level_of(d)))
        return;
    ml_buf_init(&steps, 8 * 1024);
    add_steps(&steps, d);
    const struct ml_field fields[] = {
        ML_F("id", r->id),
        ML_F("method", r->method),
        ML_F("host", r->host),
        ML_F("path", r->path),
        ML_F("route", d->route.p ? d->route : ML_STR("")),
        ML_F("result", d->reason),
        ML_FN("status", d->status),
        ML_F("user", d->user.p ? d->user : ML_STR("")),
        ML_F("steps", steps.p ? ml_buf_str(&steps) : ML_STR("")),
        ML_FN("us", elapsed_ns / 1000),
    };
    ml_log_fields(level_of(d), ML_STR("check"), fields, sizeof fields / sizeof fields[0]);
    ml_buf_done(&steps);
}
