/* Every allocation fails once: over opening the libraries and a script that uses every function. No
 * crash, no leak (sanitizers look), and the state can be closed. */
#include "lua_run.h"

struct failing {
    long left;   /* allocations until one fails; negative: none does */
    long streak; /* how many fail then: Lua tries again after a collection */
    bool reached;
    size_t used; /* bytes that Lua holds */
};

static void *failing_alloc(void *ud, void *p, size_t old, size_t n)
{
    struct failing *f = ud;
    if (!p)
        old = 0;
    if (n == 0) {
        free(p);
        f->used -= old;
        return NULL;
    }
    if (n > old && f->left > 0)
        f->left--;
    else if (n > old && f->left == 0 && f->streak > 0) {
        f->reached = true;
        f->streak--;
        return NULL;
    }
    void *q = realloc(p, n);
    if (q)
        f->used += n - old;
    return q;
}

static const char script[] =
    "local env = host.base()\n"
    "local f = host.load_chunk('return ...', '=c', env); f(1); host.load_chunk('x =', '=c', env)\n"
    "local v = host.readonly{ 1, 2, a = { b = {} } }; local _ = v.a.b, #v, v == host.readonly(v), "
    "v.a == v.a\n"
    "for k, x in pairs(v) do type(x) end for i, x in ipairs(v) do end next(v); next({ 1 }); "
    "tostring(v)\n"
    "assert(not select(2, pcall(error, nil))); xpcall(error, function(e) return e .. '!' end, "
    "'x'); pcall(function() v.x = 1 end)\n"
    "tonumber('12'); tostring(1.5); type(v); select('#', 1); assert(true)\n"
    "pcall(function() string.x = 1 end)\n"
    "local s = ('hello world '):rep(20)\n"
    "s:find('o w'); s:find('(o) (w)'); s:match('()(%w+)'); s:gsub('%w+', '<%0>'); s:gsub('%w+', { "
    "hello = 'x' }); s:gsub('o', function(x) return x .. x end)\n"
    "for a, b in s:gmatch('(%w+) (%w+)') do end; s:byte(1, 5); string.char(65, 66); s:upper(); "
    "s:lower(); s:reverse(); s:sub(2, 9); s:len()\n"
    "; ('%s %d %q %5.2f %s %s'):format(s, 1, s, 2.5, {}, host.a_secret); pcall(string.format, "
    "'%p', "
    "1); pcall(string.find, ('a'):rep(99), '.-.-.-.-b')\n"
    "local t = { 3, 1, 2, 'x' }; table.concat(t, s); table.insert(t, 4); table.remove(t); t[4] = "
    "nil; table.sort(t); table.move(t, 1, 3, 2); table.unpack(t); table.pack(1, 2)\n"
    "pcall(table.insert, v, 1); pcall(table.concat, { {} })\n"
    "math.floor(2.5); utf8.len(s); utf8.char(8364); for p, c in utf8.codes('\\u{20AC}') do end\n"
    "local j = host.json_decode('{\"a\":[1,2.5,\"x\",[],{\"b\":null,\"c\":true}],\"long\":\"' .. s "
    ".. '\"}'); host.json_encode(j); host.json_decode('{'); host.json_decode('[null]')\n"
    "pcall(host.json_encode, { print = tostring }); host.json_encode(host.json_list{}); "
    "host.json_encode(v.a); host.yaml_decode('a: [1, {b: c}]'); host.yaml_decode('[')\n"
    "host.base64_decode(host.base64_encode(s)); host.base64_decode(host.base64_encode(s, true), "
    "true); host.base64_decode('?'); host.sha256(s); host.equals(s, s); host.url_escape(s)\n"
    "host.url_parse('https://h:1/p?q'); host.url_parse('x'); host.utf8_ok(s); host.printable({ s, "
    "s }, s)\n"
    "local r = host.regex('(h)(e)?'); r:test(s); r:match(s); r:replace(s, '$1'); host.regex('('); "
    "pcall(r.test, r, '\\xff')\n"
    "tostring(host.a_secret); pcall(function() return host.a_secret .. 'x' end)\n";

static int l_everything(lua_State *L)
{
    run_open(L);
    if (luaL_loadbufferx(L, script, sizeof script - 1, "=script", "t") != LUA_OK)
        return lua_error(L);
    lua_getglobal(L, "host");
    lua_getfield(L, -1, "base");
    lua_call(L, 0, 1);
    lua_insert(L, -2);
    lua_setfield(L, -2, "host");
    lua_setupvalue(L, -2, 1);
    lua_call(L, 0, 0);
    return 0;
}

/* Runs everything with the n-th allocation failing; true when that one was reached. */
static bool attempt(long n, long streak)
{
    struct failing f = {.left = -1, .streak = streak};
    lua_State *L = lua_newstate(failing_alloc, &f);
    assert_non_null(L);
    luaL_checkstack(L, 10, NULL);
    lua_pushcfunction(L, l_everything);
    f.left = n;
    int status = lua_pcall(L, 0, 0, 0);
    if (!f.reached && status != LUA_OK)
        fail_msg("%s", lua_tostring(L, -1));
    f.left = -1;
    lua_close(L);
    assert_int_equal(f.used, 0);
    return f.reached;
}

static void test_every_allocation(void **state)
{
    long n = 0;
    /* Two: the first error is the only one. Many: nothing works any more until the script gives up.
     */
    while (attempt(n, 2) && attempt(n, 1000000))
        n += n < 1000 ? 1 : 3;
    assert_in_range(n, 300, 100000);
    print_message("%ld allocations\n", n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_allocation)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
