/* What the server says of itself: /metrics (collected from all workers by letters) and the admin
 * description. Main thread. */
#include "engine/internal.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

enum { GATHER_MS = 1000 };

struct gather {
    struct ml_engine *e;
    uv_timer_t timer;
    unsigned waiting; /* reports still to come */
    bool told, timer_closed;
    void (*done)(void *arg, struct ml_str text);
    void *arg;
    size_t count;
    struct ml_worker_report reports[];
};

/* Families that are one number a worker. */
static const struct {
    const char *name, *type, *help;
    size_t offset;
    bool is_unsigned;
} families[] = {
#define R(field) offsetof(struct ml_worker_report, field)
    {"moonlatch_http_connections", "gauge", "Open check connections.", R(connections), false},
    {"moonlatch_http_accepted_total", "counter", "Connections taken.", R(http.accepted), false},
    {"moonlatch_http_requests_total", "counter", "Requests with a well-formed head.",
     R(http.requests), false},
    {"moonlatch_http_rejected_total", "counter", "Requests refused for their form or size.",
     R(http.rejected), false},
    {"moonlatch_policy_resumes_total", "counter", "Stretches of Lua.", R(script.resumes), false},
    {"moonlatch_policy_waits_total", "counter", "Host calls that waited.", R(script.waits), false},
    {"moonlatch_policy_errors_total", "counter", "Decisions that failed in the policy.",
     R(script.errors), false},
    {"moonlatch_policy_killed_cpu_total", "counter", "Decisions stopped at the CPU budget.",
     R(script.killed_cpu), false},
    {"moonlatch_policy_killed_memory_total", "counter", "Decisions stopped at the memory cap.",
     R(script.killed_memory), false},
    {"moonlatch_policy_killed_calls_total", "counter",
     "Decisions stopped at the bound of host calls.", R(script.killed_calls), false},
    {"moonlatch_policy_stale_total", "counter", "Completions that came too late.", R(script.stale),
     false},
    {"moonlatch_policy_lua_bytes", "gauge", "Memory of Lua states.", R(script.lua_bytes), false},
    {"moonlatch_policy_running", "gauge", "Decisions that wait for something.", R(script.running),
     true},
#undef R
};

static void print_families(const struct gather *g, struct ml_buf *b)
{
    char labels[32];
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        ml_metric_type(b, families[i].name, families[i].type, families[i].help);
        for (size_t w = 0; w < g->count; w++) {
            const char *at = (const char *)&g->reports[w] + families[i].offset;
            uint64_t value = 0;
            if (families[i].is_unsigned)
                value = *(const unsigned *)(const void *)at;
            else
                memcpy(&value, at, sizeof value);
            snprintf(labels, sizeof labels, "{worker=\"%zu\"}", w);
            ml_metric(b, families[i].name, labels, value);
        }
    }
}

/* One line for each upstream of each worker. */
static void print_upstream(const struct gather *g, struct ml_buf *b, const char *name,
                           const char *type, const char *help,
                           uint64_t (*value)(const struct ml_upstream_stats *s))
{
    ml_metric_type(b, name, type, help);
    for (size_t w = 0; w < g->count; w++)
        for (size_t i = 0; i < g->reports[w].upstream_count; i++) {
            const struct ml_upstream_line *line = &g->reports[w].upstreams[i];
            ml_buf_printf(b, "%s{worker=\"%zu\",upstream=", name, w);
            ml_buf_add_json(b, ml_str_z(line->name));
            ml_buf_printf(b, "} %llu\n", (unsigned long long)value(&line->stats));
        }
}

static uint64_t requests_of(const struct ml_upstream_stats *s)
{
    return s->requests;
}
static uint64_t failures_of(const struct ml_upstream_stats *s)
{
    return s->failures;
}
static uint64_t rejected_of(const struct ml_upstream_stats *s)
{
    return s->rejected;
}
static uint64_t in_flight_of(const struct ml_upstream_stats *s)
{
    return s->in_flight;
}
static uint64_t open_of(const struct ml_upstream_stats *s)
{
    return s->open;
}

static void print_upstreams(const struct gather *g, struct ml_buf *b)
{
    print_upstream(g, b, "moonlatch_upstream_requests_total", "counter", "Outbound requests.",
                   requests_of);
    print_upstream(g, b, "moonlatch_upstream_failures_total", "counter", "Those that failed.",
                   failures_of);
    print_upstream(g, b, "moonlatch_upstream_rejected_total", "counter",
                   "Refused by breaker or queue.", rejected_of);
    print_upstream(g, b, "moonlatch_upstream_in_flight", "gauge", "Under way.", in_flight_of);
    print_upstream(g, b, "moonlatch_upstream_open", "gauge", "1: the breaker is open.", open_of);
}

static void single(struct ml_buf *b, const char *name, const char *type, const char *help,
                   uint64_t value)
{
    ml_metric_type(b, name, type, help);
    ml_metric(b, name, "", value);
}

