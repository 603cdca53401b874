/* Connections: order, deadlines, half-close, cancel, bodies, drain and what is written. S-129 to
 * S-132, S-280 to S-287, S-443, S-444. */
#include "c/net/http1_harness.h"
#include "net/http1_internal.h"

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"
#define POST(path, more) "POST " path " HTTP/1.1\r\nHost: a\r\n" more

static struct ml_http_limits quick(void)
{
    struct ml_http_limits l = ml_http_default_limits;
    l.header_ms = l.idle_ms = l.body_ms = l.write_ms = 5000;
    return l;
}

/* Writes without running the loop. */
static void put(struct fixture *f, const char *text)
{
    assert_int_equal(write(f->peer, text, strlen(text)), strlen(text));
}

/* ---- order and pipelining ---- */

static void late_answers(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    dial(f);
    say_z(f, GET("/later1") GET("/ok") GET("/later2"));
    assert_string_equal(f->targets, "/later1 ");
    assert_int_equal(f->in_n, 0);
    reply_text(f->held[0], 201, ML_STR("one"));
    pump(f);
    assert_string_equal(f->targets, "/later1 /ok /later2 ");
    expect_answers(f, "201 200 ");
    reply_text(f->held[1], 403, ML_STR("no"));
    pump(f);
    expect_answers(f, "201 200 403 ");
    assert_false(f->saw_eof);
    fixture_free(f);
}

/* S-131: one write, four requests, nothing of one in another's answer. */
static void no_state_leaks(void **state)
{
    static const char *const requests[] = {
        "GET /user1 HTTP/1.1\r\nHost: a\r\nAuthorization: alice\r\n\r\n",
        "GET /user2 HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /user3 HTTP/1.1\r\nHost: a\r\nAuthorization: bob\r\nContent-Length: 2\r\n\r\nxy",
        "GET /user4 HTTP/1.1\r\nHost: a\r\nCookie: bad\r\n\r\n",
    };
    static const char *const answers[] = {"alice", NULL, "bob", NULL};
    struct fixture *f = fixture_new(NULL, false);
    unsigned seed = 1;
    for (int round = 0; round < 1000; round++) {
        char bytes[4096] = "", want[256] = "", got[256] = "";
        for (int i = 0; i < 6; i++) {
            int k = rand_r(&seed) % 4;
            strcat(bytes, requests[k]);
            strcat(want, answers[k] ? answers[k] : "401");
            strcat(want, " ");
        }
        dial(f);
        size_t cut = (size_t)rand_r(&seed) % strlen(bytes);
        say(f, bytes, cut);
        say_z(f, bytes + cut);
        for (const char *at = f->in; (at = strstr(at, "HTTP/1.1 ")); at++) {
            const char *end = strstr(at, "\r\n\r\n"), *user = strstr(at, "X-User: ");
            size_t used = strlen(got);
            if (user && user < end)
                snprintf(got + used, sizeof got - used, "%.*s ", (int)strcspn(user + 8, "\r"),
                         user + 8);
            else
                snprintf(got + used, sizeof got - used, "%.3s ", at + 9);
        }
        assert_string_equal(got, want);
    }
    fixture_free(f);
}

/* S-281: a long pipeline is answered in turns of 64; what is sent while one waits is bounded. */
static void long_pipeline(void **state)
{
    struct ml_http_limits l = quick();
    l.header_bytes = 16384;
    struct fixture *f = fixture_new(&l, false);
    dial(f);
    char *bytes = ml_xmalloc(400 * 64);
    bytes[0] = 0;
    for (int i = 0; i < 400; i++)
        strcat(bytes, GET("/"));
    assert_int_equal(write(f->peer, bytes, strlen(bytes)), strlen(bytes));
    uv_run(&f->loop, UV_RUN_NOWAIT);
    assert_in_range(f->handled, 1, 128); /* a read may come twice in one turn of the loop */
    pump(f);
    assert_int_equal(f->handled, 400);
    free(bytes);
    fixture_free(f);
}

