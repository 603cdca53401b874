/* The board: snapshots, failures, bounds, readers beside a writer. */
#include "store/board.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void snapshots_and_failures(void **state)
{
    struct ml_board *b = ml_board_new();
    char why[64];
    assert_null(ml_board_read(b, ML_STR("corp")));
    assert_false(ml_board_failure(b, ML_STR("corp"), why, sizeof why));
    ml_board_fail(b, ML_STR("corp"), ML_STR("connection refused"));
    assert_null(ml_board_read(b, ML_STR("corp")));
    assert_true(ml_board_failure(b, ML_STR("corp"), why, sizeof why));
    assert_string_equal(why, "connection refused");

    assert_true(ml_board_post(b, ML_STR("corp"), ML_STR("{\"a\":1}")));
    assert_false(ml_board_failure(b, ML_STR("corp"), why, sizeof why));
    struct ml_entry *first = ml_board_read(b, ML_STR("corp"));
    assert_string_equal(first->bytes, "{\"a\":1}");
    assert_null(ml_board_read(b, ML_STR("corp2")));

    ml_board_fail(b, ML_STR("corp"), ML_STR("status 500")); /* the old one stays */
    assert_true(ml_board_post(b, ML_STR("corp"), ML_STR("{\"a\":1}")));
    struct ml_entry *same = ml_board_read(b, ML_STR("corp"));
    assert_int_equal(same->id, first->id);
    assert_true(ml_board_post(b, ML_STR("corp"), ML_STR("{\"a\":2}")));
    struct ml_entry *next = ml_board_read(b, ML_STR("corp"));
    assert_int_not_equal(next->id, first->id);
    ml_entry_unref(first);
    ml_entry_unref(same);
    ml_entry_unref(next);
    ml_board_free(b);
}

static void bounds(void **state)
{
    struct ml_board *b = ml_board_new();
    char name[300], why[600];
    for (int i = 0; i < 256; i++) {
        snprintf(name, sizeof name, "n%d", i);
        assert_true(ml_board_post(b, ml_str_z(name), ML_STR("{}")));
    }
    assert_false(ml_board_post(b, ML_STR("one more"), ML_STR("{}")));
    ml_board_fail(b, ML_STR("one more"), ML_STR("x"));
    assert_false(ml_board_failure(b, ML_STR("one more"), why, sizeof why));
    assert_true(ml_board_post(b, ML_STR("n7"), ML_STR("{ }"))); /* known names still can */
    char *big = calloc(1, (1 << 20) + 1);
    assert_false(ml_board_post(b, ML_STR("n7"), ml_str(big, (1 << 20) + 1)));
    assert_true(ml_board_post(b, ML_STR("n7"), ml_str(big, 1 << 20)));
    free(big);
    memset(why, 'w', sizeof why);
    ml_board_fail(b, ML_STR("n1"), ml_str(why, sizeof why));
    assert_true(ml_board_failure(b, ML_STR("n1"), why, sizeof why));
    assert_int_equal(strlen(why), 255);
    ml_board_free(b);

    b = ml_board_new();
    memset(name, 'n', sizeof name);
    assert_false(ml_board_post(b, ml_str(name, 257), ML_STR("{}")));
    assert_true(ml_board_post(b, ml_str(name, 256), ML_STR("{}")));
    ml_board_free(b);
}

static void *read_often(void *arg)
{
    for (int i = 0; i < 5000; i++) {
        char why[16];
        struct ml_entry *e = ml_board_read(arg, ML_STR("corp"));
        if (e && e->bytes[0] != '{')
            abort();
        ml_entry_unref(e);
        ml_board_failure(arg, ML_STR("corp"), why, sizeof why);
    }
    return NULL;
}

static void readers_beside_a_writer(void **state)
{
    struct ml_board *b = ml_board_new();
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, read_often, b);
    for (int i = 0; i < 2000; i++) {
        char text[32];
        snprintf(text, sizeof text, "{\"n\":%d}", i / 2);
        ml_board_post(b, ML_STR("corp"), ml_str_z(text));
        ml_board_fail(b, ML_STR("corp"), ML_STR("why"));
    }
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    ml_board_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(snapshots_and_failures),
        cmocka_unit_test(bounds),
        cmocka_unit_test(readers_beside_a_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
