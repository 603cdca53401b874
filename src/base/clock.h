/* Time. Timers use the monotonic clock; `exp` uses the wall clock. */
#pragma once

#include <stdint.h>

/* Milliseconds and nanoseconds since some moment in the past; never step back. */
uint64_t ml_mono_ms(void);
uint64_t ml_mono_ns(void);
/* Milliseconds since 1970-01-01 UTC. A step back of the system clock of up to five minutes is not
 * followed, so that what has expired stays expired; a longer one is. */
int64_t ml_wall_ms(void);
/* CPU time of the calling thread, nanoseconds. */
uint64_t ml_thread_cpu_ns(void);
/* Tests only: added to ml_wall_ms and ml_mono_ms. */
void ml_clock_advance(int64_t ms);
