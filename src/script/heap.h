/* Memory of one Lua state: small blocks from slabs, large ones from malloc. Lua tells the size of
 * what it frees, so that a small block costs a few instructions; what it allocates is small nearly
 * always. A freed block serves its own size only, so that a state that goes through all sizes could
 * hold many times what it uses: slabs have a bound of their own. One thread. */
#pragma once

#include <stddef.h>

enum { ML_HEAP_SMALL = 512, ML_HEAP_GRAIN = 16, ML_HEAP_CLASSES = ML_HEAP_SMALL / ML_HEAP_GRAIN };

struct ml_heap_slab;

struct ml_heap {
    void *free[ML_HEAP_CLASSES]; /* lists of free blocks by size class */
    struct ml_heap_slab *slabs;
    char *at, *end; /* what is left of the newest slab */
    size_t held;    /* bytes of slabs */
    size_t max;     /* of them; 0: unbounded */
};

/* As realloc and free, with sizes: the old one exactly as it was asked for. A zeroed struct is an
 * empty heap. NULL when there is no memory; shrinking never fails. */
void *ml_heap_resize(struct ml_heap *h, void *p, size_t osize, size_t nsize);
void ml_heap_free(struct ml_heap *h, void *p, size_t size);
/* Gives the slabs back; all blocks must have been freed before. */
void ml_heap_done(struct ml_heap *h);
