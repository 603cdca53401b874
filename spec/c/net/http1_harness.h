/* A server on one end of a socket pair and the test on the other, both on this thread: pump() runs
 * the loop until nothing moves, so that the tests need no waiting. */
#pragma once

#include "base/mem.h"
#include "net/http1.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define GET_OF(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"
#define POST_OF(path, more) "POST " path " HTTP/1.1\r\nHost: a\r\n" more

struct fixture {
    uv_loop_t loop;
    struct ml_http_server *server;
    int peer; /* the test's end, -1 when closed */
    bool saw_eof, saw_reset, closed;
    char in[256 * 1024]; /* what the server sent, NUL-terminated */
    size_t in_n;
    unsigned handled;    /* requests that reached the handler */
    char targets[65536]; /* theirs, each with a space after it */
    char heads[32768];   /* the last one's fields, "name=value\n" */
    char method[32], peer_name[64];
    char body[70000];
    size_t body_n;
    int minor;
    struct ml_exchange *held[128]; /* of "/later" */
    unsigned held_n, cancelled;
    struct ml_http_response answer; /* of "/answer" */
};

static inline void on_cancel(void *arg)
{
    struct fixture *f = arg;
    f->cancelled++;
}

static inline void reply_text(struct ml_exchange *x, int status, struct ml_str text)
{
    struct ml_http_response res = {.status = status, .body = text};
    ml_exchange_reply(x, &res);
}

static inline void remember(struct fixture *f, const struct ml_http_request *req)
{
    size_t n = 0, used = strlen(f->targets);
    f->handled++;
    snprintf(f->targets + used, sizeof f->targets - used, "%.*s ", ML_FMT(req->target));
    snprintf(f->method, sizeof f->method, "%.*s", ML_FMT(req->method));
    snprintf(f->peer_name, sizeof f->peer_name, "%.*s", ML_FMT(req->peer));
    f->minor = req->minor;
    for (size_t i = 0; i < req->header_count && n < sizeof f->heads; i++)
        n += (size_t)snprintf(f->heads + n, sizeof f->heads - n, "%.*s=%.*s\n",
                              ML_FMT(req->headers[i].name), ML_FMT(req->headers[i].value));
    f->body_n = req->body.n;
    if (req->body.n)
        memcpy(f->body, req->body.p, req->body.n);
}

static inline void handle(void *ctx, struct ml_exchange *x, const struct ml_http_request *req)
{
    struct fixture *f = ctx;
    remember(f, req);
    if (ml_str_starts(req->target, ML_STR("/later"))) {
        ml_exchange_on_cancel(x, on_cancel, f);
        f->held[f->held_n++] = x;
    } else if (ml_str_starts(req->target, ML_STR("/answer"))) {
        ml_exchange_reply(x, &f->answer);
    } else if (ml_str_starts(req->target, ML_STR("/user"))) {
        struct ml_str user = {NULL, 0};
        for (size_t i = 0; i < req->header_count; i++)
            if (ml_str_ieq(req->headers[i].name, ML_STR("authorization")))
                user = req->headers[i].value;
        struct ml_header h = {ML_STR("X-User"), ml_arena_dup(ml_exchange_arena(x), user)};
        struct ml_http_response res = {
            .status = user.n ? 200 : 401, .headers = &h, .header_count = user.n ? 1 : 0};
        ml_exchange_reply(x, &res);
    } else {
        reply_text(x, 200, ML_STR("ok"));
    }
}

/* limits NULL: the defaults. */
static inline struct fixture *fixture_new(const struct ml_http_limits *limits, bool keep_body)
{
    struct fixture *f = ML_NEW(struct fixture);
    signal(SIGPIPE, SIG_IGN);
    f->peer = -1;
    assert_int_equal(uv_loop_init(&f->loop), 0);
    struct ml_http_options o = {
        .loop = &f->loop, .limits = limits, .handler = handle, .ctx = f, .keep_body = keep_body};
    assert_int_equal(ml_http_server_new(&f->server, &o), 0);
    return f;
}

static inline void hang_up(struct fixture *f)
{
    if (f->peer >= 0)
        close(f->peer);
    f->peer = -1;
}

static inline void note_closed(void *ctx)
{
    ((struct fixture *)ctx)->closed = true;
}

