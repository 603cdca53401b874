/* Sessions in Redis: what a backend promises, against a real redis-server. */
#include "c/store/redis_place.h"

static struct server server;

static int start(void **state)
{
    server_start(&server, "--databases", "2");
    return 0;
}

static int stop(void **state)
{
    server_stop(&server);
    return 0;
}

static void open_plain(struct place *p)
{
    cli(server.port, "FLUSHALL");
    place_open(p, (struct ml_redis_options){.addresses = at_port(server.port)});
}

static void records(void **state)
{
    struct place p;
    open_plain(&p);
    assert_false(get(&p, 1)->found);
    assert_int_equal(last.error, 0);
    assert_true(put(&p, 1, "one", 1, 0, 60000)->found);
    assert_true(get(&p, 1)->found);
    assert_int_equal(last.n, 3);
    assert_memory_equal(last.value, "one", 3);
    assert_in_range(last.expires_ms, ml_wall_ms() + 58000, ml_wall_ms() + 60000);
    assert_false(put(&p, 1, "two", 1, 0, 60000)->found); /* there is one */
    assert_int_equal(last.error, 0);
    assert_false(put(&p, 1, "two", 3, 2, 60000)->found); /* another revision */
    assert_true(put(&p, 1, "two", 2, 1, 60000)->found);
    assert_false(put(&p, 1, "six", 2, 1, 60000)->found); /* only once */
    assert_false(put(&p, 7, "six", 2, 1, 60000)->found); /* there is none: not brought back */
    assert_true(get(&p, 1)->found);
    assert_memory_equal(last.value, "two", 3);
    assert_false(get(&p, 2)->found);
    assert_true(remove_one(&p, 1)->found);
    assert_false(remove_one(&p, 1)->found);
    assert_false(get(&p, 1)->found);
    assert_true(put(&p, 3, "", 1, 0, 60000)->found);
    assert_true(get(&p, 3)->found);
    assert_int_equal(last.n, 0);
    place_close(&p);
}

/* The end is Redis' and ours: neither returns what is over. */
static void ends(void **state)
{
    struct place p;
    open_plain(&p);
    assert_true(put(&p, 1, "short", 1, 0, 150)->found);
    assert_true(get(&p, 1)->found);
    run_for(&p.w, 200);
    assert_false(get(&p, 1)->found);
    assert_true(put(&p, 2, "long", 1, 0, 600000)->found);
    ml_clock_advance(600001); /* our clock is ahead of Redis' */
    assert_false(get(&p, 2)->found);
    ml_clock_advance(-600001);
    assert_true(put(&p, 3, "over", 1, 0, -5)->found);
    run_for(&p.w, 10);
    assert_false(get(&p, 3)->found);
    place_close(&p);
}

/* S-171, S-173, S-425: a value is bytes; what somebody else put there is no record. */
static void foreign_values(void **state)
{
    static const char *const values[] = {
        "",
        "x",
        "0000000000000001",
        "000000000000000100000000000000",
        "0000000000000001ffffffffffffffffvalue",
        "000000000000000G7fffffffffffffffvalue",
        "00000000000000017FFFFFFFFFFFFFFFvalue",
    };
    struct place p;
    char command[256], hex[65];
    struct ml_digest d = digest_of(1);
    ml_digest_hex(&d, hex);
    open_plain(&p);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        snprintf(command, sizeof command, "SET moonlatch:s:%s '%s'", hex, values[i]);
        cli(server.port, command);
        assert_false(get(&p, 1)->found);
        assert_int_equal(last.error, 0);
    }
    snprintf(command, sizeof command, "DEL moonlatch:s:%s", hex);
    cli(server.port, command);
    snprintf(command, sizeof command, "LPUSH moonlatch:s:%s x", hex);
    cli(server.port, command);
    assert_int_equal(get(&p, 1)->error, ML_E_UNAVAILABLE);
    static const char odd[] = "%s%n\r\nFLUSHALL\r\n \0 {x}";
    struct ml_digest other = digest_of(2);
    struct ml_session_put what = {&other, ml_str(odd, sizeof odd), ml_wall_ms() + 60000, 1, 0, NULL,
                                  0};
    redis->put(p.link, &what, on_got, begin(&p));
    assert_true(wait_for(&p)->found);
    assert_true(get(&p, 2)->found);
    assert_int_equal(last.n, sizeof odd);
    assert_memory_equal(last.value, odd, sizeof odd);
    place_close(&p);
}

