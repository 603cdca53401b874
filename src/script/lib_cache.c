/* host.begin settle cache_get cache_set cache_delete: the identity cache and its single flights.
 *
 * Of all runs, on all workers, that begin the same key, one leads and holds a ticket; the others
 * wait. A ticket lands exactly once: settled, closed, collected, or when its run ends. Who waits is
 * woken on the leader's thread: the wake posts a letter to the waiter's own mailbox, and only there
 * the await is touched. */
#include "script/internal.h"

#include "base/clock.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { SCOPE_MAX = 256, WHY_MAX = 255, TTL_MAX = 366 * 86400 };

static const char ticket_type[] = "moonlatch.ticket";

/* The way from a flight to an await. Belongs to the waiter's worker, but between wake and letter to
 * the leader's. */
struct waiter {
    struct ml_waiter waiter;
    struct ml_letter letter;
    struct ml_mailbox *mailbox;
    struct ml_script *script;
    struct wait *wait; /* NULL: it has given up */
    struct ml_entry *entry;
    bool failed;
    char failure[WHY_MAX + 1];
};

struct wait {
    struct ml_await await;
    struct waiter *waiter; /* NULL once it has landed */
    struct ml_flights *flights;
    struct ml_digest key;
    struct ml_entry *entry; /* result */
    bool failed;
    char failure[WHY_MAX + 1];
};

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

/* The letter, on the waiter's worker. */
static void on_letter(struct ml_letter *letter)
{
    struct waiter *w = ML_CONTAINER(letter, struct waiter, letter);
    struct wait *wait = w->wait;
    if (wait) {
        wait->waiter = NULL;
        wait->entry = w->entry;
        wait->failed = w->failed;
        memcpy(wait->failure, w->failure, sizeof wait->failure);
        ml_await_complete(&wait->await);
        ml_await_unref(&wait->await);
    } else {
        ml_entry_unref(w->entry);
        w->script->stats.stale++;
    }
    ml_script_unpin(w->script);
    free(w);
}

/* On the leader's thread. A closed mailbox: the worker is gone, and with it who would free this. */
static void on_wake(struct ml_waiter *waiter, struct ml_entry *entry, const char *failure)
{
    struct waiter *w = ML_CONTAINER(waiter, struct waiter, waiter);
    w->entry = entry;
    w->failed = failure != NULL;
    snprintf(w->failure, sizeof w->failure, "%s", failure ? failure : "");
    w->letter.read = on_letter;
    if (!ml_mailbox_post(w->mailbox, &w->letter)) {
        ml_entry_unref(entry);
        free(w);
    }
}

/* Left in time, nobody wakes us; else the letter is on its way and finds that nobody waits. */
static void leave(struct ml_await *a)
{
    struct wait *wait = (struct wait *)a;
    struct waiter *w = wait->waiter;
    wait->waiter = NULL;
    if (ml_flight_leave(wait->flights, &wait->key, &w->waiter)) {
        ml_script_unpin(w->script);
        free(w);
    } else {
        w->wait = NULL;
    }
    ml_await_unref(a);
}

static void free_wait(struct ml_await *a)
{
    struct wait *wait = (struct wait *)a;
    ml_entry_unref(wait->entry);
    free(wait);
}

void ml_ticket_abandon(struct ml_ticket *t)
{
    if (!t->link)
        return;
    *t->link = t->next;
    if (t->next)
        t->next->link = t->link;
    t->link = NULL;
    ml_flight_land(t->flights, &t->key, NULL, NULL);
}

static void land(struct ml_ticket *t, struct ml_entry *e, const char *failure)
{
    *t->link = t->next;
    if (t->next)
        t->next->link = t->link;
    t->link = NULL;
    ml_flight_land(t->flights, &t->key, e, failure);
}

