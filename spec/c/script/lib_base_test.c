/* The environment of policies: what is in it (S-501), that it cannot be changed or climbed out of,
 * pcall and xpcall, views, load_chunk. */
#include "lua_run.h"

#include <time.h>

/* --- S-501, S-182: everything reachable from base(), by any means that debug has --- */

/* spec/c/script/reachable.txt is the list; <up1> of a wrapped function is Lua's own of that name.
 * No policy reaches upvalues or metatables; they are listed to see that nothing else hides there.
 */
static void check_golden(const char *found)
{
    static char golden[16384];
    FILE *f = fopen("spec/c/script/reachable.txt", "r");
    assert_non_null(f);
    golden[fread(golden, 1, sizeof golden - 1, f)] = 0;
    fclose(f);
    if (strcmp(found, golden) != 0)
        fail_msg("reachable from host.base() now:\n%s", found);
}

static void test_reachable(void **state)
{
    lua_State *L = *state;
    assert_int_equal(luaL_loadfile(L, "spec/c/script/reachable.lua"), LUA_OK);
    luaL_requiref(L, "_G", luaopen_base,
                  1); /* the walker's own tools: of the test, not of the host */
    luaL_requiref(L, "table", luaopen_table, 1);
    lua_pop(L, 2);
    lua_getglobal(L, "host");
    lua_getfield(L, -1, "base");
    assert_int_equal(lua_pcall(L, 0, 1, 0), LUA_OK);
    lua_remove(L, -2);
    luaL_requiref(L, "debug", luaopen_debug, 0);
    if (lua_pcall(L, 2, 1, 0) != LUA_OK)
        fail_msg("%s", lua_tostring(L, -1));
    check_golden(lua_tostring(L, -1));
}

static void test_absent(void **state)
{
    run(*state, "for _, name in ipairs{'rawset', 'rawget', 'setmetatable', 'getmetatable', 'load',"
                " 'loadstring', 'dofile', 'loadfile', 'require', 'collectgarbage', 'print', 'io', "
                "'os', 'debug',"
                " 'package', 'coroutine', '_G', 'warn', 'rawequal'} do assert(_ENV[name] == nil, "
                "name) end\n"
                "assert(not string.dump and not string.pack and not string.unpack and not "
                "string.packsize)\n"
                "assert(not math.random and not math.randomseed)\n"
                "assert(not (''):find('x') and not ('').dump and not ('').pack)");
}

static void test_fresh(void **state)
{
    lua_State *L = *state;
    run(L, "x = 1; pairs = nil; string = nil; host.base().tostring = nil");
    run(L, "assert(x == nil and pairs and string.upper('a') == 'A' and host.base().tostring)");
    run(L, "assert(host.base() ~= host.base())"); /* S-507 */
    run(L, "_ENV = nil; local _ENV <const> = {}; x = 1");
}

/* S-181, S-509: nothing shared can be changed. */
static void test_libraries_are_read_only(void **state)
{
    lua_State *L = *state;
    run_fails(L, "string.upper = 1", "the library table 'string' is read-only");
    run_fails(L, "math.pi = 3", "the library table 'math' is read-only");
    run_fails(L, "utf8.x = 3", "the library table 'utf8' is read-only");
    run_fails(L, "table.insert(table, 1)", "this table is read-only");
    run_fails(L, "table.insert(string, 1, 1)", "this table is read-only");
    run_fails(L, "table.move({1}, 1, 1, 1, math)", "this table is read-only");
    run_fails(L, "table.sort(utf8)", "this table is read-only");
    run_fails(L, "table.remove(string)", "this table is read-only");
    run_fails(L, "local s = ''; s.upper = 1", "attempt to index a string value");
    run(L, "for k in pairs(string) do error(k) end; assert(next(string) == nil)");
    run(L, "assert(('x').upper == string.upper and ('x'):rep(3) == 'xxx')"); /* S-528 */
}

