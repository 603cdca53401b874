/* JWS: the RFCs' vectors, every algorithm both ways, which key is taken, signatures that are bad.
 */
#include "c/crypto/jws_check.h"

static void vectors(void **state)
{
    static const struct {
        const char *key, *token, *alg, *text;
    } cases[] = {
        {A2_KEY, A2_JWS, "RS256", JOE_TEXT},
        {A3_KEY, A3_JWS, "ES256", JOE_TEXT},
        {A4_KEY, A4_JWS, "ES512", "Payload"},
        {COOKBOOK_RSA_KEY, COOKBOOK_RS256_JWS, "RS256", COOKBOOK_TEXT},
        {COOKBOOK_RSA_KEY, COOKBOOK_PS384_JWS, "PS384", COOKBOOK_TEXT},
        {COOKBOOK_EC_KEY, COOKBOOK_ES512_JWS, "ES512", COOKBOOK_TEXT},
        {RFC8037_KEY, RFC8037_JWS, "EdDSA", "Example of Ed25519 signing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char json[2048];
        struct ml_buf out;
        struct ml_err err;
        ml_buf_init(&out, ML_JWS_MAX);
        snprintf(json, sizeof json, "{\"keys\":[{%s}]}", cases[i].key);
        struct ml_jwks *set = set_of(json);
        uint32_t bit = ml_jws_algorithm(ml_str_z(cases[i].alg));
        if (verify(ml_str_z(cases[i].token), set, bit, &out, &err) != 0)
            fail_msg("vector %zu: %s", i, err.text);
        assert_true(ml_str_eq(ml_buf_str(&out), ml_str_z(cases[i].text)));
        assert_int_equal(outcome(cases[i].token, set, ALL & ~bit, &err), ML_E_INVALID);
        ml_jwks_unref(set);
        ml_buf_done(&out);
    }
}

/* Every algorithm signs and verifies; no other one of the table takes the token for its own. */
static void both_ways(void **state)
{
    static const struct {
        const char *pem, *alg, *chosen;
    } cases[] = {
        {RSA_PEM, "", "RS256"},      {RSA_PEM, "RS384", "RS384"},   {RSA_PEM, "RS512", "RS512"},
        {RSA_PEM, "PS256", "PS256"}, {RSA_PEM, "PS384", "PS384"},   {RSA_PEM, "PS512", "PS512"},
        {P256_PEM, "", "ES256"},     {P384_PEM, "", "ES384"},       {P521_PEM, "", "ES512"},
        {ED25519_PEM, "", "EdDSA"},  {ED448_PEM, "EdDSA", "EdDSA"},
    };
    struct ml_jwks *set = SET(KEY(RSA_JWK) "," KEY(P256_JWK) "," KEY(P384_JWK) "," KEY(
        P521_JWK) "," KEY(ED25519_JWK) "," KEY(ED448_JWK));
    assert_int_equal(ml_jwks_count(set), 6);
    assert_string_equal(ml_jwks_complaint(set), "");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ml_buf token, out;
        struct ml_err err;
        struct ml_jws jws;
        struct ml_jws_sign what = {.pem = ml_str_z(cases[i].pem),
                                   .alg = ml_str_z(cases[i].alg),
                                   .typ = ML_STR("JWT"),
                                   .payload = ML_STR("{\"sub\":\"x\"}")};
        ml_buf_init(&token, ML_JWS_MAX);
        ml_buf_init(&out, ML_JWS_MAX);
        if (ml_jws_sign(&what, &token, &err) != 0)
            fail_msg("case %zu: %s", i, err.text);
        assert_int_equal(ml_jws_parse(ml_buf_str(&token), &jws, &err), 0);
        assert_string_equal(ml_jws_algorithm_name(jws.algorithm), cases[i].chosen);
        assert_true(!jws.has_kid && jws.has_typ && ml_str_eq(jws.typ, ML_STR("JWT")));
        uint32_t bit = ml_jws_algorithm(ml_str_z(cases[i].chosen));
        if (ml_jws_verify(&jws, set, bit, &out, &err) != 0)
            fail_msg("case %zu: %s", i, err.text);
        assert_true(ml_str_eq(ml_buf_str(&out), what.payload));
        for (int other = 0; other < 10; other++) {
            jws.algorithm = UINT32_C(1) << other; /* as if the header had said so */
            if (jws.algorithm != bit)
                assert_int_equal(ml_jws_verify(&jws, set, ALL, &out, &err), ML_E_NOTFOUND);
        }
        ml_buf_done(&token);
        ml_buf_done(&out);
    }
    ml_jwks_unref(set);
}

