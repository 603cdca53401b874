/* The LMDB store on a bad day: S-174, S-430, S-433, S-435. Files that are cut, overwritten,
 * exchanged or taken away, disks that are full or fail: never a crash, never somebody else's
 * session, and it goes on by itself. Sessions are made by session.c: what it seals tells whether a
 * record is whole. */
#include "c/store/lmdb_world.h"
#include "store/session.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

enum { SESSIONS = 40, LONG = 3600 * 1000 };

#define INTERPOSED __attribute__((visibility("default")))

/* A read that faults while LMDB begins it leaves LMDB's own 400 bytes behind. */
INTERPOSED const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:mdb_txn_begin";
}

/* A disk that fails: LMDB's writes come here, for the linker finds these before libc's. */
static _Atomic int fail_with;  /* errno; 0: it works */
static _Atomic int fail_after; /* so many calls still work */

static bool fails(void)
{
    if (!fail_with || fail_after-- > 0)
        return false;
    errno = fail_with;
    return true;
}

INTERPOSED ssize_t pwrite(int fd, const void *p, size_t n, off_t at);
INTERPOSED ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at);
INTERPOSED int fdatasync(int fd);

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    return fails() ? -1 : syscall(SYS_pwrite64, fd, p, n, at);
}

ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at)
{
    return fails() ? -1 : syscall(SYS_pwritev, fd, v, n, at, 0);
}

int fdatasync(int fd)
{
    return fails() ? -1 : (int)syscall(SYS_fdatasync, fd);
}

/* A process --------------------------------------------------------------------------------- */

struct process {
    struct world w; /* its link: for stats and readiness */
    struct ml_cache *cache;
    struct ml_seal_keys *keys;
    struct ml_sessions *sessions;
    struct ml_session_seat *seat;
};

struct reply {
    int times, error;
    bool found;
    char id[ML_SESSION_ID + 1], open[32];
};

static char ids[SESSIONS][ML_SESSION_ID + 1];

static void on_reply(void *arg, const struct ml_session_reply *r)
{
    struct reply *reply = arg;
    reply->times++;
    reply->error = r->error;
    reply->found = r->found;
    memcpy(reply->id, r->id, sizeof reply->id);
    if (r->entry)
        snprintf(reply->open, sizeof reply->open, "%s", r->entry->bytes);
    ml_entry_unref(r->entry);
}

static void open_process(struct process *p, bool wait)
{
    world_open_with(&p->w,
                    &(struct ml_lmdb_options){.path = path_of("store"), .max_bytes = 8 << 20});
    assert_int_equal(
        ml_seal_keys_new(&p->keys, ML_STR("0123456789abcdefghijklmnopqrstuvwxyz"), NULL), 0);
    p->cache = ml_cache_new(1 << 20);
    p->sessions = ml_sessions_new(&(struct ml_sessions_options){
        .backend = &ml_session_lmdb, .store = p->w.store, .keys = p->keys, .cache = p->cache});
    assert_int_equal(ml_session_sit(&p->seat, p->sessions, &p->w.loop, NULL), 0);
    if (wait)
        assert_true(ready_within(&p->w, 10000));
}

static void close_process(struct process *p)
{
    p->w.closed = false;
    ml_session_leave(p->seat, on_unlinked, &p->w);
    ml_session_lmdb.unlink(p->w.link, on_unlinked, &p->w);
    uv_run(&p->w.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&p->w.loop), 0);
    ml_sessions_free(p->sessions);
    ml_cache_free(p->cache);
    ml_seal_keys_free(p->keys);
}

static struct reply *await(struct process *p, struct reply *r)
{
    while (!r->times)
        uv_run(&p->w.loop, UV_RUN_ONCE);
    assert_int_equal(r->times, 1);
    return r;
}

static struct reply create(struct process *p, unsigned n)
{
    struct reply r = {.times = 0};
    char open[32];
    struct ml_str kind = ML_STR("user"), value = ML_STR("alice");
    snprintf(open, sizeof open, "{\"n\":%u}", n);
    ml_session_create(p->seat,
                      &(struct ml_session_new){.open = ml_str_z(open),
                                               .closed = ML_STR("{}"),
                                               .lifetime_ms = LONG,
                                               .kinds = &kind,
                                               .values = &value,
                                               .index_count = 1},
                      on_reply, &r);
    return *await(p, &r);
}

static void fill(struct process *p)
{
    for (unsigned n = 0; n < SESSIONS; n++) {
        struct reply r = create(p, n);
        assert_int_equal(r.error, 0);
        memcpy(ids[n], r.id, sizeof ids[n]);
    }
}

/* How many of the sessions are there; none is another's. */
static unsigned count(struct process *p)
{
    unsigned found = 0;
    for (unsigned n = 0; n < SESSIONS; n++) {
        struct reply r = {.times = 0};
        char open[32];
        snprintf(open, sizeof open, "{\"n\":%u}", n);
        ml_session_read(p->seat, ml_str_z(ids[n]), on_reply, &r);
        await(p, &r);
        assert_true(!r.found || !r.error);
        if (r.found)
            assert_string_equal(r.open, open);
        found += r.found;
    }
    return found;
}

