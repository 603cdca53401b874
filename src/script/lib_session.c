/* host.session_*: the session store. A read that the cache of open parts answers costs what a
 * cached bearer costs: no wait object, no store. All other calls wait for the store, if only for
 * the moment in which it answers at once. On the worker's thread. */
#include "script/internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { LOCK_MAX = 60, LIFE_MAX = 3660 * 86400, PART_MAX = 1 << 17 };

/* One call. What goes to the store and what comes back are this object's, so that a raise frees
 * them. */
struct wait {
    struct ml_await await;
    struct ml_buf open, closed; /* JSON; closed is also the tokens of the answer */
    bool replied;
    struct ml_session_reply reply; /* its slices are below */
    char why[ML_WHY_MAX + 1];
};

static void free_wait(struct ml_await *a)
{
    struct wait *w = (struct wait *)a;
    if (w->closed.p)
        ml_wipe(w->closed.p, w->closed.cap);
    ml_buf_done(&w->closed);
    ml_buf_done(&w->open);
    ml_entry_unref(w->reply.entry);
    ml_wipe(w->reply.id, sizeof w->reply.id);
    free(w);
}

/* The store answers within its own deadlines, whoever waits: nothing to stop. */
static void cancel(struct ml_await *a)
{
}

static void on_reply(void *arg, const struct ml_session_reply *reply)
{
    struct wait *w = arg;
    struct ml_script *s = w->await.script;
    w->reply = *reply;
    snprintf(w->why, sizeof w->why, "%s", reply->text ? reply->text : "");
    w->reply.text = w->why;
    ml_buf_clear(&w->closed);
    ml_buf_add_str(&w->closed, reply->closed);
    if (w->closed.failed && !reply->error) {
        w->reply.error = ML_E_NOMEM;
        snprintf(w->why, sizeof w->why, "out of memory");
    }
    w->replied = true;
    if (w->await.started)
        ml_await_complete(&w->await);
    ml_await_unref(&w->await);
    ml_script_unpin(s);
}

/* Pushes a call's box. NULL: it cannot be made now, and *why says why. Raises where nothing may
 * wait. */
static struct wait *wait_new(lua_State *L, struct ml_vm *vm, const char *what, const char **why)
{
    if (!ml_await_allowed(L, what)) {
        *why = "too many requests wait";
        return NULL;
    }
    if (!vm->script->options.sessions) {
        *why = "there is no session store";
        return NULL;
    }
    struct wait *w = ml_await_new(L, sizeof *w, cancel, free_wait);
    ml_buf_init(&w->open, PART_MAX);
    ml_buf_init(&w->closed, PART_MAX);
    return w;
}

/* Before the store is asked: from here on nothing may raise. */
static struct ml_session_seat *start(struct wait *w)
{
    ml_script_pin(w->await.script);
    ml_await_ref(&w->await);
    return w->await.script->options.sessions;
}

/* After it was asked. */
static int finish(lua_State *L, struct wait *w, lua_KFunction k)
{
    if (w->replied)
        return k(L, LUA_OK, (lua_KContext)(intptr_t)w);
    return ml_await_yield(L, &w->await, k);
}

static struct wait *wait_of(lua_KContext ctx)
{
    return (struct wait *)(intptr_t)ctx;
}

static int push_failed(lua_State *L, const char *why)
{
    lua_pushliteral(L, "failed");
    lua_pushstring(L, why);
    return 2;
}

static int push_nil(lua_State *L, const char *why)
{
    lua_pushnil(L);
    lua_pushstring(L, why);
    return 2;
}

static int push_nil_failed(lua_State *L, const char *why)
{
    lua_pushnil(L);
    return push_failed(L, why) + 1;
}

/* Arguments ----------------------------------------------------------------------------------- */

/* Seconds to ms, from a millisecond to max seconds; NaN and infinity raise. */
static int64_t check_ms(lua_State *L, int idx, lua_Number max)
{
    lua_Number seconds = luaL_checknumber(L, idx);
    luaL_argcheck(L, isfinite(seconds) && seconds > 0, idx, "a positive number is needed");
    seconds = seconds > max ? max : seconds;
    return seconds < 0.001 ? 1 : (int64_t)(seconds * 1000);
}

