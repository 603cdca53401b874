/* Byte slices. Pure functions; any thread. */
#include "base/str.h"

#include <stdint.h>

/* Nearly always both have the same case already. */
bool ml_str_ieq_n(const char *a, const char *b, size_t n)
{
    size_t i = 0;
    for (uint64_t x, y; n - i >= sizeof x; i += sizeof x) {
        memcpy(&x, a + i, sizeof x);
        memcpy(&y, b + i, sizeof y);
        if (x != y)
            break;
    }
    for (; i < n; i++)
        if (a[i] != b[i] && ml_lower(a[i]) != ml_lower(b[i]))
            return false;
    return true;
}

bool ml_str_starts(struct ml_str s, struct ml_str prefix)
{
    return s.n >= prefix.n && ml_str_eq(ml_str(s.p, prefix.n), prefix);
}

bool ml_str_istarts(struct ml_str s, struct ml_str prefix)
{
    return s.n >= prefix.n && ml_str_ieq(ml_str(s.p, prefix.n), prefix);
}

struct ml_str ml_str_cut(struct ml_str s, char sep, struct ml_str *rest)
{
    const char *at = s.n ? memchr(s.p, sep, s.n) : NULL;
    if (!at) {
        *rest = (struct ml_str){NULL, 0};
        return s;
    }
    *rest = ml_str(at + 1, s.n - (size_t)(at + 1 - s.p));
    return ml_str(s.p, (size_t)(at - s.p));
}

bool ml_str_u64(struct ml_str s, unsigned long long *ret)
{
    unsigned long long v = 0;
    if (s.n == 0)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        if (__builtin_mul_overflow(v, 10ULL, &v) ||
            __builtin_add_overflow(v, (unsigned long long)(s.p[i] - '0'), &v))
            return false;
    }
    *ret = v;
    return true;
}
