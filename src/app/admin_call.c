/* One request to the admin listener of the server on this machine: blocking, for subcommands. */
#include "app/app.h"

#include "base/mem.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { WAIT_S = 15, HEAD_MAX = 8 * 1024 };

static int connect_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || strlen(path) >= sizeof address.sun_path)
        return fd;
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    close(fd);
    return -1;
}

/* address: host:port, of this machine (settings.c sees to it). */
static int connect_tcp(const char *address)
{
    char host[256];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    const char *colon = strrchr(address, ':');
    int fd = -1;
    bool bracketed = address[0] == '[' && colon && colon > address + 1 && colon[-1] == ']';
    if (!colon || (size_t)(colon - address) >= sizeof host)
        return -1;
    snprintf(host, sizeof host, "%.*s", (int)(colon - address) - (bracketed ? 2 : 0),
             address + (bracketed ? 1 : 0));
    if (getaddrinfo(host, colon + 1, &hints, &found) != 0)
        return -1;
    for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) != 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    return fd;
}

static bool send_all(int fd, struct ml_str s)
{
    while (s.n) {
        ssize_t n = send(fd, s.p, s.n, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            return false;
        s = n > 0 ? ml_str(s.p + n, s.n - (size_t)n) : s;
    }
    return true;
}

/* Reads to the end; the answer says "Connection: close". */
static bool receive_all(int fd, struct ml_buf *out)
{
    char part[4096];
    for (;;) {
        ssize_t n = recv(fd, part, sizeof part, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n == 0;
        if (!ml_buf_add(out, part, (size_t)n))
            return false;
    }
}

/* The status of a whole answer, its body moved to out; 0: no answer. */
static int parse(const struct ml_buf *whole, struct ml_buf *out)
{
    int status = 0;
    const char *end = whole->n ? memmem(whole->p, whole->n, "\r\n\r\n", 4) : NULL;
    if (!end || whole->n < 12 || memcmp(whole->p, "HTTP/1.1 ", 9) != 0)
        return 0;
    for (int i = 9; i < 12; i++)
        status = status * 10 + (whole->p[i] - '0');
    ml_buf_add(out, end + 4, whole->n - (size_t)(end + 4 - whole->p));
    return status;
}

int ml_app_admin_call(const struct ml_settings *settings, const char *method, const char *target,
                      struct ml_str body, struct ml_buf *answer)
{
    const char *address = ml_settings_text(settings, "ADMIN_ADDR"),
               *token = ml_settings_text(settings, "ADMIN_TOKEN");
    bool local = strncmp(address, "unix:", 5) == 0;
    struct timeval wait = {.tv_sec = WAIT_S};
    struct ml_buf request, whole;
    int status = 0;
    int fd = local ? connect_unix(address + 5) : connect_tcp(address);
    if (fd < 0) {
        ml_buf_printf(answer, "moonlatch: no server answers at ADMIN_ADDR=%s\n", address);
        return 0;
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
    ml_buf_init(&request, HEAD_MAX + body.n);
    ml_buf_init(&whole, HEAD_MAX + answer->max);
    ml_buf_printf(&request, "%s %s HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n", method,
                  target);
    if (!local)
        ml_buf_printf(&request, "Authorization: Bearer %s\r\n", token);
    ml_buf_printf(&request,
                  "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %zu\r\n\r\n",
                  body.n);
    ml_buf_add_str(&request, body);
    if (!request.failed && send_all(fd, ml_buf_str(&request)) && receive_all(fd, &whole))
        status = parse(&whole, answer);
    if (status == 0)
        ml_buf_printf(answer, "moonlatch: the server at ADMIN_ADDR=%s gave no answer\n", address);
    ml_wipe(request.p, request.n);
    ml_buf_done(&request);
    ml_buf_done(&whole);
    close(fd);
    return status;
}
