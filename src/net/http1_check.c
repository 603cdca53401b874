/* The checks of a whole request head on top of llhttp's: version, host, framing, method. Pure; on
 * the server's loop. */
#include "net/http1_internal.h"

/* RFC 3986 host and port characters; what they mean is for codec/path.h. */
static bool host_ok(struct ml_str host)
{
    for (size_t i = 0; i < host.n; i++) {
        char c = host.p[i];
        bool alnum = (c >= '0' && c <= '9') || (ml_lower(c) >= 'a' && ml_lower(c) <= 'z');
        if (!alnum && !(c && strchr("-._~%!$&'()*+;=:[]", c)))
            return false;
    }
    return host.n > 0;
}

static bool digits_only(struct ml_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
    return s.n > 0;
}

struct framing {
    unsigned hosts, lengths, codings;
    bool expects, bad;
};

static void look_at(struct framing *f, const struct ml_header *h)
{
    switch (h->name.n) {
    case 4:
        if (ml_str_ieq(h->name, ML_STR("host"))) {
            f->hosts++;
            f->bad |= !host_ok(h->value);
        }
        break;
    case 6:
        f->expects |= ml_str_ieq(h->name, ML_STR("expect"));
        break;
    case 14:
        if (ml_str_ieq(h->name, ML_STR("content-length"))) {
            f->lengths++;
            f->bad |= !digits_only(h->value);
        }
        break;
    case 17:
        if (ml_str_ieq(h->name, ML_STR("transfer-encoding"))) {
            f->codings++;
            f->bad |= !ml_str_ieq(h->value, ML_STR("chunked"));
        }
        break;
    default:
        break;
    }
}

/* Stricter than RFC 9112 6.3 where two programs could see two different messages. */
int ml_http1_check_head(struct ml_exchange *x)
{
    struct ml_http_request *req = &x->request;
    struct framing f = {.hosts = 0};
    req->headers = x->headers;
    req->minor = x->parser.http_minor;
    if (x->parser.http_major != 1 || req->minor > 1)
        return 505;
    for (size_t i = 0; i < req->header_count; i++) {
        struct ml_header *h = &x->headers[i];
        if (h->value.n && h->value.p[h->value.n - 1] <= ' ')
            h->value = ml_str_trim(h->value); /* llhttp leaves what stands before the line end */
        look_at(&f, h);
    }
    if (f.bad || f.hosts > 1 || (f.hosts == 0 && req->minor == 1))
        return 400;
    if (f.lengths + f.codings > 1 || (f.codings && req->minor == 0))
        return 400;
    if (x->parser.method == HTTP_CONNECT || x->parser.method == HTTP_TRACE)
        return 501;
    if (req->target.p[0] == '*' && (req->target.n > 1 || x->parser.method != HTTP_OPTIONS))
        return 400;
    if (!f.codings && x->parser.content_length > x->conn->server->limits.body_bytes &&
        !x->message_done)
        return 413;
    /* The client may or may not send the body after a final answer (RFC 9110 10.1.1): nothing that
     * follows on this connection can be told apart. */
    if (f.expects && !x->message_done)
        x->keep_alive = x->conn->server->keep_body && x->keep_alive;
    x->is_head = x->parser.method == HTTP_HEAD;
    req->peer = ml_str_z(x->conn->peer);
    return 1;
}
