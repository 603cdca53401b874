/* host.random digest seal unseal jwt_*: what the contract of both hosts does not say. */
#include "c/crypto/jose_keys.h"
#include "c/script/world.h"

#include "crypto/jws.h"

static struct shared shared;
static struct world world;

/* Signatures take their time under sanitizers. */
static struct ml_budget patient(void)
{
    struct ml_budget b = ml_default_budget;
    b.resume_cpu_ms = b.request_cpu_ms = 5000;
    return b;
}

/* Runs the body in a request; it must allow. `sets` are key sets, `token` is signed by the first.
 */
static void runs(const char *body)
{
    struct ask a;
    ask_body(&world, body, &a);
    if (a.d.action != ML_ALLOW)
        fail_msg("%s", last_reason(&a));
    ask_done(&a);
}

static void raises(const char *body, const char *why)
{
    struct ask a;
    ask_body(&world, body, &a);
    assert_failed(&a, "error");
    if (!strstr(last_reason(&a), why))
        fail_msg("'%s', wanted '%s'", last_reason(&a), why);
    ask_done(&a);
}

static void post(const char *name, const char *json)
{
    assert_true(ml_board_post(shared.board, ml_str_z(name), ml_str_z(json)));
}

/* Lua text that makes a global-like local `token`, signed with pem under kid. */
static const char *with_token(const char *pem, const char *kid, const char *payload,
                              const char *body)
{
    static char text[8192];
    struct ml_buf token;
    struct ml_err err;
    struct ml_jws_sign what = {.pem = ml_str_z(pem),
                               .kid = ml_str_z(kid),
                               .typ = ML_STR("at+jwt"),
                               .payload = ml_str_z(payload)};
    ml_buf_init(&token, ML_JWS_MAX);
    assert_int_equal(ml_jws_sign(&what, &token, &err), 0);
    snprintf(text, sizeof text, "local token = '%.*s'\n%s", (int)token.n, token.p, body);
    ml_buf_done(&token);
    return text;
}

static void test_seal_expires(void **state)
{
    runs("host.cache_set('t', 'n', 'sealed', { s = host.seal('p', 'text', 60) }, 600) allow()");
#define LOOK(condition)                                                                            \
    "local s = host.cache_get('t', 'n', 'sealed').s\n"                                             \
    "local text, why = host.unseal('p', s)\n"                                                      \
    "assert(" condition ", why) assert(select(2, host.unseal('q', s)) == 'not ours') allow()"
    ml_clock_advance(59000);
    runs(LOOK("text == 'text'"));
    ml_clock_advance(1001);
    runs(LOOK("text == nil and why == 'expired'"));
}

/* A key of another process: not ours, and that is all. */
static void test_seal_of_others(void **state)
{
    struct ml_seal_keys *own = shared.keys, *other = NULL;
    runs("host.cache_set('t', 'n', 'other', { s = host.seal('p', 'text', 60) }, 600) allow()");
    assert_int_equal(ml_seal_keys_new(&other, ML_STR(P256_PEM), NULL), 0);
    world.script->options.seal = other;
    runs("local text, why = host.unseal('p', host.cache_get('t', 'n', 'other').s)\n"
         "assert(text == nil and why == 'not ours') allow()");
    world.script->options.seal = NULL;
    raises("host.seal('p', 'text', 60)", "no sealing key");
    raises("host.unseal('p', 'text')", "no sealing key");
    runs("host.random(16) host.digest('sha512', '') allow()");
    world.script->options.seal = own;
    ml_seal_keys_free(other);
}

/* S-234: a set that changes on the board counts at once, both ways. */
static void test_rotation(void **state)
{
    post("keys", "{\"keys\":[{\"kid\":\"a\"," P256_JWK "}]}");
    const char *good = "assert(host.jwt_verify(token, 'keys', { 'ES256' })) allow()";
    const char *none = "local claims, why, blame = host.jwt_verify(token, 'keys', { 'ES256' })\n"
                       "assert(claims == nil and blame == 'key', why) allow()";
    runs(with_token(P256_PEM, "a", "{}", good));
    runs(with_token(P256_PEM, "b", "{}", none));
    post("keys", "{\"keys\":[{\"kid\":\"b\"," P256_JWK "}]}");
    runs(with_token(P256_PEM, "b", "{}", good));
    runs(with_token(P256_PEM, "a", "{}", none));
    ml_board_fail(shared.board, ML_STR("keys"), ML_STR("down")); /* the last good set stays */
    runs(with_token(P256_PEM, "b", "{}", good));
}

static void test_reasons(void **state)
{
    post("keys", "{\"keys\":[{\"kid\":\"a\",\"kty\":\"oct\",\"k\":\"AA\"}]}");
    runs(with_token(P256_PEM, "a", "{}",
                    "local claims, why, blame = host.jwt_verify(token, 'keys', { 'ES256' })\n"
                    "assert(blame == 'key' and why == \"the token's key is not known (of the set, "
                    "key 1: it holds a secret, which no set may)\", why) allow()"));
    ml_board_fail(shared.board, ML_STR("none"), ML_STR("connection refused"));
    runs(with_token(P256_PEM, "a", "{}",
                    "local claims, why, blame = host.jwt_verify(token, 'none', { 'ES256' })\n"
                    "assert(blame == 'key' and why == 'the keys are not known: connection "
                    "refused', why) allow()"));
    /* Not an object: the signature is right, but it is no JWT. */
    post("keys", "{\"keys\":[{\"kid\":\"a\"," P256_JWK "}]}");
    static const char *const payloads[] = {"[1]", "5", "null", "\"x\"", "{\"a\":1,\"a\":2}",
                                           "{",   " "};
    for (size_t i = 0; i < 7; i++)
        runs(with_token(P256_PEM, "a", payloads[i],
                        "local claims, why, blame = host.jwt_verify(token, 'keys', { 'ES256' })\n"
                        "assert(claims == nil and blame == 'token', why) allow()"));
}