static void print_shared(struct ml_engine *e, struct ml_buf *b)
{
    struct ml_cache_stats c = ml_cache_stats(e->cache);
    single(b, "moonlatch_cache_hits_total", "counter", "Identities found.", c.hits);
    single(b, "moonlatch_cache_misses_total", "counter", "Identities not found.", c.misses);
    single(b, "moonlatch_cache_evictions_total", "counter", "Entries given up for others.",
           c.evictions);
    single(b, "moonlatch_cache_expired_total", "counter", "Entries whose time was over.",
           c.expired);
    single(b, "moonlatch_cache_entries", "gauge", "Entries.", c.entries);
    single(b, "moonlatch_cache_bytes", "gauge", "Bytes, bookkeeping included.", c.bytes);
    single(b, "moonlatch_cache_max_bytes", "gauge", "Their bound.", c.max_bytes);
    single(b, "moonlatch_flight_waiting", "gauge", "Requests that wait for another's answer.",
           ml_flights_waiting(e->flights));
    ml_engine_print_sessions(e, b);
    single(b, "moonlatch_ready", "gauge", "1: set-up is complete.", atomic_load(&e->ready));
    single(b, "moonlatch_policy_generation", "gauge", "Number of the current policy.",
           e->generation);
    single(b, "moonlatch_policy_reload_total", "counter", "Reloads that took effect.", e->reloads);
    single(b, "moonlatch_policy_reload_failed_total", "counter", "Reloads that were refused.",
           e->reload_failures);
    single(b, "moonlatch_log_dropped_total", "counter",
           "Log lines given up because the sink was blocked.", ml_log_dropped());
    ml_metric_type(b, "moonlatch_info", "gauge", "Version.");
    ml_metric(b, "moonlatch_info", "{version=\"" ML_VERSION "\"}", 1);
}

static void on_gather_closed(uv_handle_t *handle)
{
    struct gather *g = handle->data;
    g->timer_closed = true;
    if (!g->waiting)
        free(g);
}

static void tell(struct gather *g)
{
    struct ml_buf b;
    struct ml_counters *counters[256];
    g->told = true;
    ml_buf_init(&b, 1 << 20);
    for (size_t i = 0; i < g->e->worker_count && i < 256; i++)
        counters[i] = &g->e->workers[i].counters;
    ml_counters_print(&b, counters, g->e->worker_count);
    print_shared(g->e, &b);
    print_families(g, &b);
    print_upstreams(g, &b);
    ml_process_print(&b);
    g->done(g->arg, ml_buf_str(&b));
    ml_buf_done(&b);
    uv_close((uv_handle_t *)&g->timer, on_gather_closed);
}

static void on_report(void *arg, struct ml_worker_report *report)
{
    struct gather *g = arg;
    g->waiting--;
    if (!g->told) {
        g->reports[g->count++] = *report;
        for (size_t i = 0; i < report->upstream_count; i++)
            g->reports[g->count - 1].upstreams[i].stats.name = NULL;
        if (!g->waiting)
            tell(g);
    } else if (!g->waiting && g->timer_closed) {
        free(g);
    }
}

/* A worker that does not answer is left out: a dashboard must not hang with it. */
static void on_late(uv_timer_t *timer)
{
    struct gather *g = timer->data;
    if (!g->told)
        tell(g);
}

void ml_engine_metrics(struct ml_engine *e, void (*done)(void *arg, struct ml_str text), void *arg)
{
    struct gather *g = ml_xcalloc(1, sizeof *g + e->worker_count * sizeof g->reports[0]);
    g->e = e;
    g->done = done;
    g->arg = arg;
    uv_timer_init(e->loop, &g->timer);
    g->timer.data = g;
    uv_timer_start(&g->timer, on_late, GATHER_MS, 0);
    for (unsigned i = 0; i < e->worker_count; i++)
        g->waiting += ml_worker_ask(&e->workers[i], on_report, g);
    if (!g->waiting)
        tell(g);
}

void ml_engine_describe(struct ml_engine *e, struct ml_buf *out)
{
    ml_buf_printf(out, "{\"path\":");
    ml_buf_add_json(out, ml_str_z(e->policy));
    ml_buf_printf(out,
                  ",\"generation\":%llu,\"hash\":\"%s\",\"reloads\":%llu,\"reload_failures\":%llu,"
                  "\"last_reload_failed\":%s",
                  (unsigned long long)e->generation, ml_bundle_hash(e->bundle),
                  (unsigned long long)e->reloads, (unsigned long long)e->reload_failures,
                  e->last_failed ? "true" : "false");
    ml_buf_printf(out, ",\"watching\":%s,\"workers\":%u,\"ready\":%s,\"report\":",
                  e->watching ? "true" : "false", e->worker_count,
                  atomic_load(&e->ready) ? "true" : "false");
    ml_buf_add_json(out, ml_buf_str(&e->report));
    ml_buf_printf(out, "}\n");
}
