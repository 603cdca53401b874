/* The scheduler of one worker: the ready list, the pool of runs, the handles. Only this file's
 * check callback and run.c's entry points resume Lua, never a callback of curl, a socket or a timer
 * of somebody else: a resumed policy may start and cancel transfers, which those forbid. */
#include "script/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdlib.h>

enum { LOGS_A_SECOND = 10 };

void ml_script_pin(struct ml_script *s)
{
    s->pins++;
}

void ml_script_unpin(struct ml_script *s)
{
    if (--s->pins > 0 || !s->closing)
        return;
    void (*closed)(void *) = s->closed;
    void *ctx = s->ctx;
    free(s);
    if (closed)
        closed(ctx);
}

static void on_handle_closed(uv_handle_t *handle)
{
    ml_script_unpin(handle->data);
}

static void spin(uv_idle_t *handle)
{
}

/* What becomes ready meanwhile waits for the next turn, so that the loop's other work gets its turn
 * too. */
static void drain(uv_check_t *check)
{
    struct ml_script *s = check->data;
    struct ml_await *a = s->ready;
    s->ready = NULL;
    s->ready_end = &s->ready;
    ml_script_pin(s);
    while (a) {
        struct ml_await *next = a->next;
        if (a->run)
            ml_run_resume(a->run);
        ml_await_unref(a);
        a = next;
    }
    if (!s->ready && !s->closing) {
        uv_check_stop(&s->check);
        uv_idle_stop(&s->spin);
    }
    ml_script_unpin(s);
}

void ml_script_ready(struct ml_script *s, struct ml_await *a)
{
    if (!s->ready && !s->closing) {
        uv_check_start(&s->check, drain);
        uv_idle_start(&s->spin, spin);
    }
    a->next = NULL;
    *s->ready_end = ml_await_ref(a);
    s->ready_end = &a->next;
}

int ml_script_new(struct ml_script **ret, const struct ml_script_options *options)
{
    struct ml_script *s = ML_NEW(struct ml_script);
    s->options = *options;
    s->ready_end = &s->ready;
    if (!ml_meter_open(&s->meter)) {
        free(s);
        return ML_E_INVALID;
    }
    uv_check_init(options->loop, &s->check);
    uv_idle_init(options->loop, &s->spin);
    s->check.data = s->spin.data = s;
    s->pins = 2;
    *ret = s;
    return ML_OK;
}

static void drop_ready(struct ml_script *s)
{
    while (s->ready) {
        struct ml_await *a = s->ready;
        s->ready = a->next;
        ml_await_unref(a);
    }
    s->ready_end = &s->ready;
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct ml_run *run = handle->data;
    struct ml_script *s = run->script;
    free(run);
    ml_script_unpin(s);
}

void ml_script_close(struct ml_script *s, void (*closed)(void *ctx), void *ctx)
{
    s->closing = true;
    s->closed = closed;
    s->ctx = ctx;
    while (s->live)
        ml_run_cancel(s->live);
    ML_REQUIRE(s->vms == 0);
    drop_ready(s);
    while (s->idle) {
        struct ml_run *run = s->idle;
        s->idle = run->next;
        if (run->has_timer)
            uv_close((uv_handle_t *)&run->timer, on_timer_closed);
        else
            free(run);
    }
    for (size_t i = 0; i < ML_ORIGINS_MAX; i++) {
        free(s->origins[i].text);
        if (s->origins[i].upstream)
            ml_upstream_unref(s->origins[i].upstream);
    }
    ml_meter_close(&s->meter);
    uv_close((uv_handle_t *)&s->check, on_handle_closed);
    uv_close((uv_handle_t *)&s->spin, on_handle_closed);
}

struct ml_script_stats ml_script_stats(const struct ml_script *s)
{
    return s->stats;
}

struct ml_run *ml_run_take(struct ml_script *s)
{
    struct ml_run *run = s->idle;
    if (run)
        s->idle = run->next;
    else
        run = ML_NEW(struct ml_run);
    run->script = s;
    run->number = ++s->numbers;
    run->next = s->live;
    run->link = &s->live;
    if (run->next)
        run->next->link = &run->next;
    s->live = run;
    return run;
}

/* Everything but the timer's memory starts afresh. */
void ml_run_give(struct ml_run *run)
{
    struct ml_script *s = run->script;
    *run->link = run->next;
    if (run->next)
        run->next->link = run->link;
    if (run->has_timer)
        uv_timer_stop(&run->timer);
    memset(run, 0, offsetof(struct ml_run, timer));
    run->script = s;
    run->next = s->idle;
    s->idle = run;
}

static void on_timer(uv_timer_t *timer)
{
    ml_run_on_timer(timer->data);
}

void ml_run_timer(struct ml_run *run, uint64_t ms)
{
    struct ml_script *s = run->script;
    if (!run->has_timer) {
        uv_timer_init(s->options.loop, &run->timer);
        run->timer.data = run;
        run->has_timer = true;
        ml_script_pin(s);
    }
    uv_update_time(s->options.loop);
    uv_timer_start(&run->timer, on_timer, ms, 0);
}

void ml_script_log_error(struct ml_script *s, const struct ml_vm *vm, struct ml_str id,
                         const char *text)
{
    uint64_t second = ml_mono_ms() / 1000;
    if (second != s->log_second) {
        s->log_second = second;
        s->logged = 0;
    }
    if (s->logged >= LOGS_A_SECOND) {
        s->log_held++;
        return;
    }
    s->logged++;
    ml_log(ML_LOG_ERROR, "the policy failed", ML_FZ("policy", vm->name), ML_FZ("error", text),
           ML_F("id", id.p ? id : ML_STR("")), ML_FN("not_logged", s->log_held));
    s->log_held = 0;
}
