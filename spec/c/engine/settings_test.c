/* Settings: every kind of value, old and unknown names, what Kubernetes injects, the reserved
 * prefix. */
#include "engine/settings.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct ml_buf errors, warnings;

static struct ml_settings *load(char *const *environment)
{
    struct ml_settings *s = NULL;
    ml_buf_init(&errors, 65536);
    ml_buf_init(&warnings, 65536);
    ml_settings_new(&s, environment, &errors, &warnings);
    ml_buf_add(&errors, "", 1);
    ml_buf_add(&warnings, "", 1);
    return s;
}

static void done(struct ml_settings *s)
{
    ml_settings_free(s);
    ml_buf_done(&errors);
    ml_buf_done(&warnings);
}

#define LOAD(...) load((char *[]){__VA_ARGS__, NULL})

static void test_defaults(void **state)
{
    struct ml_settings *s = load((char *[]){NULL});
    assert_non_null(s);
    assert_string_equal(ml_settings_text(s, "SERVER_PORT"), "8080");
    assert_string_equal(ml_settings_text(s, "USERID_HEADER"), "kubeflow-userid");
    assert_int_equal(ml_settings_int(s, "DRAIN_TIMEOUT"), 10000);
    assert_string_equal(ml_settings_prefix(s), "/authservice");
    assert_string_equal(ml_settings_verify(s), "/authservice/verify");
    assert_null(ml_settings_env(s, "USERID_HEADER")); /* a policy takes its own default */
    assert_string_equal(warnings.p, "");
    done(s);
}

static void test_bad_values(void **state)
{
    static char *const cases[][2] = {
        {"SERVER_PORT=80a", "SERVER_PORT is \"80a\"; it must be a whole number\n"},
        {"SERVER_PORT=65536", "SERVER_PORT is \"65536\"; it must be from 0 to 65535\n"},
        {"SERVER_PORT=", "SERVER_PORT is \"\"; it must be a whole number\n"},
        {"SERVER_PORT=-1", "SERVER_PORT is \"-1\"; it must be a whole number\n"},
        {"SERVER_PORT=99999999999999999999",
         "SERVER_PORT is \"99999999999999999999\"; it must be a whole number\n"},
        {"CACHE_ENABLED=maybe", "CACHE_ENABLED is \"maybe\"; it must be true or false\n"},
        {"LOG_LEVEL=info",
         "LOG_LEVEL is \"info\"; it must be one of: FATAL ERROR WARN INFO DEBUG\n"},
        {"ACCESS_TOKEN_AUTHN=Opaque",
         "ACCESS_TOKEN_AUTHN is \"Opaque\"; it must be one of: jwt opaque\n"},
        {"OIDC_PROVIDER=ftp://x",
         "OIDC_PROVIDER is \"ftp://x\"; it must be an http or https URL without user info\n"},
        {"OIDC_PROVIDER=https://u@x",
         "OIDC_PROVIDER is \"https://u@x\"; it must be an http or https URL without user info\n"},
        {"USERID_HEADER=a b", "USERID_HEADER is \"a b\"; it is not a header name\n"},
        {"USERID_TRANSFORMERS=[", "USERID_TRANSFORMERS is \"[\"; it is not valid JSON\n"},
        {"CA_BUNDLE=/nonexistent", "CA_BUNDLE is \"/nonexistent\"; it is not a readable file\n"},
        {"DRAIN_TIMEOUT=soon",
         "DRAIN_TIMEOUT is \"soon\"; it must be a duration such as 500ms, 10s or 2m\n"},
        {"MOONLATCH_WORKERS=257", "MOONLATCH_WORKERS is \"257\"; it must be from 0 to 256\n"},
        {"ADMIN_ADDR=0.0.0.0:9000",
         "ADMIN_ADDR must be unix:PATH, a loopback address with a port, or off\n"},
        {"ADMIN_ADDR=127.0.0.1:9000",
         "ADMIN_TOKEN must have at least 16 characters when ADMIN_ADDR is not a unix socket\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ml_settings *s = LOAD(cases[i][0]);
        assert_null(s);
        assert_string_equal(errors.p, cases[i][1]);
        done(s);
    }
}

static void test_all_errors_at_once(void **state)
{
    struct ml_settings *s = LOAD("SERVER_PORT=x", "CACHE_ENABLED=x", "LOG_LEVEL=x");
    assert_null(s);
    assert_non_null(strstr(errors.p, "SERVER_PORT"));
    assert_non_null(strstr(errors.p, "CACHE_ENABLED"));
    assert_non_null(strstr(errors.p, "LOG_LEVEL"));
    done(s);
}

static void test_words_for_booleans(void **state)
{
    static const char *const yes[] = {"1", "t", "T", "true", "True", "TRUE", "on", "yes"};
    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
        char text[64];
        snprintf(text, sizeof text, "STRICT_SESSION_VALIDATION=%s", yes[i]); /* compat.md Q19 */
        struct ml_settings *s = LOAD(text);
        assert_non_null(s);
        assert_true(ml_settings_bool(s, "STRICT_SESSION_VALIDATION"));
        done(s);
    }
}

