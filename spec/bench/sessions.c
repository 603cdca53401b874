/* What the LMDB store can do on this machine: logins a second with 64 under way, reads of the
 * store, reads of the cache, the time to open it with all of them in, and the memory that this
 * takes.
 *
 *   bench_sessions DIRECTORY [SESSIONS]      (100000; the directory's "bench" files are removed) */
#include "base/clock.h"
#include "base/mem.h"
#include "store/session.h"
#include "store/session_lmdb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { UNDER_WAY = 64, READS = 200000, OPEN = 600, CLOSED = 2800 };

struct bench {
    uv_loop_t loop;
    char path[512];
    struct ml_cache *cache;
    struct ml_seal_keys *keys;
    struct ml_sessions *sessions;
    struct ml_session_seat *seat;
    unsigned count, started, done, failed, found;
    char (*ids)[ML_SESSION_ID + 1];
    char open[OPEN], closed[CLOSED];
};

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* A line of /proc/self/status, in KiB. */
static long status_kib(const char *name)
{
    char line[256];
    long kib = -1;
    FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, name, strlen(name)) == 0)
            kib = atol(line + strlen(name) + 1);
    if (f)
        fclose(f);
    return kib;
}

static void say(const char *what, unsigned n, uint64_t ns, double cpu)
{
    printf("%-24s %9.0f a second, %6.1f us CPU each\n", what, n / ((double)ns / 1e9),
           cpu / n * 1e6);
}

static void on_created(void *arg, const struct ml_session_reply *reply);

static void create_next(struct bench *b)
{
    struct ml_str kinds[] = {ML_STR("user"), ML_STR("subject"), ML_STR("sid")};
    char user[32];
    snprintf(user, sizeof user, "user-%u", b->started++);
    struct ml_str values[] = {ml_str_z(user), ml_str_z(user), ml_str_z(user)};
    ml_session_create(b->seat,
                      &(struct ml_session_new){.open = ml_str(b->open, sizeof b->open),
                                               .closed = ml_str(b->closed, sizeof b->closed),
                                               .lifetime_ms = 86400000,
                                               .kinds = kinds,
                                               .values = values,
                                               .index_count = 3},
                      on_created, b);
}

static void on_created(void *arg, const struct ml_session_reply *reply)
{
    struct bench *b = arg;
    b->failed += reply->error != 0;
    memcpy(b->ids[b->done++], reply->id, sizeof b->ids[0]);
    if (b->started < b->count)
        create_next(b);
}

static void on_read(void *arg, const struct ml_session_reply *reply)
{
    struct bench *b = arg;
    b->found += reply->found;
    ml_entry_unref(reply->entry);
}

static void on_left(void *ctx)
{
}

/* Opens; says how long it took until it was ready. */
static void start(struct bench *b, uint32_t cache_ms)
{
    struct ml_err err;
    uint64_t before = ml_mono_ns();
    double cpu = cpu_seconds();
    ML_REQUIRE(uv_loop_init(&b->loop) == 0);
    ML_REQUIRE(ml_seal_keys_new(&b->keys, ML_STR("a key for the bench of no worth at all"), &err) ==
               0);
    b->cache = ml_cache_new(64 << 20);
    b->sessions = ml_sessions_new(
        &(struct ml_sessions_options){.backend = &ml_session_lmdb,
                                      .store = ml_lmdb_store_new(&(struct ml_lmdb_options){
                                          .path = b->path, .max_bytes = UINT64_C(8) << 30}),
                                      .keys = b->keys,
                                      .cache = b->cache,
                                      .cache_ms = cache_ms});
    ML_REQUIRE(ml_session_sit(&b->seat, b->sessions, &b->loop, &err) == 0);
    while (!ml_session_ready(b->seat, &err))
        usleep(100);
    struct ml_sessions_stats s = ml_sessions_stats(b->sessions);
    printf("%-24s %9.1f ms, %.1f ms CPU, with %llu sessions\n", "open",
           (double)(ml_mono_ns() - before) / 1e6, (cpu_seconds() - cpu) * 1e3,
           (unsigned long long)s.store.sessions);
}

static void stop(struct bench *b)
{
    ml_session_leave(b->seat, on_left, NULL);
    uv_run(&b->loop, UV_RUN_DEFAULT);
    ML_REQUIRE(uv_loop_close(&b->loop) == 0);
    ml_sessions_free(b->sessions);
    ml_cache_free(b->cache);
    ml_seal_keys_free(b->keys);
}

static void write_all(struct bench *b)
{
    uint64_t before = ml_mono_ns();
    double cpu = cpu_seconds();
    while (b->started < b->count && b->started < UNDER_WAY)
        create_next(b);
    while (b->done < b->count)
        uv_run(&b->loop, UV_RUN_ONCE);
    say("logins, 64 under way", b->count, ml_mono_ns() - before, cpu_seconds() - cpu);
    struct ml_sessions_stats s = ml_sessions_stats(b->sessions);
    printf("%-24s %9.1f writes each, %u failed\n", "commits", b->count / (double)s.store.commits,
           b->failed);
}

static void read_all(struct bench *b, const char *what, unsigned spread)
{
    uint64_t before = ml_mono_ns();
    double cpu = cpu_seconds();
    b->found = 0;
    for (unsigned i = 0; i < READS; i++)
        ml_session_read(b->seat, ml_str(b->ids[i * UINT64_C(7919) % spread], ML_SESSION_ID),
                        on_read, b);
    ML_REQUIRE(b->found == READS);
    say(what, READS, ml_mono_ns() - before, cpu_seconds() - cpu);
}

static void remove_files(const struct bench *b)
{
    static const char *const suffixes[] = {"", ".lock", "-lock"};
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        char name[600];
        snprintf(name, sizeof name, "%s%s", b->path, suffixes[i]);
        unlink(name);
    }
}

int main(int argc, char **argv)
{
    static struct bench b;
    if (argc < 2) {
        fputs("usage: bench_sessions DIRECTORY [SESSIONS]\n", stderr);
        return 2;
    }
    b.count = argc > 2 ? (unsigned)atoi(argv[2]) : 100000;
    b.ids = ml_xcalloc(b.count, sizeof b.ids[0]);
    memset(b.open, 'o', sizeof b.open);
    memset(b.closed, 'c', sizeof b.closed);
    snprintf(b.path, sizeof b.path, "%s/bench", argv[1]);
    remove_files(&b);
    start(&b, 0);
    write_all(&b);
    stop(&b);
    long anon = status_kib("RssAnon:"), file = status_kib("RssFile:");
    start(&b, 0);
    printf("%-24s %9ld KiB of our own, %ld of the map\n", "memory after opening",
           status_kib("RssAnon:") - anon, status_kib("RssFile:") - file);
    read_all(&b, "reads of the store", b.count);
    stop(&b);
    start(&b, 60000);
    read_all(&b, "reads of the cache", 1000);
    stop(&b);
    remove_files(&b);
    free(b.ids);
    return 0;
}
