/* An LMDB store in a directory of its own, with one link; calls that wait for their answer. */
#pragma once

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "store/session_lmdb.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define UNUSED __attribute__((unused))

struct world {
    uv_loop_t loop;
    void *store;
    struct ml_session_link *link;
    bool closed;
};

static char directory[32];

UNUSED static const char *path_of(const char *name)
{
    static char paths[4][128];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

UNUSED static int make_directory(void **state)
{
    ml_log_set_level(ML_LOG_FATAL);
    strcpy(directory, "/tmp/ml-lmdb-XXXXXX");
    return mkdtemp(directory) ? 0 : -1;
}

UNUSED static int remove_directory(void **state)
{
    char command[128];
    snprintf(command, sizeof command, "chmod -R u+rwx %s; rm -rf %s", directory, directory);
    return system(command);
}

UNUSED static void world_open_with(struct world *w, const struct ml_lmdb_options *options)
{
    struct ml_err err;
    *w = (struct world){.closed = false};
    assert_int_equal(uv_loop_init(&w->loop), 0);
    w->store = ml_lmdb_store_new(options);
    assert_int_equal(ml_session_lmdb.link(w->store, &w->loop, &w->link, &err), 0);
}

UNUSED static bool ready_within(struct world *w, int ms)
{
    struct ml_err err;
    for (int i = 0; i < ms; i++) {
        if (ml_session_lmdb.ready(w->link, &err))
            return true;
        usleep(1000);
    }
    return false;
}

UNUSED static void world_open(struct world *w)
{
    world_open_with(w, &(struct ml_lmdb_options){.path = path_of("store"), .max_bytes = 64 << 20});
    assert_true(ready_within(w, 5000));
}

UNUSED static void on_unlinked(void *ctx)
{
    ((struct world *)ctx)->closed = true;
}

UNUSED static void world_close(struct world *w)
{
    ml_session_lmdb.unlink(w->link, on_unlinked, w);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_true(w->closed);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    ml_session_lmdb.close(w->store);
}

struct got {
    int times, error;
    bool found;
    char text[128], value[256];
    size_t n, count;
};

UNUSED static void on_answer(void *arg, const struct ml_session_answer *answer)
{
    struct got *g = arg;
    g->times++;
    g->error = answer->error;
    g->found = answer->found;
    g->n = answer->value.n;
    g->count = answer->key_count;
    snprintf(g->text, sizeof g->text, "%s", answer->text ? answer->text : "");
    snprintf(g->value, sizeof g->value, "%.*s", ML_FMT(answer->value));
}

UNUSED static struct got *wait_for(struct world *w, struct got *g)
{
    while (!g->times)
        uv_run(&w->loop, UV_RUN_ONCE);
    assert_int_equal(g->times, 1);
    return g;
}

UNUSED static struct ml_digest key_of(unsigned n)
{
    struct ml_digest d;
    char text[16];
    snprintf(text, sizeof text, "%u", n);
    assert_true(ml_sha256(ml_str_z(text), &d));
    return d;
}

UNUSED static struct got get(struct world *w, unsigned n)
{
    struct got g = {.times = 0};
    struct ml_digest key = key_of(n);
    ml_session_lmdb.get(w->link, &key, on_answer, &g);
    assert_int_equal(g.times, 1);
    return g;
}

UNUSED static void start_put(struct world *w, unsigned n, struct ml_str value, int64_t life_ms,
                             uint64_t replaces, unsigned index, struct got *g)
{
    struct ml_digest key = key_of(n), hash = key_of(index);
    ml_session_lmdb.put(w->link,
                        &(struct ml_session_put){.key = &key,
                                                 .value = value,
                                                 .expires_ms = ml_wall_ms() + life_ms,
                                                 .revision = replaces + 1,
                                                 .replaces = replaces,
                                                 .index = &hash,
                                                 .index_count = 1},
                        on_answer, g);
}

UNUSED static struct got put(struct world *w, unsigned n, const char *value, int64_t life_ms,
                             uint64_t replaces, unsigned index)
{
    struct got g = {.times = 0};
    start_put(w, n, ml_str_z(value), life_ms, replaces, index, &g);
    return *wait_for(w, &g);
}

UNUSED static struct got end(struct world *w, unsigned n)
{
    struct got g = {.times = 0};
    struct ml_digest key = key_of(n);
    ml_session_lmdb.remove(w->link, &key, on_answer, &g);
    return *wait_for(w, &g);
}

UNUSED static struct got end_all(struct world *w, unsigned index)
{
    struct got g = {.times = 0};
    struct ml_digest hash = key_of(index);
    ml_session_lmdb.kill(w->link, &hash, on_answer, &g);
    return *wait_for(w, &g);
}

UNUSED static struct ml_session_store_stats stats(struct world *w)
{
    struct ml_session_store_stats s;
    ml_session_lmdb.stats(w->store, &s);
    return s;
}

/* Files of the directory whose name begins so. */
UNUSED static int count_files(const char *prefix)
{
    int n = 0;
    DIR *d = opendir(directory);
    for (struct dirent *e; d && (e = readdir(d));)
        n += strncmp(e->d_name, prefix, strlen(prefix)) == 0;
    if (d)
        closedir(d);
    return n;
}
