/* Clocks. The guard against steps back and the tests' offset are process-wide atomics. */
#include "base/clock.h"

#include <stdatomic.h>
#include <time.h>

enum { STEP_BACK_MS = 5 * 60 * 1000 };

static _Atomic int64_t offset_ms, latest_ms;

static uint64_t read_ns(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

uint64_t ml_mono_ns(void)
{
    return read_ns(CLOCK_MONOTONIC) +
           (uint64_t)(atomic_load_explicit(&offset_ms, memory_order_relaxed) * 1000000);
}

uint64_t ml_mono_ms(void)
{
    return ml_mono_ns() / 1000000U;
}

int64_t ml_wall_ms(void)
{
    int64_t now = (int64_t)(read_ns(CLOCK_REALTIME) / 1000000U) +
                  atomic_load_explicit(&offset_ms, memory_order_relaxed);
    int64_t seen = atomic_load_explicit(&latest_ms, memory_order_relaxed);
    if (now < seen && seen - now <= STEP_BACK_MS)
        return seen;
    atomic_store_explicit(&latest_ms, now, memory_order_relaxed);
    return now;
}

uint64_t ml_thread_cpu_ns(void)
{
    return read_ns(CLOCK_THREAD_CPUTIME_ID);
}

void ml_clock_advance(int64_t ms)
{
    atomic_fetch_add(&offset_ms, ms);
}
