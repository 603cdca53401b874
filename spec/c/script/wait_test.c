/* Runs that wait: what a fetch brings, how a wait ends (answer, deadline, cancel, shutdown), tasks,
 * and ten thousand random orders of it. Each case ends with no handle, no Lua byte and no transfer
 * left (world_close, ASan). */
#include "one_world.h"

#include "c/client/loopback.h"

enum { INTERLEAVINGS = 10000 };

static struct loopback server;

static int open_served(void **state)
{
    loopback_start(&server, 0, NULL);
    snprintf(port_text, sizeof port_text, "%d", server.port);
    return open_world(state);
}

static int close_served(void **state)
{
    close_world(state);
    loopback_stop(&server);
    return 0;
}

static void test_fetch(void **state)
{
    static const char *const bodies[] = {
        "local r = host.fetch { url = at .. '/ok' }\n"
        "assert(r.status == 200 and r.body == 'hello' and r.headers['x-kind'] == 'Good') allow()",
        "local r, seen = host.fetch { url = at .. '/ok' }, {}\n"
        "assert(r.headers['x-kind'] == 'Good' and r.headers.absent == nil and r.headers[1] == "
        "nil)\n"
        "for name, value in pairs(r.headers) do seen[name] = value end\n"
        "assert(seen['x-kind'] == 'Good' and r.headers['x-kind'] == 'Good' and not "
        "r.headers.absent)\n"
        "for name in pairs(r.headers) do assert(seen[name], 'no text') seen[name] = nil end\n"
        "for name in pairs(seen) do error(name) end allow()",
        "local ok, r = pcall(host.fetch, { url = at .. '/500' }) assert(ok and r.status == 500) "
        "allow()",
        "local r = host.fetch { url = at .. '/echo', method = 'POST', body = 'x=1', timeout = 2,\n"
        "headers = { authorization = { 'Bearer ', key }, ['X-Key'] = key, accept = 'a/b' } }\n"
        "assert(r.body:find('POST /echo', 1, true) and r.body:find('Bearer value', 1, true))\n"
        "assert(r.body:find('X-Key: value', 1, true) and r.body:find('x=1', 1, true)) allow()",
        "local r, why = host.fetch { url = 'http://127.0.0.1:1/' } assert(r == nil and #why > 0) "
        "allow()",
        "local r, why = host.fetch { url = 'ftp://x/' } assert(r == nil and #why > 0) allow()",
        "local r, why = host.fetch { url = at .. '/never', timeout = 0.05 } assert(r == nil and "
        "#why > 0) allow()",
        "local r, why = host.fetch { url = at .. '/big' } assert(r == nil and #why > 0) allow()",
        "assert(not pcall(host.fetch, { url = at, headers = { a = 'x\\ny' } })) assert(not "
        "pcall(host.fetch, { url = 1 }))\n"
        "assert(not pcall(host.fetch)) assert(not pcall(host.fetch, { url = at, upstream = {} }))\n"
        "assert(not pcall(host.fetch, { url = at, timeout = 0 / 0 })) allow()",
        "local ok, why = pcall(table.sort, { 1, 2 }, function() host.fetch { url = at .. '/ok' } "
        "end)\n"
        "assert(not ok and why:find('cannot wait here', 1, true)) allow()",
        "local ok, why = pcall(string.gsub, 'a', 'a', function() host.fetch { url = at .. '/ok' } "
        "end)\n"
        "assert(not ok and why:find('cannot wait here', 1, true)) allow()",
        "local ok, why = pcall(host.sleep, 1) assert(not ok and why:find('background', 1, true)) "
        "allow()",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        struct ask a;
        ask_body(&world, bodies[i], &a);
        if (a.d.action != ML_ALLOW)
            fail_msg("%zu: %s", i, last_reason(&a));
        ask_done(&a);
    }
    assert_int_equal(ml_script_stats(world.script).running, 0);
}

/* A policy whose request with these bytes for a token is decided by body. */
static struct ml_vm *load_get(const char *body)
{
    char *text;
    assert_true(
        asprintf(&text,
                 "local at = 'http://127.0.0.1:' .. host.env('PORT')\n"
                 "local up = host.upstream { name = 'idp' }\n"
                 "local plan = host.plan({ 'X-User' }, { 'set' })\n"
                 "local function allow(req) host.allow(req, plan, 'a', 'allowed', 'a') end\n"
                 "return { name = 'get', headers = { 'x-user' }, decide = function(req)\n"
                 "%s\nallow(req) end }",
                 body) > 0);
    struct ml_vm *vm = load(&world, text);
    free(text);
    return vm;
}

