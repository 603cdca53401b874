/* A bump allocator with one life: everything of a request dies at once. One thread at a time. */
#pragma once

#include "base/str.h"

#include <stddef.h>

struct ml_arena_chunk;

struct ml_arena {
    struct ml_arena_chunk *head; /* newest first; the oldest survives a reset */
    char *at;                    /* what is free of the newest chunk, */
    size_t left;                 /* a multiple of 16 */
    size_t total, max;           /* bytes of all chunks, and their bound */
};

/* max: bytes that the arena may hold in all; past it allocations return NULL. */
void ml_arena_init(struct ml_arena *a, size_t max);
void ml_arena_done(struct ml_arena *a);
/* Forgets all allocations, keeps one chunk for the next request. */
void ml_arena_reset(struct ml_arena *a);
/* A new chunk for n bytes, taken from it; NULL past the bound. */
void *ml_arena_grow(struct ml_arena *a, size_t n);
/* 16-byte aligned; NULL past the bound. */
static inline void *ml_arena_alloc(struct ml_arena *a, size_t n)
{
    if (n > a->left || !a->at)
        return ml_arena_grow(a, n);
    void *p = a->at;
    n = (n + 15) & ~(size_t)15;
    a->at += n;
    a->left -= n;
    return p;
}
/* A NUL-terminated copy; p is NULL past the bound. */
struct ml_str ml_arena_dup(struct ml_arena *a, struct ml_str s);
struct ml_str ml_arena_printf(struct ml_arena *a, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
