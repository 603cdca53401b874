/* The life of one connection: read, parse, hand to the handler, answer, linger, close. One exchange
 * at a time, so that answers are in the order of the requests. The only free is in the close
 * callback. Runs on the server's loop. */
#include "net/http1_internal.h"

#include "base/err.h"
#include "base/log.h"

#include <sys/socket.h>

/* ---- reading ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct ml_http1_conn *c = handle->data;
    *buf = uv_buf_init(NULL, 0);
    if (c->phase == HTTP1_LAST) {
        *buf = uv_buf_init(c->server->scratch, sizeof c->server->scratch);
        return;
    }
    struct ml_exchange *x = c->x ? c->x : ml_http1_take_exchange(c);
    if (x)
        *buf = uv_buf_init(x->buf + x->n, (unsigned)(x->cap - x->n));
}

static void on_eof(struct ml_http1_conn *c)
{
    c->eof = true;
    c->reading = false; /* libuv has stopped */
    ml_http1_run(c);    /* a half-close after a whole request is legal: it is still answered */
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct ml_http1_conn *c = stream->data;
    if (n == UV_EOF) {
        on_eof(c);
    } else if (n < 0) { /* reset, or no memory for a buffer (UV_ENOBUFS) */
        ml_http1_close(c);
    } else if (c->phase == HTTP1_LAST) {
        c->lingered += (size_t)n;
        if (c->lingered > HTTP1_LINGER)
            ml_http1_close(c);
    } else {
        c->x->n += (size_t)n;
        ml_http1_run(c);
    }
}

static int set_reading(struct ml_http1_conn *c, bool on)
{
    int r = 0;
    if (on == c->reading || (on && c->eof))
        return 0;
    if (on)
        r = uv_read_start(&c->uv.stream, on_alloc, on_read);
    else
        uv_read_stop(&c->uv.stream);
    c->reading = on;
    return r;
}

/* ---- one step: true when there may be another ---- */

/* The server's own answer to what it does not take; nothing after it is parsed. */
static void refuse(struct ml_http1_conn *c, int status)
{
    c->server->stats.rejected++;
    c->phase = HTTP1_LAST;
    if (!ml_http1_write_error(c, status))
        ml_http1_close(c);
}

static bool dispatch(struct ml_http1_conn *c)
{
    struct ml_http_server *s = c->server;
    struct ml_exchange *x = c->x;
    if (s->keep_body)
        x->request.body = ml_buf_str(&x->body);
    c->phase = HTTP1_PENDING;
    x->pending = true;
    s->handler(s->ctx, x, &x->request);
    return true;
}

static bool step_head(struct ml_http1_conn *c)
{
    int r = ml_http1_parse_head(c->x);
    if (r > 1) {
        refuse(c, r);
    } else if (r == 1) {
        c->server->stats.requests++;
        if (!c->server->keep_body)
            return dispatch(c);
        c->phase = HTTP1_KEEP_BODY;
        return true;
    }
    return false;
}

static bool step_keep_body(struct ml_http1_conn *c)
{
    int r = ml_http1_parse_body(c->x);
    if (r > 1)
        refuse(c, r);
    return r == 1 && dispatch(c);
}

/* The slices of a request are dead: what follows starts a new message. */
static void next_request(struct ml_http1_conn *c)
{
    struct ml_exchange *x = c->x;
    x->start = x->at;
    if (x->start == x->n)
        x->start = x->at = x->n = 0;
    ml_http1_parse_init(x);
    c->crlf = false;
    c->phase = HTTP1_IN_HEAD;
    ml_http1_wait(c, HTTP1_HANDLER); /* leaves the list, so that a new deadline starts */
}

static bool step_skip_body(struct ml_http1_conn *c)
{
    int r = ml_http1_parse_body(c->x);
    if (r == 1)
        next_request(c);
    else if (r > 1)
        c->phase = HTTP1_LAST; /* it is answered already: only close */
    return r == 1;
}

static bool step(struct ml_http1_conn *c)
{
    if (c->sending || !c->x)
        return false; /* the peer takes its answers first */
    switch (c->phase) {
    case HTTP1_IN_HEAD:
        return step_head(c);
    case HTTP1_KEEP_BODY:
        return step_keep_body(c);
    case HTTP1_SKIP_BODY:
        return step_skip_body(c);
    case HTTP1_PENDING:
    case HTTP1_LAST:
        break;
    }
    return false;
}

/* ---- what to wait for ---- */

/* Our FIN first, then the peer's: closing over unread bytes would reset the connection, and the
 * reset can overtake the answer (RFC 9112 9.6). */
static void linger(struct ml_http1_conn *c)
{
    ml_http1_drop_exchange(c);
    if (!c->shut)
        shutdown(c->fd, SHUT_WR);
    c->shut = true;
    if (c->eof || set_reading(c, true) < 0)
        ml_http1_close(c);
    else
        ml_http1_wait(c, HTTP1_LINGERING);
}

static bool has_bytes(const struct ml_http1_conn *c)
{
    return c->x && c->x->n > c->x->start;
}