static void sizes(void **state)
{
    static char big[ML_SESSION_VALUE_MAX + 1];
    struct place p;
    struct ml_digest d = digest_of(1);
    open_plain(&p);
    memset(big, 'x', sizeof big);
    struct ml_session_put what = {
        &d, ml_str(big, ML_SESSION_VALUE_MAX), ml_wall_ms() + 60000, 1, 0, NULL, 0};
    redis->put(p.link, &what, on_got, begin(&p));
    assert_true(wait_for(&p)->found);
    assert_true(get(&p, 1)->found);
    assert_int_equal(last.n, ML_SESSION_VALUE_MAX);
    what.value.n++;
    redis->put(p.link, &what, on_got, begin(&p));
    assert_int_equal(wait_for(&p)->error, ML_E_TOOBIG);
    place_close(&p);
}

static void kills(void **state)
{
    struct place p;
    open_plain(&p);
    for (unsigned i = 1; i <= 3; i++)
        assert_true(put_indexed(&p, i, "v", 1, 0, 60000, 100)->found);
    assert_true(put_indexed(&p, 4, "v", 1, 0, 60000, 200)->found);
    assert_true(remove_one(&p, 2)->found);
    assert_int_equal(kill_all(&p, 100)->error, 0);
    assert_int_equal(last.key_count, 2);
    struct ml_digest one = digest_of(1), three = digest_of(3);
    bool in_order = memcmp(&last.keys[0], &one, sizeof one) == 0;
    assert_memory_equal(&last.keys[in_order ? 0 : 1], &one, sizeof one);
    assert_memory_equal(&last.keys[in_order ? 1 : 0], &three, sizeof three);
    for (unsigned i = 1; i <= 3; i++)
        assert_false(get(&p, i)->found);
    assert_true(get(&p, 4)->found);
    assert_int_equal(kill_all(&p, 100)->key_count, 0);
    assert_int_equal(kill_all(&p, 101)->key_count, 0); /* its other index: they are gone already */
    assert_int_equal(kill_all(&p, 999)->error, 0);
    assert_int_equal(last.key_count, 0);
    /* One that comes back under the same key is found again. */
    assert_true(put_indexed(&p, 2, "v", 1, 0, 60000, 100)->found);
    assert_int_equal(kill_all(&p, 101)->key_count, 1);
    place_close(&p);
}

/* More than a batch, and a whole batch before them whose records are gone. */
static void kills_many(void **state)
{
    enum { N = 700 };
    struct place p;
    open_plain(&p);
    for (unsigned i = 0; i < N; i++)
        assert_true(put_indexed(&p, 1000 + i, "v", 1, 0, 60000 + i, 100)->found);
    for (unsigned i = 0; i < 300; i++)
        assert_true(remove_one(&p, 1000 + i)->found);
    assert_int_equal(kill_all(&p, 100)->error, 0);
    assert_int_equal(last.key_count, N - 300);
    assert_null(strstr(cli(server.port, "--scan --pattern 'moonlatch:s:*'"), "moonlatch"));
    place_close(&p);
}

/* The index has no entry that is over, and ends with its last. */
static void index_ends(void **state)
{
    struct place p;
    char command[128], hex[65];
    struct ml_digest d = digest_of(100);
    ml_digest_hex(&d, hex);
    open_plain(&p);
    put_indexed(&p, 1, "v", 1, 0, 100, 100);
    put_indexed(&p, 2, "v", 1, 0, 60000, 100);
    put_indexed(&p, 3, "v", 1, 0, 30000, 100);
    snprintf(command, sizeof command, "PTTL moonlatch:i:%s", hex);
    long ttl = atol(cli(server.port, command));
    assert_in_range(ttl, 55000, 60000);
    run_for(&p.w, 120);
    put_indexed(&p, 4, "v", 1, 0, 30000, 100);
    snprintf(command, sizeof command, "ZCARD moonlatch:i:%s", hex);
    assert_int_equal(atol(cli(server.port, command)), 3);
    place_close(&p);
}

static void locks(void **state)
{
    struct place p, q;
    open_plain(&p);
    place_open(&q, (struct ml_redis_options){.addresses = at_port(server.port)});
    assert_true(lock(&p, 1, 5000)->found);
    assert_false(lock(&q, 1, 5000)->found);
    assert_int_equal(last.error, 0);
    assert_false(lock(&p, 1, 5000)->found); /* not even ours again */
    unlock(&q, 1);                          /* it is not his */
    assert_false(lock(&q, 1, 5000)->found);
    assert_true(lock(&q, 2, 5000)->found);
    unlock(&p, 1);
    assert_true(lock(&q, 1, 5000)->found);
    unlock(&q, 1);
    /* What is over belongs to the next one, and its first owner cannot open it. */
    assert_true(lock(&p, 3, 50)->found);
    run_for(&p.w, 70);
    assert_true(lock(&q, 3, 5000)->found);
    unlock(&p, 3);
    assert_false(lock(&p, 3, 5000)->found);
    place_close(&q);
    place_close(&p);
}

