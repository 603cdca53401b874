/* The token file of an upstream: a service account's token, which the kubelet replaces now and
 * then. Read on the loop: it is a small file on a memory file system. One thread. */
#include "client/internal.h"

#include "base/mem.h"
#include "codec/header.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { TOKEN_BYTES = 16 * 1024, REREAD_MS = 10000 };
static const char prefix[] = "Authorization: Bearer ";

void ml_upstream_forget_token(struct ml_upstream *u)
{
    if (u->token)
        ml_wipe(u->token, u->token_n);
    free(u->token);
    u->token = NULL;
    u->token_n = 0;
    u->token_read_ms = 0;
}

/* Bytes read, or -1 when there are more than max or the file cannot be read. */
static ssize_t read_file(const char *path, char *out, size_t max)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -1;
    size_t n = 0;
    ssize_t got;
    while (n < max && (got = read(fd, out + n, max - n)) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            break;
        n += (size_t)got;
    }
    bool whole = n < max && got == 0;
    close(fd);
    return whole ? (ssize_t)n : -1;
}

static bool token_ok(struct ml_str token)
{
    return token.n > 0 && ml_header_value_ok(token) && !memchr(token.p, ' ', token.n);
}

static bool load(struct ml_upstream *u)
{
    char text[TOKEN_BYTES];
    ssize_t n = read_file(u->token_file, text, sizeof text);
    struct ml_str token = {NULL, 0};
    if (n > 0) {
        while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r'))
            n--;
        token = ml_str_trim(ml_str(text, (size_t)n));
    }
    bool ok = token_ok(token);
    if (ok) {
        u->token_n = sizeof prefix - 1 + token.n;
        u->token = ml_xmalloc(u->token_n + 1);
        memcpy(u->token, prefix, sizeof prefix - 1);
        memcpy(u->token + sizeof prefix - 1, token.p, token.n);
        u->token[u->token_n] = '\0';
    }
    ml_wipe(text, sizeof text);
    return ok;
}

const char *ml_upstream_token(struct ml_upstream *u, uint64_t now_ms, struct ml_err *err)
{
    if (u->token && u->token_read_ms && now_ms - u->token_read_ms < REREAD_MS)
        return u->token;
    ml_upstream_forget_token(u);
    if (!load(u)) {
        ml_fail(err, ML_E_UNAVAILABLE, "token file %s: cannot be read or holds no token",
                u->token_file);
        return NULL;
    }
    u->token_read_ms = now_ms ? now_ms : 1;
    return u->token;
}
