/* Redis for tests: Debian's redis-server as a child, and a server of ours that says what a test
 * wants, on the same loop. Everything on loopback. */
#pragma once

#include "base/clock.h"
#include "base/mem.h"
#include "client/redis.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* Children ------------------------------------------------------------------------------------ */

static inline int free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static inline bool port_answers(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
    close(fd);
    return ok;
}

static inline pid_t spawn(const char *dir, char *const *argv)
{
    pid_t parent = getpid(), pid = fork();
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || (dir && chdir(dir) < 0))
        _exit(126);
    int null = open("/dev/null", O_RDWR);
    int log = open("server.log", O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(null, 0);
    dup2(log, 1);
    dup2(log, 2);
    execvp(argv[0], argv);
    _exit(127);
}

struct server {
    pid_t pid;
    int port;
    char dir[64];
    char words[40][128]; /* its command line */
    size_t count;
};

static inline void server_run(struct server *s)
{
    char *argv[42] = {0};
    for (size_t i = 0; i < s->count; i++)
        argv[i] = s->words[i];
    s->pid = spawn(s->dir, argv);
    assert_true(s->pid > 0);
    for (int i = 0; i < 500 && !port_answers(s->port); i++)
        usleep(10000);
    assert_true(port_answers(s->port));
}

/* more: further words of the command line, NULL at the end. */
static inline void server_start_list(struct server *s, int port, const char *const *more)
{
    memset(s, 0, sizeof *s);
    s->port = port ? port : free_port();
    snprintf(s->dir, sizeof s->dir, "/tmp/ml-redis-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    static const char *const base[] = {
        "redis-server", "--save", "",          "--appendonly",
        "no",           "--bind", "127.0.0.1", "--enable-debug-command",
        "yes",          "--port", NULL};
    for (size_t i = 0; base[i]; i++)
        snprintf(s->words[s->count++], 128, "%s", base[i]);
    snprintf(s->words[s->count++], 128, "%d", s->port);
    for (size_t i = 0; more && more[i]; i++)
        snprintf(s->words[s->count++], 128, "%s", more[i]);
    server_run(s);
}

#define server_start(s, ...) server_start_list(s, 0, (const char *const[]){__VA_ARGS__, NULL})

static inline void server_kill(struct server *s)
{
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    s->pid = 0;
}

static inline void server_stop(struct server *s)
{
    char command[96];
    if (s->pid)
        server_kill(s);
    snprintf(command, sizeof command, "rm -rf %s", s->dir);
    assert_int_equal(system(command), 0);
}

/* redis-cli with those words; its standard output, at most 4 KiB. */
static inline const char *cli(int port, const char *words)
{
    static char out[4096];
    char command[1024];
    snprintf(command, sizeof command, "redis-cli -p %d %s 2>&1", port, words);
    FILE *pipe = popen(command, "re");
    assert_non_null(pipe);
    size_t n = fread(out, 1, sizeof out - 1, pipe);
    out[n] = '\0';
    pclose(pipe);
    return out;
}

/* A server that says what the test wants ------------------------------------------------------ */

struct fake;
struct fake_peer {
    uv_tcp_t tcp;
    struct fake *fake;
    struct fake_peer *next;
    char in[1 << 16];
    size_t n;
};

struct fake {
    uv_loop_t *loop;
    uv_tcp_t tcp;
    int port;
    unsigned connections, commands, gone;
    struct fake_peer *peers;
    /* One whole command: words are not NUL-terminated. */
    void (*handler)(struct fake_peer *p, const struct ml_str *words, size_t count);
    void (*on_gone)(struct fake_peer *p); /* NULL allowed */
};

static inline void on_said(uv_write_t *w, int status)
{
    free(w->data);
    free(w);
}

static inline void say_n(struct fake_peer *p, const char *text, size_t n)
{
    uv_write_t *w = ml_xmalloc(sizeof *w);
    w->data = ml_xmalloc(n + 1);
    memcpy(w->data, text, n);
    uv_buf_t buf = uv_buf_init(w->data, (unsigned)n);
    if (uv_is_closing((uv_handle_t *)&p->tcp) ||
        uv_write(w, (uv_stream_t *)&p->tcp, &buf, 1, on_said) < 0)
        on_said(w, 0);
}

static inline void say(struct fake_peer *p, const char *text)
{
    say_n(p, text, strlen(text));
}

