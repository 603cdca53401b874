/* CPU budgets that cost nothing until they are used up.
 *
 * A worker marks in its meter what it runs (two stores a stretch). The watchdog, one thread a
 * process, looks every 2 ms: when the same stretch has used more CPU of the worker's thread than it
 * may, it sends that thread SIGURG. The handler, on the worker's own thread, arms a hook on the
 * running state (lua_sethook is made for that). The hook lets the stretch go on for 2 ms more and
 * then marks it as killed, raises at each instruction and stays armed, so that no pcall gets away
 * with it. The respite is for a worker that a hypervisor stopped in the middle of an innocent
 * stretch: that time counts as the thread's own, and the first instructions afterwards end it.
 *
 * The meter's list belongs to the lock; its atomics to the worker, the handler and the watchdog. */
#include "script/internal.h"

#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

enum { LOOK_MS = 2, LOOK_IDLE_MS = 6, IDLE_LOOKS = 50, RESPITE_NS = 2000000 };

const struct ml_budget ml_default_budget = {
    .resume_cpu_ms = 10,
    .request_cpu_ms = 50,
    .load_cpu_ms = 400,
    .host_calls = 32,
    .memory = 16 << 20,
    .block = (1 << 20) + (64 << 10),
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t stop;
    pthread_t thread;
    struct ml_meter *meters;
    bool running, stopping;
} watchdog = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* What this thread runs, or ran last: the handler has nothing else to go by. */
static _Thread_local struct ml_meter *_Atomic current;
static char kill_mark;

static void on_hook(lua_State *L, lua_Debug *ar)
{
    struct ml_meter *m = atomic_load_explicit(&current, memory_order_relaxed);
    if (!atomic_load_explicit(&m->killed, memory_order_relaxed)) {
        if (ml_mono_ns() - m->armed_ns < RESPITE_NS)
            return;
        atomic_store_explicit(&m->killed, true, memory_order_relaxed);
    }
    lua_pushlightuserdata(L, &kill_mark);
    lua_error(L);
}

static void on_signal(int signal)
{
    struct ml_meter *m = atomic_load_explicit(&current, memory_order_relaxed);
    if (!m)
        return;
    lua_State *L = atomic_load_explicit(&m->running, memory_order_relaxed);
    /* A stretch that has ended since is not to be punished for the one before it. */
    if (!L || atomic_load(&m->sequence) != atomic_load(&m->asked))
        return;
    if (lua_gethookmask(L)) /* an earlier signal did */
        return;
    m->armed_ns = ml_mono_ns();
    lua_sethook(L, on_hook, LUA_MASKCOUNT | LUA_MASKLINE, 1);
}

void ml_meter_enter(struct ml_meter *m, lua_State *L, uint64_t limit_ns)
{
    ML_REQUIRE(!atomic_load_explicit(&m->running, memory_order_relaxed));
    atomic_store_explicit(&current, m, memory_order_relaxed);
    atomic_store_explicit(&m->thread, pthread_self(), memory_order_relaxed);
    atomic_store_explicit(&m->limit_ns, limit_ns, memory_order_relaxed);
    atomic_store_explicit(&m->killed, false, memory_order_relaxed);
    atomic_store_explicit(&m->running, L, memory_order_relaxed);
    uint64_t sequence = atomic_load_explicit(&m->sequence, memory_order_relaxed);
    atomic_store_explicit(&m->sequence, sequence + 1, memory_order_release);
}

bool ml_meter_leave(struct ml_meter *m, lua_State *L)
{
    uint64_t sequence = atomic_load_explicit(&m->sequence, memory_order_relaxed);
    atomic_store_explicit(&m->sequence, sequence + 1, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&m->running, NULL, memory_order_relaxed);
    if (lua_gethookmask(L))
        lua_sethook(L, NULL, 0, 0);
    return atomic_load_explicit(&m->killed, memory_order_relaxed);
}

bool ml_budget_killed(lua_State *L)
{
    struct ml_meter *m = atomic_load_explicit(&current, memory_order_relaxed);
    return m && atomic_load_explicit(&m->running, memory_order_relaxed) &&
           atomic_load_explicit(&m->killed, memory_order_relaxed);
}

