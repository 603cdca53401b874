/* host.begin and host.settle: one leads and the others wait, on one worker and on several; a leader
 * that fails, goes away or is killed lets the next one lead; what is cached is found. */
#include "one_world.h"

#include "c/client/loopback.h"

static struct loopback server;

static int open_served(void **state)
{
    loopback_start(&server, 0, NULL);
    snprintf(port_text, sizeof port_text, "%d", server.port);
    return open_world(state);
}

static int close_served(void **state)
{
    assert_int_equal(ml_flights_waiting(shared.flights), 0);
    close_world(state);
    loopback_stop(&server);
    return 0;
}

/* Finds out by a fetch, keeps it for a minute. The path is the key. */
static const char look_up[] =
    "local state, a = host.begin('s', 'n', req.path)\n"
    "if state == 'lead' then\n"
    "  local ticket <close> = a\n"
    "  local r = host.fetch { url = at .. req.raw_path }\n"
    "  if not r then host.settle(ticket, 'fail', 'down') return host.deny(req, 503, 'unavailable', "
    "'') end\n"
    "  if r.status == 401 then host.settle(ticket, 'refuse', 'bad', 10) return host.deny(req, 401, "
    "'denied', '') end\n"
    "  a = host.settle(ticket, 'accept', { sub = 'alice' }, 60)\n"
    "elseif state == 'refused' then return host.deny(req, 401, 'denied', a)\n"
    "elseif state == 'failed' then return host.deny(req, 503, 'unavailable', a) end\n"
    "assert(a.sub == 'alice') allow()";

static void start_many(struct ask *asks, int count, struct ml_vm *vm, const char *path)
{
    for (int i = 0; i < count; i++) {
        ask_open(&asks[i]);
        asks[i].request.path = asks[i].request.raw_path = ml_str_z(path);
        asks[i].request.deadline_ms = ml_mono_ms() + 20000;
        ask_start(&asks[i], vm);
    }
}

static void finish_many(struct ask *asks, int count, struct world *w, enum ml_action action,
                        int status)
{
    for (int i = 0; i < count; i++) {
        ask_wait(&asks[i], w);
        if (asks[i].d.action != action) {
            /* cmocka prints messages of the main thread only */
            fprintf(stderr, "%d: %.*s\n", i, ML_FMT(asks[i].d.reason));
            fail();
        }
        assert_int_equal(asks[i].d.status, status);
        ask_done(&asks[i]);
    }
}

enum { MANY = 1000 };

static void test_one_leads(void **state)
{
    static struct ask asks[MANY];
    struct ml_vm *vm = load_body(&world, look_up);
    start_many(asks, MANY, vm, "/wait");
    finish_many(asks, MANY, &world, ML_ALLOW, 200);
    assert_int_equal(server.requests, 1);
    start_many(asks, 1, vm, "/wait"); /* cached: without a turn of the loop */
    assert_int_equal(asks[0].done, 1);
    finish_many(asks, 1, &world, ML_ALLOW, 200);
    start_many(asks, 20, vm, "/401");
    finish_many(asks, 20, &world, ML_DENY, 401);
    start_many(asks, 20, vm, "/401"); /* refusals are kept as well */
    finish_many(asks, 20, &world, ML_DENY, 401);
    assert_int_equal(server.requests, 2);
    start_many(asks, 20, vm, "/rst-mid");
    finish_many(asks, 20, &world, ML_DENY, 503);
    start_many(asks, 1, vm, "/rst-mid"); /* failures are not */
    finish_many(asks, 1, &world, ML_DENY, 503);
    assert_int_equal(server.requests, 4);
    ml_vm_unref(vm);
}

struct worker {
    pthread_t thread;
    unsigned seed;
    const char *path;
};

static pthread_barrier_t barrier;
static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER; /* of the one policy file */

static void *work(void *arg)
{
    struct worker *self = arg;
    struct world w;
    struct ask *asks = calloc(MANY / 2, sizeof *asks);
    world_open(&w, &shared);
    pthread_mutex_lock(&loading);
    struct ml_vm *vm = load_body(&w, look_up);
    pthread_mutex_unlock(&loading);
    pthread_barrier_wait(&barrier);
    start_many(asks, MANY / 2, vm, self->path);
    finish_many(asks, MANY / 2, &w, ML_ALLOW, 200);
    ml_vm_unref(vm);
    world_close(&w);
    free(asks);
    return NULL;
}

static void test_two_workers(void **state)
{
    struct worker workers[2] = {{.path = "/wait"}, {.path = "/wait"}};
    pthread_barrier_init(&barrier, NULL, 2);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(workers[i].thread, NULL);
    pthread_barrier_destroy(&barrier);
    assert_int_equal(server.requests, 1);
}

