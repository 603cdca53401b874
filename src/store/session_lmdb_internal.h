/* What the files of the LMDB store share: session_lmdb.c (links, reads, the queue),
 * session_lmdb_writer.c (the thread), session_lmdb_write.c (transactions), session_lmdb_open.c (the
 * file), session_lmdb_file.c (what is beside it).
 *
 * Who may touch the environment: the writer's thread; and a worker in a read, under the gate for
 * reading. The writer opens and closes it under the gate for writing, when it also ends the read
 * transactions that the links keep for the next read. */
#pragma once

#include "base/mailbox.h"
#include "base/mem.h"
#include "store/session_lmdb.h"

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

enum {
    ML_LMDB_QUEUE_MAX = 8192,       /* writes that wait */
    ML_LMDB_QUEUE_BYTES = 64 << 20, /* their values */
    ML_LMDB_BATCH = 1024,           /* writes of a transaction */
    ML_LMDB_BATCH_BYTES = 1 << 20,  /* their values, but for the last: the map has room for it */
    ML_LMDB_KILL_BATCH = 2000, /* sessions that a kill ends in one transaction, before the next */
    ML_LMDB_SWEEP = 1000,      /* expired ones a transaction */
};

/* In front of a sealed record. */
struct ml_lmdb_head {
    uint8_t version, index_count, unused[6];
    int64_t expires_ms;
    uint64_t revision;
    struct ml_digest index[ML_SESSION_INDEX_MAX];
};

enum ml_lmdb_kind { ML_LMDB_PUT, ML_LMDB_REMOVE, ML_LMDB_KILL };

/* A write. Belongs to the queue and the writer until it comes back as a letter. */
struct ml_lmdb_op {
    TAILQ_ENTRY(ml_lmdb_op) link; /* of the queue, then of the batch */
    struct ml_letter letter;
    struct ml_session_link *from;
    TAILQ_ENTRY(ml_lmdb_op) pending; /* of from; its thread's */
    ml_session_done done;            /* NULL: canceled; its thread's */
    void *arg;
    enum ml_lmdb_kind kind;
    struct ml_digest key; /* or the index, of kill */
    uint64_t replaces;
    struct ml_lmdb_head head;
    /* the answer */
    int error;
    bool found;
    char text[128];
    struct ml_digest *keys;
    size_t key_count, key_room;
    size_t committed; /* of the keys: by transactions before */
    bool more;        /* a kill that has not found all yet */
    size_t n;
    char value[];
};
TAILQ_HEAD(ml_lmdb_ops, ml_lmdb_op);

/* What is wrong with the file that is open. */
enum ml_lmdb_trouble { ML_LMDB_FINE, ML_LMDB_REOPEN, ML_LMDB_DAMAGED };

struct ml_lmdb {
    char *path, *key;
    uint64_t max_bytes;
    unsigned readers;

    pthread_mutex_t lock; /* of what follows up to the gate */
    pthread_cond_t wake;
    struct ml_lmdb_ops queue;
    size_t queued, queued_bytes;
    bool started, stop;
    char why[256]; /* it is not open */
    pthread_t writer;

    pthread_rwlock_t gate;
    MDB_env *env; /* NULL: not open */
    MDB_dbi records, expiry, index;
    LIST_HEAD(, ml_session_link) links;

    /* The writer's own. */
    MDB_txn *txn;
    MDB_cursor *cursor; /* of txn */
    int lock_fd;
    uint64_t full_logged_ms, failure_logged_ms;

    _Atomic int trouble; /* enum ml_lmdb_trouble */
    _Atomic uint64_t sessions, bytes, commits, swept, evicted, set_aside;
};

struct ml_session_link {
    struct ml_lmdb *store;
    LIST_ENTRY(ml_session_link) entry; /* under the gate */
    MDB_txn *txn;                      /* between reads: reset */
    struct ml_mailbox mailbox;
    struct ml_lmdb_ops pending;
    bool closing;
    void (*closed)(void *ctx);
    void *ctx;
};

/* session_lmdb_writer.c. Under s->lock: sets s->started. */
void ml_lmdb_start_writer(struct ml_lmdb *s);
/* The first call that needs the file brings the writer up, which opens it. */
void ml_lmdb_want(struct ml_lmdb *s);
/* Under the gate, or on the writer's thread. Trouble only grows until the writer has dealt with it.
 */
void ml_lmdb_report(struct ml_lmdb *s, enum ml_lmdb_trouble trouble);
/* Why it is not open. */
void ml_lmdb_set_why(struct ml_lmdb *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* session_lmdb_open.c, on the writer's thread. Opens what is at the path, or sets it aside and
 * begins anew. false: not now; why is in s->why. */
bool ml_lmdb_open(struct ml_lmdb *s);
/* Under no gate. */
void ml_lmdb_close(struct ml_lmdb *s);
/* The transaction and its cursor end, for nothing. */
void ml_lmdb_give_up(struct ml_lmdb *s);
/* Under the gate for writing; any thread. */
void ml_lmdb_end_read(struct ml_session_link *l);
/* From LMDB's return code: whether the file can no longer be trusted, or must be opened again. */
enum ml_lmdb_trouble ml_lmdb_trouble_of(int rc);

/* session_lmdb_file.c, on the writer's thread. */
char *ml_lmdb_beside(const struct ml_lmdb *s, const char *suffix); /* the path with it; to free */
/* false: another process has it, or it cannot be had; why is in s->why. */
bool ml_lmdb_take_lock(struct ml_lmdb *s);
void ml_lmdb_drop_lock(struct ml_lmdb *s);
/* Moves the file away (it is closed), and says so. */
void ml_lmdb_set_aside(struct ml_lmdb *s, const char *why);
/* Whether the path still names the file that is open. */
bool ml_lmdb_in_place(const struct ml_lmdb *s);
/* Writes s->key to PATH.key when there is none yet. */
void ml_lmdb_keep_key(struct ml_lmdb *s);

/* session_lmdb_write.c, on the writer's thread, with the file open. Every op of the list has its
 * answer afterwards, committed or failed. */
void ml_lmdb_commit(struct ml_lmdb *s, struct ml_lmdb_ops *batch);
/* Removes what has expired; true: there may be more. */
bool ml_lmdb_sweep(struct ml_lmdb *s);
/* Keeps the bound: evicts those that end first. */
void ml_lmdb_evict(struct ml_lmdb *s);
/* The bytes in use and the number of sessions, as transaction txn sees them. */
void ml_lmdb_measure(struct ml_lmdb *s, MDB_txn *txn);