static void messages(void **state)
{
    struct place p, q;
    struct heard mine = {0}, others = {0};
    static char big[4097];
    open_plain(&p);
    place_open(&q, (struct ml_redis_options){.addresses = at_port(server.port)});
    redis->on_message(p.link, on_message, &mine);
    redis->on_message(q.link, on_message, &others);
    WAIT_FOR(&p.w, mine.lost == 1, 3000);
    WAIT_FOR(&q.w, others.lost == 1, 3000);
    redis->publish(p.link, ML_STR("gone\r\n%s"));
    WAIT_FOR(&p.w, mine.count == 1, 3000);
    WAIT_FOR(&q.w, others.count == 1, 3000);
    assert_string_equal(others.text, "gone\r\n%s");
    memset(big, 'x', sizeof big);
    redis->publish(p.link, ml_str(big, 4096));
    WAIT_FOR(&p.w, mine.count == 2, 3000);
    redis->publish(p.link, ml_str(big, 4097)); /* nobody's: too long */
    redis->publish(p.link, ML_STR("next"));
    WAIT_FOR(&p.w, mine.count == 3, 3000);
    assert_string_equal(mine.text, "next");
    place_close(&q);
    place_close(&p);
}

/* What could not be said is said later. */
static void messages_wait(void **state)
{
    struct place p;
    struct server s;
    struct heard heard = {0};
    server_start(&s, "--databases", "2");
    place_open(&p, (struct ml_redis_options){.addresses = at_port(s.port)});
    redis->on_message(p.link, on_message, &heard);
    WAIT_FOR(&p.w, heard.lost == 1, 3000);
    server_kill(&s);
    WAIT_FOR(&p.w, heard.lost == 2, 3000);
    redis->publish(p.link, ML_STR("said while it was down"));
    for (int i = 0; i < 100; i++) /* 64 wait, the rest is given up */
        redis->publish(p.link, ML_STR("too much"));
    server_run(&s);
    WAIT_FOR(&p.w, heard.count >= 64, 3000);
    run_for(&p.w, 300);
    assert_int_equal(heard.count, 64);
    server_kill(&s);
    WAIT_FOR(&p.w, heard.lost == 4, 3000);
    redis->publish(p.link, ML_STR("never"));
    place_close(&p);
    server_stop(&s);
}

/* S-420, S-421: an outage is an error, never "not found". */
static void outage(void **state)
{
    struct place p;
    struct ml_err err = {0};
    struct ml_digest d = digest_of(1);
    struct server s;
    server_start(&s, "--databases", "2");
    place_open(&p, (struct ml_redis_options){.addresses = at_port(s.port)});
    assert_true(put_indexed(&p, 1, "v", 1, 0, 60000, 100)->found);
    WAIT_FOR(&p.w, redis->ready(p.link, &err), 3000);
    server_kill(&s);
    assert_int_equal(get(&p, 1)->error, ML_E_UNAVAILABLE);
    assert_false(last.found);
    assert_int_equal(put_indexed(&p, 2, "v", 1, 0, 60000, 100)->error, ML_E_UNAVAILABLE);
    assert_int_equal(put(&p, 2, "v", 2, 1, 60000)->error, ML_E_UNAVAILABLE);
    assert_int_equal(remove_one(&p, 1)->error, ML_E_UNAVAILABLE);
    assert_int_equal(kill_all(&p, 100)->error, ML_E_UNAVAILABLE);
    assert_int_equal(lock(&p, 1, 1000)->error, ML_E_UNAVAILABLE);
    assert_int_not_equal(strlen(last.text), 0);
    redis->publish(p.link, ML_STR("x"));
    assert_false(redis->ready(p.link, &err));
    server_run(&s);
    WAIT_FOR(&p.w, redis->ready(p.link, &err), 3000);
    assert_int_equal(get(&p, 1)->error, 0);
    assert_false(last.found);
    /* Closed with everything under way. */
    static struct got gets[2], puts, kill;
    struct ml_session_put what = {&d, ML_STR("v"), ml_wall_ms() + 60000, 1, 0, &d, 1};
    redis->get(p.link, &d, on_got, &gets[0]);
    redis->put(p.link, &what, on_got, &puts);
    redis->kill(p.link, &d, on_got, &kill);
    redis->lock(p.link, &d, 1000, on_got, &gets[1]);
    place_close(&p);
    assert_int_equal(gets[0].error, ML_E_CANCELED);
    assert_int_equal(gets[1].error, ML_E_CANCELED);
    assert_int_equal(puts.error, ML_E_CANCELED);
    assert_int_equal(kill.error, ML_E_CANCELED);
    server_stop(&s);
}