static inline void on_peer_closed(uv_handle_t *handle)
{
    struct fake_peer *p = handle->data, **link = &p->fake->peers;
    while (*link != p)
        link = &(*link)->next;
    *link = p->next;
    p->fake->gone++;
    if (p->fake->on_gone)
        p->fake->on_gone(p);
    free(p);
}

static inline void peer_close(struct fake_peer *p)
{
    if (!uv_is_closing((uv_handle_t *)&p->tcp))
        uv_close((uv_handle_t *)&p->tcp, on_peer_closed);
}

/* The length of the whole command at p, with its words; 0: not whole. */
static inline size_t parse_command(const char *p, size_t n, struct ml_str *words, size_t *count)
{
    const char *at = p, *end = p + n, *line;
    assert_true(n == 0 || *p == '*');
    line = memchr(at, '\n', n);
    if (!line)
        return 0;
    *count = (size_t)atol(at + 1);
    at = line + 1;
    for (size_t i = 0; i < *count; i++) {
        line = at < end ? memchr(at, '\n', (size_t)(end - at)) : NULL;
        if (!line)
            return 0;
        assert_int_equal(*at, '$'); /* S-171: nothing but bulk strings */
        size_t length = (size_t)atol(at + 1);
        at = line + 1;
        if ((size_t)(end - at) < length + 2)
            return 0;
        words[i] = ml_str(at, length);
        at += length + 2;
    }
    return (size_t)(at - p);
}

static inline void on_peer_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct fake_peer *p = handle->data;
    *buf = uv_buf_init(p->in + p->n, (unsigned)(sizeof p->in - p->n));
}

static inline void on_peer_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct fake_peer *p = stream->data;
    if (n < 0) {
        peer_close(p);
        return;
    }
    p->n += (size_t)n;
    struct ml_str words[600];
    size_t used = 0, one, count = 0;
    while ((one = parse_command(p->in + used, p->n - used, words, &count)) > 0) {
        p->fake->commands++;
        p->fake->handler(p, words, count);
        used += one;
    }
    memmove(p->in, p->in + used, p->n - used);
    p->n -= used;
}

static inline void on_peer(uv_stream_t *server, int status)
{
    struct fake *f = server->data;
    struct fake_peer *p = ml_xcalloc(1, sizeof *p);
    p->fake = f;
    p->tcp.data = p;
    uv_tcp_init(f->loop, &p->tcp);
    p->next = f->peers;
    f->peers = p;
    assert_int_equal(uv_accept(server, (uv_stream_t *)&p->tcp), 0);
    uv_read_start((uv_stream_t *)&p->tcp, on_peer_alloc, on_peer_read);
    f->connections++;
}

static inline void fake_start(struct fake *f, uv_loop_t *loop,
                              void (*handler)(struct fake_peer *, const struct ml_str *, size_t))
{
    struct sockaddr_storage bound;
    int n = sizeof bound;
    struct sockaddr_in a;
    memset(f, 0, sizeof *f);
    f->loop = loop;
    f->handler = handler;
    uv_tcp_init(loop, &f->tcp);
    f->tcp.data = f;
    uv_ip4_addr("127.0.0.1", 0, &a);
    assert_int_equal(uv_tcp_bind(&f->tcp, (struct sockaddr *)&a, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&f->tcp, 128, on_peer), 0);
    uv_tcp_getsockname(&f->tcp, (struct sockaddr *)&bound, &n);
    f->port = ntohs(((struct sockaddr_in *)&bound)->sin_port);
}

static inline void fake_stop(struct fake *f)
{
    for (struct fake_peer *p = f->peers; p; p = p->next)
        peer_close(p);
    uv_close((uv_handle_t *)&f->tcp, NULL);
}

static inline bool word_is(struct ml_str word, const char *text)
{
    return ml_str_ieq(word, ml_str_z(text));
}

/* The client ---------------------------------------------------------------------------------- */

struct world {
    uv_loop_t loop;
    uv_timer_t tick; /* so that waiting looks at its condition */
    struct ml_redis_setup *setup;
    struct ml_redis *redis;
    bool closed;
};

static inline void on_tick(uv_timer_t *timer)
{
}

static inline void on_world_closed(void *ctx)
{
    ((struct world *)ctx)->closed = true;
}

static inline void world_loop(struct world *w)
{
    memset(w, 0, sizeof *w);
    assert_int_equal(uv_loop_init(&w->loop), 0);
    uv_timer_init(&w->loop, &w->tick);
    uv_timer_start(&w->tick, on_tick, 5, 5);
}

