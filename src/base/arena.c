/* Arena: owns its chunks. See arena.h. */
#include "base/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { CHUNK = 8192 }; /* holds what a check needs: the usual request makes no other allocation */

struct ml_arena_chunk {
    struct ml_arena_chunk *next;
    size_t size;
    _Alignas(16) char bytes[];
};

void ml_arena_init(struct ml_arena *a, size_t max)
{
    *a = (struct ml_arena){.max = max};
}

static void free_chunks(struct ml_arena_chunk *c)
{
    while (c) {
        struct ml_arena_chunk *next = c->next;
        free(c);
        c = next;
    }
}

void ml_arena_done(struct ml_arena *a)
{
    free_chunks(a->head);
    ml_arena_init(a, a->max);
}

void ml_arena_reset(struct ml_arena *a)
{
    struct ml_arena_chunk *last = a->head;
    if (!last)
        return;
    if (last->next || last->size > CHUNK) {
        ml_arena_done(a);
        return;
    }
    a->at = last->bytes;
    a->left = last->size;
}

void *ml_arena_grow(struct ml_arena *a, size_t n)
{
    if (n > SIZE_MAX - 15)
        return NULL;
    n = (n + 15) & ~(size_t)15;
    size_t size = n > CHUNK ? n : CHUNK;
    if (size > a->max || a->total > a->max - size)
        return NULL;
    struct ml_arena_chunk *c = malloc(sizeof *c + size);
    if (!c)
        return NULL;
    c->next = a->head;
    c->size = size;
    a->head = c;
    a->at = c->bytes + n;
    a->left = size - n;
    a->total += size;
    return c->bytes;
}

struct ml_str ml_arena_dup(struct ml_arena *a, struct ml_str s)
{
    char *p = s.n < SIZE_MAX ? ml_arena_alloc(a, s.n + 1) : NULL;
    if (!p)
        return (struct ml_str){NULL, 0};
    if (s.n)
        memcpy(p, s.p, s.n);
    p[s.n] = 0;
    return ml_str(p, s.n);
}

struct ml_str ml_arena_printf(struct ml_arena *a, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *p = n < 0 ? NULL : ml_arena_alloc(a, (size_t)n + 1);
    if (!p)
        return (struct ml_str){NULL, 0};
    va_start(args, format);
    vsnprintf(p, (size_t)n + 1, format, args);
    va_end(args);
    return ml_str(p, (size_t)n);
}