/* S-094, S-116, S-233. */
static void kid_selects(void **state)
{
    struct ml_err err;
    struct ml_buf token;
    ml_buf_init(&token, ML_JWS_MAX);
    struct ml_jwks *set = SET(NAMED("a", A3_KEY) "," NAMED("b", P256_JWK) "," NAMED(
        "twice", RSA_JWK) "," NAMED("twice", A3_KEY) "," NAMED("twice", P256_JWK));
    sign_for(&token, P256_PEM, "b");
    assert_int_equal(outcome(token.p, set, ALL, &err), 0);
    sign_for(&token, P256_PEM, "twice");
    assert_int_equal(outcome(token.p, set, ALL, &err), 0);
    sign_for(&token, P256_PEM, "");
    assert_int_equal(outcome(token.p, set, ALL, &err), 0);
    sign_for(&token, P256_PEM, "a"); /* the right key is there, under another name */
    refused(token.p, set, ML_E_INVALID, "bad signature");
    sign_for(&token, RSA_PEM, "a");
    refused(token.p, set, ML_E_INVALID, "not one for its alg");
    static const char *const unknown[] = {"c", "B", "../../../dev/null", "' OR 1=1", "|id"};
    for (size_t i = 0; i < 5; i++) {
        sign_for(&token, P256_PEM, unknown[i]);
        refused(token.p, set, ML_E_NOTFOUND, "key is not known");
    }
    sign_for(&token, ED25519_PEM, "");
    refused(token.p, set, ML_E_NOTFOUND, "key is not known");
    ml_jwks_unref(set);
    set = SET(KEY(P256_JWK)); /* a key without a name has none */
    sign_for(&token, P256_PEM, "b");
    refused(token.p, set, ML_E_NOTFOUND, "key is not known");
    ml_jwks_unref(set);
    set = SET("");
    refused(token.p, set, ML_E_NOTFOUND, "key is not known");
    ml_jwks_unref(set);
    ml_buf_done(&token);
}

/* Without a kid five keys are tried, and no more. */
static void tries(void **state)
{
    struct ml_err err;
    struct ml_buf token;
    ml_buf_init(&token, ML_JWS_MAX);
#define A3 KEY(A3_KEY) ","
    struct ml_jwks *fifth = SET(A3 KEY(RSA_JWK) "," A3 A3 A3 KEY(P256_JWK)),
                   *sixth = SET(A3 A3 A3 A3 A3 KEY(P256_JWK));
    sign_for(&token, P256_PEM, "");
    assert_int_equal(outcome(token.p, fifth, ALL, &err), 0);
    refused(token.p, sixth, ML_E_NOTFOUND, "fits no key");
    ml_jwks_unref(fifth);
    ml_jwks_unref(sixth);
    ml_buf_done(&token);
}

/* A key that is bound by its own alg serves no other. */
static void bound_keys(void **state)
{
    struct ml_err err;
    struct ml_buf token;
    ml_buf_init(&token, ML_JWS_MAX);
    struct ml_jwks *pss = SET("{\"kid\":\"k\",\"alg\":\"PS256\"," RSA_JWK "}"),
                   *rs = SET("{\"kid\":\"k\",\"alg\":\"RS256\"," RSA_JWK "}");
    sign_for(&token, RSA_PEM, "k");
    refused(token.p, pss, ML_E_INVALID, "not one for its alg");
    assert_int_equal(outcome(token.p, rs, ALL, &err), 0);
    assert_int_equal(outcome(token.p, rs, ml_jws_algorithm(ML_STR("PS256")), &err), ML_E_INVALID);
    assert_string_equal(err.text, "the token's alg is not one of those accepted");
    assert_int_equal(outcome(token.p, rs, 0, &err), ML_E_INVALID);
    ml_jwks_unref(pss);
    ml_jwks_unref(rs);
    ml_buf_done(&token);
}

