/* What is read of a policy, what is refused, and what `check` and a load say of bad ones (S-451,
 * S-510, S-511). */
#include "world.h"

static struct shared shared;
static struct world world;

static int open_world(void **state)
{
    shared_open(&shared);
    world_open(&world, &shared);
    return 0;
}

/* A file of the directory. */
static const char *file(const char *name)
{
    static char path[160];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static int close_world(void **state)
{
    char command[128];
    world_close(&world);
    shared_close(&shared);
    snprintf(command, sizeof command, "rm -rf %s/* %s/..data", directory, directory);
    return system(command);
}

static void put(const char *name, const char *text)
{
    write_file(file(name), text, strlen(text));
}

static void hash_now(char out[65])
{
    struct ml_bundle *b;
    struct ml_err err;
    assert_int_equal(ml_bundle_read(&b, file("policy.lua"), &err), 0);
    strcpy(out, ml_bundle_hash(b));
    ml_bundle_unref(b);
}

static void test_hash(void **state)
{
    char first[65], second[65];
    put("policy.lua", "return 1");
    put("a.lua", "x");
    hash_now(first);
    put("b_spec.lua", "not read");
    put(".hidden.lua", "not read");
    put("notes.txt", "not read");
    hash_now(second);
    assert_string_equal(first, second);
    put("a.lua", "y");
    hash_now(second);
    assert_string_not_equal(first, second);
    put("a.lua", "x");
    hash_now(second);
    assert_string_equal(first, second);
    put("b.lua", "");
    hash_now(second);
    assert_string_not_equal(first, second);
}

/* As a ConfigMap is mounted: links over links. */
static void test_links_and_modules(void **state)
{
    char target[160];
    struct ml_bundle *b;
    struct ml_vm *vm;
    struct ml_err err;
    struct ml_buf report;
    strcpy(target, file("..data"));
    assert_int_equal(mkdir(target, 0700), 0);
    put("..data/policy.lua",
        "local text, name = host.module('words') assert(text == 'return 7' and "
        "name:find('/words.lua', 1, true))\n"
        "assert(host.module('none') == nil and host.module('words.lua') == nil)\n"
        "return { name = 'linked', decide = function() end, report = 'warning: x', headers = { "
        "'x-user' } }");
    put("..data/words.lua", "return 7");
    assert_int_equal(symlink("..data/policy.lua", file("policy.lua")), 0);
    assert_int_equal(symlink("..data/words.lua", file("words.lua")), 0);
    assert_int_equal(ml_bundle_read(&b, file("policy.lua"), &err), 0);
    ml_buf_init(&report, 4096);
    assert_int_equal(ml_vm_new(&vm, world.script, b, 1, &report), 0);
    assert_true(ml_str_eq(ml_buf_str(&report), ML_STR("warning: x")));
    const struct ml_str *owned;
    assert_int_equal(ml_vm_owned_headers(vm, &owned), 1);
    assert_true(ml_str_eq(owned[0], ML_STR("x-user")));
    ml_bundle_unref(b);
    ml_vm_unref(vm);
    unsigned warnings = 0;
    assert_int_equal(ml_policy_check(world.script, file("policy.lua"), &report, &warnings), 0);
    assert_int_equal(warnings, 1);
    ml_buf_done(&report);
}

static void assert_unreadable(const char *why)
{
    struct ml_bundle *b = NULL;
    struct ml_err err;
    assert_true(ml_bundle_read(&b, file("policy.lua"), &err) < 0);
    assert_null(b);
    if (!strstr(err.text, why))
        fail_msg("%s", err.text);
}

static void test_unreadable(void **state)
{
    char big[ML_FILE_BYTES + 1];
    memset(big, ' ', sizeof big);
    assert_unreadable("No such file");
    assert_int_equal(mkdir(file("policy.lua"), 0700), 0);
    assert_unreadable("not a regular file");
    rmdir(file("policy.lua"));
    assert_int_equal(mkfifo(file("policy.lua"), 0600), 0);
    assert_unreadable("not a regular file");
    unlink(file("policy.lua"));
    write_file(file("policy.lua"), big, ML_FILE_BYTES);
    char hash[65];
    hash_now(hash);
    write_file(file("policy.lua"), big, ML_FILE_BYTES + 1);
    assert_unreadable("larger than 1 MiB");
    put("policy.lua", "");
    assert_int_equal(symlink("nowhere", file("dangling.lua")), 0);
    assert_unreadable("dangling.lua");
    unlink(file("dangling.lua"));
    for (int i = 1; i <= ML_BUNDLE_FILES; i++) {
        char name[32];
        snprintf(name, sizeof name, "m%d.lua", i);
        if (i == ML_BUNDLE_FILES)
            hash_now(hash);
        put(name, "");
    }
    assert_unreadable("more than 64 files");
}

/* The tests' library checks nothing of a returned table: that is left to the C side of a load. */
static void assert_refused(const void *text, size_t n, bool by_check)
{
    struct ml_buf report;
    unsigned warnings;
    struct ml_bundle *b;
    struct ml_vm *vm = NULL;
    struct ml_err err;
    ml_buf_init(&report, 1 << 20);
    write_file(file("policy.lua"), text, n);
    int checked = ml_policy_check(world.script, file("policy.lua"), &report, &warnings);
    if (by_check) {
        assert_int_equal(checked, ML_E_POLICY);
        assert_true(report.n > 0);
    }
    ml_buf_clear(&report);
    assert_int_equal(ml_bundle_read(&b, file("policy.lua"), &err), 0);
    assert_int_equal(ml_vm_new(&vm, world.script, b, 1, &report), ML_E_POLICY);
    assert_null(vm);
    assert_true(report.n > 0);
    ml_bundle_unref(b);
    ml_buf_done(&report);
    assert_int_equal(ml_script_stats(world.script).lua_bytes, 0);
}

static void test_refused(void **state)
{
    static const char *const texts[] = {
        "",
        "x = ",
        "error('x')",
        "error()",
        "return 1",
        "return {}",
        "return { decide = 1 }",
        "return { decide = function() end, headers = 1 }",
        "return { decide = function() end, headers = { 1 } }",
        "return { decide = function() end, tasks = { 1 } }",
        "return { decide = function() end, answer = 1 }",
        "return { decide = function() end, providers = { {} } }",
        "local t = {} for i = 1, 300 do t[i] = 'h' .. i end return { decide = function() end, "
        "headers = t }",
        "local t = {} for i = 1, 1e9 do t[i] = { i } end",
        "local s = ('x'):rep(1 << 20) while true do s = s .. s end",
        "local function f() return f() + 1 end f()",
        "goto nowhere",
        "\xEF\xBB\xBF\x1bLua",
        "return '",
        "require('io')",
        "os.exit(1)",
        "host.allow()",
        "host.step({}, 'a', 'b')",
    };
    char deep[2000], bytecode[] = "\x1bLua\x54\x00\x19\x93\r\n\x1a\n", nul[] = "return\0{}";
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        assert_refused(texts[i], strlen(texts[i]), !strstr(texts[i], "return {"));
    memset(deep, '(', sizeof deep);
    assert_refused(deep, sizeof deep, true);
    assert_refused(bytecode, sizeof bytecode, true);
    assert_refused(nul, sizeof nul, true);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, open_world, close_world)
    const struct CMUnitTest tests[] = {CASE(test_hash), CASE(test_links_and_modules),
                                       CASE(test_unreadable), CASE(test_refused)};
    return cmocka_run_group_tests_name("bundle", tests, setup_directory, remove_directory);
}
