/* The LMDB store's writer: one thread that opens the file, takes all writes that wait into one
 * transaction after the other, sends the answers back, and does the chores. */
#include "store/session_lmdb_internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

enum { CHORE_MS = 1000, LOOK_MS = 5000, READERS_MS = 60000, COMPLAIN_MS = 60000 };

void ml_lmdb_set_why(struct ml_lmdb *s, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    pthread_mutex_lock(&s->lock);
    vsnprintf(s->why, sizeof s->why, format, args);
    pthread_mutex_unlock(&s->lock);
    va_end(args);
}

void ml_lmdb_report(struct ml_lmdb *s, enum ml_lmdb_trouble trouble)
{
    int old = atomic_load(&s->trouble);
    while (old < (int)trouble && !atomic_compare_exchange_weak(&s->trouble, &old, (int)trouble))
        ;
    pthread_mutex_lock(&s->lock);
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

static void send_back(struct ml_lmdb_ops *batch)
{
    struct ml_lmdb_op *op;
    while ((op = TAILQ_FIRST(batch))) {
        TAILQ_REMOVE(batch, op, link);
        /* A link waits for all its letters before it closes its mailbox. */
        ML_REQUIRE(ml_mailbox_post(&op->from->mailbox, &op->letter));
    }
}

static void fail_all(struct ml_lmdb *s, struct ml_lmdb_ops *batch)
{
    struct ml_lmdb_op *op;
    pthread_mutex_lock(&s->lock);
    TAILQ_FOREACH(op, batch, link)
    {
        op->error = ML_E_UNAVAILABLE;
        snprintf(op->text, sizeof op->text, "%.*s", (int)sizeof op->text - 1, s->why);
    }
    pthread_mutex_unlock(&s->lock);
}

/* Waits for work until the moment due_ms; takes a batch. false: the end. */
static bool take(struct ml_lmdb *s, uint64_t due_ms, struct ml_lmdb_ops *batch)
{
    TAILQ_INIT(batch);
    pthread_mutex_lock(&s->lock);
    for (uint64_t now; !s->stop && TAILQ_EMPTY(&s->queue) && !atomic_load(&s->trouble) &&
                       (now = ml_mono_ms()) < due_ms;) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        uint64_t ms = due_ms - now < CHORE_MS ? due_ms - now : CHORE_MS;
        until.tv_nsec += (long)(ms % 1000) * 1000000;
        until.tv_sec += (time_t)(ms / 1000) + until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&s->wake, &s->lock, &until);
    }
    size_t bytes = 0;
    for (int i = 0; i < ML_LMDB_BATCH && bytes < ML_LMDB_BATCH_BYTES && !TAILQ_EMPTY(&s->queue);
         i++) {
        struct ml_lmdb_op *op = TAILQ_FIRST(&s->queue);
        TAILQ_REMOVE(&s->queue, op, link);
        TAILQ_INSERT_TAIL(batch, op, link);
        s->queued--;
        s->queued_bytes -= op->n;
        bytes += op->n;
    }
    bool go_on = !s->stop || !TAILQ_EMPTY(batch);
    pthread_mutex_unlock(&s->lock);
    return go_on;
}

static void mend(struct ml_lmdb *s)
{
    int trouble = atomic_load(&s->trouble);
    if (trouble == ML_LMDB_FINE)
        return;
    ml_lmdb_close(s);
    if (trouble == ML_LMDB_DAMAGED)
        ml_lmdb_set_aside(s, "its pages are damaged");
}

/* What is due; returns when to look again. */
static uint64_t chores(struct ml_lmdb *s, uint64_t now, uint64_t *look_ms, uint64_t *readers_ms)
{
    bool more = ml_lmdb_sweep(s);
    if (s->env && now >= *look_ms) {
        *look_ms = now + LOOK_MS;
        if (!ml_lmdb_in_place(s))
            ml_lmdb_report(s, ML_LMDB_REOPEN);
    }
    if (s->env && now >= *readers_ms) {
        int dead;
        *readers_ms = now + READERS_MS;
        mdb_reader_check(s->env, &dead);
    }
    return more ? now : now + CHORE_MS;
}

/* Each second until it is open; each minute it says why it is not. */
static void try_open(struct ml_lmdb *s, uint64_t now, uint64_t *retry_ms, uint64_t *complain_ms)
{
    if (now < *retry_ms)
        return;
    if (ml_lmdb_open(s)) {
        *complain_ms = 0;
        ml_log(ML_LOG_INFO, "the session store is open", ML_FZ("store", s->path),
               ML_FN("sessions", s->sessions));
        return;
    }
    *retry_ms = now + CHORE_MS;
    if (now >= *complain_ms) {
        *complain_ms = now + COMPLAIN_MS;
        ml_log(ML_LOG_ERROR, "the session store cannot be opened", ML_FZ("reason", s->why));
    }
}

static void *writer_main(void *arg)
{
    struct ml_lmdb *s = arg;
    struct ml_lmdb_ops batch;
    uint64_t due_ms = 0, look_ms = 0, readers_ms = 0, retry_ms = 0, complain_ms = 0;
    pthread_setname_np(pthread_self(), "sessions");
    while (take(s, due_ms, &batch)) {
        uint64_t now = ml_mono_ms();
        mend(s);
        if (!s->env)
            try_open(s, now, &retry_ms, &complain_ms);
        if (!TAILQ_EMPTY(&batch)) {
            if (s->env)
                ml_lmdb_commit(s, &batch);
            else
                fail_all(s, &batch);
            send_back(&batch);
        }
        if (now >= due_ms)
            due_ms = s->env ? chores(s, now, &look_ms, &readers_ms) : now + CHORE_MS;
    }
    ml_lmdb_close(s);
    return NULL;
}

void ml_lmdb_start_writer(struct ml_lmdb *s)
{
    sigset_t all, before;
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    sigfillset(&all);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
        sigdelset(&all, faults[i]);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    s->started = pthread_create(&s->writer, NULL, writer_main, s) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!s->started)
        snprintf(s->why, sizeof s->why, "no thread for the session store");
}

void ml_lmdb_want(struct ml_lmdb *s)
{
    pthread_mutex_lock(&s->lock);
    if (!s->started)
        ml_lmdb_start_writer(s);
    pthread_mutex_unlock(&s->lock);
}
