/* Fetches against a loopback server: what it may answer, and when it may stop answering. */
#include "c/client/support.h"

#include <fcntl.h>

static void good_answers(void **state)
{
    struct world w;
    open_plain(&w);
    struct ml_fetch_result *r = get(&w, "/ok");
    assert_int_equal(r->error, 0);
    assert_int_equal(r->status, 200);
    assert_str(r->body, "hello");
    assert_str(header_of(r, "x-kind"), "Good");
    ml_fetch_result_free(r);

    r = get(&w, "/204");
    assert_int_equal(r->status, 204);
    assert_int_equal(r->body.n, 0);
    ml_fetch_result_free(r);

    r = get(&w, "/nul");
    assert_int_equal(r->body.n, 3);
    assert_memory_equal(r->body.p, "a\0z", 3);
    ml_fetch_result_free(r);

    r = get(&w, "/interim");
    assert_int_equal(r->status, 200);
    assert_null(header_of(r, "x-early").p);
    assert_str(header_of(r, "x-late"), "2");
    ml_fetch_result_free(r);

    r = get(&w, "/trailer");
    assert_str(r->body, "hi");
    assert_null(header_of(r, "x-trail").p);
    ml_fetch_result_free(r);

    r = get(&w, "/encoded"); /* never decoded: it was not asked for */
    assert_str(r->body, "zz");
    ml_fetch_result_free(r);

    assert_int_equal(w.server.connections, 1); /* kept alive */
    world_close(&w);
}

static void statuses_are_answers(void **state)
{
    static const struct {
        const char *path;
        int status;
    } cases[] = {{"/301", 301}, {"/401", 401}, {"/404", 404}, {"/500", 500}};
    struct world w;
    open_plain(&w);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ml_fetch_result *r = get(&w, cases[i].path);
        assert_int_equal(r->error, 0);
        assert_int_equal(r->status, cases[i].status);
        ml_fetch_result_free(r);
    }
    assert_int_equal(w.server.requests, 4); /* S-161: the redirect was not followed */
    world_close(&w);
}

static void bad_answers(void **state)
{
    static const struct {
        const char *path;
        int error;
    } cases[] = {
        {"/rst", ML_E_UNAVAILABLE},     {"/rst-mid", ML_E_UNAVAILABLE},
        {"/fin", ML_E_UNAVAILABLE},     {"/chunk", ML_E_UNAVAILABLE},
        {"/garbage", ML_E_UNAVAILABLE}, {"/closed", ML_E_UNAVAILABLE},
        {"/fold", ML_E_UNAVAILABLE},    {"/colon", ML_E_UNAVAILABLE},
        {"/space", ML_E_UNAVAILABLE},   {"/control", ML_E_UNAVAILABLE},
        {"/999", ML_E_UNAVAILABLE},     {"/headers-big", ML_E_TOOBIG},
        {"/headers-many", ML_E_TOOBIG}, {"/big", ML_E_TOOBIG},
        {"/big-chunked", ML_E_TOOBIG},
    };
    struct world w;
    open_plain(&w);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ml_fetch_result *r = get(&w, cases[i].path);
        if (r->error != cases[i].error || !r->text[0])
            print_error("%s: error %d (%s), status %d\n", cases[i].path, r->error, r->text,
                        r->status);
        assert_int_equal(r->error, cases[i].error);
        assert_int_equal(r->status, 0); /* nothing of it is believed (S-404) */
        assert_null(r->body.p);
        ml_fetch_result_free(r);
    }
    world_close(&w);
}

