/* Metrics text. The counters belong to their workers; this file only adds them up. */
#include "engine/metrics.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static const struct {
    struct ml_str reason;
    const char *label;
} results[ML_R_MAX_] = {
    [ML_R_ALLOWED] = {{"allowed", 7}, "allowed"},
    [ML_R_PUBLIC] = {{"public", 6}, "public"},
    [ML_R_UNAUTHENTICATED] = {{"unauthenticated", 15}, "unauthenticated"},
    [ML_R_DENIED] = {{"denied", 6}, "denied"},
    [ML_R_UNAVAILABLE] = {{"unavailable", 11}, "unavailable"},
    [ML_R_ERROR] = {{"error", 5}, "error"},
    [ML_R_LOGIN] = {{"login", 5}, "login"},
    [ML_R_BAD_REQUEST] = {{NULL, 0}, "bad_request"},
    [ML_R_NOT_FOUND] = {{NULL, 0}, "not_found"},
    [ML_R_CANCELED] = {{NULL, 0}, "canceled"},
};

/* Upper bounds in microseconds. */
static const uint64_t bounds_us[ML_LATENCY_BUCKETS] = {50,    100,    250,    500,     1000,   5000,
                                                       25000, 100000, 500000, 1000000, 5000000};

enum ml_result ml_result_of(const struct ml_decision *d)
{
    if (d->action == ML_ALLOW)
        return ml_str_eq(d->reason, results[ML_R_PUBLIC].reason) ? ML_R_PUBLIC : ML_R_ALLOWED;
    for (int i = ML_R_UNAUTHENTICATED; i <= ML_R_LOGIN; i++)
        if (ml_str_eq(d->reason, results[i].reason))
            return (enum ml_result)i;
    return ML_R_ERROR;
}

void ml_counters_add(struct ml_counters *c, enum ml_result result, uint64_t elapsed_ns)
{
    int i = 0;
    while (i < ML_LATENCY_BUCKETS && elapsed_ns > bounds_us[i] * 1000)
        i++;
        /* One writer: a plain add without a locked instruction is enough. */
#define ADD(field, n)                                                                              \
    atomic_store_explicit(&(field), atomic_load_explicit(&(field), memory_order_relaxed) + (n),    \
                          memory_order_relaxed)
    ADD(c->checks[result], 1);
    ADD(c->latency[i], 1);
    ADD(c->latency_ns, elapsed_ns);
#undef ADD
}

void ml_metric_type(struct ml_buf *b, const char *name, const char *type, const char *help)
{
    ml_buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void ml_metric(struct ml_buf *b, const char *name, const char *labels, uint64_t value)
{
    ml_buf_printf(b, "%s%s %llu\n", name, labels, (unsigned long long)value);
}

static uint64_t sum(struct ml_counters *const *counters, size_t n, size_t offset)
{
    uint64_t total = 0;
    for (size_t i = 0; i < n; i++)
        total += atomic_load_explicit((_Atomic uint64_t *)(void *)((char *)counters[i] + offset),
                                      memory_order_relaxed);
    return total;
}

void ml_counters_print(struct ml_buf *b, struct ml_counters *const *counters, size_t n)
{
    char labels[64];
    ml_metric_type(b, "moonlatch_checks_total", "counter", "Checks by result.");
    for (size_t i = 0; i < ML_R_MAX_; i++) {
        snprintf(labels, sizeof labels, "{result=\"%s\"}", results[i].label);
        ml_metric(b, "moonlatch_checks_total", labels,
                  sum(counters, n, offsetof(struct ml_counters, checks) + i * sizeof(uint64_t)));
    }
    ml_metric_type(b, "moonlatch_check_seconds", "histogram", "Time from request head to answer.");
    uint64_t seen = 0;
    for (size_t i = 0; i <= ML_LATENCY_BUCKETS; i++) {
        seen += sum(counters, n, offsetof(struct ml_counters, latency) + i * sizeof(uint64_t));
        if (i < ML_LATENCY_BUCKETS)
            snprintf(labels, sizeof labels, "{le=\"%g\"}", (double)bounds_us[i] / 1e6);
        else
            snprintf(labels, sizeof labels, "{le=\"+Inf\"}");
        ml_metric(b, "moonlatch_check_seconds_bucket", labels, seen);
    }
    ml_buf_printf(b, "moonlatch_check_seconds_sum %.6f\n",
                  (double)sum(counters, n, offsetof(struct ml_counters, latency_ns)) / 1e9);
    ml_metric(b, "moonlatch_check_seconds_count", "", seen);
}

static unsigned count_descriptors(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");
    if (!d)
        return 0;
    while (readdir(d))
        n++;
    closedir(d);
    return n > 3 ? n - 3 : 0; /* ".", ".." and the directory itself */
}

static uint64_t resident_bytes(void)
{
    unsigned long long size = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f)
        return 0;
    if (fscanf(f, "%llu %llu", &size, &resident) != 2)
        resident = 0;
    fclose(f);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

void ml_process_print(struct ml_buf *b)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    ml_metric_type(b, "process_cpu_seconds_total", "counter", "User and system CPU time.");
    ml_buf_printf(b, "process_cpu_seconds_total %.2f\n", cpu);
    ml_metric_type(b, "process_resident_memory_bytes", "gauge", "Resident memory.");
    ml_metric(b, "process_resident_memory_bytes", "", resident_bytes());
    ml_metric_type(b, "process_open_fds", "gauge", "Open descriptors.");
    ml_metric(b, "process_open_fds", "", count_descriptors());
}
