/* Byte slices: a pointer and a length, never owning, never NUL-terminated by promise. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct ml_str {
    const char *p;
    size_t n;
};

#define ML_STR(literal) ((struct ml_str){"" literal, sizeof(literal) - 1})
/* For printf's "%.*s". */
#define ML_FMT(s) (int)(s).n, (s).p

static inline struct ml_str ml_str(const char *p, size_t n)
{
    return (struct ml_str){p, n};
}

static inline struct ml_str ml_str_z(const char *z)
{
    return (struct ml_str){z, z ? strlen(z) : 0};
}

static inline bool ml_str_eq(struct ml_str a, struct ml_str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline char ml_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

bool ml_str_ieq_n(const char *a, const char *b, size_t n);
/* Equality with ASCII case folded: header names, schemes, hosts. Most names differ in length or in
 * the first letter, whose case is one bit. */
static inline bool ml_str_ieq(struct ml_str a, struct ml_str b)
{
    if (a.n != b.n || (a.n && (a.p[0] ^ b.p[0]) & ~0x20))
        return false;
    return ml_str_ieq_n(a.p, b.p, a.n);
}
bool ml_str_starts(struct ml_str s, struct ml_str prefix);
bool ml_str_istarts(struct ml_str s, struct ml_str prefix);
/* Without spaces and tabs (RFC 9110 OWS) at both ends. */
static inline struct ml_str ml_str_trim(struct ml_str s)
{
    while (s.n && (s.p[0] == ' ' || s.p[0] == '\t')) {
        s.p++;
        s.n--;
    }
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}
/* Cuts at the first `sep`: returns what is before it and leaves in *rest what is after it
 * (empty, with p == NULL, when there was no `sep`). */
struct ml_str ml_str_cut(struct ml_str s, char sep, struct ml_str *rest);
/* Decimal digits only, no sign, no space; false on overflow or anything else. */
bool ml_str_u64(struct ml_str s, unsigned long long *ret);
