/* Runs: one decision, or one background task, in a pooled coroutine.
 *
 * A decision counts only when decide has returned: what host.allow wrote before an error, a kill or
 * the deadline is taken back, and the answer is a 503. Everything here runs on the worker's thread;
 * done callbacks run after the coroutine was put away, so that they may start the next decision or
 * drop the VM. */
#include "script/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdio.h>

enum { RESTART_MS = 1000, SHORT_NS = 200000, CLOCK_AGE_NS = 1000000 };

static int main_end(lua_State *L, int status, lua_KContext unused)
{
    return 0;
}

/* The bottom of each coroutine. Keeps a second reference to the request box: its address must not
 * be used again by another object while the run lives (lib_request.c compares addresses). */
static int run_main(lua_State *L)
{
    struct ml_run *run = lua_touserdata(L, 1);
    int args = 0;
    if (!run->task)
        ml_request_push(L, run);
    lua_rawgeti(L, LUA_REGISTRYINDEX, run->function);
    if (!run->task) {
        lua_pushvalue(L, -2);
        args = 1;
    }
    lua_callk(L, args, 0, 0, main_end);
    return 0;
}

static int new_coroutine(lua_State *L)
{
    struct ml_coroutine *co = lua_touserdata(L, 1);
    lua_State *thread = lua_newthread(L);
    co->ref = ml_vm_anchor(L);
    co->L = thread;
    return 0;
}

static bool take_coroutine(struct ml_run *run, char text[ML_ERROR_TEXT + 1])
{
    struct ml_vm *vm = run->vm;
    if (vm->poisoned) {
        snprintf(text, ML_ERROR_TEXT + 1, "the policy ran out of memory and is being replaced");
        return false;
    }
    if (vm->pooled) {
        run->co = vm->pool[--vm->pooled];
        return true;
    }
    return ml_vm_protect(vm, new_coroutine, &run->co, false, text) == LUA_OK;
}

/* Closes what the coroutine left open (its to-be-closed variables run, under a budget of their own,
 * without effect on anything: vm->run is NULL). */
static void close_coroutine(struct ml_run *run)
{
    struct ml_script *s = run->script;
    ml_meter_enter(&s->meter, run->co.L, s->options.budget.resume_cpu_ms * UINT64_C(1000000));
    lua_resetthread(run->co.L);
    ml_meter_leave(&s->meter, run->co.L);
    ml_vm_release(run->vm, run->co.ref);
}

void ml_run_detach(struct ml_run *run, bool clean)
{
    struct ml_vm *vm = run->vm;
    if (run->await) {
        run->script->stats.running--;
        ml_await_drop(run->await);
        run->await = NULL;
    }
    if (run->co.L && clean) {
        lua_settop(run->co.L, 0);
        if (vm->pooled < ML_POOL_MAX)
            vm->pool[vm->pooled++] = run->co;
        else
            ml_vm_release(vm, run->co.ref);
    } else if (run->co.L) {
        close_coroutine(run);
    }
    run->co = (struct ml_coroutine){NULL, 0};
    run->box = NULL;
    while (run->tickets)
        ml_ticket_land(run->tickets, NULL, NULL);
}

static void complete(struct ml_run *run)
{
    struct ml_vm *vm = run->vm;
    void (*done)(void *) = run->done;
    void *arg = run->arg;
    ml_run_give(run);
    done(arg);
    ml_vm_unref(vm);
}

/* Takes back whatever the run had answered. */
static void refuse(struct ml_run *run, const char *reason, const char *body, const char *text)
{
    struct ml_decision *d = run->d;
    struct ml_str why = ml_arena_dup(run->request->arena, ml_str_z(text));
    d->action = ML_UNDECIDED;
    d->upstream_count = d->client_count = 0;
    d->strip = d->user = d->content_type = d->body = ML_STR("");
    ml_decision_step(d, ML_STR("policy"), ML_STR("error"), why.p ? why : ML_STR("no memory"));
    ml_decision_deny(d, 503, ml_str_z(reason), ml_str_z(body));
    d->content_type = ML_STR("text/plain; charset=utf-8");
    d->client[d->client_count++] = (struct ml_header){ML_STR("Retry-After"), ML_STR("1")};
}

