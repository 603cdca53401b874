/* Regular expressions: security.md S-183, S-517, and what USERID_TRANSFORMERS needs (RE2, Go's $1).
 */
#include "base/clock.h"
#include "base/mem.h"
#include "codec/regex.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define COUNT(table) (sizeof(table) / sizeof(table)[0])

static struct ml_regex *compiled(const char *pattern)
{
    struct ml_err err;
    struct ml_regex *re = ml_regex_compile(ml_str_z(pattern), &err);
    if (!re)
        fail_msg("%s: %s", pattern, err.text);
    return re;
}

static int match(const char *pattern, const char *subject, struct ml_str g[ML_REGEX_GROUPS])
{
    struct ml_err err;
    struct ml_regex *re = compiled(pattern);
    int r = ml_regex_match(re, ml_str_z(subject), g, &err);
    ml_regex_free(re);
    return r;
}

static void matches(void **state)
{
    static const struct {
        const char *pattern, *subject;
        int groups;
    } cases[] = {
        {"", "", 1},
        {"", "a", 1},
        {"a", "", 0},
        {"b", "abc", 1},
        {"(b)(x)?", "abc", 3},
        {"^a$", "a\n", 0}, /* S-035: '$' is the very end, as in RE2 */
        {"^[^@]+@corp\\.com$", "a@corp.com\n", 0},
        {"^[^@]+@corp\\.com$", "a@corp.com", 1},
        {"(?m)^b$", "a\nb\nc", 1},
        {"a.b", "a\nb", 0},
        {"(?s)a.b", "a\nb", 1},
        {"a.b", "a\rb", 1},
        {"(?i)ABC", "abc", 1},
        {"^.$", "\xC3\xA9", 1},
        {"^\\d$", "\xD9\xA3", 0}, /* \d is ASCII, as in RE2 */
        {"\\p{Lu}", "\xC3\x89", 1},
        {"(?P<name>a)", "a", 2},
        {"a++b", "aab", 1},
        {"(a(*ACCEPT)b)c", "a", 2},
    };
    struct ml_str g[ML_REGEX_GROUPS];
    for (size_t i = 0; i < COUNT(cases); i++) {
        int r = match(cases[i].pattern, cases[i].subject, g);
        if (r != cases[i].groups)
            fail_msg("%s on %s: %d", cases[i].pattern, cases[i].subject, r);
    }
}

static void groups(void **state)
{
    struct ml_str g[ML_REGEX_GROUPS];
    assert_int_equal(match("(a)|(b)|()", "xb", g), 4);
    assert_non_null(g[0].p);
    assert_int_equal(g[0].n, 0); /* () is there first */
    assert_null(g[1].p);
    assert_null(g[2].p);
    assert_non_null(g[3].p);
    assert_null(g[4].p);
    assert_null(g[ML_REGEX_GROUPS - 1].p);
    struct ml_regex *re = compiled("(\\w+)@(\\w+)");
    assert_int_equal(ml_regex_match(re, ML_STR("<a@b>"), g, NULL), 3);
    assert_true(ml_str_eq(g[0], ML_STR("a@b")));
    assert_true(ml_str_eq(g[2], ML_STR("b")));
    assert_int_equal(ml_regex_match(re, ML_STR("a\0@b"), g, NULL), 0);
    ml_regex_free(re);
}

static void patterns_refused(void **state)
{
    static const char *const bad[] = {"(",
                                      ")",
                                      "[",
                                      "a**",
                                      "(?<a>x)(?<a>y)",
                                      "\\",
                                      "(?",
                                      "a{2,1}",
                                      "\\C",
                                      "a\\Cb",
                                      "\xFF",
                                      "\xC0\x80",
                                      "(*LIMIT_MATCH=4000000000)a",
                                      "(*LIMIT_HEAP=4000000)a",
                                      "(*LIMIT_DEPTH=4000000)a",
                                      "(*LIMIT_RECURSION=4000000)a",
                                      "(*NO_JIT)a",
                                      "(*UTF)a",
                                      "(*UCP)a",
                                      "(*CRLF)a",
                                      "(*NOTEMPTY)a",
                                      "(*NO_AUTO_POSSESS)a",
                                      "(*ACCEPT)",
                                      "((a{1000}){1000}){1000}",
                                      "(?<=a+)b",
                                      "\\g{9}"};
    struct ml_err err;
    for (size_t i = 0; i < COUNT(bad); i++) {
        err = (struct ml_err){.code = 0};
        struct ml_regex *re = ml_regex_compile(ml_str_z(bad[i]), &err);
        if (re || err.code != ML_E_INVALID || !err.text[0])
            fail_msg("accepted: %s", bad[i]);
    }
}

