/* S-172: whatever comes late, no answer is ever another's. A server of ours answers each key with
 * itself, mostly at once and sometimes about when a command's time is over, in pieces. */
#include "c/client/redis_support.h"

enum { CLIENTS = 8, AHEAD = 48 };

static unsigned long long seed = 88172645463325252ULL;

static unsigned dice(unsigned n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)(seed % n);
}

/* Replies held back, one connection's in order: a timer for the first. Now and then a reply comes
 * in two pieces. */
enum { HELD_MAX = 2 * AHEAD };

struct holder {
    struct holder *next;
    struct fake_peer *peer;
    uv_timer_t timer;
    struct {
        uint64_t due;
        char text[64];
    } held[HELD_MAX];
    size_t count;
};

static struct holder *holders;
static struct fake late_server;

static void on_holder_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void holder_end(struct holder *h)
{
    struct holder **link = &holders;
    while (*link != h)
        link = &(*link)->next;
    *link = h->next;
    uv_close((uv_handle_t *)&h->timer, on_holder_closed);
}

static void on_due(uv_timer_t *timer)
{
    struct holder *h = timer->data;
    uint64_t now = uv_now(h->peer->fake->loop);
    while (h->count > 0 && h->held[0].due <= now) {
        char *text = h->held[0].text;
        size_t n = strlen(text);
        bool half = n > 1 && dice(8) == 0;
        say_n(h->peer, text, half ? n / 2 : n);
        if (half) {
            memmove(text, text + n / 2, n - n / 2 + 1);
            h->held[0].due = now + 1 + (dice(10) == 0 ? dice(300) : 0);
        } else {
            h->count--;
            memmove(&h->held[0], &h->held[1], h->count * sizeof h->held[0]);
        }
    }
    if (h->count > 0)
        uv_timer_start(timer, on_due, h->held[0].due - now, 0);
}

static struct holder *holder_of(struct fake_peer *p)
{
    for (struct holder *h = holders; h; h = h->next)
        if (h->peer == p)
            return h;
    struct holder *h = ml_xcalloc(1, sizeof *h);
    h->peer = p;
    h->timer.data = h;
    uv_timer_init(p->fake->loop, &h->timer);
    h->next = holders;
    holders = h;
    return h;
}

static void late_gone(struct fake_peer *p)
{
    holder_end(holder_of(p));
}

static void answer_late(struct fake_peer *p, const struct ml_str *words, size_t count)
{
    if (greet(p, words, count))
        return;
    struct holder *h = holder_of(p);
    uint64_t now = uv_now(p->fake->loop), before = h->count ? h->held[h->count - 1].due : 0;
    /* Mostly at once, rarely about as long as a command may take. */
    uint64_t due = now + (dice(40) == 0 ? 200 + dice(100) : dice(3));
    assert_true(h->count < HELD_MAX);
    h->held[h->count].due = due > before ? due : before;
    snprintf(h->held[h->count++].text, 64, "$%zu\r\n%.*s\r\n", words[1].n, ML_FMT(words[1]));
    if (h->count == 1)
        uv_timer_start(&h->timer, on_due, due - now, 0);
}

struct asker {
    struct ml_redis *redis;
    unsigned pending;
};

struct question {
    struct asker *asker;
    char key[32];
};

static unsigned long answered, timeouts, misdelivered, asked;
static bool enough;

static void ask_more(struct asker *a);

static void on_late_answer(void *arg, const struct ml_redis_answer *answer)
{
    struct question *q = arg;
    if (answer->error == 0) {
        answered++;
        if (!ml_str_eq(answer->reply->text, ml_str_z(q->key)))
            misdelivered++;
    } else if (answer->error == ML_E_TIMEOUT) {
        timeouts++;
    }
    q->asker->pending--;
    if (answer->error == 0)
        ask_more(q->asker);
    free(q);
}

static void ask_more(struct asker *a)
{
    for (unsigned n = dice(4); n > 0 && a->pending < AHEAD && !enough; n--) {
        struct question *q = ml_xcalloc(1, sizeof *q);
        q->asker = a;
        snprintf(q->key, sizeof q->key, "key-%lu", ++asked);
        struct ml_str words[] = {ML_STR("GET"), ml_str_z(q->key)};
        a->pending++;
        ml_redis_call(a->redis, words, 2, 1, on_late_answer, q);
    }
}

/* ML_REDIS_TIMEOUTS=100000 for the whole of S-172 (a few minutes). */
static void late_replies(void **state)
{
    struct world w;
    struct asker askers[CLIENTS] = {0};
    const char *env = getenv("ML_REDIS_TIMEOUTS");
    unsigned long want = env ? strtoul(env, NULL, 10) : 1500;
    open_fake(&w, &late_server, answer_late);
    late_server.on_gone = late_gone;
    for (int i = 0; i < CLIENTS; i++)
        assert_int_equal(ml_redis_new(&askers[i].redis, &w.loop, w.setup), 0);
    for (uint64_t until = ml_mono_ms() + 8000 + want * 4; timeouts < want && !misdelivered;) {
        assert_true(ml_mono_ms() < until);
        for (int i = 0; i < CLIENTS; i++)
            if (askers[i].pending < AHEAD / 2)
                ask_more(&askers[i]);
        uv_run(&w.loop, UV_RUN_ONCE);
    }
    enough = true;
    struct world closers[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        closers[i].closed = false;
        ml_redis_close(askers[i].redis, on_world_closed, &closers[i]);
    }
    for (int i = 0; i < CLIENTS; i++) {
        WAIT_FOR(&w, closers[i].closed, 1000);
        assert_int_equal(askers[i].pending, 0);
    }
    close_fake(&w, &late_server);
    print_message("%lu asked, %lu answered, %lu late, %lu misdelivered\n", asked, answered,
                  timeouts, misdelivered);
    assert_int_equal(misdelivered, 0);
    assert_true(answered > want / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(late_replies),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