static int ticket_close(lua_State *L)
{
    ml_ticket_abandon(luaL_checkudata(L, 1, ticket_type));
    return 0;
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

static struct ml_ticket *new_ticket(lua_State *L, struct ml_vm *vm, const struct ml_digest *key)
{
    struct ml_ticket *t = lua_newuserdatauv(L, sizeof *t, 0);
    t->link = NULL;
    luaL_setmetatable(L, ticket_type);
    t->flights = vm->script->options.flights;
    t->key = *key;
    return t;
}

static struct wait *new_wait(lua_State *L, struct ml_vm *vm, const struct ml_digest *key)
{
    struct wait *wait = ml_await_new(L, sizeof *wait, leave, free_wait);
    wait->flights = vm->script->options.flights;
    wait->key = *key;
    struct waiter *w = ML_NEW(struct waiter);
    w->waiter.wake = on_wake;
    w->mailbox = vm->script->options.mailbox;
    w->script = vm->script;
    w->wait = wait;
    wait->waiter = w;
    return wait;
}

static int begin(lua_State *L);

static int k_begin(lua_State *L, int status, lua_KContext ctx)
{
    struct wait *wait = (struct wait *)(intptr_t)ctx;
    struct ml_entry *e = wait->entry;
    wait->entry = NULL;
    if (e)
        return push_found(L, e);
    return wait->failed ? push_failed(L, wait->failure) : begin(L);
}

/* It leads: whoever led before may have settled between our look at the cache and our lead. */
static int lead(lua_State *L, struct ml_vm *vm, struct ml_ticket *t, int ticket)
{
    t->next = vm->run->tickets;
    t->link = &vm->run->tickets;
    if (t->next)
        t->next->link = &t->next;
    vm->run->tickets = t;
    struct ml_entry *e = ml_cache_get(vm->script->options.cache, &t->key);
    if (e) {
        land(t, e, NULL);
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

/* Arguments are at 1 to 3. Boxes come first: nothing is owned by C when one of them raises. */
static int begin(lua_State *L)
{
    struct ml_vm *vm = ml_vm_check_live(L);
    struct ml_script *s = vm->script;
    struct ml_digest key = check_key(L, vm);
    lua_settop(L, 3);
    struct ml_entry *e = ml_cache_get(s->options.cache, &key);
    if (e)
        return push_found(L, e);
    check_own_lead(L, vm->run, &key);
    struct ml_ticket *t = new_ticket(L, vm, &key);
    struct wait *wait = new_wait(L, vm, &key);
    struct waiter *w = wait->waiter;
    switch (ml_flight_join(s->options.flights, &key, &w->waiter)) {
    case ML_FLIGHT_LEAD:
        wait->waiter = NULL;
        free(w);
        return lead(L, vm, t, 4);
    case ML_FLIGHT_FULL:
        wait->waiter = NULL;
        free(w);
        return push_failed(L, "too many requests wait");
    case ML_FLIGHT_WAIT:
        break;
    }
    ml_script_pin(s);
    ml_await_ref(&wait->await); /* the flight's */
    return ml_await_yield(L, &wait->await, k_begin);
}

static int l_begin(lua_State *L)
{
    struct ml_vm *vm = ml_vm_check_live(L);
    struct ml_digest key = check_key(L, vm);
    struct ml_entry *e = ml_cache_get(vm->script->options.cache, &key);
    if (e)
        return push_found(L, e);
    return ml_await_allowed(L, "begin") ? begin(L) : push_failed(L, "too many requests wait");
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

/* Encodes the value at idx, keeps it for ttl. The new entry hangs on vm->held. */
static struct ml_entry *store(lua_State *L, struct ml_vm *vm, const struct ml_digest *key,
                              enum ml_entry_kind kind, struct ml_str bytes, int64_t ttl_ms,
                              int64_t exp_ms)
{
    int64_t now = ml_wall_ms(), expires = ml_cache_expiry(now, ttl_ms, exp_ms);
    struct ml_entry *e = ml_entry_new(kind, bytes, expires);
    if (!e)
        luaL_error(L, "not enough memory");
    ml_entry_unref(vm->held);
    vm->held = e;
    if (ttl_ms > 0 && expires > now)
        ml_cache_put(vm->script->options.cache, key, e);
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
    struct ml_entry *e = store(L, vm, &t->key, ML_ENTRY_CLAIMS, encode(L, vm, 3), ttl, expires);
    land(t, e, NULL);
    ml_vm_push_entry(L, ml_entry_ref(e));
    return 1;
}

static int l_settle(lua_State *L)
{
    static const char *const outcomes[] = {"accept", "refuse", "fail", NULL};
    struct ml_vm *vm = ml_vm_check_live(L);
    struct ml_ticket *t = luaL_checkudata(L, 1, ticket_type);
    int outcome = luaL_checkoption(L, 2, NULL, outcomes);
    if (!t->link)
        return luaL_error(L, "this ticket is closed");
    if (outcome == 0)
        return settle_accept(L, vm, t);
    struct ml_str why = ml_vm_check_text(L, 3);
    why.n = why.n < WHY_MAX ? why.n : WHY_MAX;
    if (outcome == 1)
        land(t, store(L, vm, &t->key, ML_ENTRY_REFUSAL, why, check_ms(L, 4), 0), NULL);
    else
        land(t, NULL, why.p);
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
    struct ml_digest key = check_key(L, vm);
    int64_t ttl = check_ms(L, 5);
    store(L, vm, &key, ML_ENTRY_CLAIMS, encode(L, vm, 4), ttl, 0);
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
    static const luaL_Reg type[] = {
        {"__gc", ticket_close}, {"__close", ticket_close}, {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
    ml_vm_new_type(L, ticket_type, type);
    lua_pop(L, 1);
}
