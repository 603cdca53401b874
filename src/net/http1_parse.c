/* Parsing of one request: llhttp without any lenient flag, and the checks on top of it. Owns the
 * exchange's buffer while it is parsed. Nothing here calls a handler or writes: llhttp is left
 * before either. Runs on the server's loop. */
#include "net/http1_internal.h"

#include <stdlib.h>

static struct ml_exchange *exchange(llhttp_t *p)
{
    return p->data;
}

static const struct ml_http_limits *limits(const struct ml_exchange *x)
{
    return &x->conn->server->limits;
}

static int stop(struct ml_exchange *x, int status)
{
    x->status = status;
    return HPE_USER;
}

/* ---- the parser's callbacks; a span may come in several parts, which touch in the buffer ---- */

static int on_url(llhttp_t *p, const char *at, size_t n)
{
    struct ml_exchange *x = exchange(p);
    struct ml_str *target = &x->request.target;
    if (!target->p)
        target->p = at;
    target->n += n;
    return target->n > limits(x)->target_bytes ? stop(x, 414) : 0;
}

/* llhttp takes several spaces: RFC 9112 3 has exactly one. */
static int on_version(llhttp_t *p, const char *at, size_t n)
{
    struct ml_exchange *x = exchange(p);
    const struct ml_str *target = &x->request.target;
    size_t gap = (size_t)(at - target->p) - target->n;
    return at[-1] == '/' && gap != sizeof " HTTP/" - 1 ? stop(x, 400) : 0;
}

/* One more entry in the header table. */
static int add_header(struct ml_exchange *x, struct ml_str name)
{
    size_t count = x->request.header_count;
    if (count == limits(x)->header_count)
        return stop(x, 431);
    if (count == x->header_cap) {
        size_t cap = x->header_cap ? x->header_cap * 2 : 32;
        struct ml_header *grown = realloc(x->headers, cap * sizeof *grown);
        if (!grown)
            return stop(x, 503);
        x->headers = grown;
        x->header_cap = cap;
    }
    x->headers[count] = (struct ml_header){.name = name};
    x->request.header_count++;
    return 0;
}

static int on_field(llhttp_t *p, const char *at, size_t n)
{
    struct ml_exchange *x = exchange(p);
    if (x->head_done)
        return 0; /* a trailer: dropped, and counted with the body */
    size_t count = x->request.header_count;
    if (count) { /* the rest of a name: the next one would begin after a ':' */
        struct ml_str *name = &x->headers[count - 1].name;
        if (name->p + name->n == at) {
            name->n += n;
            return 0;
        }
    }
    return add_header(x, ml_str(at, n));
}

static int on_value(llhttp_t *p, const char *at, size_t n)
{
    struct ml_exchange *x = exchange(p);
    if (x->head_done)
        return 0;
    struct ml_str *value = &x->headers[x->request.header_count - 1].value;
    if (!value->p)
        value->p = at;
    if (value->p + value->n != at)
        return stop(x, 400); /* obs-fold (RFC 9112 5.2) would leave a gap */
    value->n += n;
    return 0;
}

static int on_headers_complete(llhttp_t *p)
{
    struct ml_exchange *x = exchange(p);
    x->keep_alive = llhttp_should_keep_alive(p);
    x->head_done = true;
    p->upgrade = 0; /* "Upgrade:" is ignored: the bytes after the head stay HTTP/1.1 */
    bool has_body = (p->flags & F_TRANSFER_ENCODING) || p->content_length > 0;
    return has_body ? HPE_PAUSED : 0;
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
    struct ml_exchange *x = exchange(p);
    if (!x->conn->server->keep_body)
        return 0;
    return ml_buf_add(&x->body, at, n) ? 0 : stop(x, 413);
}