/* Leaders land and give up on one thread while waiters give up on the other; then one closes with
 * letters on their way. */
static void *churn(void *arg)
{
    struct worker *self = arg;
    struct world w;
    struct ask asks[8] = {{.done = 0}};
    world_open(&w, &shared);
    pthread_mutex_lock(&loading);
    struct ml_vm *vm =
        load_body(&w, "local s, t = host.begin('s', 'n', req.path)\n"
                      "if s == 'lead' then host.fetch { url = at .. '/ok' } host.cache_delete('s', "
                      "'n', req.path)\n"
                      "if host.now() * 1000 % 2 < 1 then host.settle(t, 'fail', 'x') end end\n"
                      "host.deny(req, 403, 'denied', '')");
    pthread_mutex_unlock(&loading);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 2000; i++) {
        struct ask *a = &asks[(unsigned)rand_r(&self->seed) % 8];
        if (a->run && a->done) {
            a->run = NULL;
            ask_done(a);
        } else if (a->run && rand_r(&self->seed) % 2) {
            ml_run_cancel(a->run);
            a->run = NULL;
            ask_done(a);
        } else if (!a->run) {
            ask_open(a);
            ask_start(a, vm);
            if (!a->run)
                ask_done(a);
        }
        uv_run(&w.loop, UV_RUN_NOWAIT);
    }
    ml_vm_unref(vm);
    world_close(&w);
    for (int i = 0; i < 8; i++)
        if (asks[i].run)
            ask_done(&asks[i]);
    return NULL;
}

static void test_churn(void **state)
{
    struct worker workers[2] = {{.seed = 1}, {.seed = 2}};
    pthread_barrier_init(&barrier, NULL, 2);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&workers[i].thread, NULL, churn, &workers[i]), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(workers[i].thread, NULL);
    pthread_barrier_destroy(&barrier);
}

/* However the first leader ends without settling, the second one leads. */
static void test_abandoned(void **state)
{
    static const char *const endings[] = {
        "error('x')", "do local t <close> = a end",          "while true do local t = {} end",
        "a = nil",    "host.fetch { url = at .. '/never' }",
    };
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        struct ask asks[10];
        char body[512];
        snprintf(
            body, sizeof body,
            "local s, a = host.begin('s', 'k%zu', 'c')\n"
            "if s == 'lead' and not led then led = true host.fetch { url = at .. '/wait' } %s\n"
            "return host.deny(req, 403, 'denied', '') end\n"
            "if s == 'lead' then host.settle(a, 'accept', 'found', 60) end allow()",
            i, endings[i]);
        struct ml_vm *vm = load_body(&world, body);
        start_many(asks, 10, vm, "/");
        if (i == 4) {
            while (server.requests < 6)
                uv_run(&world.loop, UV_RUN_ONCE);
            ml_run_cancel(asks[0].run);
            ask_done(&asks[0]);
        } else {
            finish_many(asks, 1, &world, ML_DENY, i == 1 || i == 3 ? 403 : 503);
        }
        finish_many(asks + 1, 9, &world, ML_ALLOW, 200);
        ml_vm_unref(vm);
    }
}

static void test_rules(void **state)
{
    static const char *const bodies[] = {
        "local s, t = host.begin('s', 'n', 'own') assert(s == 'lead')\n"
        "local ok, why = pcall(host.begin, 's', 'n', 'own') assert(not ok and why:find('leads', 1, "
        "true))\n"
        "host.settle(t, 'fail', 'x') assert(not pcall(host.settle, t, 'fail', 'x')) allow()",
        "local s, t = host.begin('s', 'n', 'once') local v = host.settle(t, 'accept', { a = { 1, 2 "
        "} }, 60)\n"
        "local s2, v2 = host.begin('s', 'n', 'once') assert(s2 == 'hit' and v2.a[2] == 2 and "
        "v.a[2] == 2)\n"
        "local s3, v3 = host.begin('s', 'n', 'once') assert(v3 == v2) allow()",
        "local s, t = host.begin('s', 'n', 'zero') local v = host.settle(t, 'accept', { 7 }, 0) "
        "assert(v[1] == 7)\n"
        "local s2, t2 = host.begin('s', 'n', 'zero') assert(s2 == 'lead')\n"
        "host.settle(t2, 'accept', { 7 }, 60, host.now() - 1) local s3 = host.begin('s', 'n', "
        "'zero') assert(s3 == 'lead') allow()",
        "for i, v in ipairs { false, 0, 1.5, '', 'x', {} } do local s, t = host.begin('s', 'n', "
        "'v' .. i)\n"
        "local w = host.settle(t, 'accept', v, 60) assert(type(w) == type(v) and (type(v) == "
        "'table' or v == w)) end allow()",
        "local s, t = host.begin('s', 'n', 'bad') assert(not pcall(host.settle, t, 'accept', "
        "allow, 60))\n"
        "assert(not pcall(host.settle, t, 'accept', 1, 0 / 0)) assert(not pcall(host.settle, t, "
        "'accept', 1, '60s'))\n"
        "assert(not pcall(host.settle, t, 'maybe', 1)) assert(not pcall(host.settle, {}, 'fail', "
        "'x'))\n"
        "assert(not pcall(host.settle, plan, 'fail', 'x')) assert(not pcall(host.begin, 1, 2, 3)) "
        "allow()",
        "host.cache_set('s', 'n', 'set', { x = 1 }, 60) assert(host.cache_get('s', 'n', 'set').x "
        "== 1)\n"
        "assert(host.cache_get('s', 'n', 'se') == nil and host.cache_get('sn', '', 'set') == nil)\n"
        "host.cache_delete('s', 'n', 'set') assert(host.cache_get('s', 'n', 'set') == nil) allow()",
        "kept = kept or select(2, host.begin('s', 'n', 'kept')) allow()",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        struct ask a;
        ask_body(&world, bodies[i], &a);
        if (a.d.action != ML_ALLOW)
            fail_msg("%zu: %s", i, last_reason(&a));
        ask_done(&a);
    }
}

