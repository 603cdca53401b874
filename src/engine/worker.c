/* Workers: each owns its thread, loop, client, script and connections. What other threads want of
 * it comes as letters; answers go to the engine's mailbox. */
#include "engine/worker.h"

#include "base/clock.h"
#include "base/mem.h"
#include "engine/engine.h"

#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { READY_MS = 50, STACK = 512 * 1024, DEADLINE_MS = 60000 };

/* Life ---------------------------------------------------------------------------------------- */

struct start {
    struct ml_worker *w;
    sem_t up;
    int result;
};

static void on_connection_closed(void *ctx)
{
    struct ml_worker *w = ctx;
    atomic_fetch_sub_explicit(&w->load, 1, memory_order_relaxed);
}

/* A policy that has sessions needs their store. */
static bool ready_with(struct ml_worker *w, struct ml_vm *vm, struct ml_err *err)
{
    return ml_vm_ready(vm, err) && (!ml_vm_serves_places(vm) || ml_session_ready(w->seat, err));
}

static void on_ready_tick(uv_timer_t *timer)
{
    struct ml_worker *w = timer->data;
    struct ml_err err = {.text = ""};
    if (w->vm) {
        bool ready = ready_with(w, w->vm, &err);
        ml_engine_set_ready(w->engine, ready, err.text);
        if (ready && !w->next)
            uv_timer_stop(timer);
    }
    if (w->next)
        atomic_store(&w->next_ready, ready_with(w, w->next, &err));
}

static void watch_readiness(struct ml_worker *w)
{
    if (w->index == 0)
        uv_timer_start(&w->readiness, on_ready_tick, 0, READY_MS);
}

/* Browsers and providers: few, with small forms. */
static const struct ml_http_limits web_limits = {.target_bytes = 8192,
                                                 .header_bytes = 32768,
                                                 .header_count = 64,
                                                 .body_bytes = 32768,
                                                 .connections = 1024,
                                                 .header_ms = 5000,
                                                 .idle_ms = 30000,
                                                 .body_ms = 5000,
                                                 .write_ms = 10000};

static int open_parts(struct ml_worker *w)
{
    struct ml_script_options script = ml_engine_script_options(w->engine);
    struct ml_client_options client = {.loop = &w->loop,
                                       .in_flight = ml_engine_in_flight(w->engine)};
    struct ml_http_options checks = {.loop = &w->loop,
                                     .handler = ml_engine_check_handler(w->engine),
                                     .ctx = w,
                                     .on_closed = on_connection_closed};
    struct ml_http_options web = {.loop = &w->loop,
                                  .limits = &web_limits,
                                  .handler = ml_engine_web_handler(w->engine),
                                  .ctx = w,
                                  .on_closed = on_connection_closed,
                                  .keep_body = true};
    struct ml_err err = {.text = ""};
    int r = ml_client_new(&w->client, &client);
    if (r == 0)
        r = ml_session_sit(&w->seat, ml_engine_sessions(w->engine), &w->loop, &err);
    if (r == 0)
        ml_engine_listen(w);
    if (r == 0) {
        script.loop = &w->loop;
        script.mailbox = &w->mailbox;
        script.client = w->client;
        script.sessions = w->seat;
        r = ml_script_new(&w->script, &script);
    }
    if (r == 0)
        r = ml_http_server_new(&w->checks, &checks);
    if (r == 0)
        r = ml_http_server_new(&w->web, &web);
    if (r == 0) {
        uv_timer_init(&w->loop, &w->readiness);
        w->readiness.data = w;
    }
    return r;
}

void ml_worker_block_signals(void)
{
    sigset_t set;
    sigfillset(&set);
    sigdelset(&set, SIGURG);
    sigdelset(&set, SIGSEGV);
    sigdelset(&set, SIGBUS);
    sigdelset(&set, SIGFPE);
    sigdelset(&set, SIGILL);
    sigdelset(&set, SIGABRT);
    pthread_sigmask(SIG_SETMASK, &set, NULL);
}