static void test_no_addresses(void **state)
{
    run(*state, "local all = { {}, print, string, string.find, function() end, host.a_secret, "
                "host.regex('a'), host.readonly{} }\n"
                "for _, v in pairs(all) do\n"
                "  for _, text in ipairs{ tostring(v), string.format('%s|%10s|%.20s', v, v, v), "
                "('%s'):format(v) } do\n"
                "    assert(not text:find('0x') and not text:find('%d%d%d%d'), text)\n"
                "  end\n"
                "  for _, f in ipairs{ function() return v .. 'x' end, function() return v < v "
                "end, function() return #v.x.y end,\n"
                "      function() return v() end, function() error(v) end, function() return "
                "('x'):rep(v) end,\n"
                "      function() return table.concat{ v } end, function() return ('x'):gsub('x', "
                "function() return v end) end } do\n"
                "    local ok, why = pcall(f)\n"
                "    assert(not tostring(why):find('0x'), tostring(why))\n"
                "  end\n"
                "end\n"
                "assert(tostring({}) == 'table' and tostring(string.find) == 'function' and "
                "tostring(nil) == 'nil')\n"
                "assert(tostring(1) == '1' and tostring(1.0) == '1.0' and tostring('x') == 'x' and "
                "tostring(true) == 'true')");
    run_fails(*state, "return ('%p'):format({})", "invalid conversion '%p' to 'format'");
    run_fails(*state, "return ('%d %5.2p'):format(1, {})", "invalid conversion '%p' to 'format'");
}

/* --- pcall, xpcall --- */

static void test_pcall(void **state)
{
    lua_State *L = *state;
    run(L, "local function check(...) assert(select('#', ...) == 4); return ... end\n"
           "local ok, a, b, c = check(pcall(function(...) return ... end, 1, nil, 3)); assert(ok "
           "and a == 1 and b == nil and c == 3)\n"
           "local t = {}; ok, a = pcall(error, t); assert(not ok and a == t)\n"
           "ok, a = pcall(error); assert(not ok and a == nil)\n"
           "ok, a = pcall(error, false); assert(not ok and a == false)\n"
           "ok, a = pcall(error, ('xx'):rep(1 << 19)); assert(not ok and #a == 1 << 20)\n"
           "ok, a = pcall(nil); assert(not ok and a:find('attempt to call a nil'))\n"
           "ok, a = pcall(pcall); assert(not ok)\n"
           "assert(select('#', pcall(function() end)) == 1)");
    run(L, "local ok, a, b = xpcall(function(...) return ... end, error, 1, 2); assert(ok and a == "
           "1 and b == 2)\n"
           "ok, a, b = xpcall(error, function(e) return e .. '!', 'dropped' end, 'x', 0); "
           "assert(not ok and a == 'x!' and b == nil)\n"
           "ok, a = xpcall(error, function(e) error('again ' .. e, 0) end, 'x', 0); assert(not ok "
           "and a == 'again x')\n"
           "ok, a = xpcall(error, function() end, 'x'); assert(not ok and a == nil)\n"
           "ok, a = pcall(xpcall, function() end, nil); assert(not ok and a:find('function "
           "expected'))\n"
           "assert(select('#', xpcall(function() end, error)) == 1)");
    /* S-504: down to the limit of C calls and back. */
    run(L, "local depth, ok, why = 0, true\n"
           "local function f() depth = depth + 1; local ok2, why2 = pcall(f); if not ok2 then why "
           "= why or why2 end end\n"
           "f(); assert(depth > 100 and why:find('overflow'), why)");
    run(L, "local function f() return xpcall(f, f) end; f()");
}

static int l_kill(lua_State *L)
{
    killed = true;
    return luaL_error(L, "budget used up");
}

/* S-503: neither swallows the budget's error, nor does a handler. */
static void test_killed(void **state)
{
    lua_State *L = *state;
    static const char *const codes[] = {
        "pcall(host.kill); host.after = true",
        "pcall(pcall, pcall, host.kill); host.after = true",
        "xpcall(host.kill, function() host.after = true end); host.after = true",
        "xpcall(error, function() host.kill() end); host.after = true",
        "xpcall(error, host.kill); host.after = true",
        "for i = 1, 1000 do pcall(function() xpcall(host.kill, error) end) end host.after = true",
    };
    lua_getglobal(L, "host");
    lua_pushcfunction(L, l_kill);
    lua_setfield(L, -2, "kill");
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        killed = false;
        run_fails(L, codes[i], "budget used up");
        lua_getglobal(L, "host");
        lua_getfield(L, -1, "after");
        assert_true(lua_isnil(L, -1));
    }
}

