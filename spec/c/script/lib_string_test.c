/* string and table: bounds of every function, the matcher's budget (S-515), and a comparison with
 * Lua's own libraries over random inputs (S-516). */
#include "lua_run.h"

#include <time.h>

enum { PATTERNS = 100000 };

static void test_functions(void **state)
{
    run(*state,
        "assert(('hello'):find('l') == 3 and select(2, ('hello'):find('l+')) == 4)\n"
        "assert(('a.b'):find('.', 1, true) == 2 and ('aab'):find('b', -1) == 3 and ('x'):find('', "
        "10) == nil and ('x'):find('', 2) == 2)\n"
        "assert(('k = v'):match('^(%w+)%s*=%s*(%w+)$') == 'k' and ('x'):match('()') == 1 and "
        "('abc'):match('b', -2) == 'b')\n"
        "local t = {}; for k, v in ('a=1, b=2'):gmatch('(%w)=(%w)') do t[k] = v end assert(t.a == "
        "'1' and t.b == '2')\n"
        "local n = 0; for w in ('one two three'):gmatch('%a+') do n = n + 1 end assert(n == 3)\n"
        "assert(('hello world'):gsub('o', '0') == 'hell0 w0rld' and select(2, ('hello'):gsub('', "
        "'-')) == 6)\n"
        "assert(('abc'):gsub('%w', '%0%0', 2) == 'aabbc' and ('abc'):gsub('b', { b = 'X' }) == "
        "'aXc' and ('abc'):gsub('b', function() end) == 'abc')\n"
        "assert(('THE (quick) fox'):find('%((%a+)%)') == 5 and ('THE (quick) fox'):match('%b()') "
        "== '(quick)' and ('THE fox'):gsub('%f[%a]%a+', 'w') == 'w w')\n"
        "assert(('%5.1f|%-3d|%03d|%s|%q|%x|%g|%c|%i|%%'):format(1.25, 7, 7, true, 'a\\n', 255, "
        "0.5, 65, 3) == '  1.2|7  |007|true|\"a\\\\\\n\"|ff|0.5|A|3|%')\n"
        "assert(('%10s|%-5s|%.2s'):format('ab', 'c', 'def') == '        ab|c    |de' and "
        "('%s'):format(nil) == 'nil' and ('%s %s'):format(1, 1.0) == '1 1.0')\n"
        "assert(('ab'):rep(3, ',') == 'ab,ab,ab' and ('x'):rep(0) == '' and ('x'):rep(-1) == '' "
        "and (''):rep(1000) == '')\n"
        "assert(('abc'):byte(-1) == 99 and string.char(97, 98) == 'ab' and ('Ab'):lower() == 'ab' "
        "and ('ab'):reverse() == 'ba' and ('abc'):sub(2) == 'bc' and #'abc' == ('abc'):len())");
    run(*state, "assert(table.concat({ 1, 2.5, 'x' }, ', ') == '1, 2.5, x' and table.concat({}) == "
                "'' and table.concat({ 'a', 'b', 'c' }, '-', 2, 3) == 'b-c')\n"
                "local t = { 1, 3 }; table.insert(t, 2, 2); table.insert(t, 4); "
                "assert(table.concat(t, '') == '1234')\n"
                "assert(table.remove(t) == 4 and table.remove(t, 1) == 1 and #t == 2 and "
                "table.remove({}) == nil)\n"
                "local m = table.move({ 1, 2, 3 }, 2, 3, 1); assert(m[1] == 2 and m[2] == 3)\n"
                "t = { 3, 1, 2 }; table.sort(t); assert(t[1] == 1 and t[3] == 3); table.sort(t, "
                "function(a, b) return a > b end); assert(t[1] == 3)\n"
                "assert(table.pack(1, nil, 3).n == 3 and select('#', table.unpack({ 1, 2, 3 }, 2)) "
                "== 2 and select('#', table.unpack({}, 1, 3)) == 3)\n"
                "assert(table.concat({ 'a' }, 'x', math.maxinteger, math.maxinteger - 1) == '')");
}

