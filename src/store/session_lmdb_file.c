/* What stands beside the LMDB store's file: the lock of the one process that may have it, damaged
 * files that were set aside, the sealing key. On the writer's thread, but for ml_lmdb_key_read. */
#include "store/session_lmdb_internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { KEPT_ASIDE = 3 };

char *ml_lmdb_beside(const struct ml_lmdb *s, const char *suffix)
{
    size_t n = strlen(s->path) + strlen(suffix) + 1;
    char *path = ml_xmalloc(n);
    snprintf(path, n, "%s%s", s->path, suffix);
    return path;
}

/* The lock ------------------------------------------------------------------------------------ */

/* Held as long as the file is open: a second process must not touch it (S-436). */
bool ml_lmdb_take_lock(struct ml_lmdb *s)
{
    char *path = ml_lmdb_beside(s, ".lock"), text[32] = "";
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool ours = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
    if (ours) {
        int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
        if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n)
            errno = 0; /* for people only */
        s->lock_fd = fd;
    } else if (fd >= 0 && errno == EWOULDBLOCK) {
        ssize_t n = pread(fd, text, sizeof text - 1, 0);
        text[n > 0 ? n : 0] = 0;
        ml_lmdb_set_why(s, "%s is in use by another process (%.*s)", s->path,
                        (int)strcspn(text, "\n"), text);
    } else {
        ml_lmdb_set_why(s, "%s: %s", path, strerror(errno));
    }
    if (!ours && fd >= 0)
        close(fd);
    free(path);
    return ours;
}

void ml_lmdb_drop_lock(struct ml_lmdb *s)
{
    if (s->lock_fd >= 0)
        close(s->lock_fd);
    s->lock_fd = -1;
}

/* Damaged files ------------------------------------------------------------------------------- */

void ml_lmdb_set_aside(struct ml_lmdb *s, const char *why)
{
    char stamp[48], *to, *pattern = ml_lmdb_beside(s, ".damaged-*");
    time_t now = (time_t)(ml_wall_ms() / 1000);
    struct tm tm;
    glob_t old = {.gl_pathc = 0};
    strftime(stamp, sizeof stamp, ".damaged-%Y%m%dT%H%M%SZ", gmtime_r(&now, &tm));
    to = ml_lmdb_beside(s, stamp);
    int r = rename(s->path, to);
    atomic_fetch_add(&s->set_aside, 1);
    ml_log(ML_LOG_ERROR,
           "the session store is damaged: it was set aside, and all must log in again",
           ML_FZ("store", s->path), ML_FZ("aside", r == 0 ? to : strerror(errno)),
           ML_FZ("reason", why));
    /* Sorted by name, which is by time. */
    if (glob(pattern, 0, NULL, &old) == 0)
        for (size_t i = 0; i + KEPT_ASIDE < old.gl_pathc; i++)
            unlink(old.gl_pathv[i]);
    globfree(&old);
    free(pattern);
    free(to);
}

bool ml_lmdb_in_place(const struct ml_lmdb *s)
{
    struct stat named, opened;
    int fd;
    return mdb_env_get_fd(s->env, &fd) == 0 && fstat(fd, &opened) == 0 &&
           stat(s->path, &named) == 0 && named.st_ino == opened.st_ino &&
           named.st_dev == opened.st_dev;
}

/* The key ------------------------------------------------------------------------------------- */

int ml_lmdb_key_read(const char *path, char out[ML_LMDB_KEY_TEXT], struct ml_err *err)
{
    char name[PATH_MAX];
    struct stat st;
    snprintf(name, sizeof name, "%s.key", path);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return ml_fail(err, errno == ENOENT || errno == ENOTDIR ? ML_E_NOTFOUND : ML_E_IO, "%s: %s",
                       name, strerror(errno));
    ssize_t n = read(fd, out, ML_LMDB_KEY_TEXT - 1);
    int saved = errno;
    bool open_to_others = fstat(fd, &st) == 0 && (st.st_mode & 077) != 0;
    close(fd);
    if (n < 0)
        return ml_fail(err, ML_E_IO, "%s: %s", name, strerror(saved));
    while (n > 0 && (out[n - 1] == '\n' || out[n - 1] == '\r'))
        n--;
    out[n] = 0;
    if (open_to_others)
        ml_log(ML_LOG_WARN, "the sealing key can be read by others: its mode should be 0600",
               ML_FZ("file", name));
    return 0;
}

/* Whole or not at all: written beside and linked to its name, which must be free. */
static bool write_key(const struct ml_lmdb *s, const char *name)
{
    char *draft = ml_lmdb_beside(s, ".key.new");
    unlink(draft);
    int fd = open(draft, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    size_t n = strlen(s->key);
    bool done = fd >= 0 && write(fd, s->key, n) == (ssize_t)n && write(fd, "\n", 1) == 1 &&
                fsync(fd) == 0 && link(draft, name) == 0;
    int saved = errno;
    if (fd >= 0)
        close(fd);
    unlink(draft);
    free(draft);
    errno = saved;
    return done;
}

void ml_lmdb_keep_key(struct ml_lmdb *s)
{
    char *name, have[ML_LMDB_KEY_TEXT];
    if (!s->key)
        return;
    name = ml_lmdb_beside(s, ".key");
    if (!write_key(s, name)) {
        bool same = errno == EEXIST && ml_lmdb_key_read(s->path, have, NULL) == 0 &&
                    strcmp(have, s->key) == 0;
        if (!same)
            ml_log(ML_LOG_ERROR, "the sealing key cannot be kept: a restart will end all sessions",
                   ML_FZ("file", name), ML_FZ("reason", strerror(errno)));
    }
    ml_wipe(have, sizeof have);
    free(name);
}
