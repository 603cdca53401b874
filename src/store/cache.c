/* The identity cache: 16 shards, each a mutex, a chained hash table and three queues.
 *
 * Replacement is S3-FIFO's: a new answer waits in a small queue and is kept only when it was asked
 * for again, so that a scan passes through without touching what is in use; a hit sets a mark and
 * moves nothing. We differ in one point, which replaces its ghost list: refusals have a queue of
 * their own. Random tokens only ever make refusals, so they compete with each other and never with
 * claims.
 *
 * Keys are keyed hashes, so their bytes choose shard and bucket as they are. All of a shard is
 * under its lock; entries are released outside of it where that is easy. Any thread. */
#include "store/cache.h"

#include "base/clock.h"
#include "base/mem.h"

#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/queue.h>

enum {
    SHARDS = 16,
    BUCKETS_MIN = 16,
    BUCKETS_MAX = 1 << 22,
    MARKS_MAX = 3,       /* hits that are remembered */
    SECOND_CHANCES = 64, /* marked nodes that one eviction passes over */
    SWEEP = 4,           /* buckets looked through for expired ones at each put */
    CHUNK = 8,           /* what malloc adds to each block */
};

/* Where a node waits for its eviction. */
enum queue_id { REFUSED, FRESH, KEPT, QUEUES };

struct node {
    struct ml_digest key;
    struct ml_entry *entry;
    struct node *chain;
    TAILQ_ENTRY(node) link;
    uint32_t bytes; /* of node and entry */
    uint8_t queue, marks;
};
TAILQ_HEAD(queue, node);

struct shard {
    _Alignas(64) pthread_mutex_t lock;
    struct node **buckets; /* a power of two */
    size_t bucket_count, sweep_at;
    struct queue queues[QUEUES];
    size_t queue_bytes[QUEUES];
    size_t bytes, max_bytes; /* with the table */
    uint64_t entries, hits, misses, evictions, expired;
};

struct ml_cache {
    size_t max_bytes;
    _Atomic uint64_t purges;
    struct shard shards[SHARDS];
};

struct ml_cache *ml_cache_new(size_t max_bytes)
{
    struct ml_cache *c = aligned_alloc(_Alignof(struct ml_cache), sizeof *c);
    ML_REQUIRE(c);
    memset(c, 0, sizeof *c);
    c->max_bytes = max_bytes;
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *s = &c->shards[i];
        pthread_mutex_init(&s->lock, NULL);
        s->bucket_count = BUCKETS_MIN;
        s->buckets = ml_xcalloc(s->bucket_count, sizeof(struct node *));
        for (size_t q = 0; q < QUEUES; q++)
            TAILQ_INIT(&s->queues[q]);
        s->bytes = sizeof *s + s->bucket_count * sizeof(struct node *);
        s->max_bytes = max_bytes / SHARDS;
    }
    return c;
}

static struct shard *shard_of(struct ml_cache *c, const struct ml_digest *key)
{
    return &c->shards[key->b[0] % SHARDS];
}

static struct node **bucket_of(struct shard *s, const struct ml_digest *key)
{
    uint64_t hash;
    memcpy(&hash, key->b + 8, sizeof hash);
    return &s->buckets[hash & (s->bucket_count - 1)];
}

/* The link that points at the key's node, or at NULL. */
static struct node **find(struct shard *s, const struct ml_digest *key)
{
    struct node **link = bucket_of(s, key);
    while (*link && memcmp((*link)->key.b, key->b, sizeof key->b) != 0)
        link = &(*link)->chain;
    return link;
}

static void enqueue(struct shard *s, struct node *n, enum queue_id queue)
{
    n->queue = (uint8_t)queue;
    TAILQ_INSERT_TAIL(&s->queues[queue], n, link);
    s->queue_bytes[queue] += n->bytes;
}

static void dequeue(struct shard *s, struct node *n)
{
    TAILQ_REMOVE(&s->queues[n->queue], n, link);
    s->queue_bytes[n->queue] -= n->bytes;
}

static void node_free(struct node *n)
{
    ml_entry_unref(n->entry);
    free(n);
}

