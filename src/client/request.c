/* A request's way in: checked, then copied into the fetch with everything curl will point at. The
 * URL rules are narrow on purpose: what two parsers may read differently is refused. */
#include "client/internal.h"

#include "base/mem.h"
#include "codec/header.h"

#include <stdlib.h>

enum {
    URL_BYTES = 8 * 1024,
    METHOD_BYTES = 16,
    HEADERS_MAX = 64,
    HEADER_BYTES = 64 * 1024,
    BODY_BYTES = 256 * 1024,
    TIMEOUT_MAX_MS = 60000,
    MAX_BODY_DEFAULT = 1 << 20,
    EXTRA_HEADERS = 4, /* bearer or token, User-Agent, Expect, Content-Type */
};

/* Here and not as an option: curl would print it into a string of its own for each transfer. */
static const char user_agent[] = "User-Agent: moonlatch/" ML_VERSION;

/* The connection's own: a policy that could set them could split or smuggle requests (RFC 9112
 * 6, 9.3). */
static const struct ml_str own_headers[] = {
    ML_STR("connection"),
    ML_STR("content-length"),
    ML_STR("expect"),
    ML_STR("keep-alive"),
    ML_STR("proxy-authorization"),
    ML_STR("proxy-connection"),
    ML_STR("te"),
    ML_STR("trailer"),
    ML_STR("accept-encoding"),
    ML_STR("upgrade"),
    ML_STR("transfer-encoding"),
};

static bool is_own(struct ml_str name)
{
    for (size_t i = 0; i < sizeof own_headers / sizeof own_headers[0]; i++)
        if (ml_str_ieq(name, own_headers[i]))
            return true;
    return false;
}

static bool url_byte_ok(char c)
{
    return c > 0x20 && c < 0x7f && c != '\\' && c != '#' && c != '"' && c != '<' && c != '>';
}

static bool url_bytes_ok(struct ml_str url)
{
    for (size_t i = 0; i < url.n; i++)
        if (!url_byte_ok(url.p[i]))
            return false;
    return url.n <= URL_BYTES;
}

/* The authority's host without port, brackets and trailing dot; p == NULL when it is no plain
 * authority. */
static struct ml_str url_host(struct ml_str url)
{
    struct ml_str none = {NULL, 0};
    size_t skip = ml_str_istarts(url, ML_STR("https://"))  ? 8
                  : ml_str_istarts(url, ML_STR("http://")) ? 7
                                                           : 0;
    if (!skip || !url_bytes_ok(url))
        return none;
    struct ml_str host = {url.p + skip, 0};
    while (host.n < url.n - skip && host.p[host.n] != '/' && host.p[host.n] != '?')
        host.n++;
    if (memchr(host.p, '@', host.n) || memchr(host.p, '%', host.n))
        return none;
    if (host.n && host.p[0] == '[') {
        const char *end = memchr(host.p, ']', host.n);
        return end ? ml_str(host.p + 1, (size_t)(end - host.p - 1)) : none;
    }
    struct ml_str port;
    host = ml_str_cut(host, ':', &port);
    if (host.n && host.p[host.n - 1] == '.')
        host.n--;
    return host.n ? host : none;
}

static int check_headers(const struct ml_fetch_request *r, struct ml_err *err)
{
    size_t bytes = r->bearer.n;
    if (r->header_count > HEADERS_MAX)
        return ml_fail(err, ML_E_INVALID, "more than %d headers", HEADERS_MAX);
    if (!ml_header_value_ok(r->bearer))
        return ml_fail(err, ML_E_INVALID, "the bearer token has bytes that are not allowed");
    for (size_t i = 0; i < r->header_count; i++) {
        const struct ml_header *h = &r->headers[i];
        if (!ml_header_name_ok(h->name))
            return ml_fail(err, ML_E_INVALID, "header %zu has no valid name", i + 1);
        if (is_own(h->name))
            return ml_fail(err, ML_E_INVALID, "header %.*s is the connection's own",
                           ML_FMT(h->name));
        if (!ml_header_value_ok(h->value))
            return ml_fail(err, ML_E_INVALID,
                           "the value of header %.*s has bytes that are not allowed",
                           ML_FMT(h->name));
        bytes += h->name.n + h->value.n;
    }
    return bytes > HEADER_BYTES ? ml_fail(err, ML_E_INVALID, "headers over %d bytes", HEADER_BYTES)
                                : 0;
}

static int check(const struct ml_fetch_request *r, struct ml_str host, struct ml_err *err)
{
    if (!host.p)
        return ml_fail(err, ML_E_INVALID, "the URL is not http(s)://host/...");
    if (!ml_header_name_ok(r->method) || r->method.n > METHOD_BYTES ||
        ml_str_ieq(r->method, ML_STR("CONNECT")))
        return ml_fail(err, ML_E_INVALID, "the method is not allowed");
    if (r->body.n > BODY_BYTES)
        return ml_fail(err, ML_E_TOOBIG, "the request's body is over %d bytes", BODY_BYTES);
    if (r->timeout_ms < 1 || r->timeout_ms > TIMEOUT_MAX_MS)
        return ml_fail(err, ML_E_INVALID, "the timeout is not 1 to %d ms", TIMEOUT_MAX_MS);
    return check_headers(r, err);
}

