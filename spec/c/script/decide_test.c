/* One decision without waits: what counts as an allow, what a policy sees, what its failures
 * become. */
#include "one_world.h"

static void test_allow(void **state)
{
    struct ask a;
    ask_body(&world, "host.step(req, 'authn', 'accept', 'why') host.route(req, 'r1') allow()", &a);
    assert_int_equal(a.d.action, ML_ALLOW);
    assert_int_equal(a.d.upstream_count, 2);
    assert_true(ml_str_eq(a.d.upstream[0].name, ML_STR("X-User")));
    assert_true(ml_str_eq(a.d.upstream[0].value, ML_STR("alice")));
    assert_int_equal(a.d.upstream[0].op, ML_HEADER_SET);
    assert_int_equal(a.d.upstream[1].op, ML_HEADER_REMOVE);
    assert_true(ml_str_eq(a.d.strip, ML_STR("x_user,x.user,x_gone,x.gone")));
    assert_true(ml_str_eq(a.d.user, ML_STR("alice")));
    assert_true(ml_str_eq(a.d.route, ML_STR("r1")));
    assert_true(ml_str_eq(a.d.reason, ML_STR("allowed")));
    assert_int_equal(a.d.step_count, 1);
    ask_done(&a);
    ask_body(&world, "host.allow(req, plan, nil, 'public')", &a);
    assert_int_equal(a.d.action, ML_ALLOW);
    assert_int_equal(a.d.upstream[0].op, ML_HEADER_BLANK);
    ask_done(&a);
}

static void test_deny(void **state)
{
    struct ask a;
    ask_body(&world, "host.deny(req, 302, 'login', 'go', { Location = '/x' })", &a);
    assert_int_equal(a.d.action, ML_DENY);
    assert_int_equal(a.d.status, 302);
    assert_int_equal(a.d.client_count, 1);
    assert_true(ml_str_eq(a.d.body, ML_STR("go")));
    ask_done(&a);
}

/* S-522, S-067, S-186: an allow is a clean return after host.allow, nothing else. */
static void test_no_allow(void **state)
{
    static const char *const bodies[] = {
        "",
        "return nil",
        "return true",
        "return 'allow'",
        "return 1",
        "return { allow = true }",
        "return { allow = 'true' }",
        "return host.allow",
        "return req",
        "return true, true",
        "allow() error('late')",
        "allow() error()",
        "allow() error({})",
        "allow() allow()",
        "allow() host.deny(req, 403, 'denied', 'no')",
        "host.deny(req, 403, 'denied', 'no') allow()",
        "host.deny(req, 403, 'denied', 'no') error('x')",
        "host.allow(req, plan, 'a', 'allowed', 'x\\ny')",
        "host.allow(req, plan, 'a', 'allowed', 7)",
        "host.allow(req, plan, 'a', 'allowed', {})",
        "host.allow(req, plan, 'a', 'yes', 'x')",
        "host.allow(req, plan, 'a', 'allowed', 'x', 'y', 'z')",
        "host.allow(req, {}, 'a', 'allowed')",
        "host.allow(req, req, 'a', 'allowed')",
        "host.allow({}, plan, 'a', 'allowed')",
        "host.allow(nil, plan, 'a', 'allowed')",
        "host.allow(plan, plan, 'a', 'allowed')",
        "host.allow()",
        "host.allow(req, plan, true, 'allowed')",
        "host.allow(req, plan, 'a', 'allowed', ('x'):rep(40000))",
        "host.deny(req, 200, 'denied', 'x')",
        "host.deny(req, 0, 'denied', 'x')",
        "host.deny(req, 600, 'denied', 'x')",
        "host.deny(req, '403', 'denied', 'x')",
        "host.deny(req, nil, 'denied', 'x')",
        "host.deny(req, 403.5, 'denied', 'x')",
        "host.deny(req, 403, 'allowed', 'x')",
        "host.deny(req, 403, 'denied', 'x', 1)",
        "host.deny(req, 403, 'denied', 'x', { ['Content-Length'] = '7' })",
        "host.deny(req, 403, 'denied', 'x', { ['a b'] = '7' })",
        "host.deny(req, 403, 'denied', 'x', { a = 'x\\r\\ny: z' })",
        "host.deny(req, 403, 'denied', ('x'):rep(300000))",
        "local h = {} for i = 1, 33 do h['h' .. i] = 'x' end host.deny(req, 403, 'denied', 'x', h)",
        "req.method = 'POST' allow()",
        "local x = req.nothing allow()",
        "req() allow()",
        "allow() local t = nil; t.x = 1",
        "local function f() return f() + 1 end allow() f()",
        "pcall(allow) error(setmetatable and 1 or 2)",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        struct ask a;
        ask_body(&world, bodies[i], &a);
        if (a.d.action != ML_DENY)
            fail_msg("allowed: %s", bodies[i]);
        assert_failed(&a, "error");
        assert_true(strlen(last_reason(&a)) > 0);
        ask_done(&a);
    }
}

