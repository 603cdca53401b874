/* JSON in and out, YAML: security.md S-036 (types), S-106 (members twice), S-107 (depth). */
#include "base/mem.h"
#include "codec/json.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define COUNT(table) (sizeof(table) / sizeof(table)[0])

/* Writes what it walks over, so that a test compares texts. */
static bool scalar(void *ctx, enum ml_json_kind kind, struct ml_str text, long long integer,
                   double real)
{
    static const char *const literals[] = {"null", "false", "true"};
    if (kind == ML_JSON_STRING)
        ml_json_text(ctx, text);
    else if (kind == ML_JSON_INTEGER)
        ml_json_integer(ctx, integer);
    else if (kind == ML_JSON_REAL)
        ml_json_real(ctx, real);
    else
        ml_json_literal(ctx, literals[kind]);
    return true;
}

static size_t sizes; /* of all containers seen */

static bool begin(void *ctx, enum ml_json_kind kind, size_t size)
{
    sizes += size;
    ml_json_begin(ctx, kind == ML_JSON_ARRAY ? '[' : '{');
    return true;
}

static bool key(void *ctx, struct ml_str name)
{
    ml_json_name(ctx, name);
    return !ml_str_eq(name, ML_STR("stop"));
}

static bool end(void *ctx, enum ml_json_kind kind)
{
    ml_json_end(ctx, kind == ML_JSON_ARRAY ? ']' : '}');
    return true;
}

static const struct ml_json_events events = {scalar, begin, key, end};

static int walk(struct ml_str text, struct ml_buf *b, struct ml_err *err)
{
    struct ml_json_out o = {b, false};
    ml_buf_clear(b);
    sizes = 0;
    return ml_json_walk(text, &events, &o, err);
}

static void round_trips(void **state)
{
    static const char *const same[] = {"null",
                                       "true",
                                       "false",
                                       "0",
                                       "-1",
                                       "9223372036854775807",
                                       "-9223372036854775808",
                                       "1.5",
                                       "-0.0",
                                       "1e+300",
                                       "0.1",
                                       "1.7976931348623157e+308",
                                       "\"\"",
                                       "\"a\"",
                                       "[]",
                                       "{}",
                                       "[[],{}]",
                                       "[1,\"a\",null,true,1.5]",
                                       "{\"a\":1,\"b\":[{\"c\":{}}],\"d\":\"x\"}",
                                       "{\"z\":1,\"a\":2}",
                                       "\"\\\"\\\\\\u0001\"",
                                       "\"caf\xC3\xA9\"",
                                       "{\"\":\"\"}"};
    struct ml_buf b;
    struct ml_err err;
    ml_buf_init(&b, 4096);
    for (size_t i = 0; i < COUNT(same); i++)
        if (walk(ml_str_z(same[i]), &b, &err) != 0 || !ml_str_eq(ml_buf_str(&b), ml_str_z(same[i])))
            fail_msg("%s became %.*s", same[i], ML_FMT(ml_buf_str(&b)));
    assert_int_equal(walk(ML_STR(" [1 , 2,{\"a\":3}]\n"), &b, &err), 0);
    assert_int_equal(sizes, 4);
    assert_int_equal(walk(ML_STR("\"\\ud83d\\ude00\""), &b, &err), 0);
    assert_true(ml_str_eq(ml_buf_str(&b), ML_STR("\"\xF0\x9F\x98\x80\"")));
    ml_buf_done(&b);
}

