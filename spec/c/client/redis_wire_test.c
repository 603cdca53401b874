/* The Redis client against a server of ours: hostile replies, refusals, bounds. */
#include "c/client/redis_support.h"

/* Hostile replies (S-170) --------------------------------------------------------------------- */

struct payload {
    const char *text;
    size_t n;       /* 0: a string */
    size_t repeats; /* 0: once */
    int error;      /* 0: the connection is dropped without one */
};

static const struct payload *payload;

static void answer_payload(struct fake_peer *p, const struct ml_str *words, size_t count)
{
    if (greet(p, words, count))
        return;
    if (word_is(words[1], "good")) {
        say(p, "$4\r\ngood\r\n");
        return;
    }
    size_t n = payload->n ? payload->n : strlen(payload->text);
    size_t repeats = payload->repeats ? payload->repeats : 1;
    char *all = ml_xmalloc(n * repeats);
    for (size_t i = 0; i < repeats; i++)
        memcpy(all + i * n, payload->text, n);
    say_n(p, all, n * repeats);
    free(all);
}

static void hostile_replies(void **state)
{
    enum { GONE = ML_E_UNAVAILABLE, LATE = ML_E_TIMEOUT };
    static const struct payload payloads[] = {
        {"*4294967295\r\n", 0, 0, GONE},
        {"*2147483647\r\n", 0, 0, GONE},
        {"*1152921504606846976\r\n", 0, 0, GONE},
        {"*4097\r\n", 0, 0, GONE},
        {"*-2\r\n", 0, 0, GONE},
        {"*x\r\n", 0, 0, GONE},
        {"$-2\r\n", 0, 0, GONE},
        {"$9999999999\r\nx", 0, 0, LATE},
        {"$9223372036854775807\r\nx", 0, 0, LATE},
        {"$99999999999999999999\r\n", 0, 0, GONE},
        {"*1\r\n", 0, 9, GONE},
        {"*1\r\n", 0, 10000, GONE},
        {"*4096\r\n", 0, 8, GONE},
        {"+endless", 0, 40000, GONE},
        {"$300000\r\n0123456789", 0, 40000, GONE},
        {"*2\r\n$5\r\nabcde\r\n$", 0, 0, LATE},
        {"$5\r\nab", 0, 0, LATE},
        {"*2\r\n:1\r\n", 0, 0, LATE},
        {"%1\r\n+a\r\n+b\r\n", 0, 0, GONE},
        {">2\r\n+a\r\n+b\r\n", 0, 0, GONE},
        {"~1\r\n+a\r\n", 0, 0, GONE},
        {"|1\r\n+a\r\n+b\r\n", 0, 0, GONE},
        {"#t\r\n", 0, 0, GONE},
        {",1.5\r\n", 0, 0, GONE},
        {"(123\r\n", 0, 0, GONE},
        {"=5\r\ntxt:a\r\n", 0, 0, GONE},
        {"HTTP/1.1 400 Bad Request\r\n", 0, 0, GONE},
        {"\r\n", 0, 0, GONE},
        {"\0", 1, 0, GONE},
        {"\x16\x03\x01\x02", 0, 0, GONE},
        {"+one\r\n+two\r\n", 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof payloads / sizeof payloads[0]; i++) {
        struct world w;
        struct fake f;
        payload = &payloads[i];
        open_fake(&w, &f, answer_payload);
        assert_int_equal(ask(&w, "GET good").error, 0);
        unsigned gone = f.gone;
        struct answer a = ask(&w, "GET bad");
        if (a.error != payload->error)
            fail_msg("%s: %d %s", payload->text, a.error, a.text);
        WAIT_FOR(&w, f.gone > gone, 3000);
        assert_true(ask_until(&w, "GET good", 3000));
        close_fake(&w, &f);
    }
}

/* While it greets. */
static const char *greeting;

static void answer_greeting(struct fake_peer *p, const struct ml_str *words, size_t count)
{
    say(p, greeting);
}

static void hostile_greetings(void **state)
{
    static const struct {
        const char *answer, *want;
    } cases[] = {
        {"-LOADING Redis is loading\r\n", "answers LOADING to PING"},
        {"-NOAUTH Authentication required.\r\n", "answers NOAUTH to PING"},
        {"-MASTERDOWN Link with MASTER is down\r\n", "answers MASTERDOWN to PING"},
        {"-MISCONF errors writing to disk\r\n", "answers MISCONF to PING"},
        {"-ERR unknown command 'hunter2'\r\n", "answers ERR to PING"},
        {"-hunter2\r\n", "answers ERR to PING"},
        {"-HUNTER2\r\n", "answers ERR to PING"},
        {"-\r\n", "answers ERR to PING"},
        {"-DENIED Redis is running in protected mode\r\n", "answers DENIED to PING"},
        {":1\r\n", "an answer that is none"},
        {"*1\r\n+PONG\r\n", "an answer that is none"},
        {"+PONG\r\n+PONG\r\n", "nobody waits for"},
        {"HTTP/1.1 200 OK\r\n", "malformed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct world w;
        struct fake f;
        greeting = cases[i].answer;
        open_fake(&w, &f, answer_greeting);
        struct answer a = ask(&w, "GET k");
        assert_int_equal(a.error, ML_E_UNAVAILABLE);
        if (!strstr(a.text, cases[i].want) || strstr(a.text, "unter"))
            fail_msg("%s: %s", cases[i].answer, a.text);
        WAIT_FOR(&w, f.connections >= 2, 2000);
        run_for(&w, 100); /* it tries again, and not as fast as it can */
        assert_in_range(f.connections, 2, 9);
        close_fake(&w, &f);
    }
}

static void answer_nothing(struct fake_peer *p, const struct ml_str *words, size_t count)
{
}

/* Commands wait for the connection no longer than their own time, it no longer than its. */
static void silent_greeting(void **state)
{
    struct world w;
    struct fake f;
    struct ml_err err = {0};
    open_fake(&w, &f, answer_nothing);
    uint64_t start = ml_mono_ms();
    assert_int_equal(ask(&w, "GET k").error, ML_E_TIMEOUT);
    assert_in_range(ml_mono_ms() - start, 240, 900);
    assert_false(ml_redis_ready(w.redis, &err));
    close_fake(&w, &f);
    open_fake(&w, &f, answer_nothing);
    start = ml_mono_ms();
    WAIT_FOR(&w, f.gone == 1, 3000);
    assert_in_range(ml_mono_ms() - start, 950, 2000);
    close_fake(&w, &f);
}

static void on_late_greeting(uv_timer_t *timer)
{
    say(timer->data, "+PONG\r\n");
}

static uv_timer_t greeting_timer;

static void answer_slowly(struct fake_peer *p, const struct ml_str *words, size_t count)
{
    if (!word_is(words[0], "PING")) {
        say(p, "+good\r\n");
        return;
    }
    greeting_timer.data = p;
    uv_timer_start(&greeting_timer, on_late_greeting, 500, 0);
}

/* Commands that cannot wait for it do not end it. */
static void slow_greeting(void **state)
{
    struct world w;
    struct fake f;
    open_fake(&w, &f, answer_slowly);
    uv_timer_init(&w.loop, &greeting_timer);
    uint64_t start = ml_mono_ms();
    assert_int_equal(ask(&w, "GET k").error, ML_E_TIMEOUT);
    assert_true(ask_until(&w, "GET k", 3000));
    assert_in_range(ml_mono_ms() - start, 490, 1500);
    assert_int_equal(f.connections, 1);
    uv_close((uv_handle_t *)&greeting_timer, NULL);
    close_fake(&w, &f);
}

static bool said_early;
static struct answer second;
static struct world *early_world;

static void answer_early(struct fake_peer *p, const struct ml_str *words, size_t count)
{
    if (greet(p, words, count))
        return;
    say(p, said_early ? "+good\r\n" : "+one\r\n+two\r\n");
    said_early = true;
}

static void on_first(void *arg, const struct ml_redis_answer *a)
{
    ((struct answer *)arg)->done = true;
    call(early_world, &second, "GET second");
}

/* A reply that was there before its command went is nobody's. */
static void early_reply(void **state)
{
    struct world w;
    struct fake f;
    struct answer first = {0};
    struct ml_str get[] = {ML_STR("GET"), ML_STR("first")};
    open_fake(&w, &f, answer_early);
    early_world = &w;
    assert_int_equal(ask(&w, "PING").error, 0);
    ml_redis_call(w.redis, get, 2, 1, on_first, &first);
    WAIT_FOR(&w, first.done && second.done, 3000);
    assert_int_equal(second.error, ML_E_UNAVAILABLE);
    assert_true(ask_until(&w, "GET third", 3000));
    close_fake(&w, &f);
}

/* Refusals ------------------------------------------------------------------------------------ */

static void answer_key(struct fake_peer *p, const struct ml_str *words, size_t count)
{
    char text[256];
    if (greet(p, words, count))
        return;
    snprintf(text, sizeof text, "-%.*s is what it says about %.*s\r\n", ML_FMT(words[1]),
             ML_FMT(words[1]));
    say(p, word_is(words[1], "good") ? "+good\r\n" : text);
}

/* S-423. */
static void refusals(void **state)
{
    static const struct {
        const char *word;
        bool reconnects;
    } cases[] = {
        {"READONLY", true}, {"MASTERDOWN", true}, {"LOADING", true},      {"NOAUTH", true},
        {"OOM", false},     {"MISCONF", false},   {"CLUSTERDOWN", false}, {"MOVED", false},
        {"ASK", false},     {"TRYAGAIN", false},  {"BUSY", false},        {"NOPERM", false},
        {"ERR", false},     {"WRONGTYPE", false}, {"NOREPLICAS", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct world w;
        struct fake f;
        char command[64], want[64];
        open_fake(&w, &f, answer_key);
        assert_int_equal(ask(&w, "GET good").error, 0);
        snprintf(command, sizeof command, "GET %s", cases[i].word);
        snprintf(want, sizeof want, "answers %s", cases[i].word);
        struct answer a = ask(&w, command);
        assert_int_equal(a.error, ML_E_UNAVAILABLE);
        if (!strstr(a.text, want) || strstr(a.text, "what it says"))
            fail_msg("%s: %s", cases[i].word, a.text);
        assert_true(ask_until(&w, "GET good", 3000));
        assert_int_equal(f.connections, cases[i].reconnects ? 2 : 1);
        close_fake(&w, &f);
    }
}

/* Bounds -------------------------------------------------------------------------------------- */

static void answer_greeting_only(struct fake_peer *p, const struct ml_str *words, size_t count)
{
    greet(p, words, count);
}

static unsigned ended[16];

static void count_end(void *arg, const struct ml_redis_answer *a)
{
    ended[a->error == 0 ? 0 : -a->error]++;
}

static void bounds(void **state)
{
    static char big[64 << 10];
    struct world w;
    struct fake f;
    struct ml_str get[] = {ML_STR("GET"), ML_STR("k")};
    struct ml_str set[] = {ML_STR("SET"), ML_STR("k"), ml_str(big, sizeof big)};
    memset(ended, 0, sizeof ended);
    open_fake(&w, &f, answer_greeting_only);
    for (int i = 0; i < ML_REDIS_PENDING_MAX + 10; i++)
        ml_redis_call(w.redis, get, 2, 1, count_end, NULL);
    assert_int_equal(ended[-ML_E_BUSY], 10);
    WAIT_FOR(&w, ended[-ML_E_TIMEOUT] == ML_REDIS_PENDING_MAX, 3000);
    WAIT_FOR(&w, f.connections == 2, 3000);
    run_for(&w, 20);
    for (int i = 0; i < 200; i++) /* 12.5 MiB; 8 may wait */
        ml_redis_call(w.redis, set, 3, 1, count_end, NULL);
    assert_in_range(ended[-ML_E_BUSY], 10 + 72, 10 + 75);
    close_fake(&w, &f);
    assert_int_equal(ended[-ML_E_BUSY] + ended[-ML_E_TIMEOUT] + ended[-ML_E_UNAVAILABLE] +
                         ended[-ML_E_CANCELED],
                     ML_REDIS_PENDING_MAX + 10 + 200);
}

/* A worker that was held up for longer than a deadline finds the answer in its socket. */
static void held_up(void **state)
{
    struct server s;
    struct world w;
    server_start(&s, "--databases", "2");
    world_loop(&w);
    world_connect(&w, (struct ml_redis_options){.addresses = at_port(s.port)});
    assert_int_equal(ask(&w, "SET k v").error, 0);
    struct answer a;
    call(&w, &a, "GET k");
    usleep(400000);
    WAIT_FOR(&w, a.done, 3000);
    assert_int_equal(a.error, 0);
    world_close(&w);
    server_stop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_replies), cmocka_unit_test(hostile_greetings),
        cmocka_unit_test(silent_greeting), cmocka_unit_test(slow_greeting),
        cmocka_unit_test(early_reply),     cmocka_unit_test(refusals),
        cmocka_unit_test(bounds),          cmocka_unit_test(held_up),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