static void encode(lua_State *L, int idx, struct ml_buf *out)
{
    luaL_checktype(L, idx, LUA_TTABLE);
    ml_lua_to_json(L, idx, out);
    if (out->failed)
        luaL_error(L, "a session's part is larger than %d bytes", PART_MAX);
}

/* The index table on top of the stack; its texts stay alive through the argument. */
static size_t take_index(lua_State *L, struct ml_str kinds[], struct ml_str values[])
{
    static const char *const names[] = {"user", "subject", "sid"};
    size_t n = 0;
    if (lua_isnil(L, -1))
        return 0;
    luaL_checktype(L, -1, LUA_TTABLE);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        lua_pushstring(L, names[i]);
        lua_rawget(L, -2);
        if (!lua_isnil(L, -1)) {
            kinds[n] = ml_str_z(names[i]);
            values[n++] = ml_vm_check_text(L, lua_gettop(L));
        }
        lua_pop(L, 1);
    }
    return n;
}

static void push_field(lua_State *L, const char *name)
{
    lua_pushstring(L, name);
    lua_rawget(L, 1);
}

/* Calls --------------------------------------------------------------------------------------- */

static int k_create(lua_State *L, int status, lua_KContext ctx)
{
    struct wait *w = wait_of(ctx);
    if (w->reply.error)
        return push_nil(L, w->why);
    lua_pushlstring(L, w->reply.id, ML_SESSION_ID);
    return 1;
}

static int l_create(lua_State *L)
{
    struct ml_vm *vm = ml_vm_check_live(L);
    struct ml_str kinds[ML_SESSION_INDEX_MAX], values[ML_SESSION_INDEX_MAX];
    struct ml_session_new what = {.kinds = kinds, .values = values};
    const char *why = "";
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    push_field(L, "open");
    push_field(L, "tokens");
    push_field(L, "lifetime");
    what.lifetime_ms = check_ms(L, 4, LIFE_MAX);
    push_field(L, "idle");
    what.idle_ms = lua_isnil(L, 5) ? 0 : check_ms(L, 5, LIFE_MAX);
    push_field(L, "index");
    what.index_count = take_index(L, kinds, values);
    struct wait *w = wait_new(L, vm, "session_create", &why);
    if (!w)
        return push_nil(L, why);
    encode(L, 2, &w->open);
    encode(L, 3, &w->closed);
    what.open = ml_buf_str(&w->open);
    what.closed = ml_buf_str(&w->closed);
    ml_session_create(start(w), &what, on_reply, w);
    return finish(L, w, k_create);
}

static int push_hit(lua_State *L, struct ml_entry *e)
{
    lua_pushliteral(L, "hit");
    ml_vm_push_entry(L, e);
    return 2;
}

static int k_read(lua_State *L, int status, lua_KContext ctx)
{
    struct wait *w = wait_of(ctx);
    struct ml_entry *e = w->reply.entry;
    if (w->reply.error)
        return push_failed(L, w->why);
    if (!e) {
        lua_pushliteral(L, "none");
        return 1;
    }
    w->reply.entry = NULL;
    return push_hit(L, e);
}

static int l_read(lua_State *L)
{
    struct ml_vm *vm = ml_vm_check_live(L);
    struct ml_str id = ml_vm_check_text(L, 1);
    struct ml_session_seat *seat = vm->script->options.sessions;
    const char *why = "";
    struct ml_entry *e = seat ? ml_session_cached(seat, id) : NULL;
    if (e)
        return push_hit(L, e);
    struct wait *w = wait_new(L, vm, "session_read", &why);
    if (!w)
        return push_failed(L, why);
    ml_session_read(start(w), id, on_reply, w);
    return finish(L, w, k_read);
}

static int k_tokens(lua_State *L, int status, lua_KContext ctx)
{
    struct wait *w = wait_of(ctx);
    struct ml_err err = {.text = ""};
    if (w->reply.error)
        return push_nil_failed(L, w->why);
    if (!w->reply.found)
        return push_nil(L, "none");
    if (ml_lua_push_json(L, ml_buf_str(&w->closed), &err) != ML_OK)
        return luaL_error(L, "a session's tokens are no JSON: %s", err.text);
    lua_pushinteger(L, (lua_Integer)w->reply.revision);
    return 2;
}

