/* The LMDB store's file: a look at it before LMDB trusts it, opening, closing. On the writer's
 * thread.
 *
 * LMDB trusts its pages (S-174). So: they are checked first (lmdb_check.h), a header record of our
 * own must be whole, and whatever LMDB does with the map runs guarded (base/guard.h). What is in a
 * record is sealed, and needs no trust. */
#include "store/lmdb_check.h"
#include "store/session_lmdb_internal.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FORMAT = 1, DATABASES = 3, OPEN_TRIES = 3 };

/* Our record in the main database. */
struct header {
    char magic[16];
    uint32_t format;
    uint32_t head_bytes; /* of struct ml_lmdb_head: of this machine's layout */
    int64_t created_ms;
    uint8_t random[16];
    struct ml_digest check; /* of what is before */
};
static const char magic[16] = "moonlatch store";

enum ml_lmdb_trouble ml_lmdb_trouble_of(int rc)
{
    switch (rc) {
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_CURSOR_FULL:
    case MDB_PAGE_FULL:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
    case MDB_INCOMPATIBLE:
    case MDB_BAD_VALSIZE:
        return ML_LMDB_DAMAGED;
    case MDB_PANIC:
    case MDB_BAD_TXN:
    case MDB_BAD_RSLOT:
    case MDB_BAD_DBI:
    case MDB_MAP_RESIZED:
        return ML_LMDB_REOPEN;
    default:
        return ML_LMDB_FINE;
    }
}

/* 1: there is a file for LMDB, or none; 0: it was set aside; -1: it cannot be looked at. */
static int look_at_file(struct ml_lmdb *s)
{
    struct stat st;
    const char *why = NULL;
    int fd = open(s->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* it may be a FIFO */
    if (fd < 0 && errno == ENOENT)
        return 1;
    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        ml_lmdb_set_why(s, "%s: %s", s->path, fd < 0 ? strerror(errno) : "not a regular file");
        if (fd >= 0)
            close(fd);
        return -1;
    }
    why = ml_lmdb_check(fd, st.st_size);
    close(fd);
    if (why)
        ml_lmdb_set_aside(s, why);
    return why == NULL;
}

/* The environment ----------------------------------------------------------------------------- */

static void on_assert(MDB_env *env, const char *text)
{
    ml_guard_leave();
}

static bool check_of(const struct header *h, struct ml_digest *ret)
{
    return ml_sha256(ml_str((const char *)h, offsetof(struct header, check)), ret);
}

static int write_header(MDB_txn *txn, MDB_dbi main_db, MDB_val *key)
{
    struct header h = {
        .format = FORMAT, .head_bytes = sizeof(struct ml_lmdb_head), .created_ms = ml_wall_ms()};
    memcpy(h.magic, magic, sizeof h.magic);
    if (!ml_random(h.random, sizeof h.random) || !check_of(&h, &h.check))
        return EIO;
    MDB_val value = {sizeof h, &h};
    return mdb_put(txn, main_db, key, &value, 0);
}

static int check_header(MDB_txn *txn)
{
    struct header h;
    struct ml_digest check;
    MDB_dbi main_db;
    MDB_stat st;
    MDB_val key = {6, (void *)(uintptr_t) "header"}, value;
    int rc = mdb_dbi_open(txn, NULL, 0, &main_db);
    if (rc == 0)
        rc = mdb_stat(txn, main_db, &st);
    if (rc != 0)
        return rc;
    if (st.ms_entries == 0)
        return write_header(txn, main_db, &key);
    rc = mdb_get(txn, main_db, &key, &value);
    if (rc == 0 && value.mv_size == sizeof h)
        memcpy(&h, value.mv_data, sizeof h);
    else
        return rc == 0 || rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
    bool ours = memcmp(h.magic, magic, sizeof h.magic) == 0 && h.format == FORMAT &&
                h.head_bytes == sizeof(struct ml_lmdb_head) && check_of(&h, &check) &&
                memcmp(&check, &h.check, sizeof check) == 0;
    return ours ? 0 : MDB_INCOMPATIBLE;
}

/* Each record has one place in the order of expiry. */
static int check_counts(struct ml_lmdb *s, MDB_txn *txn)
{
    MDB_stat records, expiry;
    int rc = mdb_stat(txn, s->records, &records);
    if (rc == 0)
        rc = mdb_stat(txn, s->expiry, &expiry);
    return rc == 0 && records.ms_entries != expiry.ms_entries ? MDB_CORRUPTED : rc;
}

struct opening {
    struct ml_lmdb *s;
    MDB_env *env;
    MDB_txn *txn;
    int rc;
};

