/* Sessions in Redis behind three real sentinels: a master that dies, one that is sent away, and
 * sentinels that are gone. */
#include "c/store/redis_place.h"

static struct server servers[3], sentinels[3]; /* the first is master at first */
static char addresses[128];

static void start_sentinel(struct server *s)
{
    char path[96];
    memset(s, 0, sizeof *s);
    s->port = free_port();
    snprintf(s->dir, sizeof s->dir, "/tmp/ml-redis-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    snprintf(path, sizeof path, "%s/sentinel.conf", s->dir);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    fprintf(file,
            "port %d\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 %d 2\n"
            "sentinel auth-pass mymaster hunter2\nsentinel down-after-milliseconds mymaster 800\n"
            "sentinel failover-timeout mymaster 2500\n",
            s->port, servers[0].port);
    fclose(file);
    static const char *const words[] = {"redis-server", "sentinel.conf", "--sentinel"};
    for (size_t i = 0; i < 3; i++)
        snprintf(s->words[s->count++], 128, "%s", words[i]);
    server_run(s);
}

/* Both replicas have what the master has. */
static bool linked(void)
{
    unsigned count = 0;
    for (size_t i = 0; i < 3; i++)
        count += strstr(cli(servers[i].port, "--no-auth-warning -a hunter2 INFO replication"),
                        "master_link_status:up") != NULL;
    return count == 2;
}

/* All sentinels know two others and both replicas. */
static bool ready_to_fail_over(void)
{
    for (size_t i = 0; i < 3; i++) {
        if (!strstr(cli(sentinels[i].port, "SENTINEL CKQUORUM mymaster"), "OK 3 usable") ||
            !strstr(cli(sentinels[i].port, "SENTINEL MASTER mymaster"), "num-slaves\n2"))
            return false;
    }
    return true;
}

static struct server *master_now(size_t sentinel)
{
    const char *said = cli(sentinels[sentinel].port, "SENTINEL get-master-addr-by-name mymaster");
    for (size_t i = 0; i < 3; i++) {
        char port[16];
        snprintf(port, sizeof port, "\n%d\n", servers[i].port);
        if (strstr(said, port))
            return &servers[i];
    }
    fail_msg("%s", said);
    return NULL;
}

static int start(void **state)
{
    char port[8];
    server_start(&servers[0], "--requirepass", "hunter2", "--masterauth", "hunter2",
                 "--repl-diskless-sync-delay", "0");
    snprintf(port, sizeof port, "%d", servers[0].port);
    for (size_t i = 1; i < 3; i++)
        server_start(&servers[i], "--requirepass", "hunter2", "--masterauth", "hunter2",
                     "--replicaof", "127.0.0.1", port, "--repl-diskless-sync-delay", "0");
    for (int i = 0; i < 150 && !linked(); i++)
        usleep(20000);
    for (size_t i = 0; i < 3; i++) /* they look at replicas when they start, then each 10 s */
        start_sentinel(&sentinels[i]);
    snprintf(addresses, sizeof addresses, "127.0.0.1:%d,127.0.0.1:%d, 127.0.0.1:%d",
             sentinels[0].port, sentinels[1].port, sentinels[2].port);
    for (int i = 0; i < 150 && !ready_to_fail_over(); i++)
        usleep(50000);
    assert_true(ready_to_fail_over());
    return 0;
}

static int stop(void **state)
{
    for (size_t i = 0; i < 3; i++) {
        server_stop(&sentinels[i]);
        server_stop(&servers[i]);
    }
    return 0;
}

static void open_by_sentinels(struct place *p, const char *name)
{
    place_open(p, (struct ml_redis_options){.addresses = addresses,
                                            .mode = ML_REDIS_SENTINEL,
                                            .master = name,
                                            .password = "hunter2"});
}

/* Until a put is taken; how long that took. */
static uint64_t put_until(struct place *p, unsigned key, uint64_t ms)
{
    uint64_t start_ms = ml_mono_ms();
    while (!put(p, key, "v", 1, 0, 60000)->found) {
        if (ml_mono_ms() - start_ms > ms)
            fail_msg("no write after %llu ms: %s", (unsigned long long)ms, last.text);
        assert_int_not_equal(last.error, 0);
        run_for(&p->w, 10);
    }
    return ml_mono_ms() - start_ms;
}

static void unknown_master(void **state)
{
    struct place p;
    struct ml_err err = {0};
    open_by_sentinels(&p, "nobody");
    assert_int_not_equal(get(&p, 1)->error, 0);
    WAIT_FOR(&p.w, get(&p, 1)->error == ML_E_UNAVAILABLE, 3000);
    assert_non_null(strstr(last.text, "knows no master"));
    assert_false(redis->ready(p.link, &err));
    assert_non_null(strstr(err.text, "knows no master"));
    place_close(&p);
}

