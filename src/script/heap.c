/* Heap of a Lua state. Owns its slabs until ml_heap_done: a state's small blocks are reused by the
 * same state, and their sum is bounded by the state's budget. Runs on the worker's thread. */
#include "script/heap.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { SLAB = 32 * 1024 };

/* Sanitizers see a use after free only in blocks that malloc knows. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SMALL = 0 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
enum { SMALL = 0 };
#else
enum { SMALL = ML_HEAP_SMALL };
#endif
#else
enum { SMALL = ML_HEAP_SMALL };
#endif

struct ml_heap_slab {
    struct ml_heap_slab *next;
    _Alignas(ML_HEAP_GRAIN) char bytes[SLAB - ML_HEAP_GRAIN];
};

static size_t class_of(size_t size)
{
    return (size - 1) / ML_HEAP_GRAIN;
}

static void *carve(struct ml_heap *h, size_t class)
{
    size_t n = (class + 1) * ML_HEAP_GRAIN;
    if ((size_t)(h->end - h->at) < n) {
        bool room = !h->max || h->max - h->held >= sizeof(struct ml_heap_slab);
        struct ml_heap_slab *slab = room ? malloc(sizeof *slab) : NULL;
        if (!slab)
            return NULL;
        h->held += sizeof *slab;
        slab->next = h->slabs;
        h->slabs = slab;
        h->at = slab->bytes;
        h->end = slab->bytes + sizeof slab->bytes;
    }
    void *p = h->at;
    h->at += n;
    return p;
}

static void *take(struct ml_heap *h, size_t size)
{
    if (size > SMALL)
        return malloc(size);
    size_t class = class_of(size);
    void *p = h->free[class];
    if (!p)
        return carve(h, class);
    memcpy(&h->free[class], p, sizeof p);
    return p;
}

void ml_heap_free(struct ml_heap *h, void *p, size_t size)
{
    if (!p)
        return;
    if (size > SMALL) {
        free(p);
        return;
    }
    size_t class = class_of(size);
    memcpy(p, &h->free[class], sizeof p);
    h->free[class] = p;
}

void *ml_heap_resize(struct ml_heap *h, void *p, size_t osize, size_t nsize)
{
    if (!p)
        return take(h, nsize);
    if (osize > SMALL && nsize > SMALL) {
        void *q = realloc(p, nsize);
        return q || nsize > osize ? q : p;
    }
    if (osize <= SMALL && nsize <= SMALL && class_of(osize) == class_of(nsize))
        return p;
    void *q = take(h, nsize);
    if (!q)
        return NULL;
    memcpy(q, p, osize < nsize ? osize : nsize);
    ml_heap_free(h, p, osize);
    return q;
}

void ml_heap_done(struct ml_heap *h)
{
    while (h->slabs) {
        struct ml_heap_slab *next = h->slabs->next;
        free(h->slabs);
        h->slabs = next;
    }
    memset(h, 0, sizeof *h);
}
