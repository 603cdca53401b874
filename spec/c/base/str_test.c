/* Slices, arenas, buffers, memory helpers. */
#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void slices(void **state)
{
    assert_true(ml_str_ieq(ML_STR("X-aZ"), ML_STR("x-Az")));
    assert_false(ml_str_ieq(ML_STR("a@"), ML_STR("a`"))); /* 32 apart, no letters */
    assert_false(ml_str_ieq(ML_STR("\xC3\x89"), ML_STR("\xC3\xA9")));
    assert_true(ml_str_eq((struct ml_str){NULL, 0}, ML_STR("")));
    assert_false(ml_str_eq(ML_STR("a\0b"), ML_STR("a\0c")));
    assert_true(ml_str_starts(ML_STR("abc"), ML_STR("ab")));
    assert_false(ml_str_starts(ML_STR("ab"), ML_STR("abc")));
    assert_true(ml_str_istarts(ML_STR("BEARER x"), ML_STR("Bearer ")));
    assert_true(ml_str_eq(ml_str_trim(ML_STR(" \t a b\t ")), ML_STR("a b")));
    assert_int_equal(ml_str_trim(ML_STR(" \t ")).n, 0);
    assert_int_equal(ml_str_z(NULL).n, 0);
}

/* All pairs of bytes, in the first place and in the second. */
static void case_folding(void **state)
{
    for (int a = 0; a < 256; a++) {
        for (int b = 0; b < 256; b++) {
            bool same = ml_lower((char)a) == ml_lower((char)b);
            char x[2] = {(char)a, 'k'}, y[2] = {(char)b, 'K'};
            assert_int_equal(ml_str_ieq(ml_str(x, 2), ml_str(y, 2)), same);
            char v[2] = {'k', (char)a}, w[2] = {'K', (char)b};
            assert_int_equal(ml_str_ieq(ml_str(v, 2), ml_str(w, 2)), same);
        }
    }
    assert_true(ml_str_ieq(ml_str(NULL, 0), ML_STR("")));
}

static void cut(void **state)
{
    struct ml_str rest;
    assert_true(ml_str_eq(ml_str_cut(ML_STR("a=b=c"), '=', &rest), ML_STR("a")));
    assert_true(ml_str_eq(rest, ML_STR("b=c")));
    assert_true(ml_str_eq(ml_str_cut(ML_STR("a="), '=', &rest), ML_STR("a")));
    assert_non_null(rest.p);
    assert_int_equal(rest.n, 0);
    assert_true(ml_str_eq(ml_str_cut(ML_STR("a"), '=', &rest), ML_STR("a")));
    assert_null(rest.p);
    assert_int_equal(ml_str_cut((struct ml_str){NULL, 0}, '=', &rest).n, 0);
    assert_null(rest.p);
}

static void numbers(void **state)
{
    static const char *const bad[] = {
        "", "-1", "+1", " 1", "1 ", "1a", "0x1", "18446744073709551616", "99999999999999999999999"};
    unsigned long long v = 7;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(ml_str_u64(ml_str_z(bad[i]), &v));
    assert_true(v == 7);
    assert_true(ml_str_u64(ML_STR("18446744073709551615"), &v) && v == UINT64_MAX);
    assert_true(ml_str_u64(ML_STR("007"), &v) && v == 7);
}

static void arena_is_bounded(void **state)
{
    struct ml_arena a;
    ml_arena_init(&a, 8192);
    size_t got = 0;
    for (char *p; (p = ml_arena_alloc(&a, 100)) != NULL; got++) {
        assert_int_equal((uintptr_t)p % 16, 0);
        memset(p, 1, 100);
    }
    assert_in_range(got, 8192 / 112 - 8, 8192 / 112);
    assert_true(a.total <= 8192);
    assert_null(ml_arena_alloc(&a, 4096));
    ml_arena_reset(&a);
    assert_non_null(ml_arena_alloc(&a, 8192)); /* all of it is free again */
    ml_arena_reset(&a);
    assert_null(ml_arena_alloc(&a, 8193));
    assert_null(ml_arena_alloc(&a, SIZE_MAX));
    assert_null(ml_arena_alloc(&a, SIZE_MAX - 15));
    assert_null(ml_arena_dup(&a, ml_str("", SIZE_MAX)).p);
    ml_arena_done(&a);
    ml_arena_init(&a, 0);
    assert_null(ml_arena_alloc(&a, 1));
    ml_arena_done(&a);
}

static void arena_copies(void **state)
{
    struct ml_arena a;
    ml_arena_init(&a, 64 * 1024);
    struct ml_str s = ml_arena_dup(&a, ML_STR("a\0b"));
    assert_true(ml_str_eq(s, ML_STR("a\0b")));
    assert_int_equal(s.p[3], 0);
    assert_non_null(ml_arena_dup(&a, (struct ml_str){NULL, 0}).p);
    s = ml_arena_printf(&a, "%s-%03d", "x", 7);
    assert_true(ml_str_eq(s, ML_STR("x-007")));
    char *large = ml_arena_alloc(&a, 10000); /* larger than a chunk */
    assert_non_null(large);
    memset(large, 1, 10000);
    assert_true(ml_str_eq(s, ML_STR("x-007")));
    ml_arena_reset(&a);
    assert_null(a.at);
    ml_arena_done(&a);
    ml_arena_done(&a);
}

