/* What the files of script/ share: the structures behind vm.h, and how they are used together.
 *
 * Ownership: a VM owns its coroutines and Lua references; a run borrows a coroutine from it; an
 * await is counted (the box in Lua, the operation in C, the ready list) and is the only thing that
 * an operation's callback knows: a run that has ended has cut its awaits off (run == NULL), so that
 * a late or second completion finds nobody. All of it belongs to one worker's thread, but for
 * struct ml_meter, which the watchdog reads. */
#pragma once

#include "script/heap.h"
#include "script/libs.h"
#include "script/vm.h"

#include <lauxlib.h>
#include <stdatomic.h>

enum {
    ML_WAITS_MAX = 2048,      /* runs of one ml_script that wait at the same time */
    ML_POOL_MAX = 128,        /* idle coroutines that a VM keeps */
    ML_TASKS_MAX = 32,        /* background tasks of a policy */
    ML_PROVIDERS_MAX = 32,    /* providers of a policy */
    ML_OWNED_MAX = 256,       /* header names of a policy */
    ML_MEMO_SLOTS = 1024,     /* decoded values that a VM keeps; a power of two */
    ML_MEMO_VALUE = 64 << 10, /* bytes of JSON past which a value is not kept decoded */
    ML_ORIGINS_MAX = 64,      /* upstreams made for a bare URL */
    ML_WHY_MAX = 255,         /* bytes of a refusal's or failure's reason */
    ML_BUNDLE_FILES = 64,
    ML_FILE_BYTES = 1 << 20, /* of a file that Lua reads */
    ML_ERROR_TEXT = 500,     /* bytes of an error's text that are kept */
};

/* budget.c: what the watchdog sees of a thread that runs Lua. */
struct ml_meter {
    struct ml_meter *next, **link; /* under the watchdog's lock */
    _Atomic uint64_t sequence;     /* odd while Lua runs: names the stretch */
    _Atomic uint64_t asked;        /* the stretch that the watchdog wants to end */
    _Atomic uint64_t limit_ns;     /* CPU of this stretch */
    _Atomic(pthread_t) thread;
    _Atomic(lua_State *) running; /* for the signal handler, on the same thread */
    _Atomic bool killed;
    uint64_t armed_ns;               /* when the hook was armed; this thread's */
    uint64_t latest, seen, seen_cpu; /* the watchdog's own */
};
/* false: the watchdog does not run, and nothing may run without it. */
bool ml_meter_open(struct ml_meter *m);
void ml_meter_close(struct ml_meter *m);
/* Around everything that runs Lua code. Not nested. */
void ml_meter_enter(struct ml_meter *m, lua_State *L, uint64_t limit_ns);
/* true: the stretch was killed; whatever it brought does not count. */
bool ml_meter_leave(struct ml_meter *m, lua_State *L);

enum ml_kill { ML_KILL_NONE, ML_KILL_CPU, ML_KILL_CALLS };
/* Ends the run on L from within a host function: raises what pcall does not catch. */
_Noreturn void ml_budget_kill(lua_State *L);

struct ml_origin {
    char *text; /* "https://idp:443" */
    struct ml_upstream *upstream;
    uint64_t used; /* larger is later */
};

struct ml_script {
    struct ml_script_options options;
    struct ml_script_stats stats;
    struct ml_meter meter;
    struct ml_run *live, *idle;
    struct ml_await *ready, **ready_end;
    uv_check_t check;
    uv_idle_t spin; /* while something is ready the loop must not sleep */
    unsigned pins;  /* open handles and letters on their way: the memory stays until 0 */
    unsigned vms;
    uint64_t numbers; /* of runs, never used twice */
    struct ml_origin origins[ML_ORIGINS_MAX];
    uint64_t origin_clock;
    uint64_t clock_read_ns,
        clock_cpu_ns;              /* when the thread's CPU clock was read last, and its value */
    uint64_t log_second, log_held; /* errors logged in this second; not logged since */
    unsigned logged;
    bool closing;
    void (*closed)(void *ctx);
    void *ctx;
};
/* Keeps s in memory while a handle or a letter of it is out. */
void ml_script_pin(struct ml_script *s);
void ml_script_unpin(struct ml_script *s);
/* Logs a policy's failure at ERROR, at most ten a second. */
void ml_script_log_error(struct ml_script *s, const struct ml_vm *vm, struct ml_str id,
                         const char *text);

struct ml_coroutine {
    lua_State *L;
    int ref;
};