/* Every test ends here: no handle may be left. */
static inline void fixture_free(struct fixture *f)
{
    if (f->server)
        ml_http_server_close(f->server, note_closed, f);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_true(f->closed);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    hang_up(f);
    free(f);
}

static inline void forget(struct fixture *f)
{
    f->saw_eof = f->saw_reset = false;
    f->in_n = 0;
    f->in[0] = 0;
    f->handled = f->held_n = 0;
    f->targets[0] = f->heads[0] = 0;
}

/* A new connection in place of the old one; everything seen is forgotten. */
static inline void dial(struct fixture *f)
{
    int fds[2];
    hang_up(f);
    forget(f);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    f->peer = fds[0];
    ml_http_server_adopt(f->server, fds[1], "192.0.2.1");
}

static inline bool receive(struct fixture *f)
{
    if (f->peer < 0 || f->saw_eof || f->saw_reset)
        return false;
    ssize_t n = read(f->peer, f->in + f->in_n, sizeof f->in - 1 - f->in_n);
    if (n == 0)
        f->saw_eof = true;
    else if (n < 0 && errno != EAGAIN)
        f->saw_reset = true;
    if (n > 0)
        f->in_n += (size_t)n;
    f->in[f->in_n] = 0;
    return n >= 0;
}

static inline void pump(struct fixture *f)
{
    for (int quiet = 0; quiet < 3;) {
        uv_run(&f->loop, UV_RUN_NOWAIT);
        quiet = receive(f) ? 0 : quiet + 1;
    }
}

static inline void pump_ms(struct fixture *f, unsigned ms)
{
    uv_update_time(&f->loop);
    for (uint64_t end = uv_now(&f->loop) + ms; uv_now(&f->loop) < end; usleep(2000))
        pump(f);
}

/* false when the server does not take it (any more). */
static inline bool say(struct fixture *f, const void *bytes, size_t n)
{
    const char *p = bytes;
    while (n) {
        ssize_t wrote = write(f->peer, p, n);
        if (wrote < 0 && errno != EAGAIN)
            return false;
        if (wrote > 0) {
            p += wrote;
            n -= (size_t)wrote;
        }
        pump(f);
    }
    return true;
}

static inline void say_z(struct fixture *f, const char *text)
{
    say(f, text, strlen(text));
}

/* Answers of what was received: "200 " "400 close ", and "?" for bytes that are no answer. HEAD,
 * 204 and 304 have no body; `head` says that all were HEAD. */
static inline void read_answers(const struct fixture *f, bool head, char *out, size_t size)
{
    const char *at = f->in;
    size_t n = 0;
    out[0] = 0;
    while (*at && n + 16 < size) {
        const char *end = strstr(at, "\r\n\r\n");
        int status = 0;
        if (!end || sscanf(at, "HTTP/1.1 %d ", &status) != 1) {
            snprintf(out + n, size - n, "?");
            return;
        }
        const char *length = strstr(at, "\r\nContent-Length: ");
        const char *closes = strstr(at, "\r\nConnection: close");
        n += (size_t)snprintf(out + n, size - n, "%d%s ", status,
                              closes && closes < end ? " close" : "");
        at = end + 4;
        if (!head && length && length < end)
            at += strtoul(length + 18, NULL, 10);
        if (at > f->in + f->in_n) {
            snprintf(out + n, size - n, "short");
            return;
        }
    }
}

static inline void expect_answers(const struct fixture *f, const char *expected)
{
    char got[4096];
    read_answers(f, false, got, sizeof got);
    assert_string_equal(got, expected);
}

static inline struct ml_http_limits quick(void)
{
    struct ml_http_limits l = ml_http_default_limits;
    l.header_ms = l.idle_ms = l.body_ms = l.write_ms = 5000;
    return l;
}

/* Writes without running the loop. */
static inline void put(struct fixture *f, const char *text)
{
    assert_int_equal(write(f->peer, text, strlen(text)), strlen(text));
}

static inline void tcp_pair(int fds[2])
{
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &n), 0);
    fds[0] = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fds[0], (struct sockaddr *)&a, n), 0);
    fds[1] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(fds[1] >= 0);
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    close(listener);
}

static inline void dial_tcp(struct fixture *f)
{
    int fds[2];
    hang_up(f);
    forget(f);
    tcp_pair(fds);
    f->peer = fds[0];
    ml_http_server_adopt(f->server, fds[1], "127.0.0.1");
}
