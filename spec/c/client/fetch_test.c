/* Fetches against a loopback server: what it may answer, and when it may stop answering. */
#include "c/client/support.h"

#include <fcntl.h>

static void open_plain(struct world *w)
{
    world_open(w,
               (struct ml_client_options){
                   .in_flight = 8, .queue = 16, .open_after = 32, .connect_ms = 500},
               NULL);
}

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

static int unused_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bind(fd, (struct sockaddr *)&address, sizeof address);
    getsockname(fd, (struct sockaddr *)&address, &length);
    close(fd);
    return ntohs(address.sin_port);
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

static struct ml_upstream_stats last_stats;

static void on_stats(void *ctx, const struct ml_upstream_stats *s)
{
    last_stats = *s;
    ++*(int *)ctx;
}

static struct ml_upstream_stats stats_of(struct world *w)
{
    int count = 0;
    ml_client_stats(w->client, on_stats, &count);
    assert_int_equal(count, 1);
    return last_stats;
}

/* S-414: what is in flight is bounded, what waits is bounded, the rest fails at once. */
static void queue_is_bounded(void **state)
{
    struct world w;
    struct answer answers[30];
    int started = 0, busy = 0;
    open_plain(&w);
    for (int i = 0; i < 30; i++) {
        int code = start(&w, (struct ml_fetch_request){0}, url_of(&w, "/wait"), &answers[started],
                         NULL, NULL);
        if (code == 0)
            started++;
        else
            assert_int_equal(code, ML_E_BUSY), busy++;
    }
    assert_int_equal(started, 8 + 16);
    assert_int_equal(busy, 6);
    assert_int_equal(stats_of(&w).in_flight, 8);
    assert_int_equal(stats_of(&w).queued, 16);
    assert_int_equal(stats_of(&w).rejected, 6);
    for (int i = 0; i < started; i++) {
        run_until(&w, &answers[i]);
        assert_int_equal(answers[i].result->status, 200);
        ml_fetch_result_free(answers[i].result);
    }
    assert_int_equal(w.server.most_in_flight, 8);
    assert_int_equal(w.server.connections, 8);
    world_close(&w);
}

static void queue_keeps_deadlines(void **state)
{
    struct world w;
    struct answer hung[8], quick[3];
    open_plain(&w);
    for (int i = 0; i < 8; i++)
        assert_int_equal(start(&w, (struct ml_fetch_request){.timeout_ms = 600},
                               url_of(&w, "/never"), &hung[i], NULL, NULL),
                         0);
    /* Not in the order of their deadlines. */
    static const uint32_t timeouts[] = {200, 100, 5000};
    for (int i = 0; i < 3; i++)
        assert_int_equal(start(&w, (struct ml_fetch_request){.timeout_ms = timeouts[i]},
                               url_of(&w, "/ok"), &quick[i], NULL, NULL),
                         0);
    run_until(&w, &quick[0]);
    assert_true(quick[1].done);
    assert_false(hung[0].done);
    assert_int_equal(quick[0].result->error, ML_E_TIMEOUT);
    assert_int_equal(quick[1].result->error, ML_E_TIMEOUT);
    assert_in_range(quick[1].result->elapsed_ms, 90, 190);
    run_until(&w, &quick[2]);
    assert_int_equal(quick[2].result->status, 200);
    for (int i = 0; i < 8; i++) {
        run_until(&w, &hung[i]);
        ml_fetch_result_free(hung[i].result);
    }
    for (int i = 0; i < 3; i++)
        ml_fetch_result_free(quick[i].result);
    world_close(&w);
}

static void cancel_in_each_state(void **state)
{
    struct world w;
    struct answer a[20];
    struct ml_fetch *f[20];
    open_plain(&w);
    for (int i = 0; i < 12; i++)
        assert_int_equal(
            start(&w, (struct ml_fetch_request){0}, url_of(&w, "/never"), &a[i], &f[i], NULL), 0);
    ml_fetch_cancel(f[9]); /* queued */
    ml_fetch_cancel(f[0]); /* connecting: its place goes to a queued one */
    pause_ms(&w, 50);
    ml_fetch_cancel(f[1]); /* waiting for the answer */
    for (int i = 2; i < 12; i++)
        if (i != 9)
            ml_fetch_cancel(f[i]);
    /* Receiving. */
    assert_int_equal(
        start(&w, (struct ml_fetch_request){0}, url_of(&w, "/slow"), &a[0], &f[0], NULL), 0);
    pause_ms(&w, 150);
    ml_fetch_cancel(f[0]);
    /* Finished at once (no such port), not delivered yet. */
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d/", unused_port());
    for (int i = 0; i < 2; i++)
        assert_int_equal(start(&w, (struct ml_fetch_request){0}, url, &a[i], &f[i], NULL), 0);
    ml_fetch_cancel(f[0]);
    run_until(&w, &a[1]);
    ml_fetch_result_free(a[1].result);
    pause_ms(&w, 50);
    for (int i = 0; i < 12; i++)
        assert_true(i == 1 || !a[i].done);
    assert_int_equal(stats_of(&w).in_flight, 0);
    assert_int_equal(stats_of(&w).queued, 0);
    world_close(&w);
}

