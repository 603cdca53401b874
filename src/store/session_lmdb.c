/* The LMDB store's face: links, their reads on workers' threads, and the queue of writes. See
 * session_lmdb_internal.h for who may touch what. */
#include "store/session_lmdb_internal.h"

#include "base/clock.h"
#include "base/guard.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { READERS = 512 };

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
        ml_lmdb_report(s, ml_lmdb_trouble_of(look.rc));
    pthread_rwlock_unlock(&s->gate);
    if (open) {
        answer_look(&look, done, arg);
        free(look.copy);
        return;
    }
    ml_lmdb_want(s);
    pthread_mutex_lock(&s->lock);
    memcpy(why, s->why, sizeof why);
    pthread_mutex_unlock(&s->lock);
    done(arg, &(struct ml_session_answer){.error = ML_E_UNAVAILABLE, .text = why});
}

/* Writes -------------------------------------------------------------------------------------- */

static void call_done(struct ml_lmdb_op *op, const struct ml_session_answer *answer)
{
    ml_session_done done = op->done;
    op->done = NULL;
    if (done)
        done(op->arg, answer);
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
    call_done(op, &(struct ml_session_answer){.error = op->error,
                                              .text = op->error ? op->text : NULL,
                                              .found = !op->error && op->found,
                                              .keys = op->keys,
                                              .key_count = op->key_count});
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
        ml_lmdb_start_writer(s);
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
    static const struct ml_session_answer canceled = {.error = ML_E_CANCELED,
                                                      .text = "the link was closed"};
    struct ml_lmdb_op *op;
    l->closed = closed;
    l->ctx = ctx;
    pthread_rwlock_wrlock(&l->store->gate);
    ml_lmdb_end_read(l);
    LIST_REMOVE(l, entry);
    pthread_rwlock_unlock(&l->store->gate);
    TAILQ_FOREACH(op, &l->pending, pending)
    {
        call_done(op, &canceled); /* what the writer has of it now is the writer's */
    }
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
    ml_lmdb_want(s);
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