static void test_bearer_get(void **state)
{
    static const char *const bodies[] = {
        "local status, body, kind, challenge = host.bearer_get(up, at .. '/echo', 'a.b-c=', 2)\n"
        "assert(status == 200 and kind == nil and challenge == nil)\n"
        "assert(body:find('^GET /echo HTTP/1.1\\r\\n'))\n"
        "assert(body:find('\\r\\nAuthorization: Bearer a.b-c=\\r\\n', 1, true))\n"
        "assert(body:find('\\r\\nAccept: application/json\\r\\n', 1, true))",
        "assert(select('#', host.bearer_get(up, at .. '/ok', 't')) == 4)",
        "local status, body, kind, challenge = host.bearer_get(up, at .. '/bearer', 't', 2)\n"
        "assert(status == 400 and body == '{}' and kind == 'application/json')\n"
        "assert(challenge == 'Bearer error=\"invalid_token\", Basic')",
        "local status, why = host.bearer_get(up, at .. '/never', 't', 0.05)\n"
        "assert(status == nil and #why > 0)",
        "local status, why = host.bearer_get(up, 'ftp://x/', 't', 1)\n"
        "assert(status == nil and #why > 0)",
        "for _, token in ipairs { '', 'a\\nb', ' a', ('x'):rep(40000) } do\n"
        "  local ok, why = pcall(host.bearer_get, up, at .. '/ok', token, 1)\n"
        "  assert(not ok and why:find('cannot be sent', 1, true)) end",
        "assert(not pcall(host.bearer_get, {}, at, 't', 1) and not pcall(host.bearer_get, up, 1, "
        "'t') and not pcall(host.bearer_get, up, at, 5) and not pcall(host.bearer_get, up, at, "
        "'t', 0 / 0))",
        "local ok, why = pcall(table.sort, { 1, 2 }, function() host.bearer_get(up, at, 't') end)\n"
        "assert(not ok and why:find('cannot wait here', 1, true))",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        struct ask a;
        struct ml_vm *vm = load_get(bodies[i]);
        ask_open(&a);
        ask_start(&a, vm);
        ask_wait(&a, &world);
        if (a.d.action != ML_ALLOW)
            fail_msg("%zu: %s", i, last_reason(&a));
        a.vm = vm;
        ask_done(&a);
    }
    assert_int_equal(ml_script_stats(world.script).running, 0);
}

/* More origins than are kept. */
static void test_origins(void **state)
{
    struct ask a;
    struct ml_vm *vm = load_body(
        &world, "for i = 1, 30 do host.fetch { url = 'http://127.0.0.1:' .. (i + "
                "tonumber(req.query.x:sub(1, 1)) * 30) .. '/' } end\n"
                "local r = host.fetch { url = at .. '/ok' } assert(r.body == 'hello') allow()");
    for (int i = 0; i < 4; i++) {
        static const char *const queries[] = {"x=0", "x=1", "x=2", "x=3"};
        ask_open(&a);
        a.request.query = ml_str_z(queries[i]);
        ask_start(&a, vm);
        ask_wait(&a, &world);
        if (a.d.action != ML_ALLOW)
            print_error("%d: %s\n", i, last_reason(&a));
        assert_int_equal(a.d.action, ML_ALLOW);
        ask_done(&a);
    }
    ml_vm_unref(vm);
}

static void test_deadline(void **state)
{
    static const char *const bodies[] = {
        "host.step(req, 'a', 'b') allow() host.fetch { url = at .. '/never' }",
        "allow() while true do pcall(host.fetch, { url = at .. '/wait' }) pcall(error) end",
        "local t = { host.begin('s', 'n', 'c') } host.fetch { url = at .. '/never' } allow()",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        struct ml_vm *vm = load_body(&world, bodies[i]);
        struct ask a;
        ask_open(&a);
        a.request.deadline_ms = ml_mono_ms() + 100;
        uint64_t before = ml_mono_ms();
        ask_start(&a, vm);
        ask_wait(&a, &world);
        assert_failed(&a, "unavailable");
        assert_string_equal(last_reason(&a), "the check took too long");
        assert_in_range(ml_mono_ms() - before, 90, 1000);
        ask_done(&a);
        ml_vm_unref(vm);
    }
    assert_int_equal(ml_flights_waiting(shared.flights), 0);
}

