/* Leads and waits of the cache's single flights.
 *
 * A ticket is a lead: it lands exactly once, settled, closed, collected, or when its run ends. Who
 * waits is woken on the leader's thread: the wake posts a letter to the waiter's own mailbox, and
 * only there the await is touched. */
#include "script/internal.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

static const char ticket_type[] = "moonlatch.ticket";

/* The way from a flight to an await. Belongs to the waiter's worker, but between wake and letter to
 * the leader's. */
struct waiter {
    struct ml_waiter waiter;
    struct ml_letter letter;
    struct ml_mailbox *mailbox;
    struct ml_script *script;
    struct ml_flight_wait *wait; /* NULL: it has given up */
    struct ml_entry *entry;
    bool failed;
    char failure[ML_WHY_MAX + 1];
};

/* The letter, on the waiter's worker. */
static void on_letter(struct ml_letter *letter)
{
    struct waiter *w = ML_CONTAINER(letter, struct waiter, letter);
    struct ml_flight_wait *wait = w->wait;
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
    struct ml_flight_wait *wait = (struct ml_flight_wait *)a;
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
    struct ml_flight_wait *wait = (struct ml_flight_wait *)a;
    ml_entry_unref(wait->entry);
    free(wait);
}

struct ml_flight_wait *ml_flight_wait_new(lua_State *L, struct ml_vm *vm,
                                          const struct ml_digest *key)
{
    struct ml_flight_wait *wait = ml_await_new(L, sizeof *wait, leave, free_wait);
    wait->flights = vm->script->options.flights;
    wait->key = *key;
    return wait;
}

enum ml_flight_role ml_flight_wait_join(struct ml_flight_wait *wait)
{
    struct waiter *w = ML_NEW(struct waiter);
    w->waiter.wake = on_wake;
    w->script = wait->await.script;
    w->mailbox = w->script->options.mailbox;
    w->wait = wait;
    enum ml_flight_role role = ml_flight_join(wait->flights, &wait->key, &w->waiter);
    if (role == ML_FLIGHT_WAIT) {
        wait->waiter = w;
        ml_script_pin(w->script);
        ml_await_ref(&wait->await);
    } else {
        free(w);
    }
    return role;
}

struct ml_ticket *ml_ticket_new(lua_State *L, struct ml_vm *vm, const struct ml_digest *key)
{
    struct ml_ticket *t = lua_newuserdatauv(L, sizeof *t, 0);
    t->link = NULL;
    luaL_setmetatable(L, ticket_type);
    t->flights = vm->script->options.flights;
    t->key = *key;
    return t;
}

struct ml_ticket *ml_ticket_check(lua_State *L, int idx)
{
    return luaL_checkudata(L, idx, ticket_type);
}

void ml_ticket_lead(struct ml_ticket *t, struct ml_run *run)
{
    t->next = run->tickets;
    t->link = &run->tickets;
    if (t->next)
        t->next->link = &t->next;
    run->tickets = t;
}

void ml_ticket_land(struct ml_ticket *t, struct ml_entry *e, const char *failure)
{
    if (!t->link)
        return;
    *t->link = t->next;
    if (t->next)
        t->next->link = t->link;
    t->link = NULL;
    ml_flight_land(t->flights, &t->key, e, failure);
}

static int ticket_close(lua_State *L)
{
    ml_ticket_land(ml_ticket_check(L, 1), NULL, NULL);
    return 0;
}

void ml_ticket_type(lua_State *L)
{
    static const luaL_Reg type[] = {
        {"__gc", ticket_close}, {"__close", ticket_close}, {NULL, NULL}};
    ml_vm_new_type(L, ticket_type, type);
    lua_pop(L, 1);
}
