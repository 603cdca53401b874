/* json_decode, json_encode, json_list, yaml_decode. */
#include "lua_run.h"

#include "base/clock.h"

static void test_decode(void **state)
{
    lua_State *L = *state;
    run(L, "local v = "
           "host.json_decode('{\"a\":1,\"b\":1.0,\"c\":null,\"d\":[1,\"x\",true,false,{}],\"e\":{"
           "\"f\":[]},\"g\":-9007199254740993}')\n"
           "assert(v.a == 1 and math.type(v.a) == 'integer' and math.type(v.b) == 'float' and v.c "
           "== nil and #v.d == 5)\n"
           "assert(v.d[2] == 'x' and v.d[3] == true and v.d[4] == false and next(v.d[5]) == nil "
           "and #v.e.f == 0 and v.g == -9007199254740993)\n"
           "assert(host.json_decode('null') == nil and host.json_decode('7') == 7 and "
           "host.json_decode('\"\\\\u20AC\"') == '\\u{20AC}')\n"
           "assert(host.json_decode('9223372036854775807') == math.maxinteger and "
           "host.json_decode('false') == false)\n"
           "local n = 0; for k in pairs(host.json_decode('{\"a\":null,\"b\":null,\"c\":1}')) do n "
           "= n + 1 end assert(n == 1)\n"
           "assert(select('#', host.json_decode('null')) == 1)");
    run(L, "for _, text in ipairs{ '', '{', '[1,]', '[1] x', '{\"a\":1,\"a\":2}', 'nul', "
           "'\"\\\\u0000\"', '[null]', '{\"a\":[1,null]}', '[{\"a\":[[null]]}]',\n"
           "    '\\xff', '\"\\xff\"', '1e999', '99999999999999999999', 'NaN', ('['):rep(65) .. "
           "(']'):rep(65), ('['):rep(100000), '{\"a\":tru', \"'a'\" } do\n"
           "  local v, why = host.json_decode(text)\n"
           "  assert(v == nil and type(why) == 'string' and #why > 0, text)\n"
           "end\n"
           "assert(select(2, host.json_decode('[null]')) == 'a list with a null in it')\n"
           "local secret = 'hunter2'; local _, why = host.json_decode('{\"a\":\"' .. secret .. "
           "'\", x}'); assert(not why:find(secret))\n"
           "local deep = host.json_decode(('['):rep(64) .. (']'):rep(64)); local n = 0\n"
           "while deep do n = n + 1; deep = deep[1] end assert(n == 64)");
    run_fails(L, "host.json_decode()", "string expected");
    run_fails(L, "host.json_decode({})", "string expected");
}