/* S-095: r and s of 0, n, n + 1; DER; one byte less or more. */
static void ecdsa_edges(void **state)
{
    static const char order[] = "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551";
    struct ml_jwks *set = SET(KEY(A3_KEY));
    uint8_t n[32], values[5][32] = {{0}}, raw[80];
    for (size_t i = 0; i < 32; i++)
        n[i] = (uint8_t)ml_url_hex(order + 2 * i, 2);
    memcpy(values[1], n, 32);
    memcpy(values[2], n, 32);
    values[2][31]++;
    memset(values[3], 0xff, 32);
    values[4][31] = 1;
    struct ml_buf token;
    ml_buf_init(&token, ML_JWS_MAX);
    for (size_t r = 0; r < 5; r++)
        for (size_t s = 0; s < 5; s++) {
            memcpy(raw, values[r], 32);
            memcpy(raw + 32, values[s], 32);
            ml_buf_clear(&token);
            ml_buf_printf(&token, "%s.", A3_INPUT);
            ml_base64url_encode(ml_str((char *)raw, 64), &token);
            ml_buf_add(&token, "", 1);
            refused(token.p, set, ML_E_NOTFOUND, "fits no key");
        }
    static const char sig[] =
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    struct ml_buf good;
    ml_buf_init(&good, 256);
    assert_true(ml_base64url_decode(ml_str_z(sig), &good));
    assert_int_equal(good.n, 64);
    memcpy(raw, "\x30\x45\x02\x20", 4); /* DER: r is positive, s needs a zero in front */
    memcpy(raw + 4, good.p, 32);
    memcpy(raw + 36, "\x02\x21\x00", 3);
    memcpy(raw + 39, good.p + 32, 32);
    uint8_t *const forms_of[] = {raw, (uint8_t *)good.p, (uint8_t *)good.p};
    const size_t lengths[] = {71, 63, 65};
    ml_buf_add(&good, "\0", 1);
    for (size_t i = 0; i < 3; i++) {
        ml_buf_clear(&token);
        ml_buf_printf(&token, "%s.", A3_INPUT);
        ml_base64url_encode(ml_str((char *)forms_of[i], lengths[i]), &token);
        ml_buf_add(&token, "", 1);
        refused(token.p, set, ML_E_NOTFOUND, "fits no key");
    }
    ml_buf_done(&good);
    ml_buf_done(&token);
    ml_jwks_unref(set);
}

/* RFC 7518 section 3.4: r and s have the curve's length. Of P-521 each begins with a zero byte
 * often enough: without it the numbers are the same, and the token is another one. */
static void short_halves(void **state)
{
    struct ml_jwks *set = SET(KEY(P521_JWK));
    struct ml_buf token, raw;
    struct ml_err err;
    ml_buf_init(&token, ML_JWS_MAX);
    ml_buf_init(&raw, 256);
    size_t dot;
    do {
        sign_for(&token, P521_PEM, "");
        dot = (size_t)(strrchr(token.p, '.') - token.p);
        ml_buf_clear(&raw);
        assert_true(ml_base64url_decode(ml_str_z(token.p + dot + 1), &raw));
        assert_int_equal(raw.n, 132);
    } while (raw.p[0] || raw.p[66]);
    assert_int_equal(outcome(token.p, set, ALL, &err), 0);
    memmove(raw.p, raw.p + 1, 65);
    memmove(raw.p + 65, raw.p + 67, 65);
    token.n = dot + 1;
    ml_base64url_encode(ml_str(raw.p, 130), &token);
    ml_buf_add(&token, "", 1);
    refused(token.p, set, ML_E_NOTFOUND, "fits no key");
    ml_buf_done(&token);
    ml_buf_done(&raw);
    ml_jwks_unref(set);
}

