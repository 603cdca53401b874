/* The breaker as a state machine, then in front of a real port. */
#include "c/client/support.h"
#include "client/breaker.h"

static void fail_times(struct ml_breaker *b, uint64_t now, int times)
{
    for (int i = 0; i < times; i++) {
        uint32_t ticket;
        assert_true(ml_breaker_allow(b, now, &ticket));
        ml_breaker_failure(b, now, ticket);
    }
}

static void opens_and_closes(void **state)
{
    struct ml_breaker b;
    uint32_t ticket, second;
    ml_breaker_init(&b, 5, 1000);
    fail_times(&b, 1000, 4);
    assert_false(b.open);
    fail_times(&b, 2000, 1);
    assert_true(b.open);
    assert_false(ml_breaker_allow(&b, 2999, &ticket));
    assert_true(ml_breaker_allow(&b, 3000, &ticket)); /* one probe */
    assert_false(ml_breaker_allow(&b, 3000, &second));
    ml_breaker_failure(&b, 3001, ticket);
    assert_true(b.open);
    assert_false(ml_breaker_allow(&b, 3999, &ticket));
    assert_true(ml_breaker_allow(&b, 4000, &ticket));
    ml_breaker_success(&b, ticket);
    assert_false(b.open);
    fail_times(&b, 4001, 4); /* it starts from nothing */
    assert_false(b.open);
}

static void window_and_success(void **state)
{
    struct ml_breaker b;
    uint32_t ticket;
    ml_breaker_init(&b, 5, 1000);
    for (uint64_t now = 0; now <= 100000; now += 2501) /* five in more than 10 s, for ever */
        fail_times(&b, now, 1);
    assert_false(b.open);
    ml_breaker_init(&b, 5, 1000);
    for (uint64_t now = 0; now <= 10000; now += 2500)
        fail_times(&b, now, 1);
    assert_true(b.open);
    ml_breaker_init(&b, 5, 1000);
    for (int i = 0; i < 1000; i++) {
        fail_times(&b, 1000, 4);
        assert_true(ml_breaker_allow(&b, 1000, &ticket));
        ml_breaker_success(&b, ticket);
    }
    assert_false(b.open);
}

/* What was sent before the opening neither closes it nor reopens it later. */
static void late_outcomes(void **state)
{
    struct ml_breaker b;
    uint32_t early, ticket;
    ml_breaker_init(&b, 2, 1000);
    assert_true(ml_breaker_allow(&b, 0, &early));
    fail_times(&b, 0, 2);
    assert_true(b.open);
    ml_breaker_success(&b, early);
    assert_true(b.open);
    assert_true(ml_breaker_allow(&b, 1000, &ticket));
    ml_breaker_success(&b, ticket);
    ml_breaker_failure(&b, 1001, early);
    ml_breaker_failure(&b, 1001, early);
    assert_false(b.open);
}

/* S-408 */
static void back_off(void **state)
{
    static const struct {
        int64_t ask, wait;
    } cases[] = {{1000, 1000}, {3600000, 60000},  {-1000, 1000},     {0, 1000},
                 {5000, 5000}, {INT64_MIN, 1000}, {INT64_MAX, 60000}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ml_breaker b;
        uint32_t ticket;
        ml_breaker_init(&b, 5, 1000);
        ml_breaker_back_off(&b, 100, cases[i].ask);
        assert_true(b.open);
        assert_false(ml_breaker_allow(&b, 100 + (uint64_t)cases[i].wait - 1, &ticket));
        assert_true(ml_breaker_allow(&b, 100 + (uint64_t)cases[i].wait, &ticket));
    }
    struct ml_breaker b;
    uint32_t ticket;
    ml_breaker_init(&b, 5, 1000);
    ml_breaker_back_off(&b, 0, 60000);
    ml_breaker_back_off(&b, 0, 1000); /* a second answer does not shorten it */
    assert_false(ml_breaker_allow(&b, 59999, &ticket));
}

static void retry_after(void **state)
{
    const int64_t now = INT64_C(1445412480000); /* Wed, 21 Oct 2015 07:28:00 GMT */
    assert_int_equal(ml_retry_after_ms("1", now), 1000);
    assert_int_equal(ml_retry_after_ms(" 120 ", now), 60000);
    assert_int_equal(ml_retry_after_ms("3600", now), 60000);
    assert_int_equal(ml_retry_after_ms("99999999999999999999999", now), 0);
    assert_int_equal(ml_retry_after_ms("-1", now), 0);
    assert_int_equal(ml_retry_after_ms("soon", now), 0);
    assert_int_equal(ml_retry_after_ms("", now), 0);
    assert_int_equal(ml_retry_after_ms("Wed, 21 Oct 2015 07:28:30 GMT", now), 30000);
    assert_true(ml_retry_after_ms("Thu, 01 Jan 1970 00:00:00 GMT", now) <= 0);
}

