/* Guarded calls. The way back is per thread; the signals are synchronous, so that a handler runs on
 * the thread that faulted, and only its own way back is used. */
#include "base/guard.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>

static const int signals[] = {SIGBUS, SIGSEGV, SIGFPE};
enum { SIGNALS = sizeof signals / sizeof signals[0] };

static struct sigaction before[SIGNALS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local sigjmp_buf way_back;
static _Thread_local volatile sig_atomic_t guarded;

static void on_fault(int number)
{
    if (guarded)
        siglongjmp(way_back, 1);
    for (size_t i = 0; i < SIGNALS; i++) /* the instruction runs again, into the handler before */
        if (signals[i] == number)
            sigaction(number, &before[i], NULL);
}

void ml_guard_install(void)
{
    struct sigaction old, action = {.sa_handler = on_fault, .sa_flags = SA_ONSTACK};
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < SIGNALS; i++) {
        if (sigaction(signals[i], &action, &old) == 0 && old.sa_handler != on_fault)
            before[i] = old;
    }
    pthread_mutex_unlock(&lock);
}

bool ml_guard_run(void (*fn)(void *arg), void *arg)
{
    if (sigsetjmp(way_back, 1) != 0) {
        guarded = 0;
        return false;
    }
    guarded = 1;
    fn(arg);
    guarded = 0;
    return true;
}

void ml_guard_leave(void)
{
    if (guarded)
        siglongjmp(way_back, 1);
    abort();
}