static void body_cap_is_exact(void **state)
{
    struct world w;
    open_plain(&w);
    struct ml_fetch_result *r =
        fetch(&w, (struct ml_fetch_request){.max_body = 5}, url_of(&w, "/ok"));
    assert_int_equal(r->error, 0);
    ml_fetch_result_free(r);
    r = fetch(&w, (struct ml_fetch_request){.max_body = 4}, url_of(&w, "/ok"));
    assert_int_equal(r->error, ML_E_TOOBIG);
    ml_fetch_result_free(r);
    r = fetch(&w, (struct ml_fetch_request){.max_body = 1}, url_of(&w, "/trailer"));
    assert_int_equal(r->error, ML_E_TOOBIG);
    ml_fetch_result_free(r);
    r = fetch(&w, (struct ml_fetch_request){.max_body = 11 << 20, .timeout_ms = 20000},
              url_of(&w, "/big-chunked"));
    assert_int_equal(r->error, 0);
    assert_int_equal(r->body.n, 10 << 20);
    ml_fetch_result_free(r);
    world_close(&w);
}

static void deadlines(void **state)
{
    static const char *const paths[] = {"/never", "/slow"};
    struct world w;
    open_plain(&w);
    for (size_t i = 0; i < 2; i++) {
        uint64_t before = ml_mono_ms();
        struct ml_fetch_result *r =
            fetch(&w, (struct ml_fetch_request){.timeout_ms = 300}, url_of(&w, paths[i]));
        uint64_t took = ml_mono_ms() - before;
        assert_int_equal(r->error, ML_E_TIMEOUT);
        assert_in_range(took, 280, 900);
        assert_in_range(r->elapsed_ms, 280, 900);
        ml_fetch_result_free(r);
    }
    world_close(&w);
}

/* A listening socket whose backlog is full: the SYN is dropped (S-402). */
static void connect_deadline(void **state)
{
    struct world w;
    open_plain(&w);
    int fd = socket(AF_INET, SOCK_STREAM, 0), filler[8];
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 0), 0);
    getsockname(fd, (struct sockaddr *)&address, &length);
    for (int i = 0; i < 8; i++) {
        filler[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(filler[i], (struct sockaddr *)&address, sizeof address);
    }
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d/", ntohs(address.sin_port));
    struct ml_fetch_result *r = fetch(&w, (struct ml_fetch_request){0}, url);
    assert_int_equal(r->error, ML_E_TIMEOUT);
    assert_string_equal(r->text, "no connection in time");
    assert_in_range(r->elapsed_ms, 450, 1500);
    ml_fetch_result_free(r);
    for (int i = 0; i < 8; i++)
        close(filler[i]);
    close(fd);
    world_close(&w);
}

static void refused_and_unknown(void **state)
{
    struct world w;
    char url[64];
    open_plain(&w);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/", unused_port());
    struct ml_fetch_result *r = fetch(&w, (struct ml_fetch_request){0}, url);
    assert_int_equal(r->error, ML_E_UNAVAILABLE);
    assert_string_equal(r->text, "connection refused");
    ml_fetch_result_free(r);
    r = fetch(&w, (struct ml_fetch_request){0}, "http://nowhere.invalid/");
    assert_int_equal(r->error, ML_E_UNAVAILABLE);
    assert_string_equal(r->text, "host not found");
    ml_fetch_result_free(r);
    world_close(&w);
}