struct ml_vm {
    struct ml_script *script;
    struct ml_bundle *bundle;
    lua_State *L;       /* the main state: nothing waits on it */
    struct ml_run *run; /* what executes now, or NULL */
    struct ml_heap heap;
    unsigned refs, anchors;
    uint64_t generation;
    size_t used,
        refused;    /* bytes; size of the last allocation refused for the whole state's bound */
    bool exhausted; /* refused even after a collection */
    bool loading, poisoned, closing;
    int decide, answer;    /* answer: LUA_REFNIL in a policy without places, and calling it fails */
    const void *plan_type; /* identity of the plan metatable */
    const void *last_plan; /* a plan that was checked */
    int request_type;      /* the metatable of requests */
    struct ml_coroutine pool[ML_POOL_MAX];
    unsigned pooled;
    struct {
        uint64_t
            id; /* of the entry whose decoded value stands in the table memo at slot + 1; 0: none */
        size_t n;
    } memo_slots[ML_MEMO_SLOTS];
    size_t memo_bytes; /* of JSON, of all slots: at most 1/32 of the state's memory */
    unsigned memo_hand;
    int memo;
    struct ml_buf scratch; /* of one host call */
    struct ml_entry *held; /* kept while a host call pushes it */
    char name[128];
    uint64_t timeout_ms; /* the policy's own, 0: none */
    struct ml_str *owned;
    size_t owned_count;
    char *providers[ML_PROVIDERS_MAX];
    unsigned provider_count;
    int tasks[ML_TASKS_MAX];
    unsigned task_count;
    unsigned upstreams; /* made while loading */
};

static inline struct ml_vm *ml_vm_of(lua_State *L)
{
    return *(struct ml_vm **)lua_getextraspace(L);
}
/* Pops the value on top into the registry (may raise); counted, so that tests see a leak. */
int ml_vm_anchor(lua_State *L);
void ml_vm_release(struct ml_vm *vm, int ref);
/* Runs fn(arg) protected on the main state, under the load budget when metered. A Lua status; the
 * error's text in text. */
int ml_vm_protect(struct ml_vm *vm, lua_CFunction fn, void *arg, bool metered,
                  char text[ML_ERROR_TEXT + 1]);
/* The error on top of L as text: bounded, no controls but line ends, no __tostring, no allocation.
 */
void ml_vm_error_text(lua_State *L, int status, char text[ML_ERROR_TEXT + 1]);
/* Pushes the decoded value of e (claims), the same table for the same entry while it is remembered.
 * Takes the reference. */
void ml_vm_push_entry(lua_State *L, struct ml_entry *e);
/* Raises unless the policy is being loaded. */
void ml_vm_check_loading(lua_State *L, const char *what);
/* The VM, when what runs may still have an effect (loading, a live run); else raises. */
struct ml_vm *ml_vm_check_live(lua_State *L);
/* Raises unless idx is a string; the slice is Lua's. */
static inline struct ml_str ml_vm_check_text(lua_State *L, int idx)
{
    struct ml_str s;
    if (lua_type(L, idx) != LUA_TSTRING)
        luaL_checktype(L, idx, LUA_TSTRING);
    s.p = lua_tolstring(L, idx, &s.n);
    return s;
}
/* A metatable "moonlatch.NAME" with these functions and no way to see it from Lua; pops nothing,
 * pushes it. */
void ml_vm_new_type(lua_State *L, const char *name, const luaL_Reg *functions);
/* load.c: both take a light userdata; see there. */
int ml_load_open(lua_State *L); /* struct ml_vm */
struct ml_load {
    struct ml_vm *vm;
    struct ml_buf *report;
    bool check;
    lua_Integer errors, warnings;
};
int ml_load_run(lua_State *L); /* struct ml_load */

/* bundle.c: the text of NAME.lua beside the policy; false when there is none. Texts live as long as
 * the bundle. */
bool ml_bundle_module(const struct ml_bundle *b, struct ml_str name, const char **ret_file,
                      struct ml_str *ret);
struct ml_str ml_bundle_source(const struct ml_bundle *b);
/* library.c: the bytecode of a module, by the name that require() takes; false when there is none.
 */
bool ml_library_code(const struct ml_library *library, struct ml_str name, struct ml_str *ret);
/* Appends the content of a regular file of at most ML_FILE_BYTES to out; a FIFO or device is
 * refused, not waited for. */
int ml_file_read(const char *path, struct ml_buf *out, struct ml_err *err);

struct ml_ticket {
    struct ml_ticket *next, **link; /* of the run that leads; link == NULL: landed */
    struct ml_flights *flights;
    struct ml_digest key;
    uint64_t purges; /* of the cache, when it began to lead */
    uint32_t tag;    /* of its credential, see struct ml_entry */
};
/* ticket.c */
struct ml_ticket *ml_ticket_new(lua_State *L, struct ml_vm *vm, const struct ml_digest *key);
struct ml_ticket *ml_ticket_check(lua_State *L, int idx);
void ml_ticket_lead(struct ml_ticket *t, struct ml_run *run);
/* With neither entry nor failure: gives up, and the next one leads. Nothing when it has landed
 * before. */