/* Claims as they are; of the header what was judged, and no more. */
static void test_results(void **state)
{
    post("keys", "{\"keys\":[{\"kid\":\"a\"," RSA_JWK "}]}");
    runs(with_token(
        RSA_PEM, "a",
        " {\"n\":1,\"big\":9007199254740993,\"list\":[],\"null\":null,\"t\":{\"b\":true}}",
        "local claims, header = host.jwt_verify(token, 'keys', { 'ES256', 'RS256' })\n"
        "assert(claims.n == 1 and math.type(claims.big) == 'integer' and claims.big == "
        "9007199254740993 and #claims.list == 0 and claims.null == nil and claims.t.b)\n"
        "local names = {} for name in pairs(header) do names[#names + 1] = name end "
        "table.sort(names)\n"
        "assert(table.concat(names, ' ') == 'alg kid typ' and header.alg == 'RS256' and header.kid "
        "== "
        "'a' and header.typ == 'at+jwt') allow()"));
    runs(with_token(RSA_PEM, "", "{}",
                    "local claims, header = host.jwt_verify(token, 'keys', { 'RS256' })\n"
                    "assert(next(claims) == nil and header.kid == nil) allow()"));
}

/* S-518: whatever they are given. */
static void test_arguments(void **state)
{
    post("keys", "{\"keys\":[{\"kid\":\"a\"," P256_JWK "}]}");
    runs("for _, name in ipairs{ 'random', 'digest', 'seal', 'unseal', 'jwt_peek', 'jwt_verify', "
         "'jwt_sign' } do\n"
         "  for _, bad in ipairs{ {}, true, tostring, key, req, 0/0, -1, 2^53, math.huge } do\n"
         "    assert(not pcall(host[name], bad, bad, bad), name)\n"
         "  end\n"
         "  assert(not pcall(host[name]), name)\n"
         "end\n"
         "local many = {} for i = 1, 1000 do many[i] = 'ES256' end\n"
         "assert(select(2, host.jwt_verify('a.b.c', 'keys', many)))\n"
         "assert(not pcall(host.jwt_verify, 'a.b.c', 'keys', { 'ES256', 'none' }))\n"
         "assert(not pcall(host.seal, 'p', ('x'):rep(1000000), 1))\n"
         "assert(host.unseal('p', ('x'):rep(1000000)) == nil)\n"
         "assert(not pcall(host.jwt_sign, {}, key, { kid = {} }))\n"
         "assert(not pcall(host.jwt_sign, { f = tostring }, key))\n"
         "assert(select(2, host.jwt_sign({}, key)):find('PEM'))\n"
         "allow()");
}

/* S-512, S-452: the state full after each few bytes more. */
static void test_memory_sweep(void **state)
{
    struct world narrow;
    unsigned allowed = 0, denied = 0;
    post("keys", "{\"keys\":[{\"kid\":\"a\"," P256_JWK "}]}");
    world_open_with(&narrow, &shared, patient());
    struct ml_vm *vm = load_body(
        &narrow,
        with_token(
            P256_PEM, "a", "{\"sub\":\"x\",\"groups\":[\"a\",\"b\"]}",
            "local s = host.seal('p', host.random(32) .. host.digest('sha384', 'x'), 60)\n"
            "assert(#host.unseal('p', s) == 91 and not host.unseal('q', s))\n"
            "local claims, header = host.jwt_verify(token, 'keys', { 'ES256' })\n"
            "assert(claims.sub == 'x' and claims.groups[2] == 'b' and header.kid == 'a')\n"
            "claims, header = host.jwt_peek(token) assert(claims.sub == 'x')\n"
            "assert(select(3, host.jwt_verify(token .. 'A', 'keys', { 'ES256' })) == 'token')\n"
            "host.jwt_sign(claims, key, { kid = 'k' }) allow()"));
    for (size_t room = 0; room < 30000; room += 40) {
        struct ask a;
        lua_gc(vm->L, LUA_GCCOLLECT);
        while (vm->pooled)
            ml_vm_release(vm, vm->pool[--vm->pooled].ref);
        lua_gc(vm->L, LUA_GCCOLLECT);
        narrow.script->options.budget.memory = vm->used + room;
        ask_open(&a);
        ask_start(&a, vm);
        assert_int_equal(a.done, 1);
        if (a.d.action != ML_ALLOW)
            assert_failed(&a, "error");
        allowed += a.d.action == ML_ALLOW;
        denied += a.d.action == ML_DENY;
        ask_done(&a);
        vm->exhausted = vm->poisoned = false;
        narrow.script->options.budget.memory = ml_default_budget.memory;
    }
    assert_true(allowed > 10 && denied > 50);
    ml_vm_unref(vm);
    world_close(&narrow);
}

static int setup(void **state)
{
    shared_open(&shared);
    world_open_with(&world, &shared, patient());
    return 0;
}

static int teardown(void **state)
{
    world_close(&world);
    shared_close(&shared);
    return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_seal_expires), TEST(test_seal_of_others), TEST(test_rotation),
        TEST(test_reasons),      TEST(test_results),        TEST(test_arguments),
        TEST(test_memory_sweep),
    };
    return RUN_TWICE("seal and jwt", tests);
}
