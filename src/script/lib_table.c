/* table, math, utf8 for policies: Lua's own functions behind checks of what they would loop over.
 *
 * Lengths are raw, and still not to be trusted: a border of a sparse table can be 2^62. So every
 * range is bounded before a C loop runs over it. Views of host.readonly can be read (concat,
 * unpack, the source of move), not written. The state's thread only. */
#include "script/pure.h"

#include <lauxlib.h>
#include <lualib.h>

enum { RANGE_MAX = 100000, SORT_MAX = 10000 };

static void check_range(lua_State *L, lua_Integer first, lua_Integer last, lua_Unsigned max)
{
    if (last >= first && (lua_Unsigned)last - (lua_Unsigned)first >= max)
        luaL_error(L, "too many items (%d at most)", (int)max);
}

static void check_writable(lua_State *L, int arg)
{
    if (ml_readonly_is(L, arg))
        luaL_error(L, "this table is read-only");
    luaL_checktype(L, arg, LUA_TTABLE);
    if (luaL_getmetafield(L, arg, "__newindex") != LUA_TNIL)
        luaL_error(L, "this table is read-only");
}

/* Checks that arg is a table or a view of one; returns its length. */
static lua_Integer check_readable(lua_State *L, int arg)
{
    if (!ml_readonly_target(L, arg)) {
        luaL_checktype(L, arg, LUA_TTABLE);
        return (lua_Integer)lua_rawlen(L, arg);
    }
    lua_Integer n = (lua_Integer)lua_rawlen(L, -1);
    lua_pop(L, 1);
    return n;
}

static int l_concat(lua_State *L)
{
    lua_Integer n = check_readable(L, 1);
    lua_settop(L, 4);
    struct ml_str separator;
    separator.p = luaL_optlstring(L, 2, "", &separator.n);
    lua_Integer i = luaL_optinteger(L, 3, 1), last = luaL_optinteger(L, 4, n);
    check_range(L, i, last, RANGE_MAX);
    if (ml_readonly_target(L, 1))
        lua_replace(L, 1); /* only text comes out */
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    for (; i <= last; i++) {
        lua_rawgeti(L, 1, i);
        if (!lua_isstring(L, -1))
            return luaL_error(L, "invalid value (%s) at index %I in table for 'concat'",
                              luaL_typename(L, -1), (LUAI_UACINT)i);
        size_t item;
        lua_tolstring(L, -1, &item);
        if (luaL_bufflen(&b) + item + separator.n > ML_TEXT_MAX)
            return luaL_error(L, "the result is too large");
        luaL_addvalue(&b);
        if (i == last)
            break;
        luaL_addlstring(&b, separator.p, separator.n);
    }
    luaL_pushresult(&b);
    return 1;
}

static int l_insert(lua_State *L)
{
    check_writable(L, 1);
    if (lua_gettop(L) == 3)
        check_range(L, luaL_checkinteger(L, 2), (lua_Integer)lua_rawlen(L, 1), RANGE_MAX);
    return ml_stock_call(L);
}

static int l_remove(lua_State *L)
{
    check_writable(L, 1);
    lua_Integer n = (lua_Integer)lua_rawlen(L, 1);
    check_range(L, luaL_optinteger(L, 2, n), n, RANGE_MAX);
    return ml_stock_call(L);
}

static int l_move(lua_State *L)
{
    lua_Integer first = luaL_checkinteger(L, 2), last = luaL_checkinteger(L, 3);
    luaL_checkinteger(L, 4);
    check_range(L, first, last, RANGE_MAX);
    check_readable(L, 1);
    check_writable(L, lua_isnoneornil(L, 5) ? 1 : 5);
    return ml_stock_call(L);
}

static int l_unpack(lua_State *L)
{
    lua_Integer n = check_readable(L, 1);
    lua_Integer first = luaL_optinteger(L, 2, 1);
    check_range(L, first, luaL_optinteger(L, 3, n), RANGE_MAX);
    return ml_stock_call(L);
}

/* Comparing long texts is work that no hook sees: without a comparator the texts together are
 * bounded. */
static void check_sort_text(lua_State *L, lua_Integer n)
{
    size_t total = 0;
    for (lua_Integer i = 1; i <= n && total <= ML_TEXT_MAX; i++) {
        if (lua_rawgeti(L, 1, i) == LUA_TSTRING)
            total += lua_rawlen(L, -1);
        lua_pop(L, 1);
    }
    if (total > ML_TEXT_MAX)
        luaL_error(L, "too much text to sort (1 MiB at most)");
}

static int l_sort(lua_State *L)
{
    check_writable(L, 1);
    lua_Integer n = (lua_Integer)lua_rawlen(L, 1);
    check_range(L, 1, n, SORT_MAX);
    if (lua_isnoneornil(L, 2))
        check_sort_text(L, n);
    return ml_stock_call(L);
}

void ml_table_open(lua_State *L)
{
    static const char *const names[] = {"concat", "insert", "move",   "pack",
                                        "remove", "sort",   "unpack", NULL};
    ml_stock_select(L, luaopen_table, names);
    lua_pushcfunction(L, l_concat);
    lua_setfield(L, -2, "concat");
    ml_stock_wrap(L, "insert", l_insert);
    ml_stock_wrap(L, "move", l_move);
    ml_stock_wrap(L, "remove", l_remove);
    ml_stock_wrap(L, "sort", l_sort);
    ml_stock_wrap(L, "unpack", l_unpack);
}

/* Without random and randomseed: what must not be guessed does not come from a policy. */
void ml_math_open(lua_State *L)
{
    static const char *const names[] = {
        "abs",  "acos", "asin", "atan", "ceil",       "cos",  "deg",        "exp",  "floor",
        "fmod", "huge", "log",  "max",  "maxinteger", "min",  "mininteger", "modf", "pi",
        "rad",  "sin",  "sqrt", "tan",  "tointeger",  "type", "ult",        NULL};
    ml_stock_select(L, luaopen_math, names);
}

/* utf8.len and utf8.codes, which walk a whole text. */
static int l_utf8_bounded(lua_State *L)
{
    size_t n;
    luaL_checklstring(L, 1, &n);
    luaL_argcheck(L, n <= ML_SUBJECT_MAX, 1, "text over 64 KiB");
    return ml_stock_call(L);
}

void ml_utf8_open(lua_State *L)
{
    static const char *const names[] = {"char", "charpattern", "codepoint", "codes",
                                        "len",  "offset",      NULL};
    ml_stock_select(L, luaopen_utf8, names);
    ml_stock_wrap(L, "len", l_utf8_bounded);
    ml_stock_wrap(L, "codes", l_utf8_bounded);
}