static int on_message_complete(llhttp_t *p)
{
    exchange(p)->message_done = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_version = on_version,
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

void ml_http1_parse_init(struct ml_exchange *x)
{
    llhttp_init(&x->parser, HTTP_REQUEST, &settings);
    x->parser.data = x;
    x->request = (struct ml_http_request){.minor = 1};
    x->body_wire = 0;
    ml_buf_clear(&x->body);
    x->status = 0;
    x->head_done = x->message_done = x->keep_alive = x->is_head = false;
}

/* ---- llhttp's errors as statuses ---- */

static bool is_token_char(char c)
{
    if ((c >= '0' && c <= '9') || (ml_lower(c) >= 'a' && ml_lower(c) <= 'z'))
        return true;
    return c && strchr("!#$%&'*+-.^_`|~", c);
}

/* llhttp fails at the first byte that no method it knows has there: a token so far is a method that
 * it does not know. Only bytes up to there are looked at, so that the answer does not depend on how
 * they arrived. */
static int refuse_method(const struct ml_exchange *x)
{
    const char *end = llhttp_get_error_pos(&x->parser);
    for (const char *p = x->buf + x->start; p <= end; p++)
        if (!is_token_char(*p))
            return 400;
    return 501;
}

static int refusal(const struct ml_exchange *x, llhttp_errno_t e)
{
    const char *why = llhttp_get_error_reason(&x->parser);
    switch (e) {
    case HPE_USER:
        return x->status;
    case HPE_INVALID_METHOD:
        return refuse_method(x);
    case HPE_PAUSED_H2_UPGRADE:
        return 505;
    case HPE_INVALID_VERSION:
        return why && strcmp(why, "Invalid HTTP version") == 0 ? 505 : 400;
    case HPE_INVALID_CONSTANT: /* methods of RTSP and ICE, which llhttp knows too */
        return why && strncmp(why, "Expected HTTP/", 14) == 0 ? 400 : 501;
    default:
        return 400;
    }
}

/* ---- feeding ---- */

/* One empty line before a request is ignored (RFC 9112 2.2), more are not. 0: wait, 1: go on. */
static int skip_empty_line(struct ml_exchange *x)
{
    const char *p = x->buf + x->start;
    if (*p != '\r' && *p != '\n')
        return 1;
    if (*p == '\n' || x->conn->crlf)
        return 400;
    if (x->n - x->start < 2)
        return 0;
    if (p[1] != '\n')
        return 400;
    x->conn->crlf = true;
    x->start = x->at = x->start + 2;
    if (x->start == x->n)
        return 0;
    return skip_empty_line(x);
}

/* Feeds what is unparsed. Moves x->at. */
static llhttp_errno_t feed(struct ml_exchange *x)
{
    llhttp_errno_t e = llhttp_execute(&x->parser, x->buf + x->at, x->n - x->at);
    if (e == HPE_OK)
        x->at = x->n;
    else if (e == HPE_PAUSED)
        x->at = (size_t)(llhttp_get_error_pos(&x->parser) - x->buf);
    return e;
}

/* Once the target has ended: one space on either side of it (RFC 9112 3), where llhttp takes
 * several, and the line end of HTTP/0.9. */
static bool check_target(struct ml_exchange *x)
{
    struct ml_http_request *req = &x->request;
    struct ml_str target = req->target;
    if (req->method.p || !target.p || target.p + target.n == x->buf + x->at)
        return true;
    req->method = ml_str(x->buf + x->start, (size_t)(target.p - x->buf) - x->start - 1);
    return target.p[target.n] == ' ' && target.p[-2] != ' ';
}

int ml_http1_parse_head(struct ml_exchange *x)
{
    if (x->at == x->n)
        return 0;
    if (x->at == x->start) {
        int r = skip_empty_line(x);
        if (r != 1)
            return r;
    }
    llhttp_errno_t e = feed(x);
    if (e != HPE_OK && e != HPE_PAUSED)
        return refusal(x, e);
    if (!check_target(x))
        return 400;
    if (x->at - x->start > limits(x)->header_bytes)
        return 431;
    return e == HPE_OK ? 0 : ml_http1_check_head(x);
}

/* What was parsed of a body is dropped from the buffer, so that it needs no room of its own. */
int ml_http1_parse_body(struct ml_exchange *x)
{
    size_t from = x->at;
    if (x->message_done)
        return 1;
    if (x->at == x->n)
        return 0;
    if (llhttp_get_errno(&x->parser) == HPE_PAUSED)
        llhttp_resume(&x->parser);
    llhttp_errno_t e = feed(x);
    if (e != HPE_OK && e != HPE_PAUSED)
        return refusal(x, e);
    x->body_wire += x->at - from;
    if (x->body_wire > limits(x)->body_bytes)
        return 413;
    if (e == HPE_PAUSED)
        return 1;
    x->n = x->at = from;
    return 0;
}

/* ---- the buffer ---- */

static void rebase(struct ml_exchange *x, const char *from, const char *to)
{
    struct ml_str *slices[] = {&x->request.method, &x->request.target};
    for (size_t i = 0; i < 2; i++)
        if (slices[i]->p)
            slices[i]->p = to + (slices[i]->p - from);
    for (size_t i = 0; i < x->request.header_count; i++) {
        struct ml_header *h = &x->headers[i];
        h->name.p = to + (h->name.p - from);
        if (h->value.p)
            h->value.p = to + (h->value.p - from);
    }
}

static bool grow(struct ml_exchange *x)
{
    size_t max = limits(x)->header_bytes + HTTP1_BUFFER;
    size_t cap = x->cap > max / 4 ? max : x->cap * 4;
    if (cap <= x->cap)
        return false;
    char *buf = malloc(cap);
    if (!buf)
        return false;
    memcpy(buf, x->buf, x->n);
    rebase(x, x->buf, buf);
    free(x->buf);
    x->buf = buf;
    x->cap = cap;
    return true;
}

bool ml_http1_make_room(struct ml_exchange *x)
{
    if (x->cap - x->n >= HTTP1_ROOM)
        return true;
    if (x->start > 0) {
        rebase(x, x->buf + x->start, x->buf);
        memmove(x->buf, x->buf + x->start, x->n - x->start);
        x->n -= x->start;
        x->at -= x->start;
        x->start = 0;
    }
    return x->cap - x->n >= HTTP1_ROOM || grow(x) || x->n < x->cap;
}
