/* Listening sockets: addresses, unix sockets, running out of descriptors (S-440), churn (S-446). */
#include "net/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

struct seen {
    uv_loop_t loop;
    struct ml_listener *listener;
    unsigned count;
    int fds[512];
    char peer[64];
};

static void on_accept(void *ctx, int fd, const char *peer)
{
    struct seen *s = ctx;
    assert_true(s->count < 512);
    s->fds[s->count++] = fd;
    snprintf(s->peer, sizeof s->peer, "%s", peer);
}

static void setup_seen(struct seen *s)
{
    memset(s, 0, sizeof *s);
    assert_int_equal(uv_loop_init(&s->loop), 0);
}

static void listen_on(struct seen *s, const char *address)
{
    struct ml_err err = {.code = 0};
    setup_seen(s);
    int r = ml_listener_open(&s->listener, &s->loop, address, on_accept, s, &err);
    if (r < 0)
        fail_msg("%s: %s", address, err.text);
}

static void drop_accepted(struct seen *s)
{
    for (unsigned i = 0; i < s->count; i++)
        close(s->fds[i]);
    s->count = 0;
}

static void finish(struct seen *s)
{
    ml_listener_close(s->listener);
    uv_run(&s->loop, UV_RUN_DEFAULT);
    drop_accepted(s);
    assert_int_equal(uv_loop_close(&s->loop), 0);
}

static void turn(struct seen *s)
{
    for (int i = 0; i < 5; i++)
        uv_run(&s->loop, UV_RUN_NOWAIT);
}

