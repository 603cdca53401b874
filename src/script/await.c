/* Waits: counted objects between an operation in C and a suspended coroutine. See internal.h for
 * who holds them. The Lua side is a box (a userdata with one pointer), so that a raise at any point
 * between the box and the yield, and a coroutine that is closed, end in the same place: the box's
 * collection. */
#include "script/internal.h"

#include "base/mem.h"

#include <stdlib.h>

struct box {
    struct ml_await *await;
};

static const char type_name[] = "moonlatch.wait";

static int box_gc(lua_State *L)
{
    struct box *box = luaL_checkudata(L, 1, type_name);
    if (box->await)
        ml_await_unref(box->await);
    box->await = NULL;
    return 0;
}

void ml_await_type(lua_State *L)
{
    static const luaL_Reg functions[] = {{"__gc", box_gc}, {NULL, NULL}};
    ml_vm_new_type(L, type_name, functions);
    lua_pop(L, 1);
}

bool ml_await_allowed(lua_State *L, const char *what)
{
    struct ml_vm *vm = ml_vm_check_live(L);
    struct ml_run *run = vm->run;
    if (!run || !lua_isyieldable(L)) {
        return luaL_error(
            L, "%s cannot wait here (while loading, or inside table.sort or string.gsub)", what);
    }
    if (!run->task && run->calls++ >= vm->script->options.budget.host_calls) {
        run->kill = ML_KILL_CALLS;
        ml_budget_kill(L);
    }
    return vm->script->stats.running < ML_WAITS_MAX;
}

void *ml_await_new(lua_State *L, size_t size, void (*cancel)(struct ml_await *),
                   void (*free_it)(struct ml_await *))
{
    struct ml_vm *vm = ml_vm_of(L);
    struct box *box = lua_newuserdatauv(L, sizeof *box, 0);
    box->await = NULL;
    luaL_setmetatable(L, type_name);
    struct ml_await *a = memset(ml_xmalloc(size), 0, size);
    a->refs = 1;
    a->script = vm->script;
    a->run = vm->run;
    a->cancel = cancel;
    a->free = free_it;
    box->await = a;
    return a;
}

void *ml_await_check(lua_State *L, int idx)
{
    return ((struct box *)luaL_checkudata(L, idx, type_name))->await;
}

void ml_await_release(lua_State *L, int idx)
{
    struct box *box = luaL_checkudata(L, idx, type_name);
    ml_await_unref(box->await);
    box->await = NULL;
}

int ml_await_yield(lua_State *L, struct ml_await *a, lua_KFunction k)
{
    a->started = true;
    a->run->await = a;
    return lua_yieldk(L, 0, (lua_KContext)(intptr_t)a, k);
}

struct ml_await *ml_await_ref(struct ml_await *a)
{
    a->refs++;
    return a;
}

void ml_await_unref(struct ml_await *a)
{
    if (--a->refs == 0)
        a->free(a);
}

void ml_await_complete(struct ml_await *a)
{
    if (!a->run || a->done) {
        a->script->stats.stale++;
        return;
    }
    a->done = true;
    ml_script_ready(a->script, a);
}

void ml_await_drop(struct ml_await *a)
{
    a->run = NULL;
    if (!a->done)
        a->cancel(a);
}
