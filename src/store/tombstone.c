/* Tombstones: a chained hash table and two queues, those that wait for the store (by the time of
 * the last try) and those that it has confirmed (by the time of that). All under one lock, which
 * nobody needs as long as there are none. Keys are SHA-256 of random ids: their bytes choose the
 * bucket. Any thread. */
#include "store/tombstone.h"

#include "base/clock.h"
#include "base/mem.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

enum { BUCKETS = 1 << 12 };

struct stone {
    struct ml_digest key;
    struct stone *chain;
    TAILQ_ENTRY(stone) link;
    uint64_t at_ms; /* ml_mono_ms() of the last try, or of the confirmation */
    bool confirmed;
};
TAILQ_HEAD(queue, stone);

struct ml_tombstones {
    pthread_mutex_t lock;
    _Atomic size_t count; /* written under the lock */
    size_t max, unconfirmed;
    struct stone *buckets[BUCKETS];
    struct queue waiting, kept;
};

struct ml_tombstones *ml_tombstones_new(size_t max)
{
    struct ml_tombstones *t = ML_NEW(struct ml_tombstones);
    pthread_mutex_init(&t->lock, NULL);
    t->max = max;
    TAILQ_INIT(&t->waiting);
    TAILQ_INIT(&t->kept);
    return t;
}

/* The link that points at the key's stone, or at NULL. */
static struct stone **find(struct ml_tombstones *t, const struct ml_digest *key)
{
    struct stone **link = &t->buckets[(key->b[0] | key->b[1] << 8) % BUCKETS];
    while (*link && memcmp(&(*link)->key, key, sizeof *key) != 0)
        link = &(*link)->chain;
    return link;
}

static struct queue *queue_of(struct ml_tombstones *t, const struct stone *s)
{
    return s->confirmed ? &t->kept : &t->waiting;
}

static void put(struct ml_tombstones *t, struct stone *s, bool confirmed)
{
    s->confirmed = confirmed;
    s->at_ms = ml_mono_ms();
    TAILQ_INSERT_TAIL(queue_of(t, s), s, link);
    t->unconfirmed += !confirmed;
}

static void take(struct ml_tombstones *t, struct stone *s)
{
    TAILQ_REMOVE(queue_of(t, s), s, link);
    t->unconfirmed -= !s->confirmed;
}

static void drop(struct ml_tombstones *t, struct stone *s)
{
    struct stone **link = find(t, &s->key);
    *link = s->chain;
    take(t, s);
    atomic_fetch_sub_explicit(&t->count, 1, memory_order_release);
    free(s);
}

/* Those whose time is over go, and the oldest confirmed one when there is still no room. */
static bool make_room(struct ml_tombstones *t)
{
    uint64_t now = ml_mono_ms();
    struct stone *s;
    while ((s = TAILQ_FIRST(&t->kept)) && now - s->at_ms >= ML_TOMBSTONE_KEEP_MS)
        drop(t, s);
    if (atomic_load_explicit(&t->count, memory_order_relaxed) < t->max)
        return true;
    if (s)
        drop(t, s);
    return s != NULL;
}

static bool add_new(struct ml_tombstones *t, const struct ml_digest *key, bool confirmed)
{
    if (!make_room(t))
        return false;
    struct stone *s = ML_NEW(struct stone), **link = find(t, key);
    s->key = *key;
    s->chain = *link;
    *link = s;
    put(t, s, confirmed);
    atomic_fetch_add_explicit(&t->count, 1, memory_order_release);
    return true;
}

bool ml_tombstones_add(struct ml_tombstones *t, const struct ml_digest *key, bool confirmed)
{
    bool added = true;
    pthread_mutex_lock(&t->lock);
    struct stone *s = *find(t, key);
    if (s) {
        take(t, s);
        put(t, s, confirmed);
    } else {
        added = add_new(t, key, confirmed);
    }
    pthread_mutex_unlock(&t->lock);
    return added;
}

bool ml_tombstones_has(struct ml_tombstones *t, const struct ml_digest *key)
{
    if (atomic_load_explicit(&t->count, memory_order_acquire) == 0)
        return false;
    pthread_mutex_lock(&t->lock);
    const struct stone *s = *find(t, key);
    bool has = s && (!s->confirmed || ml_mono_ms() - s->at_ms < ML_TOMBSTONE_KEEP_MS);
    pthread_mutex_unlock(&t->lock);
    return has;
}

size_t ml_tombstones_due(struct ml_tombstones *t, uint64_t retry_ms, struct ml_digest *keys,
                         size_t n)
{
    size_t count = 0;
    pthread_mutex_lock(&t->lock);
    uint64_t now = ml_mono_ms();
    for (struct stone *s; count < n && (s = TAILQ_FIRST(&t->waiting));) {
        if (now - s->at_ms < retry_ms)
            break;
        keys[count++] = s->key;
        take(t, s);
        put(t, s, false);
    }
    pthread_mutex_unlock(&t->lock);
    return count;
}

void ml_tombstones_count(struct ml_tombstones *t, size_t *all, size_t *unconfirmed)
{
    pthread_mutex_lock(&t->lock);
    *all = t->count;
    *unconfirmed = t->unconfirmed;
    pthread_mutex_unlock(&t->lock);
}

void ml_tombstones_free(struct ml_tombstones *t)
{
    if (!t)
        return;
    for (struct stone *s; (s = TAILQ_FIRST(&t->waiting));)
        drop(t, s);
    for (struct stone *s; (s = TAILQ_FIRST(&t->kept));)
        drop(t, s);
    pthread_mutex_destroy(&t->lock);
    free(t);
}