static void bounded_while_pending(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    size_t sent = 0;
    dial(f);
    say_z(f, GET("/later"));
    for (int i = 0; i < 100000; i++) {
        ssize_t n = write(f->peer, GET("/x"), strlen(GET("/x")));
        pump(f);
        if (n < 0)
            break;
        sent += (size_t)n;
    }
    assert_int_equal(errno, EAGAIN); /* the server does not read on and on */
    assert_int_equal(f->handled, 1);
    reply_text(f->held[0], 200, ML_STR("x"));
    for (int i = 0; i < 100; i++)
        pump(f);
    assert_int_equal(f->handled, 1 + sent / strlen(GET("/x")));
    fixture_free(f);
}

/* ---- the peer's end ---- */

static void half_close(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    dial(f);
    put(f, GET("/a") GET("/b"));
    shutdown(f->peer, SHUT_WR);
    pump(f);
    expect_answers(f, "200 200 ");
    assert_true(f->saw_eof);

    dial(f);
    say_z(f, GET("/later") GET("/b"));
    shutdown(f->peer, SHUT_WR);
    pump(f);
    assert_int_equal(f->cancelled, 0);
    assert_int_equal(f->in_n, 0);
    reply_text(f->held[0], 200, ML_STR("x"));
    pump(f);
    expect_answers(f, "200 200 ");
    assert_true(f->saw_eof);

    dial(f);
    say_z(f, "GET / HTTP/1.1\r\nHo");
    shutdown(f->peer, SHUT_WR);
    pump(f);
    assert_int_equal(f->in_n, 0);
    assert_true(f->saw_eof);
    assert_int_equal(ml_http_server_connections(f->server), 0);
    fixture_free(f);
}

static void tcp_pair(int fds[2])
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

static void dial_tcp(struct fixture *f)
{
    int fds[2];
    hang_up(f);
    forget(f);
    tcp_pair(fds);
    f->peer = fds[0];
    ml_http_server_adopt(f->server, fds[1], "127.0.0.1");
}

static void reset_cancels(void **state)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};
    struct fixture *f = fixture_new(NULL, false);
    dial_tcp(f);
    say_z(f, GET("/later"));
    assert_int_equal(f->handled, 1);
    setsockopt(f->peer, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    hang_up(f);
    pump(f);
    assert_int_equal(f->cancelled, 1);
    assert_int_equal(ml_http_server_connections(f->server), 0);
    fixture_free(f);
}

/* The peer is gone by FIN and the answer cannot be written: no crash, nothing left. */
static void answer_to_nobody(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    for (int tcp = 0; tcp < 2; tcp++) {
        if (tcp)
            dial_tcp(f);
        else
            dial(f);
        say_z(f, GET("/later") GET("/later"));
        hang_up(f);
        pump(f);
        if (f->cancelled == 0)
            reply_text(f->held[0], 200, ML_STR("x"));
        pump(f);
        f->cancelled = 0;
    }
    ml_http_server_close(f->server, note_closed, f);
    f->server = NULL;
    fixture_free(f);
}

static void close_cancels(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    dial(f);
    say_z(f, GET("/later"));
    ml_http_server_close(f->server, note_closed, f);
    assert_int_equal(f->cancelled, 1);
    reply_text(f->held[0], 200, ML_STR("late")); /* dropped: the exchange is dead */
    f->server = NULL;
    uv_run(&f->loop, UV_RUN_DEFAULT);
    receive(f);
    assert_int_equal(f->in_n, 0);
    fixture_free(f);
}

static void close_in_handler(void *ctx, struct ml_exchange *x, const struct ml_http_request *req)
{
    struct fixture *f = ctx;
    f->handled++;
    ml_exchange_on_cancel(x, on_cancel, f);
    ml_http_server_close(f->server, note_closed, f);
    reply_text(x, 200, ML_STR("x"));
}