static void drop(struct shard *s, struct node **link)
{
    struct node *n = *link;
    *link = n->chain;
    dequeue(s, n);
    s->bytes -= n->bytes;
    s->entries--;
    node_free(n);
}

/* Who is over its share goes first; claims that were used again go last. */
static enum queue_id victim_queue(const struct shard *s)
{
    if (s->queue_bytes[REFUSED] > s->max_bytes / 8)
        return REFUSED;
    if (s->queue_bytes[FRESH] > s->max_bytes / 8)
        return FRESH;
    if (!TAILQ_EMPTY(&s->queues[KEPT]))
        return KEPT;
    return TAILQ_EMPTY(&s->queues[FRESH]) ? REFUSED : FRESH;
}

static void evict(struct shard *s, struct node *n)
{
    drop(s, find(s, &n->key));
    s->evictions++;
}

/* Passes over what is marked, a mark less each time. After so many it takes the least marked of
 * those: still not the one that everybody asks for. */
static void evict_one(struct shard *s)
{
    struct node *least = NULL;
    for (int i = 0; i < SECOND_CHANCES; i++) {
        struct node *n = TAILQ_FIRST(&s->queues[victim_queue(s)]);
        if (n->marks == 0) {
            evict(s, n);
            return;
        }
        dequeue(s, n);
        n->marks--;
        enqueue(s, n, n->queue == REFUSED ? REFUSED : KEPT);
        if (!least || n->marks < least->marks)
            least = n;
    }
    evict(s, least);
}

/* Bytes of the shard stay under its bound: the caller makes room before it inserts. */
static void make_room(struct shard *s, size_t bytes)
{
    while (s->entries && s->bytes + bytes > s->max_bytes)
        evict_one(s);
}

/* Doubles the table; keeps the old one when there is no room or no memory: chains get longer, no
 * more. */
static void grow(struct shard *s)
{
    size_t old_count = s->bucket_count, more = old_count * sizeof(struct node *);
    if (s->entries < old_count || old_count >= BUCKETS_MAX || s->bytes + more > s->max_bytes)
        return;
    ML_REQUIRE(old_count > 0);
    struct node **old = s->buckets, **buckets = calloc(old_count * 2, sizeof(struct node *));
    if (!buckets)
        return;
    s->buckets = buckets;
    s->bucket_count = old_count * 2;
    s->bytes += more;
    for (size_t i = 0; i < old_count; i++) {
        for (struct node *n = old[i], *next; n; n = next) {
            struct node **bucket = bucket_of(s, &n->key);
            next = n->chain;
            n->chain = *bucket;
            *bucket = n;
        }
    }
    free(old);
}

/* Drops the expired ones of the next few buckets, so that what nobody asks for again goes too. */
static void sweep(struct shard *s, int64_t now)
{
    for (int i = 0; i < SWEEP; i++) {
        s->sweep_at = (s->sweep_at + 1) & (s->bucket_count - 1);
        for (struct node **link = &s->buckets[s->sweep_at]; *link;) {
            if ((*link)->entry->expires_ms > now) {
                link = &(*link)->chain;
                continue;
            }
            drop(s, link);
            s->expired++;
        }
    }
}

struct ml_entry *ml_cache_get(struct ml_cache *c, const struct ml_digest *key)
{
    struct shard *s = shard_of(c, key);
    struct ml_entry *ret = NULL;
    int64_t now = ml_wall_ms();
    pthread_mutex_lock(&s->lock);
    struct node **link = find(s, key), *n = *link;
    if (n && n->entry->expires_ms <= now) {
        drop(s, link);
        s->expired++;
        n = NULL;
    }
    if (n) {
        if (n->marks < MARKS_MAX)
            n->marks++;
        ret = ml_entry_ref(n->entry);
        s->hits++;
    } else {
        s->misses++;
    }
    pthread_mutex_unlock(&s->lock);
    return ret;
}

static struct node *node_new(const struct ml_digest *key, struct ml_entry *e)
{
    struct node *n = malloc(sizeof *n);
    if (!n)
        return NULL;
    *n = (struct node){.key = *key, .entry = ml_entry_ref(e)};
    n->bytes = (uint32_t)(malloc_usable_size(n) + malloc_usable_size(e) + 2 * (size_t)CHUNK);
    return n;
}

