/* host.env secret read_file module upstream: what a policy reads of its surroundings, while loading
 * only. */
#include "script/internal.h"

enum { UPSTREAMS_MAX = 64 };

static const char upstream_type[] = "moonlatch.upstream";

struct upstream_box {
    struct ml_upstream *upstream;
};

/* Text without NUL, as C wants it. */
static const char *check_z(lua_State *L, int idx)
{
    struct ml_str s = ml_vm_check_text(L, idx);
    if (memchr(s.p, '\0', s.n))
        luaL_error(L, "a NUL is not allowed here");
    return s.p;
}

static const char *look_up(lua_State *L, const char *what)
{
    ml_vm_check_loading(L, what);
    const struct ml_script_options *o = &ml_vm_of(L)->script->options;
    return o->env ? o->env(o->env_ctx, check_z(L, 1)) : NULL;
}

static int l_env(lua_State *L)
{
    lua_pushstring(L, look_up(L, "env")); /* nil for NULL */
    return 1;
}

static int l_secret(lua_State *L)
{
    const char *value = look_up(L, "secret");
    if (value)
        ml_secret_push(L, check_z(L, 1), ml_str_z(value));
    else
        lua_pushnil(L);
    return 1;
}

static int l_read_file(lua_State *L)
{
    ml_vm_check_loading(L, "read_file");
    struct ml_buf *b = &ml_vm_of(L)->scratch;
    struct ml_err err;
    ml_buf_clear(b);
    if (ml_file_read(check_z(L, 1), b, &err) != ML_OK) {
        lua_pushnil(L);
        lua_pushstring(L, err.text);
        return 2;
    }
    lua_pushlstring(L, b->p ? b->p : "", b->n);
    return 1;
}

static int l_module(lua_State *L)
{
    ml_vm_check_loading(L, "module");
    const char *file;
    struct ml_str source;
    if (!ml_bundle_module(ml_vm_of(L)->bundle, ml_vm_check_text(L, 1), &file, &source))
        return 0;
    lua_pushlstring(L, source.p, source.n);
    lua_pushstring(L, file);
    return 2;
}

/* Pushes field `name` of table 1 and returns it as text: NULL when absent. It may be a secret. */
static const char *option(lua_State *L, const char *name)
{
    if (lua_getfield(L, 1, name) == LUA_TNIL)
        return NULL;
    struct ml_str secret = ml_secret_value(L, -1);
    return secret.p ? secret.p : check_z(L, -1);
}

static int l_upstream(lua_State *L)
{
    ml_vm_check_loading(L, "upstream");
    struct ml_vm *vm = ml_vm_of(L);
    struct ml_err err = {.text = ""};
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    if (vm->upstreams++ >= UPSTREAMS_MAX)
        return luaL_error(L, "more than %d upstreams", UPSTREAMS_MAX);
    struct upstream_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    box->upstream = NULL;
    luaL_setmetatable(L, upstream_type);
    struct ml_upstream_options options = {
        .name = option(L, "name"),
        .ca_file = option(L, "ca_file"),
        .ca_pem = option(L, "ca_pem"),
        .cert_pem = option(L, "cert_pem"),
        .key_pem = option(L, "key_pem"),
        .token_file = option(L, "token_file"),
    };
    if (!options.name)
        return luaL_error(L, "an upstream needs a name");
    box->upstream = ml_upstream_get(vm->script->options.client, &options, &err);
    if (!box->upstream) {
        lua_pushnil(L);
        lua_pushstring(L, err.text);
        return 2;
    }
    lua_pushvalue(L, 2);
    return 1;
}

struct ml_upstream *ml_upstream_check(lua_State *L, int idx)
{
    struct upstream_box *box = luaL_checkudata(L, idx, upstream_type);
    return box->upstream;
}

static int upstream_gc(lua_State *L)
{
    struct upstream_box *box = luaL_checkudata(L, 1, upstream_type);
    if (box->upstream)
        ml_upstream_unref(box->upstream);
    box->upstream = NULL;
    return 0;
}

void ml_lib_config(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"env", l_env},       {"secret", l_secret},     {"read_file", l_read_file},
        {"module", l_module}, {"upstream", l_upstream}, {NULL, NULL},
    };
    static const luaL_Reg type[] = {{"__gc", upstream_gc}, {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
    ml_vm_new_type(L, upstream_type, type);
    lua_pop(L, 1);
}
