/* A worker without an engine: loop, client, stores, ml_script; policies from texts; questions to
 * them. */
#pragma once

#include "script/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "store/session_memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define UNUSED __attribute__((unused))

/* What workers share. */
struct shared {
    struct ml_cache *cache;
    struct ml_flights *flights;
    struct ml_board *board;
    struct ml_key_sets *key_sets;
    struct ml_seal_keys *keys;
    void *store; /* of sessions, in memory */
    struct ml_sessions *sessions;
};

struct world {
    uv_loop_t loop;
    struct ml_mailbox mailbox;
    struct ml_client *client;
    struct ml_script *script;
    struct ml_session_seat *seat;
    struct shared *shared;
    struct ml_library *library;
    bool closed;
};

/* One question. */
struct ask {
    struct ml_arena arena;
    struct ml_request request;
    struct ml_decision d;
    struct ml_run *run;
    struct ml_vm *vm; /* of ask_body: d has slices of it */
    unsigned done;
};

/* Everything takes ten times as long. */
#ifdef __SANITIZE_THREAD__
enum { SLOW = 1 };
#else
enum { SLOW = 0 };
#endif

static bool gc_stress; /* collect at every allocation that may */
static const uint8_t secret[32] = "0123456789abcdef0123456789abcde";
static char directory[] = "/tmp/ml-script-XXXXXX";

static char port_text[8];   /* of the test's server, as $PORT */
static const char *key_pem; /* a private key, as $KEY_PEM */

UNUSED static const char *environment(void *ctx, const char *name)
{
    if (strcmp(name, "PORT") == 0)
        return port_text;
    if (strcmp(name, "KEY_PEM") == 0)
        return key_pem;
    return strcmp(name, "NAME") == 0 ? "value" : NULL;
}

UNUSED static void shared_open(struct shared *s)
{
    s->cache = ml_cache_new(8 << 20);
    s->flights = ml_flights_new(4096, 8192);
    s->board = ml_board_new();
    s->key_sets = ml_key_sets_new();
    assert_int_equal(
        ml_seal_keys_new(&s->keys, ML_STR("0123456789abcdefghijklmnopqrstuvwxyz"), NULL), 0);
    s->store = ml_session_memory_new(1000);
    s->sessions = ml_sessions_new(&(struct ml_sessions_options){.backend = &ml_session_memory,
                                                                .store = s->store,
                                                                .keys = s->keys,
                                                                .cache = s->cache,
                                                                .cache_ms = 1000});
}

UNUSED static void shared_close(struct shared *s)
{
    ml_sessions_free(s->sessions);
    ml_seal_keys_free(s->keys);
    ml_cache_free(s->cache);
    ml_flights_free(s->flights);
    ml_board_free(s->board);
    ml_key_sets_free(s->key_sets);
}

UNUSED static void world_open_with(struct world *w, struct shared *shared, struct ml_budget budget)
{
    *w = (struct world){.shared = shared};
    assert_int_equal(uv_loop_init(&w->loop), 0);
    assert_int_equal(ml_mailbox_open(&w->mailbox, &w->loop), 0);
    assert_int_equal(ml_library_new(&w->library, "spec/c/script/lib", NULL), 0);
    struct ml_client_options client = {.loop = &w->loop, .connect_ms = 10000};
    assert_int_equal(ml_client_new(&w->client, &client), 0);
    assert_int_equal(ml_session_sit(&w->seat, shared->sessions, &w->loop, NULL), 0);
    struct ml_script_options options = {
        .loop = &w->loop,
        .mailbox = &w->mailbox,
        .client = w->client,
        .cache = shared->cache,
        .flights = shared->flights,
        .board = shared->board,
        .key_sets = shared->key_sets,
        .seal = shared->keys,
        .sessions = w->seat,
        .cache_secret = secret,
        .library = w->library,
        .budget = budget,
        .env = environment,
    };
    assert_int_equal(ml_script_new(&w->script, &options), 0);
}

UNUSED static void world_open(struct world *w, struct shared *shared)
{
    struct ml_budget budget = ml_default_budget;
    if (SLOW || gc_stress) {
        budget.resume_cpu_ms *= 10;
        budget.request_cpu_ms *= 10;
    }
    world_open_with(w, shared, budget);
}

UNUSED static void on_client_closed(void *ctx)
{
    struct world *w = ctx;
    ml_mailbox_close(&w->mailbox);
    w->closed = true;
}

UNUSED static void on_seat_left(void *ctx)
{
    struct world *w = ctx;
    ml_client_close(w->client, on_client_closed, w);
}

UNUSED static void on_script_closed(void *ctx)
{
    struct world *w = ctx;
    w->script = NULL;
    ml_session_leave(w->seat, on_seat_left, w);
}

/* Every handle must be gone afterwards. A test that failed has left its VMs behind, on which
 * closing would abort: then the rest stays as it is, and the test's own message is what is seen. */
UNUSED static void world_close(struct world *w)
{
    while (w->script->live)
        ml_run_cancel(w->script->live);
    assert_int_equal(w->script->vms, 0);
    ml_script_close(w->script, on_script_closed, w);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_true(w->closed);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    ml_library_free(w->library);
}

UNUSED static void write_file(const char *path, const void *text, size_t n)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    fclose(f);
}

