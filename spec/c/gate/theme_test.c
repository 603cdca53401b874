/* A theme in memory: what is read, what is left out, its bounds. */
#include "gate/theme.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[64];

static int make(const char *commands)
{
    char line[1024];
    snprintf(line, sizeof line, "cd %s && { %s; }", directory, commands);
    return system(line);
}

static int setup(void **state)
{
    strcpy(directory, "/tmp/ml-theme-XXXXXX");
    return mkdtemp(directory) ? 0 : -1;
}

static int teardown(void **state)
{
    return make("rm -rf \"$PWD\"");
}

static const struct ml_theme_file *find(const struct ml_theme *t, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "/%s", name);
    assert_true(name[0] == '/' || !ml_theme_find(t, ml_str_z(name)));
    return ml_theme_find(t, ml_str_z(path));
}

static void test_files(void **state)
{
    struct ml_theme *t;
    struct ml_err err;
    assert_int_equal(
        make("mkdir -p kubeflow/img d/d/d/d; printf 'a{}' >kubeflow/s.css; printf x "
             ">kubeflow/img/l.svg;"
             " : >empty; printf x >.hidden; ln -s /etc/passwd link; mkfifo pipe; ln -s /etc dir;"
             " printf x >d/d/d/in; printf x >d/d/d/d/deep"),
        0);
    assert_int_equal(ml_theme_read(&t, directory, &err), 0);
    assert_true(ml_str_eq(find(t, "kubeflow/s.css")->body, ML_STR("a{}")));
    assert_string_equal(find(t, "kubeflow/s.css")->type, "text/css; charset=utf-8");
    assert_string_equal(find(t, "kubeflow/img/l.svg")->type, "image/svg+xml");
    assert_int_equal(find(t, "empty")->body.n, 0);
    assert_non_null(find(t, "d/d/d/in"));
    static const char *const absent[] = {
        ".hidden",           "link",   "pipe",     "dir/passwd",
        "d/d/d/d/deep",      "",       "kubeflow", "kubeflow/",
        "kubeflow/../empty", "/empty", "/",        "kubeflow//s.css"};
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++)
        assert_null(find(t, absent[i]));
    ml_theme_free(t);
}

static void test_absent(void **state)
{
    struct ml_theme *t;
    struct ml_err err;
    assert_int_equal(ml_theme_read(&t, "/nowhere/at/all", &err), 0);
    assert_null(find(t, "x"));
    ml_theme_free(t);
    assert_null(find(NULL, "x"));
    ml_theme_free(NULL);
}

static void test_bounds(void **state)
{
    static const char *const commands[] = {
        "head -c 1048577 /dev/zero >big",
        "rm big; for i in $(seq 257); do : >$i; done",
        "rm *; for i in 1 2 3 4 5 6 7 8 9; do head -c 1000000 /dev/zero >$i; done",
        "rm *; printf x >a; chmod 0 a; [ $(id -u) != 0 ] || { rm a; head -c 1048577 /dev/zero >a; "
        "}",
    };
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        struct ml_theme *t;
        struct ml_err err = {.text = ""};
        assert_int_equal(make(commands[i]), 0);
        assert_int_equal(ml_theme_read(&t, directory, &err), ML_E_TOOBIG);
        assert_null(t);
        assert_true(strlen(err.text) > 0);
    }
    struct ml_theme *t;
    struct ml_err err;
    assert_int_equal(make("rm -f *; head -c 1048576 /dev/zero >fits"), 0);
    assert_int_equal(ml_theme_read(&t, directory, &err), 0);
    assert_int_equal(find(t, "fits")->body.n, 1048576);
    ml_theme_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_absent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bounds, setup, teardown),
    };
    return cmocka_run_group_tests_name("theme", tests, NULL, NULL);
}
