/* What policies get of Lua's own libraries: an allow-list of their functions, some of them behind a
 * check, in tables that cannot be changed. Also the text of values without addresses (S-527). The
 * state's thread only. */
#include "script/pure.h"

#include <lauxlib.h>
#include <lualib.h>

/* luaopen_base fills the globals table; it gets an empty one to fill. When memory ends in between,
 * the state is being opened and dies. */
static void open_apart(lua_State *L, lua_CFunction open)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
    lua_newtable(L);
    lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
    lua_pushcfunction(L, open);
    lua_call(L, 0, 1);
    lua_insert(L, -2);
    lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
}

void ml_stock_select(lua_State *L, lua_CFunction open, const char *const *names)
{
    open_apart(L, open);
    lua_newtable(L);
    for (; *names; names++) {
        lua_getfield(L, -2, *names);
        lua_setfield(L, -2, *names);
    }
    lua_remove(L, -2);
}

void ml_stock_wrap(lua_State *L, const char *name, lua_CFunction fn)
{
    lua_getfield(L, -1, name);
    lua_pushcclosure(L, fn, 1);
    lua_setfield(L, -2, name);
}

int ml_stock_call(lua_State *L)
{
    return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

static int l_sealed(lua_State *L)
{
    return luaL_error(L, "the library table '%s' is read-only",
                      lua_tostring(L, lua_upvalueindex(1)));
}

void ml_stock_seal(lua_State *L, const char *name)
{
    lua_newtable(L);
    lua_createtable(L, 0, 3);
    lua_rotate(L, -3, -1); /* proxy, metatable, library */
    lua_setfield(L, -2, "__index");
    lua_pushstring(L, name);
    lua_pushcclosure(L, l_sealed, 1);
    lua_setfield(L, -2, "__newindex");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
}

const char *ml_value_text(lua_State *L, int idx, size_t *n)
{
    idx = lua_absindex(L, idx);
    switch (lua_type(L, idx)) {
    case LUA_TNIL:
    case LUA_TBOOLEAN:
    case LUA_TNUMBER:
    case LUA_TSTRING:
        return luaL_tolstring(L, idx, n);
    default:
        break;
    }
    if (luaL_callmeta(L, idx, "__tostring")) {
        if (!lua_isstring(L, -1))
            luaL_error(L, "'__tostring' must return a string");
        return lua_tolstring(L, -1, n);
    }
    lua_pushstring(L, ml_readonly_is(L, idx) ? "table" : luaL_typename(L, idx));
    return lua_tolstring(L, -1, n);
}