static int k_wait(lua_State *L, int status, lua_KContext ctx)
{
    return lua_gettop(L);
}

static int l_wait(lua_State *L)
{
    return lua_yieldk(L, 0, 0, k_wait);
}

static lua_State *start(lua_State *L, const char *code)
{
    lua_settop(L, 0);
    lua_State *T = lua_newthread(L);
    assert_int_equal(luaL_loadstring(T, code), LUA_OK);
    run_env(T);
    lua_setupvalue(T, -2, 1);
    return T;
}

/* Waits inside pcall, xpcall and its handler go on afterwards, and errors after a wait are caught.
 */
static void test_wait_in_pcall(void **state)
{
    lua_State *L = *state;
    int n;
    lua_getglobal(L, "host");
    lua_pushcfunction(L, l_wait);
    lua_setfield(L, -2, "wait");
    lua_State *T =
        start(L, "local ok, v = pcall(function() host.wait(); return 'a' end)\n"
                 "local ok2, w = pcall(function() host.wait(); error('b', 0) end)\n"
                 "local ok3, x = xpcall(function() host.wait(); error('c', 0) end, function(e) "
                 "host.wait(); return e .. '!' end)\n"
                 "local ok4, y = xpcall(function() host.wait(); return 'd' end, error)\n"
                 "local ok5, z = xpcall(error, function(e) host.wait(); error('e', 0) end)\n"
                 "assert(ok and v == 'a'); assert(not ok2 and w == 'b', w); assert(not ok3 and x "
                 "== 'c!', x)\n"
                 "assert(ok4 and y == 'd'); assert(not ok5 and z == 'e', z)");
    int waits = 0, r;
    while ((r = lua_resume(T, NULL, 0, &n)) == LUA_YIELD) {
        lua_pop(T, n);
        waits++;
    }
    if (r != LUA_OK)
        fail_msg("%s", lua_tostring(T, -1));
    assert_int_equal(waits, 6);
    /* Killed while it waited. */
    T = start(L, "pcall(function() host.wait(); error('x') end); host.after = true");
    assert_int_equal(lua_resume(T, NULL, 0, &n), LUA_YIELD);
    killed = true;
    assert_int_not_equal(lua_resume(T, NULL, 0, &n), LUA_OK); /* given up, or an error */
    lua_getglobal(L, "host");
    lua_getfield(L, -1, "after");
    assert_true(lua_isnil(L, -1));
}

static void count_hook(lua_State *L, lua_Debug *ar)
{
    killed = true;
    luaL_error(L, "budget used up");
}

/* A handler that loops is under the hook, unlike Lua's own. */
static void test_handler_has_hooks(void **state)
{
    lua_State *L = *state;
    lua_sethook(L, count_hook, LUA_MASKCOUNT, 100000);
    run_fails(L, "xpcall(error, function() while true do end end)", "budget used up");
    lua_sethook(L, NULL, 0, 0);
}

/* --- views --- */

