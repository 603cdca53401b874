/* The board: a short list of named snapshots under one lock. Written by background tasks now and
 * then, read by all workers; a reader holds the lock for a few comparisons and takes a reference.
 */
#include "store/board.h"

#include "base/mem.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { NAMES_MAX = 256, NAME_BYTES = 256, SNAPSHOT_BYTES = 1 << 20, FAILURE_BYTES = 256 };

struct notice {
    char *name;
    size_t name_n;
    struct ml_entry *entry; /* NULL: nothing yet */
    char failure[FAILURE_BYTES];
};

struct ml_board {
    pthread_rwlock_t lock;
    size_t count;
    struct notice notices[NAMES_MAX];
};

struct ml_board *ml_board_new(void)
{
    struct ml_board *b = ML_NEW(struct ml_board);
    pthread_rwlock_init(&b->lock, NULL);
    return b;
}

void ml_board_free(struct ml_board *b)
{
    if (!b)
        return;
    for (size_t i = 0; i < b->count; i++) {
        free(b->notices[i].name);
        ml_entry_unref(b->notices[i].entry);
    }
    pthread_rwlock_destroy(&b->lock);
    free(b);
}

static struct notice *find_locked(struct ml_board *b, struct ml_str name)
{
    for (size_t i = 0; i < b->count; i++) {
        if (ml_str_eq(ml_str(b->notices[i].name, b->notices[i].name_n), name))
            return &b->notices[i];
    }
    return NULL;
}

/* The notice of that name, a new one if need be; NULL past the bounds. */
static struct notice *notice_locked(struct ml_board *b, struct ml_str name)
{
    struct notice *n = find_locked(b, name);
    if (n || b->count == NAMES_MAX || name.n > NAME_BYTES)
        return n;
    n = &b->notices[b->count++];
    n->name = ml_xstrndup(name.p, name.n);
    n->name_n = name.n;
    return n;
}

bool ml_board_post(struct ml_board *b, struct ml_str name, struct ml_str json)
{
    if (json.n > SNAPSHOT_BYTES)
        return false;
    struct ml_entry *made = ml_entry_new(ML_ENTRY_CLAIMS, json, INT64_MAX), *unused = made;
    if (!made)
        return false;
    pthread_rwlock_wrlock(&b->lock);
    struct notice *n = notice_locked(b, name);
    if (n) {
        n->failure[0] = '\0';
        /* The same content keeps its id, and what others made of it stays good. */
        if (!n->entry || !ml_str_eq(ml_str(n->entry->bytes, n->entry->n), json)) {
            unused = n->entry;
            n->entry = made;
        }
    }
    pthread_rwlock_unlock(&b->lock);
    ml_entry_unref(unused);
    return n != NULL;
}

void ml_board_fail(struct ml_board *b, struct ml_str name, struct ml_str why)
{
    pthread_rwlock_wrlock(&b->lock);
    struct notice *n = notice_locked(b, name);
    if (n) {
        size_t length = why.n < FAILURE_BYTES ? why.n : FAILURE_BYTES - 1;
        snprintf(n->failure, FAILURE_BYTES, "%.*s", (int)length, length ? why.p : "");
    }
    pthread_rwlock_unlock(&b->lock);
}

struct ml_entry *ml_board_read(struct ml_board *b, struct ml_str name)
{
    pthread_rwlock_rdlock(&b->lock);
    struct notice *n = find_locked(b, name);
    struct ml_entry *ret = n && n->entry ? ml_entry_ref(n->entry) : NULL;
    pthread_rwlock_unlock(&b->lock);
    return ret;
}

bool ml_board_failure(struct ml_board *b, struct ml_str name, char *out, size_t n)
{
    pthread_rwlock_rdlock(&b->lock);
    struct notice *notice = find_locked(b, name);
    bool ret = notice && notice->failure[0];
    if (ret)
        snprintf(out, n, "%s", notice->failure);
    pthread_rwlock_unlock(&b->lock);
    return ret;
}
