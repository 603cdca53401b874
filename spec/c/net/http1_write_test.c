/* What is written: the shape of answers, those that a handler got wrong, refusals. S-270. */
#include "c/net/http1_harness.h"

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
    answer(f, GET_OF("/answer"),
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
        answer(f, GET_OF("/answer") GET_OF("/b"),
               (struct ml_http_response){.status = bare[i], .body = ML_STR("hi")});
        char *end = strstr(f->in, "\r\n\r\n");
        assert_true(strstr(f->in, "Content-Length") > end);
        assert_true(strncmp(end + 4, "HTTP/1.1 200 OK\r\n", 17) == 0);
    }
    answer(f, "HEAD /answer HTTP/1.1\r\nHost: a\r\n\r\n",
           (struct ml_http_response){.status = 200, .body = ML_STR("hello")});
    assert_non_null(strstr(f->in, "Content-Length: 5\r\n\r\n"));
    assert_string_equal(strstr(f->in, "\r\n\r\n"), "\r\n\r\n");
    answer(f, GET_OF("/answer"), (struct ml_http_response){.status = 299, .body = ML_STR("")});
    assert_true(strncmp(f->in, "HTTP/1.1 299 \r\n", 15) == 0);
    assert_non_null(strstr(f->in, "Content-Length: 0\r\n\r\n"));
    answer(f, GET_OF("/answer") GET_OF("/b"),
           (struct ml_http_response){.status = 200, .close = true});
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
        answer(f, GET_OF("/answer") GET_OF("/b"),
               (struct ml_http_response){
                   .status = 200, .headers = &bad[i], .header_count = 1, .body = ML_STR("x")});
        expect_answers(f, "500 200 ");
        assert_null(strstr(f->in, "Set-Cookie"));
    }
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        answer(f, GET_OF("/answer"),
               (struct ml_http_response){.status = statuses[i], .body = ML_STR("secret")});
        expect_answers(f, "500 ");
        assert_null(strstr(f->in, "secret"));
    }
    struct ml_header many[101];
    for (int i = 0; i < 101; i++)
        many[i] = (struct ml_header){ML_STR("A"), ML_STR("b")};
    for (size_t n = 99; n <= 101; n++) {
        answer(f, GET_OF("/answer"),
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
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(shape_of_answers),
        cmocka_unit_test(broken_answers),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
