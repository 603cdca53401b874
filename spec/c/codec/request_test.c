/* Requests and decisions: the shape of S-019, the first answer wins. */
#include "base/mem.h"
#include "codec/request.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void headers(void **state)
{
    const struct ml_header list[] = {
        {ML_STR("Authorization"), ML_STR("Bearer a")},
        {ML_STR("authorization"), ML_STR("Bearer b")},
        {ML_STR("X-Empty"), {NULL, 0}},
        {ML_STR("X-One"), ML_STR("1")},
    };
    struct ml_request r = {.headers = list, .header_count = 4};
    size_t count = 99;
    assert_null(ml_request_header(&r, ML_STR("AUTHORIZATION"), &count).p);
    assert_int_equal(count, 2);
    assert_non_null(ml_request_header(&r, ML_STR("x-empty"), &count).p);
    assert_int_equal(count, 1);
    assert_true(ml_str_eq(ml_request_header(&r, ML_STR("x-one"), NULL), ML_STR("1")));
    assert_null(ml_request_header(&r, ML_STR("x-none"), &count).p);
    assert_int_equal(count, 0);
}

static void first_answer_wins(void **state)
{
    struct ml_decision *d = ML_NEW(struct ml_decision);
    assert_true(ml_decision_deny(d, 401, ML_STR("unauthenticated"), ML_STR("no")));
    assert_false(ml_decision_allow(d));
    assert_false(ml_decision_deny(d, 302, ML_STR("login"), ML_STR("x")));
    assert_int_equal(d->action, ML_DENY);
    assert_int_equal(d->status, 401);
    assert_true(ml_str_eq(d->reason, ML_STR("unauthenticated")));
    assert_true(ml_str_eq(d->body, ML_STR("no")));
    *d = (struct ml_decision){.action = ML_UNDECIDED};
    assert_true(ml_decision_allow(d));
    assert_false(ml_decision_deny(d, 403, ML_STR("denied"), ML_STR("")));
    assert_false(ml_decision_allow(d));
    assert_int_equal(d->action, ML_ALLOW);
    assert_int_equal(d->status, 200);
    free(d);
}

static void a_deny_is_never_a_success(void **state)
{
    static const int bad[] = {200, 0, -1, 100, 204, 299, 300, 600, 2000000200};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct ml_decision *d = ML_NEW(struct ml_decision);
        assert_true(ml_decision_deny(d, bad[i], ML_STR("denied"), ML_STR("")));
        assert_int_equal(d->status, 503);
        assert_true(ml_str_eq(d->reason, ML_STR("error")));
        free(d);
    }
}

static void steps(void **state)
{
    struct ml_decision *d = ML_NEW(struct ml_decision);
    for (int i = 0; i < ML_STEPS_MAX; i++)
        ml_decision_step(d, ML_STR("name"), ML_STR("skip"), ML_STR("why"));
    assert_int_equal(d->step_count, ML_STEPS_MAX);
    assert_true(ml_str_eq(d->steps[ML_STEPS_MAX - 1].name, ML_STR("name")));
    for (int i = 0; i < 3; i++)
        ml_decision_step(d, ML_STR("name"), ML_STR("skip"), ML_STR("why"));
    assert_int_equal(d->step_count, ML_STEPS_MAX);
    assert_true(ml_str_eq(d->steps[ML_STEPS_MAX - 1].name, ML_STR("...")));
    assert_true(ml_str_eq(d->steps[ML_STEPS_MAX - 2].name, ML_STR("name")));
    free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers),
        cmocka_unit_test(first_answer_wins),
        cmocka_unit_test(a_deny_is_never_a_success),
        cmocka_unit_test(steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