/* S-401: down, refused at once, and back within 2 s of its return. */
static void upstream_down_and_back(void **state)
{
    struct world w;
    char url[64];
    world_open(&w, (struct ml_client_options){.in_flight = 2}, NULL);
    int port = w.server.port;
    loopback_stop(&w.server);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/ok", port);

    struct answer a[8];
    int refused = 0, open = 0;
    for (int i = 0; i < 8; i++) /* two in flight, six wait: the opening ends them too */
        assert_int_equal(start(&w, (struct ml_fetch_request){0}, url, &a[i], NULL, NULL), 0);
    for (int i = 0; i < 8; i++) {
        run_until(&w, &a[i]);
        assert_int_equal(a[i].result->error, ML_E_UNAVAILABLE);
        refused += strcmp(a[i].result->text, "connection refused") == 0;
        open += strcmp(a[i].result->text, "circuit open: connection refused") == 0;
        ml_fetch_result_free(a[i].result);
    }
    assert_in_range(refused, 5, 6); /* a sixth was under way */
    assert_int_equal(refused + open, 8);
    struct ml_err err;
    uint64_t before = ml_mono_ms();
    for (int i = 0; i < 100; i++)
        assert_int_equal(start(&w, (struct ml_fetch_request){0}, url, &a[0], NULL, &err),
                         ML_E_UNAVAILABLE);
    assert_string_equal(err.text, "circuit open: connection refused");
    assert_true(ml_mono_ms() - before < 100);

    loopback_start(&w.server, port, NULL);
    before = ml_mono_ms();
    for (;;) {
        struct ml_fetch_result *r = fetch(&w, (struct ml_fetch_request){0}, url);
        bool good = r->error == 0;
        ml_fetch_result_free(r);
        if (good)
            break;
        pause_ms(&w, 20);
    }
    assert_true(ml_mono_ms() - before < 2000);
    world_close(&w);
}

static void statuses_count(void **state)
{
    struct world w;
    world_open(&w, (struct ml_client_options){.open_after = 3}, NULL);
    for (int i = 0; i < 10; i++) {
        struct ml_fetch_result *r = get(&w, i % 2 ? "/404" : "/401");
        assert_int_equal(r->error, 0);
        ml_fetch_result_free(r);
    }
    for (int i = 0; i < 3; i++) {
        struct ml_fetch_result *r = get(&w, "/500");
        assert_int_equal(r->status, 500);
        ml_fetch_result_free(r);
    }
    struct ml_fetch_result *r = get(&w, "/ok");
    assert_int_equal(r->error, ML_E_UNAVAILABLE);
    assert_string_equal(r->text, "circuit open: status 500");
    ml_fetch_result_free(r);
    assert_int_equal(w.server.requests, 13);
    world_close(&w);
}

static void too_many_requests(void **state)
{
    struct world w;
    world_open(&w, (struct ml_client_options){0}, NULL);
    struct ml_fetch_result *r = get(&w, "/429");
    assert_int_equal(r->status, 429);
    ml_fetch_result_free(r);
    ml_clock_advance(59000);
    r = get(&w, "/ok");
    assert_string_equal(r->text, "circuit open: status 429");
    ml_fetch_result_free(r);
    ml_clock_advance(1100);
    r = get(&w, "/ok");
    assert_int_equal(r->status, 200);
    ml_fetch_result_free(r);
    r = get(&w, "/429-none");
    ml_fetch_result_free(r);
    r = get(&w, "/ok");
    assert_int_equal(r->error, ML_E_UNAVAILABLE);
    ml_fetch_result_free(r);
    assert_int_equal(w.server.requests, 3);
    world_close(&w);
}

/* Who asks with a deadline of 20 ms cannot cut the upstream off for all. */
static void short_deadlines_do_not_count(void **state)
{
    struct world w;
    world_open(&w, (struct ml_client_options){.open_after = 2, .connect_ms = 150}, NULL);
    for (int i = 0; i < 5; i++) {
        struct ml_fetch_result *r =
            fetch(&w, (struct ml_fetch_request){.timeout_ms = 20}, url_of(&w, "/never"));
        assert_int_equal(r->error, ML_E_TIMEOUT);
        ml_fetch_result_free(r);
    }
    struct ml_fetch_result *r = get(&w, "/ok");
    assert_int_equal(r->status, 200);
    ml_fetch_result_free(r);
    for (int i = 0; i < 2; i++) {
        r = fetch(&w, (struct ml_fetch_request){.timeout_ms = 200}, url_of(&w, "/never"));
        ml_fetch_result_free(r);
    }
    r = get(&w, "/ok");
    assert_string_equal(r->text, "circuit open: no answer in time");
    ml_fetch_result_free(r);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_and_closes),
        cmocka_unit_test(window_and_success),
        cmocka_unit_test(late_outcomes),
        cmocka_unit_test(back_off),
        cmocka_unit_test(retry_after),
        cmocka_unit_test(upstream_down_and_back),
        cmocka_unit_test(statuses_count),
        cmocka_unit_test(too_many_requests),
        cmocka_unit_test(short_deadlines_do_not_count),
    };
    return cmocka_run_group_tests(tests, global_open, global_close);
}
