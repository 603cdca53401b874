/* Out of memory: the n-th allocation fails, for n = 1, 2, 3 and so on until all goes well. Each
 * failure must be an error, never a crash and never another answer. This file's malloc replaces the
 * C library's, for the shared libraries as well; under a sanitizer, which does the same, there is
 * nothing to test. */
#include "codec/json.h"
#include "codec/path.h"
#include "codec/regex.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#define SANITIZED __has_feature(address_sanitizer)
#else
#define SANITIZED 0
#endif

static long countdown = -1; /* allocations until one fails; negative: none does */
static long live;           /* allocations not freed, while counting */

#if !SANITIZED
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t n);
void *__libc_realloc(void *p, size_t n);
void __libc_free(void *p);

#pragma GCC visibility push(default) /* or the shared libraries would keep their own */
static bool fails(void)
{
    return countdown >= 0 && countdown-- == 0;
}

void *malloc(size_t n)
{
    if (fails())
        return NULL;
    live++;
    return __libc_malloc(n);
}

void *calloc(size_t count, size_t n)
{
    if (fails())
        return NULL;
    live++;
    return __libc_calloc(count, n);
}

void *realloc(void *p, size_t n)
{
    if (fails())
        return NULL;
    live += p == NULL;
    return __libc_realloc(p, n);
}

void free(void *p)
{
    live -= p != NULL;
    __libc_free(p);
}
#pragma GCC visibility pop
#endif

static bool scalar(void *ctx, enum ml_json_kind kind, struct ml_str text, long long integer,
                   double real)
{
    ml_buf_printf(ctx, "%d%.*s%lld/%g,", kind, ML_FMT(text), integer, real);
    return true;
}

static bool begin(void *ctx, enum ml_json_kind kind, size_t size)
{
    ml_buf_printf(ctx, "(%d %zu,", kind, size);
    return true;
}

static bool key(void *ctx, struct ml_str name)
{
    ml_buf_printf(ctx, "%.*s=", ML_FMT(name));
    return true;
}

static bool end(void *ctx, enum ml_json_kind kind)
{
    ml_buf_add(ctx, ")", 1);
    return true;
}

/* A thousand numbers use up what the parser has without malloc; then comes a bit of everything. */
static struct ml_str long_json(void)
{
    static char text[4096] = "[";
    static size_t n = 1;
    if (n == 1) {
        for (int i = 0; i < 1000; i++)
            n += (size_t)snprintf(text + n, sizeof text - n, "7,");
        n += (size_t)snprintf(
            text + n, sizeof text - n, "%s",
            "{\"a\":[1,2.5,\"text\",null,{\"b\":{}}],\"c\":\"a longer text, for the "
            "scanner's buffer, that grows more than once, and then a little more\","
            "\"d\":9,\"e\":9,\"f\":9,\"g\":9,\"h\":12345678901234567,\"i\":9}]");
    }
    return ml_str(text, n);
}

static int json(struct ml_err *err)
{
    static const struct ml_json_events events = {scalar, begin, key, end};
    static char memory[16384], whole[16384]; /* whole: what the first, undisturbed walk saw */
    struct ml_buf seen = {.p = memory, .cap = sizeof memory, .max = sizeof memory};
    int r = ml_json_walk(long_json(), &events, &seen, err);
    if (r == 0 && !*whole)
        memcpy(whole, seen.p, seen.n);
    if (r == 0)
        assert_true(ml_str_eq(ml_buf_str(&seen), ml_str_z(whole)));
    else if (r != ML_E_NOMEM)
        fail_msg("%d %s", r, err->text);
    return r;
}

static int yaml(struct ml_err *err)
{
    struct ml_buf out;
    ml_buf_init(&out, 4096);
    int r = ml_yaml_to_json(ML_STR("a: [1, x, {b: ~}]\nc: |\n  text\n  text\nd: 'e'\n"), &out, err);
    if (r == 0)
        assert_true(
            ml_str_eq(ml_buf_str(&out),
                      ML_STR("{\"a\":[1,\"x\",{\"b\":null}],\"c\":\"text\\u000atext\\u000a\","
                             "\"d\":\"e\"}")));
    ml_buf_done(&out);
    return r;
}

static int target(struct ml_err *err)
{
    struct ml_arena arena;
    struct ml_target t;
    struct ml_str host;
    unsigned port;
    ml_arena_init(&arena, 64 * 1024);
    int r = ml_target_parse(&arena, ML_STR("http://a.example/x/../y"), &t, err);
    if (r == 0)
        r = ml_host_parse(&arena, t.host, &host, &port, err);
    ml_arena_done(&arena);
    return r;
}

static int regex(struct ml_err *err)
{
    struct ml_str g[ML_REGEX_GROUPS], in = ML_STR("bob@corp.com");
    struct ml_regex *re = ml_regex_compile(ML_STR("^(?<user>(\\w|x)*)@corp\\.com$"), err);
    if (!re)
        return err->code;
    struct ml_buf out;
    ml_buf_init(&out, 4096);
    int r = ml_regex_match(re, in, g, err);
    if (r >= 0) {
        assert_int_equal(r, 3);
        r = ml_regex_replace(re, in, ML_STR("$user"), &out, err);
    }
    if (r >= 0) {
        assert_int_equal(r, 1);
        assert_true(ml_str_eq(ml_buf_str(&out), ML_STR("bob")));
        r = 0;
    }
    ml_buf_done(&out);
    ml_regex_free(re);
    return r;
}

static void torture(int (*run)(struct ml_err *))
{
    struct ml_err err;
    long failures = 0;
    int r;
    if (SANITIZED)
        skip();
    assert_int_equal(run(&err), 0); /* what is allocated once is, now */
    do {
        long before = live;
        err = (struct ml_err){.code = 0};
        countdown = failures;
        r = run(&err);
        countdown = -1;
        assert_int_equal(live, before);
        if (r != 0)
            assert_true(r < 0 && r == err.code && err.text[0]);
        failures++;
    } while (r != 0 && failures < 10000);
    assert_in_range(failures, 2, 9999);
}

static void json_torture(void **state)
{
    torture(json);
}

static void yaml_torture(void **state)
{
    torture(yaml);
}

static void target_torture(void **state)
{
    torture(target);
}

static void regex_torture(void **state)
{
    torture(regex);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_torture),
        cmocka_unit_test(yaml_torture),
        cmocka_unit_test(target_torture),
        cmocka_unit_test(regex_torture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
