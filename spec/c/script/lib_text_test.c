/* base64, sha256, equals, url_*, utf8_ok; regex; secrets. */
#include "lua_run.h"

static void test_text(void **state)
{
    lua_State *L = *state;
    run(L, "assert(host.base64_encode('hello') == 'aGVsbG8=' and host.base64_encode('\\xff\\xfe', "
           "true) == '__4' and host.base64_encode('') == '')\n"
           "assert(host.base64_decode('aGVsbG8=') == 'hello' and host.base64_decode('__4', true) "
           "== '\\xff\\xfe' and host.base64_decode('') == '')\n"
           "for _, bad in ipairs{ 'a', 'aGVsbG8', 'aGVs bG8=', 'aGVsbG9=', '__4=' } do local v, "
           "why = host.base64_decode(bad); assert(v == nil and why == 'not base64', bad) end\n"
           "assert(select(2, host.base64_decode('+/', true)) == 'not base64url')\n"
           "assert(host.sha256('abc') == "
           "'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad')\n"
           "assert(host.equals('a\\0b', 'a\\0b') and not host.equals('a', 'b') and not "
           "host.equals('a', 'aa') and host.equals('', ''))\n"
           "assert(host.url_escape('a b/\\u{20AC}~') == 'a%20b%2F%E2%82%AC~' and "
           "host.url_escape('') == '')\n"
           "assert(host.utf8_ok('\\u{20AC}') and not host.utf8_ok('\\xff') and host.utf8_ok(''))\n"
           "local u = host.url_parse('https://Example.com:8443/a/b?c=d'); assert(u.scheme == "
           "'https' and u.port == 8443 and u.path == '/a/b' and u.query == 'c=d' and u.host)\n"
           "u = host.url_parse('http://h'); assert(u.port == nil and u.query == nil and u.host == "
           "'h')\n"
           "for _, bad in ipairs{ '', 'x', 'ftp://h/', 'http://u:p@h/', 'http:///x', "
           "'http://h:0x/', 'http://h/a b', 'http://h\\\\x' } do\n"
           "  local v, why = host.url_parse(bad); assert(v == nil and type(why) == 'string', bad) "
           "end");
    /* S-518 */
    run(L, "for _, name in ipairs{ 'base64_encode', 'base64_decode', 'sha256', 'equals', "
           "'url_escape', 'url_parse', 'utf8_ok', 'b64token', 'regex', 'json_decode', "
           "'yaml_decode' } do\n"
           "  for _, bad in ipairs{ {}, true, print, host.a_secret, host.readonly{}, host.sha256 } "
           "do\n"
           "    local ok, why = pcall(host[name], bad, bad); assert(not ok and "
           "why:find('expected'), name)\n"
           "  end\n"
           "  assert(not pcall(host[name]))\n"
           "end");
    run_fails(L, "host.base64_encode(('x'):rep(1000000))", "the text is too long");
    run_fails(L, "host.url_escape((' '):rep(400000))", "the text is too long");
    run(L, "local s = ('x'):rep(700000); assert(host.base64_decode(host.base64_encode(s)) == s)");
}

static void test_regex(void **state)
{
    lua_State *L = *state;
    run(L, "local r = host.regex('^(\\\\w+)@(\\\\w+)\\\\.com$')\n"
           "assert(r:test('alice@example.com') and not r:test('alice') and r:test('') == false)\n"
           "local user, domain = r:match('alice@example.com'); assert(user == 'alice' and domain "
           "== 'example' and r:match('x') == nil)\n"
           "assert(select('#', r:match('x')) == 1 and host.regex('b+'):match('abbc') == 'bb')\n"
           "assert(host.regex('(a)|(b)'):match('b') == nil and select(2, "
           "host.regex('(a)|(b)'):match('b')) == 'b')\n"
           "assert(host.regex('(\\\\d)(\\\\d)'):replace('12 34', '$2$1') == '21 43' and "
           "host.regex('x'):replace('abc', 'y') == 'abc')\n"
           "local bad, why = host.regex('('); assert(bad == nil and type(why) == 'string')\n"
           "assert(tostring(r) == 'userdata' and type(r) == 'userdata')");
    /* S-183, S-517: a limit raises, it is never "no match". */
    run_fails(L, "return host.regex('(a+)+$'):test(('a'):rep(8000) .. 'b')",
              "the regex is too complex for its subject");
    run_fails(L, "return host.regex('(a+)+$'):match(('a'):rep(8000) .. 'b')",
              "the regex is too complex for its subject");
    run_fails(L, "return host.regex('(a+)+$'):replace(('a'):rep(8000) .. 'b', '')",
              "the regex is too complex for its subject");
    run_fails(
        L, "return host.regex('(*LIMIT_MATCH=4000000000)(a+)+$'):test(('a'):rep(8000) .. 'b')", "");
    run(L, "for _, p in ipairs{ '\\\\C', '(*NO_JIT)a', ('a'):rep(5000) } do local r, why "
           "= host.regex(p); assert(r == nil and why, p) end");
    run_fails(L, "return host.regex('x'):test(('x'):rep(65537))", "too long for a regex");
    run_fails(L, "return host.regex('x'):test('\\xff')", "UTF-8");
    run_fails(L, "return host.regex('x'):replace(('x'):rep(60000), ('y'):rep(100))",
              "the result is too large");
    run_fails(L, "return host.regex('x').test(host.a_secret, 'x')", "regex expected");
    run_fails(L, "return host.regex('x').test('x', 'x')", "regex expected");
    run_fails(L, "return host.regex('x'):test()", "string expected");
    run_fails(L, "return host.regex('x'):replace('x')", "string expected");
    run_fails(L, "host.regex('x').y = 1", "attempt to index");
}