/* An old node with that key goes; its marks and its place among the kept ones pass on. */
static void replace(struct shard *s, struct node *n)
{
    struct node **link = find(s, &n->key);
    enum queue_id queue = n->entry->kind == ML_ENTRY_REFUSAL ? REFUSED : FRESH;
    if (*link) {
        if (queue == FRESH && (*link)->queue == KEPT) {
            queue = KEPT;
            n->marks = (*link)->marks;
        }
        drop(s, link);
    }
    make_room(s, n->bytes);
    if (s->bytes + n->bytes > s->max_bytes) { /* a cache too small for anything */
        ml_entry_unref(n->entry);
        free(n);
        return;
    }
    struct node **bucket = bucket_of(s, &n->key);
    n->chain = *bucket;
    *bucket = n;
    enqueue(s, n, queue);
    s->bytes += n->bytes;
    s->entries++;
}

void ml_cache_put(struct ml_cache *c, const struct ml_digest *key, struct ml_entry *e)
{
    ml_cache_put_since(c, key, e, ml_cache_purges(c));
}

/* A purge counts before it locks: either we see its count here, or it sees our entry. */
void ml_cache_put_since(struct ml_cache *c, const struct ml_digest *key, struct ml_entry *e,
                        uint64_t purges)
{
    int64_t now = ml_wall_ms();
    struct node *n = NULL;
    if (e->expires_ms > now && sizeof *n + sizeof *e + e->n <= c->max_bytes / 64)
        n = node_new(key, e);
    if (!n) { /* what was there is older than this answer: it must not stay */
        ml_cache_remove(c, key);
        return;
    }
    struct shard *s = shard_of(c, key);
    pthread_mutex_lock(&s->lock);
    sweep(s, now);
    if (ml_cache_purges(c) == purges) {
        replace(s, n);
        grow(s);
        n = NULL;
    }
    pthread_mutex_unlock(&s->lock);
    if (n)
        node_free(n);
}

void ml_cache_remove(struct ml_cache *c, const struct ml_digest *key)
{
    struct shard *s = shard_of(c, key);
    pthread_mutex_lock(&s->lock);
    struct node **link = find(s, key);
    if (*link)
        drop(s, link);
    pthread_mutex_unlock(&s->lock);
}

static size_t purge_shard(struct shard *s, bool (*match)(void *ctx, const struct ml_entry *e),
                          void *ctx)
{
    size_t purged = 0;
    for (size_t b = 0; b < s->bucket_count; b++) {
        struct node **link = &s->buckets[b];
        while (*link) {
            if (match(ctx, (*link)->entry)) {
                drop(s, link);
                purged++;
            } else {
                link = &(*link)->chain;
            }
        }
    }
    return purged;
}

size_t ml_cache_purge(struct ml_cache *c, bool (*match)(void *ctx, const struct ml_entry *e),
                      void *ctx)
{
    size_t purged = 0;
    atomic_fetch_add(&c->purges, 1);
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *s = &c->shards[i];
        pthread_mutex_lock(&s->lock);
        purged += purge_shard(s, match, ctx);
        pthread_mutex_unlock(&s->lock);
    }
    return purged;
}

uint64_t ml_cache_purges(const struct ml_cache *c)
{
    return atomic_load(&c->purges);
}

struct ml_cache_stats ml_cache_stats(struct ml_cache *c)
{
    struct ml_cache_stats ret = {.max_bytes = c->max_bytes};
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *s = &c->shards[i];
        pthread_mutex_lock(&s->lock);
        ret.hits += s->hits;
        ret.misses += s->misses;
        ret.evictions += s->evictions;
        ret.expired += s->expired;
        ret.entries += s->entries;
        ret.bytes += s->bytes;
        pthread_mutex_unlock(&s->lock);
    }
    return ret;
}

void ml_cache_free(struct ml_cache *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *s = &c->shards[i];
        for (size_t b = 0; b < s->bucket_count; b++) {
            while (s->buckets[b])
                drop(s, &s->buckets[b]);
        }
        free(s->buckets);
        pthread_mutex_destroy(&s->lock);
    }
    free(c);
}