/* The policy's own timeout is a deadline as well. */
static void test_own_timeout(void **state)
{
    struct ask a;
    struct ml_vm *vm = load(
        &world,
        "local at = 'http://127.0.0.1:' .. host.env('PORT')\n"
        "return { timeout = 0.1, decide = function(req) host.fetch { url = at .. '/never' } end }");
    ask_open(&a);
    ask_start(&a, vm);
    ask_wait(&a, &world);
    assert_true(a.d.reason.n > 0 && a.d.status == 503);
    assert_true(ml_mono_ms() < a.request.deadline_ms - 3000);
    ask_done(&a);
    ml_vm_unref(vm);
}

static void test_too_many_calls(void **state)
{
    struct ask a;
    ask_body(&world, "for i = 1, 100 do pcall(host.fetch, { url = at .. '/ok' }) end allow()", &a);
    assert_failed(&a, "error");
    assert_string_equal(last_reason(&a), "the policy made more than 32 calls that wait");
    assert_true(server.requests <= 32);
    assert_int_equal(ml_script_stats(world.script).killed_calls, 1);
    ask_done(&a);
}

/* Stretches of 6 ms each, 50 ms in all. */
static void test_request_cpu(void **state)
{
    struct ask a;
    struct world w;
    world_open_with(&w, &shared, ml_default_budget);
    ask_body(&w,
             "for i = 1, 30 do for j = 1, 1000000 do end\n"
             "host.fetch { url = at .. '/ok' } end allow()",
             &a);
    assert_failed(&a, "error");
    assert_non_null(strstr(last_reason(&a), "ms of CPU"));
    assert_in_range(server.requests, 2, 29);
    ask_done(&a);
    world_close(&w);
}

static void test_cancel(void **state)
{
    struct ask a;
    struct ml_vm *vm = load_body(&world, "local s, t <close> = host.begin('s', 'n', 'c')\n"
                                         "host.fetch { url = at .. '/never' } allow()");
    ask_open(&a);
    ask_start(&a, vm);
    ml_vm_unref(vm);
    for (int i = 0; i < 3; i++)
        uv_run(&world.loop, UV_RUN_NOWAIT);
    assert_int_equal(ml_script_stats(world.script).running, 1);
    ml_run_cancel(a.run);
    assert_int_equal(ml_script_stats(world.script).running, 0);
    assert_int_equal(ml_script_stats(world.script).lua_bytes,
                     0); /* the VM went with its last run */
    assert_int_equal(a.done, 0);
    ask_done(&a);
}

/* A reload: the old VM decides what it has begun, the new one what comes later. */
static void test_reload(void **state)
{
    struct ask old, new;
    struct ml_vm *vm =
        load_body(&world, "host.fetch { url = at .. '/wait' } host.deny(req, 401, 'denied', '')");
    ask_open(&old);
    ask_start(&old, vm);
    ml_vm_unref(vm);
    vm = load_body(&world, "host.fetch { url = at .. '/wait' } host.deny(req, 403, 'denied', '')");
    ask_open(&new);
    ask_start(&new, vm);
    ask_wait(&old, &world);
    ask_wait(&new, &world);
    assert_int_equal(old.d.status, 401);
    assert_int_equal(new.d.status, 403);
    ask_done(&old);
    ask_done(&new);
    ml_vm_unref(vm);
}

/* Shutdown with runs that wait: they are cancelled, done does not run. */
static void test_close(void **state)
{
    struct world w;
    struct ask asks[50];
    world_open(&w, &shared);
    struct ml_vm *vm = load_body(
        &w,
        "local s, t = host.begin('s', 'n', req.path) host.fetch { url = at .. '/never' } allow()");
    for (int i = 0; i < 50; i++) {
        ask_open(&asks[i]);
        ask_start(&asks[i], vm);
    }
    for (int i = 0; i < 3; i++)
        uv_run(&w.loop, UV_RUN_NOWAIT);
    ml_vm_unref(vm);
    world_close(&w);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(asks[i].done, 0);
        ask_done(&asks[i]);
    }
    assert_int_equal(ml_flights_waiting(shared.flights), 0);
}

