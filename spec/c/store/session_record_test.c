/* Sealed records, and the tombstones of ended sessions. */
#include "base/clock.h"
#include "base/mem.h"
#include "store/session_record.h"
#include "store/tombstone.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const char key_a[] = "the first key of all these tests: 1",
                  key_b[] = "the other key of all these tests: 2";

/* S-173: what another key, another record's place, or a single bit makes of a record. */
static void records_that_are_not_ours(void **state)
{
    struct ml_seal_keys *a, *b, *both;
    struct ml_err err;
    struct ml_digest key = {{1}}, other = {{2}};
    struct ml_session_record got, r = {.revision = 7,
                                       .version = 9,
                                       .created_ms = 1,
                                       .ends_ms = ml_wall_ms() + 60000,
                                       .touched_ms = ml_wall_ms(),
                                       .idle_ms = 30000,
                                       .index = {{{3}}, {{4}}},
                                       .index_count = 2,
                                       .open = ML_STR("{\"open\":1}"),
                                       .closed = ML_STR("{\"closed\":1}")};
    struct ml_buf sealed, plain;
    char list[80];
    snprintf(list, sizeof list, "%s,%s", key_b, key_a);
    assert_int_equal(ml_seal_keys_new(&a, ml_str_z(key_a), &err), 0);
    assert_int_equal(ml_seal_keys_new(&b, ml_str_z(key_b), &err), 0);
    assert_int_equal(ml_seal_keys_new(&both, ml_str_z(list), &err), 0);
    ml_buf_init(&sealed, ML_SESSION_VALUE_MAX);
    ml_session_plain_init(&plain);
    int64_t now = ml_wall_ms();
    assert_int_equal(ml_session_record_seal(&r, a, &key, &sealed), 0);
    assert_true(ml_session_record_open(&got, both, &key, now, ml_buf_str(&sealed), &plain));
    assert_int_equal(got.revision, 7);
    assert_int_equal(got.version, 9);
    assert_int_equal(got.index_count, 2);
    assert_memory_equal(got.index, r.index, 2 * sizeof r.index[0]);
    assert_true(ml_str_eq(got.open, r.open) && ml_str_eq(got.closed, r.closed));
#define REFUSED(keys, which, at, bytes)                                                            \
    ml_buf_clear(&plain);                                                                          \
    assert_false(ml_session_record_open(&got, keys, which, at, bytes, &plain))
    REFUSED(b, &key, now, ml_buf_str(&sealed));
    REFUSED(a, &other, now, ml_buf_str(&sealed));
    REFUSED(a, &key, now + 30001, ml_buf_str(&sealed));
    REFUSED(a, &key, now + 60001, ml_buf_str(&sealed));
    for (size_t n = 0; n < sealed.n; n++) {
        REFUSED(a, &key, now, ml_str(sealed.p, n));
        sealed.p[n] ^= 1;
        REFUSED(a, &key, now, ml_buf_str(&sealed));
        sealed.p[n] ^= 1;
    }
    /* Of a later version of this program, or of none: well sealed all the same. */
    for (size_t n = 0; n < 60; n++) {
        char bytes[64] = {n == 59 ? 2 : 1};
        ml_buf_clear(&sealed);
        assert_true(
            ml_seal(a, ML_STR("session"), ml_str((char *)key.b, 32), 0, ml_str(bytes, n), &sealed));
        REFUSED(a, &key, now, ml_buf_str(&sealed));
    }
    ml_session_plain_done(&plain);
    ml_buf_done(&sealed);
    ml_seal_keys_free(a);
    ml_seal_keys_free(b);
    ml_seal_keys_free(both);
}

static struct ml_digest key_of(unsigned n)
{
    return (struct ml_digest){{(uint8_t)n, (uint8_t)(n >> 8)}};
}

static void tombstones(void **state)
{
    struct ml_tombstones *t = ml_tombstones_new(3);
    struct ml_digest k[5], due[4];
    size_t all, unconfirmed;
    for (unsigned i = 0; i < 5; i++)
        k[i] = key_of(i);
    assert_false(ml_tombstones_has(t, &k[0]));
    assert_true(ml_tombstones_add(t, &k[0], true));
    assert_true(ml_tombstones_add(t, &k[1], false));
    assert_true(ml_tombstones_add(t, &k[2], false));
    assert_true(ml_tombstones_add(t, &k[3], false)); /* in the place of the confirmed one */
    assert_false(ml_tombstones_has(t, &k[0]));
    assert_false(ml_tombstones_add(t, &k[4], true));
    assert_true(ml_tombstones_add(t, &k[3], false)); /* it has its place */
    assert_int_equal(ml_tombstones_due(t, 1000, due, 4), 0);
    ml_clock_advance(1000);
    assert_int_equal(ml_tombstones_due(t, 1000, due, 2), 2);
    assert_int_equal(ml_tombstones_due(t, 1000, due, 4), 1);
    assert_int_equal(ml_tombstones_due(t, 1000, due, 4), 0);
    ml_clock_advance(24 * 3600 * 1000); /* nothing unconfirmed ever goes by itself */
    for (int i = 1; i < 4; i++)
        assert_true(ml_tombstones_has(t, &k[i]));
    ml_tombstones_add(t, &k[1], true);
    ml_tombstones_count(t, &all, &unconfirmed);
    assert_int_equal(all, 3);
    assert_int_equal(unconfirmed, 2);
    ml_clock_advance(ML_TOMBSTONE_KEEP_MS - 1);
    assert_true(ml_tombstones_has(t, &k[1]));
    ml_clock_advance(1);
    assert_false(ml_tombstones_has(t, &k[1]));
    ml_tombstones_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_that_are_not_ours),
        cmocka_unit_test(tombstones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