/* The policy's text in a file of its own; NULL with the report in `report` when it is refused. */
UNUSED static struct ml_vm *load_text(struct world *w, const char *text, struct ml_buf *report)
{
    char path[128];
    struct ml_bundle *b;
    struct ml_vm *vm = NULL;
    struct ml_err err;
    snprintf(path, sizeof path, "%s/policy.lua", directory);
    write_file(path, text, strlen(text));
    assert_int_equal(ml_bundle_read(&b, path, &err), 0);
    int r = ml_vm_new(&vm, w->script, b, 7, report);
    ml_bundle_unref(b);
    assert_true((r == ML_OK) == (vm != NULL));
    if (vm && gc_stress) {
        lua_gc(vm->L, LUA_GCSETPAUSE, 0);
        lua_gc(vm->L, LUA_GCSETSTEPMUL, 1000);
    }
    return vm;
}

UNUSED static struct ml_vm *load(struct world *w, const char *text)
{
    struct ml_buf report;
    ml_buf_init(&report, 1 << 20);
    struct ml_vm *vm = load_text(w, text, &report);
    if (!vm)
        fprintf(stderr, "%.*s\n", (int)report.n, report.p);
    assert_non_null(vm);
    ml_buf_done(&report);
    return vm;
}

/* A policy whose decide and answer have this body; `plan` owns X-User (set), X-Gone (remove). */
UNUSED static struct ml_vm *load_body(struct world *w, const char *body)
{
    char *text;
    assert_true(
        asprintf(
            &text,
            "local at = 'http://127.0.0.1:' .. (host.env('PORT') or '1')\n"
            "local key = host.secret('NAME')\n"
            "local seam = host\n"
            "local plan = host.plan({ 'X-User', 'X-Gone' }, { 'set', 'remove' })\n"
            "local function decide(req)\n"
            "local function allow() host.allow(req, plan, 'alice', 'allowed', 'alice') end\n"
            "%s\nend\n"
            "return { name = 'test', headers = { 'x-user', 'x-gone' }, decide = decide, answer = "
            "decide }",
            body) > 0);
    struct ml_vm *vm = load(w, text);
    free(text);
    return vm;
}

UNUSED static void on_done(void *arg)
{
    struct ask *a = arg;
    a->done++;
}

UNUSED static void ask_open(struct ask *a)
{
    static const struct ml_header headers[] = {
        {{"Authorization", 13}, {"Bearer abc.def", 14}},
        {{"X-Two", 5}, {"1", 1}},
        {{"x-two", 5}, {"2", 1}},
        {{"Cookie", 6}, {"a=1; b=2; a=3", 13}},
        {{"X-Id-Token", 10}, {"tok", 3}},
        {{"X-Words", 7}, {"two words", 9}},
    };
    *a = (struct ask){.done = 0};
    ml_arena_init(&a->arena, 256 * 1024);
    a->request = (struct ml_request){
        .arena = &a->arena,
        .id = ML_STR("id-1"),
        .method = ML_STR("GET"),
        .scheme = ML_STR("https"),
        .host = ML_STR("app.example"),
        .path = ML_STR("/a b"),
        .raw_path = ML_STR("/a%20b"),
        .query = ML_STR("x=1+2&y=%41&x=3&bad=%zz"),
        .headers = headers,
        .header_count = sizeof headers / sizeof headers[0],
        .client_ip = ML_STR("10.0.0.1"),
        .has_params = true,
        .deadline_ms = ml_mono_ms() + 5000,
    };
}

UNUSED static void ask_done(struct ask *a)
{
    ml_arena_done(&a->arena);
    ml_vm_unref(a->vm);
}

UNUSED static void ask_start(struct ask *a, struct ml_vm *vm)
{
    ml_vm_decide(vm, &a->request, &a->d, on_done, a, &a->run);
}

UNUSED static void ask_wait(struct ask *a, struct world *w)
{
    while (!a->done)
        uv_run(&w->loop, UV_RUN_ONCE);
    assert_int_equal(a->done, 1);
}

UNUSED static const char *last_reason(const struct ask *a)
{
    static char text[600];
    if (!a->d.step_count)
        return "";
    snprintf(text, sizeof text, "%.*s", ML_FMT(a->d.steps[a->d.step_count - 1].reason));
    return text;
}

/* What every failure of a policy must look like. */
UNUSED static void assert_failed(const struct ask *a, const char *reason)
{
    assert_int_equal(a->done, 1);
    assert_int_equal(a->d.action, ML_DENY);
    assert_int_equal(a->d.status, 503);
    assert_true(ml_str_eq(a->d.reason, ml_str_z(reason)));
    assert_int_equal(a->d.upstream_count, 0);
    assert_int_equal(a->d.client_count, 1);
    assert_int_equal(a->d.user.n, 0);
}

/* Asks a policy with this body once; the answer is in *a (ask_done it). */
UNUSED static void ask_body(struct world *w, const char *body, struct ask *a)
{
    struct ml_vm *vm = load_body(w, body);
    ask_open(a);
    ask_start(a, vm);
    ask_wait(a, w);
    a->vm = vm;
}

UNUSED static int setup_directory(void **state)
{
    ml_log_set_level(ML_LOG_FATAL);
    assert_int_equal(ml_client_global_init(), 0);
    assert_int_equal(ml_watchdog_start(), 0);
    return mkdtemp(directory) ? 0 : -1;
}

UNUSED static int remove_directory(void **state)
{
    char command[128];
    ml_watchdog_stop();
    ml_client_global_done();
    snprintf(command, sizeof command, "rm -rf %s", directory);
    int r = system(command);
    strcpy(directory, "/tmp/ml-script-XXXXXX");
    return r;
}

/* The group once as it is, once with a collection at every step. */
#define RUN_TWICE(name, tests)                                                                     \
    (cmocka_run_group_tests_name(name, tests, setup_directory, remove_directory) |                 \
     (gc_stress = true,                                                                            \
      cmocka_run_group_tests_name(name " (gc stress)", tests, setup_directory, remove_directory)))
