/* Policy generations. A candidate is read once, tried in a scratch state on a thread of its own,
 * built by every worker, given some time to discover its providers, and only then made current
 * everywhere. Any failure leaves the old one as it is. Main thread, but for check_main. */
#include "engine/internal.h"

#include "base/clock.h"
#include "base/mem.h"

#include <libgen.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

enum { SETTLE_MS = 300, POLL_MS = 20, PATIENCE_MS = 3000, NICE = 10, STACK = 512 * 1024 };

static void advance(struct ml_engine *e);

/* Waiters -------------------------------------------------------------------------------------- */

static void add_waiter(struct ml_reload_waiter **list, ml_reload_done done, void *arg)
{
    if (!done)
        return;
    struct ml_reload_waiter *w = ML_NEW(struct ml_reload_waiter);
    *w = (struct ml_reload_waiter){*list, done, arg};
    *list = w;
}

static void tell(struct ml_reload_waiter **list, bool ok, struct ml_str text)
{
    struct ml_reload_waiter *w = *list;
    *list = NULL;
    while (w) {
        struct ml_reload_waiter *next = w->next;
        w->done(w->arg, ok, text);
        free(w);
        w = next;
    }
}

static void next_reload(struct ml_engine *e)
{
    e->reload_state = ML_RELOAD_IDLE;
    if (e->reloaded)
        e->reloaded(e->ctx);
    if (!e->again || e->closing)
        return;
    e->forced = e->force_again;
    e->again = e->force_again = false;
    e->waiters = e->later;
    e->later = NULL;
    advance(e);
}

static void failed(struct ml_engine *e, struct ml_str text)
{
    e->reload_failures++;
    e->last_failed = true;
    if (e->candidate)
        ml_bundle_unref(e->candidate);
    e->candidate = NULL;
    ml_log(ML_LOG_ERROR, "policy not reloaded, the old one stays", ML_F("report", text),
           ML_FN("generation", e->generation));
    tell(&e->waiters, false, text);
    next_reload(e);
}

static void unchanged(struct ml_engine *e)
{
    ml_bundle_unref(e->candidate);
    e->candidate = NULL;
    e->last_failed = false;
    tell(&e->waiters, true, ML_STR("the policy is as it was\n"));
    next_reload(e);
}

static void flip(struct ml_engine *e)
{
    for (unsigned i = 0; i < e->worker_count; i++)
        ml_worker_flip(&e->workers[i], true);
    if (e->bundle)
        ml_bundle_unref(e->bundle);
    e->bundle = e->candidate;
    e->candidate = NULL;
    e->generation++;
    e->last_failed = false;
    if (e->generation > 1) {
        e->reloads++;
        ml_log(ML_LOG_INFO, "policy reloaded", ML_FN("generation", e->generation),
               ML_FZ("hash", ml_bundle_hash(e->bundle)));
    }
    tell(&e->waiters, true, ml_buf_str(&e->report));
    next_reload(e);
}

/* Steps ---------------------------------------------------------------------------------------- */

static void on_patience(uv_timer_t *timer)
{
    struct ml_engine *e = timer->data;
    bool ready = atomic_load(&e->workers[0].next_ready);
    if (!ready && ml_mono_ms() - e->waiting_since_ms < PATIENCE_MS)
        return;
    uv_timer_stop(timer);
    if (!ready)
        ml_log_text(
            ML_LOG_WARN,
            "the new policy's providers have not all answered yet; it takes effect nevertheless");
    flip(e);
}

/* Callers who are refused while the new generation learns its providers would have been served by
 * the old one. */
static void wait_for_providers(struct ml_engine *e)
{
    e->reload_state = ML_RELOAD_WAITING;
    e->waiting_since_ms = ml_mono_ms();
    uv_timer_start(&e->patience, on_patience, 0, POLL_MS);
}

static void on_built(void *arg, bool ok)
{
    struct ml_engine *e = arg;
    e->built++;
    e->failed += !ok;
    if (e->built < e->worker_count || e->closing)
        return;
    if (e->failed) {
        for (unsigned i = 0; i < e->worker_count; i++)
            ml_worker_flip(&e->workers[i], false);
        failed(e, ML_STR("a worker could not build the policy; see the log\n"));
    } else if (e->generation == 0) {
        flip(e);
    } else {
        wait_for_providers(e);
    }
}

static void build(struct ml_engine *e)
{
    e->reload_state = ML_RELOAD_BUILDING;
    e->built = e->failed = 0;
    for (unsigned i = 0; i < e->worker_count; i++)
        ml_worker_build(&e->workers[i], e->candidate, e->generation + 1, on_built, e);
}

static bool changed(struct ml_engine *e)
{
    return e->forced || strcmp(ml_bundle_hash(e->candidate), ml_bundle_hash(e->bundle)) != 0;
}

