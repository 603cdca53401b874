/* Guarded calls: what may fault because a file under a memory map is not what it was: cut short
 * (SIGBUS), or its damaged pages point astray (SIGSEGV, SIGFPE). Any thread; not nested. */
#pragma once

#include <stdbool.h>

/* Installs the handlers, unless they are there. A fault outside of a guarded call goes to whoever
 * had the signal before. */
void ml_guard_install(void);
/* Runs fn(arg). false: it was left half-way by a fault or by ml_guard_leave; what it held is as it
 * was then. fn keeps its state in *arg, not in variables of a caller. */
bool ml_guard_run(void (*fn)(void *arg), void *arg);
/* From within fn: ends it as a fault does; outside of a guarded call it aborts. */
_Noreturn void ml_guard_leave(void);
