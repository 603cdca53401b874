/* Reloads of a real engine with two workers: what they answer, that they end with the engine
 * whatever they are at, and that a thousand of them cost no memory. */
#include "engine/engine.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "client/fetch.h"

#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1, ROUNDS = 40 };
#else
enum { SANITIZED = 0, ROUNDS = 125 }; /* of four reloads */
#endif

static char directory[] = "/tmp/ml-reload-XXXXXX";
static char policy[64];

struct fixture {
    uv_loop_t loop;
    struct ml_settings *settings;
    struct ml_engine *engine;
    struct ml_buf text; /* of the last reload */
    unsigned answers, good, ended;
    bool closed;
};

static void write_policy(const char *text)
{
    FILE *f = fopen(policy, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void write_version(int i)
{
    char text[256];
    snprintf(
        text, sizeof text,
        "return { api = 1, name = 'v%d', authenticators = { authn.anonymous { user = 'a' } },\n"
        "headers = { ['X-Version'] = '%d' } }\n",
        i, i);
    write_policy(text);
}

static void no_check(void *ctx, struct ml_exchange *x, const struct ml_http_request *req)
{
}

static void on_ended(void *ctx)
{
    ((struct fixture *)ctx)->ended++;
}

static void on_closed(void *ctx)
{
    ((struct fixture *)ctx)->closed = true;
}

static void on_reload(void *arg, bool ok, struct ml_str text)
{
    struct fixture *f = arg;
    f->answers++;
    f->good += ok;
    ml_buf_clear(&f->text);
    ml_buf_add_str(&f->text, text);
    ml_buf_add(&f->text, "", 1);
}

static int open_engine(void **state)
{
    struct fixture *f = ML_NEW(struct fixture);
    struct ml_buf report;
    struct ml_err err = {.text = ""};
    char *const environment[] = {"MOONLATCH_WORKERS=2", "OIDC_PROVIDER=http://127.0.0.1:1",
                                 "CLIENT_ID=c", "CLIENT_SECRET=s", NULL};
    ml_buf_init(&report, 65536);
    ml_buf_init(&f->text, 65536);
    write_version(0);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    if (ml_settings_new(&f->settings, environment, &report, &report) != 0)
        fail_msg("%.*s", ML_FMT(ml_buf_str(&report)));
    struct ml_engine_options options = {.loop = &f->loop,
                                        .settings = f->settings,
                                        .policy = policy,
                                        .library = "lua",
                                        .on_check = no_check,
                                        .on_web = no_check,
                                        .reloaded = on_ended,
                                        .ctx = f};
    if (ml_engine_new(&f->engine, &options, &report, &err) != 0)
        fail_msg("%s\n%.*s", err.text, ML_FMT(ml_buf_str(&report)));
    ml_buf_done(&report);
    *state = f;
    return 0;
}

static int close_engine(void **state)
{
    struct fixture *f = *state;
    ml_engine_close(f->engine, on_closed, f);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_true(f->closed);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    ml_settings_free(f->settings);
    ml_buf_done(&f->text);
    free(f);
    return 0;
}

/* Returns whether it was taken. */
static bool reload(struct fixture *f, bool force)
{
    unsigned answers = f->answers, good = f->good;
    ml_engine_reload(f->engine, "test", force, on_reload, f);
    while (f->answers == answers)
        uv_run(&f->loop, UV_RUN_ONCE);
    return f->good > good;
}

static void test_outcomes(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(f->ended, 1);
    assert_true(reload(f, false));
    assert_string_equal(f->text.p, "the policy is as it was\n");
    assert_true(reload(f, true));
    assert_string_equal(f->text.p, "");
    write_version(1);
    assert_true(reload(f, false));
    write_policy("return {");
    assert_false(reload(f, false));
    assert_non_null(strstr(f->text.p, "policy.lua:1"));
    write_policy(
        "while true do local t = {} end"); /* ThreadSanitizer lets signals in at allocations */
    assert_false(reload(f, false));
    assert_non_null(strstr(f->text.p, "ms of CPU"));
    assert_int_equal(unlink(policy), 0);
    assert_false(reload(f, false));
    assert_non_null(strstr(f->text.p, "policy.lua"));
    assert_int_equal(f->ended, 7);
}

/* Whoever asks during a reload is answered by the next one, all of them by the same. */
static void test_coalesced(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 100; i++)
        ml_engine_reload(f->engine, "test", true, on_reload, f);
    while (f->answers < 100)
        uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(f->good, 100);
    assert_int_equal(f->ended, 3); /* the start among them */
}

/* The end comes at any moment of a reload: while it is checked, half built, built, waited for. */
static void test_closed_meanwhile(void **state)
{
    for (int turns = 0; turns < 12; turns++) {
        void *own;
        open_engine(&own);
        struct fixture *f = own;
        write_version(turns);
        ml_engine_reload(f->engine, "test", true, on_reload, f);
        ml_engine_reload(f->engine, "test", true, on_reload, f);
        for (int i = 0; i < turns && f->answers < 2; i++)
            uv_run(&f->loop, UV_RUN_ONCE);
        ml_engine_close(f->engine, on_closed, f);
        uv_run(&f->loop, UV_RUN_DEFAULT);
        assert_true(f->closed);
        assert_int_equal(f->answers, 2);
        assert_int_equal(uv_loop_close(&f->loop), 0);
        ml_settings_free(f->settings);
        ml_buf_done(&f->text);
        free(f);
    }
}

static void four_reloads(struct fixture *f, int i)
{
    static const char *const broken[] = {
        "return {", "error('no')",
        "local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end", "return 1"};
    for (int j = 0; j < 3; j++) {
        write_version(4 * i + j);
        assert_true(reload(f, false));
    }
    write_policy(broken[i % 4]);
    assert_false(reload(f, false));
}

static size_t resident(void)
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%*u %lu", &pages), 1);
    fclose(f);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* S-450. The sanitizers' allocators count nothing, and find leaks themselves. */
static void test_memory(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 10; i++)
        four_reloads(f, i);
    size_t used = mallinfo2().uordblks, pages = resident();
    for (int i = 0; i < ROUNDS; i++)
        four_reloads(f, i);
    size_t used_now = mallinfo2().uordblks, pages_now = resident();
    print_message("%d reloads: %zu and %zu bytes in use, %zu and %zu resident\n", 4 * ROUNDS, used,
                  used_now, pages, pages_now);
    if (SANITIZED)
        return;
    assert_true(used_now < used + (64 << 10));
    assert_true(pages_now < pages + (1 << 20));
    assert_true(pages_now < 40 << 20);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, open_engine, close_engine)
    const struct CMUnitTest tests[] = {CASE(test_outcomes), CASE(test_coalesced),
                                       cmocka_unit_test(test_closed_meanwhile), CASE(test_memory)};
    ml_log_set_level(ML_LOG_FATAL);
    assert_non_null(mkdtemp(directory));
    snprintf(policy, sizeof policy, "%s/policy.lua", directory);
    assert_int_equal(ml_client_global_init(), 0);
    assert_int_equal(ml_watchdog_start(), 0);
    int failed = cmocka_run_group_tests_name("reload", tests, NULL, NULL);
    ml_watchdog_stop();
    ml_client_global_done();
    unlink(policy);
    rmdir(directory);
    return failed;
}
