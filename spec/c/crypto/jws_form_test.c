/* JWS: headers and forms that are refused, whatever the signature. */
#include "c/crypto/jws_check.h"

/* S-090, S-097, S-102, S-106, S-108: by the header alone; the signature is good. */
static void headers(void **state)
{
    static const struct {
        const char *header, *why;
    } cases[] = {
        {"{\"alg\":\"none\"}", "not signed"},
        {"{\"alg\":\"None\"}", "not signed"},
        {"{\"alg\":\"nOnE\"}", "not signed"},
        {"{\"alg\":\"NONE\"}", "not signed"},
        {"{\"alg\":\"\"}", "alg is not known"},
        {"{}", "no alg"},
        {"{\"alg\":null}", "no alg"},
        {"{\"alg\":[\"EdDSA\"]}", "no alg"},
        {"{\"alg\":{\"alg\":\"EdDSA\"}}", "no alg"},
        {"{\"alg\":5}", "no alg"},
        {"{\"alg\":\"eddsa\"}", "alg is not known"},
        {"{\"alg\":\"EdDSA \"}", "alg is not known"},
        {"{\"alg\":\"HS256\"}", "alg is not known"},
        {"{\"alg\":\"HS384\"}", "alg is not known"},
        {"{\"alg\":\"HS512\"}", "alg is not known"},
        {"{\"alg\":\"dir\"}", "alg is not known"},
        {"{\"alg\":\"RSA-OAEP\"}", "alg is not known"},
        {"{\"alg\":\"PBES2-HS256+A128KW\",\"p2c\":2147483647}", "alg is not known"},
        {"{\"alg\":\"ES256K\"}", "alg is not known"},
        {"{\"alg\":\"EdDSA\",\"alg\":\"none\"}", "no strict JSON"},
        {"{\"alg\":\"EdDSA\",\"\\u0061lg\":\"none\"}", "no strict JSON"},
        {"{\"alg\":\"EdDSA\",\"enc\":\"A256GCM\"}", "has enc"},
        {"{\"alg\":\"EdDSA\",\"crit\":[]}", "has crit"},
        {"{\"alg\":\"EdDSA\",\"crit\":\"exp\"}", "has crit"},
        {"{\"alg\":\"EdDSA\",\"crit\":[\"exp\"],\"exp\":1}", "has crit"},
        {"{\"alg\":\"EdDSA\",\"crit\":null}", "has crit"},
        {"{\"alg\":\"EdDSA\",\"crit\":[\"b64\"],\"b64\":false}", "has crit"},
        {"{\"alg\":\"EdDSA\",\"b64\":false}", "has b64"},
        {"{\"alg\":\"EdDSA\",\"b64\":true}", "has b64"},
        {"{\"alg\":\"EdDSA\",\"zip\":\"DEF\"}", "has zip"},
        {"{\"alg\":\"EdDSA\",\"kid\":5}", "kid is no text"},
        {"{\"alg\":\"EdDSA\",\"kid\":null}", "kid is no text"},
        {"{\"alg\":\"EdDSA\",\"kid\":[\"a\"]}", "kid is no text"},
        {"{\"alg\":\"EdDSA\",\"kid\":\"a\\u0000\"}", "no strict JSON"},
        {"{\"alg\":\"EdDSA\",\"typ\":5}", "typ is no text"},
        {"{\"alg\":\"EdDSA\",\"typ\":{}}", "typ is no text"},
        {"[\"EdDSA\"]", "no strict JSON"},
        {"\"EdDSA\"", "no strict JSON"},
        {"null", "no strict JSON"},
        {"{\"alg\":\"EdDSA\"}x", "no strict JSON"},
        {"{\"alg\":\"EdDSA\",\"x\":\"\xff\"}", "no strict JSON"},
        {"{\"alg\":\"EdDSA\",}", "no strict JSON"},
        {"{'alg':'EdDSA'}", "no strict JSON"},
    };
    static const char *const good[] = {
        "{\"alg\":\"EdDSA\"}",
        " {\"alg\" : \"EdDSA\", \"typ\":\"at+jwt\", \"cty\":\"x\", \"other\":[{\"crit\":[1]}]}\r\n",
    };
    struct ml_jwks *set = SET(KEY(ED25519_JWK));
    struct ml_buf token;
    struct ml_err err;
    ml_buf_init(&token, ML_JWS_MAX);
    for (size_t i = 0; i < 2; i++) {
        sign_any(&token, good[i], "{}");
        assert_int_equal(outcome(token.p, set, ALL, &err), 0);
    }
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sign_any(&token, cases[i].header, "{}");
        refused(token.p, set, ML_E_INVALID, cases[i].why);
    }
    ml_buf_done(&token);
    ml_jwks_unref(set);
}

/* S-093: keys in the header are not looked at: with the right key the token is good, whatever they
 * are; with another one it is bad, though they fit. */
