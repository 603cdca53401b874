/* The files of one policy, read once so that all workers load the same bytes. Immutable after
 * ml_bundle_read; counted; any thread. Symbolic links are followed: a ConfigMap is made of them. */
#include "script/internal.h"

#include "base/mem.h"
#include "crypto/digest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct file {
    char *path; /* as it is opened and shown */
    char *name; /* last part of the path */
    struct ml_buf text;
};

struct ml_bundle {
    _Atomic unsigned refs;
    size_t count;
    struct file files[ML_BUNDLE_FILES]; /* the policy first, the others by name */
    char hash[65];
};

static int read_all(int fd, const char *path, struct ml_buf *out, struct ml_err *err)
{
    char block[16384];
    for (size_t total = 0;;) {
        ssize_t n = read(fd, block, sizeof block);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return ml_fail(err, ML_E_IO, "%s: %s", path, strerror(errno));
        if (n == 0)
            return ML_OK;
        total += (size_t)n;
        if (total > ML_FILE_BYTES || !ml_buf_add(out, block, (size_t)n))
            return ml_fail(err, ML_E_TOOBIG, "%s: larger than 1 MiB", path);
    }
}

int ml_file_read(const char *path, struct ml_buf *out, struct ml_err *err)
{
    struct stat st;
    /* O_NONBLOCK: opening a FIFO without a writer would wait for ever. */
    int r = ML_OK, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return ml_fail(err, errno == ENOENT ? ML_E_NOTFOUND : ML_E_IO, "%s: %s", path,
                       strerror(errno));
    if (fstat(fd, &st) != 0)
        r = ml_fail(err, ML_E_IO, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        r = ml_fail(err, ML_E_INVALID, "%s: not a regular file", path);
    else
        r = read_all(fd, path, out, err);
    close(fd);
    return r;
}

static int add_file(struct ml_bundle *b, const char *path, struct ml_err *err)
{
    if (b->count == ML_BUNDLE_FILES)
        return ml_fail(err, ML_E_TOOBIG, "%s: more than %d files beside the policy", path,
                       ML_BUNDLE_FILES);
    struct file *f = &b->files[b->count++];
    const char *slash = strrchr(path, '/');
    f->path = ml_xstrdup(path);
    f->name = ml_xstrdup(slash ? slash + 1 : path);
    ml_buf_init(&f->text, ML_FILE_BYTES);
    return ml_file_read(path, &f->text, err);
}

/* Modules: NAME.lua, but no hidden files and no specs, which are for busted. */
static int is_module(const struct dirent *entry)
{
    size_t n = strlen(entry->d_name);
    return n > 4 && entry->d_name[0] != '.' && strcmp(entry->d_name + n - 4, ".lua") == 0 &&
           !(n > 9 && strcmp(entry->d_name + n - 9, "_spec.lua") == 0);
}

static int add_modules(struct ml_bundle *b, struct ml_err *err)
{
    char directory[PATH_MAX], path[PATH_MAX];
    struct dirent **entries = NULL;
    int r = ML_OK, prefix = (int)(strlen(b->files[0].path) - strlen(b->files[0].name));
    snprintf(directory, sizeof directory, "%.*s", prefix ? prefix : 2,
             prefix ? b->files[0].path : "./");
    int count = scandir(directory, &entries, is_module, alphasort);
    if (count < 0)
        return ml_fail(err, ML_E_IO, "%s: %s", directory, strerror(errno));
    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        int n = snprintf(path, sizeof path, "%.*s%s", prefix, b->files[0].path, name);
        if (r == ML_OK && n >= (int)sizeof path)
            r = ml_fail(err, ML_E_TOOBIG, "%s: path too long", directory);
        if (r == ML_OK && strcmp(name, b->files[0].name) != 0)
            r = add_file(b, path, err);
        free(entries[i]);
    }
    free(entries);
    return r;
}

/* SHA-256 over a list of names and SHA-256 of contents: names have no '/', so that lines cannot be
 * confused. */
static int hash(struct ml_bundle *b, struct ml_err *err)
{
    struct ml_buf list;
    struct ml_digest digest;
    char hex[65];
    bool ok = true;
    ml_buf_init(&list, ML_BUNDLE_FILES * 400);
    for (size_t i = 0; ok && i < b->count; i++) {
        ok = ml_sha256(ml_buf_str(&b->files[i].text), &digest);
        ml_digest_hex(&digest, hex);
        ml_buf_printf(&list, "%s/%s\n", hex, b->files[i].name);
    }
    ok = ok && !list.failed && ml_sha256(ml_buf_str(&list), &digest);
    ml_digest_hex(&digest, b->hash);
    ml_buf_done(&list);
    return ok ? ML_OK : ml_fail(err, ML_E_IO, "cannot hash the policy");
}

int ml_bundle_read(struct ml_bundle **ret, const char *path, struct ml_err *err)
{
    struct ml_bundle *b = ML_NEW(struct ml_bundle);
    b->refs = 1;
    int r = add_file(b, path, err);
    if (r == ML_OK)
        r = add_modules(b, err);
    if (r == ML_OK)
        r = hash(b, err);
    if (r == ML_OK)
        *ret = b;
    else
        ml_bundle_unref(b);
    return r;
}

struct ml_bundle *ml_bundle_ref(struct ml_bundle *b)
{
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

void ml_bundle_unref(struct ml_bundle *b)
{
    if (!b || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < b->count; i++) {
        free(b->files[i].path);
        free(b->files[i].name);
        ml_buf_done(&b->files[i].text);
    }
    free(b);
}

const char *ml_bundle_path(const struct ml_bundle *b)
{
    return b->files[0].path;
}

const char *ml_bundle_hash(const struct ml_bundle *b)
{
    return b->hash;
}

struct ml_str ml_bundle_source(const struct ml_bundle *b)
{
    struct ml_str s = ml_buf_str(&b->files[0].text);
    return s.p ? s : ML_STR("");
}

bool ml_bundle_module(const struct ml_bundle *b, struct ml_str name, const char **ret_file,
                      struct ml_str *ret)
{
    for (size_t i = 1; i < b->count; i++) {
        struct ml_str file = ml_str_z(b->files[i].name);
        file.n -= 4;
        if (!ml_str_eq(file, name))
            continue;
        *ret_file = b->files[i].path;
        *ret = b->files[i].text.p ? ml_buf_str(&b->files[i].text) : ML_STR("");
        return true;
    }
    return false;
}
