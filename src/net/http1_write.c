/* Responses to bytes, and the bytes to the socket. Answers of one wake-up are collected in one
 * buffer and sent by one write; only what the socket does not take at once goes through libuv's
 * queue. Runs on the server's loop. */
#include "net/http1_internal.h"

#include "base/clock.h"
#include "base/err.h"
#include "codec/header.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>

struct reason {
    int status;
    const char *phrase;
};

static const struct reason reasons[] = {
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {206, "Partial Content"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {422, "Unprocessable Content"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
};

/* A reason phrase may be empty (RFC 9112 4). */
static struct ml_str phrase_of(int status)
{
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
        if (reasons[i].status == status)
            return ml_str_z(reasons[i].phrase);
    return ML_STR("");
}

/* IMF-fixdate (RFC 9110 5.6.7), made once a second. */
static struct ml_str date_line(struct ml_http_server *s)
{
    static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                         "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    uint64_t now = uv_now(s->loop);
    if (s->date_n == 0 || now >= s->date_until) {
        int64_t wall = ml_wall_ms();
        time_t seconds = (time_t)(wall / 1000);
        struct tm t;
        gmtime_r(&seconds, &t);
        int n = snprintf(s->date, sizeof s->date, "Date: %s, %02d %s %04d %02d:%02d:%02d GMT\r\n",
                         days[t.tm_wday], t.tm_mday, months[t.tm_mon], t.tm_year + 1900, t.tm_hour,
                         t.tm_min, t.tm_sec);
        s->date_n = n > 0 && (size_t)n < sizeof s->date ? (size_t)n : 0;
        s->date_until = now + 1000 - (uint64_t)(wall % 1000);
    }
    return ml_str(s->date, s->date_n);
}

/* Fields that say how the message is framed: only this file writes them. */
static bool is_framing(struct ml_str name)
{
    switch (name.n) {
    case 4:
        return ml_str_ieq(name, ML_STR("date"));
    case 10:
        return ml_str_ieq(name, ML_STR("connection"));
    case 14:
        return ml_str_ieq(name, ML_STR("content-length"));
    case 17:
        return ml_str_ieq(name, ML_STR("transfer-encoding"));
    default:
        return false;
    }
}

static bool valid(const struct ml_http_response *res)
{
    if (res->status < 200 || res->status > 599 || res->header_count > HTTP1_RESPONSE_HEADERS)
        return false;
    for (size_t i = 0; i < res->header_count; i++)
        if (!ml_header_name_ok(res->headers[i].name) || is_framing(res->headers[i].name) ||
            !ml_header_value_ok(res->headers[i].value))
            return false;
    return true;
}

/* No check of room: response_bound() came before. */
static inline char *put(char *at, struct ml_str s)
{
    if (s.n)
        memcpy(at, s.p, s.n);
    return at + s.n;
}

static char *put_number(char *at, size_t number)
{
    char digits[20];
    size_t n = 0;
    do
        digits[n++] = (char)('0' + number % 10);
    while (number /= 10);
    while (n)
        *at++ = digits[--n];
    return at;
}

/* An upper bound of the bytes that a response takes; 0 when it is over the bound of one answer. */
static size_t response_bound(const struct ml_http_response *res)
{
    size_t n = 256;
    for (size_t i = 0; i < res->header_count; i++)
        n += res->headers[i].name.n + res->headers[i].value.n + 4;
    return res->body.n > HTTP1_OUT - n ? 0 : n + res->body.n;
}

struct shape {
    bool head;     /* answer to HEAD: no body */
    bool close;    /* say "close" */
    bool old_keep; /* HTTP/1.0 that stays open must be told so */
};

static char *put_response(char *at, const struct ml_http_response *res, struct ml_str date,
                          struct shape shape)
{
    bool bare = res->status == 204 || res->status == 304; /* RFC 9110 6.4.1, 8.6 */
    at = put(at, ML_STR("HTTP/1.1 "));
    at = put_number(at, (size_t)res->status);
    *at++ = ' ';
    at = put(at, phrase_of(res->status));
    at = put(at, ML_STR("\r\n"));
    for (size_t i = 0; i < res->header_count; i++) {
        at = put(at, res->headers[i].name);
        at = put(at, ML_STR(": "));
        at = put(at, res->headers[i].value);
        at = put(at, ML_STR("\r\n"));
    }
    at = put(at, date);
    if (!bare) {
        at = put(at, ML_STR("Content-Length: "));
        at = put_number(at, res->body.n);
        at = put(at, ML_STR("\r\n"));
    }
    if (shape.close)
        at = put(at, ML_STR("Connection: close\r\n"));
    else if (shape.old_keep)
        at = put(at, ML_STR("Connection: keep-alive\r\n"));
    at = put(at, ML_STR("\r\n"));
    return bare || shape.head ? at : put(at, res->body);
}

static bool add(struct ml_http1_conn *c, const struct ml_http_response *res, struct shape shape)
{
    size_t bound = response_bound(res);
    struct ml_http1_out *out = c->out ? c->out : ml_http1_take_out(c);
    if (!out || !bound || !ml_buf_reserve(&out->buf, bound))
        return false;
    char *at = out->buf.p + out->buf.n;
    char *end = put_response(at, res, date_line(c->server), shape);
    out->buf.n += (size_t)(end - at);
    return true;
}

bool ml_http1_write_response(struct ml_exchange *x, const struct ml_http_response *res, bool close)
{
    static const struct ml_header no_store = {{"Cache-Control", 13}, {"no-store", 8}};
    static const struct ml_http_response broken = {
        .status = 500, .headers = &no_store, .header_count = 1};
    struct shape shape = {
        .head = x->is_head, .close = close, .old_keep = !close && x->request.minor == 0};
    return add(x->conn, valid(res) && response_bound(res) ? res : &broken, shape);
}

bool ml_http1_write_error(struct ml_http1_conn *c, int status)
{
    static const struct ml_header headers[] = {
        {{"Content-Type", 12}, {"text/plain; charset=utf-8", 25}},
        {{"Cache-Control", 13}, {"no-store", 8}},
    };
    char body[64];
    int n = snprintf(body, sizeof body, "%.*s\n", ML_FMT(phrase_of(status)));
    struct ml_http_response res = {
        .status = status, .headers = headers, .header_count = 2, .body = {body, (size_t)n}};
    bool head = c->x && c->x->parser.method == HTTP_HEAD;
    return add(c, &res, (struct shape){.close = true, .head = head});
}

static void on_written(uv_write_t *req, int status)
{
    struct ml_http1_conn *c = req->data;
    ml_http1_drop_out(c->server, c->sending);
    c->sending = NULL;
    if (c->wait == HTTP1_CLOSED)
        return;
    if (status < 0)
        ml_http1_close(c);
    else
        ml_http1_run(c);
}

/* A reply that comes meanwhile is collected in another buffer: libuv points into this one. */
static int queue(struct ml_http1_conn *c, size_t done)
{
    struct ml_http1_out *out = c->out;
    uv_buf_t rest = uv_buf_init(out->buf.p + done, (unsigned)(out->buf.n - done));
    out->req.data = c;
    if (uv_write(&out->req, &c->uv.stream, &rest, 1, on_written) < 0)
        return ML_E_IO;
    c->sending = out;
    c->out = NULL;
    return 0;
}

int ml_http1_flush(struct ml_http1_conn *c)
{
    struct ml_http1_out *out = c->out;
    if (!out || c->sending)
        return 0;
    /* libuv's queue is empty here. send(2) is cheaper than its write(2), and raises no SIGPIPE. */
    ssize_t sent = send(c->fd, out->buf.p, out->buf.n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN && errno != EINTR)
        return ML_E_IO;
    size_t done = sent > 0 ? (size_t)sent : 0;
    if (done < out->buf.n)
        return queue(c, done);
    c->out = NULL;
    ml_http1_drop_out(c->server, out);
    return 0;
}
