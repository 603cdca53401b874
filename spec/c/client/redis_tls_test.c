/* The Redis client by TLS, against a real redis-server: whom it believes, and that bytes arrive. */
#include "c/client/redis_support.h"

#include <pthread.h>

static char dir[] = "/tmp/ml-redis-tls-XXXXXX";
static char good[64], other[64];
static struct server server;

/* dir/NAME.key and dir/NAME.pem: self-signed, for 127.0.0.1. */
static void make_certificate(const char *name)
{
    char command[512];
    snprintf(command, sizeof command,
             "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 "
             "-keyout %s/%s.key -out %s/%s.pem -subj /CN=localhost "
             "-addext subjectAltName=IP:127.0.0.1 2>/dev/null",
             dir, name, dir, name);
    assert_int_equal(system(command), 0);
}

static int start(void **state)
{
    char key[64], port[8];
    assert_non_null(mkdtemp(dir));
    make_certificate("good");
    make_certificate("other");
    snprintf(good, sizeof good, "%s/good.pem", dir);
    snprintf(other, sizeof other, "%s/other.pem", dir);
    snprintf(key, sizeof key, "%s/good.key", dir);
    int at = free_port();
    snprintf(port, sizeof port, "%d", at);
    const char *const words[] = {"--port",
                                 "0",
                                 "--tls-port",
                                 port,
                                 "--tls-cert-file",
                                 good,
                                 "--tls-key-file",
                                 key,
                                 "--tls-auth-clients",
                                 "no",
                                 "--requirepass",
                                 "hunter2",
                                 NULL};
    server_start_list(&server, at, words);
    return 0;
}

static int stop(void **state)
{
    char command[96];
    server_stop(&server);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static struct ml_redis_options options_of(const char *ca)
{
    return (struct ml_redis_options){
        .addresses = at_port(server.port), .tls = true, .ca_file = ca, .password = "hunter2"};
}

static void works(void **state)
{
    static char big[ML_REDIS_REPLY_BYTES - 200];
    struct world w;
    struct answer a[64];
    world_loop(&w);
    world_connect(&w, options_of(good));
    memset(big, 'x', sizeof big);
    struct ml_str set[] = {ML_STR("SET"), ML_STR("k"), ml_str(big, sizeof big)};
    memset(&a[0], 0, sizeof a[0]);
    ml_redis_call(w.redis, set, 3, 1, on_answer, &a[0]);
    WAIT_FOR(&w, a[0].done, 3000);
    assert_int_equal(a[0].error, 0);
    for (int i = 0; i < 64; i++)
        call(&w, &a[i], i % 8 ? "INCR n" : "GET k");
    for (int i = 0; i < 64; i++) {
        WAIT_FOR(&w, a[i].done, 3000);
        if (a[i].error)
            fail_msg("%s", a[i].text);
        if (i % 8)
            assert_int_equal(a[i].integer, i - i / 8);
        else
            assert_int_equal(a[i].n, sizeof big);
    }
    world_close(&w);
}

static void expect_failure(struct ml_redis_options o, const char *want)
{
    struct world w;
    world_loop(&w);
    world_connect(&w, o);
    struct answer a = ask(&w, "PING");
    assert_int_not_equal(a.error, 0);
    if (!strstr(a.text, want))
        fail_msg("%s", a.text);
    world_close(&w);
}

static void believes_only_whom_it_should(void **state)
{
    char address[64];
    expect_failure(options_of(other), "certificate");
    expect_failure(options_of(NULL), "certificate");
    struct ml_redis_options o = options_of(good);
    snprintf(address, sizeof address, "localhost:%d", server.port); /* only its CN says that */
    o.addresses = address;
    expect_failure(o, "hostname mismatch");
}

static void one_side_without(void **state)
{
    struct server plain;
    struct ml_redis_options o = options_of(NULL);
    o.tls = false;
    expect_failure(o, "Redis 127.0.0.1");
    server_start(&plain, "--databases", "2");
    o = options_of(good);
    o.addresses = at_port(plain.port);
    expect_failure(o, "not connected in time");
    server_stop(&plain);
}

/* Killed, and back; messages too. */
static void comes_back(void **state)
{
    struct world w;
    struct heard heard = {0};
    world_loop(&w);
    world_connect(&w, options_of(good));
    ml_redis_subscribe(w.redis, "c", on_message, &heard);
    WAIT_FOR(&w, heard.lost == 1, 3000);
    assert_int_equal(ask(&w, "PUBLISH c x").integer, 1);
    WAIT_FOR(&w, heard.count == 1, 3000);
    server_kill(&server);
    WAIT_FOR(&w, heard.lost == 2, 3000);
    assert_int_equal(ask(&w, "PING").error, ML_E_UNAVAILABLE);
    server_run(&server);
    assert_true(ask_until(&w, "PING", 3000));
    WAIT_FOR(&w, heard.lost == 3, 3000);
    world_close(&w);
}

/* One setup, and with it OpenSSL's context, for all workers. */
struct worker {
    struct world w;
    pthread_t thread;
    unsigned left, good;
};

static void on_incremented(void *arg, const struct ml_redis_answer *a)
{
    struct worker *worker = arg;
    worker->left--;
    worker->good += a->error == 0;
}

static void *work(void *arg)
{
    struct worker *worker = arg;
    struct ml_str words[] = {ML_STR("INCR"), ML_STR("shared")};
    for (worker->left = 100; worker->left > 0;) {
        ml_redis_call(worker->w.redis, words, 2, 1, on_incremented, worker);
        for (unsigned before = worker->left; worker->left == before;)
            uv_run(&worker->w.loop, UV_RUN_ONCE);
    }
    return NULL;
}

static void threads(void **state)
{
    enum { N = 4 };
    struct worker workers[N] = {0};
    struct ml_redis_setup *setup = NULL;
    struct ml_redis_options o = options_of(good);
    assert_int_equal(ml_redis_setup_new(&setup, &o, NULL), 0);
    for (int i = 0; i < N; i++) {
        world_loop(&workers[i].w);
        assert_int_equal(ml_redis_new(&workers[i].w.redis, &workers[i].w.loop, setup), 0);
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < N; i++) {
        pthread_join(workers[i].thread, NULL);
        assert_int_equal(workers[i].good, 100);
        world_close(&workers[i].w);
    }
    ml_redis_setup_free(setup);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(works),
        cmocka_unit_test(believes_only_whom_it_should),
        cmocka_unit_test(one_side_without),
        cmocka_unit_test(comes_back),
        cmocka_unit_test(threads),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, start, stop);
}
