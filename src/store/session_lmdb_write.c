/* Transactions of the LMDB store: a batch of writes is one, and is committed durably before any of
 * them is answered. On the writer's thread; whatever touches the map runs guarded.
 *
 * Databases: records (key -> head, sealed value), expiry (moment, key), index (hash, key): their
 * keys say it all, their values are empty. Numbers in keys are big endian, so that they sort. */
#include "store/session_lmdb_internal.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    EXPIRY_KEY = 8 + sizeof(struct ml_digest),
    INDEX_KEY = 2 * sizeof(struct ml_digest),
    FULL_TRIES = 4,
    EVICT_SHARE = 32, /* one in so many goes at a time */
    EVICT_MIN = 16,
    FULL_LOG_MS = 60000,
};

static MDB_val val(const void *p, size_t n)
{
    return (MDB_val){n, (void *)(uintptr_t)p};
}

static void expiry_key(uint8_t out[EXPIRY_KEY], int64_t expires_ms, const struct ml_digest *key)
{
    for (int i = 0; i < 8; i++)
        out[i] = (uint8_t)((uint64_t)expires_ms >> (56 - 8 * i));
    memcpy(out + 8, key, sizeof *key);
}

static int64_t expiry_of(const uint8_t *p)
{
    uint64_t n = 0;
    for (int i = 0; i < 8; i++)
        n = n << 8 | p[i];
    return (int64_t)n;
}

static void index_key(uint8_t out[INDEX_KEY], const struct ml_digest *index,
                      const struct ml_digest *key)
{
    memcpy(out, index, sizeof *index);
    memcpy(out + sizeof *index, key, sizeof *key);
}

/* A value on pages of its own has their number in front of it, by which they are freed: this is not
 * looked at when the file is opened. */
static bool pages_are_right(struct ml_lmdb *s, const MDB_val *v)
{
    enum { HEAD = 16, OVERFLOW = 4 };
    MDB_stat st;
    uint16_t flags;
    uint32_t pages;
    if (mdb_stat(s->txn, s->records, &st) != 0)
        return false;
    if (v->mv_size + sizeof(struct ml_digest) < st.ms_psize / 2 - HEAD) /* it is within a leaf */
        return true;
    const char *page = (const char *)v->mv_data - HEAD;
    if (((uintptr_t)page & (st.ms_psize - 1)) != 0)
        return true; /* it is all the same */
    memcpy(&flags, page + 10, sizeof flags);
    memcpy(&pages, page + 12, sizeof pages);
    return flags == OVERFLOW && pages == (HEAD - 1 + v->mv_size) / st.ms_psize + 1;
}

/* 0, MDB_NOTFOUND, or an error; a record that cannot be one is MDB_CORRUPTED. */
static int read_head(struct ml_lmdb *s, const struct ml_digest *key, struct ml_lmdb_head *ret)
{
    MDB_val k = val(key, sizeof *key), v;
    int rc = mdb_get(s->txn, s->records, &k, &v);
    if (rc == 0 && (v.mv_size < sizeof *ret || !pages_are_right(s, &v)))
        return MDB_CORRUPTED;
    if (rc == 0)
        memcpy(ret, v.mv_data, sizeof *ret);
    if (rc == 0 && (ret->version != 1 || ret->index_count > ML_SESSION_INDEX_MAX))
        return MDB_CORRUPTED;
    return rc;
}

