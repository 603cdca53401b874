/* Connections: order, half-close, cancel, bodies, bounds and drain. S-129 to S-132, S-281, S-443.
 */
#include "c/net/http1_harness.h"
#include "net/http1_internal.h"

/* ---- order and pipelining ---- */

static void late_answers(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    dial(f);
    say_z(f, GET_OF("/later1") GET_OF("/ok") GET_OF("/later2"));
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
        strcat(bytes, GET_OF("/"));
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
    say_z(f, GET_OF("/later"));
    for (int i = 0; i < 100000; i++) {
        ssize_t n = write(f->peer, GET_OF("/x"), strlen(GET_OF("/x")));
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
    assert_int_equal(f->handled, 1 + sent / strlen(GET_OF("/x")));
    fixture_free(f);
}

/* ---- the peer's end ---- */

static void half_close(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    dial(f);
    put(f, GET_OF("/a") GET_OF("/b"));
    shutdown(f->peer, SHUT_WR);
    pump(f);
    expect_answers(f, "200 200 ");
    assert_true(f->saw_eof);

    dial(f);
    say_z(f, GET_OF("/later") GET_OF("/b"));
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

static void reset_cancels(void **state)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};
    struct fixture *f = fixture_new(NULL, false);
    dial_tcp(f);
    say_z(f, GET_OF("/later"));
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
        say_z(f, GET_OF("/later") GET_OF("/later"));
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
    say_z(f, GET_OF("/later"));
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
    say_z(f, GET_OF("/a") GET_OF("/b"));
    assert_int_equal(f->handled, 1);
    assert_int_equal(f->cancelled, 1);
    f->server = NULL;
    fixture_free(f);
}

static void second_answer(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    dial(f);
    say_z(f, GET_OF("/later"));
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
    say_z(f, POST_OF("/a", "Content-Length: 10\r\n\r\n") "12345");
    expect_answers(f, "200 ");
    say_z(f, "67890" GET_OF("/b"));
    expect_answers(f, "200 200 ");
    say_z(f, POST_OF("/later", "Content-Length: 50000\r\n\r\n"));
    char *body = ml_xcalloc(1, 50000);
    ssize_t n = write(f->peer, body, 50000);
    assert_int_equal(n, 50000);
    pump(f);
    reply_text(f->held[0], 403, ML_STR("no"));
    pump(f);
    say_z(f, GET_OF("/c"));
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
    say_z(f, POST_OF("/a", "Transfer-Encoding: chunked\r\n\r\n"));
    size_t sent = 0;
    while (sent < 64 << 20 && say(f, chunk, sizeof chunk))
        sent += sizeof chunk;
    expect_answers(f, "200 ");
    assert_true(f->saw_eof);
    assert_in_range(sent, 64 * 1024 - sizeof chunk, 1 << 20);
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
    say_z(f, GET_OF("/a"));
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
    say_z(f, GET_OF("/a"));
    f->peer = -1;
    dial(f);
    busy = f->peer;
    say_z(f, GET_OF("/later"));
    struct ml_exchange *held = f->held[0];
    f->peer = -1;
    dial(f);
    unread = f->peer;
    put(f, GET_OF("/b"));
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
    say_z(f, GET_OF("/c"));
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
        say_z(f, GET_OF("/a"));
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

int main(void)
{
    static const struct CMUnitTest tests[] = {
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
        cmocka_unit_test(bound_of_connections),
        cmocka_unit_test(bad_descriptor),
        cmocka_unit_test(drain),
        cmocka_unit_test(idle_is_cheap),
        cmocka_unit_test(large_buffers_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