static void *worker_main(void *arg)
{
    struct start *start = arg;
    struct ml_worker *w = start->w;
    char name[16];
    snprintf(name, sizeof name, "worker-%u", w->index % 1000);
    pthread_setname_np(pthread_self(), name);
    ml_worker_block_signals();
    ML_REQUIRE(uv_loop_init(&w->loop) == 0);
    ML_REQUIRE(ml_mailbox_open(&w->mailbox, &w->loop) == 0);
    int result = open_parts(w);
    start->result = result;
    sem_post(&start->up);
    if (result == 0)
        uv_run(&w->loop, UV_RUN_DEFAULT);
    ML_REQUIRE(result != 0 || uv_loop_close(&w->loop) == 0);
    return NULL;
}

int ml_worker_start(struct ml_worker *w, struct ml_engine *engine, unsigned index,
                    struct ml_err *err)
{
    struct start start = {.w = w};
    pthread_attr_t attr;
    w->engine = engine;
    w->index = index;
    sem_init(&start.up, 0, 0);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK);
    int r = pthread_create(&w->thread, &attr, worker_main, &start);
    pthread_attr_destroy(&attr);
    if (r != 0)
        return ml_fail(err, ML_E_IO, "cannot start a thread: %s", strerror(r));
    while (sem_wait(&start.up) != 0)
        ;
    sem_destroy(&start.up);
    if (start.result != 0)
        return ml_fail(err, start.result, "worker %u cannot start", index);
    return 0;
}

static void drop(struct ml_vm *vm)
{
    if (!vm)
        return;
    ml_vm_stop_tasks(vm);
    ml_vm_unref(vm);
}

/* The order matters: connections first (they cancel decisions), then Lua, then what Lua waited for
 * (the client's transfers, the session store), last the mailbox that all of them use. */
static void on_seat_left(void *ctx)
{
    struct ml_worker *w = ctx;
    ml_mailbox_close(&w->mailbox);
}

static void on_client_closed(void *ctx)
{
    struct ml_worker *w = ctx;
    ml_session_leave(w->seat, on_seat_left, w);
}

static void on_script_closed(void *ctx)
{
    struct ml_worker *w = ctx;
    ml_client_close(w->client, on_client_closed, w);
}

static void on_web_closed(void *ctx)
{
    struct ml_worker *w = ctx;
    drop(w->vm);
    drop(w->next);
    drop(w->opened);
    w->vm = w->next = w->opened = NULL;
    uv_close((uv_handle_t *)&w->readiness, NULL);
    ml_script_close(w->script, on_script_closed, w);
}

static void on_checks_closed(void *ctx)
{
    struct ml_worker *w = ctx;
    ml_http_server_close(w->web, on_web_closed, w);
}

struct letter {
    struct ml_letter letter;
    struct ml_worker *w;
};

static void read_stop(struct ml_letter *letter)
{
    struct ml_worker *w = ML_CONTAINER(letter, struct letter, letter)->w;
    w->stopping = true;
    free(letter);
    ml_http_server_close(w->checks, on_checks_closed, w);
}

static void read_drain(struct ml_letter *letter)
{
    struct ml_worker *w = ML_CONTAINER(letter, struct letter, letter)->w;
    free(letter);
    if (!w->stopping) {
        ml_http_server_drain(w->checks);
        ml_http_server_drain(w->web);
    }
}

static void post(struct ml_worker *w, void (*read)(struct ml_letter *))
{
    struct letter *l = ML_NEW(struct letter);
    l->letter.read = read;
    l->w = w;
    if (!ml_mailbox_post(&w->mailbox, &l->letter))
        free(l);
}

void ml_worker_stop(struct ml_worker *w)
{
    post(w, read_stop);
    pthread_join(w->thread, NULL);
}

void ml_worker_drain(struct ml_worker *w)
{
    post(w, read_drain);
}

/* Generations --------------------------------------------------------------------------------- */

struct build {
    struct ml_letter letter;
    struct ml_worker *w;
    struct ml_bundle *bundle;
    uint64_t generation;
    void (*done)(void *arg, bool ok);
    void *arg;
    bool ok;
};

static void read_built(struct ml_letter *letter)
{
    struct build *b = ML_CONTAINER(letter, struct build, letter);
    b->done(b->arg, b->ok);
    free(b);
}