/* Something that should be there and is not is no reason to stop. */
static int delete_key(struct ml_lmdb *s, MDB_dbi db, const void *p, size_t n)
{
    MDB_val k = val(p, n);
    int rc = mdb_del(s->txn, db, &k, NULL);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* The record and what leads to it. */
static int delete_record(struct ml_lmdb *s, const struct ml_digest *key,
                         const struct ml_lmdb_head *head)
{
    uint8_t k[INDEX_KEY];
    expiry_key(k, head->expires_ms, key);
    int rc = delete_key(s, s->expiry, k, EXPIRY_KEY);
    for (size_t i = 0; rc == 0 && i < head->index_count; i++) {
        index_key(k, &head->index[i], key);
        rc = delete_key(s, s->index, k, INDEX_KEY);
    }
    return rc == 0 ? delete_key(s, s->records, key, sizeof *key) : rc;
}

static int insert_record(struct ml_lmdb *s, const struct ml_lmdb_op *op)
{
    uint8_t k[INDEX_KEY];
    MDB_val key = val(&op->key, sizeof op->key), none = {0, NULL};
    MDB_val value = {sizeof op->head + op->n, NULL};
    int rc = mdb_put(s->txn, s->records, &key, &value, MDB_RESERVE);
    if (rc != 0)
        return rc;
    memcpy(value.mv_data, &op->head, sizeof op->head);
    memcpy((char *)value.mv_data + sizeof op->head, op->value, op->n);
    expiry_key(k, op->head.expires_ms, &op->key);
    key = val(k, EXPIRY_KEY);
    rc = mdb_put(s->txn, s->expiry, &key, &none, 0);
    for (size_t i = 0; rc == 0 && i < op->head.index_count; i++) {
        index_key(k, &op->head.index[i], &op->key);
        key = val(k, INDEX_KEY);
        rc = mdb_put(s->txn, s->index, &key, &none, 0);
    }
    return rc;
}

/* Nothing but the moment changes with most replaces and all touches: the index stays. */
static int apply_put(struct ml_lmdb *s, struct ml_lmdb_op *op)
{
    struct ml_lmdb_head old;
    int rc = read_head(s, &op->key, &old);
    if (rc != 0 && rc != MDB_NOTFOUND)
        return rc;
    bool dead = rc == 0 && old.expires_ms <= ml_wall_ms();
    if ((rc == 0 && !dead ? old.revision : 0) != op->replaces)
        return 0;
    if (rc == 0) {
        uint8_t k[EXPIRY_KEY];
        bool same = old.index_count == op->head.index_count &&
                    memcmp(old.index, op->head.index, sizeof old.index) == 0;
        expiry_key(k, old.expires_ms, &op->key);
        rc = same ? delete_key(s, s->expiry, k, sizeof k) : delete_record(s, &op->key, &old);
        if (rc != 0)
            return rc;
    }
    rc = insert_record(s, op);
    op->found = rc == 0;
    return rc;
}

static int apply_remove(struct ml_lmdb *s, struct ml_lmdb_op *op)
{
    struct ml_lmdb_head head;
    int rc = read_head(s, &op->key, &head);
    if (rc == MDB_NOTFOUND)
        return 0;
    op->found = rc == 0 && head.expires_ms > ml_wall_ms();
    return rc == 0 ? delete_record(s, &op->key, &head) : rc;
}

/* The first look at a database reads its root, which may fault: before there is a cursor to lose.
 */
static int open_cursor(struct ml_lmdb *s, MDB_dbi db)
{
    MDB_stat st;
    int rc = mdb_stat(s->txn, db, &st);
    return rc == 0 ? mdb_cursor_open(s->txn, db, &s->cursor) : rc;
}

static void close_cursor(struct ml_lmdb *s)
{
    mdb_cursor_close(s->cursor);
    s->cursor = NULL;
}

static bool add_key(struct ml_lmdb_op *op, const uint8_t *key)
{
    if (op->key_count == op->key_room) {
        size_t room = op->key_room ? op->key_room * 2 : 8;
        struct ml_digest *keys = realloc(op->keys, room * sizeof *keys);
        if (!keys)
            return false;
        op->keys = keys;
        op->key_room = room;
    }
    memcpy(&op->keys[op->key_count++], key, sizeof op->keys[0]);
    return true;
}

/* The keys first: a cursor is not at home in a tree that loses its leaves. */
static int find_index(struct ml_lmdb *s, struct ml_lmdb_op *op)
{
    MDB_val k = val(&op->key, sizeof op->key), v;
    int rc = open_cursor(s, s->index);
    if (rc != 0)
        return rc;
    for (rc = mdb_cursor_get(s->cursor, &k, &v, MDB_SET_RANGE);
         rc == 0 && k.mv_size == INDEX_KEY && memcmp(k.mv_data, &op->key, sizeof op->key) == 0 &&
         op->key_count < op->committed + ML_LMDB_KILL_BATCH;
         rc = mdb_cursor_get(s->cursor, &k, &v, MDB_NEXT)) {
        if (!add_key(op, (const uint8_t *)k.mv_data + sizeof op->key)) {
            rc = ENOMEM;
            break;
        }
    }
    close_cursor(s);
    op->more = op->key_count == op->committed + ML_LMDB_KILL_BATCH;
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int apply_kill(struct ml_lmdb *s, struct ml_lmdb_op *op)
{
    size_t live = op->committed;
    int rc = find_index(s, op);
    for (size_t i = live; rc == 0 && i < op->key_count; i++) {
        struct ml_lmdb_head head;
        struct ml_digest key = op->keys[i];
        uint8_t k[INDEX_KEY];
        rc = read_head(s, &key, &head);
        if (rc == MDB_NOTFOUND) { /* an index entry alone */
            index_key(k, &op->key, &key);
            rc = delete_key(s, s->index, k, sizeof k);
            continue;
        }
        if (rc == 0)
            rc = delete_record(s, &key, &head);
        if (rc == 0 && head.expires_ms > ml_wall_ms())
            op->keys[live++] = key;
    }
    op->key_count = live;
    op->found = live > 0;
    return rc;
}

/* Transactions -------------------------------------------------------------------------------- */

struct work {
    struct ml_lmdb *s;
    struct ml_lmdb_ops *batch;
    size_t removed, wanted; /* sweep, evict */
    int64_t until_ms;
    int rc;
};

static int commit(struct ml_lmdb *s)
{
    ml_lmdb_measure(s, s->txn);
    MDB_txn *txn = s->txn;
    s->txn = NULL; /* commit frees it, come what may */
    int rc = mdb_txn_commit(txn);
    if (rc == 0)
        atomic_fetch_add_explicit(&s->commits, 1, memory_order_relaxed);
    return rc;
}

static void commit_guarded(void *arg)
{
    struct work *w = arg;
    struct ml_lmdb *s = w->s;
    struct ml_lmdb_op *op;
    w->rc = mdb_txn_begin(s->env, NULL, 0, &s->txn);
    TAILQ_FOREACH(op, w->batch, link)
    {
        op->found = false; /* it may be the second try */
        op->key_count = op->committed;
        if (w->rc == 0)
            w->rc = op->kind == ML_LMDB_PUT      ? apply_put(s, op)
                    : op->kind == ML_LMDB_REMOVE ? apply_remove(s, op)
                                                 : apply_kill(s, op);
    }
    if (w->rc == 0)
        w->rc = commit(s);
}

/* What was not committed is given up. */
static int run(void (*fn)(void *), struct work *w)
{
    if (!ml_guard_run(fn, w))
        w->rc = MDB_CORRUPTED;
    ml_lmdb_give_up(w->s);
    enum ml_lmdb_trouble trouble = ml_lmdb_trouble_of(w->rc);
    if (trouble != ML_LMDB_FINE && (int)trouble > atomic_load(&w->s->trouble))
        atomic_store(&w->s->trouble, (int)trouble);
    return w->rc;
}

static void answer_failure(struct ml_lmdb *s, struct ml_lmdb_op *op, int rc)
{
    const char *text = rc == MDB_MAP_FULL ? "the session store is full" : mdb_strerror(rc);
    op->error = ML_E_UNAVAILABLE;
    snprintf(op->text, sizeof op->text, "%s", text);
    uint64_t now = ml_mono_ms();
    if (s->failure_logged_ms == 0 || now - s->failure_logged_ms >= FULL_LOG_MS) {
        s->failure_logged_ms = now;
        ml_log(ML_LOG_ERROR, "sessions cannot be written", ML_FZ("store", s->path),
               ML_FZ("reason", text));
    }
}

static size_t evict_some(struct ml_lmdb *s);

/* A kill of many sessions goes on until there are none: whatever it has ended so far stays so. */
static void finish_kill(struct ml_lmdb *s, struct ml_lmdb_op *op)
{
    while (op->more && !op->error) {
        struct ml_lmdb_ops alone = TAILQ_HEAD_INITIALIZER(alone);
        struct ml_lmdb_op again = {.kind = ML_LMDB_KILL, .key = op->key};
        struct work w = {.s = s, .batch = &alone};
        TAILQ_INSERT_TAIL(&alone, &again, link);
        again.keys = op->keys;
        again.key_room = op->key_room;
        again.committed = op->key_count;
        int rc = run(commit_guarded, &w);
        op->keys = again.keys; /* it may have moved */
        op->key_room = again.key_room;
        op->more = again.more;
        if (rc == 0)
            op->key_count = again.key_count;
        else
            answer_failure(s, op, rc);
    }
    op->found = op->key_count > 0 || op->found;
}

void ml_lmdb_commit(struct ml_lmdb *s, struct ml_lmdb_ops *batch)
{
    struct work w = {.s = s, .batch = batch};
    int rc = run(commit_guarded, &w);
    for (int tries = 0; rc == MDB_MAP_FULL && tries < FULL_TRIES && evict_some(s) > 0; tries++)
        rc = run(commit_guarded, &w);
    struct ml_lmdb_op *op;
    TAILQ_FOREACH(op, batch, link)
    {
        if (rc != 0)
            answer_failure(s, op, rc);
        else
            finish_kill(s, op);
    }
    if (rc == 0)
        ml_lmdb_evict(s);
}

void ml_lmdb_measure(struct ml_lmdb *s, MDB_txn *txn)
{
    const MDB_dbi databases[] = {s->records, s->expiry, s->index};
    uint64_t bytes = 0;
    for (size_t i = 0; i < sizeof databases / sizeof databases[0]; i++) {
        MDB_stat st;
        if (mdb_stat(txn, databases[i], &st) != 0)
            return;
        bytes += (st.ms_branch_pages + st.ms_leaf_pages + st.ms_overflow_pages) * st.ms_psize;
        if (i == 0)
            atomic_store_explicit(&s->sessions, st.ms_entries, memory_order_relaxed);
    }
    atomic_store_explicit(&s->bytes, bytes, memory_order_relaxed);
}

/* Sweep and eviction: from the front of the order of expiry ------------------------------------ */

static int remove_first(struct ml_lmdb *s, int64_t until_ms, bool *over)
{
    struct ml_lmdb_head head;
    struct ml_digest key;
    uint8_t k[EXPIRY_KEY];
    MDB_val found, v;
    int rc = mdb_cursor_get(s->cursor, &found, &v, MDB_FIRST);
    *over = rc == MDB_NOTFOUND ||
            (rc == 0 && found.mv_size == EXPIRY_KEY && expiry_of(found.mv_data) > until_ms);
    if (*over || rc != 0)
        return *over ? 0 : rc;
    if (found.mv_size != EXPIRY_KEY)
        return MDB_CORRUPTED;
    memcpy(k, found.mv_data, sizeof k);
    memcpy(&key, k + 8, sizeof key);
    rc = read_head(s, &key, &head);
    if (rc == 0 && head.expires_ms == expiry_of(k))
        return delete_record(s, &key, &head);
    return rc == 0 || rc == MDB_NOTFOUND ? delete_key(s, s->expiry, k, sizeof k) : rc;
}

static void remove_guarded(void *arg)
{
    struct work *w = arg;
    struct ml_lmdb *s = w->s;
    bool over = false;
    w->removed = 0;
    w->rc = mdb_txn_begin(s->env, NULL, 0, &s->txn);
    if (w->rc != 0)
        return;
    w->rc = open_cursor(s, s->expiry);
    if (w->rc == 0) {
        while (w->rc == 0 && !over && w->removed < w->wanted) {
            w->rc = remove_first(s, w->until_ms, &over);
            w->removed += w->rc == 0 && !over;
        }
        close_cursor(s);
    }
    if (w->rc == 0 && w->removed)
        w->rc = commit(s);
}

bool ml_lmdb_sweep(struct ml_lmdb *s)
{
    struct work w = {.s = s, .wanted = ML_LMDB_SWEEP, .until_ms = ml_wall_ms()};
    if (run(remove_guarded, &w) != 0)
        return false;
    atomic_fetch_add_explicit(&s->swept, w.removed, memory_order_relaxed);
    return w.removed == ML_LMDB_SWEEP;
}

/* How many went. */
static size_t evict_some(struct ml_lmdb *s)
{
    size_t share = (size_t)(s->sessions / EVICT_SHARE);
    struct work w = {
        .s = s, .wanted = share > EVICT_MIN ? share : EVICT_MIN, .until_ms = INT64_MAX};
    if (run(remove_guarded, &w) != 0)
        return 0;
    atomic_fetch_add_explicit(&s->evicted, w.removed, memory_order_relaxed);
    uint64_t now = ml_mono_ms();
    if (w.removed && (s->full_logged_ms == 0 || now - s->full_logged_ms >= FULL_LOG_MS)) {
        s->full_logged_ms = now;
        ml_log(ML_LOG_WARN, "the session store is full: sessions that end first are given up",
               ML_FZ("store", s->path), ML_FN("evicted", w.removed),
               ML_FN("max_bytes", s->max_bytes));
    }
    return w.removed;
}

void ml_lmdb_evict(struct ml_lmdb *s)
{
    while (atomic_load_explicit(&s->bytes, memory_order_relaxed) > s->max_bytes)
        if (evict_some(s) == 0)
            return;
}
