/* A growable byte buffer with a bound. Sticky failure: append as often as you like, ask once. */
#pragma once

#include "base/str.h"

#include <stdbool.h>
#include <stddef.h>

struct ml_buf {
    char *p;
    size_t n, cap, max;
    bool failed; /* a byte was lost to the bound or to memory: the content must not be used */
};

void ml_buf_init(struct ml_buf *b, size_t max);
void ml_buf_done(struct ml_buf *b);
/* Empties it and clears the failure; keeps the memory. */
void ml_buf_clear(struct ml_buf *b);
bool ml_buf_reserve(struct ml_buf *b, size_t more);
bool ml_buf_add(struct ml_buf *b, const void *p, size_t n);
bool ml_buf_add_str(struct ml_buf *b, struct ml_str s);
bool ml_buf_printf(struct ml_buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Appends a JSON string literal with its quotes; bytes that are not UTF-8 become U+FFFD. */
bool ml_buf_add_json(struct ml_buf *b, struct ml_str s);

static inline struct ml_str ml_buf_str(const struct ml_buf *b)
{
    return (struct ml_str){b->p, b->n};
}
