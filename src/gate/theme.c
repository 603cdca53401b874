/* Reads a theme at start, on the main thread; owns the bytes of its files. */
#include "gate/theme.h"

#include "base/buf.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    FILES_MAX = 256,
    FILE_BYTES = 1 << 20,
    ALL_BYTES = 8 << 20,
    DEPTH_MAX = 4,
    PATH_BYTES = 1024
};

struct ml_theme {
    struct ml_theme_file files[FILES_MAX];
    size_t count, bytes;
};

static const char *media_type(struct ml_str name)
{
    static const struct {
        const char *ending, *type;
    } types[] = {
        {".css", "text/css; charset=utf-8"},
        {".svg", "image/svg+xml"},
        {".png", "image/png"},
        {".jpg", "image/jpeg"},
        {".ico", "image/x-icon"},
        {".woff2", "font/woff2"},
    };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        size_t n = strlen(types[i].ending);
        if (name.n > n && memcmp(name.p + name.n - n, types[i].ending, n) == 0)
            return types[i].type;
    }
    return "application/octet-stream";
}

/* The file's text appended to b. */
static bool read_whole(int fd, struct ml_buf *b)
{
    for (;;) {
        if (!ml_buf_reserve(b, 64 * 1024))
            return false;
        ssize_t n = read(fd, b->p + b->n, 64 * 1024);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n == 0;
        b->n += (size_t)n;
    }
}

static int add_file(struct ml_theme *t, int dir, const char *entry, const char *name,
                    struct ml_err *err)
{
    struct ml_buf b;
    int fd = openat(dir, entry, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    ml_buf_init(&b, FILE_BYTES + 64 * 1024);
    bool good = fd >= 0 && read_whole(fd, &b) && b.n <= FILE_BYTES;
    if (fd >= 0)
        close(fd);
    if (!good || t->count == FILES_MAX || t->bytes + b.n > ALL_BYTES) {
        ml_buf_done(&b);
        return ml_fail(err, ML_E_TOOBIG, "%s cannot be read, or the theme is too large", name);
    }
    struct ml_theme_file *f = &t->files[t->count++];
    f->name = ml_str_z(ml_xstrdup(name));
    f->body = ml_str(ml_xstrndup(b.p ? b.p : "", b.n), b.n);
    f->type = media_type(f->name);
    t->bytes += b.n;
    ml_buf_done(&b);
    return 0;
}

static int walk(struct ml_theme *t, int fd, const char *prefix, int depth, struct ml_err *err);

static int add_entry(struct ml_theme *t, int dir, const char *entry, const char *prefix, int depth,
                     struct ml_err *err)
{
    char name[PATH_BYTES];
    struct stat st;
    if (snprintf(name, sizeof name, "%s%s", prefix, entry) >= PATH_BYTES - 1)
        return ml_fail(err, ML_E_TOOBIG, "%s: the name is too long", prefix);
    if (fstatat(dir, entry, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return ml_fail(err, ML_E_IO, "%s: %s", name, strerror(errno));
    if (S_ISREG(st.st_mode))
        return add_file(t, dir, entry, name, err);
    if (!S_ISDIR(st.st_mode) || depth == DEPTH_MAX)
        return 0;
    snprintf(name + strlen(name), 2, "/"); /* there is room: see above */
    return walk(t, openat(dir, entry, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), name,
                depth + 1, err);
}

/* Takes fd. */
static int walk(struct ml_theme *t, int fd, const char *prefix, int depth, struct ml_err *err)
{
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *entry;
    int r = 0;
    if (!dir) {
        if (fd >= 0)
            close(fd);
        return ml_fail(err, ML_E_IO, "%s: %s", prefix, strerror(errno));
    }
    while (r == 0 && (entry = readdir(dir)))
        if (entry->d_name[0] != '.')
            r = add_entry(t, fd, entry->d_name, prefix, depth, err);
    closedir(dir);
    return r;
}

int ml_theme_read(struct ml_theme **ret, const char *dir, struct ml_err *err)
{
    struct ml_theme *t = ML_NEW(struct ml_theme);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
    if (fd >= 0)
        r = walk(t, fd, "", 1, err);
    if (r != 0) {
        ml_theme_free(t);
        t = NULL;
    }
    *ret = t;
    return r;
}

void ml_theme_free(struct ml_theme *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->count; i++) {
        free((void *)(uintptr_t)t->files[i].name.p);
        free((void *)(uintptr_t)t->files[i].body.p);
    }
    free(t);
}

const struct ml_theme_file *ml_theme_find(const struct ml_theme *t, struct ml_str name)
{
    if (!t || !name.n || name.p[0] != '/')
        return NULL;
    for (size_t i = 0; i < t->count; i++)
        if (ml_str_eq(t->files[i].name, ml_str(name.p + 1, name.n - 1)))
            return &t->files[i];
    return NULL;
}
