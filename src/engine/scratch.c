/* Checking a policy, or asking it one question, away from the workers: a loop, a client and stores
 * of its own. Runs on the thread that calls (the reload's own, or main at start and for
 * subcommands). */
#include "engine/engine.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdlib.h>

enum { PATIENCE_MS = 5000, TICK_MS = 50 };

struct scratch {
    uv_loop_t loop;
    struct ml_mailbox mailbox;
    struct ml_client *client;
    struct ml_script *script;
    struct ml_cache *cache;
    struct ml_flights *flights;
    struct ml_board *board;
    uint8_t secret[32];
};

static void on_client_closed(void *ctx)
{
    struct scratch *s = ctx;
    ml_mailbox_close(&s->mailbox);
}

static void on_script_closed(void *ctx)
{
    struct scratch *s = ctx;
    ml_client_close(s->client, on_client_closed, s);
}

static int scratch_open(struct scratch *s, const struct ml_settings *settings,
                        const struct ml_library *library)
{
    ML_REQUIRE(uv_loop_init(&s->loop) == 0 && ml_mailbox_open(&s->mailbox, &s->loop) == 0);
    s->cache = ml_cache_new(1 << 20);
    s->flights = ml_flights_new(16, 16);
    s->board = ml_board_new();
    int r = ml_client_new(&s->client, &(struct ml_client_options){.loop = &s->loop});
    if (r == 0)
        r = ml_script_new(&s->script,
                          &(struct ml_script_options){.loop = &s->loop,
                                                      .mailbox = &s->mailbox,
                                                      .client = s->client,
                                                      .cache = s->cache,
                                                      .flights = s->flights,
                                                      .board = s->board,
                                                      .cache_secret = s->secret,
                                                      .library = library,
                                                      .budget = ml_default_budget,
                                                      .env = ml_settings_env,
                                                      .env_ctx = (void *)(uintptr_t)settings});
    return r;
}

static void scratch_close(struct scratch *s)
{
    if (s->script)
        ml_script_close(s->script, on_script_closed, s);
    else if (s->client)
        ml_client_close(s->client, on_client_closed, s);
    else
        ml_mailbox_close(&s->mailbox);
    uv_run(&s->loop, UV_RUN_DEFAULT);
    ML_REQUIRE(uv_loop_close(&s->loop) == 0);
    ml_board_free(s->board);
    ml_flights_free(s->flights);
    ml_cache_free(s->cache);
}

static int scratch_build(struct scratch *s, struct ml_bundle *bundle, struct ml_buf *report)
{
    struct ml_vm *vm = NULL;
    int r = ml_vm_new(&vm, s->script, bundle, 0, report);
    if (r == 0)
        ml_vm_unref(vm);
    return r;
}

/* bundle, or the file at path when bundle is NULL. */
static int check(const struct ml_settings *settings, const struct ml_library *library,
                 const char *path, struct ml_bundle *bundle, struct ml_buf *report,
                 unsigned *warnings)
{
    struct scratch *s = ML_NEW(struct scratch);
    int r = scratch_open(s, settings, library);
    if (r != 0)
        ml_buf_printf(report, "cannot make a Lua state to check the policy in\n");
    else if (bundle)
        r = scratch_build(s, bundle, report);
    else
        r = ml_policy_check(s->script, path, report, warnings);
    scratch_close(s);
    free(s);
    return r;
}

int ml_engine_check(const struct ml_settings *settings, const struct ml_library *library,
                    const char *path, struct ml_buf *report, unsigned *warnings)
{
    return check(settings, library, path, NULL, report, warnings);
}

int ml_engine_try(const struct ml_settings *settings, const struct ml_library *library,
                  struct ml_bundle *bundle, struct ml_buf *report)
{
    return check(settings, library, NULL, bundle, report, NULL);
}

static void on_tick(uv_timer_t *timer)
{
}

static void on_decided(void *arg)
{
    *(bool *)arg = true;
}

static void decide(struct scratch *s, struct ml_vm *vm, const struct ml_request *request,
                   struct ml_decision *d)
{
    struct ml_err err;
    uv_timer_t tick; /* so that the loop does not wait for longer than we do */
    struct ml_run *run = NULL;
    bool done = false;
    uint64_t patience_ends_ms = ml_mono_ms() + PATIENCE_MS;
    uv_timer_init(&s->loop, &tick);
    uv_timer_start(&tick, on_tick, TICK_MS, TICK_MS);
    ml_vm_start_tasks(vm);
    while (!ml_vm_ready(vm, &err) && ml_mono_ms() < patience_ends_ms)
        uv_run(&s->loop, UV_RUN_ONCE);
    ml_decision_init(d);
    ml_vm_decide(vm, request, d, on_decided, &done, &run);
    while (!done)
        uv_run(&s->loop, UV_RUN_ONCE);
    ml_vm_stop_tasks(vm);
    uv_close((uv_handle_t *)&tick, NULL);
    uv_run(&s->loop, UV_RUN_NOWAIT);
}

int ml_engine_ask(const struct ml_settings *settings, const struct ml_library *library,
                  const char *path, const struct ml_request *request,
                  void (*told)(void *ctx, const struct ml_decision *d), void *ctx,
                  struct ml_buf *report)
{
    struct ml_err err;
    struct ml_bundle *bundle = NULL;
    struct ml_vm *vm = NULL;
    if (ml_bundle_read(&bundle, path, &err) != 0) {
        ml_buf_printf(report, "%s\n", err.text);
        return ML_E_POLICY;
    }
    struct scratch *s = ML_NEW(struct scratch);
    struct ml_decision *d = ML_NEW(struct ml_decision);
    int r = scratch_open(s, settings, library);
    if (r == 0)
        r = ml_vm_new(&vm, s->script, bundle, 1, report);
    if (r == 0) {
        decide(s, vm, request, d);
        told(ctx, d);
        ml_vm_unref(vm);
    }
    scratch_close(s);
    ml_bundle_unref(bundle);
    free(d);
    free(s);
    return r;
}