/* RFC 7518 section 3.5: the salt is as long as the hash. */
static void pss_salts(void **state)
{
    static const int salts[] = {0, 20, 31, 32, 33, 222};
    struct ml_jwks *set = SET(KEY(RSA_JWK));
    struct ml_buf token;
    struct ml_err err;
    ml_buf_init(&token, ML_JWS_MAX);
    for (size_t i = 0; i < sizeof salts / sizeof salts[0]; i++) {
        sign_with(&token, RSA_PEM, salts[i], "{\"alg\":\"PS256\"}", "{}");
        assert_int_equal(outcome(token.p, set, ALL, &err), salts[i] == 32 ? 0 : ML_E_NOTFOUND);
    }
    ml_buf_done(&token);
    ml_jwks_unref(set);
}

/* Every single bit of a valid token of each kind; where the change leaves the same bytes behind it
 * would be another spelling, and there is none. */
static void no_bit_changes(void **state)
{
    static const char *const pems[] = {RSA_PEM, P256_PEM, P521_PEM, ED25519_PEM, ED448_PEM};
    struct ml_jwks *set = SET(NAMED("k", RSA_JWK) "," NAMED("k", P256_JWK) "," NAMED(
        "k", P521_JWK) "," NAMED("k", ED25519_JWK) "," NAMED("k", ED448_JWK));
    struct ml_buf token, out;
    ml_buf_init(&token, ML_JWS_MAX);
    ml_buf_init(&out, ML_JWS_MAX);
    for (size_t i = 0; i < 5; i++) {
        struct ml_err err;
        sign_for(&token, pems[i], "k");
        token.n--;
        assert_int_equal(verify(ml_buf_str(&token), set, ALL, &out, &err), 0);
        ml_buf_clear(&out);
        for (size_t bit = 0; bit < 8 * token.n; bit++) {
            token.p[bit / 8] ^= (char)(1 << bit % 8);
            if (verify(ml_buf_str(&token), set, ALL, &out, &err) == 0)
                fail_msg("kind %zu, bit %zu", i, bit);
            assert_int_equal(out.n, 0);
            assert_int_equal(ERR_peek_error(), 0); /* nobody else on this thread takes it for his */
            token.p[bit / 8] ^= (char)(1 << bit % 8);
        }
    }
    ml_buf_done(&token);
    ml_buf_done(&out);
    ml_jwks_unref(set);
}

static void signing_keys(void **state)
{
    static const struct {
        const char *pem, *alg, *why;
    } cases[] = {
        {"", "", "no private key in PEM form"},
        {"hunter2", "", "no private key in PEM form"},
        {PUBLIC_PEM, "", "no private key in PEM form"},
        {ENCRYPTED_PEM, "", "no private key in PEM form"},
        {WEAK_PEM, "", "less than 2048 bits"},
        {P256_PEM, "RS256", "not one for this alg"},
        {P256_PEM, "ES384", "not one for this alg"},
        {RSA_PEM, "HS256", "not one for this alg"},
        {RSA_PEM, "none", "not one for this alg"},
    };
    struct ml_buf token;
    struct ml_err err;
    ml_buf_init(&token, ML_JWS_MAX);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ml_jws_sign what = {
            .pem = ml_str_z(cases[i].pem), .alg = ml_str_z(cases[i].alg), .payload = ML_STR("{}")};
        assert_int_equal(ml_jws_sign(&what, &token, &err), ML_E_INVALID);
        if (!strstr(err.text, cases[i].why))
            fail_msg("case %zu: %s", i, err.text);
        assert_int_equal(token.n, 0);
        assert_null(strstr(err.text, "hunter2"));
    }
    sign_for(&token, SEC1_PEM, "a\"b");
    struct ml_jws jws;
    token.n--;
    assert_int_equal(ml_jws_parse(ml_buf_str(&token), &jws, &err), 0);
    assert_true(jws.has_kid && ml_str_eq(jws.kid, ML_STR("a\"b")));
    ml_buf_done(&token);
}

