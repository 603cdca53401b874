/* Header rules. Pure functions; any thread. */
#include "codec/header.h"

#include "codec/text.h"

#include <stdint.h>

enum { NAME_MAX_BYTES = 256, VALUE_MAX_BYTES = 32 * 1024 };

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (ml_lower(c) >= 'a' && ml_lower(c) <= 'z');
}

/* RFC 9110 5.6.2 tchar. Tables: names and values are looked at in every request and answer. */
static const bool is_tchar[256] = {
    ['A' ... 'Z'] = true, ['a' ... 'z'] = true, ['0' ... '9'] = true, ['!'] = true,  ['#'] = true,
    ['$'] = true,         ['%'] = true,         ['&'] = true,         ['\''] = true, ['*'] = true,
    ['+'] = true,         ['-'] = true,         ['.'] = true,         ['^'] = true,  ['_'] = true,
    ['`'] = true,         ['|'] = true,         ['~'] = true,
};

/* RFC 6750 2.1 b64token without its '='. */
static const bool is_b64token[256] = {
    ['A' ... 'Z'] = true, ['a' ... 'z'] = true, ['0' ... '9'] = true, ['-'] = true, ['.'] = true,
    ['_'] = true,         ['~'] = true,         ['+'] = true,         ['/'] = true,
};

/* How many bytes at the front of s are of the class. */
static size_t span(struct ml_str s, const bool class[256])
{
    const unsigned char *p = (const unsigned char *)s.p;
    size_t i = 0;
    while (s.n - i >= 4 && class[p[i]] & class[p[i + 1]] & class[p[i + 2]] & class[p[i + 3]])
        i += 4;
    while (i < s.n && class[p[i]])
        i++;
    return i;
}

/* Eight bytes of printable ASCII. The lowest one that is not 0x20 to 0x7e sets its top bit: as 0x80
 * and above, by a borrow below 0x20, or by a carry from 0x7f. */
static bool is_plain_word(const char *p)
{
    static const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return !(((word - ones * 0x20) | word | (word + ones)) & (ones * 0x80));
}

/* Printable ASCII needs no further look. The last word of eight bytes overlaps the one before it.
 */
bool ml_printable(struct ml_str s)
{
    size_t i = 0;
    if (s.n >= 8) {
        for (; i <= s.n - 8; i += 8)
            if (!is_plain_word(s.p + i))
                return false;
        return is_plain_word(s.p + s.n - 8);
    }
    while (i < s.n && s.p[i] >= 0x20 && s.p[i] < 0x7f)
        i++;
    return i == s.n;
}

bool ml_header_name_ok(struct ml_str name)
{
    return name.n > 0 && name.n <= NAME_MAX_BYTES && span(name, is_tchar) == name.n;
}

/* C1 controls, U+2028 and U+2029 in valid UTF-8: what some programs take for an end of line. */
static bool is_unicode_break(const unsigned char *p, size_t n)
{
    if (n > 1 && p[0] == 0xC2 && p[1] < 0xA0)
        return true;
    return n > 2 && p[0] == 0xE2 && p[1] == 0x80 && (p[2] == 0xA8 || p[2] == 0xA9);
}

bool ml_header_value_ok(struct ml_str value)
{
    if (value.n == 0)
        return true;
    if (value.n > VALUE_MAX_BYTES || value.p[0] == ' ' || value.p[value.n - 1] == ' ')
        return false;
    if (ml_printable(value))
        return true;
    if (!ml_utf8_ok(value))
        return false;
    const unsigned char *p = (const unsigned char *)value.p;
    for (size_t i = 0; i < value.n; i++)
        if (p[i] < 0x20 || p[i] == 0x7f || is_unicode_break(p + i, value.n - i))
            return false;
    return true;
}

bool ml_header_is_alias(struct ml_str name, struct ml_str known)
{
    bool same = true;
    if (name.n != known.n)
        return false;
    for (size_t i = 0; i < name.n; i++) {
        if (ml_lower(name.p[i]) == ml_lower(known.p[i]))
            continue;
        if (is_alnum(name.p[i]) || is_alnum(known.p[i]))
            return false;
        same = false;
    }
    return !same;
}

bool ml_b64token_ok(struct ml_str s)
{
    size_t i = span(s, is_b64token);
    while (i < s.n && (s.p[i] == '=' || is_b64token[(unsigned char)s.p[i]]))
        i++;
    return s.n > 0 && i == s.n;
}

struct ml_str ml_bearer(struct ml_str authorization)
{
    struct ml_str none = {NULL, 0}, token;
    size_t at = 6, body;
    if (!ml_str_istarts(authorization, ML_STR("Bearer ")))
        return none;
    while (at < authorization.n && authorization.p[at] == ' ')
        at++;
    token = ml_str(authorization.p + at, authorization.n - at);
    body = span(token, is_b64token);
    if (body == 0)
        return none;
    for (size_t i = body; i < token.n; i++)
        if (token.p[i] != '=')
            return none;
    return token;
}

struct ml_str ml_cookie(struct ml_str header, struct ml_str name, size_t *count)
{
    struct ml_str found = {NULL, 0}, value;
    size_t n = 0;
    while (header.n) {
        struct ml_str pair = ml_str_trim(ml_str_cut(header, ';', &header));
        struct ml_str key = ml_str_cut(pair, '=', &value);
        if (!value.p || !ml_str_eq(key, name))
            continue; /* no '=': not a pair that has a name */
        found = value;
        n++;
    }
    if (count)
        *count = n;
    return n == 1 ? found : (struct ml_str){NULL, 0};
}
