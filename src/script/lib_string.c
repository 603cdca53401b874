/* string for policies, and the metatable of strings.
 *
 * Lua's own functions where they are linear in texts that the allocator bounds; find, match, gmatch
 * and gsub over our matcher (pattern.c); rep and format behind a look at how large their result
 * gets. No dump, pack, unpack, packsize. The metatable of strings leads to the same functions
 * (S-528) and cannot be had (S-181). The state's thread only. */
#include "script/pattern.h"
#include "script/pure.h"

#include <lauxlib.h>
#include <lualib.h>

enum { REPEAT_MAX = 1000000, NUMBER_FORMAT_MAX = 512, WIDTH_MAX = 99 };

static char string_key; /* its address is the registry's key of the library */

static struct ml_str check_text(lua_State *L, int arg)
{
    struct ml_str s;
    s.p = luaL_checklstring(L, arg, &s.n);
    return s;
}

/* An init argument as an offset; negative ones count from the end. May be past the end. */
static size_t check_init(lua_State *L, int arg, size_t n)
{
    lua_Integer i = luaL_optinteger(L, arg, 1);
    if (i > 0)
        return (size_t)i - 1;
    return i == 0 || i < -(lua_Integer)n ? 0 : n - (size_t)-i;
}

static int find_plain(lua_State *L, struct ml_str s, struct ml_str text, size_t init)
{
    const char *at = text.n ? memmem(s.p + init, s.n - init, text.p, text.n) : s.p + init;
    if (!at) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushinteger(L, at - s.p + 1);
    lua_pushinteger(L, at - s.p + (lua_Integer)text.n);
    return 2;
}

static int find_or_match(lua_State *L, bool find)
{
    struct ml_str s = check_text(L, 1), pattern = check_text(L, 2);
    size_t init = check_init(L, 3, s.n);
    if (init > s.n) {
        lua_pushnil(L);
        return 1;
    }
    if (find && (lua_toboolean(L, 4) || ml_pattern_is_plain(pattern)))
        return find_plain(L, s, pattern, init);
    struct ml_pattern m;
    ml_pattern_init(&m, L, s, pattern);
    bool anchor = pattern.n && pattern.p[0] == '^';
    const char *at = s.p + init;
    do {
        const char *e = ml_pattern_match(&m, at, pattern.p + anchor);
        if (!e)
            continue;
        if (!find)
            return ml_pattern_push(&m, at, e);
        lua_pushinteger(L, at - s.p + 1);
        lua_pushinteger(L, e - s.p);
        return ml_pattern_push(&m, NULL, NULL) + 2;
    } while (at++ < m.subject_end && !anchor);
    lua_pushnil(L);
    return 1;
}

static int l_find(lua_State *L)
{
    return find_or_match(L, true);
}

static int l_match(lua_State *L)
{
    return find_or_match(L, false);
}

/* Upvalues: subject, pattern, where to go on, where the last match ended (-1: none yet). Each call
 * has its own steps. */
static int l_gmatch_next(lua_State *L)
{
    struct ml_str s, pattern;
    s.p = lua_tolstring(L, lua_upvalueindex(1), &s.n);
    pattern.p = lua_tolstring(L, lua_upvalueindex(2), &pattern.n);
    size_t from = (size_t)lua_tointeger(L, lua_upvalueindex(3));
    lua_Integer last = lua_tointeger(L, lua_upvalueindex(4));
    struct ml_pattern m;
    ml_pattern_init(&m, L, s, pattern);
    for (; from <= s.n; from++) {
        const char *e = ml_pattern_match(&m, s.p + from, pattern.p);
        if (!e || e - s.p == last)
            continue;
        lua_pushinteger(L, e - s.p);
        lua_pushvalue(L, -1);
        lua_replace(L, lua_upvalueindex(3));
        lua_replace(L, lua_upvalueindex(4));
        return ml_pattern_push(&m, s.p + from, e);
    }
    return 0;
}

static int l_gmatch(lua_State *L)
{
    struct ml_str s = check_text(L, 1), pattern = check_text(L, 2);
    size_t init = check_init(L, 3, s.n);
    struct ml_pattern m;
    ml_pattern_init(&m, L, s, pattern); /* too long is an error here, not in the loop */
    lua_settop(L, 2);
    lua_pushinteger(L, (lua_Integer)(init > s.n ? s.n + 1 : init));
    lua_pushinteger(L, -1);
    lua_pushcclosure(L, l_gmatch_next, 4);
    return 1;
}

static void check_room(lua_State *L, luaL_Buffer *b, size_t more)
{
    if (luaL_bufflen(b) + more > ML_TEXT_MAX)
        luaL_error(L, "the result is too large");
}

/* The replacement text with %0 to %9 and %%. */
static void add_template(struct ml_pattern *m, luaL_Buffer *b, const char *s, const char *e)
{
    struct ml_str t;
    t.p = lua_tolstring(m->L, 3, &t.n);
    const char *p = t.p, *end = t.p + t.n;
    for (const char *percent; (percent = memchr(p, '%', (size_t)(end - p))); p = percent + 2) {
        check_room(m->L, b, (size_t)(percent - p) + 1);
        luaL_addlstring(b, p, (size_t)(percent - p));
        char c = percent + 1 < end ? percent[1] : 0;
        if (c == '%') {
            luaL_addchar(b, '%');
            continue;
        }
        if (c == '0')
            lua_pushlstring(m->L, s, (size_t)(e - s));
        else if (c >= '1' && c <= '9')
            ml_pattern_push_one(m, c - '1', s, e);
        else
            luaL_error(m->L, "invalid use of '%%' in replacement string");
        size_t n;
        lua_tolstring(m->L, -1, &n);
        check_room(m->L, b, n);
        luaL_addvalue(b);
    }
    check_room(m->L, b, (size_t)(end - p));
    luaL_addlstring(b, p, (size_t)(end - p));
}