static void fail(struct ml_run *run, const char *text)
{
    run->script->stats.errors++;
    ml_script_log_error(run->script, run->vm, run->request->id, text);
    refuse(run, "error", "the policy could not decide", text);
    complete(run);
}

static void expire(struct ml_run *run)
{
    ml_run_detach(run, false);
    refuse(run, "unavailable", "the check took too long", "the check took too long");
    complete(run);
}

/* Why the stretch that just ended failed, as text; false when it did not fail. */
static bool failure(struct ml_run *run, int status, bool killed, char text[ML_ERROR_TEXT + 1])
{
    struct ml_script *s = run->script;
    const struct ml_budget *b = &s->options.budget;
    size_t n = ML_ERROR_TEXT + 1;
    if (run->kill == ML_KILL_CALLS) {
        s->stats.killed_calls++;
        snprintf(text, n, "the policy made more than %u calls that wait", b->host_calls);
    } else if (killed) {
        bool total = run->cpu_ns > b->resume_cpu_ms * UINT64_C(1000000) && !run->task;
        s->stats.killed_cpu++;
        snprintf(text, n, "the policy used more than %u ms of CPU",
                 total ? b->request_cpu_ms : b->resume_cpu_ms);
    } else if (run->vm->exhausted) {
        run->vm->poisoned = true;
        s->stats.killed_memory++;
        snprintf(text, n, "the policy used more than %zu KiB of memory", b->memory >> 10);
    } else if (status == LUA_YIELD) {
        snprintf(text, n, "the policy suspended itself");
    } else if (status != LUA_OK) {
        ml_vm_error_text(run->co.L, status, text);
    } else if (!run->task && run->d->action == ML_UNDECIDED) {
        snprintf(text, n, "the policy returned without a decision");
    } else {
        return false;
    }
    return true;
}

static void finish_task(struct ml_run *run, bool failed, const char *text)
{
    ml_run_detach(run, !failed);
    if (!failed || run->vm->poisoned) {
        ml_run_give(run);
        return;
    }
    run->script->stats.errors++;
    ml_script_log_error(run->script, run->vm, ML_STR("background"), text);
    run->raised = true;
    run->kill = ML_KILL_NONE;
    ml_run_timer(run, RESTART_MS);
}

static void finish(struct ml_run *run, int status, bool killed)
{
    char text[ML_ERROR_TEXT + 1];
    text[0] = 0;
    bool failed = failure(run, status, killed, text);
    if (run->task) {
        finish_task(run, failed, text);
        return;
    }
    if (!failed && run->waited && ml_mono_ms() >= ml_run_deadline(run)) {
        expire(run);
        return;
    }
    ml_run_detach(run, !failed);
    if (failed)
        fail(run, text);
    else
        complete(run);
}

uint64_t ml_run_deadline(struct ml_run *run)
{
    if (run->deadline_ms == 0) {
        uint64_t own = run->vm->timeout_ms ? ml_mono_ms() + run->vm->timeout_ms : UINT64_MAX;
        run->deadline_ms = own < run->request->deadline_ms ? own : run->request->deadline_ms;
    }
    return run->deadline_ms;
}

/* The first wait starts the deadline's timer: a run that never waits ends by its CPU budget long
 * before. */
static void suspend(struct ml_run *run)
{
    struct ml_script *s = run->script;
    s->stats.waits++;
    s->stats.running++;
    if (run->waited)
        return;
    run->waited = true;
    if (run->task)
        return;
    uint64_t now = ml_mono_ms(), deadline = ml_run_deadline(run);
    ml_run_timer(run, deadline > now ? deadline - now : 0);
}

/* CPU that the next stretch may use; 0: none is left. */
static uint64_t stretch_ns(const struct ml_run *run)
{
    const struct ml_budget *b = &run->script->options.budget;
    uint64_t stretch = b->resume_cpu_ms * UINT64_C(1000000);
    uint64_t total = b->request_cpu_ms * UINT64_C(1000000);
    if (run->task || !run->waited)
        return stretch;
    uint64_t left = run->cpu_ns < total ? total - run->cpu_ns : 0;
    return left < stretch ? left : stretch;
}

