/* A listening socket: owns the descriptor, the unix socket's file and the pause after "no
 * descriptors left". Runs on its loop. Freed when both of its handles are closed. */
#include "net/listener.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    ACCEPTS = 64,  /* per wake-up, so that connections already open get their turn */
    PAUSE_MS = 50, /* without a free descriptor accept4 would fail in a busy loop */
};

struct ml_listener {
    uv_poll_t poll;
    uv_timer_t pause;
    int handles; /* not closed yet */
    int fd;
    int port;
    ml_accepted on_accept;
    void *ctx;
    bool paused; /* tells of it once, not every 50 ms */
    bool closing;
    struct sockaddr_un path; /* sun_family is AF_UNIX for a unix socket */
    dev_t dev;               /* its file, so that only our own is removed */
    ino_t ino;
};

/* ---- accepting ---- */

/* An IPv4 client of a dual stack socket is named as IPv4, as policies and trusted networks write
 * it. */
static void name_peer(const struct sockaddr_storage *a, char *out, socklen_t n)
{
    const struct sockaddr_in6 *six = (const void *)a;
    const struct sockaddr_in *four = (const void *)a;
    snprintf(out, n, "unix");
    if (a->ss_family == AF_INET)
        inet_ntop(AF_INET, &four->sin_addr, out, n);
    else if (a->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&six->sin6_addr))
        inet_ntop(AF_INET, six->sin6_addr.s6_addr + 12, out, n);
    else if (a->ss_family == AF_INET6)
        inet_ntop(AF_INET6, &six->sin6_addr, out, n);
}

static void on_ready(uv_poll_t *poll, int status, int events);

static void on_pause_over(uv_timer_t *timer)
{
    struct ml_listener *l = timer->data;
    uv_poll_start(&l->poll, UV_READABLE, on_ready);
}

/* Who waits stays in the kernel's queue and is served when descriptors come back. */
static void pause_accepting(struct ml_listener *l, int why)
{
    if (!l->paused)
        ml_log(ML_LOG_WARN, "accepting pauses", ML_FZ("why", strerror(why)));
    l->paused = true;
    uv_poll_stop(&l->poll);
    uv_timer_start(&l->pause, on_pause_over, PAUSE_MS, 0);
}

/* Errors of one connection that was gone before it was accepted (accept(2)). */
static bool is_passing(int e)
{
    return e == ECONNABORTED || e == EINTR || e == EPROTO || e == EPERM || e == ENETDOWN ||
           e == ENOPROTOOPT || e == EHOSTDOWN || e == ENONET || e == EHOSTUNREACH ||
           e == EOPNOTSUPP || e == ENETUNREACH;
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct ml_listener *l = poll->data;
    for (int i = 0; i < ACCEPTS && !l->closing; i++) {
        struct sockaddr_storage from = {.ss_family = AF_UNSPEC};
        socklen_t n = sizeof from;
        char peer[INET6_ADDRSTRLEN];
        int fd = accept4(l->fd, (struct sockaddr *)&from, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && is_passing(errno))
            continue;
        if (fd < 0) {
            if (errno != EAGAIN && errno != EWOULDBLOCK)
                pause_accepting(l, errno); /* EMFILE, ENFILE, ENOBUFS, ENOMEM */
            return;
        }
        l->paused = false;
        name_peer(&from, peer, sizeof peer);
        l->on_accept(l->ctx, fd, peer);
    }
}

/* ---- addresses ---- */

struct address {
    char host[256];
    char port[8];
    bool any; /* ":port": every address of both families */
};

