/* Entries: immutable bytes with a count of references, shared by the cache, the flights, the board
 * and whoever holds one. Any thread. */
#include "base/clock.h"
#include "base/mem.h"
#include "store/cache.h"

#include <stdlib.h>

static _Atomic uint64_t last_id;

struct ml_entry *ml_entry_new(enum ml_entry_kind kind, struct ml_str bytes, int64_t expires_ms)
{
    if (bytes.n >= UINT32_MAX)
        return NULL;
    /* Sized by a peer's answer: may fail. */
    struct ml_entry *e = malloc(sizeof *e + bytes.n + 1);
    if (!e)
        return NULL;
    atomic_init(&e->refs, 1);
    e->n = (uint32_t)bytes.n;
    e->id = atomic_fetch_add_explicit(&last_id, 1, memory_order_relaxed) + 1;
    e->expires_ms = expires_ms;
    e->tag = 0;
    e->kind = (uint8_t)kind;
    if (bytes.n)
        memcpy(e->bytes, bytes.p, bytes.n);
    e->bytes[bytes.n] = '\0';
    return e;
}

struct ml_entry *ml_entry_ref(struct ml_entry *e)
{
    atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
    return e;
}

void ml_entry_unref(struct ml_entry *e)
{
    /* acq_rel: what others read of it must not move past the free. */
    if (e && atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) == 1)
        free(e);
}

/* FNV-1a: the same on all replicas, and cheap. Two credentials of one tag are revoked together,
 * which costs a question and no more. */
uint32_t ml_cache_tag(struct ml_str credential)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < credential.n; i++)
        h = (h ^ (uint8_t)credential.p[i]) * UINT64_C(0x100000001b3);
    uint32_t tag = (uint32_t)(h ^ (h >> 32));
    return tag ? tag : 1;
}

/* Spreads, hides nothing: a generator a thread, seeded once (xorshift64*, Vigna 2016). Without a
 * seed there is no jitter, and no harm. */
static uint64_t jitter(void)
{
    static _Thread_local uint64_t state;
    if (!state && !ml_random(&state, sizeof state))
        return 0;
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (state * UINT64_C(0x2545F4914F6CDD1D)) >> 32;
}

int64_t ml_cache_expiry(int64_t now_ms, int64_t ttl_ms, int64_t exp_ms)
{
    const int64_t longest = INT64_C(1000) * 60 * 60 * 24 * 365;
    int64_t life = ttl_ms < longest ? ttl_ms : longest;
    if (exp_ms != 0 && exp_ms - now_ms < life)
        life = exp_ms - now_ms;
    if (life <= 0)
        return now_ms;
    return now_ms + life - (int64_t)(jitter() % (uint64_t)(life / 10 + 1));
}
