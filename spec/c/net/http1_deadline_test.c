/* Deadlines and slow peers: heads, bodies and answers that take too long, lingering. S-443, S-444.
 */
#include "c/net/http1_harness.h"
#include "net/http1_internal.h"

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
    say_z(f, GET_OF("/a") "GET / HTTP/1.1\r\nHost: a\r\n");
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
    say_z(f, GET_OF("/a"));
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
        say_z(f, POST_OF("/a", "Content-Length: 10000\r\n\r\n"));
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
    put(f, GET_OF("/answer") GET_OF("/never"));
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
    put(f, GET_OF("/answer") GET_OF("/later") GET_OF("/answer"));
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
    put(f, GET_OF("/answer") GET_OF("/b"));
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
    put(f, POST_OF("/", "Content-Length: 100000\r\n\r\n"));
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

int main(void)
{
    static const struct CMUnitTest tests[] = {
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
