/* Name resolution (S-167, S-412): this program brings its own getaddrinfo, which libcurl then calls
 * on its resolver threads. A resolver that hangs must not hold up the loop, whether its fetch times
 * out, is cancelled or is closed. */
#include "c/client/support.h"

#include <netdb.h>

enum { HANG_MS = 1500 };
static _Atomic int hanging, resolved;

__attribute__((visibility("default"))) int getaddrinfo(const char *node, const char *service,
                                                       const struct addrinfo *hints,
                                                       struct addrinfo **ret);
__attribute__((visibility("default"))) void freeaddrinfo(struct addrinfo *list);

static struct addrinfo *address_of(const char *ip, int port)
{
    struct addrinfo *a = calloc(1, sizeof *a + sizeof(struct sockaddr_in));
    struct sockaddr_in *in = (struct sockaddr_in *)(void *)(a + 1);
    in->sin_family = AF_INET;
    in->sin_port = htons((uint16_t)port);
    inet_pton(AF_INET, ip, &in->sin_addr);
    a->ai_family = AF_INET;
    a->ai_socktype = SOCK_STREAM;
    a->ai_protocol = IPPROTO_TCP;
    a->ai_addr = (struct sockaddr *)in;
    a->ai_addrlen = sizeof *in;
    return a;
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **ret)
{
    int port = service ? atoi(service) : 0;
    resolved++;
    if (strcmp(node, "hangs.test") == 0) {
        hanging++;
        usleep(HANG_MS * 1000);
        hanging--;
        return EAI_AGAIN;
    }
    if (strcmp(node, "many.test") == 0) { /* 1 000 addresses where nobody listens, then silence */
        struct addrinfo **last = ret;
        for (int i = 0; i < 1000; i++, last = &(*last)->ai_next)
            *last = address_of("127.0.0.1", 1);
        return 0;
    }
    if (strcmp(node, "good.test") != 0)
        return EAI_NONAME;
    *ret = address_of("127.0.0.1", port);
    return 0;
}

void freeaddrinfo(struct addrinfo *list)
{
    for (struct addrinfo *next; list; list = next) {
        next = list->ai_next;
        free(list);
    }
}

/* The longest time between two turns of a 1 ms timer. */
struct stall {
    uv_timer_t timer;
    uint64_t last, worst;
};

static void on_tick(uv_timer_t *timer)
{
    struct stall *s = timer->data;
    uint64_t now = ml_mono_ms();
    if (now - s->last > s->worst)
        s->worst = now - s->last;
    s->last = now;
}

static void stall_start(struct stall *s, uv_loop_t *loop)
{
    uv_timer_init(loop, &s->timer);
    s->timer.data = s;
    s->worst = 0;
    s->last = ml_mono_ms();
    uv_timer_start(&s->timer, on_tick, 1, 1);
}

static const char *named(struct world *w, const char *host)
{
    static char url[128];
    snprintf(url, sizeof url, "http://%s:%d/ok", host, w->server.port);
    return url;
}

static void open_world(struct world *w)
{
    world_open(w, (struct ml_client_options){.connect_ms = 200, .open_after = 32}, NULL);
}

static void names_resolve(void **state)
{
    struct world w;
    open_world(&w);
    resolved = 0;
    for (int i = 0; i < 3; i++) {
        struct ml_fetch_result *r = fetch(&w, (struct ml_fetch_request){0}, named(&w, "good.test"));
        assert_int_equal(r->status, 200);
        ml_fetch_result_free(r);
    }
    assert_int_equal(resolved, 1);
    struct ml_fetch_result *r = fetch(&w, (struct ml_fetch_request){0}, named(&w, "unknown.test"));
    assert_string_equal(r->text, "host not found");
    ml_fetch_result_free(r);
    r = fetch(&w, (struct ml_fetch_request){.timeout_ms = 2000}, named(&w, "many.test"));
    assert_true(r->error == ML_E_UNAVAILABLE || r->error == ML_E_TIMEOUT);
    ml_fetch_result_free(r);
    world_close(&w);
}

static void hanging_resolver(void **state)
{
    struct world w;
    struct stall stall;
    struct answer a[4];
    struct ml_fetch *f;
    open_world(&w);
    stall_start(&stall, &w.loop);
    for (int i = 0; i < 3; i++)
        assert_int_equal(
            start(&w, (struct ml_fetch_request){0}, named(&w, "hangs.test"), &a[i], NULL, NULL), 0);
    assert_int_equal(
        start(&w, (struct ml_fetch_request){0}, named(&w, "hangs.test"), &a[3], &f, NULL), 0);
    pause_ms(&w, 50);
    ml_fetch_cancel(f);
    for (int i = 0; i < 3; i++) {
        run_until(&w, &a[i]);
        assert_int_equal(a[i].result->error, ML_E_TIMEOUT);
        assert_in_range(a[i].result->elapsed_ms, 190, 600);
        ml_fetch_result_free(a[i].result);
    }
    assert_true(hanging > 0); /* the threads are still at it */
    struct ml_fetch_result *r = fetch(&w, (struct ml_fetch_request){0}, named(&w, "good.test"));
    assert_int_equal(r->status, 200);
    ml_fetch_result_free(r);
    print_message("longest stall: %d ms\n", (int)stall.worst);
    assert_true(stall.worst <
                100); /* sanitizers and neighbours; a wait for the thread would be 1 500 */
    uv_close((uv_handle_t *)&stall.timer, NULL);

    assert_int_equal(
        start(&w, (struct ml_fetch_request){0}, named(&w, "hangs.test"), &a[0], NULL, NULL), 0);
    pause_ms(&w, 20);
    uint64_t before = ml_mono_ms();
    world_close(&w);
    assert_true(ml_mono_ms() - before < 500);
    assert_int_equal(a[0].result->error, ML_E_CANCELED);
    ml_fetch_result_free(a[0].result);
    while (hanging)
        usleep(10000);
    usleep(50000); /* they free what they hold */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_resolve),
        cmocka_unit_test(hanging_resolver),
    };
    return cmocka_run_group_tests(tests, global_open, global_close);
}
