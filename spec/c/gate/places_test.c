/* Which path is whose: compat.md Q1 to Q3 and Q21 by name, and what gateways make of the prefix. */
#include "gate/places.h"

#include "base/mem.h"
#include "codec/path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static struct ml_settings *load(char *prefix, char *more)
{
    struct ml_settings *s = NULL;
    struct ml_buf errors, warnings;
    char *environment[] = {prefix, more, NULL};
    ml_buf_init(&errors, 65536);
    ml_buf_init(&warnings, 65536);
    assert_int_equal(ml_settings_new(&s, environment, &errors, &warnings), 0);
    ml_buf_done(&errors);
    ml_buf_done(&warnings);
    return s;
}

struct expectation {
    const char *path;
    bool web;
    enum ml_ground ground;
    enum ml_place place;
    const char *rest; /* path afterwards; NULL: as it was */
};

static void check(const struct ml_settings *s, const struct expectation *e, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct ml_str path = ml_str_z(e[i].path);
        struct ml_request r = {.path = path, .raw_path = path, .web = e[i].web};
        assert_int_equal(ml_places_find(s, &r), e[i].ground);
        assert_int_equal(r.place, e[i].place);
        assert_true(ml_str_eq(r.path, ml_str_z(e[i].rest ? e[i].rest : e[i].path)));
        assert_int_equal(r.verify, e[i].ground == ML_GROUND_VERIFY);
    }
}

static void test_ancestor(void **state)
{
    static const struct expectation cases[] = {
        {"/", false, ML_GROUND_FOREIGN, ML_PLACE_NONE, NULL},
        {"/app", false, ML_GROUND_FOREIGN, ML_PLACE_NONE, NULL},
        {"/authservicefoo", false, ML_GROUND_FOREIGN, ML_PLACE_NONE, NULL},
        {"/Authservice/logout", false, ML_GROUND_FOREIGN, ML_PLACE_NONE, NULL},
        {"/authservice", false, ML_GROUND_NOTHING, ML_PLACE_NONE, NULL},
        {"/authservice/", false, ML_GROUND_NOTHING, ML_PLACE_NONE, NULL},
        {"/authservice/x", false, ML_GROUND_NOTHING, ML_PLACE_NONE, NULL},
        {"/authservice/verify", false, ML_GROUND_VERIFY, ML_PLACE_NONE, "/"},
        {"/authservice/verify/a/b", false, ML_GROUND_VERIFY, ML_PLACE_NONE, "/a/b"},
        {"/authservice/verifyfoo", false, ML_GROUND_NOTHING, ML_PLACE_NONE, NULL},
        {"/authservice/oidc/callback", false, ML_GROUND_PLACE, ML_PLACE_CALLBACK, NULL},
        {"/authservice/oidc/callback/x", false, ML_GROUND_NOTHING, ML_PLACE_NONE, NULL},
        {"/authservice/logout", false, ML_GROUND_PLACE, ML_PLACE_LOGOUT, NULL},
        {"/authservice/logout/", false, ML_GROUND_NOTHING, ML_PLACE_NONE, NULL},
        {"/authservice/backchannel_logout", false, ML_GROUND_PLACE, ML_PLACE_BACKCHANNEL_LOGOUT,
         NULL},
        {"/authservice/frontchannel_logout", false, ML_GROUND_PLACE, ML_PLACE_FRONTCHANNEL_LOGOUT,
         NULL},
        {"/authservice/site/homepage", false, ML_GROUND_PLACE, ML_PLACE_PAGE, "/site/homepage"},
        {"/authservice/site", false, ML_GROUND_NOTHING, ML_PLACE_NONE, NULL},
        {"/site/homepage", false, ML_GROUND_FOREIGN, ML_PLACE_NONE, NULL},
        {"/oidc/callback", false, ML_GROUND_FOREIGN, ML_PLACE_NONE, NULL},
    };
    struct ml_settings *s =
        load((char *)"AUTHSERVICE_URL_PREFIX=https://gate.example/authservice/", NULL);
    check(s, cases, sizeof cases / sizeof cases[0]);
    ml_settings_free(s);
}