static void refusals(void **state)
{
    static const char *const bad[] = {
        "", " ", "nul", "tru", "[", "]", "{", "[1,]", "{\"a\"}", "{\"a\":}", "{,}", "[1 2]",
        "{a:1}", "'a'", "\"a", "\"\\x\"", "\"a\nb\"", "01", "+1", "1.", ".5", "0x1", "NaN",
        "Infinity", "-", "1 2", "{} {}", "[]x", "null,", "// c\n1", "\xEF\xBB\xBF{}",
        /* a member twice, in two spellings too */
        "{\"alg\":\"RS256\",\"alg\":\"none\"}", "{\"sub\":1,\"s\\u0075b\":2}",
        "[{\"a\":{\"exp\":1,\"exp\":1}}]",
        /* numbers out of range */
        "9223372036854775808", "-9223372036854775809", "1e999", "-1e999",
        "100000000000000000000000000",
        /* bytes */
        "\"\\u0000\"", "{\"a\\u0000b\":1}", "\"\xFF\"", "\"\xC0\xAF\"", "\"\xED\xA0\x80\"",
        "\"\\ud800\"", "\"\\udc00\\ud800\""};
    struct ml_buf b;
    struct ml_err err;
    ml_buf_init(&b, 4096);
    for (size_t i = 0; i < COUNT(bad); i++)
        if (walk(ml_str_z(bad[i]), &b, &err) != ML_E_INVALID || b.n)
            fail_msg("accepted: %s", bad[i]);
    assert_int_equal(walk(ML_STR("{}\0"), &b, &err), ML_E_INVALID);
    assert_int_equal(walk(ML_STR("\"a\0b\""), &b, &err), ML_E_INVALID);
    assert_int_equal(walk((struct ml_str){NULL, 0}, &b, &err), ML_E_INVALID);
    ml_buf_done(&b);
}

static void errors_say_where_not_what(void **state)
{
    static const char *const bad[] = {
        "{\"a\":\n  s3cr3t}",          "[\"s3cr3t\n\"]", "\"s3cr3t\" s3cr3t",
        "{\"s3cr3t\":1,\"s3cr3t\":1}", "[s3cr3t",        "s3cr3t"};
    struct ml_buf b;
    struct ml_err err;
    ml_buf_init(&b, 4096);
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_int_equal(walk(ml_str_z(bad[i]), &b, &err), ML_E_INVALID);
        assert_null(strstr(err.text, "s3cr3t"));
        assert_non_null(strstr(err.text, "line "));
    }
    assert_int_equal(walk(ml_str_z(bad[0]), &b, &err), ML_E_INVALID);
    assert_non_null(strstr(err.text, "line 2"));
    ml_buf_done(&b);
}

static int walk_nested(size_t depth, const char *open, const char *close, struct ml_buf *b)
{
    struct ml_buf text;
    struct ml_err err;
    ml_buf_init(&text, ML_JSON_BYTES);
    for (size_t i = 0; i < depth; i++)
        ml_buf_add_str(&text, ml_str_z(open));
    ml_buf_add_str(&text, ML_STR("1"));
    for (size_t i = 0; i < depth; i++)
        ml_buf_add_str(&text, ml_str_z(close));
    int r = walk(ml_buf_str(&text), b, &err);
    ml_buf_done(&text);
    return r;
}

static void depth(void **state)
{
    struct ml_buf b;
    ml_buf_init(&b, 4096);
    assert_int_equal(walk_nested(ML_JSON_DEPTH, "[", "]", &b), 0);
    assert_int_equal(walk_nested(ML_JSON_DEPTH + 1, "[", "]", &b), ML_E_TOOBIG);
    assert_int_equal(walk_nested(ML_JSON_DEPTH, "{\"a\":", "}", &b), 0);
    assert_int_equal(walk_nested(ML_JSON_DEPTH + 1, "{\"a\":", "}", &b), ML_E_TOOBIG);
    assert_int_equal(walk_nested(100000, "[", "]", &b), ML_E_TOOBIG);
    assert_int_equal(walk_nested(100000, "[", "", &b), ML_E_TOOBIG);
    /* brackets in strings do not count, behind an escaped quote neither; a backslash may itself be
     * escaped */
    static const char brackets[] =
        "\"\\\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"";
    struct ml_err err;
    assert_int_equal(walk(ml_str_z(brackets), &b, &err), 0);
    assert_int_equal(walk_nested(ML_JSON_DEPTH + 1, "[\"\\\\\",", "]", &b), ML_E_TOOBIG);
    ml_buf_done(&b);
}

