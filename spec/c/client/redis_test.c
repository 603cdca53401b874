/* The Redis client against a real redis-server: one node, and what becomes of it. */
#include "c/client/redis_support.h"

static void options(void **state)
{
    static const struct {
        struct ml_redis_options o;
        bool good;
    } cases[] = {
        {{.addresses = "127.0.0.1:6379"}, true},
        {{.addresses = "redis"}, true},
        {{.addresses = "[::1]:6379", .user = "u", .password = "p", .db = 3}, true},
        {{.addresses = "a,b:1, c:2", .mode = ML_REDIS_CLUSTER}, true},
        {{.addresses = "a,b", .mode = ML_REDIS_SENTINEL, .master = "m"}, true},
        {{.addresses = "a", .tls = true}, true},
        {{0}, false},
        {{.addresses = ""}, false},
        {{.addresses = "a,b"}, false},
        {{.addresses = "a:0"}, false},
        {{.addresses = "a:65536"}, false},
        {{.addresses = "a:x"}, false},
        {{.addresses = ":6379"}, false},
        {{.addresses = "[::1"}, false},
        {{.addresses = "[::1]6379"}, false},
        {{.addresses = "a b:6379"}, false},
        {{.addresses = "redis://a:6379"}, false},
        {{.addresses = "a,", .mode = ML_REDIS_CLUSTER}, false},
        {{.addresses = "a", .mode = ML_REDIS_CLUSTER, .db = 1}, false},
        {{.addresses = "a", .mode = ML_REDIS_SENTINEL}, false},
        {{.addresses = "a", .user = "u"}, false},
        {{.addresses = "a", .ca_file = "/etc/ssl/x"}, false},
        {{.addresses = "a", .tls = true, .ca_file = "/nowhere"}, false},
        {{.addresses = "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q", .mode = ML_REDIS_CLUSTER}, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ml_redis_setup *s = NULL;
        struct ml_err err = {0};
        int r = ml_redis_setup_new(&s, &cases[i].o, &err);
        if ((r == 0) != cases[i].good)
            fail_msg("case %zu: %d %s", i, r, err.text);
        ml_redis_setup_free(s);
    }
}

/* S-171: a value is a value, whatever is in it. */
static void commands(void **state)
{
    struct server s;
    struct world w;
    server_start(&s, "--databases", "4");
    world_loop(&w);
    world_connect(&w, (struct ml_redis_options){.addresses = at_port(s.port), .db = 3});
    static const char odd[] = "%s%n\r\nFLUSHALL\r\n $5 \0 *1";
    struct ml_str set[] = {ML_STR("SET"), ML_STR("a key\r\n%s"), ml_str(odd, sizeof odd)};
    struct ml_str get[] = {ML_STR("GET"), ML_STR("a key\r\n%s")};
    struct answer a = {0}, b = {0};
    ml_redis_call(w.redis, set, 3, 1, on_answer, &a);
    ml_redis_call(w.redis, get, 2, 1, on_answer, &b);
    WAIT_FOR(&w, b.done, 3000);
    assert_int_equal(a.error, 0);
    assert_int_equal(a.type, ML_REDIS_STATUS);
    assert_int_equal(b.n, sizeof odd);
    assert_memory_equal(b.value, odd, sizeof odd);
    assert_int_equal(ask(&w, "GET nothing").type, ML_REDIS_NIL);
    assert_int_equal(ask(&w, "INCR n").integer, 1);
    assert_non_null(strstr(cli(s.port, "-n 3 GET n"), "1"));
    a = ask(&w, "LPUSH n x"); /* of the wrong type: its sentence is not repeated */
    assert_int_equal(a.error, ML_E_UNAVAILABLE);
    assert_non_null(strstr(a.text, "WRONGTYPE"));
    assert_null(strstr(a.text, "wrong kind"));
    assert_int_equal(ask(&w, "INCR n").integer, 2);
    world_close(&w);
    server_stop(&s);
}

static void check_login(int port, const char *user, const char *password, const char *want)
{
    struct world w;
    struct ml_err err = {0};
    world_loop(&w);
    world_connect(&w, (struct ml_redis_options){
                          .addresses = at_port(port), .user = user, .password = password});
    struct answer a = ask(&w, "SET k v");
    if (want) {
        assert_int_equal(a.error, ML_E_UNAVAILABLE);
        if (!strstr(a.text, want))
            fail_msg("%s", a.text);
        assert_false(ml_redis_ready(w.redis, &err));
        assert_non_null(strstr(err.text, want));
    } else {
        if (a.error)
            fail_msg("%s", a.text);
        WAIT_FOR(&w, ml_redis_ready(w.redis, &err), 3000);
    }
    if (password && *password) {
        assert_null(strstr(a.text, password));
        assert_null(strstr(err.text, password));
    }
    world_close(&w);
}

static void passwords(void **state)
{
    struct server s;
    server_start(&s, "--requirepass", "hunter2");
    assert_non_null(strstr(
        cli(s.port, "--no-auth-warning -a hunter2 ACL SETUSER alice on '>wonder' '~*' +@all"),
        "OK"));
    check_login(s.port, "", "hunter2", NULL);
    check_login(s.port, "alice", "wonder", NULL);
    check_login(s.port, "", "", "answers NOAUTH to PING");
    check_login(s.port, "", "wrong-one", "answers WRONGPASS to AUTH");
    check_login(s.port, "alice", "hunter2", "answers WRONGPASS to AUTH");
    server_stop(&s);
}

/* An ACL that lets in but forbids: every command fails, the connection stays. */
static void forbidden(void **state)
{
    struct server s;
    struct world w;
    server_start(&s, "--databases", "2");
    assert_non_null(strstr(cli(s.port, "ACL SETUSER bob on '>builder' '~none:*' +ping"), "OK"));
    world_loop(&w);
    world_connect(&w, (struct ml_redis_options){
                          .addresses = at_port(s.port), .user = "bob", .password = "builder"});
    for (int i = 0; i < 3; i++) {
        struct answer a = ask(&w, "SET k v");
        assert_int_equal(a.error, ML_E_UNAVAILABLE);
        assert_non_null(strstr(a.text, "NOPERM"));
    }
    assert_int_equal(ask(&w, "PING").error, 0);
    world_close(&w);
    server_stop(&s);
}

/* S-420, S-421: down at start, killed, back. */
static void down_and_back(void **state)
{
    struct server s;
    struct world w;
    struct ml_err err = {0};
    server_start(&s, "--databases", "2");
    server_kill(&s);
    world_loop(&w);
    world_connect(&w, (struct ml_redis_options){.addresses = at_port(s.port)});
    struct answer a = ask(&w, "GET k");
    assert_int_equal(a.error, ML_E_UNAVAILABLE);
    assert_non_null(strstr(a.text, "connection refused"));
    assert_false(ml_redis_ready(w.redis, &err));
    assert_non_null(strstr(err.text, "connection refused"));
    for (int round = 0; round < 3; round++) {
        run_for(&w, 600); /* long enough for long waits */
        server_run(&s);
        uint64_t back = ml_mono_ms();
        assert_true(ask_until(&w, "SET k v", 3000));
        assert_in_range(ml_mono_ms() - back, 0, 1500); /* 1000 on an idle machine */
        WAIT_FOR(&w, ml_redis_ready(w.redis, &err), 3000);
        struct answer lost;
        call(&w, &lost, "GET k");
        server_kill(&s);
        WAIT_FOR(&w, lost.done, 3000);
        a = ask(&w, "GET k");
        assert_int_equal(a.error, ML_E_UNAVAILABLE);
    }
    world_close(&w);
    server_stop(&s);
}

/* S-422: the loop goes on, commands end in time, and nothing that comes late is taken for another's
 * answer. */
static void sleeping(void **state)
{
    struct server s;
    struct world w;
    struct ml_err err = {0};
    server_start(&s, "--databases", "2");
    world_loop(&w);
    world_connect(&w, (struct ml_redis_options){.addresses = at_port(s.port)});
    assert_int_equal(ask(&w, "SET k v").error, 0);
    struct answer sleep, get;
    call(&w, &sleep, "DEBUG SLEEP 1");
    uint64_t start = ml_mono_ms();
    call(&w, &get, "GET k");
    WAIT_FOR(&w, sleep.done && get.done, 3000);
    assert_in_range(ml_mono_ms() - start, 200, 900);
    assert_int_equal(sleep.error, ML_E_TIMEOUT);
    assert_int_equal(get.error, ML_E_TIMEOUT);
    WAIT_FOR(&w, !ml_redis_ready(w.redis, &err), 10);
    assert_true(ask_until(&w, "GET k", 3000));
    assert_in_range(ml_mono_ms() - start, 900, 3000);
    struct answer a = ask(&w, "GET k");
    assert_int_equal(a.n, 1);
    assert_memory_equal(a.value, "v", 1);
    world_close(&w);
    server_stop(&s);
}

/* READONLY, OOM, LOADING as the real one says them. */
static void refusals(void **state)
{
    struct server s, other;
    struct world w;
    server_start(&s, "--databases", "2");
    server_start(&other, "--databases", "2");
    world_loop(&w);
    world_connect(&w, (struct ml_redis_options){.addresses = at_port(s.port)});
    assert_int_equal(ask(&w, "SET k v").error, 0);
    cli(s.port, "CONFIG SET maxmemory 1");
    struct answer a = ask(&w, "SET k w");
    assert_non_null(strstr(a.text, "answers OOM"));
    assert_int_equal(ask(&w, "GET k").error, 0);
    cli(s.port, "CONFIG SET maxmemory 0");
    char command[64];
    snprintf(command, sizeof command, "REPLICAOF 127.0.0.1 %d", other.port);
    cli(s.port, command);
    a = ask(&w, "SET k w");
    assert_int_equal(a.error, ML_E_UNAVAILABLE);
    assert_non_null(strstr(a.text, "answers READONLY"));
    cli(s.port, "REPLICAOF NO ONE");
    assert_true(ask_until(&w, "SET k w", 3000));
    world_close(&w);
    server_stop(&s);
    server_stop(&other);
}

static void messages(void **state)
{
    struct server s;
    struct world w;
    struct heard h = {0};
    server_start(&s, "--databases", "2");
    world_loop(&w);
    world_connect(&w, (struct ml_redis_options){.addresses = at_port(s.port)});
    ml_redis_subscribe(w.redis, "moonlatch:events", on_message, &h);
    WAIT_FOR(&w, h.lost == 1, 3000);
    assert_int_equal(ask(&w, "PUBLISH moonlatch:events hello").integer, 1);
    WAIT_FOR(&w, h.count == 1, 3000);
    assert_string_equal(h.text, "hello");
    ask(&w, "PUBLISH another hello");
    cli(s.port, "CLIENT KILL TYPE pubsub");
    WAIT_FOR(&w, h.lost == 3, 3000); /* it broke, it stands again */
    ask(&w, "PUBLISH moonlatch:events again");
    WAIT_FOR(&w, h.count == 2, 3000);
    /* One that hangs is found out though nobody publishes. */
    kill(s.pid, SIGSTOP);
    uint64_t start = ml_mono_ms();
    WAIT_FOR(&w, h.lost == 4, 5000);
    assert_in_range(ml_mono_ms() - start, 1000, 4500);
    kill(s.pid, SIGCONT);
    WAIT_FOR(&w, h.lost == 5, 3000);
    world_close(&w);
    server_stop(&s);
}

static void names(void **state)
{
    struct server s;
    struct world w;
    char address[64];
    server_start(&s, "--databases", "2");
    world_loop(&w);
    snprintf(address, sizeof address, "localhost:%d", s.port); /* perhaps ::1 first */
    world_connect(&w, (struct ml_redis_options){.addresses = address});
    struct answer a = {0};
    call(&w, &a, "PING");
    WAIT_FOR(&w, a.done, 3000);
    assert_int_equal(a.error, 0);
    world_close(&w);
    world_loop(&w);
    world_connect(&w, (struct ml_redis_options){.addresses = "no-such-host.invalid:6379"});
    assert_int_not_equal(ask(&w, "PING").error, 0);
    world_close(&w);
    /* Closed while the name is being looked up. */
    world_loop(&w);
    world_connect(&w, (struct ml_redis_options){.addresses = "localhost:1"});
    call(&w, &a, "PING");
    world_close(&w);
    assert_int_equal(a.error, ML_E_CANCELED);
    server_stop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options),   cmocka_unit_test(commands),      cmocka_unit_test(passwords),
        cmocka_unit_test(forbidden), cmocka_unit_test(down_and_back), cmocka_unit_test(sleeping),
        cmocka_unit_test(refusals),  cmocka_unit_test(messages),      cmocka_unit_test(names),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