static void wait_for_bytes(struct ml_http1_conn *c)
{
    bool idle = c->phase == HTTP1_IN_HEAD && !has_bytes(c);
    if (c->eof) { /* idle, or a message that stays incomplete (RFC 9112 8) */
        ml_http1_close(c);
        return;
    }
    if (idle)
        ml_http1_drop_exchange(c);
    else if (!ml_http1_make_room(c->x)) {
        ml_http1_close(c);
        return;
    }
    ml_http1_wait(c, idle ? HTTP1_IDLE : c->phase == HTTP1_IN_HEAD ? HTTP1_HEADER : HTTP1_BODY);
    if (set_reading(c, true) < 0)
        ml_http1_close(c);
}

static void settle(struct ml_http1_conn *c, bool more)
{
    if (ml_http1_flush(c) < 0) {
        ml_http1_close(c);
        return;
    }
    if (c->sending || c->phase == HTTP1_PENDING) {
        ml_http1_wait(c, c->sending ? HTTP1_WRITE : HTTP1_HANDLER);
        if (set_reading(c, c->phase == HTTP1_LAST || !c->x || c->x->n < c->x->cap) < 0)
            ml_http1_close(c);
    } else if (c->phase == HTTP1_LAST) {
        linger(c);
    } else if (more) {
        ml_http1_wait(c, HTTP1_READY);
        set_reading(c, false); /* there may be no room, and its turn comes soon */
    } else {
        wait_for_bytes(c);
    }
}

void ml_http1_run(struct ml_http1_conn *c)
{
    bool more = true;
    if (c->running)
        return; /* a reply inside the handler: the loop below goes on with it */
    c->running = true;
    for (int left = HTTP1_BATCH; more && left > 0 && c->wait != HTTP1_CLOSED; left--) {
        more = step(c);
        if (c->out && c->out->buf.n > HTTP1_FLUSH && ml_http1_flush(c) < 0)
            ml_http1_close(c);
    }
    c->running = false;
    if (c->wait != HTTP1_CLOSED)
        settle(c, more);
}

/* ---- the handler's side ---- */

struct ml_arena *ml_exchange_arena(struct ml_exchange *x)
{
    return &x->arena;
}

void ml_exchange_on_cancel(struct ml_exchange *x, void (*fn)(void *arg), void *arg)
{
    x->on_cancel = fn;
    x->cancel_arg = arg;
}

void ml_exchange_reply(struct ml_exchange *x, const struct ml_http_response *res)
{
    struct ml_http1_conn *c = x->conn;
    if (!x->pending || !c) {
        ml_log_text(ML_LOG_ERROR, "http1: a second answer to one request was dropped");
        return;
    }
    bool close = res->close || !x->keep_alive || c->server->draining;
    bool ok = ml_http1_write_response(x, res, close);
    x->pending = false;
    x->on_cancel = NULL;
    ml_arena_reset(&x->arena);
    if (!ok) {
        ml_http1_close(c);
        return;
    }
    if (close) {
        c->phase = HTTP1_LAST;
    } else if (x->message_done) {
        next_request(c);
    } else {
        c->phase = HTTP1_SKIP_BODY;
        x->request = (struct ml_http_request){.minor = 1};
        x->start = x->at;
    }
    ml_http1_run(c);
}

/* ---- open, expire, close ---- */

static int open_stream(struct ml_http1_conn *c, int fd)
{
    int domain = 0;
    socklen_t n = sizeof domain;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) < 0)
        return ML_E_INVALID;
    uv_loop_t *loop = c->server->loop;
    int r = domain == AF_UNIX ? uv_pipe_init(loop, &c->uv.pipe, 0) : uv_tcp_init(loop, &c->uv.tcp);
    return r < 0 ? ML_E_NOMEM : domain;
}

int ml_http1_open(struct ml_http1_conn *c, int fd)
{
    int domain = open_stream(c, fd);
    if (domain < 0)
        return domain;
    c->uv.handle.data = c;
    c->fd = fd;
    c->server->handles++;
    ml_http1_wait(c, HTTP1_IDLE);
    int r = domain == AF_UNIX ? uv_pipe_open(&c->uv.pipe, fd) : uv_tcp_open(&c->uv.tcp, fd);
    if (r < 0) {
        ml_http1_close(c);
        return ML_E_INVALID; /* fd is still the caller's */
    }
    if (set_reading(c, true) < 0)
        ml_http1_close(c);
    return 0;
}

void ml_http1_expire(struct ml_http1_conn *c)
{
    bool owes = c->wait == HTTP1_HEADER || (c->wait == HTTP1_BODY && c->phase == HTTP1_KEEP_BODY);
    if (owes)
        refuse(c, 408);
    else if (c->wait == HTTP1_BODY)
        c->phase = HTTP1_LAST;
    else
        ml_http1_close(c);
    if (c->wait != HTTP1_CLOSED)
        settle(c, false);
}

static void on_closed(uv_handle_t *handle)
{
    ml_http1_gone(handle->data);
}

void ml_http1_close(struct ml_http1_conn *c)
{
    if (c->wait == HTTP1_CLOSED)
        return;
    ml_http1_wait(c, HTTP1_CLOSED);
    uv_close(&c->uv.handle, on_closed);
    struct ml_exchange *x = c->x;
    if (x && x->pending) {
        void (*fn)(void *arg) = x->on_cancel;
        x->pending = false;
        x->on_cancel = NULL;
        if (fn)
            fn(x->cancel_arg);
    }
}
