/* Single flight: 16 shards, each a mutex and a hash table of keys in flight with their waiters.
 *
 * A waiter is on its flight's list as long as `link` is not NULL; only who holds the shard's lock
 * changes that. Landing takes all waiters off under the lock and wakes them after it: from then on
 * leave says false. Any thread. */
#include "store/flight.h"

#include "base/mem.h"

#include <pthread.h>
#include <stdlib.h>

enum { SHARDS = 16, BUCKETS_MAX = 1024 };

struct flight {
    struct ml_digest key; /* compared in full: half a key would be another user's identity */
    struct flight *chain;
    struct ml_waiter *waiters;
};

struct shard {
    _Alignas(64) pthread_mutex_t lock;
    struct flight **buckets;
};

struct ml_flights {
    size_t max_keys, max_waiters, bucket_count;
    _Atomic size_t keys, waiters;
    struct shard shards[SHARDS];
};

struct ml_flights *ml_flights_new(size_t max_keys, size_t max_waiters)
{
    struct ml_flights *f = aligned_alloc(_Alignof(struct ml_flights), sizeof *f);
    ML_REQUIRE(f);
    memset(f, 0, sizeof *f);
    f->max_keys = max_keys;
    f->max_waiters = max_waiters;
    for (f->bucket_count = 16; f->bucket_count < max_keys / SHARDS;)
        f->bucket_count *= 2;
    if (f->bucket_count > BUCKETS_MAX)
        f->bucket_count = BUCKETS_MAX;
    for (size_t i = 0; i < SHARDS; i++) {
        pthread_mutex_init(&f->shards[i].lock, NULL);
        f->shards[i].buckets = ml_xcalloc(f->bucket_count, sizeof(struct flight *));
    }
    return f;
}

void ml_flights_free(struct ml_flights *f)
{
    if (!f)
        return;
    for (size_t i = 0; i < SHARDS; i++) {
        for (size_t b = 0; b < f->bucket_count; b++) {
            for (struct flight *flight = f->shards[i].buckets[b], *next; flight; flight = next) {
                next = flight->chain;
                free(flight);
            }
        }
        free(f->shards[i].buckets);
        pthread_mutex_destroy(&f->shards[i].lock);
    }
    free(f);
}

static struct shard *shard_of(struct ml_flights *f, const struct ml_digest *key)
{
    return &f->shards[key->b[0] % SHARDS];
}

static struct flight **find(struct ml_flights *f, struct shard *s, const struct ml_digest *key)
{
    uint64_t hash;
    memcpy(&hash, key->b + 8, sizeof hash);
    struct flight **link = &s->buckets[hash & (f->bucket_count - 1)];
    while (*link && memcmp((*link)->key.b, key->b, sizeof key->b) != 0)
        link = &(*link)->chain;
    return link;
}

/* Adds one unless that would pass max. */
static bool take(_Atomic size_t *counter, size_t max)
{
    size_t n = atomic_load_explicit(counter, memory_order_relaxed);
    while (n < max) {
        if (atomic_compare_exchange_weak_explicit(counter, &n, n + 1, memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    }
    return false;
}

static void give_back(_Atomic size_t *counter, size_t n)
{
    atomic_fetch_sub_explicit(counter, n, memory_order_relaxed);
}

static enum ml_flight_role lead_locked(struct ml_flights *f, struct flight **link,
                                       const struct ml_digest *key)
{
    if (!take(&f->keys, f->max_keys))
        return ML_FLIGHT_FULL;
    struct flight *flight = malloc(sizeof *flight);
    if (!flight) {
        give_back(&f->keys, 1);
        return ML_FLIGHT_FULL;
    }
    *flight = (struct flight){.key = *key};
    *link = flight;
    return ML_FLIGHT_LEAD;
}

static enum ml_flight_role wait_locked(struct ml_flights *f, struct flight *flight,
                                       struct ml_waiter *w)
{
    if (!w)
        return ML_FLIGHT_WAIT;
    if (!take(&f->waiters, f->max_waiters))
        return ML_FLIGHT_FULL;
    w->next = flight->waiters;
    w->link = &flight->waiters;
    if (w->next)
        w->next->link = &w->next;
    flight->waiters = w;
    return ML_FLIGHT_WAIT;
}

enum ml_flight_role ml_flight_join(struct ml_flights *f, const struct ml_digest *key,
                                   struct ml_waiter *w)
{
    struct shard *s = shard_of(f, key);
    if (w)
        w->link = NULL;
    pthread_mutex_lock(&s->lock);
    struct flight **link = find(f, s, key);
    enum ml_flight_role role = *link ? wait_locked(f, *link, w) : lead_locked(f, link, key);
    pthread_mutex_unlock(&s->lock);
    return role;
}

/* Takes the flight out of the table and its waiters off the list. */
static struct ml_waiter *take_waiters(struct ml_flights *f, const struct ml_digest *key)
{
    struct shard *s = shard_of(f, key);
    pthread_mutex_lock(&s->lock);
    struct flight **link = find(f, s, key), *flight = *link;
    struct ml_waiter *waiters = NULL;
    size_t count = 0;
    if (flight) {
        *link = flight->chain;
        waiters = flight->waiters;
        for (struct ml_waiter *w = waiters; w; w = w->next) {
            w->link = NULL;
            count++;
        }
        give_back(&f->keys, 1);
        give_back(&f->waiters, count);
    }
    pthread_mutex_unlock(&s->lock);
    free(flight);
    return waiters;
}

void ml_flight_land(struct ml_flights *f, const struct ml_digest *key, struct ml_entry *entry,
                    const char *failure)
{
    struct ml_waiter *w = take_waiters(f, key);
    while (w) {
        struct ml_waiter *next = w->next; /* wake may free w */
        w->wake(w, entry ? ml_entry_ref(entry) : NULL, entry ? NULL : failure);
        w = next;
    }
}

bool ml_flight_leave(struct ml_flights *f, const struct ml_digest *key, struct ml_waiter *w)
{
    struct shard *s = shard_of(f, key);
    pthread_mutex_lock(&s->lock);
    bool waits = w->link != NULL;
    if (waits) {
        *w->link = w->next;
        if (w->next)
            w->next->link = w->link;
        w->link = NULL;
        give_back(&f->waiters, 1);
    }
    pthread_mutex_unlock(&s->lock);
    return waits;
}

size_t ml_flights_waiting(struct ml_flights *f)
{
    return atomic_load_explicit(&f->waiters, memory_order_relaxed);
}