static void on_checked(struct ml_letter *letter)
{
    struct ml_engine *e = ML_CONTAINER(letter, struct ml_engine, checked);
    pthread_join(e->checker, NULL);
    if (e->closing) {
        ml_engine_reload_close(e);
        return;
    }
    ml_buf_clear(&e->report);
    ml_buf_add_str(&e->report, ml_buf_str(&e->trial));
    if (e->check_result != 0)
        failed(e, ml_buf_str(&e->report));
    else if (!changed(e))
        unchanged(e);
    else
        build(e);
}

/* A thread for one check, not one of libuv's pool: others need those, and a priority once lowered
 * cannot be raised again. Callers go first: a policy that loops until its budget is used up may
 * take its time. */
static void *check_main(void *arg)
{
    struct ml_engine *e = arg;
    struct ml_err err = {.text = ""};
    pthread_setname_np(pthread_self(), "check");
    ml_worker_block_signals();
    setpriority(PRIO_PROCESS, (id_t)gettid(), NICE);
    e->check_result = ml_bundle_read(&e->candidate, e->policy, &err);
    if (e->check_result != 0)
        ml_buf_printf(&e->trial, "%s\n", err.text);
    else if (changed(e))
        e->check_result = ml_engine_try(e->settings, e->library, e->candidate, &e->trial);
    e->checked.read = on_checked;
    ML_REQUIRE(ml_mailbox_post(&e->mailbox, &e->checked));
    return NULL;
}

static void advance(struct ml_engine *e)
{
    pthread_attr_t attr;
    e->reload_state = ML_RELOAD_CHECKING;
    ml_buf_clear(&e->trial);
    e->candidate = NULL;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK);
    int r = pthread_create(&e->checker, &attr, check_main, e);
    pthread_attr_destroy(&attr);
    if (r != 0)
        failed(e, ML_STR("no thread to check the policy on\n"));
}

void ml_engine_reload(struct ml_engine *e, const char *why, bool force, ml_reload_done done,
                      void *arg)
{
    if (e->closing) {
        if (done)
            done(arg, false, ML_STR("the server is stopping\n"));
        return;
    }
    ml_log(ML_LOG_DEBUG, "policy reload asked", ML_FZ("by", why));
    if (e->reload_state != ML_RELOAD_IDLE) {
        e->again = true;
        e->force_again |= force;
        add_waiter(&e->later, done, arg);
        return;
    }
    add_waiter(&e->waiters, done, arg);
    e->forced = force;
    advance(e);
}

int ml_engine_first_generation(struct ml_engine *e, struct ml_buf *report, struct ml_err *err)
{
    build(e);
    while (e->reload_state == ML_RELOAD_BUILDING)
        uv_run(e->loop, UV_RUN_ONCE);
    return e->generation == 1 ? 0 : ml_fail(err, ML_E_POLICY, "a worker cannot build the policy");
}

/* Watching --------------------------------------------------------------------------------------
 */

static void on_settled(uv_timer_t *timer)
{
    struct ml_engine *e = timer->data;
    ml_engine_reload(e, "file change", false, NULL, NULL);
}

static void on_file_event(uv_fs_event_t *watch, const char *file, int events, int status)
{
    struct ml_engine *e = watch->data;
    /* Not started again while it runs: a storm of events cannot put the reload off for ever. */
    if (!uv_is_active((uv_handle_t *)&e->settle))
        uv_timer_start(&e->settle, on_settled, SETTLE_MS, 0);
}

/* The directory, not the file: editors replace files and ConfigMaps swap the symbolic link ..data.
 */
void ml_engine_watch(struct ml_engine *e)
{
    char *copy = ml_xstrdup(e->policy);
    int r = uv_fs_event_start(&e->watch, on_file_event, dirname(copy), 0);
    e->watching = r == 0;
    if (r != 0)
        ml_log(ML_LOG_WARN, "the policy's directory cannot be watched; reload with SIGHUP",
               ML_FZ("reason", uv_strerror(r)));
    free(copy);
}

void ml_engine_reload_open(struct ml_engine *e)
{
    uv_timer_init(e->loop, &e->settle);
    uv_timer_init(e->loop, &e->patience);
    uv_fs_event_init(e->loop, &e->watch);
    e->settle.data = e->patience.data = e->watch.data = e;
}

static void on_timer_closed(uv_handle_t *handle)
{
    ml_engine_free(handle->data);
}

/* Once no thread works for the engine any more; the last handle's close callback frees it. */
void ml_engine_reload_close(struct ml_engine *e)
{
    tell(&e->waiters, false, ML_STR("the server is stopping\n"));
    tell(&e->later, false, ML_STR("the server is stopping\n"));
    if (e->candidate)
        ml_bundle_unref(e->candidate);
    e->candidate = NULL;
    uv_close((uv_handle_t *)&e->settle, NULL);
    uv_close((uv_handle_t *)&e->watch, NULL);
    ml_mailbox_close(&e->mailbox);
    uv_close((uv_handle_t *)&e->patience, on_timer_closed);
}