/* Ten seconds at most: a busy machine takes its time. */
static void run_tasks(struct ml_vm *vm, unsigned kills)
{
    struct ml_err err;
    uint64_t until = ml_mono_ms() + 10000;
    while (ml_mono_ms() < until &&
           (ml_script_stats(world.script).killed_cpu < kills || !ml_vm_ready(vm, &err))) {
        uv_run(&world.loop, UV_RUN_NOWAIT);
        usleep(500);
    }
    for (int i = 0; i < 100; i++) { /* and a few ticks */
        uv_run(&world.loop, UV_RUN_NOWAIT);
        usleep(500);
    }
}

static void test_tasks(void **state)
{
    struct ml_err err;
    char why[64];
    struct ml_vm *vm =
        load(&world,
             "local n = 0\n"
             "local function discover() n = n + 1 if n == 1 then host.post_failure('corp', 'down') "
             "host.sleep(0.02) error('first') end\n"
             "host.post('corp', { issuer = 'x' }) while true do host.sleep(0.01) "
             "host.post('ticks', n) end end\n"
             "local function once() host.post('once', true) end\n"
             "local function loop() host.post('loops', true) while true do local t = {} end end\n"
             "return { tasks = { discover, once, loop }, providers = { 'corp' }, decide = "
             "function(req)\n"
             "host.deny(req, host.read('corp').issuer == 'x' and 403 or 401, 'denied', '') end }");
    ml_vm_start_tasks(vm);
    assert_false(ml_vm_ready(vm, &err));
    assert_string_equal(err.text, "provider corp: down");
    run_tasks(vm, 2); /* once and again a second later */
    assert_true(ml_vm_ready(vm, &err));
    struct ml_entry *e = ml_board_read(shared.board, ML_STR("ticks"));
    assert_non_null(e);
    assert_string_equal(e->bytes, "2");
    ml_entry_unref(e);
    assert_false(ml_board_failure(shared.board, ML_STR("corp"), why, sizeof why));
    struct ask a;
    ask_open(&a);
    ask_start(&a, vm);
    assert_int_equal(a.d.status, 403);
    ask_done(&a);
    assert_true(ml_script_stats(world.script).killed_cpu >= 2);
    ml_vm_stop_tasks(vm);
    assert_int_equal(ml_script_stats(world.script).running, 0);
    ml_vm_start_tasks(vm);
    ml_vm_unref(vm); /* tasks do not keep it */
    assert_int_equal(ml_script_stats(world.script).lua_bytes, 0);
}

/* Random orders. An operation of the test's own, which may complete late, twice, or never. */
struct manual {
    struct ml_await await;
    struct manual *next;
    bool cancelled;
};
static struct manual *manuals;

static void free_manual(struct ml_await *a)
{
    free(a);
}

static void cancel_manual(struct ml_await *a)
{
    ((struct manual *)a)->cancelled =
        true; /* the list keeps its reference: completions may still come */
}

static int k_manual(lua_State *L, int status, lua_KContext ctx)
{
    lua_newtable(L);
    return 1;
}

static int l_manual(lua_State *L)
{
    if (!ml_await_allowed(L, "manual"))
        return luaL_error(L, "busy");
    struct manual *m = ml_await_new(L, sizeof *m, cancel_manual, free_manual);
    ml_await_ref(&m->await);
    m->next = manuals;
    manuals = m;
    return ml_await_yield(L, &m->await, k_manual);
}

static int add_manual(lua_State *L)
{
    struct ml_vm *vm = lua_touserdata(L, 1);
    const char *name;
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->decide);
    for (int i = 1; (name = lua_getupvalue(L, -1, i)); i++) {
        if (strcmp(name, "seam") == 0) {
            lua_pushcfunction(L, l_manual);
            lua_setfield(L, -2, "manual");
            return 0;
        }
        lua_pop(L, 1);
    }
    return luaL_error(L, "no seam");
}

static void drop_manual(void)
{
    struct manual *m = manuals;
    manuals = m->next;
    ml_await_unref(&m->await);
}

enum { ASKS = 16 };