static int dial_four(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int dial_six(int port)
{
    struct sockaddr_in6 a = {.sin6_family = AF_INET6,
                             .sin6_port = htons((uint16_t)port),
                             .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int dial_unix(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void refused(const char *address, int code)
{
    struct seen s;
    struct ml_err err = {.code = 0};
    setup_seen(&s);
    assert_int_equal(ml_listener_open(&s.listener, &s.loop, address, on_accept, &s, &err), code);
    assert_int_equal(err.code, code);
    assert_true(strlen(err.text) > 10);
    uv_run(&s.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&s.loop), 0);
}

/* ---- TCP ---- */

static void tcp(void **state)
{
    struct seen s;
    int on = 0;
    socklen_t n = sizeof on;
    listen_on(&s, "127.0.0.1:0");
    assert_true(ml_listener_port(s.listener) > 0);
    int fd = dial_four(ml_listener_port(s.listener));
    turn(&s);
    assert_int_equal(s.count, 1);
    assert_string_equal(s.peer, "127.0.0.1");
    assert_true(fcntl(s.fds[0], F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(s.fds[0], F_GETFD) & FD_CLOEXEC);
    assert_int_equal(getsockopt(s.fds[0], IPPROTO_TCP, TCP_NODELAY, &on, &n), 0);
    assert_true(on);
    close(fd);
    finish(&s);
}

static void dual_stack(void **state)
{
    struct seen s;
    listen_on(&s, ":0");
    int four = dial_four(ml_listener_port(s.listener));
    assert_true(four >= 0);
    turn(&s);
    assert_string_equal(s.peer, "127.0.0.1"); /* not ::ffff:127.0.0.1 */
    int six = dial_six(ml_listener_port(s.listener));
    if (six >= 0) {
        turn(&s);
        assert_string_equal(s.peer, "::1");
        close(six);
    }
    close(four);
    finish(&s);
}

static void six_only(void **state)
{
    struct seen s;
    setup_seen(&s);
    if (ml_listener_open(&s.listener, &s.loop, "[::1]:0", on_accept, &s, NULL) < 0) {
        uv_loop_close(&s.loop);
        skip(); /* no IPv6 here */
    }
    int fd = dial_six(ml_listener_port(s.listener));
    turn(&s);
    assert_string_equal(s.peer, "::1");
    close(fd);
    finish(&s);
}

static void by_name(void **state)
{
    struct seen s;
    listen_on(&s, "localhost:0");
    assert_true(ml_listener_port(s.listener) > 0);
    finish(&s);
}

/* A restart does not wait for TIME_WAIT; two listeners of one port do not share it. */
static void same_port(void **state)
{
    struct seen s;
    char address[32];
    listen_on(&s, "127.0.0.1:0");
    int port = ml_listener_port(s.listener), fd = dial_four(port);
    turn(&s);
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    refused(address, ML_E_IO);
    finish(&s); /* the server's side closes first: TIME_WAIT is ours */
    close(fd);
    listen_on(&s, address);
    assert_int_equal(ml_listener_port(s.listener), port);
    finish(&s);
}

static void bad_addresses(void **state)
{
    static const char *const bad[] = {
        "",      "8080",      "127.0.0.1",   "127.0.0.1:",      "127.0.0.1:x", "127.0.0.1:65536",
        "::1:1", "[::1:8080", "[]:8080",     "127.0.0.1:-1",    "1.2.3.4.5:1", "127.0.0.1:80 ",
        "unix:", "[::1]",     "256.1.1.1:1", "no such host:80",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refused(bad[i], ML_E_INVALID);
    char longer[400] = "unix:/tmp/";
    memset(longer + 10, 'x', 108);
    refused(longer, ML_E_INVALID);
    memset(longer, 'x', 300);
    strcpy(longer + 300, ":1");
    refused(longer, ML_E_INVALID);
    refused("192.0.2.77:1", ML_E_IO); /* not an address of this machine */
    refused("unix:/nonexistent/x.sock", ML_E_IO);
}

/* ---- unix sockets ---- */

struct place {
    char dir[32], path[64], address[72];
};

static void make_place(struct place *p)
{
    strcpy(p->dir, "/tmp/ml-listen-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    snprintf(p->path, sizeof p->path, "%s/s", p->dir);
    snprintf(p->address, sizeof p->address, "unix:%s", p->path);
}

static void remove_place(struct place *p)
{
    unlink(p->path);
    assert_int_equal(rmdir(p->dir), 0);
}

static void unix_mode(void **state)
{
    struct place p;
    struct seen s;
    struct stat st;
    make_place(&p);
    mode_t old = umask(0);
    listen_on(&s, p.address);
    umask(old);
    assert_int_equal(stat(p.path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(ml_listener_port(s.listener), 0);
    int fd = dial_unix(p.path);
    turn(&s);
    assert_int_equal(s.count, 1);
    assert_string_equal(s.peer, "unix");
    close(fd);
    finish(&s);
    assert_int_equal(access(p.path, F_OK), -1);
    remove_place(&p);
}

static void stale_and_live(void **state)
{
    struct place p;
    struct seen s;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    make_place(&p);
    snprintf(a.sun_path, sizeof a.sun_path, "%s", p.path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    close(fd); /* a stale one */
    listen_on(&s, p.address);
    refused(p.address, ML_E_IO); /* a live one */
    fd = dial_unix(p.path);
    assert_true(fd >= 0);
    close(fd);
    finish(&s);
    fd = open(p.path, O_CREAT | O_WRONLY, 0600);
    close(fd);
    refused(p.address, ML_E_IO); /* no socket at all: left alone */
    assert_int_equal(access(p.path, F_OK), 0);
    remove_place(&p);
}

/* Somebody else's socket in our place stays. */
static void only_our_file(void **state)
{
    struct place p;
    struct seen first, second;
    make_place(&p);
    listen_on(&first, p.address);
    unlink(p.path);
    listen_on(&second, p.address);
    finish(&first);
    int fd = dial_unix(p.path);
    assert_true(fd >= 0);
    close(fd);
    finish(&second);
    remove_place(&p);
}

/* ---- bounds ---- */

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void run_for(struct seen *s, uint64_t ms)
{
    uv_update_time(&s->loop);
    for (uint64_t end = uv_now(&s->loop) + ms; uv_now(&s->loop) < end;) {
        uv_run(&s->loop, UV_RUN_NOWAIT);
        usleep(2000);
        uv_update_time(&s->loop);
    }
}

static void stop_loop(uv_timer_t *t)
{
    uv_stop(t->loop);
}

/* S-440: no descriptors: those who come wait in the queue, no busy loop, and go on when there are
 * some. */
static void no_descriptors(void **state)
{
    struct seen s;
    struct rlimit old, low;
    int clients[8];
    uv_timer_t timer;
    listen_on(&s, "127.0.0.1:0");
    turn(&s);
    for (int i = 0; i < 8; i++)
        assert_true((clients[i] = dial_four(ml_listener_port(s.listener))) >= 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    low = old;
    low.rlim_cur = (rlim_t)clients[7] + 3; /* two more */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    uv_timer_init(&s.loop, &timer);
    uv_timer_start(&timer, stop_loop, 400, 0);
    double before = cpu_seconds();
    uv_run(&s.loop, UV_RUN_DEFAULT);
    double spent = cpu_seconds() - before;
    assert_int_equal(s.count, 2);
    assert_true(spent < 0.05);
    setrlimit(RLIMIT_NOFILE, &old);
    run_for(&s, 150);
    assert_int_equal(s.count, 8);
    setrlimit(RLIMIT_NOFILE, &low);
    int late = dup(0); /* closed while it pauses */
    assert_int_equal(late, -1);
    run_for(&s, 20);
    setrlimit(RLIMIT_NOFILE, &old);
    for (int i = 0; i < 8; i++)
        close(clients[i]);
    uv_close((uv_handle_t *)&timer, NULL);
    finish(&s);
}

static void closed_while_paused(void **state)
{
    struct seen s;
    struct rlimit old, low;
    listen_on(&s, "127.0.0.1:0");
    turn(&s);
    int client = dial_four(ml_listener_port(s.listener));
    getrlimit(RLIMIT_NOFILE, &old);
    low = old;
    low.rlim_cur = (rlim_t)client + 1;
    setrlimit(RLIMIT_NOFILE, &low);
    turn(&s);
    setrlimit(RLIMIT_NOFILE, &old);
    assert_int_equal(s.count, 0);
    close(client);
    finish(&s);
}

/* S-446: one wake-up takes a bounded number, and none is lost. */
static void many_at_once(void **state)
{
    struct seen s;
    int clients[200];
    listen_on(&s, "127.0.0.1:0");
    for (int i = 0; i < 200; i++)
        assert_true((clients[i] = dial_four(ml_listener_port(s.listener))) >= 0);
    uv_run(&s.loop, UV_RUN_NOWAIT);
    assert_in_range(s.count, 1, 64);
    turn(&s);
    assert_int_equal(s.count, 200);
    for (int i = 0; i < 200; i++)
        close(clients[i]);
    finish(&s);
}

static void churn(void **state)
{
    struct seen s;
    unsigned total = 0;
    listen_on(&s, "127.0.0.1:0");
    for (int i = 0; i < 3000; i++) {
        const struct linger now = {.l_onoff = 1, .l_linger = 0};
        int fd = dial_four(ml_listener_port(s.listener));
        assert_true(fd >= 0);
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        close(fd); /* a reset, often before it is accepted */
        uv_run(&s.loop, UV_RUN_NOWAIT);
        total += s.count;
        drop_accepted(&s);
    }
    assert_true(total > 0);
    finish(&s);
}

static void close_from_accept(void *ctx, int fd, const char *peer)
{
    struct seen *s = ctx;
    on_accept(ctx, fd, peer);
    ml_listener_close(s->listener);
}

static void closed_in_callback(void **state)
{
    struct seen s;
    setup_seen(&s);
    assert_int_equal(
        ml_listener_open(&s.listener, &s.loop, "127.0.0.1:0", close_from_accept, &s, NULL), 0);
    int one = dial_four(ml_listener_port(s.listener));
    int two = dial_four(ml_listener_port(s.listener));
    uv_run(&s.loop, UV_RUN_DEFAULT);
    assert_int_equal(s.count, 1);
    close(one);
    close(two);
    drop_accepted(&s);
    assert_int_equal(uv_loop_close(&s.loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tcp),
        cmocka_unit_test(dual_stack),
        cmocka_unit_test(six_only),
        cmocka_unit_test(by_name),
        cmocka_unit_test(same_port),
        cmocka_unit_test(bad_addresses),
        cmocka_unit_test(unix_mode),
        cmocka_unit_test(stale_and_live),
        cmocka_unit_test(only_our_file),
        cmocka_unit_test(no_descriptors),
        cmocka_unit_test(closed_while_paused),
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(churn),
        cmocka_unit_test(closed_in_callback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