static void test_readonly(void **state)
{
    lua_State *L = *state;
    run(L, "local inner = { 1, 2, 3, x = { y = 'deep' } }\n"
           "local v = host.readonly{ a = 1, b = inner, c = false, 'one', 'two' }\n"
           "assert(type(v) == 'table' and type(v.b) == 'table' and type(v.b.x) == 'table')\n"
           "assert(v.a == 1 and v.c == false and v.nope == nil and v.b.x.y == 'deep' and #v == 2 "
           "and #v.b == 3)\n"
           "assert(v.b == v.b and v ~= v.b and v.b ~= inner and host.readonly(v) == v)\n"
           "local n = 0; for k, x in pairs(v) do n = n + 1; assert(x == v[k]) end assert(n == 5)\n"
           "n = 0; for i, x in ipairs(v.b) do n = n + i; assert(x == i) end assert(n == 6)\n"
           "local k, x = next(v); assert(k ~= nil and v[k] == x)\n"
           "n = 0; k = nil; repeat k = next(v, k); n = n + 1 until k == nil; assert(n == 6)\n"
           "assert(table.concat(v, ',') == 'one,two' and select(3, table.unpack(v.b)) == 3)\n"
           "assert(select('#', table.unpack(host.readonly{ {}, {} })) == 2)\n"
           "local copy = table.move(v.b, 1, 3, 1, {}); assert(copy[3] == 3)\n"
           "assert(('one'):gsub('%w+', host.readonly{ one = 'two' }) == 'two')\n"
           "assert(tostring(v) == 'table' and ('%s'):format(v) == 'table')\n"
           "assert(next(host.readonly{}) == nil and #host.readonly{} == 0)\n"
           "local key = {}; local w = host.readonly{ [key] = 1 }; local vk = next(w)\n"
           "assert(vk ~= key and w[key] == 1 and w[vk] == 1 and next(w, vk) == nil)");
    static const char *const writes[] = {
        "v.a = 2",
        "v.new = 1",
        "v.b[1] = 0",
        "v.b.x.y = 1",
        "table.insert(v, 1)",
        "table.insert(v.b, 1, 1)",
        "table.remove(v)",
        "table.sort(v.b)",
        "table.move(v.b, 1, 2, 2)",
        "table.move({ 1 }, 1, 1, 1, v)",
        "for _, x in pairs(v) do if type(x) == 'table' then x.z = 1 end end",
        "for _, x in ipairs{ table.unpack(v) } do if type(x) == 'table' then x.z = 1 end end",
        "local t = table.move(v, 1, 3, 1, {}); t[3].z = 1",
        "local k, x = next(v, 2); x.z = 1",
    };
    char code[512];
    for (size_t i = 0; i < sizeof writes / sizeof writes[0]; i++) {
        snprintf(code, sizeof code,
                 "local v = host.readonly{ 'one', 'two', { 1 }, a = 1, b = { 3, 2, x = {} } }\n%s",
                 writes[i]);
        run_fails(L, code, "this table is read-only");
    }
    run_fails(L, "next(host.a_secret)", "table expected");
    run_fails(L, "next(host.readonly{}, 'x')", "invalid key to 'next'");
    run_fails(L, "host.readonly(1)", "table expected");
    run_fails(L, "local v = host.readonly{}; return v()", "attempt to call a table value");
    run_fails(L, "return host.readonly{} .. 'x'", "attempt to concatenate a table value");
}

/* --- load_chunk --- */

static int write_chunk(lua_State *L, const void *p, size_t n, void *b)
{
    luaL_addlstring(b, p, n);
    return 0;
}

/* S-510: good bytecode, too. */
static void test_bytecode(void **state)
{
    lua_State *L = *state;
    luaL_Buffer b;
    lua_getglobal(L, "host");
    lua_getfield(L, -1, "load_chunk");
    luaL_buffinit(L, &b);
    assert_int_equal(luaL_loadstring(L, "return 1"), LUA_OK);
    assert_int_equal(lua_dump(L, write_chunk, &b, 1), 0);
    lua_pop(L, 1);
    luaL_pushresult(&b);
    lua_pushliteral(L, "=b");
    lua_newtable(L);
    assert_int_equal(lua_pcall(L, 3, 2, 0), LUA_OK);
    assert_true(lua_isnil(L, -2));
    assert_non_null(strstr(lua_tostring(L, -1), "binary chunk"));
}

static void test_load_chunk(void **state)
{
    lua_State *L = *state;
    run(L,
        "local env = { y = 2 }\n"
        "local f = host.load_chunk('x = y; return ...', '@a.lua', env); assert(f(7) == 7 and "
        "env.x == 2 and x == nil)\n"
        "local f, why = host.load_chunk('x = = 1', '@a.lua', env); assert(f == nil and "
        "why:find('^a.lua:1:'), why)\n"
        "f = host.load_chunk('return _ENV', '=e', env); assert(f() == env)\n"
        "for _, source in ipairs{ '\\27Lua', '\\27LuaS\\0', '\\xEF\\xBB\\xBF\\27Lua', "
        "'#!/usr/bin/lua\\n\\27Lua', '\\27' } do\n"
        "  local f, why = host.load_chunk(source, '=b', {}); assert(f == nil and type(why) == "
        "'string', source)\n"
        "end\n"
        "f, why = host.load_chunk(('  '):rep(1 << 19), '=b', {}); assert(f)\n"
        "assert(not host.load_chunk(('('):rep(300) .. '1' .. (')'):rep(300), '=b', {}))\n" /* S-511
                                                                                            */
        "assert(not host.load_chunk('return [[', '=b', {})); assert(not host.load_chunk('return "
        "\"\\\\u{110000000}\"', '=b', {}))\n"
        "assert(not host.load_chunk('goto x; local a; ::x:: a = 1', '=b', {}))");
    run_fails(L, "host.load_chunk('x', '=b')", "table expected");
    run_fails(L, "host.load_chunk({}, '=b', {})", "string expected");
    run_fails(L, "host.load_chunk('', '=b', 1)", "table expected");
    /* 1 MiB and a byte; Lua's own strings can hold it here, the allocator of the VM stops it a
     * little later. */
    lua_settop(L, 0);
    lua_getglobal(L, "host");
    lua_getfield(L, -1, "load_chunk");
    char *source = malloc((1 << 20) + 1);
    memset(source, ' ', (1 << 20) + 1);
    lua_pushlstring(L, source, (1 << 20) + 1);
    free(source);
    lua_pushliteral(L, "=b");
    lua_newtable(L);
    assert_int_equal(lua_pcall(L, 3, 2, 0), LUA_OK);
    assert_true(lua_isnil(L, -2));
    assert_non_null(strstr(lua_tostring(L, -1), "over 1 MiB"));
}