static void size(void **state)
{
    struct ml_buf b, out;
    struct ml_err err;
    ml_buf_init(&b, ML_JSON_BYTES + 2);
    ml_buf_init(&out, 2 * ML_JSON_BYTES);
    ml_buf_add(&b, "\"", 1);
    while (b.n < ML_JSON_BYTES - 1)
        ml_buf_add(&b, "a", 1);
    ml_buf_add(&b, "\"", 1);
    assert_int_equal(walk(ml_buf_str(&b), &out, &err), 0);
    ml_buf_add(&b, " ", 1);
    assert_int_equal(walk(ml_buf_str(&b), &out, &err), ML_E_TOOBIG);
    for (int extra = 0; extra < 2; extra++) {
        ml_buf_clear(&b);
        ml_buf_add(&b, "[1", 2);
        for (int i = 2; i < ML_JSON_VALUES + extra; i++)
            ml_buf_add(&b, ",1", 2);
        ml_buf_add(&b, "]", 1);
        assert_int_equal(walk(ml_buf_str(&b), &out, &err), extra ? ML_E_TOOBIG : 0);
    }
    ml_buf_done(&b);
    ml_buf_done(&out);
}

static void readers_can_stop(void **state)
{
    struct ml_buf b;
    struct ml_err err;
    ml_buf_init(&b, 4096);
    assert_int_equal(walk(ML_STR("{\"a\":[{\"stop\":1}],\"b\":2}"), &b, &err), ML_E_CANCELED);
    assert_true(ml_str_eq(ml_buf_str(&b), ML_STR("{\"a\":[{\"stop\":")));
    ml_buf_done(&b);
}

static void reals(void **state)
{
    static const double values[] = {0.1, 1.0 / 3, 1e21, 5e-324, 123456789.123456789,
                                    -2,  1e15,    1e100};
    struct ml_buf b;
    ml_buf_init(&b, 4096);
    struct ml_json_out o = {&b, false};
    for (size_t i = 0; i < COUNT(values); i++) {
        ml_buf_clear(&b);
        o.comma = false;
        ml_json_real(&o, values[i]);
        ml_buf_add(&b, "", 1);
        assert_true(strtod(b.p, NULL) == values[i]);
        assert_non_null(strpbrk(b.p, ".e"));
    }
    ml_buf_clear(&b);
    o.comma = false;
    ml_json_real(&o, (double)NAN);
    ml_json_real(&o, (double)-INFINITY);
    assert_true(ml_str_eq(ml_buf_str(&b), ML_STR("null,null")));
    ml_buf_done(&b);
}

static void yaml(void **state)
{
    static const char *const pairs[][2] = {
        {"a: 1", "{\"a\":1}"},
        {"- a\n- 'b'\n- \"c\\n\"", "[\"a\",\"b\",\"c\\u000a\"]"},
        {"a: {b: [1, 2], c: }", "{\"a\":{\"b\":[1,2],\"c\":null}}"},
        {"[null, ~, Null, true, FALSE, yes, no, on]",
         "[null,null,null,true,false,\"yes\",\"no\",\"on\"]"},
        {"[0, -1, +2, 0x1F, 0o17, 007, 1.5, -.5, 1e3, 1.]", "[0,-1,2,31,15,7,1.5,-0.5,1000.0,1.0]"},
        {"[\"1\", 'true', 1a, 1_000, 0x, -, ., e3, 1e]",
         "[\"1\",\"true\",\"1a\",\"1_000\",\"0x\",\"-\",\".\",\"e3\",\"1e\"]"},
        {"1: a\ntrue: b\n", "{\"1\":\"a\",\"true\":\"b\"}"},
        {"a: |\n  x\n  y\n", "{\"a\":\"x\\u000ay\\u000a\"}"},
        {"---\na\n...\n", "\"a\""},
        {"---\n", "null"},
        {"# c\na: b # d\n", "{\"a\":\"b\"}"},
        {"{}", "{}"},
        {"a:\n- {}\n- []", "{\"a\":[{},[]]}"},
        {"{a: b}", "{\"a\":\"b\"}"},
        {"'<<': 1", "{\"<<\":1}"},
        {"a: caf\xC3\xA9", "{\"a\":\"caf\xC3\xA9\"}"},
    };
    struct ml_buf b;
    struct ml_err err;
    ml_buf_init(&b, 4096);
    for (size_t i = 0; i < COUNT(pairs); i++) {
        ml_buf_clear(&b);
        if (ml_yaml_to_json(ml_str_z(pairs[i][0]), &b, &err) != 0 ||
            !ml_str_eq(ml_buf_str(&b), ml_str_z(pairs[i][1])))
            fail_msg("%s became %.*s (%s)", pairs[i][0], ML_FMT(ml_buf_str(&b)), err.text);
    }
    ml_buf_done(&b);
}