static void reply(struct ml_worker *w, struct ml_letter *letter, void (*read)(struct ml_letter *))
{
    letter->read = read;
    if (!ml_mailbox_post(ml_engine_mailbox(w->engine), letter))
        free(letter);
}

static void end_build(struct build *b, struct ml_buf *report)
{
    struct ml_worker *w = b->w;
    if (!b->ok)
        ml_log(ML_LOG_ERROR, "a worker cannot build the policy", ML_FN("worker", w->index),
               ML_F("report", ml_buf_str(report)));
    if (b->ok && w->index == 0) {
        atomic_store(&w->next_ready, false);
        ml_vm_start_tasks(w->next);
        watch_readiness(w);
    }
    ml_buf_done(report);
    ml_bundle_unref(b->bundle);
    reply(w, &b->letter, read_built);
}

static void read_load(struct ml_letter *letter)
{
    struct build *b = ML_CONTAINER(letter, struct build, letter);
    struct ml_worker *w = b->w;
    struct ml_buf report;
    ml_buf_init(&report, 64 * 1024);
    b->ok = !w->stopping && ml_vm_load(w->opened, &report) == 0;
    if (b->ok) {
        w->next = w->opened;
        w->opened = NULL;
    } else if (!w->stopping) {
        drop(w->opened);
        w->opened = NULL;
    }
    end_build(b, &report);
}

/* In two turns of the loop: callers wait for half of the work only. */
static void read_build(struct ml_letter *letter)
{
    struct build *b = ML_CONTAINER(letter, struct build, letter);
    struct ml_worker *w = b->w;
    struct ml_buf report;
    ml_buf_init(&report, 64 * 1024);
    bool vacant = !w->stopping && !w->next && !w->opened;
    if (vacant)
        w->opened = ml_vm_open(w->script, b->bundle, b->generation, &report);
    letter->read = read_load;
    if (vacant && w->opened && ml_mailbox_post(&w->mailbox, letter))
        ml_buf_done(&report);
    else
        end_build(b, &report);
}

void ml_worker_build(struct ml_worker *w, struct ml_bundle *bundle, uint64_t generation,
                     void (*done)(void *arg, bool ok), void *arg)
{
    struct build *b = ML_NEW(struct build);
    *b = (struct build){
        {.read = read_build}, w, ml_bundle_ref(bundle), generation, done, arg, false};
    ML_REQUIRE(ml_mailbox_post(&w->mailbox, &b->letter));
}

static void read_keep(struct ml_letter *letter)
{
    struct ml_worker *w = ML_CONTAINER(letter, struct letter, letter)->w;
    free(letter);
    if (w->stopping || !w->next)
        return;
    struct ml_vm *old = w->vm;
    w->vm = w->next;
    w->next = NULL;
    drop(old);
    watch_readiness(w);
}

static void read_discard(struct ml_letter *letter)
{
    struct ml_worker *w = ML_CONTAINER(letter, struct letter, letter)->w;
    free(letter);
    if (w->stopping)
        return;
    drop(w->next);
    w->next = NULL;
}

void ml_worker_flip(struct ml_worker *w, bool keep)
{
    post(w, keep ? read_keep : read_discard);
}

/* A state that ran out of memory is replaced by a fresh one of the same bundle, outside of any
 * callback of it. */
static void read_rebuild(struct ml_letter *letter)
{
    struct ml_worker *w = ML_CONTAINER(letter, struct letter, letter)->w;
    struct ml_buf report;
    struct ml_vm *fresh = NULL;
    free(letter);
    w->rebuilding = false;
    if (w->stopping || !w->vm || !ml_vm_poisoned(w->vm))
        return;
    ml_buf_init(&report, 64 * 1024);
    struct ml_bundle *bundle = ml_bundle_ref(ml_vm_bundle(w->vm));
    if (ml_vm_new(&fresh, w->script, bundle, ml_vm_generation(w->vm), &report) == 0) {
        struct ml_vm *old = w->vm;
        w->vm = fresh;
        if (w->index == 0)
            ml_vm_start_tasks(fresh);
        drop(old);
        ml_log(ML_LOG_WARN, "a policy state ran out of memory and was made anew",
               ML_FN("worker", w->index));
    } else {
        ml_log(ML_LOG_ERROR, "a policy state that ran out of memory cannot be made anew",
               ML_FN("worker", w->index));
    }
    ml_bundle_unref(bundle);
    ml_buf_done(&report);
}

