/* base, readonly, load_chunk: the environment of policies.
 *
 * An allow-list (S-185, S-501): what is not named here does not exist. No rawset, setmetatable,
 * getmetatable, load, collectgarbage, print; `require` is the library's. The functions and the
 * sealed library tables are one set per state; base() puts them into a fresh table. The state's
 * thread only. */
#include "script/pure.h"

#include <lauxlib.h>
#include <lualib.h>

enum { NUMBER_TEXT_MAX = 1000, SOURCE_MAX = 1 << 20 };

/* After a kill. A coroutine is left as it stands, in one step: raising again would go through each
 * of the tens of thousands of pcalls that it may have nested, and each one costs Lua a walk over
 * all of them. */
static int give_up(lua_State *L)
{
    return lua_isyieldable(L) ? lua_yield(L, 0) : lua_error(L);
}

/* Yieldable. An error passes, except the budget's: that one goes on up (S-503). */
static int pcall_done(lua_State *L, int status, lua_KContext ctx)
{
    if (status == LUA_OK || status == LUA_YIELD)
        return lua_gettop(L) - (int)ctx;
    if (ml_budget_killed(L))
        return give_up(L);
    lua_pushboolean(L, 0);
    lua_insert(L, -2);
    return 2;
}

static int l_pcall(lua_State *L)
{
    luaL_checkany(L, 1);
    lua_pushboolean(L, 1);
    lua_insert(L, 1);
    int status = lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, 0, pcall_done);
    return pcall_done(L, status, 0);
}

/* The handler's result, or its own error, is on top, with false below it. */
static int handler_done(lua_State *L, int status, lua_KContext ctx)
{
    if (status != LUA_OK && status != LUA_YIELD && ml_budget_killed(L))
        return give_up(L);
    return 2;
}

/* Lua runs a message handler with hooks off, where no budget reaches it: ours runs when the stack
 * is unwound. */
static int xpcall_done(lua_State *L, int status, lua_KContext ctx)
{
    if (status == LUA_OK || status == LUA_YIELD)
        return lua_gettop(L) - 2;
    if (ml_budget_killed(L))
        return give_up(L);
    lua_pushboolean(L, 0);
    lua_insert(L, -2);
    lua_pushvalue(L, 2);
    lua_insert(L, -2);
    return handler_done(L, lua_pcallk(L, 1, 1, 0, 0, handler_done), 0);
}

static int l_xpcall(lua_State *L)
{
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_pushboolean(L, 1);
    lua_pushvalue(L, 1);
    lua_rotate(L, 3, 2); /* f, handler, true, f, arguments */
    int status = lua_pcallk(L, lua_gettop(L) - 4, LUA_MULTRET, 0, 0, xpcall_done);
    return xpcall_done(L, status, 0);
}

static int l_next(lua_State *L)
{
    return lua_type(L, 1) == LUA_TUSERDATA ? ml_readonly_next(L) : ml_stock_call(L);
}

static int l_type(lua_State *L)
{
    luaL_checkany(L, 1);
    lua_pushstring(L, ml_readonly_is(L, 1) ? "table" : luaL_typename(L, 1));
    return 1;
}

static int l_tostring(lua_State *L)
{
    luaL_checkany(L, 1);
    ml_value_text(L, 1, NULL);
    return 1;
}

/* Lua reads a number of any length, in C. */
static int l_tonumber(lua_State *L)
{
    if (lua_type(L, 1) == LUA_TSTRING && lua_rawlen(L, 1) > NUMBER_TEXT_MAX) {
        lua_pushnil(L);
        return 1;
    }
    return ml_stock_call(L);
}

static void push_functions(lua_State *L)
{
    static const char *const names[] = {"assert", "error",    "ipairs",   "next", "pairs",  "pcall",
                                        "select", "tonumber", "tostring", "type", "xpcall", NULL};
    static const luaL_Reg ours[] = {
        {"pcall", l_pcall},       {"xpcall", l_xpcall}, {"type", l_type},
        {"tostring", l_tostring}, {NULL, NULL},
    };
    ml_stock_select(L, luaopen_base, names);
    luaL_setfuncs(L, ours, 0);
    ml_stock_wrap(L, "next", l_next);
    ml_stock_wrap(L, "tonumber", l_tonumber);
}

static void add_library(lua_State *L, const char *name, void (*open)(lua_State *L))
{
    open(L);
    ml_stock_seal(L, name);
    lua_setfield(L, -2, name);
}

static int l_base(lua_State *L)
{
    lua_createtable(L, 0, 32);
    lua_pushnil(L);
    while (lua_next(L, lua_upvalueindex(1))) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, -4);
    }
    return 1;
}

static int l_readonly(lua_State *L)
{
    lua_settop(L, 1);
    if (!ml_readonly_is(L, 1))
        luaL_checktype(L, 1, LUA_TTABLE);
    return ml_readonly_wrap(L);
}

/* Text only: Lua does not verify bytecode (S-510). */
static int l_load_chunk(lua_State *L)
{
    size_t n;
    const char *source = luaL_checklstring(L, 1, &n);
    const char *name = luaL_checkstring(L, 2);
    luaL_checktype(L, 3, LUA_TTABLE);
    lua_settop(L, 3);
    if (n > SOURCE_MAX) {
        lua_pushnil(L);
        lua_pushliteral(L, "the source is over 1 MiB");
        return 2;
    }
    int status = luaL_loadbufferx(L, source, n, name, "t");
    if (status == LUA_ERRMEM)
        return lua_error(L);
    if (status != LUA_OK) {
        lua_pushnil(L);
        lua_insert(L, -2);
        return 2;
    }
    lua_pushvalue(L, 3);
    lua_setupvalue(L, -2, 1); /* the only upvalue of a main function: _ENV */
    return 1;
}

void ml_lib_base(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"readonly", l_readonly}, {"load_chunk", l_load_chunk}, {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
    push_functions(L);
    add_library(L, "string", ml_string_open);
    add_library(L, "table", ml_table_open);
    add_library(L, "math", ml_math_open);
    add_library(L, "utf8", ml_utf8_open);
    lua_pushcclosure(L, l_base, 1);
    lua_setfield(L, -2, "base");
}