static void closed_by_handler(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    struct ml_http_server *spare = f->server;
    struct ml_http_options o = {.loop = &f->loop, .handler = close_in_handler, .ctx = f};
    ml_http_server_close(spare, NULL, NULL);
    assert_int_equal(ml_http_server_new(&f->server, &o), 0);
    dial(f);
    say_z(f, GET("/a") GET("/b"));
    assert_int_equal(f->handled, 1);
    assert_int_equal(f->cancelled, 1);
    f->server = NULL;
    fixture_free(f);
}

static void second_answer(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    dial(f);
    say_z(f, GET("/later"));
    reply_text(f->held[0], 200, ML_STR("x"));
    reply_text(f->held[0], 403, ML_STR("y"));
    pump(f);
    expect_answers(f, "200 ");
    fixture_free(f);
}

/* ---- bodies ---- */

/* The answer does not wait for the body, the next request does. */
static void body_after_answer(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    dial(f);
    say_z(f, POST("/a", "Content-Length: 10\r\n\r\n") "12345");
    expect_answers(f, "200 ");
    say_z(f, "67890" GET("/b"));
    expect_answers(f, "200 200 ");
    say_z(f, POST("/later", "Content-Length: 50000\r\n\r\n"));
    char *body = ml_xcalloc(1, 50000);
    ssize_t n = write(f->peer, body, 50000);
    assert_int_equal(n, 50000);
    pump(f);
    reply_text(f->held[0], 403, ML_STR("no"));
    pump(f);
    say_z(f, GET("/c"));
    expect_answers(f, "200 200 403 200 ");
    assert_string_equal(f->targets, "/a /b /later /c ");
    free(body);
    fixture_free(f);
}

/* S-132: a body without end is cut off after its limit. */
static void endless_body(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    char chunk[1031];
    memset(chunk, 'x', sizeof chunk);
    memcpy(chunk, "400\r\n", 5);
    memcpy(chunk + sizeof chunk - 2, "\r\n", 2);
    dial(f);
    say_z(f, POST("/a", "Transfer-Encoding: chunked\r\n\r\n"));
    size_t sent = 0;
    while (sent < 64 << 20 && say(f, chunk, sizeof chunk))
        sent += sizeof chunk;
    expect_answers(f, "200 ");
    assert_true(f->saw_eof);
    assert_in_range(sent, 64 * 1024 - sizeof chunk, 1 << 20);
    fixture_free(f);
}

/* ---- deadlines ---- */

/* Feeds a byte every 20 ms; the connection must be gone after about `ms`. */
static void drip(struct fixture *f, const char *bytes, unsigned ms)
{
    uv_update_time(&f->loop);
    uint64_t start = uv_now(&f->loop);
    for (size_t i = 0; bytes[i % strlen(bytes)] && !f->saw_eof; i++) {
        if (write(f->peer, bytes + i % strlen(bytes), 1) < 0 && errno != EPIPE)
            break;
        pump_ms(f, 20);
        assert_true(uv_now(&f->loop) - start < ms * 3 + 1000);
    }
    assert_true(uv_now(&f->loop) - start >= ms - 1);
}

static void slow_header(void **state)
{
    struct ml_http_limits l = quick();
    l.header_ms = 200;
    struct fixture *f = fixture_new(&l, false);
    dial(f);
    say_z(f, GET("/a") "GET / HTTP/1.1\r\nHost: a\r\n");
    drip(f, "A: b\r\n", 200);
    expect_answers(f, "200 408 close ");
    assert_int_equal(f->handled, 1);

    dial(f); /* no byte came: no answer is owed, and idle_ms counts */
    pump_ms(f, 300);
    assert_false(f->saw_eof);
    fixture_free(f);
}

static void idle_deadline(void **state)
{
    struct ml_http_limits l = quick();
    l.idle_ms = 200;
    struct fixture *f = fixture_new(&l, false);
    dial(f);
    pump_ms(f, 100);
    say_z(f, GET("/a"));
    pump_ms(f, 150);
    assert_false(f->saw_eof);
    pump_ms(f, 200);
    assert_true(f->saw_eof);
    expect_answers(f, "200 ");
    fixture_free(f);
}