/* S-424: what was evicted is not found; what is full says so. */
static void eviction(void **state)
{
    struct place p;
    struct server s;
    char big[30000];
    unsigned found = 0, written = 0;
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    server_start(&s, "--maxmemory", "4mb", "--maxmemory-policy", "allkeys-lru");
    place_open(&p, (struct ml_redis_options){.addresses = at_port(s.port)});
    for (unsigned i = 0; i < 300; i++) {
        memcpy(big, &i, sizeof i);
        struct ml_digest d = digest_of(i);
        struct ml_session_put what = {&d, ml_str(big, sizeof big), ml_wall_ms() + 60000, 1, 0, NULL,
                                      0};
        redis->put(p.link, &what, on_got, begin(&p));
        written += wait_for(&p)->found;
    }
    assert_int_equal(written, 300);
    for (unsigned i = 0; i < 300; i++) {
        assert_int_equal(get(&p, i)->error, 0);
        found += last.found;
        if (last.found)
            assert_int_equal(last.n, sizeof big);
    }
    assert_in_range(found, 1, 250);
    cli(s.port, "CONFIG SET maxmemory-policy noeviction");
    cli(s.port, "CONFIG SET maxmemory 1");
    assert_int_equal(put(&p, 1000, "v", 1, 0, 60000)->error, ML_E_UNAVAILABLE);
    assert_non_null(strstr(last.text, "OOM"));
    assert_int_equal(put_indexed(&p, 1000, "v", 1, 0, 60000, 5)->error, ML_E_UNAVAILABLE);
    place_close(&p);
    server_stop(&s);
}

/* The least that a Redis user must be allowed, as session_redis.c says it; and no more than one
 * command a get. */
static void least_rights(void **state)
{
    struct place p;
    struct heard heard = {0};
    cli(server.port, "FLUSHALL");
    assert_non_null(strstr(
        cli(server.port, "ACL SETUSER ml on '>pw' resetchannels '~moonlatch:*' '&moonlatch:events' "
                         "-@all +get +set +del +eval +zadd +zrange +zrem +zremrangebyscore "
                         "+pexpireat +publish +subscribe +ping +select"),
        "OK"));
    place_open(&p, (struct ml_redis_options){
                       .addresses = at_port(server.port), .user = "ml", .password = "pw", .db = 1});
    redis->on_message(p.link, on_message, &heard);
    assert_true(put_indexed(&p, 1, "v", 1, 0, 60000, 100)->found);
    assert_true(put_indexed(&p, 1, "w", 2, 1, 60000, 100)->found);
    assert_true(lock(&p, 1, 1000)->found);
    unlock(&p, 1);
    assert_true(lock(&p, 1, 1000)->found);
    WAIT_FOR(&p.w, heard.lost == 1, 3000);
    redis->publish(p.link, ML_STR("x"));
    WAIT_FOR(&p.w, heard.count == 1, 3000);
    cli(server.port, "CONFIG RESETSTAT");
    for (int i = 0; i < 10; i++)
        assert_true(get(&p, 1)->found);
    const char *stats = cli(server.port, "INFO commandstats");
    assert_non_null(strstr(stats, "cmdstat_get:calls=10,"));
    assert_null(strstr(stats, "cmdstat_eval"));
    assert_int_equal(kill_all(&p, 100)->key_count, 1);
    assert_true(put(&p, 2, "v", 1, 0, 60000)->found);
    assert_true(remove_one(&p, 2)->found);
    cli(server.port, "ACL DELUSER ml");
    place_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records),        cmocka_unit_test(ends),
        cmocka_unit_test(foreign_values), cmocka_unit_test(sizes),
        cmocka_unit_test(kills),          cmocka_unit_test(kills_many),
        cmocka_unit_test(index_ends),     cmocka_unit_test(locks),
        cmocka_unit_test(messages),       cmocka_unit_test(messages_wait),
        cmocka_unit_test(least_rights),   cmocka_unit_test(outage),
        cmocka_unit_test(eviction),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, start, stop);
}