static void test_bounds(void **state)
{
    static const char *const cases[][2] = {
        {"('x'):rep(1 << 20 | 1)", "resulting string too large"},
        {"('x'):rep(1 << 62)", "resulting string too large"},
        {"(''):rep(1 << 60)", "resulting string too large"},
        {"(''):rep(1000001)", "resulting string too large"},
        {"('x'):rep(1000, ('y'):rep(2000))", "resulting string too large"},
        {"(''):rep(math.maxinteger, 'y')", "resulting string too large"},
        {"('x'):rep(65537):find('[x]')", "too long for a pattern"},
        {"('x'):rep(65537):match('x')", "too long for a pattern"},
        {"('x'):rep(65537):gmatch('x')", "too long for a pattern"},
        {"('x'):rep(65537):gsub('x', '')", "too long for a pattern"},
        {"('x'):find(('a?'):rep(129))", "the pattern is too long"},
        {"('x'):match(('('):rep(33))", "too many captures"},
        {"('x'):rep(60000):gsub('x', ('y'):rep(100))", "the result is too large"},
        {"('x'):rep(60000):gsub('x', '%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0')",
         "the result is too large"},
        {"('x'):rep(60000):gsub('x', function() return ('y'):rep(100) end)",
         "the result is too large"},
        {"('x'):rep(60000):gsub('.', { x = ('y'):rep(100) })", "the result is too large"},
        {"('%s%s'):format(('x'):rep(600000), ('x'):rep(600000))", "the result is too large"},
        {"('%q'):format(('x'):rep(600000))", "the result is too large"},
        {"('%100d'):format(1)", "invalid conversion"},
        {"('%d'):format()", "no value"},
        {"('%y'):format(1)", "invalid conversion"},
        {"('%'):format(1)", "invalid conversion"},
        {"('%q'):format({})", "value has no literal form"},
        {"table.concat({}, '', 1, 1 << 62)", "too many items"},
        {"table.concat({}, '', math.mininteger, math.maxinteger)", "too many items"},
        {"table.concat({ 1, {} })", "invalid value (table) at index 2 in table for 'concat'"},
        {"local s = ('x'):rep(600000); table.concat({ s, s })", "the result is too large"},
        {"table.unpack({}, 1, 1 << 62)", "too many items"},
        {"table.unpack({}, math.mininteger, math.maxinteger)", "too many items"},
        {"table.unpack({}, 1, 100001)", "too many items"},
        {"table.move({}, 1, 1 << 62, 2)", "too many items"},
        {"table.move({}, 1, 100001, 2)", "too many items"},
        {"table.insert(huge, 1, 1)", "too many items"},
        {"table.insert(huge, '1', 1)", "too many items"},
        {"table.remove(huge, 1)", "too many items"},
        {"table.sort(huge)", "too many items"},
        {"table.concat(huge)", "too many items"},
        {"table.unpack(huge)", "too many items"},
        {"local t = {}; for i = 1, 10001 do t[i] = i end; table.sort(t)", "too many items"},
        {"local s = ('x'):rep(1000); local t = {}; for i = 1, 2000 do t[i] = s end; table.sort(t)",
         "too much text"},
        {"table.sort({ 3, 2, 1, 4 }, function() error('stop', 0) end)", "stop"},
        {"table.sort({ 1, 'x' })", "attempt to compare"},
        {"table.insert({}, 5, 1)", "position out of bounds"},
        {"table.insert({}, 1, 1, 1)", "wrong number of arguments"},
        {"table.insert('x', 1)", "table expected"},
        {"table.concat(host.a_secret)", "table expected"},
        {"('x'):gsub('x', true)", "string/function/table expected"},
        {"('x'):gsub('x', host.a_secret)", "string/function/table expected"},
        {"('x'):gsub('x', function() return {} end)", "invalid replacement value (a table)"},
        {"('x'):gsub('x', '%')", "invalid use of '%' in replacement string"},
        {"('x'):gsub('x', '%2')", "invalid capture index %2"},
    };
    /* A table made with its keys in the hash part: 2^62 is a border of it, so # is that large. */
    static const char prelude[] =
        "local t = {}; for i = 0, 62 do t[#t + 1] = ('[1 << %d] = 1'):format(i) end\n"
        "local huge = host.load_chunk('return {' .. table.concat(t, ',') .. '}', '=t', {})()\n"
        "assert(#huge >= 1 << 40)\n";
    char code[1024];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        snprintf(code, sizeof code, "%s%s%s", prelude, cases[i][0][0] == '(' ? "local _ = " : "",
                 cases[i][0]);
        run_fails(*state, code, cases[i][1]);
    }
}

