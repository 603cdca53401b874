/* Names of Redis (S-167, S-412): this program brings its own getaddrinfo, which libuv then calls on
 * its threads. A resolver that hangs holds up neither the loop nor all of those threads. */
#include "c/client/redis_support.h"

#include <netdb.h>
#include <stdatomic.h>

enum { HANG_MS = 1300 };
static _Atomic int hanging, most_hanging, resolved;
static int port;

__attribute__((visibility("default"))) int getaddrinfo(const char *node, const char *service,
                                                       const struct addrinfo *hints,
                                                       struct addrinfo **ret);
__attribute__((visibility("default"))) void freeaddrinfo(struct addrinfo *list);

static struct addrinfo *address_of(const char *ip, int at)
{
    struct addrinfo *a = calloc(1, sizeof *a + sizeof(struct sockaddr_in));
    struct sockaddr_in *in = (struct sockaddr_in *)(void *)(a + 1);
    in->sin_family = AF_INET;
    in->sin_port = htons((uint16_t)at);
    inet_pton(AF_INET, ip, &in->sin_addr);
    a->ai_family = AF_INET;
    a->ai_socktype = SOCK_STREAM;
    a->ai_addr = (struct sockaddr *)in;
    a->ai_addrlen = sizeof *in;
    return a;
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **ret)
{
    resolved++;
    if (strcmp(node, "hangs.test") == 0) {
        int now = ++hanging;
        if (now > most_hanging)
            most_hanging = now;
        usleep(HANG_MS * 1000);
        hanging--;
        return EAI_AGAIN;
    }
    if (strcmp(node, "good.test") != 0)
        return EAI_NONAME;
    *ret = address_of("127.0.0.1", 1); /* the first address is no good */
    (*ret)->ai_next = address_of("127.0.0.1", port);
    return 0;
}

void freeaddrinfo(struct addrinfo *list)
{
    for (struct addrinfo *next; list; list = next) {
        next = list->ai_next;
        free(list);
    }
}

static void names(void **state)
{
    struct server s;
    struct world w;
    server_start(&s, "--databases", "2");
    port = s.port;
    world_loop(&w);
    world_connect(&w, (struct ml_redis_options){.addresses = "good.test:7"});
    assert_int_equal(ask(&w, "PING").error, 0);
    world_close(&w);
    world_loop(&w);
    world_connect(&w, (struct ml_redis_options){.addresses = "nobody.test"});
    struct answer a = ask(&w, "PING");
    assert_int_equal(a.error, ML_E_UNAVAILABLE);
    assert_non_null(strstr(a.text, "nobody.test:6379: the name has no address"));
    world_close(&w);
    server_stop(&s);
}

/* Sixteen names at once, of a cluster that nobody can find. */
static void a_resolver_that_hangs(void **state)
{
    struct world w, other;
    struct server s;
    char addresses[256] = "hangs.test:1";
    for (int i = 2; i <= 16; i++)
        snprintf(addresses + strlen(addresses), 32, ",hangs.test:%d", i);
    world_loop(&w);
    world_connect(&w, (struct ml_redis_options){.addresses = addresses, .mode = ML_REDIS_CLUSTER});
    uint64_t start = ml_mono_ms();
    assert_int_equal(ask(&w, "PING").error, ML_E_TIMEOUT);
    assert_in_range(ml_mono_ms() - start, 240, 900);
    run_for(&w, 100);
    assert_int_equal(hanging, 2);
    /* Another client waits for its turn, not for all of them. */
    server_start(&s, "--databases", "2");
    port = s.port;
    world_loop(&other);
    world_connect(&other, (struct ml_redis_options){.addresses = "good.test:7"});
    for (uint64_t until = ml_mono_ms() + 4000; ml_mono_ms() < until;) {
        uv_run(&w.loop, UV_RUN_NOWAIT);
        if (ask(&other, "PING").error == 0)
            break;
    }
    assert_int_equal(ask(&other, "PING").error, 0);
    assert_int_equal(most_hanging, 2);
    world_close(&other);
    /* A close waits for the look-ups that run, and for no others. */
    start = ml_mono_ms();
    world_close(&w);
    assert_in_range(ml_mono_ms() - start, 0, HANG_MS + 700);
    server_stop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(a_resolver_that_hangs),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
