/* How many CPUs this process may use. Pure reading of /proc and /sys; any thread. */
#include "engine/engine.h"

#include <sched.h>
#include <stdio.h>

static unsigned affinity(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n > 0 ? (unsigned)n : 1;
}

/* Quota and period in microseconds; false when there is no quota. */
static bool cgroup_quota(long long *quota, long long *period)
{
    FILE *f =
        fopen("/sys/fs/cgroup/cpu.max", "re"); /* version 2: "max 100000" or "150000 100000" */
    if (f) {
        int n = fscanf(f, "%lld %lld", quota, period);
        fclose(f);
        return n == 2 && *quota > 0 && *period > 0;
    }
    FILE *q = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "re");
    FILE *p = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "re");
    bool ok = q && p && fscanf(q, "%lld", quota) == 1 && fscanf(p, "%lld", period) == 1;
    if (q)
        fclose(q);
    if (p)
        fclose(p);
    return ok && *quota > 0 && *period > 0;
}

unsigned ml_cpus(void)
{
    long long quota, period;
    unsigned n = affinity();
    if (!cgroup_quota(&quota, &period))
        return n;
    unsigned long long limit = (unsigned long long)((quota + period - 1) / period);
    return limit && limit < n ? (unsigned)limit : n;
}