static void embedded_keys(void **state)
{
    static const char header[] =
        "{\"alg\":\"EdDSA\",\"jwk\":{" ED25519_JWK "},\"jku\":\"http://127.0.0.1:1/\","
        "\"x5u\":\"http://127.0.0.1:1/\",\"x5c\":[\"AA==\"],\"x5t\":5}";
    struct ml_jwks *own = SET(KEY(ED25519_JWK)), *other = SET(KEY(RFC8037_KEY));
    struct ml_buf token;
    struct ml_err err;
    ml_buf_init(&token, ML_JWS_MAX);
    sign_any(&token, header, "{}");
    assert_int_equal(outcome(token.p, own, ALL, &err), 0);
    refused(token.p, other, ML_E_NOTFOUND, "fits no key");
    ml_buf_done(&token);
    ml_jwks_unref(own);
    ml_jwks_unref(other);
}

/* S-098, S-101, S-109. */
static void forms(void **state)
{
    static const struct {
        const char *token, *why;
    } cases[] = {
        {"", "not three parts"},
        {".", "not three parts"},
        {"..", "empty part"},
        {"...", "not three parts"},
        {"....", "encrypted"},
        {"a.b.c.d.e", "encrypted"},
        {".....", "not three parts"},
        {"eyJhbGciOiJFUzI1NiJ9." JOE, "not three parts"},
        {"eyJhbGciOiJFUzI1NiJ9." JOE ".", "empty part"},
        {"eyJhbGciOiJFUzI1NiJ9..c2ln", "empty part"},
        {"." JOE ".c2ln", "empty part"},
        {"{\"payload\":\"e30\",\"protected\":\"eyJhbGciOiJFUzI1NiJ9\",\"signature\":\"c2ln\"}",
         "not three parts"},
        {A3_JWS "=", "signature is not base64url"},
        {A3_JWS " ", "signature is not base64url"},
        {A3_JWS "\n", "signature is not base64url"},
        {" " A3_JWS, "header is not base64url"},
        {A3_JWS "." A3_JWS, "not three parts"},
        {A3_INPUT "=."
                  "DtEh",
         "payload is not base64url"},
        {"eyJhbGciOiJFUzI1NiJ9=." JOE ".c2ln", "header is not base64url"},
        {"eyJhbGciOiJFUzI1NiJ9+." JOE ".c2ln", "header is not base64url"},
        {A3_INPUT ".c2l/", "signature is not base64url"},
        {A3_INPUT ".c2ln\xc3\xa9", "signature is not base64url"},
        {A3_INPUT ".DtEh", "fits no key"},              /* too short */
        {A3_INPUT ".Dt", "signature is not base64url"}, /* bits left over */
    };
    struct ml_jwks *set = SET(KEY(A3_KEY));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ml_err err;
        int e = outcome(cases[i].token, set, ALL, &err);
        if (e == 0 || !strstr(err.text, cases[i].why))
            fail_msg("%s: '%s', wanted '%s'", cases[i].token, err.text, cases[i].why);
    }
    ml_jwks_unref(set);
}

static void sizes(void **state)
{
    struct ml_jwks *set = SET(KEY(RSA_JWK));
    struct ml_buf token, payload;
    struct ml_err err;
    char kid[ML_JWK_KID_MAX + 2];
    ml_buf_init(&token, 1 << 20);
    ml_buf_init(&payload, 1 << 20);
    for (int i = 0; i < 200000; i++)
        ml_buf_add(&token, ".", 1);
    ml_buf_add(&token, "", 1);
    refused(token.p, set, ML_E_TOOBIG, "longer than 16384 bytes");
    ml_buf_add(&payload, "{", 1);
    while (payload.n < 11900)
        ml_buf_add(&payload, " ", 1);
    ml_buf_add(&payload, "}", 1);
    struct ml_jws_sign what = {.pem = ML_STR(RSA_PEM), .payload = ml_buf_str(&payload)};
    ml_buf_clear(&token);
    assert_int_equal(ml_jws_sign(&what, &token, &err), 0);
    assert_true(token.n > ML_JWS_MAX - 200);
    ml_buf_add(&token, "", 1);
    assert_int_equal(outcome(token.p, set, ALL, &err), 0);
    what.payload.n = 12300;
    payload.n = 0;
    for (int i = 0; i < 12300; i++)
        ml_buf_add(&payload, " ", 1);
    what.payload = ml_buf_str(&payload);
    ml_buf_clear(&token);
    assert_int_equal(ml_jws_sign(&what, &token, &err), ML_E_TOOBIG);
    assert_int_equal(token.n, 0);
    memset(kid, 'k', sizeof kid);
    what.payload = ML_STR("{}");
    what.kid = ml_str(kid, ML_JWK_KID_MAX + 1);
    ml_buf_clear(&token);
    assert_int_equal(ml_jws_sign(&what, &token, &err), 0);
    ml_buf_add(&token, "", 1);
    refused(token.p, set, ML_E_INVALID, "kid is no text of at most 255 bytes");
    what.kid.n--;
    ml_buf_clear(&token);
    assert_int_equal(ml_jws_sign(&what, &token, &err), 0);
    ml_buf_add(&token, "", 1);
    refused(token.p, set, ML_E_NOTFOUND, "key is not known");
    ml_buf_done(&token);
    ml_buf_done(&payload);
    ml_jwks_unref(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers),
        cmocka_unit_test(embedded_keys),
        cmocka_unit_test(forms),
        cmocka_unit_test(sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