_Noreturn void ml_budget_kill(lua_State *L)
{
    struct ml_meter *m = &ml_vm_of(L)->script->meter;
    atomic_store_explicit(&m->killed, true, memory_order_relaxed);
    lua_sethook(L, on_hook, LUA_MASKCOUNT | LUA_MASKLINE, 1);
    lua_pushlightuserdata(L, &kill_mark);
    lua_error(L);
    __builtin_unreachable();
}

/* CPU time of the meter's thread. The lock is held: a meter is closed before its thread ends. */
static bool thread_cpu(struct ml_meter *m, uint64_t *ret)
{
    clockid_t clock;
    struct timespec t;
    pthread_t thread = atomic_load_explicit(&m->thread, memory_order_relaxed);
    if (pthread_getcpuclockid(thread, &clock) != 0 || clock_gettime(clock, &t) != 0)
        return false;
    *ret = (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
    return true;
}

/* Whether anything has run there since the last look. */
static bool look_at(struct ml_meter *m)
{
    uint64_t cpu, sequence = atomic_load_explicit(&m->sequence, memory_order_acquire);
    bool active = sequence % 2 == 1 || sequence != m->latest;
    m->latest = sequence;
    if (sequence % 2 == 0 || !thread_cpu(m, &cpu))
        return active;
    if (sequence != m->seen) {
        m->seen = sequence;
        m->seen_cpu = cpu;
    } else if (cpu - m->seen_cpu > atomic_load_explicit(&m->limit_ns, memory_order_relaxed)) {
        atomic_store(&m->asked, sequence);
        pthread_kill(atomic_load_explicit(&m->thread, memory_order_relaxed), SIGURG);
    }
    return true;
}

static void *watch(void *unused)
{
    unsigned idle = 0;
    pthread_mutex_lock(&watchdog.lock);
    while (!watchdog.stopping) {
        bool active = false;
        for (struct ml_meter *m = watchdog.meters; m; m = m->next)
            active |= look_at(m);
        idle = active ? 0 : idle + 1;
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += (idle > IDLE_LOOKS ? LOOK_IDLE_MS : LOOK_MS) * 1000000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
        while (!watchdog.stopping &&
               pthread_cond_timedwait(&watchdog.stop, &watchdog.lock, &until) != ETIMEDOUT)
            continue;
    }
    pthread_mutex_unlock(&watchdog.lock);
    return NULL;
}

int ml_watchdog_start(void)
{
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigset_t all, old;
    pthread_condattr_t attr;
    if (watchdog.running)
        return ML_OK;
    sigemptyset(&act.sa_mask);
    if (sigaction(SIGURG, &act, NULL) != 0)
        return ML_E_IO;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&watchdog.stop, &attr);
    pthread_condattr_destroy(&attr);
    watchdog.stopping = false;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&watchdog.thread, NULL, watch, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    watchdog.running = r == 0;
    return r == 0 ? ML_OK : ML_E_NOMEM;
}

void ml_watchdog_stop(void)
{
    if (!watchdog.running)
        return;
    pthread_mutex_lock(&watchdog.lock);
    watchdog.stopping = true;
    pthread_cond_signal(&watchdog.stop);
    pthread_mutex_unlock(&watchdog.lock);
    pthread_join(watchdog.thread, NULL);
    pthread_cond_destroy(&watchdog.stop);
    watchdog.running = false;
}

bool ml_meter_open(struct ml_meter *m)
{
    pthread_mutex_lock(&watchdog.lock);
    bool running = watchdog.running;
    if (running) {
        m->next = watchdog.meters;
        m->link = &watchdog.meters;
        if (m->next)
            m->next->link = &m->next;
        watchdog.meters = m;
    }
    pthread_mutex_unlock(&watchdog.lock);
    return running;
}

void ml_meter_close(struct ml_meter *m)
{
    pthread_mutex_lock(&watchdog.lock);
    *m->link = m->next;
    if (m->next)
        m->next->link = m->link;
    pthread_mutex_unlock(&watchdog.lock);
    if (atomic_load_explicit(&current, memory_order_relaxed) == m)
        atomic_store_explicit(&current, NULL, memory_order_relaxed);
}