static void assert_serves(struct process *p)
{
    struct reply r = {.error = -1}, got = {.times = 0};
    for (int i = 0; i < 300 && r.error; i++) {
        r = create(p, 7);
        usleep(r.error ? 20000 : 0);
    }
    assert_int_equal(r.error, 0);
    ml_session_read(p->seat, ml_str_z(r.id), on_reply, &got);
    await(p, &got);
    assert_true(got.found);
}

static uint64_t set_aside(struct process *p)
{
    return stats(&p->w).set_aside;
}

static void make_file(void)
{
    struct process p;
    open_process(&p, true);
    fill(&p);
    assert_int_equal(count(&p), SESSIONS);
    close_process(&p);
}

/* Cases ------------------------------------------------------------------------------------- */

static void cut_while_open(void **state)
{
    for (off_t keep = 0; keep <= 5; keep++) {
        struct process p;
        open_process(&p, true);
        fill(&p);
        assert_int_equal(truncate(path_of("store"), keep * 4096), 0);
        count(&p);
        assert_serves(&p);
        assert_int_equal(set_aside(&p), 1);
        assert_true(count_files("store.damaged-") > 0);
        assert_int_equal(count(&p), 0);
        close_process(&p);
    }
    assert_true(count_files("store.damaged-") <= 3 + 1);
}

