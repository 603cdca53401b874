/* The HTTP/1.1 server over a socket pair: the first byte seeds the cuts, the rest is what a client
 * sends. The outcome must not depend on the cuts, and nothing reaches the handler after a refusal.
 */
#include "fuzz.h"

#include "net/http1.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static struct {
    uv_loop_t loop;
    struct ml_http_server *server;
    struct ml_exchange *held;
    bool hold; /* keep each exchange for a turn of the loop */
} one;

struct outcome {
    uint64_t handled, rejected;
    uint64_t sum; /* of the bytes of all targets and fields */
};
static struct outcome now;

static void add_sum(struct ml_str s)
{
    for (size_t i = 0; i < s.n; i++)
        now.sum = now.sum * 31 + (unsigned char)s.p[i];
    now.sum = now.sum * 31 + 257;
}

static void look(struct ml_str s, bool spaces)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        ML_REQUIRE(c > 0x20 || (spaces && (c == ' ' || c == '\t')));
        ML_REQUIRE(c != 0x7f);
    }
    add_sum(s);
}

static void answer(struct ml_exchange *x)
{
    struct ml_http_response res = {.status = 200, .body = ML_STR("ok")};
    ml_exchange_reply(x, &res);
}

static void on_cancel(void *arg)
{
    one.held = NULL;
}

static void handle(void *ctx, struct ml_exchange *x, const struct ml_http_request *req)
{
    now.handled++;
    ML_REQUIRE(ml_http_server_stats(one.server).rejected == 0);
    ML_REQUIRE(req->method.n && req->target.n && req->minor <= 1);
    look(req->method, false);
    look(req->target, false);
    for (size_t i = 0; i < req->header_count; i++) {
        ML_REQUIRE(req->headers[i].name.n);
        look(req->headers[i].name, false);
        look(req->headers[i].value, true);
    }
    add_sum(req->body);
    if (!one.hold) {
        answer(x);
        return;
    }
    ML_REQUIRE(!one.held);
    one.held = x;
    ml_exchange_on_cancel(x, on_cancel, NULL);
}

static void start(bool keep_body)
{
    struct ml_http_options o = {.loop = &one.loop, .handler = handle, .keep_body = keep_body};
    signal(SIGPIPE, SIG_IGN);
    ML_REQUIRE(uv_loop_init(&one.loop) == 0);
    ML_REQUIRE(ml_http_server_new(&one.server, &o) == 0);
}

static void turn(int peer)
{
    char sink[4096];
    for (int quiet = 0; quiet < 2;) {
        uv_run(&one.loop, UV_RUN_NOWAIT);
        quiet++;
        if (one.held) {
            struct ml_exchange *x = one.held;
            one.held = NULL;
            answer(x);
            quiet = 0;
        }
        if (recv(peer, sink, sizeof sink, MSG_DONTWAIT) > 0)
            quiet = 0;
    }
}

/* How a run differs from the others, which must not be seen. */
struct manner {
    bool keep_body, hold;
    unsigned cuts; /* seed; 0: all in one write */
};

static struct outcome run(const uint8_t *data, size_t size, struct manner manner)
{
    int fds[2];
    start(manner.keep_body);
    now = (struct outcome){.handled = 0};
    one.hold = manner.hold;
    ML_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    ml_http_server_adopt(one.server, fds[1], "fuzz");
    for (size_t at = 0; at < size;) {
        size_t n = manner.cuts ? 1 + (size_t)rand_r(&manner.cuts) % 40 : size - at;
        if (n > size - at)
            n = size - at;
        ssize_t sent = send(fds[0], data + at, n, MSG_NOSIGNAL);
        turn(fds[0]);
        if (sent < 0)
            break;
        at += (size_t)sent;
    }
    shutdown(fds[0], SHUT_WR);
    turn(fds[0]);
    close(fds[0]);
    now.rejected = ml_http_server_stats(one.server).rejected;
    ml_http_server_close(one.server, NULL, NULL);
    uv_run(&one.loop, UV_RUN_DEFAULT);
    ML_REQUIRE(uv_loop_close(&one.loop) == 0);
    ML_REQUIRE(!one.held);
    return now;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > 8192)
        return 0;
    for (int keep = 0; keep < 2; keep++) {
        unsigned seed = data[0] + 1U;
        struct outcome whole = run(data + 1, size - 1, (struct manner){.keep_body = keep});
        struct outcome cut = run(data + 1, size - 1, (struct manner){keep, false, seed});
        struct outcome held = run(data + 1, size - 1, (struct manner){keep, true, seed});
        ML_REQUIRE(whole.handled == cut.handled && whole.handled == held.handled);
        ML_REQUIRE(whole.rejected == cut.rejected && whole.rejected == held.rejected);
        ML_REQUIRE(whole.sum == cut.sum && whole.sum == held.sum);
    }
    return 0;
}
