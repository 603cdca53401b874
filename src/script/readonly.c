/* Read-only views of tables: a userdata of one user value (the table), so that making one is a
 * single allocation. Nested tables come out as views, keys as well. To policies a view is a table:
 * type, #, pairs, ipairs, next, table.concat and table.unpack work. Two views of one table are
 * equal. The state's thread only. */
#include "script/pure.h"

#include <lauxlib.h>

static char readonly_key; /* its address is the registry's key of the metatable */

bool ml_readonly_is(lua_State *L, int idx)
{
    if (lua_type(L, idx) != LUA_TUSERDATA || !lua_getmetatable(L, idx))
        return false;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &readonly_key);
    bool is = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return is;
}

bool ml_readonly_target(lua_State *L, int idx)
{
    if (!ml_readonly_is(L, idx))
        return false;
    lua_getiuservalue(L, idx, 1);
    return true;
}

static int l_index(lua_State *L)
{
    if (ml_readonly_target(L, 2))
        lua_replace(L, 2);
    lua_getiuservalue(L, 1, 1);
    lua_pushvalue(L, 2);
    lua_gettable(L, -2);
    return ml_readonly_wrap(L);
}

static int l_newindex(lua_State *L)
{
    return luaL_error(L, "this table is read-only");
}

static int l_len(lua_State *L)
{
    lua_getiuservalue(L, 1, 1);
    lua_pushinteger(L, (lua_Integer)lua_rawlen(L, -1));
    return 1;
}

int ml_readonly_next(lua_State *L)
{
    lua_settop(L, 2);
    if (!ml_readonly_target(L, 1))
        return luaL_typeerror(L, 1, "table");
    if (ml_readonly_target(L, 2))
        lua_replace(L, 2);
    lua_pushvalue(L, 2);
    if (!lua_next(L, 3)) {
        lua_pushnil(L);
        return 1;
    }
    lua_insert(L, -2);
    ml_readonly_wrap(L); /* the key */
    lua_insert(L, -2);
    ml_readonly_wrap(L);
    return 2;
}

static int l_pairs(lua_State *L)
{
    lua_pushcfunction(L, ml_readonly_next);
    lua_pushvalue(L, 1);
    lua_pushnil(L);
    return 3;
}

static int l_eq(lua_State *L)
{
    bool views = ml_readonly_target(L, 1) && ml_readonly_target(L, 2);
    lua_pushboolean(L, views && lua_rawequal(L, -1, -2));
    return 1;
}

static void push_metatable(lua_State *L)
{
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &readonly_key) == LUA_TTABLE)
        return;
    lua_pop(L, 1);
    static const luaL_Reg methods[] = {
        {"__index", l_index}, {"__newindex", l_newindex},
        {"__len", l_len},     {"__pairs", l_pairs},
        {"__eq", l_eq},       {NULL, NULL},
    };
    luaL_newlib(L, methods);
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pushliteral(L, "table"); /* for Lua's own error messages */
    lua_setfield(L, -2, "__name");
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &readonly_key);
}

int ml_readonly_wrap(lua_State *L)
{
    if (lua_type(L, -1) != LUA_TTABLE)
        return 1;
    lua_newuserdatauv(L, 0, 1);
    lua_insert(L, -2);
    lua_setiuservalue(L, -2, 1);
    push_metatable(L);
    lua_setmetatable(L, -2);
    return 1;
}
