/* Buffers: own their bytes. See buf.h. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

void ml_buf_init(struct ml_buf *b, size_t max)
{
    *b = (struct ml_buf){.max = max};
}

void ml_buf_done(struct ml_buf *b)
{
    free(b->p);
    ml_buf_init(b, b->max);
}

void ml_buf_clear(struct ml_buf *b)
{
    b->n = 0;
    b->failed = false;
}

bool ml_buf_reserve(struct ml_buf *b, size_t more)
{
    if (b->failed)
        return false;
    if (b->cap - b->n >= more)
        return true;
    if (b->max - b->n < more) {
        b->failed = true;
        return false;
    }
    size_t want = b->n + more, cap = b->cap ? b->cap : b->max < 256 ? b->max : 256;
    while (cap < want)
        cap = cap > b->max / 2 ? b->max : cap * 2;
    char *p = realloc(b->p, cap);
    if (!p) {
        b->failed = true;
        return false;
    }
    b->p = p;
    b->cap = cap;
    return true;
}

bool ml_buf_add(struct ml_buf *b, const void *p, size_t n)
{
    if (!ml_buf_reserve(b, n))
        return false;
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
    return true;
}

bool ml_buf_add_str(struct ml_buf *b, struct ml_str s)
{
    return ml_buf_add(b, s.p, s.n);
}

bool ml_buf_printf(struct ml_buf *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0 || !ml_buf_reserve(b, (size_t)n + 1))
        return false;
    va_start(args, format);
    vsnprintf(b->p + b->n, (size_t)n + 1, format, args);
    va_end(args);
    b->n += (size_t)n;
    return true;
}

/* Length of the UTF-8 sequence at p (RFC 3629: no overlong forms, no surrogates), 0 if none. */
static size_t utf8_length(const unsigned char *p, size_t n)
{
    if (p[0] < 0x80)
        return 1;
    if (p[0] >= 0xC2 && p[0] <= 0xDF)
        return n > 1 && (p[1] & 0xC0) == 0x80 ? 2 : 0;
    if (p[0] >= 0xE0 && p[0] <= 0xEF) {
        unsigned low = p[0] == 0xE0 ? 0xA0 : 0x80, high = p[0] == 0xED ? 0x9F : 0xBF;
        return n > 2 && p[1] >= low && p[1] <= high && (p[2] & 0xC0) == 0x80 ? 3 : 0;
    }
    if (p[0] >= 0xF0 && p[0] <= 0xF4) {
        unsigned low = p[0] == 0xF0 ? 0x90 : 0x80, high = p[0] == 0xF4 ? 0x8F : 0xBF;
        return n > 3 && p[1] >= low && p[1] <= high && (p[2] & 0xC0) == 0x80 &&
                       (p[3] & 0xC0) == 0x80
                   ? 4
                   : 0;
    }
    return 0;
}

/* Printable ASCII that needs no escape. */
static bool plain(unsigned char c)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

/* What needs a look of its own, at i; returns where it ends. */
static size_t add_json_special(struct ml_buf *b, struct ml_str s, size_t i)
{
    unsigned char c = (unsigned char)s.p[i];
    size_t len = utf8_length((const unsigned char *)s.p + i, s.n - i);
    if (c == '"' || c == '\\')
        ml_buf_printf(b, "\\%c", c);
    else if (c < 0x20 || c == 0x7f)
        ml_buf_printf(b, "\\u%04x", c);
    else if (len == 0)
        ml_buf_add(b, "\xEF\xBF\xBD", 3);
    else
        ml_buf_add(b, s.p + i, len);
    return i + (len ? len : 1);
}

bool ml_buf_add_json(struct ml_buf *b, struct ml_str s)
{
    ml_buf_add(b, "\"", 1);
    for (size_t i = 0; i < s.n;) {
        size_t from = i;
        while (i < s.n && plain((unsigned char)s.p[i]))
            i++;
        ml_buf_add(b, s.p + from, i - from);
        if (i < s.n)
            i = add_json_special(b, s, i);
    }
    return ml_buf_add(b, "\"", 1);
}