static int open_databases(struct opening *o)
{
    struct ml_lmdb *s = o->s;
    int rc = mdb_txn_begin(o->env, NULL, 0, &o->txn);
    if (rc == 0)
        rc = check_header(o->txn);
    if (rc == 0)
        rc = mdb_dbi_open(o->txn, "records", MDB_CREATE, &s->records);
    if (rc == 0)
        rc = mdb_dbi_open(o->txn, "expiry", MDB_CREATE, &s->expiry);
    if (rc == 0)
        rc = mdb_dbi_open(o->txn, "index", MDB_CREATE, &s->index);
    if (rc == 0)
        rc = check_counts(s, o->txn);
    if (rc != 0)
        return rc;
    ml_lmdb_measure(s, o->txn);
    MDB_txn *txn = o->txn;
    o->txn = NULL;
    return mdb_txn_commit(txn);
}

/* A quarter more than the bound: room for what a transaction copies, and for gaps. */
static void open_guarded(void *arg)
{
    struct opening *o = arg;
    struct ml_lmdb *s = o->s;
    uint64_t map = s->max_bytes + s->max_bytes / 4 + (4 << 20);
    o->rc = mdb_env_create(&o->env);
    if (o->rc == 0)
        o->rc = mdb_env_set_mapsize(o->env, (size_t)(map & ~UINT64_C(0xffff)));
    if (o->rc == 0)
        o->rc = mdb_env_set_maxdbs(o->env, DATABASES);
    if (o->rc == 0)
        o->rc = mdb_env_set_maxreaders(o->env, s->readers);
    if (o->rc == 0)
        o->rc = mdb_env_set_assert(o->env, on_assert);
    if (o->rc == 0)
        o->rc = mdb_env_open(o->env, s->path, MDB_NOSUBDIR | MDB_NOTLS | MDB_NORDAHEAD, 0600);
    if (o->rc == 0)
        o->rc = open_databases(o);
}

static void close_guarded(void *arg)
{
    mdb_env_close(arg);
}

static void abort_guarded(void *arg)
{
    mdb_txn_abort(arg);
}

static void close_cursor_guarded(void *arg)
{
    mdb_cursor_close(arg);
}

/* After a fault they may fault again, and are left half-way then. */
void ml_lmdb_give_up(struct ml_lmdb *s)
{
    if (s->cursor)
        ml_guard_run(close_cursor_guarded, s->cursor);
    if (s->txn)
        ml_guard_run(abort_guarded, s->txn);
    s->cursor = NULL;
    s->txn = NULL;
}

void ml_lmdb_end_read(struct ml_session_link *l)
{
    if (l->txn)
        ml_guard_run(abort_guarded, l->txn);
    l->txn = NULL;
}

/* With the file judged. 1: open; 0: it was set aside; -1: not now. */
static int open_env(struct ml_lmdb *s)
{
    struct opening o = {.s = s};
    char *lock_file = ml_lmdb_beside(s, "-lock");
    unlink(lock_file); /* LMDB's: of processes that are gone, with what they held (S-432) */
    free(lock_file);
    bool whole = ml_guard_run(open_guarded, &o);
    if (whole && o.rc == 0) {
        pthread_rwlock_wrlock(&s->gate);
        s->env = o.env;
        pthread_rwlock_unlock(&s->gate);
        return 1;
    }
    if (o.txn)
        ml_guard_run(abort_guarded, o.txn);
    if (o.env)
        ml_guard_run(close_guarded, o.env);
    if (!whole || ml_lmdb_trouble_of(o.rc) == ML_LMDB_DAMAGED) {
        ml_lmdb_set_aside(s, whole ? mdb_strerror(o.rc) : "its pages are damaged");
        return 0;
    }
    ml_lmdb_set_why(s, "%s: %s", s->path, mdb_strerror(o.rc));
    return -1;
}

void ml_lmdb_close(struct ml_lmdb *s)
{
    struct ml_session_link *l;
    pthread_rwlock_wrlock(&s->gate);
    LIST_FOREACH(l, &s->links, entry)
    {
        ml_lmdb_end_read(l);
    }
    ml_lmdb_give_up(s);
    if (s->env)
        ml_guard_run(close_guarded, s->env);
    s->env = NULL;
    atomic_store(&s->trouble, ML_LMDB_FINE); /* what was reported was about this one */
    pthread_rwlock_unlock(&s->gate);
    ml_lmdb_drop_lock(s);
    ml_lmdb_set_why(s, "it is being opened");
}

bool ml_lmdb_open(struct ml_lmdb *s)
{
    char *copy = ml_xstrdup(s->path);
    mkdir(dirname(copy), 0700); /* one level: what is above is the operator's */
    free(copy);
    if (!ml_lmdb_take_lock(s))
        return false;
    int r = 0;
    for (int tries = 0; r == 0 && tries < OPEN_TRIES; tries++) { /* again when it was set aside */
        r = look_at_file(s);
        if (r == 1)
            r = open_env(s);
    }
    if (r != 1) {
        if (r == 0)
            ml_lmdb_set_why(s, "%s: damaged, and cannot be set aside", s->path);
        ml_lmdb_drop_lock(s);
        return false;
    }
    ml_lmdb_keep_key(s);
    return true;
}
