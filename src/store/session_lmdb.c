/* The LMDB store's face: links and their reads on workers' threads, the queue, and the writer's
 * thread that takes everything from it, opens the file, and does the chores. See
 * session_lmdb_internal.h for who may touch what. */
#include "store/session_lmdb_internal.h"

#include "base/clock.h"
#include "base/guard.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { CHORE_MS = 1000, LOOK_MS = 5000, READERS_MS = 60000, READERS = 512 };

void ml_lmdb_set_why(struct ml_lmdb *s, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    pthread_mutex_lock(&s->lock);
    vsnprintf(s->why, sizeof s->why, format, args);
    pthread_mutex_unlock(&s->lock);
    va_end(args);
}

/* Under the gate, or on the writer's thread. Trouble only grows until the writer has dealt with it.
 */
static void report(struct ml_lmdb *s, enum ml_lmdb_trouble trouble)
{
    int old = atomic_load(&s->trouble);
    while (old < (int)trouble && !atomic_compare_exchange_weak(&s->trouble, &old, (int)trouble))
        ;
    pthread_mutex_lock(&s->lock);
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

/* The writer ---------------------------------------------------------------------------------- */

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
            report(s, ML_LMDB_REOPEN);
    }
    if (s->env && now >= *readers_ms) {
        int dead;
        *readers_ms = now + READERS_MS;
        mdb_reader_check(s->env, &dead);
    }
    return more ? now : now + CHORE_MS;
}