static void bad_requests(void **state)
{
    static const char *const urls[] = {"file:///etc/passwd",
                                       "ftp://127.0.0.1/",
                                       "gopher://127.0.0.1/",
                                       "//127.0.0.1/",
                                       "",
                                       "http://",
                                       "http:///x",
                                       "https://idp@evil/",
                                       "http://a b/",
                                       "http://a/\r\nX: y",
                                       "http://[::1%25eth0]/",
                                       "http://a\\b/",
                                       "http://b\xc3\xbc"
                                       "cher.example/",
                                       "http://a/#x",
                                       "http://:80/",
                                       "http://[::1/",
                                       " http://a/"};
    struct world w;
    open_plain(&w);
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        struct ml_fetch_result *r = fetch(&w, (struct ml_fetch_request){0}, urls[i]);
        if (r->error != ML_E_INVALID)
            print_error("%s: %d %s\n", urls[i], r->error, r->text);
        assert_int_equal(r->error, ML_E_INVALID);
        ml_fetch_result_free(r);
    }
    static const struct ml_header headers[] = {{{"X", 1}, {"a\r\nY: b", 7}},
                                               {{"X", 1}, {"a\nb", 3}},
                                               {{"X", 1}, {"a\0b", 3}},
                                               {{"X", 1}, {"\x1b[0m", 4}},
                                               {{"X Y", 3}, {"a", 1}},
                                               {{"X:", 2}, {"a", 1}},
                                               {{"", 0}, {"a", 1}},
                                               {{"Content-Length", 14}, {"0", 1}},
                                               {{"transfer-encoding", 17}, {"chunked", 7}}};
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        struct ml_fetch_request request = {.headers = &headers[i], .header_count = 1};
        struct ml_fetch_result *r = fetch(&w, request, url_of(&w, "/ok"));
        assert_int_equal(r->error, ML_E_INVALID);
        ml_fetch_result_free(r);
    }
    static const struct ml_fetch_request others[] = {
        {.method = {"GET /\r\n", 7}}, {.method = {"CONNECT", 7}}, {.timeout_ms = 60001}};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        struct ml_fetch_result *r = fetch(&w, others[i], url_of(&w, "/ok"));
        assert_int_equal(r->error, ML_E_INVALID);
        ml_fetch_result_free(r);
    }
    assert_int_equal(w.server.requests, 0);
    world_close(&w);
}

/* What goes out, byte for byte where it matters. */
static void requests_on_the_wire(void **state)
{
    struct world w;
    open_plain(&w);
    struct ml_header headers[] = {{ML_STR("X-One"), ML_STR("1")},
                                  {ML_STR("X-Empty"), {NULL, 0}},
                                  {ML_STR("Authorization"), ML_STR("Basic eDp5")}};
    struct ml_fetch_request request = {
        .method = ML_STR("POST"), .headers = headers, .header_count = 3, .body = ML_STR("a=b&c=d")};
    struct ml_fetch_result *r = fetch(&w, request, url_of(&w, "/echo?x=1"));
    char text[2048];
    assert_int_equal(r->error, 0);
    snprintf(text, sizeof text, "%.*s", ML_FMT(r->body));
    assert_ptr_equal(strstr(text, "POST /echo?x=1 HTTP/1.1\r\n"), text);
    assert_non_null(strstr(text, "\r\nX-One: 1\r\n"));
    assert_non_null(strstr(text, "\r\nX-Empty:\r\n"));
    assert_non_null(strstr(text, "\r\nAuthorization: Basic eDp5\r\n"));
    assert_non_null(strstr(text, "\r\nContent-Length: 7\r\n"));
    assert_non_null(strstr(text, "\r\n\r\na=b&c=d"));
    assert_null(strstr(text, "Content-Type"));
    assert_null(strstr(text, "Expect"));
    assert_null(strstr(text, "Accept-Encoding"));
    assert_null(strstr(text, "Cookie"));
    ml_fetch_result_free(r);

    r = get(&w, "/echo"); /* nothing of the last request is left in the handle */
    snprintf(text, sizeof text, "%.*s", ML_FMT(r->body));
    assert_ptr_equal(strstr(text, "GET /echo HTTP/1.1\r\n"), text);
    assert_null(strstr(text, "Authorization"));
    assert_null(strstr(text, "Content-Length"));
    assert_null(strstr(text, "X-One"));
    ml_fetch_result_free(r);

    r = fetch(&w, (struct ml_fetch_request){.method = ML_STR("DELETE")}, url_of(&w, "/echo"));
    assert_memory_equal(r->body.p, "DELETE /echo", 12);
    ml_fetch_result_free(r);
    r = fetch(&w, (struct ml_fetch_request){.method = ML_STR("PUT"), .body = ML_STR("{}")},
              url_of(&w, "/echo"));
    assert_memory_equal(r->body.p, "PUT /echo", 9);
    ml_fetch_result_free(r);
    r = fetch(&w, (struct ml_fetch_request){.method = ML_STR("HEAD")}, url_of(&w, "/ok"));
    assert_int_equal(r->status, 200);
    assert_int_equal(r->body.n, 0);
    ml_fetch_result_free(r);
    r = get(&w, "/ok");
    assert_str(r->body, "hello");
    ml_fetch_result_free(r);
    world_close(&w);
}

