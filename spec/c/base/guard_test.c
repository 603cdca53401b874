/* Guarded calls: faults under a map, on several threads, and those of nobody. */
#include "base/guard.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { PAGE = 4096 };

struct work {
    volatile char *map;
    int done;
};

static void touch(void *arg)
{
    struct work *w = arg;
    w->done = 1;
    w->done += w->map[PAGE];
    w->done = 2;
}

/* A map of two pages over a file of one. */
static volatile char *short_file(void)
{
    char path[] = "/tmp/ml-guard-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    assert_int_equal(ftruncate(fd, PAGE), 0);
    char *map = mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(map, MAP_FAILED);
    close(fd);
    return map;
}

static void leave(void *arg)
{
    ml_guard_leave();
}

static void ends_what_faults(void **state)
{
    char pages[2 * PAGE] = {0};
    struct work w = {.map = pages}, cut = {.map = short_file()}, astray = {.map = (char *)16};
    ml_guard_install();
    for (int i = 0; i < 3; i++) {
        assert_true(ml_guard_run(touch, &w));
        assert_int_equal(w.done, 2);
        assert_false(ml_guard_run(touch, &cut));
        assert_int_equal(cut.done, 1);
        assert_false(ml_guard_run(touch, &astray));
        assert_false(ml_guard_run(leave, NULL));
    }
}

static void *many(void *arg)
{
    struct work cut = {.map = arg};
    for (int i = 0; i < 1000; i++)
        if (ml_guard_run(touch, &cut))
            return NULL;
    return arg;
}

static void on_threads(void **state)
{
    pthread_t threads[4];
    void *map = (void *)(size_t)short_file(), *ended;
    ml_guard_install();
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, many, map), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], &ended);
        assert_ptr_equal(ended, map);
    }
}

/* A bug of ours stays a crash. */
static void not_guarded(void **state)
{
    volatile char *map = short_file();
    pid_t child = fork();
    if (child == 0) {
        signal(SIGBUS, SIG_DFL); /* not cmocka's */
        ml_guard_install();
        struct work w = {.map = map};
        ml_guard_run(touch, &w);
        touch(&w);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ends_what_faults),
        cmocka_unit_test(on_threads),
        cmocka_unit_test(not_guarded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
