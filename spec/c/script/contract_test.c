/* spec/support/host_contract.lua on the real host: the cases that busted runs on the fake one. The
 * policy is the contract itself, loading, then in a request. */
#include "c/script/world.h"

static const char glue[] =
    "local function run(phase)\n"
    "  local failures = {}\n"
    "  contract(host, function(name, fn)\n"
    "    local ran, why = pcall(fn)\n"
    "    if not ran then failures[#failures + 1] = name .. ': ' .. tostring(why) end\n"
    "  end, { phase = phase, seam = seam, env = 'NAME' })\n"
    "  return table.concat(failures, '\\n')\n"
    "end\n"
    "local report = run('loading')\n"
    "if report ~= '' then return nil, report end\n"
    "local plan = host.plan({ 'X' }, { 'set' })\n"
    "return { name = 'contract', decide = function(req)\n"
    "  local why = run('running')\n"
    "  if why ~= '' then return host.deny(req, 500, 'error', why) end\n"
    "  host.allow(req, plan, 'u', 'allowed', 'x')\n"
    "end }\n";

static void add_module(struct ml_buf *text, const char *name, const char *path)
{
    struct ml_err err;
    ml_buf_add_str(text, ML_STR("local "));
    ml_buf_add_str(text, ml_str_z(name));
    ml_buf_add_str(text, ML_STR(" = (function()\n"));
    if (ml_file_read(path, text, &err) != ML_OK)
        fail_msg("%s", err.text);
    ml_buf_add_str(text, ML_STR("\nend)()\n"));
}

static void test_contract(void **state)
{
    struct shared shared;
    struct world w;
    struct ml_buf text;
    struct ask a;
    struct ml_budget budget = ml_default_budget;
    budget.load_cpu_ms = budget.resume_cpu_ms = budget.request_cpu_ms = 30000; /* sanitizers */
    budget.host_calls = 200;
    shared_open(&shared);
    world_open_with(&w, &shared, budget);
    ml_buf_init(&text, 1 << 20);
    add_module(&text, "seam", "lua/moonlatch/host.lua");
    add_module(&text, "contract", "spec/support/host_contract.lua");
    ml_buf_add(&text, glue, sizeof glue); /* with its NUL */
    struct ml_vm *vm = load(&w, text.p);
    ask_open(&a);
    ask_start(&a, vm);
    ask_wait(&a, &w);
    if (a.d.action != ML_ALLOW)
        fail_msg("%.*s", ML_FMT(a.d.body));
    ask_done(&a);
    ml_vm_unref(vm);
    ml_buf_done(&text);
    world_close(&w);
    shared_close(&shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_contract)};
    return cmocka_run_group_tests(tests, setup_directory, remove_directory);
}