/* --- the budget --- */

static uint64_t cpu_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* S-515: 5 ms. Sanitizers make the matcher some ten times slower. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { COMPLEX_US = 100000 };
#else
enum { COMPLEX_US = 5000 };
#endif

static void test_complex_patterns(void **state)
{
    static const char *const complex[] = {
        "('a'):rep(30000):find('.-.-.-.-b')",
        "('a'):rep(400):find('.-.-.-b')",
        "('a'):rep(250):find('.-.-.-b')",
        "(' '):rep(8192):find('%s*$x')",
        "('x/'):rep(4096):find('(.-)/(.-)/b')",
        "('a'):rep(800):find('^(a-)(a-)(a-)b$')",
        "('a'):rep(300):match(('a*'):rep(120) .. 'b')",
        "('a'):rep(300):gsub(('a?'):rep(120) .. 'b', '')",
        "('('):rep(60000):find('%b()')",
        "('a'):rep(60000):find('(a*)%1b')",
        "('a'):rep(60000):find('[^' .. ('b'):rep(250) .. ']-c')",
        "('ab'):rep(30000):gsub('%f[' .. ('x'):rep(240) .. ']', '')",
        "for _ in ('a'):rep(400):gmatch('.-.-.-b') do end",
        "('a'):rep(60000):find('a-[' .. ('b'):rep(250) .. ']')",
        "('a'):rep(60000):find('.*[' .. ('b'):rep(250) .. ']')",
        "('a'):rep(64):find('(.*)(.*)(.*)(.*)(.*)(.*)%1%2%3%4%5%6b')",
    };
    char code[256];
    for (size_t i = 0; i < sizeof complex / sizeof complex[0]; i++) {
        snprintf(code, sizeof code, "%s%s", complex[i][0] == '(' ? "local _ = " : "", complex[i]);
        uint64_t before = cpu_us();
        run_fails(*state, code, "this pattern is too complex for its subject; use regex");
        uint64_t took = cpu_us() - before;
        if (took > COMPLEX_US)
            fail_msg("%llu us: %s", (unsigned long long)took, complex[i]);
    }
}

/* What policies do with long texts is within the budget. */
static void test_simple_patterns(void **state)
{
    run(*state, "local long = ('x'):rep(65536)\n"
                "assert(not long:find('y') and not long:find('[y]') and long:match('^x*$') and "
                "('x'):rep(40000):find('x$') == 40000)\n"
                "assert(('a,'):rep(10000):gsub(',', ';'))\n"
                "local n = 0; for w in ('word '):rep(5000):gmatch('%w+') do n = n + 1 end assert(n "
                "== 5000)\n"
                "assert(('x'):rep(30000):match('^(x-)$'))\n"
                "assert((' '):rep(8192):match('^%s*(.-)%s*$') == '')\n"
                "assert(('x'):rep(1 << 19):find('xy', 1, true) == nil and ('x'):rep(1 << "
                "19):find('y') == nil)");
}

/* --- S-516: the same results and errors as Lua's own --- */

static uint64_t seed = 88172645463325252u;

static unsigned random_below(unsigned n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)(seed >> 11) % n;
}

static void push_pieces(lua_State *L, const char *const *pieces, unsigned count, unsigned max)
{
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    for (unsigned n = random_below(max + 1); n > 0; n--) {
        const char *piece = pieces[random_below(count)];
        if (*piece)
            luaL_addstring(&b, piece);
        else
            luaL_addchar(&b, '\0');
    }
    luaL_pushresult(&b);
}