/* S-506, S-530: traps of the language end in an error or a bounded result. */
static void test_language_traps(void **state)
{
    lua_State *L = *state;
    static const char *const fail[] = {
        "return 1 // 0",
        "return 1 % 0",
        "local t = {}; t[0/0] = 1",
        "local t = {}; t[nil] = 1",
        "for i = 1, 10, 0 do end",
        "return ('x'):rep(2^53)",
        "return 1 < 'x'",
        "return 2^63 | 0",

        "assert(false)",
        "assert(nil, 'why')",
        "assert()",
        "select(0)",
        "select(-1)",
        "return ('x'):rep(1e308)",
        "local t = {}; t.x.y = 1",
        "return #5",
        "return -{}",
        "setmetatable({}, { __gc = 1 })",
        "getmetatable('').__index = 1",
        "debug.sethook()",
        "return ('x').y.z",
        "math.floor('x')",
        "tonumber('10', 99)",
        "tonumber()",
        "ipairs()",
        "for k in pairs(nil) do end",
        "pairs(host.a_secret)",
        "type()",
        "tostring()",
        "next({}, 'no')",
        "next(1)",
    };
    for (size_t i = 0; i < sizeof fail / sizeof fail[0]; i++)
        if (!run_error(L, fail[i]))
            fail_msg("no error: %s", fail[i]);
    run(L, "assert(1 << 64 == 0 and math.mininteger // -1 == math.mininteger and math.mininteger % "
           "-1 == 0)\n"
           "assert(tonumber('1,5') == nil and tonumber('0x10') == 16 and tonumber('z', 36) == 35 "
           "and tonumber(' 7 ') == 7)\n" /* S-529 */
           "assert(tonumber(('1'):rep(1001)) == nil and tonumber(('1'):rep(1000)) and tonumber('') "
           "== nil and tonumber(5) == 5)\n"
           "assert('10' + 5 == 15 and '3' * '4' == 12)\n"
           "assert(math.max(1, 2) == 2 and math.huge > math.maxinteger and math.ult(1, -1) and "
           "math.type(1) == 'integer')\n"
           "assert(utf8.char(8364) == '\\u{20AC}' and utf8.len('\\u{20AC}') == 1 and "
           "utf8.codepoint('a') == 97)\n"
           "local n = 0; for p, c in utf8.codes('a\\u{20AC}') do n = n + c end assert(n == 97 + "
           "8364)");
    run_fails(L, "utf8.len(('x'):rep(65537))", "over 64 KiB");
    run_fails(L, "utf8.codes(('x'):rep(65537))", "over 64 KiB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUN_TEST(test_reachable),
        RUN_TEST(test_absent),
        RUN_TEST(test_fresh),
        RUN_TEST(test_libraries_are_read_only),
        RUN_TEST(test_no_addresses),
        RUN_TEST(test_pcall),
        RUN_TEST(test_killed),
        RUN_TEST(test_wait_in_pcall),
        RUN_TEST(test_handler_has_hooks),
        RUN_TEST(test_readonly),
        RUN_TEST(test_bytecode),
        RUN_TEST(test_load_chunk),
        RUN_TEST(test_language_traps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
