/* Our own Lua files: what is compiled, what is refused and how, and that a state needs no file any
 * more. */
#include "c/script/world.h"

static char root[] = "/tmp/ml-library-XXXXXX";
static struct ml_err err;

static void make(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/moonlatch/%s", root, name);
    write_file(path, text, strlen(text));
}

static void make_directory(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/moonlatch/%s", root, name);
    assert_int_equal(mkdir(path, 0700), 0);
}

static int setup(void **state)
{
    memcpy(root + sizeof root - 7, "XXXXXX", 6);
    assert_non_null(mkdtemp(root));
    make_directory("");
    return 0;
}

static int teardown(void **state)
{
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", root);
    return system(command);
}

static bool has(const struct ml_library *l, const char *name)
{
    struct ml_str code = {NULL, 0};
    bool found = ml_library_code(l, ml_str_z(name), &code);
    assert_true(!found || (code.n > 4 && memcmp(code.p, "\033Lua", 4) == 0));
    return found;
}

static void test_names(void **state)
{
    struct ml_library *l = NULL;
    make("init.lua", "return 1");
    make("a.lua", "");
    make("notes.md", "no Lua");
    make(".hidden.lua", "no Lua");
    make_directory("authn");
    make("authn/b.lua", "return ...");
    make_directory("testing");
    make("testing/fake.lua", "no Lua");
    assert_int_equal(ml_library_new(&l, root, &err), 0);
    assert_true(has(l, "moonlatch") && has(l, "moonlatch.a") && has(l, "moonlatch.authn.b"));
    assert_false(has(l, "moonlatch.init") || has(l, "moonlatch.notes") ||
                 has(l, "moonlatch.testing.fake") || has(l, "moonlatch.none") || has(l, "../x") ||
                 has(l, ""));
    ml_library_free(l);
}

static void refused(const char *why)
{
    struct ml_library *l = NULL;
    assert_int_not_equal(ml_library_new(&l, root, &err), 0);
    assert_null(l);
    if (!strstr(err.text, why))
        fail_msg("'%s' is not in: %s", why, err.text);
}

static void test_refusals(void **state)
{
    char name[64];
    make("wrong.lua", "\n\nlocal = 1");
    refused("moonlatch/wrong.lua:3:");
    make("wrong.lua", "\033Lua");
    refused("moonlatch/wrong.lua");
    make("wrong.lua", "");
    make_directory("fifo.lua");
    refused("not a regular file");
    teardown(NULL);
    setup(NULL);
    for (int i = 0; i <= 256; i++) {
        snprintf(name, sizeof name, "m%d.lua", i);
        make(name, "");
    }
    refused("more than 256 files");
    teardown(NULL);
    refused(root);
    setup(NULL);
    strcpy(name, "d");
    for (int i = 0; i < 5; i++, strcat(name, "/d"))
        make_directory(name);
    refused("nested too deep");
}

/* All states of a process have the files that it began with. */
static void test_files_change(void **state)
{
    struct shared shared;
    struct world w;
    struct ml_library *l = NULL;
    make("init.lua", "return { load = function(host)\n"
                     "return { name = require('moonlatch.a'), decide = function() end } end }");
    make("a.lua", "return 'first'");
    assert_int_equal(ml_library_new(&l, root, &err), 0);
    shared_open(&shared);
    world_open(&w, &shared);
    w.script->options.library = l;
    make("a.lua", "return 'second'");
    struct ml_vm *vm = load(&w, "");
    assert_string_equal(ml_vm_name(vm), "first");
    ml_vm_unref(vm);
    world_close(&w);
    shared_close(&shared);
    ml_library_free(l);
}

/* The errors of our own code say where they come from. */
static void test_lines(void **state)
{
    struct shared shared;
    struct world w;
    struct ml_library *l = NULL;
    struct ml_buf report;
    make("init.lua", "return { load = function(host)\n\nlocal none\nreturn none.x end }");
    assert_int_equal(ml_library_new(&l, root, &err), 0);
    shared_open(&shared);
    world_open(&w, &shared);
    w.script->options.library = l;
    ml_buf_init(&report, 4096);
    assert_null(load_text(&w, "", &report));
    ml_buf_add(&report, "", 1);
    assert_non_null(strstr(report.p, "moonlatch/init.lua:4: attempt to index a nil value"));
    assert_non_null(strstr(report.p, "'none'"));
    ml_buf_done(&report);
    world_close(&w);
    shared_close(&shared);
    ml_library_free(l);
}

static void test_ours(void **state)
{
    struct ml_library *l = NULL;
    assert_int_equal(ml_library_new(&l, "lua", &err), 0);
    assert_true(has(l, "moonlatch") && has(l, "moonlatch.authn.opaque"));
    assert_false(has(l, "moonlatch.testing"));
    ml_library_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_files_change, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lines, setup, teardown),
        cmocka_unit_test(test_ours),
    };
    return cmocka_run_group_tests_name("library", tests, setup_directory, remove_directory);
}
