/* The engine: owns the stores that workers share, and the workers. Main thread. */
#include "engine/internal.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdlib.h>
#include <unistd.h>

enum { FLIGHT_KEYS = 65536, FLIGHT_WAITERS = 65536, IN_FLIGHT = 64 };

static int open_stores(struct ml_engine *e, struct ml_err *err)
{
    if (!ml_random(e->secret, sizeof e->secret))
        return ml_fail(err, ML_E_IO, "the system's random number generator fails");
    e->cache = ml_cache_new((size_t)ml_settings_int(e->settings, "MOONLATCH_CACHE_BYTES"));
    e->flights = ml_flights_new(FLIGHT_KEYS, FLIGHT_WAITERS);
    e->board = ml_board_new();
    e->key_sets = ml_key_sets_new();
    if (!e->cache || !e->flights || !e->board)
        return ml_fail(err, ML_E_NOMEM, "out of memory");
    return ml_engine_open_sessions(e, err);
}

static int start_workers(struct ml_engine *e, struct ml_err *err)
{
    unsigned wanted = (unsigned)ml_settings_int(e->settings, "MOONLATCH_WORKERS");
    if (!wanted)
        wanted = ml_cpus();
    e->workers = ml_xcalloc(wanted, sizeof *e->workers);
    e->in_flight = wanted < IN_FLIGHT ? IN_FLIGHT / wanted : 1;
    for (unsigned i = 0; i < wanted; i++) {
        int r = ml_worker_start(&e->workers[i], e, i, err);
        if (r != 0)
            return r;
        e->worker_count++;
    }
    return 0;
}

void ml_engine_free(struct ml_engine *e)
{
    void (*closed)(void *) = e->closed;
    void *ctx = e->closed_ctx;
    if (e->bundle)
        ml_bundle_unref(e->bundle);
    ml_board_free(e->board);
    ml_key_sets_free(e->key_sets);
    ml_sessions_free(e->sessions);
    ml_seal_keys_free(e->seal);
    ml_flights_free(e->flights);
    ml_cache_free(e->cache);
    ml_wipe(e->secret, sizeof e->secret);
    ml_buf_done(&e->report);
    ml_buf_done(&e->trial);
    pthread_mutex_destroy(&e->ready_lock);
    free(e->policy);
    ml_library_free(e->library);
    free(e);
    closed(ctx);
}

int ml_engine_new(struct ml_engine **ret, const struct ml_engine_options *options,
                  struct ml_buf *report, struct ml_err *err)
{
    struct ml_engine *e = ML_NEW(struct ml_engine);
    e->loop = options->loop;
    e->settings = options->settings;
    e->policy = ml_xstrdup(options->policy);
    e->on_check = options->on_check;
    e->reloaded = options->reloaded;
    e->ctx = options->ctx;
    e->on_web = options->on_web;
    e->site = options->site;
    pthread_mutex_init(&e->ready_lock, NULL);
    ml_buf_init(&e->report, 64 * 1024);
    ml_buf_init(&e->trial, 64 * 1024);
    ML_REQUIRE(ml_mailbox_open(&e->mailbox, e->loop) == 0);
    ml_engine_reload_open(e);
    ml_engine_set_ready(e, false, "starting");
    int r = open_stores(e, err);
    if (r == 0)
        r = ml_library_new(&e->library, options->library, err);
    if (r == 0)
        r = ml_bundle_read(&e->candidate, e->policy, err);
    if (r == 0 && (r = ml_engine_try(e->settings, e->library, e->candidate, report)) != 0)
        ml_fail(err, r, "the policy is wrong");
    if (r == 0)
        r = start_workers(e, err);
    if (r == 0)
        r = ml_engine_first_generation(e, report, err);
    *ret = e;
    return r;
}

void ml_engine_close(struct ml_engine *e, void (*closed)(void *ctx), void *ctx)
{
    e->closing = true;
    e->closed = closed;
    e->closed_ctx = ctx;
    for (unsigned i = 0; i < e->worker_count; i++)
        ml_worker_stop(&e->workers[i]);
    free(e->workers);
    e->workers = NULL;
    e->worker_count = 0;
    /* A thread that checks a candidate right now uses the engine: its end goes on with the
     * closing. */
    if (e->reload_state != ML_RELOAD_CHECKING)
        ml_engine_reload_close(e);
}