/* Appends what stands for the match from s to e; false when that is the match itself. */
static bool add_replacement(struct ml_pattern *m, luaL_Buffer *b, const char *s, const char *e)
{
    lua_State *L = m->L;
    int kind = lua_type(L, 3);
    if (kind == LUA_TSTRING || kind == LUA_TNUMBER) {
        add_template(m, b, s, e);
        return true;
    }
    if (kind == LUA_TFUNCTION) {
        lua_pushvalue(L, 3);
        lua_call(L, ml_pattern_push(m, s, e), 1);
    } else {
        ml_pattern_push_one(m, 0, s, e);
        lua_gettable(L, 3);
    }
    if (!lua_toboolean(L, -1)) {
        lua_pop(L, 1);
        check_room(L, b, (size_t)(e - s));
        luaL_addlstring(b, s, (size_t)(e - s));
        return false;
    }
    if (!lua_isstring(L, -1))
        luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
    size_t n;
    lua_tolstring(L, -1, &n);
    check_room(L, b, n);
    luaL_addvalue(b);
    return true;
}

static void check_replacement(lua_State *L)
{
    switch (lua_type(L, 3)) {
    case LUA_TNUMBER:
    case LUA_TSTRING:
    case LUA_TTABLE:
    case LUA_TFUNCTION:
        return;
    default:
        if (!ml_readonly_is(L, 3))
            luaL_typeerror(L, 3, "string/function/table");
    }
}

static int l_gsub(lua_State *L)
{
    struct ml_str s = check_text(L, 1), pattern = check_text(L, 2);
    check_replacement(L);
    lua_Integer max = luaL_optinteger(L, 4, (lua_Integer)s.n + 1), count = 0;
    lua_settop(L, 3);
    struct ml_pattern m;
    ml_pattern_init(&m, L, s, pattern);
    bool anchor = pattern.n && pattern.p[0] == '^', changed = false;
    const char *at = s.p, *last = NULL;
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    while (count < max) {
        const char *e = ml_pattern_match(&m, at, pattern.p + anchor);
        if (e && e != last) {
            count++;
            changed |= add_replacement(&m, &b, at, e);
            at = last = e;
        } else if (at < m.subject_end) {
            check_room(L, &b, 1);
            luaL_addchar(&b, *at++);
        } else {
            break;
        }
        if (anchor)
            break;
    }
    if (changed) {
        check_room(L, &b, (size_t)(m.subject_end - at));
        luaL_addlstring(&b, at, (size_t)(m.subject_end - at));
        luaL_pushresult(&b);
    } else {
        lua_pushvalue(L, 1);
    }
    lua_pushinteger(L, count);
    return 2;
}

static int l_rep(lua_State *L)
{
    size_t n = check_text(L, 1).n, separator;
    lua_Integer count = luaL_checkinteger(L, 2);
    luaL_optlstring(L, 3, "", &separator);
    if (count > REPEAT_MAX || (count > 0 && n + separator > ML_TEXT_MAX / (size_t)count))
        return luaL_error(L, "resulting string too large");
    return ml_stock_call(L);
}

/* Makes text of the argument; returns an upper bound of what %s makes of it. */
static size_t text_in_place(lua_State *L, int arg)
{
    if (lua_type(L, arg) != LUA_TSTRING) {
        ml_value_text(L, arg, NULL);
        lua_replace(L, arg);
    }
    return lua_rawlen(L, arg) + WIDTH_MAX;
}

/* Lua's format, after a look at each item: %s gets text without addresses, %p does not exist, the
 * result is bounded before it is made. What is malformed is left for Lua's own error. */
static int l_format(lua_State *L)
{
    struct ml_str f = check_text(L, 1);
    const char *p = f.p, *end = f.p + f.n;
    size_t total = f.n;
    int top = lua_gettop(L), arg = 1;
    while ((p = memchr(p, '%', (size_t)(end - p))) && ++p < end) {
        if (*p == '%') {
            p++;
            continue;
        }
        p += strspn(p, "-+ #0123456789.");
        if (*p == 'p')
            return luaL_error(L, "invalid conversion '%%p' to 'format'");
        if (++arg > top)
            break;
        size_t n = NUMBER_FORMAT_MAX;
        if (*p == 's') {
            n = text_in_place(L, arg);
        } else if (*p == 'q' && lua_type(L, arg) == LUA_TSTRING) {
            n = lua_rawlen(L, arg) * 4 + 2;
        }
        total += n;
        if (total > ML_TEXT_MAX)
            return luaL_error(L, "the result is too large");
    }
    return ml_stock_call(L);
}

/* Leaves Lua's metatable of strings, which has the arithmetic of numerals, with our functions and
 * closed. */
static void close_metatable(lua_State *L)
{
    lua_pushliteral(L, "");
    lua_getmetatable(L, -1);
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 2);
}

void ml_string_open(lua_State *L)
{
    static const char *const names[] = {"byte", "char",    "format", "len",   "lower",
                                        "rep",  "reverse", "sub",    "upper", NULL};
    static const luaL_Reg ours[] = {
        {"find", l_find}, {"match", l_match}, {"gmatch", l_gmatch}, {"gsub", l_gsub}, {NULL, NULL}};
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &string_key) == LUA_TTABLE)
        return;
    lua_pop(L, 1);
    ml_stock_select(L, luaopen_string, names);
    luaL_setfuncs(L, ours, 0);
    ml_stock_wrap(L, "rep", l_rep);
    ml_stock_wrap(L, "format", l_format);
    close_metatable(L);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &string_key);
}

void ml_lib_string(lua_State *L)
{
    ml_string_open(L);
    lua_pop(L, 1);
}