static bool has_header(const struct ml_fetch_request *r, struct ml_str name)
{
    for (size_t i = 0; i < r->header_count; i++)
        if (ml_str_ieq(r->headers[i].name, name))
            return true;
    return false;
}

static char *put(char **at, struct ml_str s)
{
    char *ret = *at;
    if (s.n)
        memcpy(ret, s.p, s.n);
    ret[s.n] = '\0';
    *at += s.n + 1;
    return ret;
}

static void link_header(struct curl_slist **node, char *line)
{
    struct curl_slist *n = *node;
    n->data = line;
    n->next = n + 1;
    *node = n + 1;
}

/* "Name: value"; curl's spelling of an empty value is "Name;". */
static char *put_header(char **at, const struct ml_header *h)
{
    char *line = put(at, h->name);
    *at -= 1; /* on, over the NUL */
    if (h->value.n == 0) {
        put(at, ML_STR(";"));
        return line;
    }
    put(at, ML_STR(": "));
    *at -= 1;
    put(at, h->value);
    return line;
}

static char *put_bearer(char **at, struct ml_str bearer)
{
    char *line = put(at, ML_STR("Authorization: Bearer "));
    *at -= 1;
    put(at, bearer);
    return line;
}

/* curl must add nothing of its own to a body: no Expect, no guess at its type. */
static void put_headers(struct ml_fetch *f, struct curl_slist *nodes, char **at,
                        const struct ml_fetch_request *r, const char *token)
{
    struct curl_slist *node = nodes;
    for (size_t i = 0; i < r->header_count; i++)
        link_header(&node, put_header(at, &r->headers[i]));
    if (r->bearer.n)
        link_header(&node, put_bearer(at, r->bearer));
    else if (token && !has_header(r, ML_STR("authorization")))
        link_header(&node, put(at, ml_str_z(token)));
    if (!has_header(r, ML_STR("user-agent")))
        link_header(&node, put(at, ml_str_z(user_agent)));
    if (r->body.n || ml_str_eq(r->method, ML_STR("POST"))) {
        if (!has_header(r, ML_STR("content-type")))
            link_header(&node, put(at, ML_STR("Content-Type:")));
        link_header(&node, put(at, ML_STR("Expect:")));
    }
    node[-1].next = NULL; /* there is a User-Agent at least */
    f->headers = nodes;
}

static size_t request_bytes(const struct ml_fetch_request *r, struct ml_str host, const char *token)
{
    size_t n = (r->header_count + EXTRA_HEADERS) * sizeof(struct curl_slist);
    for (size_t i = 0; i < r->header_count; i++)
        n += r->headers[i].name.n + r->headers[i].value.n + sizeof ": ";
    n += sizeof "Authorization: Bearer " + r->bearer.n + sizeof user_agent +
         sizeof "Content-Type:" + sizeof "Expect:" + (token ? strlen(token) + 1 : 0);
    return n + r->url.n + host.n + r->method.n + r->body.n + 4;
}

int ml_fetch_build(struct ml_fetch **ret, const struct ml_fetch_request *r, const char *token,
                   struct ml_err *err)
{
    struct ml_str host = url_host(r->url);
    int code = check(r, host, err);
    if (code < 0)
        return code;
    size_t bytes = sizeof(struct ml_fetch) + request_bytes(r, host, token);
    struct ml_fetch *f = malloc(bytes);
    struct ml_fetch_result *result = malloc(sizeof *result);
    if (!f || !result) {
        free(f);
        free(result);
        return ml_fail(err, ML_E_NOMEM, "no memory for the request");
    }
    *result = (struct ml_fetch_result){.error = 0};
    *f = (struct ml_fetch){.result = result, .bytes = bytes, .body_n = r->body.n};
    f->max_body = r->max_body ? r->max_body : MAX_BODY_DEFAULT;
    struct curl_slist *nodes = (struct curl_slist *)(void *)(f + 1);
    char *at = (char *)(nodes + r->header_count + EXTRA_HEADERS);
    put_headers(f, nodes, &at, r, token);
    f->url = put(&at, r->url);
    f->host = put(&at, host);
    f->method = put(&at, r->method);
    f->body = put(&at, r->body);
    ML_REQUIRE(at <= (char *)f + bytes);
    *ret = f;
    return 0;
}

void ml_fetch_free(struct ml_fetch *f)
{
    struct ml_upstream *u = f->upstream;
    ml_fetch_result_free(f->result);
    ml_wipe(f, f->bytes);
    free(f);
    ml_upstream_unref(u);
}