/* What is no store of ours when it is opened. */
static void other_files(void **state)
{
    static char garbage[3 * 4096];
    struct process p;
    struct stat st;
    make_file();
    assert_int_equal(stat(path_of("store"), &st), 0);
    for (size_t i = 0; i < sizeof garbage; i++)
        garbage[i] = (char)(i * 7919 >> 3);
    const size_t sizes[] = {1, 100, 4096, 8192, 3 * 4096};
    for (size_t i = 0; i < 2 * sizeof sizes / sizeof sizes[0]; i++) {
        size_t n = sizes[i / 2];
        if (i % 2 == 0) { /* the beginning of ours */
            unlink(path_of("store"));
            make_file();
            assert_int_equal(truncate(path_of("store"), (off_t)n), 0);
        } else {
            int fd = open(path_of("store"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
            assert_int_equal(write(fd, garbage, n), n);
            close(fd);
        }
        open_process(&p, true);
        assert_int_equal(set_aside(&p), 1);
        assert_int_equal(count(&p), 0);
        assert_serves(&p);
        close_process(&p);
    }
    assert_int_equal(truncate(path_of("store"), 0), 0); /* as from touch */
    open_process(&p, true);
    assert_int_equal(set_aside(&p), 0);
    assert_serves(&p);
    close_process(&p);
}

static void overwrite(off_t at, const void *bytes, size_t n)
{
    int fd = open(path_of("store"), O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(syscall(SYS_pwrite64, fd, bytes, n, at), n);
    close(fd);
}

static void copy_file(const char *from, const char *to)
{
    char command[128];
    snprintf(command, sizeof command, "cp %s %s", from, to);
    assert_int_equal(system(command), 0);
}

/* Each byte of both meta pages. */
static void meta_bytes(void **state)
{
    make_file();
    copy_file(path_of("store"), path_of("good"));
    for (off_t at = 0; at < 152; at += 3) {
        for (off_t page = 0; page < 2; page++) {
            struct process p;
            copy_file(path_of("good"), path_of("store"));
            uint8_t byte = (uint8_t)(0xa5 ^ at);
            overwrite(page * 4096 + at, &byte, 1);
            open_process(&p, true);
            count(&p);
            assert_serves(&p);
            close_process(&p);
        }
    }
}

static void damage(unsigned *seed, int round, off_t pages)
{
    uint8_t garbage[4096];
    for (int i = 0; i < 1 + round / 20; i++) {
        off_t page = 2 + (off_t)((unsigned)rand_r(seed) % (unsigned)(pages - 2));
        off_t skip = round % 4 == 3 ? 16 : 0; /* the page's head stays: LMDB goes on into it */
        size_t n = round % 3 ? sizeof garbage - (size_t)skip : 1;
        for (size_t b = 0; b < n; b++)
            garbage[b] = round % 5 == 4 ? 0xff : (uint8_t)rand_r(seed);
        if (n == 1)
            skip = (off_t)((unsigned)rand_r(seed) % sizeof garbage);
        overwrite(page * 4096 + skip, garbage, n);
    }
}

/* Garbage in pages, from a byte to all of them, before the file is opened, or while it is read. */
static void garbage_pages(void **state)
{
    struct process p;
    struct stat st;
    unsigned seed = 1, kept = 0;
    make_file();
    copy_file(path_of("store"), path_of("good"));
    assert_int_equal(stat(path_of("good"), &st), 0);
    for (int round = 0; round < 80; round++) {
        copy_file(path_of("good"), path_of("store"));
        if (round % 2) {
            open_process(&p, true);
            damage(&seed, round, st.st_size / 4096);
            count(&p);
            close_process(&p);
        } else {
            damage(&seed, round, st.st_size / 4096);
        }
        open_process(&p, true);
        kept += count(&p) > 0;
        struct reply r = {.times = 0};
        for (unsigned n = 0; n < 5; n++)
            create(&p, n);
        ml_session_kill(p.seat, ML_STR("user"), ML_STR("alice"), on_reply, &r);
        await(&p, &r);
        assert_serves(&p);
        close_process(&p);
    }
    assert_true(kept > 0); /* a value's damage is that session's only */
}

static void exchanged_or_taken_away(void **state)
{
    struct process p;
    char command[128];
    make_file();
    copy_file(path_of("store"), path_of("good"));
    open_process(&p, true);
    assert_int_equal(rename(path_of("good"), path_of("store")), 0);
    ml_clock_advance(6000);
    for (int i = 0; i < 3000 && access(path_of("good"), F_OK) != 0 && count(&p) == 0; i++)
        usleep(1000);
    usleep(1100 * 1000);
    assert_serves(&p);
    assert_int_equal(set_aside(&p), 0);
    snprintf(command, sizeof command, "rm -rf %s", directory);
    assert_int_equal(system(command), 0);
    ml_clock_advance(6000);
    for (int i = 0; i < 3000 && access(path_of("store"), F_OK) != 0; i++)
        usleep(1000);
    assert_serves(&p);
    assert_int_equal(access(path_of("store"), F_OK), 0);
    close_process(&p);
}

/* S-420: not to be opened at start. */
static void opened_later(void **state)
{
    struct process p;
    struct ml_err err;
    struct reply r = {.times = 0};
    make_file(); /* for an id */
    assert_int_equal(unlink(path_of("store")), 0);
    assert_int_equal(mkdir(path_of("store"), 0700), 0); /* a directory in its place */
    open_process(&p, false);
    assert_false(ready_within(&p.w, 50));
    ml_session_lmdb.ready(p.w.link, &err);
    assert_non_null(strstr(err.text, "not a regular file"));
    assert_int_equal(create(&p, 1).error, ML_E_UNAVAILABLE);
    ml_session_read(p.seat, ml_str_z(ids[0]), on_reply, &r);
    assert_int_equal(await(&p, &r)->error, ML_E_UNAVAILABLE);
    assert_int_equal(rmdir(path_of("store")), 0);
    assert_serves(&p);
    close_process(&p);
}

/* S-430, S-433: full, or failing. Those who are logged in do not notice; an end holds. */
static void disk_fails(void **state)
{
    static const int errors[] = {ENOSPC, EIO, EFBIG, EDQUOT};
    struct process p;
    open_process(&p, true);
    fill(&p);
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        fail_after = 0;
        fail_with = errors[i];
        assert_int_equal(create(&p, 1).error, ML_E_UNAVAILABLE);
        assert_int_equal(count(&p), SESSIONS - i);
        struct reply r = {.times = 0};
        ml_session_delete(p.seat, ml_str_z(ids[i]), on_reply, &r);
        assert_int_equal(await(&p, &r)->error, ML_E_UNAVAILABLE);
        assert_int_equal(count(&p), SESSIONS - i - 1);
        fail_with = 0;
        assert_serves(&p);
        assert_int_equal(count(&p), SESSIONS - i - 1);
    }
    assert_int_equal(set_aside(&p), 0);
    close_process(&p);
    open_process(&p, true);
    assert_int_equal(set_aside(&p), 0);
    assert_true(count(&p) >= SESSIONS - 4);
    close_process(&p);
}

/* S-453: the n-th call to the disk fails, for each n, at opening and writing. What was
 * acknowledged is there afterwards. */
static void each_call_fails_once(void **state)
{
    for (int n = 0; n < 40; n++) {
        struct process p;
        char id[ML_SESSION_ID + 1] = "";
        fail_after = n;
        fail_with = n % 2 ? EIO : ENOSPC;
        open_process(&p, false);
        ready_within(&p.w, 20);
        for (unsigned i = 0; i < 4; i++) {
            struct reply r = create(&p, i);
            if (!r.error && i == 0)
                memcpy(id, r.id, sizeof id);
        }
        fail_with = 0;
        assert_serves(&p);
        close_process(&p);
        open_process(&p, true);
        if (*id) {
            struct reply r = {.times = 0};
            ml_session_read(p.seat, ml_str_z(id), on_reply, &r);
            assert_true(await(&p, &r)->found);
        }
        assert_int_equal(set_aside(&p), 0);
        close_process(&p);
    }
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, make_directory, remove_directory)
    const struct CMUnitTest tests[] = {
        TEST(cut_while_open),
        TEST(other_files),
        TEST(meta_bytes),
        TEST(garbage_pages),
        TEST(exchanged_or_taken_away),
        TEST(opened_later),
        TEST(disk_fails),
        TEST(each_call_fails_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