/* "host:port", "[v6]:port", ":port". */
static int parse_address(const char *text, struct address *ret, struct ml_err *err)
{
    const char *colon = strrchr(text, ':');
    unsigned long long port = 0;
    if (!colon || !ml_str_u64(ml_str_z(colon + 1), &port) || port > 65535)
        return ml_fail(err, ML_E_INVALID, "listen address '%s': no port at its end", text);
    struct ml_str host = ml_str(text, (size_t)(colon - text));
    bool bracketed = host.n > 1 && host.p[0] == '[' && host.p[host.n - 1] == ']';
    if (bracketed)
        host = ml_str(host.p + 1, host.n - 2);
    else if (memchr(host.p, ':', host.n))
        return ml_fail(err, ML_E_INVALID, "listen address '%s': write an IPv6 address in brackets",
                       text);
    if (host.n >= sizeof ret->host || (bracketed && host.n == 0))
        return ml_fail(err, ML_E_INVALID, "listen address '%s': not a host", text);
    ret->any = host.n == 0;
    snprintf(ret->host, sizeof ret->host, "%.*s", ML_FMT(host));
    snprintf(ret->port, sizeof ret->port, "%llu", port);
    return 0;
}

static int system_error(struct ml_err *err, const char *address, const char *what)
{
    return ml_fail(err, ML_E_IO, "listen on %s: %s: %s", address, what, strerror(errno));
}

static int bind_tcp(const struct addrinfo *a, bool dual, struct ml_err *err, const char *address)
{
    const int on = 1, only6 = !dual;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return system_error(err, address, "socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* accepted sockets inherit it */
    if (a->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only6, sizeof only6);
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0)
        return fd;
    int why = errno, r = system_error(err, address, "bind");
    close(fd);
    errno = why; /* open_tcp looks at it */
    return r;
}

/* Returns a bound descriptor or an error. ":port" without IPv6 on this machine is IPv4 only. */
static int open_tcp(const char *address, struct ml_err *err)
{
    struct address a = {.any = false};
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int fd = parse_address(address, &a, err);
    if (fd < 0)
        return fd;
    hints.ai_family = a.any ? AF_INET6 : AF_UNSPEC;
    int r = getaddrinfo(a.any ? "::" : a.host, a.port, &hints, &found);
    if (r != 0)
        return ml_fail(err, ML_E_INVALID, "listen address '%s': %s", address, gai_strerror(r));
    fd = bind_tcp(found, a.any, err, address);
    freeaddrinfo(found);
    if (fd >= 0 || !a.any)
        return fd;
    hints.ai_family = AF_INET;
    if (errno != EAFNOSUPPORT && errno != EADDRNOTAVAIL)
        return fd;
    if (getaddrinfo("0.0.0.0", a.port, &hints, &found) != 0)
        return fd;
    fd = bind_tcp(found, false, err, address);
    freeaddrinfo(found);
    return fd;
}

static int port_of(int fd)
{
    struct sockaddr_storage a = {.ss_family = AF_UNSPEC};
    socklen_t n = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &n) < 0)
        return 0;
    if (a.ss_family == AF_INET)
        return ntohs(((const struct sockaddr_in *)(const void *)&a)->sin_port);
    if (a.ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)(const void *)&a)->sin6_port);
    return 0;
}

/* ---- unix sockets ---- */

/* Removes a socket that nobody listens on any more. An error when somebody does or it is no socket.
 */
