/* From an empty state to a compiled policy: opens the library's environment, makes the host table,
 * runs moonlatch.load or moonlatch.check, takes over what they return. Runs protected, under the
 * load budget: anything here may raise, so that C owns nothing but what hangs on the VM. */
#include "script/internal.h"

#include "base/mem.h"

#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>

enum { TEXT_MAX = 256 * 1024 /* of a report */, TIMEOUT_MAX = 3600 };

void ml_vm_new_type(lua_State *L, const char *name, const luaL_Reg *functions)
{
    luaL_newmetatable(L, name);
    luaL_setfuncs(L, functions, 0);
    lua_pushboolean(L, false);
    lua_setfield(L, -2, "__metatable");
}

void ml_vm_check_loading(lua_State *L, const char *what)
{
    if (!ml_vm_of(L)->loading)
        luaL_error(L, "%s works only while loading, at the top of the file", what);
}

struct ml_vm *ml_vm_check_live(lua_State *L)
{
    struct ml_vm *vm = ml_vm_of(L);
    if ((!vm->run && !vm->loading) || ml_budget_killed(L))
        luaL_error(L, "this request has ended");
    return vm;
}

/* The library's require: its own modules only. Upvalue: what is loaded (false: being loaded). */
static int l_require(lua_State *L)
{
    struct ml_str code, name = ml_vm_check_text(L, 1);
    if (!ml_library_code(ml_vm_of(L)->script->options.library, name, &code))
        return luaL_error(L, "there is no module of that name in the library");
    lua_settop(L, 1);
    if (lua_getfield(L, lua_upvalueindex(1), name.p) == LUA_TBOOLEAN)
        return luaL_error(L, "module %s requires itself", name.p);
    if (!lua_isnil(L, -1))
        return 1;
    lua_pushboolean(L, false);
    lua_setfield(L, lua_upvalueindex(1), name.p);
    /* The one place that takes bytecode: this process made it. */
    if (luaL_loadbufferx(L, code.p, code.n, name.p, "b") != LUA_OK)
        return lua_error(L);
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    lua_pushvalue(L, -1);
    lua_setfield(L, lua_upvalueindex(1), name.p);
    return 1;
}

/* What the library itself may use. Policies see host.base only. */
static void open_libraries(lua_State *L)
{
    static const luaL_Reg libraries[] = {
        {LUA_GNAME, luaopen_base},       {LUA_STRLIBNAME, luaopen_string},
        {LUA_TABLIBNAME, luaopen_table}, {LUA_MATHLIBNAME, luaopen_math},
        {LUA_UTF8LIBNAME, luaopen_utf8}, {LUA_DBLIBNAME, luaopen_debug},
    };
    static const char *const gone[] = {"dofile", "loadfile", "load",
                                       "print",  "warn",     "collectgarbage"};
    static const char *const debug_kept[] = {"getinfo",    "getlocal",   "getmetatable",
                                             "getupvalue", "setupvalue", "traceback",
                                             "upvalueid"};
    for (size_t i = 0; i < sizeof libraries / sizeof libraries[0]; i++) {
        luaL_requiref(L, libraries[i].name, libraries[i].func, 1);
        lua_pop(L, 1);
    }
    for (size_t i = 0; i < sizeof gone / sizeof gone[0]; i++) {
        lua_pushnil(L);
        lua_setglobal(L, gone[i]);
    }
    lua_getglobal(L, LUA_DBLIBNAME);
    lua_newtable(L);
    for (size_t i = 0; i < sizeof debug_kept / sizeof debug_kept[0]; i++) {
        lua_getfield(L, -2, debug_kept[i]);
        lua_setfield(L, -2, debug_kept[i]);
    }
    lua_setglobal(L, LUA_DBLIBNAME);
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushcclosure(L, l_require, 1);
    lua_setglobal(L, "require");
}

/* Leaves the host table on the stack. */
static void push_host(lua_State *L)
{
    static void (*const parts[])(lua_State *) = {
        ml_lib_string, ml_lib_base,   ml_lib_json,    ml_lib_text,    ml_lib_regex,
        ml_lib_secret, ml_lib_config, ml_lib_http,    ml_lib_cache,   ml_lib_board,
        ml_lib_seal,   ml_lib_jwt,    ml_lib_session, ml_lib_request,
    };
    lua_newtable(L);
    ml_await_type(L);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        parts[i](L);
    /* The library's own pcall must not catch a kill either. */
    lua_getfield(L, -1, "base");
    lua_call(L, 0, 1);
    lua_getfield(L, -1, "pcall");
    lua_setglobal(L, "pcall");
    lua_getfield(L, -1, "xpcall");
    lua_setglobal(L, "xpcall");
    lua_pop(L, 1);
}

/* The text at idx into the report. */
static void take_report(lua_State *L, int idx, struct ml_buf *report)
{
    struct ml_str s = {"", 0};
    if (lua_type(L, idx) == LUA_TSTRING)
        s.p = lua_tolstring(L, idx, &s.n);
    ml_buf_add(report, s.p, s.n < TEXT_MAX ? s.n : TEXT_MAX);
}