void ml_ticket_land(struct ml_ticket *t, struct ml_entry *e, const char *failure);
void ml_ticket_type(lua_State *L);

struct ml_run {
    struct ml_run *next, **link; /* live or idle */
    struct ml_script *script;
    struct ml_vm *vm;
    struct ml_coroutine co;
    uint64_t number; /* names the run in what Lua keeps of it */
    int function;
    bool task;   /* a background task: no request, no deadline, no bound on calls */
    bool waited; /* at least once */
    bool raised; /* a task that waits to be started again */
    enum ml_kill kill;
    const struct ml_request *request;
    uint64_t deadline_ms; /* 0: not asked for yet */
    struct ml_decision *d;
    void (*done)(void *arg);
    void *arg;
    const void *box; /* address of the request userdata, which its coroutine's stack holds */
    struct ml_await *await;
    struct ml_ticket *tickets;
    uint64_t cpu_ns;
    unsigned calls, logs;
    uv_timer_t timer; /* deadline, or a task's pause; open once has_timer */
    bool has_timer;
};
/* request.c: pushes the request userdata of run; makes its type. */
void ml_request_push(lua_State *L, struct ml_run *run);
void ml_request_type(lua_State *L);
/* The method of requests, which is a host function as well: finding a method costs more than it. */
int ml_request_credential(lua_State *L);
/* host.cookie: what req.cookies says, without making that. */
int ml_request_cookie(lua_State *L);

/* await.c: one wait of one run. The operation embeds it first. */
struct ml_await {
    unsigned refs;
    struct ml_await *next; /* ready list */
    struct ml_script *script;
    struct ml_run *run; /* NULL: nobody waits any more */
    bool started, done;
    /* The wait is dropped: stop the operation and unref what it held. */
    void (*cancel)(struct ml_await *a);
    void (*free)(struct ml_await *a);
};
/* Whether this coroutine may wait now: raises "cannot wait here"; false: too many wait. Counts a
 * host call. */
bool ml_await_allowed(lua_State *L, const char *what);
/* Pushes a box that owns a new await of `size` bytes (zeroed). Raises without leaking. */
void *ml_await_new(lua_State *L, size_t size, void (*cancel)(struct ml_await *),
                   void (*free)(struct ml_await *));
/* The await of the box at idx. */
void *ml_await_check(lua_State *L, int idx);
/* Empties the box at idx before its collection: the wait is over, nobody looks into it again. */
void ml_await_release(lua_State *L, int idx);
/* Suspends until completion; always `return ml_await_yield(...)`. The operation runs already and
 * holds a reference. */
int ml_await_yield(lua_State *L, struct ml_await *a, lua_KFunction k);
struct ml_await *ml_await_ref(struct ml_await *a);
void ml_await_unref(struct ml_await *a);
/* From the operation's callback: the run goes on soon, from the ready list. Touches no Lua. */
void ml_await_complete(struct ml_await *a);
/* The run ends: nobody waits for a any more. */
void ml_await_drop(struct ml_await *a);
void ml_await_type(lua_State *L);

/* ticket.c: a wait for what another run, on any worker, finds out. */
struct ml_flight_wait {
    struct ml_await await;
    struct waiter *waiter; /* NULL once the answer is here */
    struct ml_flights *flights;
    struct ml_digest key;
    struct ml_entry *entry; /* the answer: an entry, a failure, or neither: the leader gave up */
    bool failed;
    char failure[ML_WHY_MAX + 1];
};
struct ml_flight_wait *ml_flight_wait_new(lua_State *L, struct ml_vm *vm,
                                          const struct ml_digest *key);
enum ml_flight_role ml_flight_wait_join(struct ml_flight_wait *wait);

/* lib_config.c: the upstream userdata at idx. */
struct ml_upstream *ml_upstream_check(lua_State *L, int idx);

/* sched.c */
void ml_script_ready(struct ml_script *s, struct ml_await *a);
struct ml_run *ml_run_take(struct ml_script *s);
void ml_run_give(struct ml_run *run);
/* The timer of a run fires once after ms. */
void ml_run_timer(struct ml_run *run, uint64_t ms);
/* run.c */
void ml_run_resume(struct ml_run *run);
void ml_run_on_timer(struct ml_run *run);
/* ml_mono_ms() at which a decision is late: the request's deadline or, if earlier, the policy's
 * timeout. */
uint64_t ml_run_deadline(struct ml_run *run);
/* Returns the coroutine and its leads; the run's own memory stays. clean: it ended by itself. */
void ml_run_detach(struct ml_run *run, bool clean);
