/* The LMDB store's file: one process's lock, a look at the file before LMDB trusts it, opening,
 * setting aside, the key beside it. On the writer's thread, but for ml_lmdb_key_read.
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
#include <glob.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { FORMAT = 1, DATABASES = 3, KEPT_ASIDE = 3, OPEN_TRIES = 3 };

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

static char *beside(const struct ml_lmdb *s, const char *suffix)
{
    char *path = ml_xmalloc(strlen(s->path) + strlen(suffix) + 1);
    strcpy(path, s->path);
    strcat(path, suffix);
    return path;
}

/* The lock ------------------------------------------------------------------------------------ */

/* Held as long as the file is open: a second process must not touch it (S-436). */
static bool take_lock(struct ml_lmdb *s)
{
    char *path = beside(s, ".lock"), text[32] = "";
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool ours = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
    if (ours) {
        int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
        if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n)
            errno = 0; /* for people only */
        s->lock_fd = fd;
    } else if (fd >= 0 && errno == EWOULDBLOCK) {
        ssize_t n = pread(fd, text, sizeof text - 1, 0);
        text[n > 0 ? n : 0] = 0;
        ml_lmdb_set_why(s, "%s is in use by another process (%.*s)", s->path,
                        (int)strcspn(text, "\n"), text);
    } else {
        ml_lmdb_set_why(s, "%s: %s", path, strerror(errno));
    }
    if (!ours && fd >= 0)
        close(fd);
    free(path);
    return ours;
}

static void drop_lock(struct ml_lmdb *s)
{
    if (s->lock_fd >= 0)
        close(s->lock_fd);
    s->lock_fd = -1;
}

/* The file ------------------------------------------------------------------------------------ */

void ml_lmdb_set_aside(struct ml_lmdb *s, const char *why)
{
    char stamp[48], *to, *pattern = beside(s, ".damaged-*");
    time_t now = (time_t)(ml_wall_ms() / 1000);
    struct tm tm;
    glob_t old = {.gl_pathc = 0};
    strftime(stamp, sizeof stamp, ".damaged-%Y%m%dT%H%M%SZ", gmtime_r(&now, &tm));
    to = beside(s, stamp);
    int r = rename(s->path, to);
    atomic_fetch_add(&s->set_aside, 1);
    ml_log(ML_LOG_ERROR,
           "the session store is damaged: it was set aside, and all must log in again",
           ML_FZ("store", s->path), ML_FZ("aside", r == 0 ? to : strerror(errno)),
           ML_FZ("reason", why));
    /* Sorted by name, which is by time. */
    if (glob(pattern, 0, NULL, &old) == 0)
        for (size_t i = 0; i + KEPT_ASIDE < old.gl_pathc; i++)
            unlink(old.gl_pathv[i]);
    globfree(&old);
    free(pattern);
    free(to);
}

bool ml_lmdb_in_place(const struct ml_lmdb *s)
{
    struct stat named, opened;
    int fd;
    return mdb_env_get_fd(s->env, &fd) == 0 && fstat(fd, &opened) == 0 &&
           stat(s->path, &named) == 0 && named.st_ino == opened.st_ino &&
           named.st_dev == opened.st_dev;
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

struct closing {
    MDB_env *env;
    MDB_txn *txn;
};

static void abort_guarded(void *arg)
{
    mdb_txn_abort(((struct closing *)arg)->txn);
}

static void close_guarded(void *arg)
{
    mdb_env_close(((struct closing *)arg)->env);
}

static void close_env(MDB_env *env, MDB_txn *txn)
{
    struct closing closing = {env, txn};
    if (txn)
        ml_guard_run(abort_guarded, &closing);
    if (env)
        ml_guard_run(close_guarded, &closing);
}

/* With the file judged. 1: open; 0: it was set aside; -1: not now. */
static int open_env(struct ml_lmdb *s)
{
    struct opening o = {.s = s};
    char *lock_file = beside(s, "-lock");
    unlink(lock_file); /* LMDB's: of processes that are gone, with what they held (S-432) */
    free(lock_file);
    bool whole = ml_guard_run(open_guarded, &o);
    if (whole && o.rc == 0) {
        pthread_rwlock_wrlock(&s->gate);
        s->env = o.env;
        pthread_rwlock_unlock(&s->gate);
        return 1;
    }
    close_env(o.env, o.txn);
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
        close_env(NULL, l->txn);
        l->txn = NULL;
    }
    close_env(s->env, s->txn);
    s->env = NULL;
    s->txn = NULL;
    atomic_store(&s->trouble, ML_LMDB_FINE); /* what was reported was about this one */
    pthread_rwlock_unlock(&s->gate);
    drop_lock(s);
    ml_lmdb_set_why(s, "it is being opened");
}

/* The key ------------------------------------------------------------------------------------- */

int ml_lmdb_key_read(const char *path, char out[ML_LMDB_KEY_TEXT], struct ml_err *err)
{
    char name[PATH_MAX];
    struct stat st;
    snprintf(name, sizeof name, "%s.key", path);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return ml_fail(err, errno == ENOENT || errno == ENOTDIR ? ML_E_NOTFOUND : ML_E_IO, "%s: %s",
                       name, strerror(errno));
    ssize_t n = read(fd, out, ML_LMDB_KEY_TEXT - 1);
    int saved = errno;
    bool open_to_others = fstat(fd, &st) == 0 && (st.st_mode & 077) != 0;
    close(fd);
    if (n < 0)
        return ml_fail(err, ML_E_IO, "%s: %s", name, strerror(saved));
    while (n > 0 && (out[n - 1] == '\n' || out[n - 1] == '\r'))
        n--;
    out[n] = 0;
    if (open_to_others)
        ml_log(ML_LOG_WARN, "the sealing key can be read by others: its mode should be 0600",
               ML_FZ("file", name));
    return 0;
}

/* Whole or not at all: written beside and linked to its name, which must be free. */
static bool write_key(const struct ml_lmdb *s, const char *name)
{
    char *draft = beside(s, ".key.new");
    unlink(draft);
    int fd = open(draft, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    size_t n = strlen(s->key);
    bool done = fd >= 0 && write(fd, s->key, n) == (ssize_t)n && write(fd, "\n", 1) == 1 &&
                fsync(fd) == 0 && link(draft, name) == 0;
    int saved = errno;
    if (fd >= 0)
        close(fd);
    unlink(draft);
    free(draft);
    errno = saved;
    return done;
}

static void keep_key(struct ml_lmdb *s)
{
    char *name, have[ML_LMDB_KEY_TEXT];
    if (!s->key)
        return;
    name = beside(s, ".key");
    if (!write_key(s, name)) {
        bool same = errno == EEXIST && ml_lmdb_key_read(s->path, have, NULL) == 0 &&
                    strcmp(have, s->key) == 0;
        if (!same)
            ml_log(ML_LOG_ERROR, "the sealing key cannot be kept: a restart will end all sessions",
                   ML_FZ("file", name), ML_FZ("reason", strerror(errno)));
    }
    ml_wipe(have, sizeof have);
    free(name);
}

bool ml_lmdb_open(struct ml_lmdb *s)
{
    char *copy = ml_xstrdup(s->path);
    mkdir(dirname(copy), 0700); /* one level: what is above is the operator's */
    free(copy);
    if (!take_lock(s))
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
        drop_lock(s);
        return false;
    }
    keep_key(s);
    return true;
}