static inline void world_connect(struct world *w, struct ml_redis_options o)
{
    struct ml_err err = {0};
    if (ml_redis_setup_new(&w->setup, &o, &err) < 0)
        fail_msg("%s", err.text);
    uv_update_time(&w->loop);
    assert_int_equal(ml_redis_new(&w->redis, &w->loop, w->setup), 0);
}

static inline const char *at_port(int port)
{
    static char text[32];
    snprintf(text, sizeof text, "127.0.0.1:%d", port);
    return text;
}

static inline void world_close(struct world *w)
{
    if (w->redis)
        ml_redis_close(w->redis, on_world_closed, w);
    uv_close((uv_handle_t *)&w->tick, NULL);
    while (uv_run(&w->loop, UV_RUN_ONCE))
        ;
    assert_true(w->closed || !w->redis);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    ml_redis_setup_free(w->setup);
}

#define WAIT_FOR(w, condition, ms)                                                                 \
    do {                                                                                           \
        uint64_t until_ = ml_mono_ms() + (ms);                                                     \
        while (!(condition) && ml_mono_ms() < until_)                                              \
            uv_run(&(w)->loop, UV_RUN_ONCE);                                                       \
        assert_true(condition);                                                                    \
    } while (0)

static inline void run_for(struct world *w, uint64_t ms)
{
    for (uint64_t until = ml_mono_ms() + ms; ml_mono_ms() < until;)
        uv_run(&w->loop, UV_RUN_ONCE);
}

struct answer {
    bool done;
    int error;
    char text[256];
    enum ml_redis_type type;
    long long integer;
    char value[512];
    size_t n;
};

static inline void on_answer(void *arg, const struct ml_redis_answer *a)
{
    struct answer *ret = arg;
    assert_false(ret->done);
    ret->done = true;
    ret->error = a->error;
    snprintf(ret->text, sizeof ret->text, "%s", a->text);
    if (a->error)
        return;
    ret->type = a->reply->type;
    ret->integer = a->reply->integer;
    ret->n = a->reply->text.n;
    if (ret->n < sizeof ret->value && ret->n > 0)
        memcpy(ret->value, a->reply->text.p, ret->n);
}

/* Words by spaces; the second is the key. */
static inline void call(struct world *w, struct answer *a, const char *command)
{
    struct ml_str words[16], rest = ml_str_z(command);
    size_t n = 0;
    memset(a, 0, sizeof *a);
    do {
        words[n++] = ml_str_cut(rest, ' ', &rest);
    } while (rest.p);
    uv_update_time(&w->loop);
    ml_redis_call(w->redis, words, n, n > 1 ? 1 : 0, on_answer, a);
}

static inline struct answer ask(struct world *w, const char *command)
{
    static struct answer a;
    call(w, &a, command);
    WAIT_FOR(w, a.done, 5000);
    return a;
}

/* Until it has an answer without an error; false after ms. */
static inline bool ask_until(struct world *w, const char *command, uint64_t ms)
{
    for (uint64_t until = ml_mono_ms() + ms; ml_mono_ms() < until; run_for(w, 5))
        if (ask(w, command).error == 0)
            return true;
    return false;
}

/* Answers the first commands of a connection; false: the command is the test's. */
static inline bool greet(struct fake_peer *p, const struct ml_str *words, size_t count)
{
    if (word_is(words[0], "PING") || word_is(words[0], "AUTH") || word_is(words[0], "SELECT"))
        say(p, word_is(words[0], "PING") ? "+PONG\r\n" : "+OK\r\n");
    else
        return false;
    return true;
}

static inline void open_fake(struct world *w, struct fake *f,
                             void (*handler)(struct fake_peer *, const struct ml_str *, size_t))
{
    world_loop(w);
    fake_start(f, &w->loop, handler);
    world_connect(w, (struct ml_redis_options){.addresses = at_port(f->port)});
}

static inline void close_fake(struct world *w, struct fake *f)
{
    fake_stop(f);
    world_close(w);
}

/* What a subscription gave. */
struct heard {
    unsigned lost, count;
    char text[5000];
};

static inline void on_message(void *ctx, struct ml_str message)
{
    struct heard *h = ctx;
    if (ml_str_eq(message, ML_STR("lost"))) {
        h->lost++;
        return;
    }
    h->count++;
    snprintf(h->text, sizeof h->text, "%.*s", ML_FMT(message));
}
