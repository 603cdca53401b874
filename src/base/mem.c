/* Allocation, wiping, randomness. No state; any thread. */
#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static void *or_die(void *p)
{
    if (!p) {
        fputs("moonlatch: out of memory\n", stderr);
        abort();
    }
    return p;
}

void *ml_xmalloc(size_t n)
{
    return or_die(malloc(n ? n : 1));
}

void *ml_xcalloc(size_t count, size_t n)
{
    return or_die(calloc(count ? count : 1, n ? n : 1));
}

void *ml_xrealloc(void *p, size_t n)
{
    return or_die(realloc(p, n ? n : 1));
}

char *ml_xstrdup(const char *z)
{
    return z ? ml_xstrndup(z, strlen(z)) : NULL;
}

char *ml_xstrndup(const char *p, size_t n)
{
    char *out = ml_xmalloc(n + 1);
    if (n)
        memcpy(out, p, n);
    out[n] = 0;
    return out;
}

void ml_wipe(void *p, size_t n)
{
    if (p && n)
        explicit_bzero(p, n);
}

bool ml_equal_ct(const void *a, size_t an, const void *b, size_t bn)
{
    const volatile unsigned char *x = a, *y = b;
    unsigned char diff = 0;
    if (an != bn)
        return false;
    for (size_t i = 0; i < an; i++)
        diff |= (unsigned char)(x[i] ^ y[i]);
    return diff == 0;
}

bool ml_random(void *out, size_t n)
{
    unsigned char *p = out;
    while (n) {
        ssize_t got = getrandom(p, n > 256 ? 256 : n, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            memset(out, 0, (size_t)(p - (unsigned char *)out) + n);
            return false;
        }
        p += got;
        n -= (size_t)got;
    }
    return true;
}

void ml_require_failed(const char *cond, const char *file, int line)
{
    fprintf(stderr, "moonlatch: broken invariant %s at %s:%d\n", cond, file, line);
    abort();
}
