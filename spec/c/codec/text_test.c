/* UTF-8, base64 (RFC 4648 vectors, S-109), percent encoding, URLs. */
#include "codec/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define COUNT(table) (sizeof(table) / sizeof(table)[0])

static void utf8(void **state)
{
    static const char *const good[] = {"",
                                       "a",
                                       "\xC2\x80",
                                       "\xDF\xBF",
                                       "\xE0\xA0\x80",
                                       "\xED\x9F\xBF",
                                       "\xEE\x80\x80",
                                       "\xEF\xBF\xBF",
                                       "\xF0\x90\x80\x80",
                                       "\xF4\x8F\xBF\xBF"};
    static const char *const bad[] = {"\x80",
                                      "\xBF",
                                      "\xC0\x80",
                                      "\xC1\xBF",
                                      "\xC2",
                                      "\xC2x",
                                      "\xE0\x9F\xBF",
                                      "\xE0\xA0",
                                      "\xED\xA0\x80",
                                      "\xED\xBF\xBF",
                                      "\xF0\x8F\xBF\xBF",
                                      "\xF0\x90\x80",
                                      "\xF4\x90\x80\x80",
                                      "\xF5\x80\x80\x80",
                                      "\xFF",
                                      "a\xFE",
                                      "\xE2\x82\xC3\xA9"};
    for (size_t i = 0; i < COUNT(good); i++)
        assert_true(ml_utf8_ok(ml_str_z(good[i])));
    for (size_t i = 0; i < COUNT(bad); i++)
        if (ml_utf8_ok(ml_str_z(bad[i])))
            fail_msg("accepted: bad[%zu]", i);
}

/* ASCII is skipped eight bytes at a time. */
static void utf8_at_every_place(void **state)
{
    char text[27];
    for (size_t n = 2; n <= sizeof text; n++) {
        for (size_t at = 0; at < n; at++) {
            memset(text, 'a', n);
            assert_true(ml_utf8_ok(ml_str(text, n)));
            text[at] = (char)0xC3;
            assert_false(ml_utf8_ok(ml_str(text, n)));
            if (at + 1 < n) {
                text[at + 1] = (char)0xA9;
                assert_true(ml_utf8_ok(ml_str(text, n)));
            }
        }
    }
}

static void base64(void **state)
{
    static const char *const pairs[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"},
                                           {"\xFB\xFF\xBF", "+/+/"}};
    struct ml_buf b;
    ml_buf_init(&b, 1024);
    for (size_t i = 0; i < COUNT(pairs); i++) {
        struct ml_str plain = ml_str_z(pairs[i][0]), coded = ml_str_z(pairs[i][1]);
        ml_buf_clear(&b);
        assert_true(ml_base64_encode(plain, &b));
        assert_true(ml_str_eq(ml_buf_str(&b), coded));
        ml_buf_clear(&b);
        assert_true(ml_base64_decode(coded, &b));
        assert_true(ml_str_eq(ml_buf_str(&b), plain));
    }
    ml_buf_done(&b);
}

static void base64url(void **state)
{
    struct ml_buf b, back;
    char bytes[256];
    ml_buf_init(&b, 1024);
    ml_buf_init(&back, 1024);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)(i * 7);
    for (size_t n = 0; n <= sizeof bytes; n++) {
        ml_buf_clear(&b);
        ml_buf_clear(&back);
        assert_true(ml_base64url_encode(ml_str(bytes, n), &b));
        assert_int_equal(b.n, (n * 4 + 2) / 3);
        assert_true(ml_base64url_decode(ml_buf_str(&b), &back));
        assert_true(ml_str_eq(ml_buf_str(&back), ml_str(bytes, n)));
    }
    ml_buf_clear(&b);
    assert_true(ml_base64url_encode(ML_STR("\xFB\xFF\xBF"), &b));
    assert_true(ml_str_eq(ml_buf_str(&b), ML_STR("-_-_")));
    ml_buf_done(&b);
    ml_buf_done(&back);
}

/* One value, one spelling. */
static void base64_refusals(void **state)
{
    static const char *const standard[] = {
        "Zg",   "Zg=",    "Zg===", "Zh==", "Zm9=", "Zm9v=",    "====",   "=",
        "Z===", "Zm9v\n", "Zm 9v", "Zm-_", "Z=m9", "Zg==Zg==", "Zm9\xC3"};
    static const char *const url[] = {"Zg==", "Zh",       "Zm9",     "Z", "Zm9vY", "Zm+/",
                                      "Zm 9", "Zm9v\r\n", "Zm9\xFF", "=", "Zm9="};
    struct ml_buf b;
    ml_buf_init(&b, 64);
    ml_buf_add_str(&b, ML_STR("kept"));
    for (size_t i = 0; i < COUNT(standard); i++)
        if (ml_base64_decode(ml_str_z(standard[i]), &b))
            fail_msg("accepted: %s", standard[i]);
    for (size_t i = 0; i < COUNT(url); i++)
        if (ml_base64url_decode(ml_str_z(url[i]), &b))
            fail_msg("accepted: %s", url[i]);
    assert_false(ml_base64_decode(ML_STR("Zm9\0"), &b));
    assert_true(ml_str_eq(ml_buf_str(&b), ML_STR("kept")));
    assert_false(b.failed);
    ml_buf_done(&b);
}