static void pattern_bounds(void **state)
{
    struct ml_buf b;
    struct ml_err err;
    ml_buf_init(&b, 8192);
    for (int i = 0; i < ML_REGEX_GROUPS - 1; i++)
        ml_buf_add_str(&b, ML_STR("(a)?"));
    struct ml_regex *re = ml_regex_compile(ml_buf_str(&b), &err);
    assert_non_null(re);
    ml_regex_free(re);
    ml_buf_add_str(&b, ML_STR("(a)?"));
    assert_null(ml_regex_compile(ml_buf_str(&b), &err));
    assert_int_equal(err.code, ML_E_TOOBIG);
    ml_buf_clear(&b);
    while (b.n < 4096)
        ml_buf_add(&b, "a", 1);
    re = ml_regex_compile(ml_buf_str(&b), &err);
    assert_non_null(re);
    ml_regex_free(re);
    ml_buf_add(&b, "a", 1);
    assert_null(ml_regex_compile(ml_buf_str(&b), &err));
    assert_int_equal(err.code, ML_E_TOOBIG);
    ml_buf_clear(&b);
    for (int i = 0; i < 2000; i++)
        ml_buf_add_str(&b, ML_STR("(?"));
    assert_null(ml_regex_compile(ml_buf_str(&b), &err));
    ml_buf_clear(&b);
    for (int i = 0; i < 2000; i++)
        ml_buf_add(&b, "(", 1);
    for (int i = 0; i < 2000; i++)
        ml_buf_add(&b, ")", 1);
    assert_null(ml_regex_compile(ml_buf_str(&b), &err));
    ml_buf_done(&b);
    ml_regex_free(NULL);
}

/* count copies of unit, then end. */
static void fill(struct ml_buf *b, const char *unit, size_t bytes, const char *end)
{
    ml_buf_clear(b);
    while (b->n < bytes)
        ml_buf_add_str(b, ml_str_z(unit));
    ml_buf_add_str(b, ml_str_z(end));
}

/* Limits are errors, quick ones: "no match" would open a rule that is written as a refusal. */
static void limits_are_errors(void **state)
{
    static const struct {
        const char *pattern, *unit, *end;
        size_t bytes;
    } cases[] = {
        {"(a+)+$", "a", "b", 8192},
        {"(a|a)*b$", "a", "bc", 8192},
        {"(a*)*b$", "a", "bc", 8192},
        {"(?:a?){64}a{64}b$", "a", "bc", 100},
        {"(.*)*(.*)*(.*)*x$", "a", "xy", 8192},
        {"a*a*a*b$", "a", "bc", 300},
        {"(a(?1)?b)$", "a", "bc", 8192},
        {"(?:(?R)|a)b$", "a", "bc", 100},
        {"^(a|b)*$", "ab", "", 8192},
        /* each start position stays under PCRE2's own limit */
        {"(a|b)*a*a*b$", "aaaaaaaaaaaaaaaaaaaaaaaaad", "bc", 60000},
        {"a*a*b$", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac", "bc", 65000},
    };
    struct ml_buf b;
    struct ml_str g[ML_REGEX_GROUPS];
    struct ml_err err;
    ml_buf_init(&b, 70000);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct ml_regex *re = compiled(cases[i].pattern);
        fill(&b, cases[i].unit, cases[i].bytes, cases[i].end);
        uint64_t from = ml_thread_cpu_ns();
        int r = ml_regex_match(re, ml_buf_str(&b), g, &err);
        uint64_t us = (ml_thread_cpu_ns() - from) / 1000;
        if (getenv("ML_TIMES"))
            print_message("%s: %d %s, %d us\n", cases[i].pattern, r, r < 0 ? err.text : "",
                          (int)us);
        if (r != ML_E_TOOBIG)
            fail_msg("%s: %d", cases[i].pattern, r);
        if (us > 500000)
            fail_msg("%s: %d us", cases[i].pattern, (int)us);
        ml_regex_free(re);
    }
    ml_buf_done(&b);
}

static void large_subjects_work(void **state)
{
    static const char *const patterns[] = {"x$",    "[0-9]x",       "(\\w+)x$",
                                           "^.*x$", "^(?:a|b)?.*x", "(?i)A+X"};
    struct ml_buf b;
    struct ml_str g[ML_REGEX_GROUPS];
    struct ml_err err;
    ml_buf_init(&b, 70000);
    for (size_t i = 0; i < COUNT(patterns); i++) {
        struct ml_regex *re = compiled(patterns[i]);
        fill(&b, "a", 8192, "1x");
        int r = ml_regex_match(re, ml_buf_str(&b), g, &err);
        if (i != 5 && r <= 0)
            fail_msg("%s: %d", patterns[i], r);
        ml_regex_free(re);
    }
    struct ml_regex *re = compiled("x");
    fill(&b, "a", 64 * 1024 - 1, "x");
    assert_int_equal(ml_regex_match(re, ml_buf_str(&b), g, &err), 1);
    fill(&b, "a", 64 * 1024, "x");
    assert_int_equal(ml_regex_match(re, ml_buf_str(&b), g, &err), ML_E_TOOBIG);
    assert_int_equal(ml_regex_match(re, ML_STR("\xFFx"), g, &err), ML_E_INVALID);
    assert_int_equal(ml_regex_match(re, ML_STR("x\xC3"), g, &err), ML_E_INVALID);
    ml_regex_free(re);
    ml_buf_done(&b);
}