/* Field i of the list on top as text in memory of the caller. */
static char *list_text(lua_State *L, lua_Integer i, const char *what, size_t *n)
{
    if (lua_rawgeti(L, -1, i) != LUA_TSTRING)
        luaL_error(L, "the library returned a bad list of %s", what);
    const char *p = lua_tolstring(L, -1, n);
    char *copy = ml_xstrndup(p, *n);
    lua_pop(L, 1);
    return copy;
}

static lua_Integer open_list(lua_State *L, const char *field, lua_Integer max)
{
    int type = lua_getfield(L, -1, field);
    lua_Integer count = type == LUA_TTABLE ? (lua_Integer)lua_rawlen(L, -1) : 0;
    if (type != LUA_TTABLE && type != LUA_TNIL)
        luaL_error(L, "the library returned no list of %s", field);
    if (count > max)
        luaL_error(L, "the policy has %d %s; %d are allowed", (int)count, field, (int)max);
    return count;
}

static void take_lists(lua_State *L, struct ml_vm *vm)
{
    lua_Integer count = open_list(L, "headers", ML_OWNED_MAX);
    vm->owned = ml_xcalloc((size_t)count + 1, sizeof *vm->owned);
    for (lua_Integer i = 1; i <= count; i++) {
        size_t n;
        char *name = list_text(L, i, "headers", &n);
        vm->owned[vm->owned_count++] = ml_str(name, n);
    }
    lua_pop(L, 1);
    count = open_list(L, "providers", ML_PROVIDERS_MAX);
    for (lua_Integer i = 1; i <= count; i++) {
        size_t n;
        char *name = list_text(L, i, "providers", &n);
        vm->providers[vm->provider_count++] = name;
    }
    lua_pop(L, 1);
    count = open_list(L, "tasks", ML_TASKS_MAX);
    for (lua_Integer i = 1; i <= count; i++) {
        if (lua_rawgeti(L, -1, i) != LUA_TFUNCTION)
            luaL_error(L, "the library returned a task that is no function");
        vm->tasks[vm->task_count] = ml_vm_anchor(L);
        vm->task_count++;
    }
    lua_pop(L, 1);
}

/* The policy table is on top. */
static void take_policy(lua_State *L, struct ml_load *l)
{
    struct ml_vm *vm = l->vm;
    lua_getfield(L, -1, "name");
    const char *name = lua_tostring(L, -1);
    snprintf(vm->name, sizeof vm->name, "%s", name ? name : "");
    lua_pop(L, 1);
    lua_getfield(L, -1, "timeout");
    lua_Number timeout = lua_tonumber(L, -1);
    vm->timeout_ms = timeout > 0 && timeout < TIMEOUT_MAX ? (uint64_t)(timeout * 1000) : 0;
    lua_pop(L, 1);
    take_lists(L, vm);
    if (lua_getfield(L, -1, "decide") != LUA_TFUNCTION)
        luaL_error(L, "the library returned no decide function");
    vm->decide = ml_vm_anchor(L);
    int type = lua_getfield(L, -1, "answer");
    if (type != LUA_TFUNCTION && type != LUA_TNIL)
        luaL_error(L, "the library returned an answer that is no function");
    if (type == LUA_TFUNCTION)
        vm->answer = ml_vm_anchor(L);
    else
        lua_pop(L, 1);
    lua_getfield(L, -1, "report");
    take_report(L, -1, l->report);
    lua_pop(L, 1);
}

static void push_library(lua_State *L)
{
    lua_getglobal(L, "require");
    lua_pushliteral(L, "moonlatch");
    lua_call(L, 1, 1);
    luaL_checktype(L, -1, LUA_TTABLE);
}

int ml_load_open(lua_State *L)
{
    struct ml_vm *vm = lua_touserdata(L, 1);
    lua_gc(L, LUA_GCSTOP); /* nothing here is garbage */
    open_libraries(L);
    lua_createtable(L, ML_MEMO_SLOTS, 0);
    vm->memo = ml_vm_anchor(L);
    push_library(L);
    lua_gc(L, LUA_GCRESTART);
    return 0;
}

int ml_load_run(lua_State *L)
{
    struct ml_load *l = lua_touserdata(L, 1);
    struct ml_vm *vm = l->vm;
    struct ml_str source = ml_bundle_source(vm->bundle);
    push_library(L);
    lua_getfield(L, -1, l->check ? "check" : "load");
    push_host(L);
    lua_pushstring(L, ml_bundle_path(vm->bundle));
    lua_pushlstring(L, source.p, source.n);
    lua_call(L, 3, 3);
    if (l->check) {
        take_report(L, -3, l->report);
        l->errors = luaL_checkinteger(L, -2);
        l->warnings = luaL_checkinteger(L, -1);
    } else if (lua_istable(L, -3)) {
        lua_settop(L, -3);
        take_policy(L, l);
    } else {
        take_report(L, -2, l->report);
        l->errors = 1;
    }
    lua_settop(L, 0);
    lua_gc(L, LUA_GCCOLLECT);
    return 0;
}