/* Each of more keys than a thread keeps signs for itself, whatever was signed before it. */
static void keys_in_turns(void **state)
{
    static const char *const pems[] = {RSA_PEM,  P256_PEM,    P384_PEM,
                                       P521_PEM, ED25519_PEM, ED448_PEM};
    struct ml_jwks *set =
        SET(NAMED("0", RSA_JWK) "," NAMED("1", P256_JWK) "," NAMED("2", P384_JWK) "," NAMED(
            "3", P521_JWK) "," NAMED("4", ED25519_JWK) "," NAMED("5", ED448_JWK));
    struct ml_buf token;
    struct ml_err err;
    ml_buf_init(&token, ML_JWS_MAX);
    for (size_t i = 0; i < 36; i++) {
        size_t key = i % 2 ? i % 6 : i / 6;
        char kid[] = {(char)('0' + key), 0};
        sign_for(&token, pems[key], kid);
        assert_int_equal(outcome(token.p, set, ALL, &err), 0);
    }
    ml_buf_done(&token);
    ml_jwks_unref(set);
}

/* Good and forged ones in turns: what a thread is told must not be another one's result. */
static void *verify_often(void *arg)
{
    struct ml_err err;
    char forged[2][sizeof A2_JWS + sizeof A3_JWS] = {A2_JWS, A3_JWS};
    for (size_t i = 0; i < 2; i++) {
        char *payload = strchr(forged[i], '.') + 2;
        *payload = *payload == 'A' ? 'B' : 'A';
    }
    for (int i = 0; i < 300; i++)
        if (outcome(A3_JWS, arg, ALL, &err) != 0 || outcome(A2_JWS, arg, ALL, &err) != 0 ||
            outcome(forged[i % 2], arg, ALL, &err) != ML_E_NOTFOUND)
            return NULL;
    ml_jwks_unref(arg);
    return &verify_often;
}

static void threads(void **state)
{
    struct ml_jwks *set = SET(KEY(A3_KEY) "," KEY(A2_KEY));
    pthread_t t[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, verify_often, ml_jwks_ref(set)), 0);
    ml_jwks_unref(set);
    for (int i = 0; i < 4; i++) {
        void *ok;
        pthread_join(t[i], &ok);
        assert_non_null(ok);
    }
}

/* ML_TIMES=1 prints what a token costs; compare with `openssl speed rsa2048 ecdsap256`. */
static void cost(void **state)
{
    static const char *const pems[] = {RSA_PEM, P256_PEM, ED25519_PEM};
    struct ml_jwks *set =
        SET(NAMED("k", RSA_JWK) "," NAMED("k", P256_JWK) "," NAMED("k", ED25519_JWK));
    struct ml_buf token;
    ml_buf_init(&token, ML_JWS_MAX);
    for (size_t i = 0; i < 3; i++) {
        enum { ROUNDS = 1000 };
        struct ml_err err;
        sign_for(&token, pems[i], "k");
        uint64_t from = ml_thread_cpu_ns();
        for (int round = 0; round < ROUNDS; round++)
            assert_int_equal(outcome(token.p, set, ALL, &err), 0);
        int ns = (int)((ml_thread_cpu_ns() - from) / ROUNDS);
        if (getenv("ML_TIMES"))
            print_message("%.20s...: verify %d ns\n", token.p, ns);
        assert_true(ns < 10000000);
    }
    ml_buf_done(&token);
    ml_jwks_unref(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors),        cmocka_unit_test(both_ways),
        cmocka_unit_test(kid_selects),    cmocka_unit_test(tries),
        cmocka_unit_test(bound_keys),     cmocka_unit_test(ecdsa_edges),
        cmocka_unit_test(short_halves),   cmocka_unit_test(pss_salts),
        cmocka_unit_test(no_bit_changes), cmocka_unit_test(signing_keys),
        cmocka_unit_test(threads),        cmocka_unit_test(keys_in_turns),
        cmocka_unit_test(cost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
