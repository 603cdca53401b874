/* Header rules and credentials: security.md S-016, S-031, S-032, S-270. */
#include "codec/header.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define COUNT(table) (sizeof(table) / sizeof(table)[0])

static void names(void **state)
{
    static const char *const good[] = {"a", "Kubeflow-Userid", "x_1.b", "!#$%&'*+-.^_`|~"};
    static const char *const bad[] = {
        "",      "a b",      "a:",  ":path", "a\n", "kubeflow-userid ", "a\"b", "a(b)",
        "a\x7f", "\xC3\xA9", "a/b", "a=b",   "a\t"};
    char text[257];
    memset(text, 'a', sizeof text);
    for (size_t i = 0; i < COUNT(good); i++)
        assert_true(ml_header_name_ok(ml_str_z(good[i])));
    for (size_t i = 0; i < COUNT(bad); i++)
        if (ml_header_name_ok(ml_str_z(bad[i])))
            fail_msg("accepted: %s", bad[i]);
    assert_true(ml_header_name_ok(ml_str(text, 256)));
    assert_false(ml_header_name_ok(ml_str(text, 257)));
    assert_false(ml_header_name_ok(ML_STR("a\0b")));
}

static void values(void **state)
{
    static const char *const good[] = {
        "", "bob", "a b", "a@corp.com", "caf\xC3\xA9", "a,b;c=\"d\"", "\xE2\x80\xA7", "\xC2\xA0x"};
    static const char *const bad[] = {
        "bob\r\nX-Admin: 1",
        "bob\rX: 1",
        "bob\nX: 1",
        "a\tb",
        "a\x1b[0m",
        "a\x7f",
        " a",
        "a ",
        " ",
        "\xC3",
        "\xC0\x8D",
        "\xFF",
        "a\xE2\x80\xA8x",
        "a\xE2\x80\xA9",
        "a\xC2\x85x",
        "\xC2\x80",
        "\xED\xA0\x80",
    };
    static char text[32 * 1024 + 1];
    memset(text, 'a', sizeof text);
    for (size_t i = 0; i < COUNT(good); i++)
        assert_true(ml_header_value_ok(ml_str_z(good[i])));
    for (size_t i = 0; i < COUNT(bad); i++)
        if (ml_header_value_ok(ml_str_z(bad[i])))
            fail_msg("accepted: %s", bad[i]);
    assert_false(ml_header_value_ok(ML_STR("bob\0admin")));
    assert_true(ml_header_value_ok(ml_str(text, sizeof text - 1)));
    assert_false(ml_header_value_ok(ml_str(text, sizeof text)));
}

static bool is_token_byte(int c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

/* Names and values are looked at several bytes at a time: each byte at each place of each length.
 */
static void every_byte(void **state)
{
    char text[27];
    for (size_t n = 1; n <= sizeof text; n++) {
        for (size_t at = 0; at < n; at++) {
            for (int c = 0; c < 256; c++) {
                bool end = at == 0 || at == n - 1;
                memset(text, 'a', n);
                text[at] = (char)c;
                assert_int_equal(ml_header_name_ok(ml_str(text, n)), is_token_byte(c));
                assert_int_equal(ml_header_value_ok(ml_str(text, n)), c > 0x20 - !end && c < 0x7f);
            }
        }
    }
}

static void aliases(void **state)
{
    struct ml_str known = ML_STR("kubeflow-userid");
    static const char *const yes[] = {"kubeflow_userid", "Kubeflow.Userid", "KUBEFLOW_USERID",
                                      "kubeflow~userid"};
    static const char *const no[] = {"kubeflow-userid",
                                     "KUBEFLOW-USERID",
                                     "kubeflow-useride",
                                     "kubeflowxuserid",
                                     "kubeflow-user_d",
                                     "kubeflow",
                                     ""};
    for (size_t i = 0; i < COUNT(yes); i++)
        assert_true(ml_header_is_alias(ml_str_z(yes[i]), known));
    for (size_t i = 0; i < COUNT(no); i++)
        if (ml_header_is_alias(ml_str_z(no[i]), known))
            fail_msg("alias: %s", no[i]);
    assert_true(ml_header_is_alias(ML_STR("X-User"), ML_STR("x_user")));
    assert_true(ml_header_is_alias(ML_STR("X.A_b"), ML_STR("x-a-b")));
}

static void bearers(void **state)
{
    static const struct {
        const char *in, *token;
    } cases[] = {
        {"Bearer abc", "abc"},
        {"bearer abc", "abc"},
        {"BEARER   abc", "abc"},
        {"Bearer a-._~+/Z9==", "a-._~+/Z9=="},
        {"Bearer ", NULL},
        {"Bearer", NULL},
        {"Bearer  ", NULL},
        {"Bearerabc", NULL},
        {"Bearer\tabc", NULL},
        {" Bearer abc", NULL},
        {"Bearer abc ", NULL},
        {"Bearer a b", NULL},
        {"Bearer a,b", NULL},
        {"Bearer a=b", NULL},
        {"Bearer =", NULL},
        {"Bearer a\"", NULL},
        {"Bearer \xC3\xA9", NULL},
        {"Basic abc", NULL},
        {"Bearer abc, Basic def", NULL},
        {"abc", NULL},
        {"", NULL},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct ml_str token = ml_bearer(ml_str_z(cases[i].in));
        if (!token.p != !cases[i].token || !ml_str_eq(token, ml_str_z(cases[i].token)))
            fail_msg("%s: %.*s", cases[i].in, ML_FMT(token));
    }
    assert_null(ml_bearer(ML_STR("Bearer a\0")).p);
    assert_null(ml_bearer((struct ml_str){NULL, 0}).p);
}

static void cookies(void **state)
{
    static const struct {
        const char *in, *value;
        size_t count;
    } cases[] = {
        {"sid=1", "1", 1},
        {"a=b; sid=1; c=d", "1", 1},
        {"a=b;sid=1;c=d", "1", 1},
        {"a=b;  sid=1  ; c", "1", 1},
        {"sid=", "", 1},
        {"sid=a=b==", "a=b==", 1},
        {"sid=\"q\"", "\"q\"", 1},
        {"sid=1; sid=2", NULL, 2},
        {"sid=1; sid=1", NULL, 2},
        {"sid", NULL, 0},
        {"SID=1", NULL, 0},
        {"xsid=1", NULL, 0},
        {"sidx=1", NULL, 0},
        {"a=sid=1", NULL, 0},
        {"a=b,sid=1", NULL, 0},
        {"sid =1", NULL, 0},
        {"", NULL, 0},
        {";;; ;", NULL, 0},
        {"=sid=1", NULL, 0},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        size_t count = 99;
        struct ml_str v = ml_cookie(ml_str_z(cases[i].in), ML_STR("sid"), &count);
        if (!v.p != !cases[i].value || !ml_str_eq(v, ml_str_z(cases[i].value)) ||
            count != cases[i].count)
            fail_msg("%s: %.*s %zu", cases[i].in, (int)v.n, v.p, count);
    }
    assert_true(ml_str_eq(ml_cookie(ML_STR("a=1"), ML_STR("a"), NULL), ML_STR("1")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),   cmocka_unit_test(values),  cmocka_unit_test(aliases),
        cmocka_unit_test(bearers), cmocka_unit_test(cookies), cmocka_unit_test(every_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