/* A failure that the policy caught itself is none. */
static void test_caught(void **state)
{
    struct ask a;
    ask_body(&world, "pcall(error, 'x') pcall(host.allow) allow()", &a);
    assert_int_equal(a.d.action, ML_ALLOW);
    ask_done(&a);
}

/* S-505: any error value is one bounded line without controls. */
static void test_error_texts(void **state)
{
    static const struct {
        const char *body, *text;
    } cases[] = {
        {"error('a\\nb\\0c\\27d', 0)", "a b c d"},
        {"error()", "(the error is a nil value)"},
        {"error(false)", "(the error is a boolean value)"},
        {"error({})", "(the error is a table value)"},
        {"error(12)", "(the error is a number value)"},
        {"", "the policy returned without a decision"},
    };
    struct ask a;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ask_body(&world, cases[i].body, &a);
        assert_failed(&a, "error");
        assert_string_equal(last_reason(&a), cases[i].text);
        ask_done(&a);
    }
    ask_body(&world, "error(('x'):rep(1000000), 0)", &a);
    assert_int_equal(strlen(last_reason(&a)), ML_ERROR_TEXT);
    ask_done(&a);
}

static void test_request_fields(void **state)
{
    struct ask a;
    ask_body(
        &world,
        "local function is(a, b) if a ~= b then error(tostring(a) .. ' is not ' .. tostring(b), 2) "
        "end end\n"
        "is(req.method, 'GET') is(req.scheme, 'https') is(req.host, 'app.example') is(req.path, "
        "'/a b')\n"
        "is(req.raw_path, '/a%20b') is(req.client_ip, '10.0.0.1') is(req.id, 'id-1')\n"
        "is(req.has_params, true) is(req.verify, false) is(req.bearer, 'abc.def')\n"
        "is(req.query.x, '1 2') is(req.query.y, 'A') is(req.query.z, nil) is(req.query.bad, nil)\n"
        "is(tostring(req.query), 'x=1+2&y=%41&x=3&bad=%zz')\n"
        "is(req.headers['x-TWO'], '1, 2') is(req.headers['X-None'], nil)\n"
        "is(req.cookies.a, nil) is(req.cookies.b, '2') is(req.cookies.c, nil)\n"
        "is(host.cookie(req, 'a'), nil) is(host.cookie(req, 'b'), '2') is(host.cookie(req, 'c'), "
        "nil)\n"
        "is(req:credential('Authorization'), 'abc.def') is(req:credential('x-id-token'), 'tok')\n"
        "is(req:credential('X-Words'), nil) is(req:credential('X-Two'), nil)\n"
        "is(pcall(function() req.headers.x = 1 end), false) is(req.headers, req.headers)\n"
        "allow()",
        &a);
    assert_string_equal(last_reason(&a), "");
    assert_int_equal(a.d.action, ML_ALLOW);
    ask_done(&a);
}

/* S-460: what a policy keeps of a request is dead with it, whatever came to stand at its address.
 */
static void test_stale_request(void **state)
{
    struct ml_vm *vm = load_body(
        &world,
        "if not kept then kept, headers, query = req, req.headers, req.query\n"
        "for i = 1, 9 do local t = {} end return allow() end\n"
        "local calls = { function() return kept.method end, function() return headers['x-two'] "
        "end,\n"
        "function() return tostring(query) end, function() return kept:credential('x') end,\n"
        "function() return host.cookie(kept, 'b') end,\n"
        "function() host.allow(kept, plan, 'eve', 'allowed', 'eve') end,\n"
        "function() host.deny(kept, 403, 'denied', '') end, function() host.step(kept, 'a', 'b') "
        "end }\n"
        "for i, f in ipairs(calls) do local ok, why = pcall(f)\n"
        "if ok or not why:find('this request has ended', 1, true) then error(i .. tostring(why)) "
        "end end\n"
        "host.deny(req, 403, 'denied', 'fine')");
    for (int i = 0; i < 3; i++) {
        struct ask a;
        ask_open(&a);
        ask_start(&a, vm);
        assert_int_equal(a.done, 1);
        assert_string_equal(last_reason(&a), "");
        assert_int_equal(a.d.status, i ? 403 : 200);
        ask_done(&a);
    }
    ml_vm_unref(vm);
}