static void wait_for_agreement(const struct server *not_him)
{
    for (int i = 0; i < 200; i++) {
        struct server *master = master_now(0);
        if (master != not_him && master_now(1) == master && master_now(2) == master)
            return;
        usleep(30000);
    }
    fail_msg("the sentinels do not agree");
}

static bool has(const struct server *s, unsigned key)
{
    struct ml_digest d = digest_of(key);
    char hex[65], command[160];
    ml_digest_hex(&d, hex);
    snprintf(command, sizeof command, "--no-auth-warning -a hunter2 EXISTS moonlatch:s:%s", hex);
    return atol(cli(s->port, command)) == 1;
}

static bool publish_until(struct place *p, const struct heard *heard, uint64_t ms)
{
    for (uint64_t until = ml_mono_ms() + ms; ml_mono_ms() < until && heard->count == 0;) {
        redis->publish(p->link, ML_STR("hello"));
        run_for(&p->w, 50);
    }
    return heard->count > 0;
}

/* The master is told to go while it works: the sentinels' message is followed. */
static void is_sent_away(void **state)
{
    struct place p;
    struct ml_err err = {0};
    struct heard heard = {0};
    open_by_sentinels(&p, "mymaster");
    redis->on_message(p.link, on_message, &heard);
    put_until(&p, 50, 2000);
    struct server *before = master_now(0);
    assert_non_null(strstr(cli(sentinels[0].port, "SENTINEL FAILOVER mymaster"), "OK"));
    for (int i = 0; i < 150 && master_now(0) == before; i++)
        run_for(&p.w, 20);
    assert_ptr_not_equal(master_now(0), before);
    unsigned key = 51; /* the old one takes writes for some seconds more */
    for (; key < 100 && !has(master_now(0), key); run_for(&p.w, 20))
        put_until(&p, ++key, 1000);
    assert_in_range(key, 52, 99);
    assert_true(publish_until(&p, &heard, 2000)); /* on the new one, not on the old */
    WAIT_FOR(&p.w, redis->ready(p.link, &err), 3000);
    place_close(&p);
}

/* The master dies. */
static void fails_over(void **state)
{
    struct place p;
    struct ml_err err = {0};
    struct heard heard = {0};
    wait_for_agreement(NULL);
    open_by_sentinels(&p, "mymaster");
    redis->on_message(p.link, on_message, &heard);
    put_until(&p, 1, 2000);
    assert_true(put_indexed(&p, 2, "two", 1, 0, 60000, 100)->found);
    WAIT_FOR(&p.w, redis->ready(p.link, &err), 3000);
    WAIT_FOR(&p.w, heard.lost > 0, 3000);
    run_for(&p.w, 300); /* replicated */
    struct server *dead = master_now(0);
    server_kill(dead);
    assert_int_equal(get(&p, 1)->error, ML_E_UNAVAILABLE);
    unsigned lost = heard.lost;
    print_message("fail-over: %llu ms\n", (unsigned long long)put_until(&p, 3, 12000));
    assert_true(get(&p, 2)->found);
    assert_memory_equal(last.value, "two", 3);
    WAIT_FOR(&p.w, heard.lost > lost, 3000);
    assert_true(publish_until(&p, &heard, 3000));
    WAIT_FOR(&p.w, redis->ready(p.link, &err), 3000);
    assert_int_equal(kill_all(&p, 100)->key_count, 1);
    place_close(&p);
    wait_for_agreement(dead);
    server_run(dead); /* back, and not asked */
    open_by_sentinels(&p, "mymaster");
    put_until(&p, 4, 3000);
    assert_false(get(&p, 2)->found);
    /* Not key 3: on a busy machine the sentinels may move on once more, and Redis replicates late.
     */
    assert_true(get(&p, 4)->found);
    place_close(&p);
}

/* Who has a master needs no sentinel; who asks is told. */
static void sentinels_gone(void **state)
{
    struct place p, q;
    open_by_sentinels(&p, "mymaster");
    put_until(&p, 60, 2000);
    server_kill(&sentinels[0]);
    server_kill(&sentinels[2]);
    open_by_sentinels(&q, "mymaster"); /* one of three is enough to ask */
    put_until(&q, 61, 2000);
    place_close(&q);
    server_kill(&sentinels[1]);
    run_for(&p.w, 200);
    assert_true(put(&p, 62, "v", 1, 0, 60000)->found);
    open_by_sentinels(&q, "mymaster");
    assert_int_equal(get(&q, 60)->error, ML_E_UNAVAILABLE); /* known before its time is over */
    assert_non_null(strstr(last.text, "connection refused"));
    place_close(&q);
    place_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_master),
        cmocka_unit_test(is_sent_away),
        cmocka_unit_test(fails_over),
        cmocka_unit_test(sentinels_gone),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, start, stop);
}