static void empty_lines_do_not_live(void **state)
{
    struct ml_http_limits l = quick();
    l.idle_ms = l.header_ms = 200;
    struct fixture *f = fixture_new(&l, false);
    dial(f);
    drip(f, "\r\n", 20);
    expect_answers(f, "400 close ");
    fixture_free(f);
}

/* A loop that stood still (another handler, the machine) has not read what is there: that is no
 * slow peer. One that always stands still keeps its deadlines all the same. */
static void stalled_loop(void **state)
{
    struct ml_http_limits l = quick();
    l.header_ms = 200;
    struct fixture *f = fixture_new(&l, false);
    dial(f);
    say_z(f, "GET / HTTP/1.1\r\n");
    usleep(400000);
    say_z(f, "Host: a\r\n\r\n");
    expect_answers(f, "200 ");
    say_z(f, "GET / HTTP/1.1\r\n");
    for (int i = 0; i < 5; i++) {
        usleep(200000);
        pump(f);
    }
    expect_answers(f, "200 408 close ");
    fixture_free(f);
}

static void slow_body(void **state)
{
    struct ml_http_limits l = quick();
    l.body_ms = 200;
    for (int keep = 0; keep < 2; keep++) {
        struct fixture *f = fixture_new(&l, keep);
        dial(f);
        say_z(f, POST("/a", "Content-Length: 10000\r\n\r\n"));
        drip(f, "x", 200);
        expect_answers(f, keep ? "408 close " : "200 ");
        fixture_free(f);
    }
}

/* S-444: a peer that does not read. */
static void slow_reader(void **state)
{
    struct ml_http_limits l = quick();
    l.write_ms = 200;
    struct fixture *f = fixture_new(&l, false);
    char *big = ml_xcalloc(1, 8 << 20);
    memset(big, 'x', 8 << 20);
    f->answer = (struct ml_http_response){.status = 200, .body = {big, 8 << 20}};
    dial(f);
    put(f, GET("/answer") GET("/never"));
    uint64_t start = uv_now(&f->loop);
    while (ml_http_server_connections(f->server) && uv_now(&f->loop) - start < 2000)
        uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(ml_http_server_connections(f->server), 0);
    assert_in_range(uv_now(&f->loop) - start, 199, 1500);
    assert_int_equal(f->handled, 1); /* back pressure: the next one was not even parsed */
    free(big);
    fixture_free(f);
}