static void test_plan(void **state)
{
    struct ask a;
    static const char *const bad[] = {
        "host.plan({ 'a b' }, { 'set' })",
        "host.plan({ 'a' }, { 'keep' })",
        "host.plan({ 'a', 'A' }, { 'set', 'set' })",
        "host.plan({ 'a' }, {})",
        "host.plan({ 1 }, { 'set' })",
        "host.plan()",
        "local n, k = {}, {} for i = 1, 65 do n[i], k[i] = 'h' .. i, 'set' end host.plan(n, k)",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct ml_buf report;
        ml_buf_init(&report, 65536);
        assert_null(load_text(&world, bad[i], &report));
        assert_true(report.n > 0);
        ml_buf_done(&report);
    }
    ask_body(&world, "host.plan({}, {})", &a);
    assert_failed(&a, "error");
    assert_non_null(strstr(last_reason(&a), "only while loading"));
    ask_done(&a);
}

/* S-512: past the cap the request is denied, a pcall does not help, and the state is marked for
 * replacement. */
static void test_memory(void **state)
{
    static const char *const bodies[] = {
        "local t = {} for i = 1, 1e9 do t[i] = { i } end allow()",
        "allow() pcall(function() local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end "
        "end)",
    };
    struct ml_budget budget = ml_default_budget;
    struct world small;
    budget.memory = 1 << 20;
    budget.resume_cpu_ms = 5000;
    world_open_with(&small, &shared, budget);
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        struct ask a, b;
        struct ml_vm *vm = load_body(&small, bodies[i]);
        ask_open(&a);
        ask_start(&a, vm);
        assert_failed(&a, "error");
        assert_non_null(strstr(last_reason(&a), "memory"));
        assert_true(ml_vm_poisoned(vm));
        ask_open(&b);
        ask_start(&b, vm);
        assert_failed(&b, "error");
        ask_done(&a);
        ask_done(&b);
        ml_vm_unref(vm);
    }
    assert_int_equal(ml_script_stats(small.script).lua_bytes, 0);
    world_close(&small);
}

/* S-452: the state full after each few bytes more. No panic, no leak, no allow but a whole one. */
static void test_memory_sweep(void **state)
{
    struct world narrow;
    unsigned allowed = 0, denied = 0;
    world_open_with(&narrow, &shared, ml_default_budget);
    struct ml_vm *vm = load_body(
        &narrow, "local c = req:credential('X-Id-Token') local q = req.query.x\n"
                 "local s, t = host.begin('s', 'n', c)\n"
                 "local v = host.settle(t, 'accept', { sub = c, groups = { 'a', q } }, 0)\n"
                 "host.step(req, 'a', 'accept', v.sub .. "
                 "v.groups[2]) allow()");
    for (size_t room = 0; room < 40000; room += 24) {
        struct ask a;
        lua_gc(vm->L, LUA_GCCOLLECT);
        while (vm->pooled)
            ml_vm_release(vm, vm->pool[--vm->pooled].ref);
        lua_gc(vm->L, LUA_GCCOLLECT);
        narrow.script->options.budget.memory = vm->used + room;
        ask_open(&a);
        ask_start(&a, vm);
        assert_int_equal(a.done, 1);
        if (a.d.action == ML_ALLOW) {
            assert_int_equal(a.d.upstream_count, 2);
            assert_false(ml_vm_poisoned(vm));
        } else {
            assert_failed(&a, "error");
        }
        allowed += a.d.action == ML_ALLOW;
        denied += a.d.action == ML_DENY;
        ask_done(&a);
        vm->exhausted = vm->poisoned = false;
        narrow.script->options.budget.memory = ml_default_budget.memory;
    }
    assert_true(allowed > 10 && denied > 100);
    ml_vm_unref(vm);
    world_close(&narrow);
}

/* The same while loading. */
static void test_memory_sweep_loading(void **state)
{
    struct ml_budget budget = ml_default_budget;
    unsigned loaded = 0, refused = 0;
    for (budget.memory = 1000; budget.memory < 200000; budget.memory += 499) {
        struct world narrow;
        struct ml_buf report;
        ml_buf_init(&report, 65536);
        world_open_with(&narrow, &shared, budget);
        struct ml_vm *vm =
            load_text(&narrow,
                      "local plan = host.plan({ 'a' }, { 'set' })\n"
                      "return { name = 'x', headers = { 'a' }, providers = { 'p' },\n"
                      "tasks = { function() end }, decide = function() end }",
                      &report);
        loaded += vm != NULL;
        refused += vm == NULL;
        assert_true(vm || report.n > 0);
        ml_vm_unref(vm);
        assert_int_equal(ml_script_stats(narrow.script).lua_bytes, 0);
        world_close(&narrow);
        ml_buf_done(&report);
    }
    assert_true(loaded > 10 && refused > 80);
}