static int l_tokens(lua_State *L)
{
    struct ml_vm *vm = ml_vm_check_live(L);
    struct ml_str id = ml_vm_check_text(L, 1);
    const char *why = "";
    struct wait *w = wait_new(L, vm, "session_tokens", &why);
    if (!w)
        return push_nil_failed(L, why);
    ml_session_tokens(start(w), id, on_reply, w);
    return finish(L, w, k_tokens);
}

static int k_replace(lua_State *L, int status, lua_KContext ctx)
{
    struct wait *w = wait_of(ctx);
    if (w->reply.error)
        return push_nil_failed(L, w->why);
    if (!w->reply.found)
        return push_nil(L, w->reply.conflict ? "conflict" : "none");
    lua_pushboolean(L, true);
    return 1;
}

static int l_replace(lua_State *L)
{
    struct ml_vm *vm = ml_vm_check_live(L);
    struct ml_str id = ml_vm_check_text(L, 1);
    lua_Integer revision = luaL_checkinteger(L, 2);
    const char *why = "";
    lua_settop(L, 4);
    struct wait *w = wait_new(L, vm, "session_replace", &why);
    if (!w)
        return push_nil_failed(L, why);
    encode(L, 3, &w->open);
    encode(L, 4, &w->closed);
    ml_session_replace(start(w), id, (uint64_t)revision, ml_buf_str(&w->open),
                       ml_buf_str(&w->closed), on_reply, w);
    return finish(L, w, k_replace);
}

static int k_delete(lua_State *L, int status, lua_KContext ctx)
{
    struct wait *w = wait_of(ctx);
    if (w->reply.error)
        return push_nil(L, w->why);
    lua_pushboolean(L, true);
    return 1;
}

static int l_delete(lua_State *L)
{
    struct ml_vm *vm = ml_vm_check_live(L);
    struct ml_str id = ml_vm_check_text(L, 1);
    const char *why = "";
    struct wait *w = wait_new(L, vm, "session_delete", &why);
    if (!w)
        return push_nil(L, why);
    ml_session_delete(start(w), id, on_reply, w);
    return finish(L, w, k_delete);
}

static int k_lock(lua_State *L, int status, lua_KContext ctx)
{
    struct wait *w = wait_of(ctx);
    if (w->reply.error)
        return push_failed(L, w->why);
    lua_pushstring(L, w->reply.found ? "ours" : "taken");
    return 1;
}

static int l_lock(lua_State *L)
{
    struct ml_vm *vm = ml_vm_check_live(L);
    struct ml_str id = ml_vm_check_text(L, 1);
    uint32_t ms = (uint32_t)check_ms(L, 2, LOCK_MAX);
    const char *why = "";
    struct wait *w = wait_new(L, vm, "session_lock", &why);
    if (!w)
        return push_failed(L, why);
    ml_session_lock(start(w), id, ms, on_reply, w);
    return finish(L, w, k_lock);
}

static int l_unlock(lua_State *L)
{
    struct ml_vm *vm = ml_vm_check_live(L);
    struct ml_str id = ml_vm_check_text(L, 1);
    if (vm->script->options.sessions)
        ml_session_unlock(vm->script->options.sessions, id);
    return 0;
}

static int k_kill(lua_State *L, int status, lua_KContext ctx)
{
    struct wait *w = wait_of(ctx);
    if (w->reply.error)
        return push_nil(L, w->why);
    lua_pushinteger(L, (lua_Integer)w->reply.count);
    return 1;
}

static int l_kill(lua_State *L)
{
    static const char *const kinds[] = {"user", "subject", "sid", NULL};
    struct ml_vm *vm = ml_vm_check_live(L);
    ml_vm_check_text(L, 1);
    int kind = luaL_checkoption(L, 1, NULL, kinds);
    struct ml_str value = ml_vm_check_text(L, 2);
    const char *why = "";
    struct wait *w = wait_new(L, vm, "session_kill", &why);
    if (!w)
        return push_nil(L, why);
    ml_session_kill(start(w), ml_str_z(kinds[kind]), value, on_reply, w);
    return finish(L, w, k_kill);
}

void ml_lib_session(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"session_create", l_create},   {"session_read", l_read},     {"session_tokens", l_tokens},
        {"session_replace", l_replace}, {"session_delete", l_delete}, {"session_lock", l_lock},
        {"session_unlock", l_unlock},   {"session_kill", l_kill},     {NULL, NULL},
    };
    luaL_setfuncs(L, functions, 0);
}
