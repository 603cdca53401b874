/* host.begin settle cache_get cache_set cache_delete: the identity cache and its single flights.
 *
 * Of all runs, on all workers, that begin the same key, one leads and holds a ticket; the others
 * wait (ticket.c). Runs on the worker's thread. */
#include "script/internal.h"

#include "base/clock.h"

#include <math.h>

enum { SCOPE_MAX = 256, TTL_MAX = 366 * 86400 };

static struct ml_digest check_key(lua_State *L, struct ml_vm *vm)
{
    struct ml_digest key;
    struct ml_str parts[] = {ml_vm_check_text(L, 1), ml_vm_check_text(L, 2),
                             ml_vm_check_text(L, 3)};
    if (parts[0].n > SCOPE_MAX || parts[1].n > SCOPE_MAX)
        luaL_error(L, "scope and name have at most %d bytes", SCOPE_MAX);
    if (!ml_keyed_hash(vm->script->options.cache_secret, parts, 3, &key))
        luaL_error(L, "the key cannot be hashed");
    return key;
}

/* Pushes an entry as begin's results. Takes the reference. */
static int push_found(lua_State *L, struct ml_entry *e)
{
    if (e->kind == ML_ENTRY_CLAIMS) {
        lua_pushliteral(L, "hit");
        ml_vm_push_entry(L, e);
        return 2;
    }
    struct ml_vm *vm = ml_vm_of(L);
    ml_entry_unref(vm->held);
    vm->held = e;
    lua_pushliteral(L, "refused");
    lua_pushlstring(L, e->bytes, e->n);
    return 2;
}

static int push_failed(lua_State *L, const char *why)
{
    lua_pushliteral(L, "failed");
    lua_pushstring(L, why);
    return 2;
}

static int begin(lua_State *L, struct ml_vm *vm, const struct ml_digest *key);

static int k_begin(lua_State *L, int status, lua_KContext ctx)
{
    struct ml_flight_wait *wait = (struct ml_flight_wait *)(intptr_t)ctx;
    struct ml_entry *e = wait->entry;
    wait->entry = NULL;
    if (e)
        return push_found(L, e);
    if (wait->failed)
        return push_failed(L, wait->failure);
    struct ml_digest key = wait->key;
    lua_settop(L, 3); /* drops the wait */
    return begin(L, ml_vm_check_live(L), &key);
}

/* It leads: whoever led before may have settled between our look at the cache and our lead. */
static int lead(lua_State *L, struct ml_vm *vm, struct ml_ticket *t, int ticket)
{
    t->purges = ml_cache_purges(vm->script->options.cache);
    t->tag = ml_cache_tag(ml_vm_check_text(L, 3));
    ml_ticket_lead(t, vm->run);
    struct ml_entry *e = ml_cache_get(vm->script->options.cache, &t->key);
    if (e) {
        ml_ticket_land(t, e, NULL);
        return push_found(L, e);
    }
    lua_pushliteral(L, "lead");
    lua_pushvalue(L, ticket);
    return 2;
}

static void check_own_lead(lua_State *L, struct ml_run *run, const struct ml_digest *key)
{
    for (struct ml_ticket *t = run->tickets; t; t = t->next)
        if (memcmp(&t->key, key, sizeof *key) == 0)
            luaL_error(L, "begin: this request leads that key already");
}

/* Arguments are at 1 to 3. Boxes come first: nothing is owned by C when one of them raises. Most
 * lead, and need nothing to wait with. */
static int begin(lua_State *L, struct ml_vm *vm, const struct ml_digest *key)
{
    struct ml_flight_wait *wait = NULL;
    check_own_lead(L, vm->run, key);
    struct ml_ticket *t = ml_ticket_new(L, vm, key);
    enum ml_flight_role role = ml_flight_join(vm->script->options.flights, key, NULL);
    if (role == ML_FLIGHT_WAIT) {
        wait = ml_flight_wait_new(L, vm, key);
        role = ml_flight_wait_join(wait);
    }
    if (role == ML_FLIGHT_LEAD)
        return lead(L, vm, t, 4);
    if (role == ML_FLIGHT_FULL)
        return push_failed(L, "too many requests wait");
    return ml_await_yield(L, &wait->await, k_begin);
}

static int l_begin(lua_State *L)
{
    struct ml_vm *vm = ml_vm_check_live(L);
    struct ml_digest key = check_key(L, vm);
    struct ml_entry *e = ml_cache_get(vm->script->options.cache, &key);
    if (e)
        return push_found(L, e);
    if (!ml_await_allowed(L, "begin"))
        return push_failed(L, "too many requests wait");
    lua_settop(L, 3);
    return begin(L, vm, &key);
}