/* One random event; returns what it did to the count of answered asks. */
static void random_event(struct ask *asks, struct ml_vm **vm, unsigned kind)
{
    struct ask *a = &asks[(unsigned)rand() % ASKS];
    if (kind < 4 && !a->run) { /* ask */
        ask_open(a);
        if (rand() % 8 == 0)
            a->request.deadline_ms = ml_mono_ms() + (unsigned)rand() % 3;
        ask_start(a, *vm);
    } else if (kind < 6 && manuals) { /* complete, perhaps twice, perhaps for nobody */
        ml_await_complete(&manuals->await);
        if (rand() % 2)
            ml_await_complete(&manuals->await);
        drop_manual();
    } else if (kind == 6 && a->run && !a->done) { /* the client goes */
        ml_run_cancel(a->run);
        a->run = NULL;
        ask_done(a);
    } else if (kind == 7 && rand() % 50 == 0) { /* a reload */
        ml_vm_unref(*vm);
        *vm = load_body(&world, "local s, t <close> = host.begin('s', 'n', tostring(#req.path)) "
                                "host.cache_delete('s', 'n', '4')\n"
                                "pcall(seam.manual) local x = seam.manual() if host.now() * 1000 % "
                                "3 < 1 then error('x') end allow()");
        char text[ML_ERROR_TEXT + 1];
        assert_int_equal(ml_vm_protect(*vm, add_manual, *vm, false, text), LUA_OK);
    } else {
        uv_run(&world.loop, UV_RUN_NOWAIT);
    }
}

static void test_random(void **state)
{
    struct ask asks[ASKS] = {{.done = 0}};
    char text[ML_ERROR_TEXT + 1];
    struct ml_vm *vm = load_body(&world, "pcall(seam.manual) local x = seam.manual() allow()");
    assert_int_equal(ml_vm_protect(vm, add_manual, vm, false, text), LUA_OK);
    srand(7);
    for (int i = 0; i < INTERLEAVINGS; i++) {
        random_event(asks, &vm, (unsigned)rand() % 10);
        for (int k = 0; k < ASKS; k++) {
            assert_true(asks[k].done <= 1);
            if (asks[k].run && asks[k].done) {
                assert_true(asks[k].d.action != ML_UNDECIDED);
                asks[k].run = NULL;
                ask_done(&asks[k]);
            }
        }
    }
    struct ml_script_stats stats = ml_script_stats(world.script);
    assert_true(stats.stale > INTERLEAVINGS / 100 && stats.waits > INTERLEAVINGS / 10);
    for (int k = 0; k < ASKS; k++) {
        if (!asks[k].run)
            continue;
        ml_run_cancel(asks[k].run);
        ask_done(&asks[k]);
    }
    while (manuals)
        drop_manual();
    assert_int_equal(ml_script_stats(world.script).running, 0);
    ml_vm_unref(vm);
    assert_int_equal(ml_script_stats(world.script).lua_bytes, 0);
}

/* Past the bound on waits a host call says so; what need not wait goes on. */
static void test_too_many_waits(void **state)
{
    enum { COUNT = ML_WAITS_MAX + 20 };
    struct ask *asks = calloc(COUNT, sizeof *asks);
    unsigned refused = 0;
    struct ml_vm *vm = load_body(
        &world, "if req.method == 'HEAD' then return allow() end\n"
                "local state, ticket = host.begin('s', 'n', 'c') if state == 'failed' then "
                "return host.deny(req, 503, 'unavailable', '') end\n"
                "host.fetch { url = at .. '/never' } return ticket");
    for (int i = 0; i < COUNT; i++) {
        ask_open(&asks[i]);
        ask_start(&asks[i], vm);
        refused += asks[i].done;
    }
    assert_int_equal(refused, 20);
    struct ask a;
    ask_open(&a);
    a.request.method = ML_STR("HEAD");
    ask_start(&a, vm);
    assert_int_equal(a.d.action, ML_ALLOW);
    ask_done(&a);
    for (int i = 0; i < COUNT; i++) {
        if (asks[i].run)
            ml_run_cancel(asks[i].run);
        ask_done(&asks[i]);
    }
    free(asks);
    ml_vm_unref(vm);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, open_served, close_served)
    const struct CMUnitTest tests[] = {
        CASE(test_fetch),          CASE(test_bearer_get),  CASE(test_origins),
        CASE(test_deadline),       CASE(test_own_timeout), CASE(test_too_many_calls),
        CASE(test_request_cpu),    CASE(test_cancel),      CASE(test_reload),
        CASE(test_close),          CASE(test_tasks),       CASE(test_random),
        CASE(test_too_many_waits),
    };
    return RUN_TWICE("wait", tests);
}