const struct ml_settings *ml_engine_settings(const struct ml_engine *e)
{
    return e->settings;
}

static void adopt(struct ml_engine *e, int fd, const char *peer, bool web)
{
    struct ml_worker *least = &e->workers[0];
    int least_load = atomic_load_explicit(&least->load, memory_order_relaxed);
    if (e->closing || !e->worker_count) {
        close(fd);
        return;
    }
    for (unsigned i = 1; i < e->worker_count; i++) {
        int load = atomic_load_explicit(&e->workers[i].load, memory_order_relaxed);
        if (load < least_load) {
            least = &e->workers[i];
            least_load = load;
        }
    }
    atomic_fetch_add_explicit(&least->load, 1, memory_order_relaxed);
    ml_worker_adopt(least, fd, peer, web);
}

void ml_engine_adopt(void *engine, int fd, const char *peer)
{
    adopt(engine, fd, peer, false);
}

void ml_engine_adopt_web(void *engine, int fd, const char *peer)
{
    adopt(engine, fd, peer, true);
}

void ml_engine_drain(struct ml_engine *e)
{
    for (unsigned i = 0; i < e->worker_count; i++)
        ml_worker_drain(&e->workers[i]);
}

int ml_engine_connections(const struct ml_engine *e)
{
    int n = 0;
    for (unsigned i = 0; i < e->worker_count; i++)
        n += atomic_load_explicit(&e->workers[i].load, memory_order_relaxed);
    return n;
}

bool ml_engine_ready(struct ml_engine *e, struct ml_err *err)
{
    if (atomic_load_explicit(&e->ready, memory_order_acquire))
        return true;
    pthread_mutex_lock(&e->ready_lock);
    ml_fail(err, ML_E_UNAVAILABLE, "%s", e->not_ready);
    pthread_mutex_unlock(&e->ready_lock);
    return false;
}

/* Set-up is complete once and for all: a provider that goes away later is that authenticator's
 * trouble only. */
void ml_engine_set_ready(struct ml_engine *e, bool ready, const char *why)
{
    if (atomic_load_explicit(&e->ready, memory_order_relaxed))
        return;
    pthread_mutex_lock(&e->ready_lock);
    bool news = !ready && e->not_ready[0] && strcmp(e->not_ready, why) != 0;
    strncpy(e->not_ready, why, sizeof e->not_ready - 1);
    pthread_mutex_unlock(&e->ready_lock);
    if (ready) {
        atomic_store_explicit(&e->ready, true, memory_order_release);
        ml_log_text(ML_LOG_INFO, "ready");
    } else if (news && *why) {
        ml_log(ML_LOG_WARN, "not ready", ML_FZ("reason", why));
    }
}

struct ml_script_options ml_engine_script_options(struct ml_engine *e)
{
    return (struct ml_script_options){
        .cache = e->cache,
        .flights = e->flights,
        .board = e->board,
        .key_sets = e->key_sets,
        .seal = e->seal,
        .cache_secret = e->secret,
        .library = e->library,
        .budget = ml_default_budget,
        .env = ml_settings_env,
        .env_ctx = (void *)(uintptr_t)e->settings,
    };
}

unsigned ml_engine_in_flight(const struct ml_engine *e)
{
    return e->in_flight;
}

struct ml_sessions *ml_engine_sessions(const struct ml_engine *e)
{
    return e->sessions;
}

ml_http_handler ml_engine_check_handler(const struct ml_engine *e)
{
    return e->on_check;
}

ml_http_handler ml_engine_web_handler(const struct ml_engine *e)
{
    return e->on_web;
}

const void *ml_engine_site(const struct ml_engine *e)
{
    return e->site;
}

struct ml_mailbox *ml_engine_mailbox(struct ml_engine *e)
{
    return &e->mailbox;
}