static void yaml_refusals(void **state)
{
    static const char *const bad[] = {"",           "# only\n",  "a: &x 1\nb: *x",
                                      "&x [1]",     "*x",        "!!str 1",
                                      "! a",        "!t {a: 1}", "a: !!binary aa",
                                      "<<: {a: 1}", "{[1]: 2}",  "? {a: 1}\n: 2",
                                      "a: 1\na: 2", "1\n---\n2", "a: [",
                                      "a: 'x",      "\t- a",     "a: 99999999999999999999",
                                      ".inf",       "-.Inf",     ".NaN",
                                      "1e999",      "\"\\0\"",   "\"a\\0\": 1",
                                      "\xFF",       "a: \x01",   "%YAML 9.9\n---\na"};
    struct ml_buf b;
    struct ml_err err;
    ml_buf_init(&b, 4096);
    ml_buf_add_str(&b, ML_STR("kept"));
    for (size_t i = 0; i < COUNT(bad); i++)
        if (ml_yaml_to_json(ml_str_z(bad[i]), &b, &err) >= 0 ||
            !ml_str_eq(ml_buf_str(&b), ML_STR("kept")))
            fail_msg("accepted: %s: %.*s", bad[i], ML_FMT(ml_buf_str(&b)));
    ml_buf_done(&b);
}

static void yaml_bounds(void **state)
{
    struct ml_buf text, out;
    struct ml_err err;
    ml_buf_init(&text, 2 * ML_JSON_BYTES);
    ml_buf_init(&out, 64);
    for (int i = 0; i < 100000; i++)
        ml_buf_add_str(&text, ML_STR("["));
    assert_int_equal(ml_yaml_to_json(ml_buf_str(&text), &out, &err), ML_E_TOOBIG);
    ml_buf_clear(&out);
    assert_int_equal(
        ml_yaml_to_json(ML_STR("a: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                               "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
                        &out, &err),
        ML_E_TOOBIG);
    assert_int_equal(out.n, 0);
    while (text.n <= ML_JSON_BYTES)
        ml_buf_add_str(&text, ML_STR("#"));
    assert_int_equal(ml_yaml_to_json(ml_buf_str(&text), &out, &err), ML_E_TOOBIG);
    ml_buf_clear(&out);
    assert_int_equal(ml_yaml_to_json(ML_STR("a: 1\nb: [s3cr3t\n"), &out, &err), ML_E_INVALID);
    assert_null(strstr(err.text, "s3cr3t"));
    assert_non_null(strstr(err.text, "line "));
    assert_int_equal(ml_yaml_to_json(ML_STR("a\n---\nb"), &out, &err), ML_E_INVALID);
    assert_non_null(strstr(err.text, "line 2: more than one document"));
    ml_buf_done(&text);
    ml_buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trips),
        cmocka_unit_test(refusals),
        cmocka_unit_test(errors_say_where_not_what),
        cmocka_unit_test(depth),
        cmocka_unit_test(size),
        cmocka_unit_test(readers_can_stop),
        cmocka_unit_test(reals),
        cmocka_unit_test(yaml),
        cmocka_unit_test(yaml_refusals),
        cmocka_unit_test(yaml_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