/* Callbacks that start and cancel others. */
struct chain {
    struct world *w;
    int left;
    struct ml_fetch *victim;
    bool finished;
};

static void never_called(void *arg, struct ml_fetch_result *result)
{
    fail();
}

static void on_chain(void *arg, struct ml_fetch_result *result)
{
    struct chain *c = arg;
    ml_fetch_result_free(result);
    if (c->victim)
        ml_fetch_cancel(c->victim);
    c->victim = NULL;
    c->finished = --c->left == 0;
    if (c->finished)
        return;
    char url[512];
    snprintf(url, sizeof url, "%s", url_of(c->w, "/ok"));
    struct ml_fetch_request r = {.upstream = c->w->upstream,
                                 .method = ML_STR("GET"),
                                 .url = ml_str_z(url),
                                 .timeout_ms = 1000};
    assert_int_equal(ml_fetch_start(c->w->client, &r, on_chain, c, NULL, NULL), 0);
    char silent[512];
    snprintf(silent, sizeof silent, "%s", url_of(c->w, "/never"));
    r.url = ml_str_z(silent);
    assert_int_equal(ml_fetch_start(c->w->client, &r, never_called, c, &c->victim, NULL), 0);
}

static void callbacks_may_start_and_cancel(void **state)
{
    struct world w;
    open_plain(&w);
    struct chain c = {.w = &w, .left = 50};
    struct ml_fetch_request r = {.upstream = w.upstream,
                                 .method = ML_STR("GET"),
                                 .url = ml_str_z(url_of(&w, "/ok")),
                                 .timeout_ms = 1000};
    assert_int_equal(ml_fetch_start(w.client, &r, on_chain, &c, NULL, NULL), 0);
    while (!c.finished && uv_run(&w.loop, UV_RUN_ONCE))
        ;
    assert_true(c.finished);
    world_close(&w);
}

static void close_with_transfers(void **state)
{
    struct world w;
    struct answer a[20];
    open_plain(&w);
    for (int i = 0; i < 20; i++)
        assert_int_equal(start(&w, (struct ml_fetch_request){0},
                               url_of(&w, i % 2 ? "/never" : "/slow"), &a[i], NULL, NULL),
                         0);
    pause_ms(&w, 50);
    ml_client_close(w.client, on_world_closed, &w);
    struct ml_err err;
    struct answer late;
    assert_int_equal(start(&w, (struct ml_fetch_request){0}, url_of(&w, "/ok"), &late, NULL, &err),
                     ML_E_CANCELED);
    uv_run(&w.loop, UV_RUN_DEFAULT);
    assert_true(w.closed);
    for (int i = 0; i < 20; i++) {
        assert_true(a[i].done);
        assert_int_equal(a[i].result->error, ML_E_CANCELED);
        ml_fetch_result_free(a[i].result);
    }
    ml_upstream_unref(w.upstream); /* a holder may outlive the client */
    assert_int_equal(uv_loop_close(&w.loop), 0);
    loopback_stop(&w.server);
}

static void upstreams_are_counted(void **state)
{
    struct world w;
    struct answer a;
    open_plain(&w);
    struct ml_upstream_options o = {.name = "other"};
    struct ml_upstream *u = upstream_of(&w, o), *same = upstream_of(&w, o);
    assert_ptr_equal(u, same);
    assert_ptr_not_equal(u, w.upstream);
    ml_upstream_unref(same);
    /* Its last holder goes, its transfer ends as usual. */
    assert_int_equal(
        start(&w, (struct ml_fetch_request){.upstream = u}, url_of(&w, "/wait"), &a, NULL, NULL),
        0);
    ml_upstream_unref(u);
    run_until(&w, &a);
    assert_int_equal(a.result->status, 200);
    ml_fetch_result_free(a.result);
    int count = 0;
    ml_client_stats(w.client, on_stats, &count);
    assert_int_equal(count, 1);

    struct ml_upstream *many[300];
    struct ml_err err = {0};
    int got = 0;
    for (; got < 300; got++) {
        char name[16];
        snprintf(name, sizeof name, "u%d", got);
        many[got] = ml_upstream_get(w.client, &(struct ml_upstream_options){.name = name}, &err);
        if (!many[got])
            break;
    }
    assert_int_equal(got, 255); /* and "test" */
    assert_int_equal(err.code, ML_E_BUSY);
    while (got)
        ml_upstream_unref(many[--got]);
    world_close(&w);
}

