/* S-434: kill -9 in mid-write. A child writes sessions and tells by a pipe which of them were
 * acknowledged; it is killed at a random moment; each acknowledged one must be there, nothing is
 * set aside. KILLS: how often. */
#include "c/store/lmdb_world.h"

#include <signal.h>
#include <sys/wait.h>

enum { LONG = 3600 * 1000, KEYS = 64 };

static char value[3000];

static _Noreturn void write_until_killed(int pipe_fd, unsigned first)
{
    struct world w;
    static struct got got[KEYS];
    world_open(&w);
    for (unsigned n = first;; n += KEYS) {
        for (unsigned i = 0; i < KEYS; i++) {
            got[i] = (struct got){.times = 0};
            start_put(&w, n + i, ml_str(value, 1 + (n + i) % sizeof value), LONG, 0, n % 10,
                      &got[i]);
        }
        for (unsigned i = 0; i < KEYS; i++) {
            wait_for(&w, &got[i]);
            unsigned done = n + i;
            if (got[i].error || !got[i].found || write(pipe_fd, &done, sizeof done) != sizeof done)
                _exit(1);
        }
    }
}

/* Returns the number after the last acknowledged one. */
static unsigned one_life(unsigned first, unsigned ms)
{
    int fds[2];
    unsigned n = first, acknowledged;
    assert_int_equal(pipe(fds), 0);
    pid_t child = fork();
    if (child == 0)
        write_until_killed(fds[1], first);
    close(fds[1]);
    usleep(ms * 1000);
    kill(child, SIGKILL);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    while (read(fds[0], &acknowledged, sizeof acknowledged) == sizeof acknowledged) {
        assert_int_equal(acknowledged, n);
        n++;
    }
    close(fds[0]);
    return n;
}

static void kill_in_mid_write(void **state)
{
    const char *text = getenv("KILLS");
    unsigned kills = text ? (unsigned)atoi(text) : 200, seed = 7, total = 0;
    for (unsigned i = 0; i < kills; i++) {
        unsigned first = i * 100000;
        unsigned end = one_life(first, 5 + (unsigned)rand_r(&seed) % 60);
        struct world w;
        uint64_t before = ml_mono_ms();
        world_open(&w);
        assert_true(ml_mono_ms() - before < 1000);
        assert_int_equal(stats(&w).set_aside, 0);
        for (unsigned n = first; n < end; n++) {
            struct got g = get(&w, n);
            assert_true(g.found);
            assert_int_equal(g.n, 1 + n % sizeof value);
        }
        for (unsigned index = 0; i % 20 == 19 && index < 10; index++) /* keeps it small */
            end_all(&w, index);
        world_close(&w);
        total += end - first;
    }
    print_message("%u kills, %u acknowledged writes\n", kills, total);
    assert_true(total > kills); /* it did write */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(kill_in_mid_write, make_directory, remove_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
