/* A loopback HTTP/1.1 server for the client's tests: a thread that accepts, a thread per
 * connection, and behaviour chosen by the path. With a TLS context it speaks TLS. */
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LOOPBACK_FDS = 4096 };

struct loopback {
    int fd, port;
    SSL_CTX *tls;
    pthread_t thread;
    _Atomic int connections, requests, alive, in_flight, most_in_flight, peers_with_cert;
    _Atomic bool stop, answer_500;
    pthread_mutex_t lock;
    bool open[LOOPBACK_FDS];  /* by descriptor, so that stopping can shut them down */
    char last_request[16384]; /* under lock */
};

struct peer {
    struct loopback *server;
    int fd;
    SSL *ssl;
};

static inline bool say_bytes(struct peer *p, const void *data, size_t n)
{
    if (p->ssl)
        return SSL_write(p->ssl, data, (int)n) > 0;
    const char *at = data;
    while (n > 0) {
        ssize_t sent = send(p->fd, at, n, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        at += sent;
        n -= (size_t)sent;
    }
    return true;
}

static inline bool say(struct peer *p, const char *text)
{
    return say_bytes(p, text, strlen(text));
}

static inline void say_big(struct peer *p, bool length)
{
    static const char block[65536] = {'x'};
    say(p, length ? "HTTP/1.1 200 OK\r\nContent-Length: 10485760\r\n\r\n"
                  : "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 160; i++) {
        if (!length && !say(p, "10000\r\n"))
            return;
        if (!say_bytes(p, block, sizeof block))
            return;
        if (!length && !say(p, "\r\n"))
            return;
    }
    if (!length)
        say(p, "0\r\n\r\n");
}

static inline void say_many_headers(struct peer *p, int count, const char *filler)
{
    char line[512];
    say(p, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n");
    for (int i = 0; i < count; i++) {
        snprintf(line, sizeof line, "Set-Cookie: a%d=%s\r\n", i, filler);
        if (!say(p, line))
            return;
    }
    say(p, "\r\n");
}

static inline void say_slowly(struct peer *p)
{
    say(p, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    for (int i = 0; i < 1000 && !p->server->stop && say(p, "x"); i++)
        usleep(100000);
}

static inline void reset(struct peer *p)
{
    struct linger hard = {1, 0};
    setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
}

static inline void hang(struct peer *p)
{
    while (!p->server->stop) {
        char byte;
        if (recv(p->fd, &byte, 1, MSG_DONTWAIT) == 0)
            return;
        usleep(5000);
    }
}

static inline void echo(struct peer *p, const char *request, size_t n)
{
    char head[128];
    snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", n);
    say(p, head);
    say_bytes(p, request, n);
}

static const struct {
    const char *path, *answer;
    bool keep;
} fixed_answers[] = {
    {"/ok", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Kind: Good \r\n\r\nhello", true},
    {"/ok-gone", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false},
    {"/204", "HTTP/1.1 204 No Content\r\n\r\n", true},
    {"/301", "HTTP/1.1 301 Moved\r\nLocation: /ok\r\nContent-Length: 0\r\n\r\n", true},
    {"/401", "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", true},
    {"/bearer",
     "HTTP/1.1 400 Bad\r\nContent-Type: application/json\r\nWWW-Authenticate: Bearer "
     "error=\"invalid_token\"\r\nWWW-Authenticate: Basic\r\nContent-Length: 2\r\n\r\n{}",
     true},
    {"/404", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", true},
    {"/429", "HTTP/1.1 429 Slow Down\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n", true},
    {"/429-none", "HTTP/1.1 429 Slow Down\r\nContent-Length: 0\r\n\r\n", true},
    {"/500", "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", true},
    {"/nul", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na", true}, /* the rest is said apart */
    {"/fin", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npartial", false},
    {"/chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nwo", false},
    {"/garbage", "this is not HTTP at all\r\n\r\n", false},
    {"/closed", "", false},
    {"/fold", "HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 0\r\n\r\n", false},
    {"/colon", "HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 0\r\n\r\n", false},
    {"/space", "HTTP/1.1 200 OK\r\nX-A : 1\r\nContent-Length: 0\r\n\r\n", false},
    {"/control", "HTTP/1.1 200 OK\r\nX-A: a\x01z\r\nContent-Length: 0\r\n\r\n", false},
    {"/999", "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n", false},
    {"/encoded", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\nContent-Length: 2\r\n\r\nzz",
     true},
    {"/interim",
     "HTTP/1.1 103 Early\r\nX-Early: 1\r\n\r\nHTTP/1.1 200 OK\r\nX-Late: 2\r\nContent-Length: "
     "0\r\n\r\n",
     true},
    {"/trailer",
     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Trail: 1\r\n\r\n",
     true},
};

/* true: the connection stays. */
static inline bool answer_special(struct peer *p, const char *path, const char *request, size_t n)
{
    if (strcmp(path, "/never") == 0)
        hang(p);
    else if (strcmp(path, "/slow") == 0)
        say_slowly(p);
    else if (strcmp(path, "/rst") == 0)
        reset(p);
    else if (strcmp(path, "/rst-mid") == 0)
        say(p, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"), usleep(20000), reset(p);
    else if (strcmp(path, "/headers-big") == 0)
        say_many_headers(p, 1000,
                         "0123456789012345678901234567890123456789012345678901234567890123"
                         "0123456789012345678901234567890123456789012345678901234567890123"
                         "0123456789012345678901234567890123456789012345678901234567890123"
                         "0123456789012345678901234567890123456789012345678901234567890123");
    else if (strcmp(path, "/headers-many") == 0)
        say_many_headers(p, 300, "1");
    else if (strcmp(path, "/big") == 0 || strcmp(path, "/big-chunked") == 0)
        say_big(p, strcmp(path, "/big") == 0);
    else if (strcmp(path, "/echo") == 0)
        return echo(p, request, n), true;
    else if (strcmp(path, "/wait") == 0)
        return usleep(20000), say(p, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwait");
    else
        say(p, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    return false;
}

static inline bool answer(struct peer *p, const char *request, size_t n)
{
    char path[128] = "";
    sscanf(request, "%*s %127[^ ?]", path);
    if (p->server->answer_500)
        strcpy(path, "/500");
    for (size_t i = 0; i < sizeof fixed_answers / sizeof fixed_answers[0]; i++) {
        if (strcmp(path, fixed_answers[i].path) == 0) {
            if (!say(p, fixed_answers[i].answer))
                return false;
            if (strcmp(path, "/nul") == 0)
                say_bytes(p, "\0z", 2);
            return fixed_answers[i].keep;
        }
    }
    return answer_special(p, path, request, n);
}

static inline void note_request(struct loopback *s, const char *request, size_t n)
{
    s->requests++;
    int now = ++s->in_flight, most = s->most_in_flight;
    while (now > most && !atomic_compare_exchange_weak(&s->most_in_flight, &most, now))
        ;
    pthread_mutex_lock(&s->lock);
    snprintf(s->last_request, sizeof s->last_request, "%.*s", (int)n, request);
    pthread_mutex_unlock(&s->lock);
}

/* One whole request (head and Content-Length body) into text; its length, 0 at the end. */
static inline size_t read_request(struct peer *p, char *text, size_t max)
{
    size_t n = 0, want = 0;
    while (n < max - 1 && (!want || n < want)) {
        ssize_t got = p->ssl ? SSL_read(p->ssl, text + n, (int)(max - 1 - n))
                             : recv(p->fd, text + n, max - 1 - n, 0);
        if (got <= 0)
            return 0;
        n += (size_t)got;
        text[n] = '\0';
        char *end = strstr(text, "\r\n\r\n"), *length = strstr(text, "Content-Length: ");
        if (end)
            want =
                (size_t)(end + 4 - text) + (length && length < end ? (size_t)atoi(length + 16) : 0);
    }
    return n;
}

static inline void *serve_peer(void *arg)
{
    struct peer *p = arg;
    struct loopback *s = p->server;
    char *request = malloc(1 << 17);
    bool up = true;
    if (s->tls) {
        p->ssl = SSL_new(s->tls);
        SSL_set_fd(p->ssl, p->fd);
        up = SSL_accept(p->ssl) == 1;
        X509 *cert = up ? SSL_get1_peer_certificate(p->ssl) : NULL;
        if (cert)
            s->peers_with_cert++;
        X509_free(cert);
    }
    for (size_t n; up && (n = read_request(p, request, 1 << 17)) > 0;) {
        note_request(s, request, n);
        up = answer(p, request, n);
        s->in_flight--;
    }
    if (p->ssl) {
        SSL_shutdown(p->ssl);
        SSL_free(p->ssl);
    }
    free(request);
    pthread_mutex_lock(&s->lock);
    s->open[p->fd] = false;
    close(p->fd);
    pthread_mutex_unlock(&s->lock);
    free(p);
    s->alive--;
    return NULL;
}

static inline void *serve(void *arg)
{
    struct loopback *s = arg;
    while (!s->stop) {
        int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            continue;
        if (s->stop || fd >= LOOPBACK_FDS) {
            close(fd);
            continue;
        }
        struct peer *p = calloc(1, sizeof *p);
        pthread_t thread;
        pthread_attr_t attr;
        p->server = s;
        p->fd = fd;
        s->connections++;
        s->alive++;
        pthread_mutex_lock(&s->lock);
        s->open[fd] = true;
        pthread_mutex_unlock(&s->lock);
        pthread_attr_init(&attr);
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attr, 256 * 1024);
        if (pthread_create(&thread, &attr, serve_peer, p) != 0)
            abort();
        pthread_attr_destroy(&attr);
    }
    return NULL;
}

/* Port 0 takes any. */
static inline void loopback_start(struct loopback *s, int port, SSL_CTX *tls)
{
    signal(SIGPIPE, SIG_IGN);
    memset(s, 0, sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    s->tls = tls;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    setsockopt(s->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    if (bind(s->fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(s->fd, 1024) < 0 ||
        getsockname(s->fd, (struct sockaddr *)&address, &length) < 0)
        abort();
    s->port = ntohs(address.sin_port);
    pthread_create(&s->thread, NULL, serve, s);
}

static inline void loopback_stop(struct loopback *s)
{
    s->stop = true;
    shutdown(s->fd, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->fd);
    pthread_mutex_lock(&s->lock);
    for (int fd = 0; fd < LOOPBACK_FDS; fd++)
        if (s->open[fd])
            shutdown(fd, SHUT_RDWR);
    pthread_mutex_unlock(&s->lock);
    while (s->alive)
        usleep(1000);
}

/* A port where nobody listens. */
static inline int unused_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bind(fd, (struct sockaddr *)&address, sizeof address);
    getsockname(fd, (struct sockaddr *)&address, &length);
    close(fd);
    return ntohs(address.sin_port);
}
