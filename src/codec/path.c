/* Request targets: the one place that decides what a path means. Pure functions; any thread.
 * Segments are decoded one after the other into an output that holds "/segment" for each, empty
 * ones too: repeated slashes are merged last, so that a ".." that would depend on the order of
 * merging and resolving can be seen and refused. */
#include "codec/path.h"

#include "codec/text.h"

enum { TARGET_MAX_BYTES = 16 * 1024 };

struct output {
    char *p;
    size_t n; /* never more than the bytes read so far: the input's length is room enough */
};

static bool is_control(unsigned char c)
{
    return c < 0x20 || c == 0x7f;
}

/* Decodes segment to the end of out (out->n stays); *cut is where its params begin, its length
 * without any. NULL, or what is wrong. */
static const char *decode(struct ml_str segment, const struct output *out, size_t *n, size_t *cut)
{
    char *to = out->p + out->n + 1;
    size_t used = 0;
    bool params = false;
    for (size_t i = 0; i < segment.n; i++) {
        int c = (unsigned char)segment.p[i];
        if (c == '\\')
            return "a backslash";
        if (c == ';' && !params) {
            params = true;
            *cut = used;
        }
        if (c == '%') {
            c = ml_url_hex(segment.p + i + 1, segment.n - i - 1);
            i += 2;
            if (c < 0)
                return "a bad percent encoding";
            if (c == '/' || c == '\\' || is_control((unsigned char)c))
                return "an encoded slash, backslash or control";
        }
        to[used++] = (char)c;
    }
    *n = used;
    if (!params)
        *cut = used;
    return NULL;
}

/* Some program behind us decodes once more than we do. */
static bool is_decodable(struct ml_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] == '%' && ml_url_hex(s.p + i + 1, s.n - i - 1) >= 0)
            return true;
    return false;
}

/* What a decoded segment may not be; encoded: it was written with a '%'. */
static const char *check_segment(struct ml_str decoded, size_t cut, bool encoded)
{
    size_t dots = 0;
    while (dots < decoded.n && decoded.p[dots] == '.')
        dots++;
    if (dots && dots < decoded.n && decoded.p[dots] == ';')
        return "dots followed by ';'";
    if (encoded && dots == cut && (dots == 1 || dots == 2))
        return "an encoded dot in a dot segment";
    if (is_decodable(decoded))
        return "a double percent encoding";
    return ml_utf8_ok(decoded) ? NULL : "bytes that are not UTF-8";
}

/* Takes the last segment away (RFC 3986 5.2.4). */
static const char *pop(struct output *out)
{
    if (out->n == 0)
        return "'..' above the root";
    if (out->p[out->n - 1] == '/')
        return "'..' after an empty segment";
    while (out->p[out->n - 1] != '/')
        out->n--;
    out->n--;
    return NULL;
}

/* Unreserved characters (RFC 3986 2.3) but the dot: nothing to decode, resolve or refuse. */
static bool is_plain(struct ml_str segment)
{
    static const bool plain[256] = {
        ['A' ... 'Z'] = true, ['a' ... 'z'] = true, ['0' ... '9'] = true,
        ['-'] = true,         ['_'] = true,         ['~'] = true,
    };
    for (size_t i = 0; i < segment.n; i++)
        if (!plain[(unsigned char)segment.p[i]])
            return false;
    return true;
}

static const char *push_plain(struct ml_str segment, struct output *out)
{
    out->p[out->n] = '/';
    if (segment.n)
        memcpy(out->p + out->n + 1, segment.p, segment.n);
    out->n += 1 + segment.n;
    return NULL;
}