/* Seconds to milliseconds; NaN and infinity raise, more than a year is a year. */
static int64_t check_ms(lua_State *L, int idx)
{
    lua_Number seconds = luaL_checknumber(L, idx);
    luaL_argcheck(L, isfinite(seconds), idx, "a number of seconds is needed");
    seconds = seconds < 0 ? 0 : seconds > TTL_MAX ? TTL_MAX : seconds;
    return (int64_t)(seconds * 1000);
}

/* A moment in ms, at least 1: 0 means none. */
static int64_t check_expires(lua_State *L, int idx)
{
    lua_Number moment;
    if (lua_isnoneornil(L, idx))
        return 0;
    moment = luaL_checknumber(L, idx);
    luaL_argcheck(L, moment == moment, idx, "a moment is needed");
    if (moment > 1e11)
        return INT64_C(100000000000000);
    return moment < 0.001 ? 1 : (int64_t)(moment * 1000);
}

/* Keeps a new entry for ttl, unless there was a purge since t began; it hangs on vm->held. */
static struct ml_entry *store(lua_State *L, struct ml_vm *vm, const struct ml_ticket *t,
                              enum ml_entry_kind kind, struct ml_str bytes, int64_t ttl_ms,
                              int64_t exp_ms)
{
    int64_t now = ml_wall_ms(), expires = ml_cache_expiry(now, ttl_ms, exp_ms);
    struct ml_entry *e = ml_entry_new(kind, bytes, expires);
    if (!e) {
        luaL_error(L, "not enough memory");
        return NULL; /* for the analyser: not reached */
    }
    ml_entry_unref(vm->held);
    vm->held = e;
    e->tag = t->tag;
    if (ttl_ms > 0 && expires > now)
        ml_cache_put_since(vm->script->options.cache, &t->key, e, t->purges);
    return e;
}

static struct ml_str encode(lua_State *L, struct ml_vm *vm, int idx)
{
    luaL_checkany(L, idx);
    ml_buf_clear(&vm->scratch);
    ml_lua_to_json(L, idx, &vm->scratch);
    if (vm->scratch.failed)
        luaL_error(L, "the value is larger than 1 MiB");
    return ml_buf_str(&vm->scratch);
}

static int settle_accept(lua_State *L, struct ml_vm *vm, struct ml_ticket *t)
{
    int64_t ttl = check_ms(L, 4), expires = check_expires(L, 5);
    struct ml_entry *e = store(L, vm, t, ML_ENTRY_CLAIMS, encode(L, vm, 3), ttl, expires);
    ml_ticket_land(t, e, NULL);
    lua_pushvalue(L, 3); /* not decoded again: most tokens are new, or are asked about once */
    return 1;
}

static int l_settle(lua_State *L)
{
    static const char *const outcomes[] = {"accept", "refuse", "fail", NULL};
    struct ml_vm *vm = ml_vm_check_live(L);
    struct ml_ticket *t = ml_ticket_check(L, 1);
    int outcome = luaL_checkoption(L, 2, NULL, outcomes);
    if (!t->link)
        return luaL_error(L, "this ticket is closed");
    if (outcome == 0)
        return settle_accept(L, vm, t);
    struct ml_str why = ml_vm_check_text(L, 3);
    why.n = why.n < ML_WHY_MAX ? why.n : ML_WHY_MAX;
    if (outcome == 1)
        ml_ticket_land(t, store(L, vm, t, ML_ENTRY_REFUSAL, why, check_ms(L, 4), 0), NULL);
    else
        ml_ticket_land(t, NULL, why.p);
    return 0;
}

static int l_cache_get(lua_State *L)
{
    struct ml_vm *vm = ml_vm_check_live(L);
    struct ml_digest key = check_key(L, vm);
    struct ml_entry *e = ml_cache_get(vm->script->options.cache, &key);
    if (e && e->kind == ML_ENTRY_CLAIMS) {
        ml_vm_push_entry(L, e);
        return 1;
    }
    ml_entry_unref(e);
    return 0;
}

static int l_cache_set(lua_State *L)
{
    struct ml_vm *vm = ml_vm_check_live(L);
    struct ml_ticket t = {.key = check_key(L, vm)};
    int64_t ttl = check_ms(L, 5);
    t.purges = ml_cache_purges(vm->script->options.cache);
    store(L, vm, &t, ML_ENTRY_CLAIMS, encode(L, vm, 4), ttl, 0);
    return 0;
}

static int l_cache_delete(lua_State *L)
{
    struct ml_vm *vm = ml_vm_check_live(L);
    struct ml_digest key = check_key(L, vm);
    ml_cache_remove(vm->script->options.cache, &key);
    return 0;
}

void ml_lib_cache(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"begin", l_begin},
        {"settle", l_settle},
        {"cache_get", l_cache_get},
        {"cache_set", l_cache_set},
        {"cache_delete", l_cache_delete},
        {NULL, NULL},
    };
    luaL_setfuncs(L, functions, 0);
    ml_ticket_type(L);
}