/* S-160: two identities on one origin never share a connection. */
static void identities_do_not_share(void **state)
{
    struct world w;
    open_plain(&w);
    struct ml_upstream *other = upstream_of(&w, (struct ml_upstream_options){.name = "other"});
    for (int i = 0; i < 50; i++) {
        struct ml_fetch_result *r = fetch(
            &w, (struct ml_fetch_request){.upstream = i % 2 ? other : NULL}, url_of(&w, "/ok"));
        assert_int_equal(r->status, 200);
        ml_fetch_result_free(r);
    }
    assert_int_equal(w.server.connections, 2);
    ml_upstream_unref(other);
    world_close(&w);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void expect_bearer(struct world *w, struct ml_upstream *u, const char *path,
                          const char *line)
{
    struct ml_fetch_result *r = fetch(w, (struct ml_fetch_request){.upstream = u}, url_of(w, path));
    assert_int_equal(r->error, 0);
    ml_fetch_result_free(r);
    pthread_mutex_lock(&w->server.lock);
    bool there = strstr(w->server.last_request, line);
    pthread_mutex_unlock(&w->server.lock);
    assert_true(there);
}

static void token_file(void **state)
{
    struct world w;
    char path[] = "/tmp/ml-token-XXXXXX";
    close(mkstemp(path));
    open_plain(&w);
    struct ml_upstream *u =
        upstream_of(&w, (struct ml_upstream_options){.name = "k", .token_file = path});
    struct ml_fetch_result *r =
        fetch(&w, (struct ml_fetch_request){.upstream = u}, url_of(&w, "/ok"));
    assert_int_equal(r->error, ML_E_UNAVAILABLE); /* empty */
    ml_fetch_result_free(r);
    write_file(path, "first\n");
    expect_bearer(&w, u, "/ok", "\r\nAuthorization: Bearer first\r\n");
    write_file(path, "second");
    expect_bearer(&w, u, "/401", "\r\nAuthorization: Bearer first\r\n");
    expect_bearer(&w, u, "/ok", "\r\nAuthorization: Bearer second\r\n"); /* after a 401 */
    write_file(path, "third");
    expect_bearer(&w, u, "/ok", "\r\nAuthorization: Bearer second\r\n");
    ml_clock_advance(10001);
    expect_bearer(&w, u, "/ok", "\r\nAuthorization: Bearer third\r\n");
    int before = w.server.requests;
    static const char *const bad[] = {"two words", "a\x01z", "line\nbreak"};
    for (size_t i = 0; i < 3; i++) {
        write_file(path, bad[i]);
        ml_clock_advance(10001);
        r = fetch(&w, (struct ml_fetch_request){.upstream = u}, url_of(&w, "/ok"));
        assert_int_equal(r->error, ML_E_UNAVAILABLE);
        assert_null(strstr(r->text, "words"));
        ml_fetch_result_free(r);
    }
    unlink(path);
    r = fetch(&w, (struct ml_fetch_request){.upstream = u}, url_of(&w, "/ok"));
    assert_int_equal(r->error, ML_E_UNAVAILABLE);
    ml_fetch_result_free(r);
    assert_int_equal(w.server.requests, before);
    ml_upstream_unref(u);
    world_close(&w);
}

/* S-164: random cancels under ASan. */
static void thousand_with_random_cancels(void **state)
{
    static const char *const paths[] = {"/ok",   "/wait",         "/204",     "/fin",  "/rst-mid",
                                        "/slow", "/headers-many", "/trailer", "/echo", "/never"};
    struct world w;
    world_open(&w, (struct ml_client_options){.in_flight = 16, .queue = 64, .open_after = 1000},
               NULL);
    struct answer a[64];
    struct ml_fetch *f[64];
    int delivered = 0, canceled = 0;
    srand(7);
    memset(a, 0, sizeof a);
    memset(f, 0, sizeof f);
    for (int i = 0; i < 1000; i++) {
        int at = rand() % 64;
        if (f[at] && !a[at].done) {
            ml_fetch_cancel(f[at]);
            canceled++;
        } else if (a[at].done) {
            delivered++;
            ml_fetch_result_free(a[at].result);
        }
        f[at] = NULL;
        if (start(&w, (struct ml_fetch_request){.timeout_ms = 200 + (uint32_t)(rand() % 200)},
                  url_of(&w, paths[rand() % 10]), &a[at], &f[at], NULL) < 0)
            f[at] = NULL;
        for (int turns = rand() % 4; turns > 0; turns--)
            uv_run(&w.loop, UV_RUN_NOWAIT);
        if (i % 50 == 0)
            pause_ms(&w, 10);
    }
    for (int i = 0; i < 64; i++) {
        if (f[i] && !a[i].done)
            run_until(&w, &a[i]);
        if (a[i].done)
            ml_fetch_result_free(a[i].result);
    }
    assert_true(delivered > 50);
    assert_true(canceled > 50);
    world_close(&w);
}

static int global_open(void **state)
{
    return ml_client_global_init();
}

static int global_close(void **state)
{
    ml_client_global_done();
    return 0;
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
        cmocka_unit_test(a_lost_multi_starts_over),
        cmocka_unit_test(queue_is_bounded),
        cmocka_unit_test(queue_keeps_deadlines),
        cmocka_unit_test(cancel_in_each_state),
        cmocka_unit_test(callbacks_may_start_and_cancel),
        cmocka_unit_test(close_with_transfers),
        cmocka_unit_test(upstreams_are_counted),
        cmocka_unit_test(identities_do_not_share),
        cmocka_unit_test(token_file),
        cmocka_unit_test(thousand_with_random_cancels),
    };
    return cmocka_run_group_tests(tests, global_open, global_close);
}