/* Appends one raw segment. */
static const char *push(struct ml_str segment, bool last, struct output *out, bool *has_params)
{
    if (is_plain(segment))
        return push_plain(segment, out);
    size_t n, cut;
    const char *why = decode(segment, out, &n, &cut);
    if (why)
        return why;
    struct ml_str decoded = ml_str(out->p + out->n + 1, n), name = ml_str(decoded.p, cut);
    why = check_segment(decoded, cut, segment.n && memchr(segment.p, '%', segment.n));
    if (why)
        return why;
    if (n && memchr(decoded.p, ';', n))
        *has_params = true;
    bool up = ml_str_eq(name, ML_STR(".."));
    if (up || ml_str_eq(name, ML_STR("."))) {
        why = up ? pop(out) : NULL;
        if (why || !last)
            return why;
        cut = 0; /* "/a/." is "/a/" */
    }
    out->p[out->n] = '/';
    out->n += 1 + cut;
    return NULL;
}

static void merge_slashes(struct output *out)
{
    size_t n = 0;
    for (size_t i = 0; i < out->n; i++)
        if (out->p[i] != '/' || n == 0 || out->p[n - 1] != '/')
            out->p[n++] = out->p[i];
    out->n = n;
}

/* raw starts with '/'. */
static int canonical(struct ml_arena *arena, struct ml_str raw, struct ml_target *t,
                     struct ml_err *err)
{
    struct output out = {ml_arena_alloc(arena, raw.n + 1), 0};
    struct ml_str rest = ml_str(raw.p + 1, raw.n - 1);
    if (!out.p)
        return ml_fail(err, ML_E_NOMEM, "no memory left for the path of this request");
    do {
        struct ml_str segment = ml_str_cut(rest, '/', &rest);
        const char *why = push(segment, rest.p == NULL, &out, &t->has_params);
        if (why)
            return ml_fail(err, ML_E_INVALID, "path has %s", why);
    } while (rest.p);
    merge_slashes(&out);
    out.p[out.n] = 0;
    t->path = ml_str(out.p, out.n);
    return 0;
}

static int check_target(struct ml_str input, struct ml_err *err)
{
    if (input.n > TARGET_MAX_BYTES)
        return ml_fail(err, ML_E_TOOBIG, "target longer than %d bytes", TARGET_MAX_BYTES);
    if (input.n == 0)
        return ml_fail(err, ML_E_INVALID, "target is empty");
    static const bool bad[256] = {[0 ... ' '] = true, ['#'] = true, [0x7f] = true};
    for (size_t i = 0; i < input.n; i++)
        if (bad[(unsigned char)input.p[i]])
            return ml_fail(err, ML_E_INVALID, "target has '#', a space or a control");
    return ml_utf8_ok(input) ? 0 : ml_fail(err, ML_E_INVALID, "target is not UTF-8");
}

/* Takes scheme and authority off the front of *rest (RFC 9112 3.2.2). */
static int cut_authority(struct ml_str *rest, struct ml_target *t, struct ml_err *err)
{
    struct ml_str name;
    unsigned port;
    size_t scheme = ml_str_istarts(*rest, ML_STR("http://")) ? 4 : 5, at = scheme + 3;
    if (scheme == 5 && !ml_str_istarts(*rest, ML_STR("https://")))
        return ml_fail(err, ML_E_INVALID, "target is neither a path nor an http(s) URL");
    t->scheme = ml_str(rest->p, scheme);
    while (at < rest->n && rest->p[at] != '/' && rest->p[at] != '?')
        at++;
    t->host = ml_str(rest->p + scheme + 3, at - scheme - 3);
    *rest = ml_str(rest->p + at, rest->n - at);
    return ml_host_split(t->host, &name, &port, err);
}

int ml_target_parse(struct ml_arena *arena, struct ml_str input, struct ml_target *ret,
                    struct ml_err *err)
{
    struct ml_target t = {.has_params = false};
    struct ml_str rest = input;
    int r = check_target(input, err);
    if (r == 0 && ml_str_eq(input, ML_STR("*"))) {
        t.path = t.raw_path = input;
    } else if (r == 0) {
        if (input.p[0] != '/')
            r = cut_authority(&rest, &t, err);
        t.raw_path = ml_str_cut(rest, '?', &t.query);
        if (r == 0) /* an absolute form may end with its authority (RFC 9110 4.2.3) */
            r = canonical(arena, t.raw_path.n ? t.raw_path : ML_STR("/"), &t, err);
    }
    if (r == 0)
        *ret = t;
    return r;
}