static void environment_is_ignored(void **state)
{
    struct world w;
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
    open_plain(&w);
    struct ml_fetch_result *r = get(&w, "/ok");
    assert_int_equal(r->status, 200);
    ml_fetch_result_free(r);
    unsetenv("http_proxy");
    unsetenv("ALL_PROXY");
    world_close(&w);
}

/* The peer closed a connection that we kept: the next request goes out on a new one. */
static void closed_while_idle(void **state)
{
    struct world w;
    open_plain(&w);
    for (int i = 0; i < 6; i++) {
        struct ml_fetch_request post = {.method = ML_STR("POST"), .body = ML_STR("a=1")};
        struct ml_fetch_result *r =
            fetch(&w, i % 2 ? (struct ml_fetch_request){0} : post, url_of(&w, "/ok-gone"));
        assert_int_equal(r->error, 0);
        assert_str(r->body, "hello");
        ml_fetch_result_free(r);
    }
    assert_int_equal(w.server.connections, 6);
    assert_int_equal(w.server.requests, 6);
    world_close(&w);
}

static void count_turn(uv_prepare_t *prepare)
{
    ++*(int *)prepare->data;
}

/* The poll of an idle connection goes on, but not past the peer's close: that would be seen for
 * ever. */
static void the_end_of_an_idle_connection_is_seen_once(void **state)
{
    struct world w;
    uv_prepare_t prepare;
    int turns = 0;
    open_plain(&w);
    struct ml_fetch_result *r = get(&w, "/ok-gone");
    assert_int_equal(r->status, 200);
    ml_fetch_result_free(r);
    uv_prepare_init(&w.loop, &prepare);
    prepare.data = &turns;
    uv_prepare_start(&prepare, count_turn);
    pause_ms(&w, 50);
    uv_close((uv_handle_t *)&prepare, NULL);
    assert_in_range(turns, 1, 10);
    world_close(&w);
}

/* When curl cannot watch a socket its whole multi handle is in doubt: all of it fails, and the next
 * fetch works. */
static void a_lost_multi_starts_over(void **state)
{
    struct world w;
    struct answer hung, doomed;
    open_plain(&w);
    assert_int_equal(
        start(&w, (struct ml_fetch_request){0}, url_of(&w, "/never"), &hung, NULL, NULL), 0);
    pause_ms(&w, 30);
    int epoll = uv_backend_fd(&w.loop), saved = dup(epoll), null = open("/dev/null", O_RDWR);
    dup2(null, epoll); /* no socket can be added now */
    assert_int_equal(
        start(&w, (struct ml_fetch_request){0}, url_of(&w, "/ok"), &doomed, NULL, NULL), 0);
    dup2(saved, epoll);
    close(saved);
    close(null);
    run_until(&w, &hung);
    run_until(&w, &doomed);
    assert_int_equal(hung.result->error, ML_E_UNAVAILABLE);
    assert_string_equal(doomed.result->text, "the transfer was lost");
    ml_fetch_result_free(hung.result);
    ml_fetch_result_free(doomed.result);
    struct ml_fetch_result *r = get(&w, "/ok");
    assert_int_equal(r->status, 200);
    ml_fetch_result_free(r);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_answers),
        cmocka_unit_test(statuses_are_answers),
        cmocka_unit_test(bad_answers),
        cmocka_unit_test(body_cap_is_exact),
        cmocka_unit_test(deadlines),
        cmocka_unit_test(connect_deadline),
        cmocka_unit_test(refused_and_unknown),
        cmocka_unit_test(bad_requests),
        cmocka_unit_test(requests_on_the_wire),
        cmocka_unit_test(environment_is_ignored),
        cmocka_unit_test(closed_while_idle),
        cmocka_unit_test(the_end_of_an_idle_connection_is_seen_once),
        cmocka_unit_test(a_lost_multi_starts_over),
    };
    return cmocka_run_group_tests(tests, global_open, global_close);
}
