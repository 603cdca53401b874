/* The Redis client and what nodes of a cluster may say: redirections and maps, honest or not. A
 * real cluster is in store/session_redis_cluster_test.c. */
#include "c/client/redis_support.h"
#include "client/redis_internal.h"

/* CRC-16 and hash tags, by the examples of Redis' cluster specification. */
static void slots(void **state)
{
    assert_int_equal(ml_redis_slot_of(ML_STR("123456789")), 0x31C3);
    assert_int_equal(ml_redis_slot_of(ML_STR("")), 0);
    assert_int_equal(ml_redis_slot_of(ML_STR("foo")), 12182);
    assert_int_equal(ml_redis_slot_of(ML_STR("{foo}.bar")), 12182);
    assert_int_equal(ml_redis_slot_of(ML_STR("a{foo}{bar}")), 12182);
    assert_int_equal(ml_redis_slot_of(ML_STR("foo{}{bar}")),
                     ml_redis_slot_of(ML_STR("foo{}{bar}")));
    assert_int_not_equal(ml_redis_slot_of(ML_STR("foo{}{bar}")), ml_redis_slot_of(ML_STR("bar")));
    assert_int_equal(ml_redis_slot_of(ML_STR("foo{{bar}}zap")), ml_redis_slot_of(ML_STR("{bar")));
}

static struct fake east, west;
static const char *east_says; /* to a GET; %d: the port of the west */
static unsigned asking, maps_asked;

/* The east has all slots, as far as both say. */
static bool say_map(struct fake_peer *p, const struct ml_str *words)
{
    char text[128];
    if (!word_is(words[0], "CLUSTER"))
        return false;
    maps_asked++;
    snprintf(text, sizeof text, "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:%d\r\n", east.port);
    say(p, text);
    return true;
}

static void answer_east(struct fake_peer *p, const struct ml_str *words, size_t count)
{
    char text[256];
    if (greet(p, words, count) || say_map(p, words))
        return;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(text, sizeof text, east_says, west.port);
#pragma GCC diagnostic pop
    say(p, text);
}

static void answer_west(struct fake_peer *p, const struct ml_str *words, size_t count)
{
    char text[64];
    if (greet(p, words, count) || say_map(p, words))
        return;
    if (word_is(words[0], "ASKING")) {
        asking++;
        say(p, "+OK\r\n");
    } else if (word_is(words[1], "back")) {
        snprintf(text, sizeof text, "-MOVED 1 127.0.0.1:%d\r\n", east.port);
        say(p, text);
    } else {
        say(p, "+west\r\n");
    }
}

static void open_cluster(struct world *w)
{
    world_loop(w);
    fake_start(&east, &w->loop, answer_east);
    fake_start(&west, &w->loop, answer_west);
    world_connect(
        w, (struct ml_redis_options){.addresses = at_port(east.port), .mode = ML_REDIS_CLUSTER});
}