static void test_encode(void **state)
{
    lua_State *L = *state;
    run(L,
        "local e = host.json_encode\n"
        "assert(e(1) == '1' and e(-0.5) == '-0.5' and e(true) == 'true' and e('a\"\\n') == "
        "'\"a\\\\\"\\\\u000a\"' and e(nil) == 'null')\n"
        "assert(e{} == '{}' and e{ 1, 2, { 3 } } == '[1,2,[3]]' and e{ a = { b = 'c' } } == "
        "'{\"a\":{\"b\":\"c\"}}')\n"
        "assert(e(host.json_decode('[]')) == '[]' and e(host.json_decode('{\"a\":[],\"b\":{}}').a) "
        "== '[]' and e(host.json_list{}) == '[]')\n"
        "assert(e(host.json_list(host.json_list{})) == '[]' and e(host.json_list{ 1 }) == '[1]')\n"
        "local list = host.json_decode('[1]'); table.remove(list); assert(e(list) == '{}')\n"
        "list = host.json_list{ 1 }; table.remove(list); assert(e(list) == '[]' and #list == 0 and "
        "next(list) == nil)\n"
        "assert(e(host.readonly{ 1, { a = host.readonly{ 2 } } }) == '[1,{\"a\":[2]}]' and "
        "e(host.readonly(host.json_list{})) == '[]')\n"
        "assert(e(math.maxinteger) == '9223372036854775807' and "
        "math.type(host.json_decode(e(3.0))) == 'float')\n"
        "for _, x in ipairs{ 0.1, 1e300, -1e-300, 1/3, 2.0^53 } do assert(host.json_decode(e(x)) "
        "== x) end\n"
        "local text = '{\"a\":{\"b\":[1,2.5,\"x\",[],{\"c\":false}]}}'; "
        "assert(e(host.json_decode(text)) == text)\n"
        "local deep = {}; local at = deep; for i = 1, 31 do at[1] = {}; at = at[1] end "
        "assert(#e(deep) == 64)");
    static const char *const cases[][2] = {
        {"local t = {}; t.t = t; host.json_encode(t)", "too deep (a cycle?)"},
        {"local t = {}; t[1] = t; host.json_encode(t)", "too deep (a cycle?)"},
        {"local d = {}; local at = d; for i = 1, 32 do at[1] = {}; at = at[1] end "
         "host.json_encode(d)",
         "too deep"},
        {"local t = 1; for i = 1, 31 do t = { t, t } end host.json_encode(t)", "too large"},
        {"host.json_encode(('x'):rep(1 << 19) .. ('y'):rep(1 << 19))", "too large"},
        {"host.json_encode{ 1, tostring }", "JSON cannot hold a function"},
        {"host.json_encode(host.json_encode)", "JSON cannot hold a function"},
        {"host.json_encode{ a = host.a_secret }", "JSON cannot hold a userdata"},
        {"host.json_encode(0 / 0)", "JSON cannot hold NaN or infinity"},
        {"host.json_encode{ 1 / 0 }", "JSON cannot hold NaN or infinity"},
        {"host.json_encode{ 1, nil, 3 }", "holes"},
        {"host.json_encode{ 1, a = 2 }", "both items and names"},
        {"host.json_encode{ [2] = 1 }", "a number as a name"},
        {"host.json_encode{ [1.5] = 1 }", "a number as a name"},
        {"host.json_encode{ [true] = 1 }", "a boolean as a name"},
        {"host.json_encode(host.json_list{ a = 1 })", "both items and names"},
        {"host.json_encode()", "value expected"},
        {"host.json_list(1)", "table expected"},
        {"host.json_list(string)", "has a metatable"},
        {"host.json_list(host.readonly{})", "table expected"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        run_fails(L, cases[i][0], cases[i][1]);
    /* After a failure in the middle the next one is right. */
    run(L, "pcall(host.json_encode, { 1, 2, print }); assert(not pcall(host.json_encode, { 'x', 0 "
           "/ 0 })); assert(host.json_encode{ 1 } == '[1]')");
}

static void test_yaml(void **state)
{
    run(*state, "local v = host.yaml_decode('a: 1\\nb:\\n  - x\\n  - y: true\\nc: []\\n')\n"
                "assert(v.a == 1 and v.b[1] == 'x' and v.b[2].y == true and host.json_encode(v.c) "
                "== '[]')\n"
                "for _, text in ipairs{ 'a: &x 1\\nb: *x', 'a: [', '!!python/object:x {}', 'a: "
                "1\\n---\\nb: 2' } do\n"
                "  local v, why = host.yaml_decode(text); assert(v == nil and type(why) == "
                "'string', text)\n"
                "end");
    run_fails(*state, "host.yaml_decode(nil)", "string expected");
}

/* Random documents go there and back unchanged. */
static void test_round_trip(void **state)
{
    run(*state, "local seed = 7\n"
                "local function rnd(n) seed = (seed * 6364136223846793005 + 1442695040888963407); "
                "return (seed >> 33) % n end\n"
                "local function make(depth)\n"
                "  local kind = rnd(depth > 5 and 5 or 8)\n"
                "  if kind == 0 then return rnd(1000) - 500 elseif kind == 1 then return rnd(1000) "
                "/ 8 + 0.0 elseif kind == 2 then return rnd(2) == 0\n"
                "  elseif kind < 5 then local t = {}; for i = 1, rnd(8) do t[i] = "
                "string.char(rnd(126) + 1) end return table.concat(t)\n"
                "  elseif kind < 7 then local t = host.json_list{}; for i = 1, rnd(5) do t[i] = "
                "make(depth + 1) end return t\n"
                "  else local t = {}; for i = 1, rnd(5) do t['k' .. rnd(100)] = make(depth + 1) "
                "end return t end\n"
                "end\n"
                "local function equal(a, b)\n"
                "  if type(a) ~= 'table' then return a == b and math.type(a) == math.type(b) end\n"
                "  for k, v in pairs(a) do if not equal(v, b[k]) then return false end end\n"
                "  for k in pairs(b) do if a[k] == nil then return false end end\n"
                "  return (host.json_encode(a) == '[]') == (host.json_encode(b) == '[]')\n"
                "end\n"
                "for i = 1, 2000 do local v = make(0); local text = host.json_encode(v); "
                "assert(equal(v, host.json_decode(text)), text) end");
}

static int l_decode_many(lua_State *L)
{
    struct ml_str text;
    text.p = luaL_checklstring(L, 1, &text.n);
    for (int i = 0; i < 20000; i++) {
        assert_int_equal(ml_lua_push_json(L, text, NULL), 0);
        lua_pop(L, 1);
    }
    return 0;
}

/* Prints, judges nothing: machines differ. Of about 5 us in a plain build jansson takes four. */
static void test_speed(void **state)
{
    lua_State *L = *state;
    static const char claims[] =
        "{\"iss\":\"https://idp.example.com/realms/"
        "main\",\"sub\":\"f:8a2b1c3d:alice\",\"aud\":[\"kubeflow\",\"account\"],"
        "\"exp\":1764067200,\"iat\":1764063600,\"email\":\"alice@example.com\",\"email_verified\":"
        "true,\"name\":\"Alice Example\","
        "\"groups\":[\"admins\",\"ml-platform\",\"eu-west\"],\"preferred_username\":\"alice\","
        "\"jti\":null}";
    lua_pushcfunction(L, l_decode_many);
    lua_pushlstring(L, claims, sizeof claims - 1);
    uint64_t before = ml_thread_cpu_ns();
    assert_int_equal(lua_pcall(L, 1, 0, 0), LUA_OK);
    print_message("decode %zu bytes: %llu ns\n", sizeof claims - 1,
                  (unsigned long long)(ml_thread_cpu_ns() - before) / 20000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUN_TEST(test_decode),     RUN_TEST(test_encode), RUN_TEST(test_yaml),
        RUN_TEST(test_round_trip), RUN_TEST(test_speed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