static void replacements(void **state)
{
    static const struct {
        const char *pattern, *subject, *with, *result;
        int count;
    } cases[] = {
        {"@.*", "a@b.c", "", "a", 1},
        {"(.*)@corp", "bob@corp.com", "$1", "bob.com", 1},
        {"a", "banana", "o", "bonono", 3},
        {"x", "banana", "o", "banana", 0},
        {"(\\w)(\\w)", "abcd", "$2$1", "badc", 2},
        {"(?P<user>\\w+)@(?P<d>\\w+)", "bob@corp", "${d}/${user}", "corp/bob", 1},
        {"(a)", "a", "$0$0", "aa", 1},
        {"(a)", "a", "${1}b", "ab", 1},
        {"(a)", "a", "$1b", "", 1}, /* the name is "1b" */
        {"(a)", "a", "$1_", "", 1},
        {"(a)", "a", "$1-", "a-", 1},
        {"(a)", "a", "$9", "", 1},
        {"(a)", "a", "$01", "", 1},
        {"(a)", "a", "$99999999999999999999", "", 1},
        {"(a)", "a", "${nope}", "", 1},
        {"(a)", "a", "$$1", "$1", 1},
        {"(a)", "a", "$", "$", 1},
        {"(a)", "a", "x$ y", "x$ y", 1},
        {"(a)", "a", "${1", "${1", 1},
        {"(a)", "a", "${}", "${}", 1},
        {"(a)", "a", "${1-}", "${1-}", 1},
        {"(a)", "a", "\\1", "\\1", 1},
        {"(a)|(b)", "ab", "[$1|$2]", "[a|][|b]", 2},
        /* empty matches, as Go places them */
        {"", "abc", "-", "-a-b-c-", 4},
        {"a*", "baaac", "x", "xbxcx", 3},
        {"x*", "\xC3\xA9", "-", "-\xC3\xA9-", 2},
        {"a*", "", "x", "x", 1},
        {"^", "abc", "x", "xabc", 1},
        {"$", "abc\n", "x", "abc\nx", 1},
        {"b*", "abb", "x", "xax", 2},
        {"(?<=a)b", "abab", "x", "axax", 2},
        {"^a", "aaa", "", "aa", 1},
        {"\\ba", "a a", "x", "x x", 2},
    };
    struct ml_buf b;
    struct ml_err err;
    ml_buf_init(&b, 4096);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct ml_regex *re = compiled(cases[i].pattern);
        ml_buf_clear(&b);
        int r = ml_regex_replace(re, ml_str_z(cases[i].subject), ml_str_z(cases[i].with), &b, &err);
        if (r != cases[i].count || !ml_str_eq(ml_buf_str(&b), ml_str_z(cases[i].result)))
            fail_msg("%s on %s: %d %.*s", cases[i].pattern, cases[i].subject, r,
                     ML_FMT(ml_buf_str(&b)));
        ml_regex_free(re);
    }
    ml_buf_done(&b);
}

static void replacement_bounds(void **state)
{
    struct ml_buf b, out;
    struct ml_err err;
    ml_buf_init(&b, 70000);
    ml_buf_init(&out, 1024);
    ml_buf_add_str(&out, ML_STR("kept"));
    struct ml_regex *re = compiled("a");
    fill(&b, "a", 2000, "");
    assert_int_equal(ml_regex_replace(re, ml_buf_str(&b), ML_STR("b"), &out, &err), ML_E_TOOBIG);
    assert_true(ml_str_eq(ml_buf_str(&out), ML_STR("kept")));
    ml_buf_clear(&out);
    fill(&b, "a", 10, "");
    assert_int_equal(ml_regex_replace(re, ml_buf_str(&b),
                                      ML_STR("$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0"
                                             "$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0"
                                             "$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0"
                                             "$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0"
                                             "$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0"
                                             "$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0"
                                             "$0$0$0$0$0$0$0"),
                                      &out, &err),
                     ML_E_TOOBIG);
    ml_regex_free(re);
    re = compiled("(a+)+$");
    ml_buf_clear(&out);
    fill(&b, "a", 100, "b");
    assert_int_equal(ml_regex_replace(re, ml_buf_str(&b), ML_STR("x"), &out, &err), ML_E_TOOBIG);
    assert_int_equal(ml_regex_replace(re, ML_STR("\xFF"), ML_STR("x"), &out, &err), ML_E_INVALID);
    assert_int_equal(out.n, 0);
    ml_regex_free(re);
    ml_buf_done(&b);
    ml_buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches),           cmocka_unit_test(groups),
        cmocka_unit_test(patterns_refused),  cmocka_unit_test(pattern_bounds),
        cmocka_unit_test(limits_are_errors), cmocka_unit_test(large_subjects_work),
        cmocka_unit_test(replacements),      cmocka_unit_test(replacement_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
