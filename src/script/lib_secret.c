/* Secrets: texts that policies pass on but cannot read, join or print. The bytes are in the
 * userdata and wiped when it is collected; only C reads them (ml_secret_value). The state's thread
 * only. */
#include "base/mem.h"
#include "script/pure.h"

#include <lauxlib.h>

enum { NAME_MAX_BYTES = 128 };

struct secret {
    size_t n;
    char name[NAME_MAX_BYTES];
    char bytes[]; /* and a NUL */
};

static char secret_key; /* its address is the registry's key of the metatable */

static int l_joined(lua_State *L)
{
    return luaL_error(L, "a secret cannot be joined to other text; pass it to an option as it is");
}

static int l_refused(lua_State *L)
{
    return luaL_error(L, "a secret cannot be read or compared; pass it to an option as it is");
}

static int l_tostring(lua_State *L)
{
    const struct secret *s = lua_touserdata(L, 1);
    lua_pushfstring(L, "<secret %s>", s->name);
    return 1;
}

static int l_gc(lua_State *L)
{
    struct secret *s = lua_touserdata(L, 1);
    ml_wipe(s->bytes, s->n);
    s->n = 0;
    return 0;
}

static void make_metatable(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"__concat", l_joined},     {"__len", l_refused},   {"__index", l_refused},
        {"__newindex", l_refused},  {"__eq", l_refused},    {"__lt", l_refused},
        {"__le", l_refused},        {"__pairs", l_refused}, {"__call", l_refused},
        {"__tostring", l_tostring}, {"__gc", l_gc},         {NULL, NULL},
    };
    luaL_newlib(L, methods);
    lua_pushliteral(L, "secret");
    lua_setfield(L, -2, "__name");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &secret_key);
}

void ml_secret_push(lua_State *L, const char *name, struct ml_str value)
{
    struct secret *s = lua_newuserdatauv(L, sizeof *s + value.n + 1, 0);
    s->n = value.n;
    size_t n = strnlen(name, sizeof s->name - 1);
    memcpy(s->name, name, n);
    s->name[n] = 0;
    if (value.n)
        memcpy(s->bytes, value.p, value.n);
    s->bytes[value.n] = 0;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &secret_key);
    lua_setmetatable(L, -2);
}

struct ml_str ml_secret_value(lua_State *L, int idx)
{
    if (lua_type(L, idx) != LUA_TUSERDATA || !lua_getmetatable(L, idx))
        return (struct ml_str){NULL, 0};
    lua_rawgetp(L, LUA_REGISTRYINDEX, &secret_key);
    bool is = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    if (!is)
        return (struct ml_str){NULL, 0};
    const struct secret *s = lua_touserdata(L, idx);
    return (struct ml_str){s->bytes, s->n};
}

void ml_lib_secret(lua_State *L)
{
    make_metatable(L);
}