/* A reply while the answer before it is still on its way: both arrive whole. */
static void reply_while_sending(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    char *big = ml_xcalloc(1, 60000);
    int small = 1;
    memset(big, 'x', 60000);
    f->answer = (struct ml_http_response){.status = 200, .body = {big, 60000}};
    dial(f);
    setsockopt(f->server->lists[HTTP1_IDLE].first->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    put(f, GET("/answer") GET("/later") GET("/answer"));
    uv_run(&f->loop, UV_RUN_NOWAIT);
    assert_int_equal(f->held_n, 1);
    assert_int_equal(f->server->lists[HTTP1_WRITE].count, 1);
    memset(big, 'y', 60000);
    reply_text(f->held[0], 403, ml_str(big, 60000));
    assert_int_equal(f->handled, 2);
    pump(f);
    expect_answers(f, "200 403 200 ");
    assert_int_equal(f->handled, 3);
    free(big);
    fixture_free(f);
}

/* A big answer to a peer that reads: all of it, and the next one after it. */
static void big_answer(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    size_t n = 8 << 20, seen = 0;
    char *big = ml_xcalloc(1, n);
    memset(big, 'x', n);
    f->answer = (struct ml_http_response){.status = 200, .body = {big, n}};
    dial(f);
    put(f, GET("/answer") GET("/b"));
    while (!strstr(f->in, "\r\n\r\nok")) {
        uv_run(&f->loop, UV_RUN_NOWAIT);
        f->in_n = 0;
        receive(f);
        seen += f->in_n;
        assert_true(seen < n + 1000);
    }
    assert_true(seen > n + 100);
    free(big);
    fixture_free(f);
}

/* The peer of a refused request never closes: we do. */
static void lingering_ends(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    dial(f);
    say_z(f, "BAD\r\n\r\n");
    assert_true(f->saw_eof);
    assert_int_equal(ml_http_server_connections(f->server), 1);
    for (int i = 0; i < 10; i++)
        (void)!write(f->peer, "more", 4);
    pump_ms(f, 100);
    assert_int_equal(ml_http_server_connections(f->server), 1);
    pump_ms(f, 1500);
    assert_int_equal(ml_http_server_connections(f->server), 0);
    expect_answers(f, "501 close ");
    fixture_free(f);
}

/* The refusal must reach a peer that is still sending (a reset would take it away). */
static void refusal_is_readable(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    char *body = ml_xcalloc(1, 100000);
    dial_tcp(f);
    put(f, POST("/", "Content-Length: 100000\r\n\r\n"));
    (void)!write(f->peer, body, 100000);
    for (int i = 0; i < 20; i++)
        uv_run(&f->loop, UV_RUN_NOWAIT);
    while (receive(f) && !f->saw_eof)
        uv_run(&f->loop, UV_RUN_NOWAIT);
    assert_false(f->saw_reset);
    expect_answers(f, "413 close ");
    free(body);
    fixture_free(f);
}

/* ---- bounds and drain ---- */

static void bound_of_connections(void **state)
{
    struct ml_http_limits l = quick();
    l.connections = 2;
    struct fixture *f = fixture_new(&l, false);
    int fds[2];
    dial(f);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    ml_http_server_adopt(f->server, fds[1], "x");
    int kept = f->peer;
    f->peer = -1;
    dial(f);
    pump(f);
    assert_true(f->saw_eof);
    assert_int_equal(ml_http_server_connections(f->server), 2);
    close(fds[0]);
    close(kept);
    pump(f);
    dial(f);
    say_z(f, GET("/a"));
    expect_answers(f, "200 ");
    assert_int_equal(ml_http_server_stats(f->server).accepted, 3);
    fixture_free(f);
}

static void bad_descriptor(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    ml_http_server_adopt(f->server, file, "x");
    assert_int_equal(fcntl(file, F_GETFD), -1);
    ml_http_server_adopt(f->server, -1, "x");
    assert_int_equal(ml_http_server_connections(f->server), 0);
    fixture_free(f);
}

static void drain(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    int idle, busy, unread;
    dial(f);
    idle = f->peer;
    say_z(f, GET("/a"));
    f->peer = -1;
    dial(f);
    busy = f->peer;
    say_z(f, GET("/later"));
    struct ml_exchange *held = f->held[0];
    f->peer = -1;
    dial(f);
    unread = f->peer;
    put(f, GET("/b"));
    ml_http_server_drain(f->server);
    pump(f);
    expect_answers(f, "200 close ");
    char c;
    assert_int_equal(read(idle, &c, 1), 0);
    f->peer = busy;
    forget(f);
    reply_text(held, 200, ML_STR("x"));
    pump(f);
    expect_answers(f, "200 close ");
    close(idle);
    close(unread);
    hang_up(f);
    pump(f);
    assert_int_equal(ml_http_server_connections(f->server), 0);
    dial(f);
    say_z(f, GET("/c"));
    expect_answers(f, "200 close ");
    fixture_free(f);
}

/* S-443: a connection that says nothing holds its own struct only: one exchange went round. */
static void idle_is_cheap(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    int kept[50];
    for (size_t i = 0; i < 50; i++) {
        dial(f);
        say_z(f, GET("/a"));
        say_z(f, "\r\n"); /* an empty line is nothing either */
        expect_answers(f, "200 ");
        kept[i] = f->peer;
        f->peer = -1;
    }
    assert_int_equal(ml_http_server_connections(f->server), 50);
    assert_int_equal(f->server->lists[HTTP1_IDLE].count, 50);
    assert_int_equal(f->server->exchange_count, 1);
    assert_int_equal(f->server->out_count, 1);
    assert_true(sizeof(struct ml_http1_conn) < 1024);
    for (size_t i = 0; i < 50; i++)
        close(kept[i]);
    fixture_free(f);
}

/* A burst of long heads does not stay in memory. */
static void large_buffers_go(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    char *value = ml_xcalloc(1, 20001);
    memset(value, 'x', 20000);
    dial(f);
    say_z(f, "GET / HTTP/1.1\r\nHost: a\r\nA: ");
    say(f, value, 20000);
    assert_true(f->server->lists[HTTP1_HEADER].first->x->cap > HTTP1_BUFFER_KEEP);
    say_z(f, "\r\n\r\n");
    expect_answers(f, "200 ");
    assert_int_equal(f->server->exchange_count, 0);
    free(value);
    fixture_free(f);
}

/* ---- what is written ---- */

static void answer(struct fixture *f, const char *request, struct ml_http_response res)
{
    f->answer = res;
    dial(f);
    say_z(f, request);
}

static void shape_of_answers(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    struct ml_header h = {ML_STR("X-A"), ML_STR("b")};
    answer(f, GET("/answer"),
           (struct ml_http_response){
               .status = 200, .headers = &h, .header_count = 1, .body = ML_STR("hi")});
    char *date = strstr(f->in, "Date: ");
    assert_non_null(date);
    assert_non_null(strstr(date, " GMT\r\n"));
    assert_int_equal(strcspn(date, "\r"), strlen("Date: Tue, 15 Nov 1994 08:12:31 GMT"));
    memset(date, 'D', strcspn(date, "\r"));
    assert_string_equal(f->in,
                        "HTTP/1.1 200 OK\r\nX-A: b\r\nDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDD\r\n"
                        "Content-Length: 2\r\n\r\nhi");
    static const int bare[] = {204, 304};
    for (size_t i = 0; i < 2; i++) {
        answer(f, GET("/answer") GET("/b"),
               (struct ml_http_response){.status = bare[i], .body = ML_STR("hi")});
        char *end = strstr(f->in, "\r\n\r\n");
        assert_true(strstr(f->in, "Content-Length") > end);
        assert_true(strncmp(end + 4, "HTTP/1.1 200 OK\r\n", 17) == 0);
    }
    answer(f, "HEAD /answer HTTP/1.1\r\nHost: a\r\n\r\n",
           (struct ml_http_response){.status = 200, .body = ML_STR("hello")});
    assert_non_null(strstr(f->in, "Content-Length: 5\r\n\r\n"));
    assert_string_equal(strstr(f->in, "\r\n\r\n"), "\r\n\r\n");
    answer(f, GET("/answer"), (struct ml_http_response){.status = 299, .body = ML_STR("")});
    assert_true(strncmp(f->in, "HTTP/1.1 299 \r\n", 15) == 0);
    assert_non_null(strstr(f->in, "Content-Length: 0\r\n\r\n"));
    answer(f, GET("/answer") GET("/b"), (struct ml_http_response){.status = 200, .close = true});
    expect_answers(f, "200 close ");
    answer(f, "GET /answer HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
           (struct ml_http_response){.status = 200});
    assert_non_null(strstr(f->in, "\r\nConnection: keep-alive\r\n"));
    fixture_free(f);
}

/* S-270: never a malformed answer. */
#define BADH(name, value)                                                                          \
    {                                                                                              \
        {name, sizeof(name) - 1},                                                                  \
        {                                                                                          \
            value, sizeof(value) - 1                                                               \
        }                                                                                          \
    }
static void broken_answers(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    static const struct ml_header bad[] = {
        BADH("", "x"),
        BADH("A B", "x"),
        BADH("A:", "x"),
        BADH("A\r\nB", "x"),
        BADH("A", "x\r\nSet-Cookie: y"),
        BADH("A", "x\ny"),
        BADH("A", "x\ry"),
        BADH("A", "x\0y"),
        BADH("A", " x"),
        BADH("Content-Length", "1"),
        BADH("transfer-encoding", "chunked"),
        BADH("Connection", "close"),
        BADH("Date", "x"),
    };
    static const int statuses[] = {-1, 0, 100, 101, 199, 600, 1000};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        answer(f, GET("/answer") GET("/b"),
               (struct ml_http_response){
                   .status = 200, .headers = &bad[i], .header_count = 1, .body = ML_STR("x")});
        expect_answers(f, "500 200 ");
        assert_null(strstr(f->in, "Set-Cookie"));
    }
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        answer(f, GET("/answer"),
               (struct ml_http_response){.status = statuses[i], .body = ML_STR("secret")});
        expect_answers(f, "500 ");
        assert_null(strstr(f->in, "secret"));
    }
    struct ml_header many[101];
    for (int i = 0; i < 101; i++)
        many[i] = (struct ml_header){ML_STR("A"), ML_STR("b")};
    for (size_t n = 99; n <= 101; n++) {
        answer(f, GET("/answer"),
               (struct ml_http_response){.status = 200, .headers = many, .header_count = n});
        expect_answers(f, n > 100 ? "500 " : "200 ");
    }
    fixture_free(f);
}

