/* Sessions in a real Redis Cluster of three nodes on loopback: slots that move, a node that dies.
 */
#include "c/store/redis_place.h"
#include "client/redis_internal.h"

static struct server nodes[3];
static char addresses[128];

static int start(void **state)
{
    char create[256], port[8];
    for (size_t i = 0; i < 3; i++) {
        snprintf(port, sizeof port, "%d", free_port());
        server_start(&nodes[i], "--cluster-enabled", "yes", "--cluster-port", port,
                     "--cluster-node-timeout", "500", "--cluster-require-full-coverage", "no");
    }
    snprintf(create, sizeof create,
             "redis-cli --cluster create 127.0.0.1:%d 127.0.0.1:%d 127.0.0.1:%d --cluster-yes "
             ">/dev/null",
             nodes[0].port, nodes[1].port, nodes[2].port);
    assert_int_equal(system(create), 0);
    for (size_t i = 0; i < 3; i++)
        for (int t = 0; t < 200 && !strstr(cli(nodes[i].port, "CLUSTER INFO"), "state:ok"); t++)
            usleep(20000);
    /* The middle one is named, and one where nobody is. */
    snprintf(addresses, sizeof addresses, "127.0.0.1:1,127.0.0.1:%d", nodes[1].port);
    return 0;
}

static int stop(void **state)
{
    for (size_t i = 0; i < 3; i++)
        server_stop(&nodes[i]);
    return 0;
}

static void open_cluster(struct place *p)
{
    struct ml_err err = {0};
    place_open(p, (struct ml_redis_options){.addresses = addresses, .mode = ML_REDIS_CLUSTER});
    WAIT_FOR(&p->w, redis->ready(p->link, &err), 3000);
}

static void spreads(void **state)
{
    struct place p;
    open_cluster(&p);
    for (unsigned i = 0; i < 60; i++) {
        assert_true(put_indexed(&p, i, "v", 1, 0, 60000, 100)->found);
        assert_true(put(&p, i, "w", 2, 1, 60000)->found);
    }
    for (unsigned i = 0; i < 60; i++) {
        assert_true(get(&p, i)->found);
        assert_int_equal(last.error, 0);
    }
    for (size_t i = 0; i < 3; i++)
        assert_in_range(atol(cli(nodes[i].port, "DBSIZE")), 5, 55);
    assert_true(lock(&p, 5, 5000)->found);
    assert_false(lock(&p, 5, 5000)->found);
    unlock(&p, 5);
    assert_true(lock(&p, 5, 5000)->found);
    assert_true(remove_one(&p, 7)->found);
    assert_int_equal(kill_all(&p, 100)->key_count, 59);
    for (unsigned i = 0; i < 60; i++)
        assert_false(get(&p, i)->found);
    place_close(&p);
}

/* Commands do not wait for the map: whoever is there says where to go. */
static void starts_without_a_map(void **state)
{
    struct place p;
    place_open(&p, (struct ml_redis_options){.addresses = addresses, .mode = ML_REDIS_CLUSTER});
    static struct got results[10];
    for (unsigned i = 0; i < 10; i++) {
        struct ml_digest d = digest_of(500 + i);
        redis->get(p.link, &d, on_got, &results[i]);
    }
    unsigned good = 0;
    for (unsigned i = 0; i < 10; i++) {
        WAIT_FOR(&p.w, results[i].done, 3000);
        good += results[i].error == 0;
    }
    assert_true(good > 0); /* the first address refuses what goes there */
    place_close(&p);
}

static size_t owner_of(int slot)
{
    /* redis-cli --cluster create deals them out in order, in thirds. */
    return slot <= 5460 ? 0 : slot <= 10922 ? 1 : 2;
}

static int slot_of_record(unsigned key)
{
    struct ml_digest d = digest_of(key);
    char hex[65], text[96];
    ml_digest_hex(&d, hex);
    int n = snprintf(text, sizeof text, "moonlatch:s:%s", hex);
    return ml_redis_slot_of(ml_str(text, (size_t)n));
}

static void id_of(size_t node, char out[41])
{
    snprintf(out, 41, "%.40s", cli(nodes[node].port, "CLUSTER MYID"));
}

static void set_slot(size_t at, int slot, const char *what, size_t node)
{
    char command[128], id[41];
    id_of(node, id);
    snprintf(command, sizeof command, "CLUSTER SETSLOT %d %s %s", slot, what, id);
    assert_non_null(strstr(cli(nodes[at].port, command), "OK"));
}

/* A slot that moves: ASK while it does, MOVED when it has. */
static void slot_moves(void **state)
{
    struct place p;
    unsigned key = 700;
    open_cluster(&p);
    int slot = slot_of_record(key);
    size_t from = owner_of(slot), to = (from + 1) % 3;
    set_slot(to, slot, "IMPORTING", from);
    set_slot(from, slot, "MIGRATING", to);
    assert_false(get(&p, key)->found);
    assert_int_equal(last.error, 0);
    assert_true(put(&p, key, "moved", 1, 0, 60000)->found);
    assert_true(get(&p, key)->found);
    assert_int_equal(atol(cli(nodes[to].port, "DBSIZE")) > 0, 1);
    set_slot(to, slot, "NODE", to);
    set_slot(from, slot, "NODE", to);
    assert_true(get(&p, key)->found);
    assert_memory_equal(last.value, "moved", 5);
    run_for(&p.w, 500); /* the map is asked for again, and agrees */
    assert_true(get(&p, key)->found);
    place_close(&p);
}

/* One node dies: its third is unavailable, the rest works; messages are heard on any. */
static void node_dies(void **state)
{
    struct place p, q;
    struct heard heard[2] = {0};
    struct ml_err err = {0};
    unsigned of[3] = {0}; /* a key of each node */
    open_cluster(&p);
    open_cluster(&q);
    redis->on_message(p.link, on_message, &heard[0]);
    redis->on_message(q.link, on_message, &heard[1]);
    WAIT_FOR(&p.w, heard[0].lost == 1, 3000);
    WAIT_FOR(&q.w, heard[1].lost == 1, 3000);
    redis->publish(p.link, ML_STR("hello"));
    WAIT_FOR(&p.w, heard[0].count == 1, 3000);
    WAIT_FOR(&q.w, heard[1].count == 1, 3000);
    place_close(&q);
    for (unsigned i = 800; i < 860; i++)
        of[owner_of(slot_of_record(i))] = i;
    for (size_t i = 0; i < 3; i++)
        assert_true(put(&p, of[i], "v", 1, 0, 60000)->found);
    server_kill(&nodes[2]);
    assert_int_equal(get(&p, of[2])->error, ML_E_UNAVAILABLE);
    assert_true(get(&p, of[0])->found);
    assert_true(get(&p, of[1])->found);
    assert_false(redis->ready(p.link, &err));
    run_for(&p.w, 800); /* now the others say so as well */
    assert_int_not_equal(get(&p, of[2])->error, 0);
    assert_true(get(&p, of[0])->found);
    server_run(&nodes[2]);
    WAIT_FOR(&p.w, get(&p, of[2])->error == 0, 4000);
    assert_false(last.found); /* it has no disk */
    WAIT_FOR(&p.w, redis->ready(p.link, &err), 4000);
    place_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spreads),
        cmocka_unit_test(starts_without_a_map),
        cmocka_unit_test(slot_moves),
        cmocka_unit_test(node_dies),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, start, stop);
}