/* One block over its bound fails that request only. */
static void test_block(void **state)
{
    struct ask a;
    struct ml_vm *vm = load_body(
        &world, "local s = ('x'):rep(1000000) local ok = pcall(function() return s .. s end)\n"
                "if ok then error('joined') end allow()");
    ask_open(&a);
    ask_start(&a, vm);
    assert_int_equal(a.d.action, ML_ALLOW);
    assert_false(ml_vm_poisoned(vm));
    ask_done(&a);
    ml_vm_unref(vm);
}

static void test_loading_words(void **state)
{
    struct ask a;
    struct ml_vm *vm = load(
        &world,
        "assert(host.env('NAME') == 'value' and host.env('NONE') == nil)\n"
        "assert(tostring(host.secret('NAME')) == '<secret NAME>' and host.secret('NONE') == nil)\n"
        "assert(host.read_file('/dev/null') == nil and "
        "host.read_file('spec/c/script/lib/moonlatch/extra.lua'))\n"
        "local nothing, why = host.read_file('/nonexistent') assert(nothing == nil and "
        "why:find('/nonexistent', 1, true))\n"
        "assert(require_library('moonlatch.extra').answer == 42)\n"
        "assert(not pcall(require_library, 'moonlatch.circle') and not pcall(require_library, "
        "'../x'))\n"
        "assert(not pcall(require_library, 'moonlatch..x') and not pcall(require_library, "
        "'moonlatch.none'))\n"
        "assert(not pcall(host.fetch, { url = 'http://127.0.0.1:1/' }))\n"
        "assert(not pcall(host.begin, 's', 'n', 'c') and not pcall(host.sleep, 1))\n"
        "return { name = 'x', decide = function(req)\n"
        "for _, name in ipairs { 'env', 'secret', 'read_file', 'module', 'upstream', 'plan' } do\n"
        "local ok, why = pcall(host[name], 'NAME')\n"
        "if ok or not why:find('only while loading', 1, true) then error(name .. tostring(why)) "
        "end end\n"
        "host.deny(req, 403, 'denied', '') end }");
    assert_string_equal(ml_vm_name(vm), "x");
    assert_int_equal(ml_vm_generation(vm), 7);
    ask_open(&a);
    ask_start(&a, vm);
    assert_string_equal(last_reason(&a), "");
    assert_int_equal(a.d.status, 403);
    ask_done(&a);
    ml_vm_unref(vm);
}

static void test_log(void **state)
{
    struct ask a;
    ask_body(&world,
             "host.log('info', 'text', { a = 1, b = 2.5, c = true, d = 'x' })\n"
             "assert(not pcall(host.log, 'loud', 'x') and not pcall(host.log, 'info', {}))\n"
             "assert(not pcall(host.log, 'info', 'x', { ['a\"b'] = 1 }))\n"
             "assert(not pcall(host.log, 'info', 'x', { a = {} }))\n"
             "for i = 1, 100 do host.log('error', 'x') end assert(host.now() > 1e9) allow()",
             &a);
    assert_string_equal(last_reason(&a), "");
    assert_int_equal(a.d.action, ML_ALLOW);
    ask_done(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allow),         cmocka_unit_test(test_deny),
        cmocka_unit_test(test_no_allow),      cmocka_unit_test(test_caught),
        cmocka_unit_test(test_error_texts),   cmocka_unit_test(test_request_fields),
        cmocka_unit_test(test_stale_request), cmocka_unit_test(test_plan),
        cmocka_unit_test(test_memory),        cmocka_unit_test(test_block),
        cmocka_unit_test(test_loading_words), cmocka_unit_test(test_log),
        cmocka_unit_test(test_memory_sweep),  cmocka_unit_test(test_memory_sweep_loading),
    };
    struct CMUnitTest with_world[sizeof tests / sizeof tests[0]];
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
        with_world[i] = tests[i];
        with_world[i].setup_func = open_world;
        with_world[i].teardown_func = close_world;
    }
    return RUN_TWICE("decide", with_world);
}