static void refusals(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    dial(f);
    say_z(f, "GET / HTTP/1.1\r\n\r\n");
    assert_non_null(strstr(f->in, "\r\nContent-Type: text/plain; charset=utf-8\r\n"));
    assert_non_null(strstr(f->in, "\r\nCache-Control: no-store\r\n"));
    assert_non_null(strstr(f->in, "\r\nConnection: close\r\n"));
    assert_non_null(strstr(f->in, "\r\nDate: "));
    assert_null(strstr(f->in, "Server:"));
    assert_string_equal(strstr(f->in, "\r\n\r\n"), "\r\n\r\nBad Request\n");
    assert_int_equal(ml_http_server_stats(f->server).rejected, 1);
    dial(f);
    say_z(f, "HEAD / HTTP/1.1\r\n\r\n");
    assert_string_equal(strstr(f->in, "\r\n\r\n"), "\r\n\r\n");
    assert_int_equal(ml_http_server_stats(f->server).requests, 0);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(late_answers),
        cmocka_unit_test(no_state_leaks),
        cmocka_unit_test(long_pipeline),
        cmocka_unit_test(bounded_while_pending),
        cmocka_unit_test(half_close),
        cmocka_unit_test(reset_cancels),
        cmocka_unit_test(answer_to_nobody),
        cmocka_unit_test(close_cancels),
        cmocka_unit_test(closed_by_handler),
        cmocka_unit_test(second_answer),
        cmocka_unit_test(body_after_answer),
        cmocka_unit_test(endless_body),
        cmocka_unit_test(slow_header),
        cmocka_unit_test(idle_deadline),
        cmocka_unit_test(empty_lines_do_not_live),
        cmocka_unit_test(stalled_loop),
        cmocka_unit_test(slow_body),
        cmocka_unit_test(slow_reader),
        cmocka_unit_test(reply_while_sending),
        cmocka_unit_test(big_answer),
        cmocka_unit_test(lingering_ends),
        cmocka_unit_test(refusal_is_readable),
        cmocka_unit_test(bound_of_connections),
        cmocka_unit_test(bad_descriptor),
        cmocka_unit_test(drain),
        cmocka_unit_test(idle_is_cheap),
        cmocka_unit_test(large_buffers_go),
        cmocka_unit_test(shape_of_answers),
        cmocka_unit_test(broken_answers),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