static int clear_stale(const struct sockaddr_un *path, struct ml_err *err)
{
    struct stat st;
    if (lstat(path->sun_path, &st) < 0)
        return errno == ENOENT ? 0 : system_error(err, path->sun_path, "stat");
    if (!S_ISSOCK(st.st_mode))
        return ml_fail(err, ML_E_IO, "listen on %s: the file is there and is no socket",
                       path->sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return system_error(err, path->sun_path, "socket");
    int r = connect(fd, (const struct sockaddr *)path, sizeof *path);
    int why = r < 0 ? errno : 0;
    close(fd);
    if (why != ECONNREFUSED)
        return ml_fail(err, ML_E_IO, "listen on %s: another process listens there", path->sun_path);
    if (unlink(path->sun_path) < 0 && errno != ENOENT)
        return system_error(err, path->sun_path, "unlink");
    return 0;
}

/* The file takes its mode from the socket's inode: it is never open wider, and no umask of other
 * threads is touched. Checked afterwards, since that is how Linux does it and no standard says so.
 */
static int bind_unix(struct ml_listener *l, struct ml_err *err)
{
    struct stat st;
    const char *path = l->path.sun_path;
    int r = clear_stale(&l->path, err);
    if (r < 0)
        return r;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return system_error(err, path, "socket");
    if (fchmod(fd, 0600) < 0 || bind(fd, (const struct sockaddr *)&l->path, sizeof l->path) < 0) {
        r = system_error(err, path, "bind");
        close(fd);
        return r;
    }
    if (lstat(path, &st) < 0 || (st.st_mode & 0177) != 0) {
        close(fd);
        unlink(path);
        return ml_fail(err, ML_E_IO, "listen on %s: the mode is not 0600", path);
    }
    l->dev = st.st_dev;
    l->ino = st.st_ino;
    return fd;
}

static int open_unix(struct ml_listener *l, const char *path, struct ml_err *err)
{
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof l->path.sun_path)
        return ml_fail(err, ML_E_INVALID, "listen address 'unix:%s': 1 to %zu bytes of path", path,
                       sizeof l->path.sun_path - 1);
    l->path.sun_family = AF_UNIX;
    memcpy(l->path.sun_path, path, n + 1);
    return bind_unix(l, err);
}

static void remove_file(const struct ml_listener *l)
{
    struct stat st;
    if (l->path.sun_family == AF_UNIX && lstat(l->path.sun_path, &st) == 0 && st.st_dev == l->dev &&
        st.st_ino == l->ino)
        unlink(l->path.sun_path);
}

/* ---- open and close ---- */

static void on_closed(uv_handle_t *handle)
{
    struct ml_listener *l = handle->data;
    if (--l->handles > 0)
        return;
    close(l->fd);
    free(l);
}

void ml_listener_close(struct ml_listener *l)
{
    if (!l || l->closing)
        return;
    l->closing = true;
    remove_file(l);
    uv_close((uv_handle_t *)&l->poll, on_closed);
    uv_close((uv_handle_t *)&l->pause, on_closed);
}

static int start(struct ml_listener *l, uv_loop_t *loop, const char *address, struct ml_err *err)
{
    if (listen(l->fd, SOMAXCONN) < 0)
        return system_error(err, address, "listen");
    int r = uv_poll_init(loop, &l->poll, l->fd);
    if (r < 0)
        return ml_fail(err, ML_E_IO, "listen on %s: %s", address, uv_strerror(r));
    uv_timer_init(loop, &l->pause);
    l->handles = 2;
    l->poll.data = l->pause.data = l;
    r = uv_poll_start(&l->poll, UV_READABLE, on_ready);
    if (r < 0)
        return ml_fail(err, ML_E_IO, "listen on %s: %s", address, uv_strerror(r));
    return 0;
}

int ml_listener_open(struct ml_listener **ret, uv_loop_t *loop, const char *address,
                     ml_accepted on_accept, void *ctx, struct ml_err *err)
{
    struct ml_listener *l = ML_NEW(struct ml_listener);
    bool is_unix = strncmp(address, "unix:", 5) == 0;
    l->on_accept = on_accept;
    l->ctx = ctx;
    l->fd = is_unix ? open_unix(l, address + 5, err) : open_tcp(address, err);
    int r = l->fd < 0 ? l->fd : start(l, loop, address, err);
    if (r == 0) {
        l->port = port_of(l->fd);
        *ret = l;
    } else if (l->handles) {
        ml_listener_close(l);
    } else {
        if (l->fd >= 0) {
            remove_file(l);
            close(l->fd);
        }
        free(l);
    }
    return r;
}

int ml_listener_port(const struct ml_listener *l)
{
    return l->port;
}
