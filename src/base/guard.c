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
static pthread_once_t once = PTHREAD_ONCE_INIT;
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

static void install(void)
{
    /* NODEFER: the jump leaves the mask as it is, so that sigsetjmp need not save it. */
    struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_NODEFER | SA_ONSTACK};
    for (size_t i = 0; i < SIGNALS; i++)
        sigaction(signals[i], &action, &before[i]);
}

void ml_guard_install(void)
{
    pthread_once(&once, install);
}

bool ml_guard_run(void (*fn)(void *arg), void *arg)
{
    if (sigsetjmp(way_back, 0) != 0) {
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
