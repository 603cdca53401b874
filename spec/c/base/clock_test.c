/* Clocks: monotonic, and a wall clock that follows small steps back only late. */
#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

static void they_run(void **state)
{
    uint64_t last = ml_mono_ns();
    for (int i = 0; i < 10000; i++) {
        uint64_t now = ml_mono_ns();
        assert_true(now >= last);
        last = now;
    }
    int64_t wall = ml_wall_ms() / 1000, system = (int64_t)time(NULL);
    assert_in_range(wall, system - 2, system + 2);
    uint64_t cpu = ml_thread_cpu_ns();
    for (volatile int i = 0; i < 1000000; i++) {
    }
    assert_true(ml_thread_cpu_ns() > cpu);
}

/* What has expired stays expired when the clock is set back a little. */
static void small_steps_back_are_not_followed(void **state)
{
    int64_t before = ml_wall_ms();
    ml_clock_advance(-4 * 60 * 1000);
    int64_t after = ml_wall_ms();
    assert_true(after >= before && after - before < 2000);
    ml_clock_advance(4 * 60 * 1000);
}

static void large_steps_back_are(void **state)
{
    int64_t before = ml_wall_ms();
    ml_clock_advance(-60 * 60 * 1000);
    assert_true(ml_wall_ms() < before - 59 * 60 * 1000);
    int64_t then = ml_wall_ms();
    ml_clock_advance(60 * 60 * 1000);
    assert_true(ml_wall_ms() >= then + 59 * 60 * 1000);
}

static void tests_move_both(void **state)
{
    int64_t wall = ml_wall_ms();
    uint64_t mono = ml_mono_ms();
    ml_clock_advance(10000);
    assert_true(ml_wall_ms() - wall >= 10000);
    assert_true(ml_mono_ms() - mono >= 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(they_run),
        cmocka_unit_test(small_steps_back_are_not_followed),
        cmocka_unit_test(large_steps_back_are),
        cmocka_unit_test(tests_move_both),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
