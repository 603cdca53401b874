/* base64, percent encoding, URLs, UTF-8. Pure functions; any thread. */
#include "codec/text.h"

#include "codec/path.h"

#include <stdint.h>

enum { URL_MAX_BYTES = 16 * 1024 };

static const char STANDARD[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char URLSAFE[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* Bytes that follow the first byte of a sequence, and the range of the first of them (RFC 3629:
 * no overlong forms, no surrogates, nothing past U+10FFFF). -1: no sequence starts so. */
static int utf8_follow(unsigned char first, unsigned char *low, unsigned char *high)
{
    *low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    *high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    if (first < 0x80)
        return 0;
    if (first < 0xC2 || first > 0xF4)
        return -1;
    return first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3;
}

bool ml_utf8_ok(struct ml_str s)
{
    for (size_t i = 0; i < s.n;) {
        unsigned char low, high;
        uint64_t word;
        if ((unsigned char)s.p[i] < 0x80) { /* nearly always, and so are the next ones */
            i++;
            for (; s.n - i >= sizeof word; i += sizeof word) {
                memcpy(&word, s.p + i, sizeof word);
                if (word & UINT64_C(0x8080808080808080))
                    break;
            }
            continue;
        }
        int follow = utf8_follow((unsigned char)s.p[i++], &low, &high);
        if (follow < 0 || (size_t)follow > s.n - i)
            return false;
        for (; follow > 0; follow--, i++, low = 0x80, high = 0xBF)
            if ((unsigned char)s.p[i] < low || (unsigned char)s.p[i] > high)
                return false;
    }
    return true;
}

static bool encode64(struct ml_str in, const char *alphabet, bool pad, struct ml_buf *out)
{
    if (in.n > SIZE_MAX / 2 || !ml_buf_reserve(out, (in.n + 2) / 3 * 4))
        return false;
    for (size_t i = 0; i < in.n; i += 3) {
        size_t left = in.n - i;
        uint32_t bits = (uint32_t)(unsigned char)in.p[i] << 16;
        if (left > 1)
            bits |= (uint32_t)(unsigned char)in.p[i + 1] << 8;
        if (left > 2)
            bits |= (unsigned char)in.p[i + 2];
        char quad[4] = {alphabet[bits >> 18], alphabet[bits >> 12 & 63],
                        left > 1 ? alphabet[bits >> 6 & 63] : '=',
                        left > 2 ? alphabet[bits & 63] : '='};
        ml_buf_add(out, quad, pad || left > 2 ? 4 : left + 1);
    }
    return true;
}

/* Value of a digit; c62 and c63 are the alphabet's last two. -1: not in it. */
static int digit64(char c, char c62, char c63)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == c62 ? 62 : c == c63 ? 63 : -1;
}

/* `in` has no padding. RFC 4648 3.5: bits left over must be zero, or one value had two spellings.
 */
static bool decode64(struct ml_str in, char c62, char c63, struct ml_buf *out)
{
    size_t start = out->n;
    uint32_t bits = 0;
    unsigned have = 0;
    if (in.n % 4 == 1 || !ml_buf_reserve(out, in.n / 4 * 3 + 2))
        return false;
    for (size_t i = 0; i < in.n; i++) {
        int digit = digit64(in.p[i], c62, c63);
        if (digit < 0) {
            out->n = start;
            return false;
        }
        bits = bits << 6 | (uint32_t)digit;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out->p[out->n++] = (char)(bits >> have & 0xFF);
        }
    }
    if (bits & ((1U << have) - 1)) {
        out->n = start;
        return false;
    }
    return true;
}

bool ml_base64_encode(struct ml_str in, struct ml_buf *out)
{
    return encode64(in, STANDARD, true, out);
}

bool ml_base64_decode(struct ml_str in, struct ml_buf *out)
{
    if (in.n % 4 != 0)
        return false;
    for (int i = 0; i < 2 && in.n && in.p[in.n - 1] == '='; i++)
        in.n--;
    return decode64(in, '+', '/', out);
}

bool ml_base64url_encode(struct ml_str in, struct ml_buf *out)
{
    return encode64(in, URLSAFE, false, out);
}

bool ml_base64url_decode(struct ml_str in, struct ml_buf *out)
{
    return decode64(in, '-', '_', out);
}

static bool is_unreserved(char c)
{
    return (c >= '0' && c <= '9') || (ml_lower(c) >= 'a' && ml_lower(c) <= 'z') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

bool ml_url_escape(struct ml_str in, struct ml_buf *out)
{
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < in.n; i++) {
        unsigned char c = (unsigned char)in.p[i];
        char escape[3] = {'%', digits[c >> 4], digits[c & 15]};
        if (is_unreserved(in.p[i]))
            ml_buf_add(out, in.p + i, 1);
        else
            ml_buf_add(out, escape, 3);
    }
    return !out->failed;
}

int ml_url_hex(const char *p, size_t n)
{
    int value = 0;
    if (n < 2)
        return -1;
    for (int i = 0; i < 2; i++) {
        char c = ml_lower(p[i]);
        if (c >= '0' && c <= '9')
            value = value * 16 + (c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value * 16 + (c - 'a' + 10);
        else
            return -1;
    }
    return value;
}

bool ml_url_unescape(struct ml_str in, bool form, struct ml_buf *out)
{
    size_t start = out->n;
    if (!ml_buf_reserve(out, in.n))
        return false;
    for (size_t i = 0; i < in.n; i++) {
        int c = (unsigned char)in.p[i];
        if (c == '%') {
            c = ml_url_hex(in.p + i + 1, in.n - i - 1);
            i += 2;
        } else if (c == '+' && form) {
            c = ' ';
        }
        if (c < 0) {
            out->n = start;
            return false;
        }
        out->p[out->n++] = (char)c;
    }
    return true;
}

static bool url_bytes_ok(struct ml_str in)
{
    for (size_t i = 0; i < in.n; i++) {
        unsigned char c = (unsigned char)in.p[i];
        if (c <= ' ' || c >= 0x7f || c == '\\')
            return false;
        if (c == '%' && ml_url_hex(in.p + i + 1, in.n - i - 1) < 0)
            return false;
    }
    return true;
}

int ml_url_parse(struct ml_str in, struct ml_url *ret, struct ml_err *err)
{
    struct ml_url u = {.port = 0};
    if (in.n > URL_MAX_BYTES)
        return ml_fail(err, ML_E_TOOBIG, "URL longer than %d bytes", URL_MAX_BYTES);
    if (!url_bytes_ok(in))
        return ml_fail(err, ML_E_INVALID, "URL with a byte or escape that RFC 3986 does not allow");
    size_t scheme = ml_str_istarts(in, ML_STR("http://"))    ? 4
                    : ml_str_istarts(in, ML_STR("https://")) ? 5
                                                             : 0;
    if (!scheme)
        return ml_fail(err, ML_E_INVALID, "URL must start with http:// or https://");
    u.scheme = ml_str(in.p, scheme);
    struct ml_str rest = ml_str_cut(ml_str(in.p + scheme + 3, in.n - scheme - 3), '#', &u.fragment);
    rest = ml_str_cut(rest, '?', &u.query);
    const char *slash = rest.n ? memchr(rest.p, '/', rest.n) : NULL;
    struct ml_str authority = rest;
    if (slash) {
        authority.n = (size_t)(slash - rest.p);
        u.path = ml_str(slash, rest.n - authority.n);
    }
    int r = ml_host_split(authority, &u.host, &u.port, err);
    if (r < 0)
        return r;
    *ret = u;
    return 0;
}