static void push_subject(lua_State *L)
{
    static const char *const pieces[] = {"a",  "b", "c", "A", "1",   "2", " ",  "(",
                                         ")",  "[", "]", "%", "-",   ".", "ab", "\xe9",
                                         "\t", "^", "$", "",  "aaa", "_"};
    push_pieces(L, pieces, sizeof pieces / sizeof *pieces, 12);
}

static void push_pattern(lua_State *L)
{
    static const char *const pieces[] = {
        "a",   "b",   "c",  ".",  "%a",    "%d",   "%s",          "%w",    "%A",      "%S",
        "%p",  "%c",  "%x", "%u", "%l",    "%g",   "%z",          "%%",    "%.",      "%(",
        "(",   ")",   "()", "(a", "b)",    "*",    "+",           "-",     "?",       "^",
        "$",   "%1",  "%2", "%0", "%9",    "%b()", "%bab",        "%f[a]", "%f[^%w]", "%f",
        "%b",  "%",   "[",  "]",  "[a-c]", "[^a]", "[]]",         "[^]a]", "[%]]",    "[%a-]",
        "[a-", "-z]", "[%", "[^", "",      "\xe9", "[\x80-\xff]", "[a-%%]"};
    push_pieces(L, pieces, sizeof pieces / sizeof *pieces, 6);
}

static void push_replacement(lua_State *L)
{
    static const char *const pieces[] = {"x", "%0", "%1", "%2", "%%", "%", "%a", "yy", ""};
    push_pieces(L, pieces, sizeof pieces / sizeof *pieces, 3);
}

/* Calls library[name] with the n values on top, which stay; leaves ok and its results as one table.
 */
static int call(lua_State *L, int library, const char *name, int n)
{
    int base = lua_gettop(L) - n;
    lua_getfield(L, library, name);
    for (int i = 1; i <= n; i++)
        lua_pushvalue(L, base + i);
    int ok = lua_pcall(L, n, LUA_MULTRET, 0);
    int results = lua_gettop(L) - base - n;
    lua_createtable(L, results, 0);
    for (int i = 1; i <= results; i++) {
        lua_pushvalue(L, base + n + i);
        lua_rawseti(L, -2, i);
    }
    lua_replace(L, base + n + 1);
    lua_settop(L, base + n + 1);
    lua_pushinteger(L, results);
    lua_setfield(L, -2, "n");
    return ok;
}

static bool same(lua_State *L, int a, int b)
{
    lua_getfield(L, a, "n");
    lua_getfield(L, b, "n");
    bool equal = lua_rawequal(L, -1, -2);
    lua_Integer n = lua_tointeger(L, -1);
    lua_pop(L, 2);
    for (lua_Integer i = 1; equal && i <= n; i++) {
        lua_rawgeti(L, a, i);
        lua_rawgeti(L, b, i);
        equal = lua_rawequal(L, -1, -2) && lua_type(L, -1) == lua_type(L, -2) &&
                (!lua_isnumber(L, -1) || lua_isinteger(L, -1) == lua_isinteger(L, -2));
        lua_pop(L, 2);
    }
    return equal;
}

static void show(lua_State *L, int from, int to)
{
    for (int i = from; i <= to; i++) {
        printf("  [%d]", i);
        if (lua_istable(L, i))
            for (lua_Integer j = 1, n = (lua_Integer)lua_rawlen(L, i); j <= n; j++) {
                lua_rawgeti(L, i, j);
                printf(" <%s>", luaL_tolstring(L, -1, NULL));
                lua_pop(L, 2);
            }
        else
            printf(" %s", luaL_tolstring(L, i, NULL)), lua_pop(L, 1);
        printf("\n");
    }
}