/* Gateways lead to the web port with the prefix or without it; nothing there is an application's.
 */
static void test_web(void **state)
{
    static const struct expectation cases[] = {
        {"/site/homepage", true, ML_GROUND_PLACE, ML_PLACE_PAGE, NULL},
        {"/authservice/site/homepage", true, ML_GROUND_PLACE, ML_PLACE_PAGE, "/site/homepage"},
        {"/oidc/callback", true, ML_GROUND_PLACE, ML_PLACE_CALLBACK, NULL},
        {"/authservice/oidc/callback", true, ML_GROUND_PLACE, ML_PLACE_CALLBACK, NULL},
        {"/logout", true, ML_GROUND_PLACE, ML_PLACE_LOGOUT, NULL},
        {"/backchannel_logout", true, ML_GROUND_PLACE, ML_PLACE_BACKCHANNEL_LOGOUT, NULL},
        {"/", true, ML_GROUND_NOTHING, ML_PLACE_NONE, NULL},
        {"/app", true, ML_GROUND_NOTHING, ML_PLACE_NONE, NULL},
        {"/authservice/verify", true, ML_GROUND_NOTHING, ML_PLACE_NONE, NULL},
    };
    struct ml_settings *s = load((char *)"AUTHSERVICE_URL_PREFIX=/authservice/", NULL);
    check(s, cases, sizeof cases / sizeof cases[0]);
    ml_settings_free(s);
}

static void test_callback_elsewhere(void **state)
{
    static const struct expectation cases[] = {
        {"/login/oidc", false, ML_GROUND_PLACE, ML_PLACE_CALLBACK, NULL},
        {"/login/oidc", true, ML_GROUND_PLACE, ML_PLACE_CALLBACK, NULL},
        {"/login", false, ML_GROUND_FOREIGN, ML_PLACE_NONE, NULL},
        {"/authservice/oidc/callback", false, ML_GROUND_NOTHING, ML_PLACE_NONE, NULL},
    };
    struct ml_settings *s = load((char *)"AUTHSERVICE_URL_PREFIX=/authservice/",
                                 (char *)"REDIRECT_URL=https://gate.example/login/oidc");
    check(s, cases, sizeof cases / sizeof cases[0]);
    ml_settings_free(s);
}

/* What we read as a place and a gateway may read as an application's path opens nothing. */
static void test_spelt_otherwise(void **state)
{
    static const char *const raw[] = {
        "/app/../authservice/site/homepage",
        "/authservice/./site/homepage",
        "/authservice//site/homepage",
        "//authservice/site/homepage",
        "/authservice/site/homepage;x=1",
        "/authservice;/site/homepage",
        "/%61uthservice/site/homepage",
        "/authservice/site/x/../homepage",
        "/app/../authservice/logout",
        "/app/../authservice/oidc/callback",
        "/authservice/backchannel_logou%74",
        "/app/../authservice/frontchannel_logout",
        "/authservice/oidc/callback;jsession=1",
        "/authservice/site/themes//kubeflow/styles.css",
    };
    struct ml_settings *s = load((char *)"AUTHSERVICE_URL_PREFIX=/authservice/", NULL);
    struct ml_arena arena;
    ml_arena_init(&arena, 64 * 1024);
    for (size_t i = 0; i < 2 * sizeof raw / sizeof raw[0]; i++) {
        struct ml_target t;
        struct ml_err err;
        assert_int_equal(ml_target_parse(&arena, ml_str_z(raw[i / 2]), &t, &err), 0);
        struct ml_request r = {.path = t.path, .raw_path = t.raw_path, .web = i % 2};
        assert_int_equal(ml_places_find(s, &r), r.web ? ML_GROUND_PLACE : ML_GROUND_NOTHING);
        assert_int_equal(r.place != ML_PLACE_NONE, r.web);
    }
    ml_arena_done(&arena);
    ml_settings_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ancestor),
        cmocka_unit_test(test_web),
        cmocka_unit_test(test_callback_elsewhere),
        cmocka_unit_test(test_spelt_otherwise),
    };
    return cmocka_run_group_tests_name("places", tests, NULL, NULL);
}