static void test_regex_count(void **state)
{
    lua_State *L = *state;
    run(L, "for i = 1, 500 do assert(host.regex('a')) end"); /* garbage */
    lua_gc(L, LUA_GCCOLLECT);
    lua_gc(L, LUA_GCSTOP);
    run(L, "for i = 1, 2000 do assert(host.regex('(') == nil) end"); /* failures do not count */
    run_fails(L, "for i = 1, 1001 do assert(host.regex('a')) end",
              "too many regexes (1000 at most)");
    lua_gc(L, LUA_GCRESTART);
    lua_settop(L, 0);
    lua_gc(L, LUA_GCCOLLECT);
    run(L, "assert(host.regex('a'):test('a'))");
}

static void test_secret(void **state)
{
    lua_State *L = *state;
    static const char *const joined =
        "a secret cannot be joined to other text; pass it to an option as it is";
    static const char *const refused =
        "a secret cannot be read or compared; pass it to an option as it is";
    run(L, "local s = host.a_secret\n"
           "assert(tostring(s) == '<secret API_KEY>' and ('%s'):format(s) == '<secret API_KEY>' "
           "and s == s and s ~= 'hunter2-hunter2' and type(s) == 'userdata')\n"
           "assert(not pcall(host.json_encode, s) and not pcall(host.sha256, s) and not "
           "pcall(next, s) and not pcall(table.concat, { s }))");
    static const char *const joins[] = {"return s .. 'x'", "return 'x' .. s", "return s .. s",
                                        "return 1 .. s"};
    static const char *const reads[] = {
        "return #s",
        "return s.x",
        "s.x = 1",
        "return s:sub(1)",
        "return s < 'x'",
        "return 'x' <= s",
        "return s[1]",
        "return s()",
        "for k in pairs(s) do end",
        "return s == host.regex('x')",
        "for i in ipairs(s) do end",
    };
    char code[128];
    for (size_t i = 0; i < sizeof joins / sizeof joins[0]; i++) {
        snprintf(code, sizeof code, "local s = host.a_secret; %s", joins[i]);
        run_fails(L, code, joined);
    }
    for (size_t i = 0; i < sizeof reads / sizeof reads[0]; i++) {
        snprintf(code, sizeof code, "local s = host.a_secret; %s", reads[i]);
        run_fails(L, code, refused);
    }
    run_fails(L, "return host.a_secret + 1", "attempt to perform arithmetic on a secret value");
}

static void test_secret_value(void **state)
{
    lua_State *L = *state;
    lua_settop(L, 0);
    ml_secret_push(L, "X", ml_str("a\0b", 3));
    struct ml_str v = ml_secret_value(L, 1);
    assert_true(v.n == 3 && memcmp(v.p, "a\0b", 4) == 0);
    char name[300];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    ml_secret_push(L, name, ml_str(NULL, 0));
    v = ml_secret_value(L, -1);
    assert_true(v.p && v.n == 0);
    lua_pushliteral(L, "text");
    assert_null(ml_secret_value(L, -1).p);
    lua_newuserdatauv(L, 1, 0);
    assert_null(ml_secret_value(L, -1).p);
    lua_getglobal(L, "io");
    assert_null(ml_secret_value(L, -1).p);
    assert_null(ml_secret_value(L, 50).p);
}

/* --- wiping: an allocator that looks at what is freed --- */

static bool leaked;

static void *watching(void *ud, void *p, size_t old, size_t n)
{
    if (n == 0) {
        leaked |= p && memmem(p, old, "hunter2-hunter2", 15) != NULL;
        free(p);
        return NULL;
    }
    return realloc(p, n);
}

static void test_secret_is_wiped(void **state)
{
    for (int collected = 0; collected < 2; collected++) {
        lua_State *L = lua_newstate(watching, NULL);
        leaked = false;
        lua_pushcfunction(L, run_open);
        assert_int_equal(lua_pcall(L, 0, 0, 0), LUA_OK);
        if (collected) {
            lua_pushnil(L);
            lua_setglobal(L, "host");
            lua_gc(L, LUA_GCCOLLECT);
        }
        lua_close(L);
        assert_false(leaked);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUN_TEST(test_text),   RUN_TEST(test_regex),        RUN_TEST(test_regex_count),
        RUN_TEST(test_secret), RUN_TEST(test_secret_value), cmocka_unit_test(test_secret_is_wiped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