/* A waiter has its own deadline, whatever its leader does. */
static void test_waiter_deadline(void **state)
{
    struct ask asks[2];
    struct ml_vm *vm = load_body(&world, look_up);
    start_many(asks, 1, vm, "/never");
    ask_open(&asks[1]);
    asks[1].request.path = asks[1].request.raw_path = ML_STR("/never");
    asks[1].request.deadline_ms = ml_mono_ms() + 100;
    uint64_t before = ml_mono_ms();
    ask_start(&asks[1], vm);
    ask_wait(&asks[1], &world);
    assert_failed(&asks[1], "unavailable");
    assert_in_range(ml_mono_ms() - before, 90, 2000);
    ml_run_cancel(asks[0].run);
    ask_done(&asks[0]);
    ask_done(&asks[1]);
    ml_vm_unref(vm);
}

/* S-519, S-460: with no room for more the host says "failed", and the flight is not disturbed. */
static void test_full(void **state)
{
    struct shared narrow = shared;
    struct world w;
    struct ask asks[6];
    narrow.flights = ml_flights_new(4, 2);
    world_open(&w, &narrow);
    struct ml_vm *vm = load_body(&w, look_up);
    start_many(asks, 6, vm, "/wait");
    for (int i = 3; i < 6; i++) {
        assert_int_equal(asks[i].done, 1);
        assert_int_equal(asks[i].d.status, 503);
        assert_true(ml_str_eq(asks[i].d.body, ML_STR("too many requests wait")));
        ask_done(&asks[i]);
    }
    finish_many(asks, 3, &w, ML_ALLOW, 200);
    ml_vm_unref(vm);
    world_close(&w);
    ml_flights_free(narrow.flights);
}

/* More values than slots, larger ones than are kept: what is found is right, and the state's memory
 * stays bounded. */
static void test_memo(void **state)
{
    struct ml_vm *vm = load_body(
        &world,
        "local n = tonumber(req.path)\n"
        "host.cache_set('s', 'n', req.path, { n = n, pad = ('x'):rep(n % 50 == 0 and 80000\n"
        "or n < 1500 and 50 or 1000) }, 60)\n"
        "for i = n, math.max(1, n - 5), -1 do local v = host.cache_get('s', 'n', tostring(i))\n"
        "if v and v.n ~= i then error('wrong') end if i == n then assert(v.n == n) end end "
        "allow()");
    for (int i = 1; i < 2500; i++) {
        char path[16];
        struct ask a;
        snprintf(path, sizeof path, "%d", i);
        start_many(&a, 1, vm, path);
        if (a.d.action != ML_ALLOW)
            fail_msg("%d: %s", i, last_reason(&a));
        ask_done(&a);
    }
    assert_in_range(vm->memo_bytes, 1, ml_default_budget.memory / 32);
    assert_true(ml_script_stats(world.script).lua_bytes < 4 << 20);
    ml_vm_unref(vm);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, open_served, close_served)
    const struct CMUnitTest tests[] = {
        CASE(test_one_leads), CASE(test_two_workers),     CASE(test_churn), CASE(test_abandoned),
        CASE(test_rules),     CASE(test_waiter_deadline), CASE(test_full),  CASE(test_memo),
    };
    return RUN_TWICE("flight", tests);
}
