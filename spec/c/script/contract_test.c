/* spec/support/host_contract.lua on the real host: the cases that busted runs on the fake one. The
 * policy is the contract itself, loading, then in a request. */
#include "c/crypto/jose_keys.h"
#include "c/script/world.h"
#include "crypto/jws.h"

static const char glue[] =
    "local function run(phase)\n"
    "  local failures = {}\n"
    "  local function test(name, fn)\n"
    "    local ran, why = pcall(fn)\n"
    "    if not ran then failures[#failures + 1] = name .. ': ' .. tostring(why) end\n"
    "  end\n"
    "  contract(host, test, { phase = phase, seam = seam, env = 'NAME' })\n"
    "  keys(host, test, { phase = phase, jwt = jwt })\n"
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

static void add_token(struct ml_buf *text, const char *kid)
{
    struct ml_err err;
    struct ml_jws_sign what = {.pem = ML_STR(P256_PEM),
                               .kid = ml_str_z(kid),
                               .typ = ML_STR("JWT"),
                               .payload = ML_STR("{\"sub\":\"alice\"}")};
    if (ml_jws_sign(&what, text, &err) != 0)
        fail_msg("%s", err.text);
}

/* A table `jwt` as key_contract.lua wants it. */
static void add_jwt(struct ml_buf *text)
{
    ml_buf_printf(text,
                  "local jwt = { set = host.json_decode('{\"keys\":[{\"kid\":\"k1\",%s}]}'), "
                  "alg = 'ES256', pem = 'KEY_PEM', not_pem = 'NAME', good = '",
                  P256_JWK);
    add_token(text, "k1");
    ml_buf_printf(text, "', unknown = '");
    add_token(text, "k2");
    ml_buf_printf(text, "' }\n");
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
    key_pem = P256_PEM;
    shared_open(&shared);
    world_open_with(&w, &shared, budget);
    ml_buf_init(&text, 1 << 20);
    add_module(&text, "seam", "lua/moonlatch/host.lua");
    add_module(&text, "contract", "spec/support/host_contract.lua");
    add_module(&text, "keys", "spec/support/key_contract.lua");
    add_jwt(&text);
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