/* Connections --------------------------------------------------------------------------------- */

struct adopt {
    struct ml_letter letter;
    struct ml_worker *w;
    int fd;
    bool web;
    char peer[64];
};

static void read_adopt(struct ml_letter *letter)
{
    struct adopt *a = ML_CONTAINER(letter, struct adopt, letter);
    if (a->w->stopping) {
        close(a->fd);
        on_connection_closed(a->w);
    } else {
        ml_http_server_adopt(a->web ? a->w->web : a->w->checks, a->fd, a->peer);
    }
    free(a);
}

void ml_worker_adopt(struct ml_worker *w, int fd, const char *peer, bool web)
{
    struct adopt *a = ML_NEW(struct adopt);
    a->letter.read = read_adopt;
    a->w = w;
    a->fd = fd;
    a->web = web;
    snprintf(a->peer, sizeof a->peer, "%s", peer);
    if (!ml_mailbox_post(&w->mailbox, &a->letter)) {
        close(fd);
        on_connection_closed(w);
        free(a);
    }
}

/* Decisions ----------------------------------------------------------------------------------- */

void ml_worker_decide(struct ml_worker *w, struct ml_request *request, struct ml_decision *d,
                      void (*done)(void *arg), void *arg, struct ml_run **ret)
{
    if (!w->vm) {
        ml_decision_deny(d, 503, ML_STR("unavailable"), ML_STR("the service is starting\n"));
        done(arg);
        return;
    }
    if (ml_vm_poisoned(w->vm) && !w->rebuilding) {
        w->rebuilding = true;
        post(w, read_rebuild);
    }
    if (!request->deadline_ms) /* the policy's own timeout is usually sooner */
        request->deadline_ms = ml_mono_ms() + DEADLINE_MS;
    ml_vm_decide(w->vm, request, d, done, arg, ret);
}

void ml_worker_request_id(struct ml_worker *w, char out[17])
{
    static const char hex[] = "0123456789abcdef";
    if (!w->next_id && (!ml_random(&w->next_id, sizeof w->next_id) || !w->next_id))
        w->next_id = ml_mono_ns();
    uint64_t id = w->next_id++;
    for (int i = 15; i >= 0; i--, id >>= 4)
        out[i] = hex[id & 15];
    out[16] = 0;
}

/* Reports ------------------------------------------------------------------------------------- */

struct ask {
    struct ml_letter letter;
    struct ml_worker *w;
    struct ml_worker_report report;
    void (*done)(void *arg, struct ml_worker_report *report);
    void *arg;
};

static void add_upstream(void *ctx, const struct ml_upstream_stats *s)
{
    struct ml_worker_report *r = ctx;
    if (r->upstream_count == ML_REPORT_UPSTREAMS)
        return;
    struct ml_upstream_line *line = &r->upstreams[r->upstream_count++];
    snprintf(line->name, sizeof line->name, "%s", s->name);
    line->stats = *s;
    line->stats.name = line->name;
}

static void read_answer(struct ml_letter *letter)
{
    struct ask *a = ML_CONTAINER(letter, struct ask, letter);
    a->done(a->arg, &a->report);
    free(a);
}

static void read_ask(struct ml_letter *letter)
{
    struct ask *a = ML_CONTAINER(letter, struct ask, letter);
    struct ml_worker *w = a->w;
    if (!w->stopping) {
        a->report.http = ml_http_server_stats(w->checks);
        a->report.connections = ml_http_server_connections(w->checks);
        a->report.script = ml_script_stats(w->script);
        ml_client_stats(w->client, add_upstream, &a->report);
    }
    reply(w, &a->letter, read_answer);
}

bool ml_worker_ask(struct ml_worker *w, void (*done)(void *arg, struct ml_worker_report *report),
                   void *arg)
{
    struct ask *a = ML_NEW(struct ask);
    a->letter.read = read_ask;
    a->w = w;
    a->done = done;
    a->arg = arg;
    bool taken = ml_mailbox_post(&w->mailbox, &a->letter);
    if (!taken)
        free(a);
    return taken;
}