static void buf_is_bounded(void **state)
{
    static const size_t bounds[] = {0, 1, 4, 255, 256, 257, 1000};
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
        struct ml_buf b;
        ml_buf_init(&b, bounds[i]);
        for (size_t n = 0; n < bounds[i]; n++)
            assert_true(ml_buf_add(&b, "x", 1));
        assert_true(ml_buf_add(&b, NULL, 0));
        assert_false(ml_buf_add(&b, "x", 1));
        assert_false(ml_buf_add(&b, NULL, 0)); /* sticky */
        assert_true(b.failed && b.n == bounds[i] && b.cap <= b.max);
        ml_buf_clear(&b);
        assert_int_equal(b.n, 0);
        assert_false(ml_buf_reserve(&b, SIZE_MAX));
        ml_buf_done(&b);
    }
}

static void buf_printf(void **state)
{
    struct ml_buf b;
    ml_buf_init(&b, 1000);
    assert_true(ml_buf_printf(&b, "%d %s", 42, "x"));
    assert_true(ml_buf_add_str(&b, ML_STR("\0y")));
    assert_true(ml_str_eq(ml_buf_str(&b), ML_STR("42 x\0y")));
    assert_false(ml_buf_printf(&b, "%2000d", 1));
    assert_true(b.failed);
    ml_buf_done(&b);
}

static void json_escapes(void **state)
{
    static const struct {
        struct ml_str in, out;
    } cases[] = {
        {ML_STR(""), ML_STR("\"\"")},
        {ML_STR("a/b"), ML_STR("\"a/b\"")},
        {ML_STR("\"\\"), ML_STR("\"\\\"\\\\\"")},
        {ML_STR("\0\n\r\t\x1b\x7f"), ML_STR("\"\\u0000\\u000a\\u000d\\u0009\\u001b\\u007f\"")},
        {ML_STR("\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"),
         ML_STR("\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\"")},
        {ML_STR("\xFFz"), ML_STR("\"\xEF\xBF\xBDz\"")},
        {ML_STR("\xC0\xAF"), ML_STR("\"\xEF\xBF\xBD\xEF\xBF\xBD\"")},
        {ML_STR("\xED\xA0\x80"), ML_STR("\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"")},
        {ML_STR("\xC3"), ML_STR("\"\xEF\xBF\xBD\"")},
        {ML_STR("\xE2\x82\""), ML_STR("\"\xEF\xBF\xBD\xEF\xBF\xBD\\\"\"")},
        {ML_STR("\xF4\x90\x80\x80"),
         ML_STR("\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"")},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ml_buf b;
        ml_buf_init(&b, 1000);
        /* of exactly its size: a read past the end is the sanitizer's to see */
        char *copy = ml_xmalloc(cases[i].in.n);
        memcpy(copy, cases[i].in.p, cases[i].in.n);
        assert_true(ml_buf_add_json(&b, ml_str(copy, cases[i].in.n)));
        if (!ml_str_eq(ml_buf_str(&b), cases[i].out))
            fail_msg("case %zu: %.*s", i, ML_FMT(ml_buf_str(&b)));
        free(copy);
        ml_buf_done(&b);
    }
}

static void memory(void **state)
{
    char a[8] = "secret!", zero[8] = {0};
    uint8_t r1[32] = {0}, r2[32] = {0};
    assert_true(ml_equal_ct("abc", 3, "abc", 3));
    assert_false(ml_equal_ct("abc", 3, "abd", 3));
    assert_false(ml_equal_ct("abc", 3, "abcd", 4));
    assert_true(ml_equal_ct(NULL, 0, "", 0));
    ml_wipe(a, sizeof a);
    assert_memory_equal(a, zero, sizeof a);
    ml_wipe(NULL, 0);
    assert_true(ml_random(r1, sizeof r1) && ml_random(r2, sizeof r2));
    assert_memory_not_equal(r1, r2, sizeof r1);
    static uint8_t large[1000];
    assert_true(ml_random(large, sizeof large));
    char *z = ml_xstrndup("abc", 2);
    assert_string_equal(z, "ab");
    free(z);
    assert_null(ml_xstrdup(NULL));
}

static void errors(void **state)
{
    struct ml_err err;
    char text[2000];
    memset(text, 'x', sizeof text);
    text[1999] = 0;
    assert_int_equal(ml_fail(NULL, ML_E_IO, "x"), ML_E_IO);
    assert_int_equal(ml_fail(&err, ML_E_INVALID, "%s", text), ML_E_INVALID);
    assert_int_equal(err.code, ML_E_INVALID);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices),           cmocka_unit_test(cut),
        cmocka_unit_test(case_folding),     cmocka_unit_test(numbers),
        cmocka_unit_test(arena_is_bounded), cmocka_unit_test(arena_copies),
        cmocka_unit_test(buf_is_bounded),   cmocka_unit_test(buf_printf),
        cmocka_unit_test(json_escapes),     cmocka_unit_test(memory),
        cmocka_unit_test(errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