/* An iterator's values, joined: what gmatch gives. */
static int l_gmatch_all(lua_State *L)
{
    int n = lua_gettop(L), rounds = 0;
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, n, 1);
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    while (rounds++ < 40) {
        lua_pushvalue(L, 1);
        lua_call(L, 0, 2);
        if (lua_isnil(L, -2))
            break;
        for (int i = -2; i < 0; i++) {
            luaL_tolstring(L, i, NULL);
            lua_replace(L, i - 1);
        }
        lua_concat(L, 2);
        luaL_addvalue(&b);
        luaL_addchar(&b, ';');
    }
    luaL_pushresult(&b);
    return 1;
}

static int l_upper(lua_State *L)
{
    lua_pushnil(L);
    if (lua_type(L, 1) == LUA_TSTRING && lua_rawlen(L, 1) % 2)
        lua_pushfstring(L, "<%s>", lua_tostring(L, 1));
    return 1;
}

static const char *push_case(lua_State *L)
{
    push_subject(L);
    push_pattern(L);
    switch (random_below(8)) {
    case 0:
    case 1:
        lua_pushinteger(L, (lua_Integer)random_below(16) - 8);
        return "find";
    case 2:
        return "find";
    case 3:
        lua_pushinteger(L, (lua_Integer)random_below(16) - 8);
        return "match";
    case 4:
        lua_pushinteger(L, (lua_Integer)random_below(16) - 8);
        return "all";
    case 5:
        lua_pushcfunction(L, l_upper);
        return "gsub";
    case 6:
        push_replacement(L);
        lua_pushinteger(L, (lua_Integer)random_below(6) - 1);
        return "gsub";
    default:
        push_replacement(L);
        return "gsub";
    }
}

static void push_all(lua_State *L, int library)
{
    lua_getfield(L, library, "gmatch");
    lua_pushcclosure(L, l_gmatch_all, 1);
    lua_setfield(L, library, "all");
}

static void compare_patterns(lua_State *L, int rounds)
{
    for (int i = 0; i < rounds; i++) {
        lua_settop(L, 2);
        const char *name = push_case(L);
        int n = lua_gettop(L) - 2;
        int ours = call(L, 1, name, n);
        lua_insert(L, 3);
        int stock = call(L, 2, name, n);
        lua_insert(L, 4);
        if (ours != stock || !same(L, 3, 4)) {
            show(L, 3, lua_gettop(L));
            fail_msg("round %d: %s differs", i, name);
        }
    }
}

/* Leaves our string library at 1 and Lua's at 2, each with `all`. */
static lua_State *two_libraries(void)
{
    lua_State *L = luaL_newstate();
    luaL_requiref(L, "string", luaopen_string, 0);
    lua_newtable(L);
    ml_lib_string(L);
    ml_lib_base(L);
    lua_getfield(L, -1, "base");
    lua_call(L, 0, 1);
    lua_getfield(L, -1, "string");
    lua_getmetatable(L, -1);
    lua_getfield(L, -1, "__index");
    lua_replace(L, 2);
    lua_settop(L, 2);
    lua_insert(L, 1);
    push_all(L, 1);
    push_all(L, 2);
    return L;
}

static void test_differential(void **state)
{
    lua_State *L = two_libraries();
    compare_patterns(L, PATTERNS);
    lua_close(L);
}

/* The other functions, against Lua's own. */
static void test_differential_rest(void **state)
{
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    lua_newtable(L);
    ml_lib_string(L);
    ml_lib_base(L);
    assert_int_equal(luaL_loadfile(L, "spec/c/script/differential.lua"), LUA_OK);
    lua_getfield(L, -2, "base");
    lua_call(L, 0, 1);
    lua_pushglobaltable(L);
    lua_pushinteger(L, 42);
    if (lua_pcall(L, 3, 0, 0) != LUA_OK)
        fail_msg("%s", lua_tostring(L, -1));
    lua_close(L);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUN_TEST(test_functions),
        RUN_TEST(test_bounds),
        RUN_TEST(test_complex_patterns),
        RUN_TEST(test_simple_patterns),
        cmocka_unit_test(test_differential),
        cmocka_unit_test(test_differential_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