static void bounded(void **state)
{
    struct ml_buf b;
    ml_buf_init(&b, 4);
    assert_false(ml_base64_encode(ML_STR("four"), &b));
    ml_buf_clear(&b);
    assert_false(ml_base64url_decode(ML_STR("Zm9vYmFy"), &b));
    ml_buf_clear(&b);
    assert_false(ml_url_escape(ML_STR("//"), &b));
    ml_buf_clear(&b);
    assert_false(ml_url_unescape(ML_STR("abcde"), false, &b));
    assert_int_equal(b.n, 0);
    ml_buf_done(&b);
}

static void percent(void **state)
{
    struct ml_buf b;
    ml_buf_init(&b, 256);
    assert_true(ml_url_escape(ML_STR("aZ0-._~ /?&=+%\xC3\xA9\n"), &b));
    assert_true(ml_str_eq(ml_buf_str(&b), ML_STR("aZ0-._~%20%2F%3F%26%3D%2B%25%C3%A9%0A")));
    ml_buf_clear(&b);
    assert_true(ml_url_unescape(ML_STR("a%20%2f%2F+%00"), false, &b));
    assert_true(ml_str_eq(ml_buf_str(&b), ML_STR("a //+\0")));
    ml_buf_clear(&b);
    assert_true(ml_url_unescape(ML_STR("a+b%2B"), true, &b));
    assert_true(ml_str_eq(ml_buf_str(&b), ML_STR("a b+")));
    static const char *const bad[] = {"%", "a%", "%1", "%g1", "%1g", "%%41", "%+1", "% 1", "%0x"};
    for (size_t i = 0; i < COUNT(bad); i++)
        if (ml_url_unescape(ml_str_z(bad[i]), true, &b))
            fail_msg("accepted: %s", bad[i]);
    assert_true(ml_str_eq(ml_buf_str(&b), ML_STR("a b+")));
    ml_buf_done(&b);
}

static void urls(void **state)
{
    struct ml_url u;
    struct ml_str in = ML_STR("Https://Id.example:8443/realms/a%20b?x=1&y=?#f#");
    in.n--;
    assert_int_equal(ml_url_parse(in, &u, NULL), 0);
    assert_true(ml_str_eq(u.scheme, ML_STR("Https")));
    assert_true(ml_str_eq(u.host, ML_STR("Id.example")));
    assert_int_equal(u.port, 8443);
    assert_true(ml_str_eq(u.path, ML_STR("/realms/a%20b")));
    assert_true(ml_str_eq(u.query, ML_STR("x=1&y=?")));
    assert_true(ml_str_eq(u.fragment, ML_STR("f")));
    assert_int_equal(ml_url_parse(ML_STR("http://[::1]"), &u, NULL), 0);
    assert_true(ml_str_eq(u.host, ML_STR("[::1]")));
    assert_int_equal(u.port, 0);
    assert_null(u.path.p);
    assert_null(u.query.p);
    assert_null(u.fragment.p);
    assert_int_equal(ml_url_parse(ML_STR("http://a?b/c"), &u, NULL), 0);
    assert_null(u.path.p);
    assert_true(ml_str_eq(u.query, ML_STR("b/c")));
    assert_int_equal(ml_url_parse(ML_STR("http://a#b?c/d"), &u, NULL), 0);
    assert_null(u.query.p);
    assert_true(ml_str_eq(u.fragment, ML_STR("b?c/d")));
}

static void url_refusals(void **state)
{
    static const char *const bad[] = {"",
                                      "a",
                                      "/a",
                                      "//a/b",
                                      "http:",
                                      "http:/a",
                                      "http://",
                                      "http:///a",
                                      "https://:80",
                                      "ftp://a",
                                      "file:///etc/passwd",
                                      "javascript:alert(1)",
                                      "http://u@a/",
                                      "http://u:p@a/",
                                      "http://a b/",
                                      "http://a/b c",
                                      "http://a\\b",
                                      "http://a/\\b",
                                      "http://a:0/",
                                      "http://a:65536/",
                                      "http://a:/",
                                      "http://a:x/",
                                      "http://a/%",
                                      "http://a/%2",
                                      "http://a/%zz",
                                      "http://a/\xC3\xA9",
                                      "http://a\n/",
                                      "http://a/\r\n",
                                      "http://[::1/",
                                      "http://[g]/",
                                      "http://a..b/",
                                      "http://a%2fb/",
                                      " http://a",
                                      "http://a?\x7f",
                                      "http://a@b@c",
                                      "httpx://a"};
    struct ml_url u;
    struct ml_err err;
    for (size_t i = 0; i < COUNT(bad); i++)
        if (ml_url_parse(ml_str_z(bad[i]), &u, &err) != ML_E_INVALID)
            fail_msg("accepted: %s", bad[i]);
    static char text[16 * 1024 + 1] = "http://a/";
    memset(text + 9, 'a', sizeof text - 9);
    assert_int_equal(ml_url_parse(ml_str(text, sizeof text - 1), &u, NULL), 0);
    assert_int_equal(ml_url_parse(ml_str(text, sizeof text), &u, NULL), ML_E_TOOBIG);
    assert_int_equal(ml_url_parse(ML_STR("http://a/\0"), &u, NULL), ML_E_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(utf8),
        cmocka_unit_test(utf8_at_every_place),
        cmocka_unit_test(base64),
        cmocka_unit_test(base64url),
        cmocka_unit_test(base64_refusals),
        cmocka_unit_test(bounded),
        cmocka_unit_test(percent),
        cmocka_unit_test(urls),
        cmocka_unit_test(url_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
