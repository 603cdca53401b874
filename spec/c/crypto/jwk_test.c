/* JWK Sets: which keys are taken, for which algorithms, and which are left out, and why. */
#include "c/crypto/jose_keys.h"
#include "c/crypto/jose_vectors.h"
#include "codec/text.h"
#include "crypto/jose.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct ml_jwks *set_of(struct ml_str json)
{
    struct ml_jwks *set = NULL;
    struct ml_err err;
    if (ml_jwks_new(&set, json, &err) != 0)
        fail_msg("%s", err.text);
    return set;
}

/* A set of one key with these members. */
static struct ml_jwks *set_with(const char *members)
{
    struct ml_buf json;
    ml_buf_init(&json, 1 << 20);
    ml_buf_printf(&json, "{\"keys\":[{%s}]}", members);
    struct ml_jwks *set = set_of(ml_buf_str(&json));
    ml_buf_done(&json);
    return set;
}

static uint32_t mask(const char *const *names)
{
    uint32_t m = 0;
    for (; *names; names++)
        m |= ml_jws_algorithm(ml_str_z(*names));
    return m;
}

static void taken(void **state)
{
    static const struct {
        const char *members;
        const char *algorithms[7];
    } cases[] = {
        {RSA_JWK, {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}},
        {RSA_JWK ",\"alg\":\"RS256\",\"use\":\"sig\"", {"RS256"}},
        {RSA_JWK ",\"alg\":\"PS512\",\"key_ops\":[\"verify\"]", {"PS512"}},
        {RSA_JWK ",\"key_ops\":[\"sign\",\"verify\"],\"alg\":\"RS384\"", {"RS384"}},
        {RSA_JWK ",\"x5c\":[\"AA==\",{\"kty\":\"oct\"}],\"x5t\":5,\"other\":{\"k\":1,\"d\":[2]}",
         {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}},
        {P256_JWK, {"ES256"}},
        {P384_JWK, {"ES384"}},
        {P521_JWK, {"ES512"}},
        {P521_JWK ",\"alg\":\"ES512\"", {"ES512"}},
        {ED25519_JWK, {"EdDSA"}},
        {ED448_JWK ",\"alg\":\"EdDSA\"", {"EdDSA"}},
        {"\"kty\":\"RSA\",\"e\":\"Aw\",\"n\":\"" RSA_N "\",\"alg\":\"RS256\"", {"RS256"}},
        /* Some put a zero in front (RFC 7518 section 6.3.1.1 says not to). */
        {"\"kty\":\"RSA\",\"e\":\"AAEAAQ\",\"n\":\"" RSA_N "\",\"alg\":\"RS256\"", {"RS256"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ml_jwks *set = set_with(cases[i].members);
        if (ml_jwks_count(set) != 1)
            fail_msg("case %zu: %s", i, ml_jwks_complaint(set));
        assert_int_equal(set->keys[0].algorithms, mask(cases[i].algorithms));
        assert_null(set->keys[0].kid.p);
        ml_jwks_unref(set);
    }
}

#define RSA_OF(n, e) "\"kty\":\"RSA\",\"n\":\"" n "\",\"e\":\"" e "\""
#define EC_OF(crv, x, y) "\"kty\":\"EC\",\"crv\":\"" crv "\",\"x\":\"" x "\",\"y\":\"" y "\""
#define X256 "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
#define Y256 "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
#define ZERO256 "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

/* S-091, S-092, S-102, S-115, S-116. */
static void left_out(void **state)
{
    static const struct {
        const char *members, *why;
    } cases[] = {
        {"", "no kty"},
        {"\"kty\":null", "no kty"},
        {"\"kty\":5", "no kty"},
        {"\"kty\":[\"RSA\"]", "no kty"},
        {"\"kty\":\"\"", "no key of its kty"},
        {"\"kty\":\"rsa\"", "no key of its kty"},
        {"\"kty\":\"AKP\",\"alg\":\"ML-DSA-44\"", "alg is none that signs here"},
        {"\"kty\":\"oct\",\"k\":\"c2VjcmV0\"", "holds a secret"},
        {"\"kty\":\"oct\"", "holds a secret"},
        {RSA_JWK ",\"k\":\"c2VjcmV0\"", "holds a secret"},
        {RSA_JWK ",\"d\":\"AQAB\"", "holds a secret"},
        {ED25519_JWK ",\"d\":null", "holds a secret"},
        {RSA_JWK ",\"use\":\"enc\"", "use is not sig"},
        {RSA_JWK ",\"use\":5", "use is not sig"},
        {RSA_JWK ",\"key_ops\":[\"encrypt\"]", "no verify"},
        {RSA_JWK ",\"key_ops\":[]", "no verify"},
        {RSA_JWK ",\"key_ops\":\"verify\"", "no verify"},
        {RSA_JWK ",\"key_ops\":{\"a\":\"verify\"}", "no verify"},
        {RSA_JWK ",\"key_ops\":[[\"verify\"]]", "no verify"},
        {RSA_JWK ",\"alg\":\"none\"", "alg is none that signs here"},
        {RSA_JWK ",\"alg\":\"HS256\"", "alg is none that signs here"},
        {RSA_JWK ",\"alg\":\"RSA-OAEP\"", "alg is none that signs here"},
        {RSA_JWK ",\"alg\":5", "alg is none that signs here"},
        {RSA_JWK ",\"alg\":\"ES256\"", "alg does not fit"},
        {P256_JWK ",\"alg\":\"ES384\"", "alg does not fit"},
        {P256_JWK ",\"alg\":\"RS256\"", "alg does not fit"},
        {P256_JWK ",\"kid\":5", "kid is no text"},
        {P256_JWK ",\"kid\":null", "kid is no text"},
        {RSA_OF(RSA_N, ""), "no key of its kty"},
        {RSA_OF("", "AQAB"), "no key of its kty"},
        {RSA_OF(RSA_N, "AQAB="), "no key of its kty"},
        {RSA_OF(RSA_N "+", "AQAB"), "no key of its kty"},
        {"\"kty\":\"RSA\",\"n\":\"" RSA_N "\"", "no key of its kty"},
        {"\"kty\":\"RSA\",\"e\":\"AQAB\"", "no key of its kty"},
        {"\"kty\":\"RSA\",\"e\":65537,\"n\":\"" RSA_N "\"", "no key of its kty"},
        {"\"kty\":\"RSA\",\"e\":\"AQAB\",\"n\":[\"" RSA_N "\"]", "no key of its kty"},
        {RSA_OF(RSA_N, "AQ"), "exponent"},           /* 1 */
        {RSA_OF(RSA_N, "AA"), "exponent"},           /* 0 */
        {RSA_OF(RSA_N, "Ag"), "exponent"},           /* 2 */
        {RSA_OF(RSA_N, "AQAA"), "exponent"},         /* 65536 */
        {RSA_OF(RSA_N, "AQAAAAAAAAAB"), "exponent"}, /* 65 bits */
        {RSA_OF(WEAK_N, "AQAB"), "less than 2048 bits"},
        {RSA_OF("AQAB", "AQAB"), "less than 2048 bits"},
        {RSA_OF(ROCA_N, "AQAB"), "CVE-2017-15361"},
        {EC_OF("P-256", X256, X256), "no key of its kty"}, /* off the curve */
        {EC_OF("P-256", ZERO256, ZERO256), "no key of its kty"},
        {EC_OF("P-384", X256, Y256), "no key of its kty"},
        {EC_OF("P-256", "AA" X256 "A", Y256), "no key of its kty"}, /* too long */
        {EC_OF("P-256", "", Y256), "no key of its kty"},
        {EC_OF("P-256", X256, "AQ"), "no key of its kty"},
        {EC_OF("secp256k1", X256, Y256), "no key of its kty"},
        {EC_OF("p-256", X256, Y256), "no key of its kty"},
        {"\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" X256 "\"", "no key of its kty"},
        {"\"kty\":\"EC\",\"x\":\"" X256 "\",\"y\":\"" Y256 "\"", "no key of its kty"},
        {"\"kty\":\"OKP\",\"crv\":\"X25519\",\"x\":\"" X256 "\"", "no key of its kty"},
        {"\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AQ\"", "no key of its kty"},
        {"\"kty\":\"OKP\",\"crv\":\"Ed448\",\"x\":\"" X256 "\"", "no key of its kty"},
        {"\"kty\":\"OKP\",\"crv\":\"Ed25519\"", "no key of its kty"},
        {"\"kty\":\"OKP\",\"x\":\"" X256 "\"", "no key of its kty"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ml_jwks *set = set_with(cases[i].members);
        const char *why = ml_jwks_complaint(set);
        if (ml_jwks_count(set) != 0 || strncmp(why, "key 1: ", 7) != 0 ||
            !strstr(why, cases[i].why))
            fail_msg("%s: '%s', wanted '%s'", cases[i].members, why, cases[i].why);
        ml_jwks_unref(set);
    }
}

/* Members whose numbers are only large: made here, not written out. bits: the highest that is set.
 */
static struct ml_jwks *rsa_of_bits(size_t bits, bool odd)
{
    struct ml_buf n, members;
    ml_buf_init(&n, 1 << 16);
    ml_buf_init(&members, 1 << 16);
    for (size_t i = 0; i < bits / 8; i++)
        ml_buf_add(&n, i == 0 ? "\x80" : i + 1 == bits / 8 && odd ? "\x01" : "\0", 1);
    ml_buf_printf(&members, "\"kty\":\"RSA\",\"e\":\"AQAB\",\"n\":\"");
    ml_base64url_encode(ml_buf_str(&n), &members);
    ml_buf_add(&members, "\"", 2);
    struct ml_jwks *set = set_with(members.p);
    ml_buf_done(&n);
    ml_buf_done(&members);
    return set;
}

static void rsa_sizes(void **state)
{
    static const struct {
        size_t bits;
        bool odd;
        const char *why;
    } cases[] = {
        {2040, true, "less than 2048 bits"}, {2048, true, ""},
        {2048, false, "modulus is even"},    {8192, true, ""},
        {8200, true, "more than 8192 bits"}, {16384, true, "no key of its kty"},
        {80000, true, "no key of its kty"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ml_jwks *set = rsa_of_bits(cases[i].bits, cases[i].odd);
        const char *why = ml_jwks_complaint(set);
        if ((ml_jwks_count(set) == 1) != !*cases[i].why || !strstr(why, cases[i].why))
            fail_msg("%zu bits: '%s', wanted '%s'", cases[i].bits, why, cases[i].why);
        ml_jwks_unref(set);
    }
}

/* What is wrong with one key does not hurt the others, and the first complaint is kept. */
static void mixed(void **state)
{
    struct ml_jwks *set = set_of(ML_STR(
        "{\"other\":[{\"kty\":\"oct\"}],\"keys\":[{" RSA_JWK ",\"kid\":\"a\"},5,null,[{}],{\"kty\":"
        "\"oct\",\"k\":\"AA\"},{},{" P256_JWK ",\"kid\":\"\\u00e9\"}],\"more\":{\"keys\":1}}"));
    assert_int_equal(ml_jwks_count(set), 2);
    assert_string_equal(ml_jwks_complaint(set), "key 2: it holds a secret, which no set may");
    assert_true(ml_str_eq(set->keys[0].kid, ML_STR("a")));
    assert_true(ml_str_eq(set->keys[1].kid, ML_STR("\u00e9")));
    ml_jwks_unref(set);
}

static void no_sets(void **state)
{
    static const struct {
        const char *json, *why;
    } cases[] = {
        {"", "JSON"},
        {"null", "no JWK Set"},
        {"5", "no JWK Set"},
        {"[]", "no JWK Set"},
        {"{}", "no JWK Set"},
        {"{\"keys\":null}", "no JWK Set"},
        {"{\"keys\":{}}", "no JWK Set"},
        {"{\"keys\":\"x\"}", "no JWK Set"},
        {"{\"Keys\":[]}", "no JWK Set"},
        {"{\"keys\":[],\"keys\":[]}", "a member twice"},
        {"{\"keys\":[{\"kty\":\"RSA\",\"kty\":\"oct\"}]}", "a member twice"},
        {"{\"keys\":[{\"kty\":\"RSA\",\"\\u006bty\":\"oct\"}]}", "a member twice"},
        {"{\"keys\":[]}x", "bytes after"},
        {"{\"keys\":[{\"kty\":\"\xff\"}]}", "UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ml_jwks *set = NULL;
        struct ml_err err;
        assert_int_equal(ml_jwks_new(&set, ml_str_z(cases[i].json), &err), ML_E_INVALID);
        if (set || !strstr(err.text, cases[i].why))
            fail_msg("%s: %s", cases[i].json, err.text);
    }
}

/* 64 keys are a set, 65 are not; JSON 100,000 deep (S-107) is refused. */
static void bounds(void **state)
{
    struct ml_buf json;
    struct ml_err err;
    struct ml_jwks *set = NULL;
    ml_buf_init(&json, 1 << 20);
    for (int n = 64; n <= 65; n++) {
        ml_buf_clear(&json);
        ml_buf_printf(&json, "{\"keys\":[");
        for (int i = 0; i < n; i++)
            ml_buf_printf(&json, "%s{%s}", i ? "," : "", i == 3 ? P256_JWK : ED25519_JWK);
        ml_buf_printf(&json, "]}");
        int e = ml_jwks_new(&set, ml_buf_str(&json), &err);
        assert_int_equal(e, n == 64 ? 0 : ML_E_TOOBIG);
        if (e == 0) {
            assert_int_equal(ml_jwks_count(set), 64);
            ml_jwks_unref(set);
        }
    }
    assert_string_equal(err.text, "more than 64 keys");
    ml_buf_clear(&json);
    ml_buf_printf(&json, "{\"keys\":");
    for (int i = 0; i < 100000; i++)
        ml_buf_add(&json, "[", 1);
    assert_int_equal(ml_jwks_new(&set, ml_buf_str(&json), &err), ML_E_TOOBIG);
    char kid[400];
    memset(kid, 'k', sizeof kid);
    for (int n = ML_JWK_KID_MAX; n <= ML_JWK_KID_MAX + 1; n++) {
        ml_buf_clear(&json);
        ml_buf_printf(&json, "{\"keys\":[{%s,\"kid\":\"%.*s\"}]}", P256_JWK, n, kid);
        set = set_of(ml_buf_str(&json));
        assert_int_equal(ml_jwks_count(set), n == ML_JWK_KID_MAX);
        ml_jwks_unref(set);
    }
    ml_buf_done(&json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taken), cmocka_unit_test(left_out), cmocka_unit_test(rsa_sizes),
        cmocka_unit_test(mixed), cmocka_unit_test(no_sets),  cmocka_unit_test(bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