static void *writer_main(void *arg)
{
    struct ml_lmdb *s = arg;
    struct ml_lmdb_ops batch;
    uint64_t due_ms = 0, look_ms = 0, readers_ms = 0, retry_ms = 0;
    pthread_setname_np(pthread_self(), "sessions");
    while (take(s, due_ms, &batch)) {
        uint64_t now = ml_mono_ms();
        mend(s);
        if (!s->env && now >= retry_ms && !ml_lmdb_open(s))
            retry_ms = now + CHORE_MS;
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

static void start_writer(struct ml_lmdb *s)
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

/* The first call that needs the file brings the writer up, which opens it. */
static void want(struct ml_lmdb *s)
{
    pthread_mutex_lock(&s->lock);
    if (!s->started)
        start_writer(s);
    pthread_mutex_unlock(&s->lock);
}

/* Reads --------------------------------------------------------------------------------------- */

struct look {
    struct ml_session_link *link;
    const struct ml_digest *key;
    int rc;
    char *copy; /* head and value, or NULL */
    size_t n;
};

static void look_guarded(void *arg)
{
    struct look *look = arg;
    struct ml_session_link *l = look->link;
    MDB_val key = {sizeof look->key->b, (void *)(uintptr_t)look->key->b}, found;
    look->rc =
        l->txn ? mdb_txn_renew(l->txn) : mdb_txn_begin(l->store->env, NULL, MDB_RDONLY, &l->txn);
    if (look->rc != 0)
        return;
    look->rc = mdb_get(l->txn, l->store->records, &key, &found);
    if (look->rc == 0 && (found.mv_size < sizeof(struct ml_lmdb_head) ||
                          found.mv_size > sizeof(struct ml_lmdb_head) + ML_SESSION_VALUE_MAX))
        look->rc = MDB_CORRUPTED;
    if (look->rc == 0) {
        look->n = found.mv_size;
        look->copy = malloc(look->n);
        if (look->copy)
            memcpy(look->copy, found.mv_data, look->n);
        else
            look->rc = ENOMEM;
    }
    mdb_txn_reset(l->txn);
}

static void answer_look(struct look *look, ml_session_done done, void *arg)
{
    struct ml_lmdb_head head;
    struct ml_session_answer answer = {.found = false};
    if (look->rc != 0 && look->rc != MDB_NOTFOUND) {
        answer.error = ML_E_UNAVAILABLE;
        answer.text = mdb_strerror(look->rc);
    } else if (look->rc == 0) {
        memcpy(&head, look->copy, sizeof head);
        answer.found = head.version == 1 && head.expires_ms > ml_wall_ms();
        answer.value = ml_str(look->copy + sizeof head, look->n - sizeof head);
        answer.expires_ms = head.expires_ms;
    }
    done(arg, &answer);
}

static void get(struct ml_session_link *l, const struct ml_digest *key, ml_session_done done,
                void *arg)
{
    struct ml_lmdb *s = l->store;
    struct look look = {.link = l, .key = key};
    char why[sizeof s->why] = "";
    pthread_rwlock_rdlock(&s->gate);
    bool open = s->env != NULL;
    if (open && !ml_guard_run(look_guarded, &look))
        look.rc = MDB_CORRUPTED;
    if (open && ml_lmdb_trouble_of(look.rc) != ML_LMDB_FINE)
        report(s, ml_lmdb_trouble_of(look.rc));
    pthread_rwlock_unlock(&s->gate);
    if (open) {
        answer_look(&look, done, arg);
        free(look.copy);
        return;
    }
    want(s);
    pthread_mutex_lock(&s->lock);
    memcpy(why, s->why, sizeof why);
    pthread_mutex_unlock(&s->lock);
    done(arg, &(struct ml_session_answer){.error = ML_E_UNAVAILABLE, .text = why});
}

/* Writes -------------------------------------------------------------------------------------- */

static void call_done(struct ml_lmdb_op *op, int error, const char *text)
{
    ml_session_done done = op->done;
    op->done = NULL;
    if (done)
        done(op->arg, &(struct ml_session_answer){.error = error,
                                                  .text = text,
                                                  .found = !error && op->found,
                                                  .keys = op->keys,
                                                  .key_count = error ? 0 : op->key_count});
}

static void on_mailbox_closed(uv_handle_t *wake)
{
    struct ml_mailbox *m = wake->data;
    struct ml_session_link *l = ML_CONTAINER(m, struct ml_session_link, mailbox);
    void (*closed)(void *) = l->closed;
    void *ctx = l->ctx;
    pthread_mutex_destroy(&l->mailbox.lock);
    free(l);
    closed(ctx);
}

static void close_if_idle(struct ml_session_link *l)
{
    if (l->closing && TAILQ_EMPTY(&l->pending))
        ml_mailbox_close_then(&l->mailbox, on_mailbox_closed);
}

static void on_letter(struct ml_letter *letter)
{
    struct ml_lmdb_op *op = ML_CONTAINER(letter, struct ml_lmdb_op, letter);
    struct ml_session_link *l = op->from;
    TAILQ_REMOVE(&l->pending, op, pending);
    call_done(op, op->error, op->error ? op->text : NULL);
    free(op->keys);
    free(op);
    close_if_idle(l);
}

/* The value is sealed and sized by a caller: NULL when there is no memory. */
static struct ml_lmdb_op *op_new(struct ml_session_link *l, enum ml_lmdb_kind kind,
                                 const struct ml_digest *key, struct ml_str value,
                                 ml_session_done done, void *arg)
{
    struct ml_lmdb_op *op = malloc(sizeof *op + value.n);
    if (!op)
        return NULL;
    *op = (struct ml_lmdb_op){.from = l, .done = done, .arg = arg, .kind = kind, .key = *key};
    op->letter.read = on_letter;
    op->n = value.n;
    if (value.n)
        memcpy(op->value, value.p, value.n);
    return op;
}

static bool enqueue(struct ml_lmdb *s, struct ml_lmdb_op *op)
{
    pthread_mutex_lock(&s->lock);
    if (!s->started)
        start_writer(s);
    bool taken = s->started && s->queued < ML_LMDB_QUEUE_MAX &&
                 s->queued_bytes + op->n <= ML_LMDB_QUEUE_BYTES;
    if (taken) {
        TAILQ_INSERT_TAIL(&s->queue, op, link);
        s->queued++;
        s->queued_bytes += op->n;
        pthread_cond_signal(&s->wake);
    }
    pthread_mutex_unlock(&s->lock);
    return taken;
}

static void submit(struct ml_session_link *l, struct ml_lmdb_op *op, ml_session_done done,
                   void *arg)
{
    static const struct ml_session_answer busy = {.error = ML_E_BUSY,
                                                  .text = "too many writes of sessions wait"};
    if (op)
        TAILQ_INSERT_TAIL(&l->pending, op, pending);
    if (op && enqueue(l->store, op))
        return;
    if (op)
        TAILQ_REMOVE(&l->pending, op, pending);
    free(op);
    done(arg, &busy);
}

static void put(struct ml_session_link *l, const struct ml_session_put *put, ml_session_done done,
                void *arg)
{
    if (put->value.n > ML_SESSION_VALUE_MAX || put->index_count > ML_SESSION_INDEX_MAX) {
        done(arg,
             &(struct ml_session_answer){.error = ML_E_TOOBIG, .text = "the record is too large"});
        return;
    }
    struct ml_lmdb_op *op = op_new(l, ML_LMDB_PUT, put->key, put->value, done, arg);
    if (op) {
        op->replaces = put->replaces;
        op->head = (struct ml_lmdb_head){.version = 1,
                                         .index_count = (uint8_t)put->index_count,
                                         .expires_ms = put->expires_ms,
                                         .revision = put->revision};
        for (size_t i = 0; i < put->index_count; i++)
            op->head.index[i] = put->index[i];
    }
    submit(l, op, done, arg);
}

static void remove_record(struct ml_session_link *l, const struct ml_digest *key,
                          ml_session_done done, void *arg)
{
    submit(l, op_new(l, ML_LMDB_REMOVE, key, ML_STR(""), done, arg), done, arg);
}

static void kill_index(struct ml_session_link *l, const struct ml_digest *index,
                       ml_session_done done, void *arg)
{
    submit(l, op_new(l, ML_LMDB_KILL, index, ML_STR(""), done, arg), done, arg);
}

/* One process has it: its workers are kept apart by flights. */
static void lock(struct ml_session_link *l, const struct ml_digest *key, uint32_t ms,
                 ml_session_done done, void *arg)
{
    done(arg, &(struct ml_session_answer){.found = true});
}

static void unlock(struct ml_session_link *l, const struct ml_digest *key)
{
}

static void publish(struct ml_session_link *l, struct ml_str message)
{
}

static void on_message(struct ml_session_link *l, void (*fn)(void *ctx, struct ml_str message),
                       void *ctx)
{
}

/* Life ---------------------------------------------------------------------------------------- */

static int link_open(void *store, uv_loop_t *loop, struct ml_session_link **ret, struct ml_err *err)
{
    struct ml_session_link *l = ML_NEW(struct ml_session_link);
    int r = ml_mailbox_open(&l->mailbox, loop);
    if (r != 0) {
        pthread_mutex_destroy(&l->mailbox.lock);
        free(l);
        return ml_fail(err, ML_E_IO, "%s", uv_strerror(r));
    }
    l->store = store;
    TAILQ_INIT(&l->pending);
    pthread_rwlock_wrlock(&l->store->gate);
    LIST_INSERT_HEAD(&l->store->links, l, entry);
    pthread_rwlock_unlock(&l->store->gate);
    *ret = l;
    return 0;
}

static void link_close(struct ml_session_link *l, void (*closed)(void *ctx), void *ctx)
{
    struct ml_lmdb_op *op;
    l->closed = closed;
    l->ctx = ctx;
    pthread_rwlock_wrlock(&l->store->gate);
    if (l->txn)
        mdb_txn_abort(l->txn);
    l->txn = NULL;
    LIST_REMOVE(l, entry);
    pthread_rwlock_unlock(&l->store->gate);
    TAILQ_FOREACH(op, &l->pending, pending)
    call_done(op, ML_E_CANCELED, "the link was closed");
    l->closing = true;
    close_if_idle(l);
}

static bool ready(struct ml_session_link *l, struct ml_err *err)
{
    struct ml_lmdb *s = l->store;
    pthread_rwlock_rdlock(&s->gate);
    bool open = s->env != NULL;
    pthread_rwlock_unlock(&s->gate);
    if (open && !atomic_load(&s->trouble))
        return true;
    want(s);
    pthread_mutex_lock(&s->lock);
    ml_fail(err, ML_E_UNAVAILABLE, "session store: %s", s->why);
    pthread_mutex_unlock(&s->lock);
    return false;
}

static void stats(void *store, struct ml_session_store_stats *ret)
{
    struct ml_lmdb *s = store;
    *ret = (struct ml_session_store_stats){.sessions = s->sessions,
                                           .bytes = s->bytes,
                                           .commits = s->commits,
                                           .swept = s->swept,
                                           .evicted = s->evicted,
                                           .set_aside = s->set_aside};
}

void *ml_lmdb_store_new(const struct ml_lmdb_options *options)
{
    struct ml_lmdb *s = ML_NEW(struct ml_lmdb);
    pthread_condattr_t monotonic;
    pthread_rwlockattr_t writers_first;
    ml_guard_install();
    s->path = ml_xstrdup(options->path);
    s->key = options->key ? ml_xstrdup(options->key) : NULL;
    s->max_bytes = options->max_bytes;
    s->readers = options->readers ? options->readers : READERS;
    s->lock_fd = -1;
    TAILQ_INIT(&s->queue);
    LIST_INIT(&s->links);
    snprintf(s->why, sizeof s->why, "it is being opened");
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&s->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_rwlockattr_init(&writers_first); /* reads never nest */
    pthread_rwlockattr_setkind_np(&writers_first, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&s->gate, &writers_first);
    pthread_rwlockattr_destroy(&writers_first);
    return s;
}

static void store_close(void *store)
{
    struct ml_lmdb *s = store;
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    if (s->started)
        pthread_join(s->writer, NULL);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->wake);
    pthread_rwlock_destroy(&s->gate);
    if (s->key)
        ml_wipe(s->key, strlen(s->key));
    free(s->key);
    free(s->path);
    free(s);
}

const struct ml_session_backend ml_session_lmdb = {
    .name = "lmdb",
    .link = link_open,
    .unlink = link_close,
    .get = get,
    .put = put,
    .remove = remove_record,
    .kill = kill_index,
    .lock = lock,
    .unlock = unlock,
    .publish = publish,
    .on_message = on_message,
    .ready = ready,
    .stats = stats,
    .close = store_close,
};