static void redirections(void **state)
{
    static const struct {
        const char *says, *command, *want; /* want: of the error; NULL: the west answers */
    } cases[] = {
        {"-ASK 1 127.0.0.1:%d\r\n", "GET k", NULL},
        {"-MOVED 1 127.0.0.1:%d\r\n", "GET k", NULL},
        {"-MOVED 1 :%d\r\n", "GET k", NULL},                        /* "the host that you asked" */
        {"-MOVED 1 127.0.0.1:%d\r\n", "GET back", "answers MOVED"}, /* for ever */
        {"-MOVED 16384 127.0.0.1:%d\r\n", "GET k", "answers MOVED"},
        {"-MOVED -1 127.0.0.1:%d\r\n", "GET k", "answers MOVED"},
        {"-MOVED 1 127.0.0.1:0%d0\r\n", "GET k", "answers MOVED"},
        {"-MOVED 1 a b:%d\r\n", "GET k", "answers MOVED"},
        {"-MOVED 1\r\n", "GET k", "answers MOVED"},
        {"-MOVED\r\n", "GET k", "answers MOVED"},
        {"-ASK x\r\n", "GET k", "answers ASK"},
        {"-CLUSTERDOWN The cluster is down\r\n", "GET k", "answers CLUSTERDOWN"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct world w;
        struct ml_err err = {0};
        east_says = cases[i].says;
        asking = maps_asked = 0;
        open_cluster(&w);
        WAIT_FOR(&w, ml_redis_ready(w.redis, &err), 3000);
        struct answer a = ask(&w, cases[i].command);
        if (cases[i].want ? !strstr(a.text, cases[i].want) : a.error != 0)
            fail_msg("%s: %s", cases[i].says, a.text);
        assert_int_equal(asking, strncmp(cases[i].says, "-ASK 1", 6) == 0 ? 1 : 0);
        if (!cases[i].want && !asking) /* it moved: the whole map is asked for again, once */
            WAIT_FOR(&w, maps_asked > 1, 3000);
        assert_int_equal(maps_asked, !cases[i].want && !asking ? 2 : 1);
        fake_stop(&east);
        close_fake(&w, &west);
    }
}

/* 64 nodes are the most; one more is not followed. */
static void many_nodes(void **state)
{
    struct world w;
    char says[64];
    unsigned refused = 0;
    east_says = says;
    open_cluster(&w);
    for (int i = 0; i < 80; i++) {
        snprintf(says, sizeof says, "-ASK 1 127.0.1.%d:1\r\n", i + 1);
        struct answer a = ask(&w, "GET k");
        assert_int_equal(a.error, ML_E_UNAVAILABLE);
        refused += strstr(a.text, "answers ASK") != NULL;
    }
    assert_in_range(refused, 1, 79);
    fake_stop(&east);
    close_fake(&w, &west);
}

static const char *map;

static void answer_map(struct fake_peer *p, const struct ml_str *words, size_t count)
{
    if (!greet(p, words, count))
        say(p, word_is(words[0], "CLUSTER") ? map : "+good\r\n");
}

/* A map that is none: not ready, and what the first nodes say goes. */
static void hostile_maps(void **state)
{
    static const char *const maps[] = {
        "*0\r\n",
        "+OK\r\n",
        "*-1\r\n",
        "-ERR This instance has cluster support disabled\r\n",
        "*1\r\n:1\r\n",
        "*1\r\n*2\r\n:0\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\na\r\n:1\r\n",
        "*1\r\n*3\r\n:-1\r\n:10\r\n*2\r\n$1\r\na\r\n:1\r\n",
        "*1\r\n*3\r\n:10\r\n:1\r\n*2\r\n$1\r\na\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:9223372036854775807\r\n*2\r\n$1\r\na\r\n:1\r\n",
        "*1\r\n*3\r\n:-9223372036854775807\r\n:9223372036854775807\r\n*2\r\n$1\r\na\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\na\r\n:0\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$3\r\na b\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*1\r\n$1\r\na\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n$1\r\na\r\n",
        "*2\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:1\r\n"
        "*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:1\r\n",
    };
    for (size_t i = 0; i < sizeof maps / sizeof maps[0]; i++) {
        struct world w;
        struct fake f;
        struct ml_err err = {0};
        map = maps[i];
        world_loop(&w);
        fake_start(&f, &w.loop, answer_map);
        world_connect(
            &w, (struct ml_redis_options){.addresses = at_port(f.port), .mode = ML_REDIS_CLUSTER});
        if (i == 15)
            run_for(&w, 20);
        struct answer a = ask(&w, "GET k");
        if (i < 15 && a.error)
            fail_msg("map %zu: %s", i, a.text);
        run_for(&w, 30);
        assert_false(ml_redis_ready(w.redis, &err));
        close_fake(&w, &f);
    }
}

static int owner; /* the port of who has all slots */

static void answer_owner(struct fake_peer *p, const struct ml_str *words, size_t count)
{
    char text[128];
    if (greet(p, words, count))
        return;
    if (word_is(words[0], "CLUSTER"))
        snprintf(text, sizeof text, "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n",
                 owner);
    else
        snprintf(text, sizeof text, p->fake->port == owner ? "+good\r\n" : "-CLUSTERDOWN no\r\n");
    say(p, text);
}

/* The owner dies and another takes its slots: its replica, which has no slots before. */
static void node_is_replaced(void **state)
{
    struct world w;
    struct ml_err err = {0};
    char addresses[64];
    world_loop(&w);
    fake_start(&east, &w.loop, answer_owner);
    fake_start(&west, &w.loop, answer_owner);
    owner = east.port;
    snprintf(addresses, sizeof addresses, "127.0.0.1:%d,127.0.0.1:%d", east.port, west.port);
    world_connect(&w, (struct ml_redis_options){.addresses = addresses, .mode = ML_REDIS_CLUSTER});
    WAIT_FOR(&w, ml_redis_ready(w.redis, &err), 3000);
    WAIT_FOR(&w, west.gone == 1, 3000); /* nothing to ask it */
    assert_int_equal(ask(&w, "GET k").error, 0);
    fake_stop(&east);
    run_for(&w, 50);
    assert_int_equal(ask(&w, "GET k").error, ML_E_UNAVAILABLE);
    owner = west.port;
    assert_true(ask_until(&w, "GET k", 2000));
    WAIT_FOR(&w, ml_redis_ready(w.redis, &err), 3000);
    close_fake(&w, &west);
}

/* A sentinel and what it names, in one: a replica at first. */
static unsigned roles;

static void answer_both(struct fake_peer *p, const struct ml_str *words, size_t count)
{
    char text[128];
    if (word_is(words[0], "SENTINEL"))
        snprintf(text, sizeof text, "*2\r\n$9\r\n127.0.0.1\r\n$%zu\r\n%d\r\n",
                 (size_t)snprintf(NULL, 0, "%d", p->fake->port), p->fake->port);
    else if (word_is(words[0], "SUBSCRIBE"))
        snprintf(text, sizeof text, "*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n");
    else if (word_is(words[0], "ROLE"))
        snprintf(text, sizeof text, "%s",
                 ++roles <= 3 ? "*1\r\n$5\r\nslave\r\n" : "*1\r\n$6\r\nmaster\r\n");
    else
        snprintf(text, sizeof text, "+good\r\n");
    say(p, text);
}

/* What the sentinel says is not enough: nothing is sent to one that is no master. */
static void sentinel_names_a_replica(void **state)
{
    struct world w;
    struct fake f;
    world_loop(&w);
    fake_start(&f, &w.loop, answer_both);
    world_connect(&w, (struct ml_redis_options){
                          .addresses = at_port(f.port), .mode = ML_REDIS_SENTINEL, .master = "m"});
    struct answer a = ask(&w, "SET k v");
    assert_int_equal(a.error, ML_E_UNAVAILABLE);
    assert_non_null(strstr(a.text, "is not the master"));
    assert_true(ask_until(&w, "SET k v", 1000));
    assert_int_equal(roles, 4);
    close_fake(&w, &f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots),
        cmocka_unit_test(redirections),
        cmocka_unit_test(many_nodes),
        cmocka_unit_test(hostile_maps),
        cmocka_unit_test(node_is_replaced),
        cmocka_unit_test(sentinel_names_a_replica),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