/* CPU of the stretch that began at from_ns. Reading the thread's clock is a system call: a short
 * stretch counts with its wall time, a long one with the thread's CPU since the last reading, which
 * mark_clock keeps young. Neither is less than what was used. */
static void mark_clock(struct ml_script *s, uint64_t now_ns)
{
    if (now_ns - s->clock_read_ns > CLOCK_AGE_NS) {
        s->clock_read_ns = now_ns;
        s->clock_cpu_ns = ml_thread_cpu_ns();
    }
}

static uint64_t stretch_used(const struct ml_script *s, uint64_t from_ns)
{
    uint64_t wall = ml_mono_ns() - from_ns;
    if (wall <= SHORT_NS)
        return wall;
    uint64_t cpu = ml_thread_cpu_ns() - s->clock_cpu_ns;
    return cpu < wall ? cpu : wall;
}

/* true: the run has ended, and must not be touched any more. */
static bool resume(struct ml_run *run, int args)
{
    struct ml_script *s = run->script;
    struct ml_vm *vm = run->vm;
    uint64_t limit = stretch_ns(run), from = run->waited ? ml_mono_ns() : 0;
    if (from)
        mark_clock(s, from);
    if (limit == 0) {
        finish(run, LUA_ERRRUN, true);
        return true;
    }
    int results = 0;
    vm->run = run;
    ml_meter_enter(&s->meter, run->co.L, limit);
    int status = lua_resume(run->co.L, NULL, args, &results);
    bool killed = ml_meter_leave(&s->meter, run->co.L);
    vm->run = NULL;
    s->stats.resumes++;
    if (from)
        run->cpu_ns += stretch_used(s, from);
    if (status == LUA_YIELD && run->await && !killed && !vm->exhausted) {
        suspend(run);
        return false;
    }
    if (run->await) /* not suspended yet: detach counts it off again */
        s->stats.running++;
    finish(run, status, killed);
    return true;
}

static bool start(struct ml_run *run)
{
    char text[ML_ERROR_TEXT + 1];
    if (take_coroutine(run, text)) {
        lua_pushcfunction(run->co.L, run_main);
        lua_pushlightuserdata(run->co.L, run);
        return resume(run, 1);
    }
    if (run->task)
        finish_task(run, true, text);
    else
        fail(run, text);
    return true;
}

void ml_run_resume(struct ml_run *run)
{
    if (!run->task && ml_mono_ms() >= ml_run_deadline(run)) {
        expire(run);
        return;
    }
    run->script->stats.running--;
    run->await->run = NULL;
    run->await = NULL;
    resume(run, 0);
}

void ml_run_on_timer(struct ml_run *run)
{
    if (!run->task) {
        expire(run);
    } else if (run->raised) {
        run->raised = false;
        start(run);
    }
}

void ml_vm_decide(struct ml_vm *vm, const struct ml_request *request, struct ml_decision *d,
                  void (*done)(void *arg), void *arg, struct ml_run **ret)
{
    struct ml_run *run = ml_run_take(vm->script);
    run->vm = ml_vm_ref(vm);
    run->function = request->place == ML_PLACE_NONE ? vm->decide : vm->answer;
    run->request = request;
    run->d = d;
    run->done = done;
    run->arg = arg;
    if (!start(run) && ret)
        *ret = run;
}

void ml_run_cancel(struct ml_run *run)
{
    struct ml_vm *vm = run->vm;
    bool task = run->task;
    ml_run_detach(run, false);
    ml_run_give(run);
    if (!task)
        ml_vm_unref(vm);
}

void ml_vm_start_tasks(struct ml_vm *vm)
{
    for (unsigned i = 0; i < vm->task_count; i++) {
        struct ml_run *run = ml_run_take(vm->script);
        run->vm = vm;
        run->function = vm->tasks[i];
        run->task = true;
        start(run);
    }
}

void ml_vm_stop_tasks(struct ml_vm *vm)
{
    struct ml_run *run = vm->script->live;
    while (run) {
        struct ml_run *next = run->next;
        if (run->task && run->vm == vm)
            ml_run_cancel(run);
        run = next;
    }
}