static void test_prefix(void **state)
{
    static const struct {
        char *prefix;
        const char *path;
    } good[] = {{"AUTHSERVICE_URL_PREFIX=/authservice/", "/authservice"},
                {"AUTHSERVICE_URL_PREFIX=/a/b", "/a/b"},
                {"AUTHSERVICE_URL_PREFIX=https://x.example/auth/", "/auth"}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct ml_settings *s = LOAD(good[i].prefix);
        assert_non_null(s);
        assert_string_equal(ml_settings_prefix(s), good[i].path);
        done(s);
    }
    /* compat.md Q3: a prefix that matches everything opened everything. */
    static char *const bad[] = {"AUTHSERVICE_URL_PREFIX=/",
                                "AUTHSERVICE_URL_PREFIX=",
                                "AUTHSERVICE_URL_PREFIX=//",
                                "AUTHSERVICE_URL_PREFIX=https://x.example",
                                "AUTHSERVICE_URL_PREFIX=https://x.example/",
                                "AUTHSERVICE_URL_PREFIX=/a/../..",
                                "AUTHSERVICE_URL_PREFIX=/a%2fb",
                                "AUTHSERVICE_URL_PREFIX=/a?b",
                                "VERIFY_AUTH_URL=/"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct ml_settings *s = LOAD(bad[i]);
        assert_null(s);
        done(s);
    }
}

static void test_old_names(void **state)
{
    struct ml_settings *s =
        LOAD("SKIP_AUTH_URI=/dex /static", "PORT=9000", "STORE_PATH=/x", "SESSION_STORE_PATH=/y");
    assert_non_null(s);
    assert_string_equal(ml_settings_env(s, "SKIP_AUTH_URLS"), "/dex,/static");
    assert_string_equal(ml_settings_text(s, "SERVER_PORT"), "9000");
    assert_string_equal(ml_settings_text(s, "SESSION_STORE_PATH"), "/y");
    assert_non_null(strstr(warnings.p, "SKIP_AUTH_URI is an old name; use SKIP_AUTH_URLS\n"));
    assert_non_null(strstr(warnings.p, "PORT is an old name; use SERVER_PORT\n"));
    assert_non_null(
        strstr(warnings.p, "STORE_PATH is an old name and is ignored beside SESSION_STORE_PATH\n"));
    done(s);
}

static void test_unknown_and_injected_names(void **state)
{
    struct ml_settings *s =
        LOAD("MOONLATCH_WORKER=2", "MOONLATCH_ZZZZZZZZZZ=1", "MOONLATCH_PORT=tcp://10.0.0.1:8080",
             "MOONLATCH_PORT_8080_TCP_ADDR=10.0.0.1", "MOONLATCH_SERVICE_HOST=10.0.0.1",
             "AUTHSERVICE_PORT=tcp://10.0.0.1:8080", "AUTHSERVICE_SERVICE_HOST=10.0.0.1");
    assert_non_null(s);
    assert_string_equal(
        warnings.p,
        "MOONLATCH_WORKER is not a setting of moonlatch; did you mean MOONLATCH_WORKERS?\n"
        "MOONLATCH_ZZZZZZZZZZ is not a setting of moonlatch\n");
    done(s);
}

/* No setting may collide with the variables that Kubernetes makes for Services of these names. */
static void test_no_setting_is_named_like_an_injected_one(void **state)
{
    static const char *const injected[] = {"MOONLATCH_PORT", "MOONLATCH_SERVICE_",
                                           "AUTHSERVICE_PORT", "AUTHSERVICE_SERVICE_"};
    static const char *const names[] = {
#define S(name, ...) name,
#include "engine/settings_table.h"
#undef S
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        for (size_t k = 0; k < sizeof injected / sizeof injected[0]; k++)
            assert_int_not_equal(strncmp(names[i], injected[k], strlen(injected[k])), 0);
}

static void test_secrets_are_hidden(void **state)
{
    struct ml_buf out;
    struct ml_settings *s =
        LOAD("CLIENT_SECRET=hunter2hunter2", "SESSION_STORE_REDIS_PWD=correcthorse");
    ml_buf_init(&out, 65536);
    ml_settings_print(s, &out);
    ml_buf_add(&out, "", 1);
    assert_null(strstr(out.p, "hunter2"));
    assert_null(strstr(out.p, "correcthorse"));
    assert_non_null(strstr(out.p, "CLIENT_SECRET=<hidden>"));
    assert_non_null(strstr(out.p, "SERVER_PORT=8080"));
    ml_buf_done(&out);
    done(s);
}

static void test_sessions(void **state)
{
    struct ml_settings *s = LOAD("SESSION_KEY=short");
    assert_null(s);
    assert_non_null(strstr(errors.p, "SESSION_KEY: key 1 "));
    assert_null(strstr(errors.p, "short"));
    done(s);
    s = LOAD("SESSION_STORE_TYPE=boltdb", "STORE_PATH=/data/a.db",
             "SESSION_KEY=0123456789abcdefghijklmnopqrstuvwxyz");
    assert_non_null(s);
    assert_non_null(strstr(warnings.p, "taken as lmdb: sessions are kept in /data/a.db.lmdb"));
    assert_int_equal(ml_settings_int(s, "SESSION_CACHE_SECONDS"), 1);
    assert_int_equal(ml_settings_int(s, "SESSION_STORE_BYTES"), 1 << 30);
    done(s);
    s = LOAD("SESSION_CACHE_SECONDS=61", "SESSION_STORE_BYTES=1000", "SESSION_STORE_TYPE=disk");
    assert_null(s);
    assert_non_null(strstr(errors.p, "SESSION_STORE_TYPE is \"disk\""));
    assert_non_null(strstr(errors.p, "SESSION_CACHE_SECONDS"));
    assert_non_null(strstr(errors.p, "SESSION_STORE_BYTES"));
    done(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_all_errors_at_once),
        cmocka_unit_test(test_words_for_booleans),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_old_names),
        cmocka_unit_test(test_unknown_and_injected_names),
        cmocka_unit_test(test_no_setting_is_named_like_an_injected_one),
        cmocka_unit_test(test_secrets_are_hidden),
        cmocka_unit_test(test_sessions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
