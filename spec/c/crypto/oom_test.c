/* Every allocation of OpenSSL fails once: no crash, no leak (sanitizers look), and what is good is
 * never called bad, nor the other way round. One exception: OpenSSL 3.0's EdDSA does not tell a
 * lack of memory from a wrong signature. */
#include "c/crypto/jose_keys.h"
#include "c/crypto/jose_vectors.h"
#include "crypto/jws.h"
#include "crypto/seal.h"

#include <openssl/crypto.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static long left = -1; /* allocations until one fails; negative: none does */
static bool reached;
static long lost; /* the one of this turn */

static bool fails(void)
{
    if (left < 0)
        return false;
    reached |= left == 0;
    return left-- == 0;
}

static void *failing_malloc(size_t n, const char *file, int line)
{
    return fails() ? NULL : malloc(n);
}

static void *failing_realloc(void *p, size_t n, const char *file, int line)
{
    return fails() ? NULL : realloc(p, n);
}

static void plain_free(void *p, const char *file, int line)
{
    free(p);
}

enum { ALL = (1 << 10) - 1 };

enum quality { GOOD, BAD, GOOD_EDDSA };

static void verify(const char *json, const char *token, enum quality quality)
{
    struct ml_jwks *set = NULL;
    struct ml_jws jws;
    struct ml_err err;
    struct ml_buf out;
    ml_buf_init(&out, ML_JWS_MAX);
    int e = ml_jwks_new(&set, ml_str_z(json), &err);
    if (e == 0 && (e = ml_jws_parse(ml_str_z(token), &jws, &err)) == 0)
        e = ml_jws_verify(&jws, set, ALL, &out, &err);
    bool expected = e == ML_E_NOMEM || (e == 0 && quality != BAD) ||
                    (e == ML_E_INVALID && quality == BAD) ||
                    (e == ML_E_NOTFOUND && quality == GOOD_EDDSA);
    if (!expected)
        fail_msg("%.40s, allocation %ld: %d %s", token, lost, e, err.text);
    assert_true((e == 0) == (out.n > 0));
    ml_jwks_unref(set);
    ml_buf_done(&out);
}

#define SET(key) "{\"keys\":[{\"kid\":\"bilbo.baggins@hobbiton.example\"," key "}]}"
#define COOKBOOK(key) "{\"keys\":[{" key "}]}"

static void verify_rs256(void)
{
    verify(COOKBOOK(COOKBOOK_RSA_KEY), COOKBOOK_RS256_JWS, GOOD);
    verify(SET(RSA_JWK), COOKBOOK_RS256_JWS, BAD);
}

static void verify_ps384(void)
{
    verify(COOKBOOK(COOKBOOK_RSA_KEY), COOKBOOK_PS384_JWS, GOOD);
    verify(SET(RSA_JWK), COOKBOOK_PS384_JWS, BAD);
}

static void verify_es512(void)
{
    verify(COOKBOOK(COOKBOOK_EC_KEY), COOKBOOK_ES512_JWS, GOOD);
    verify(SET(P521_JWK), COOKBOOK_ES512_JWS, BAD);
}

static void verify_eddsa(void)
{
    verify("{\"keys\":[{" RFC8037_KEY "}]}", RFC8037_JWS, GOOD_EDDSA);
}

/* A text in front of the PEM, which nobody reads, makes it one that was not kept. */
static void sign_with(const char *pem)
{
    static unsigned turn;
    char text[4096];
    struct ml_buf out;
    struct ml_err err;
    snprintf(text, sizeof text, "%u\n%s", turn++, pem);
    struct ml_jws_sign what = {.pem = ml_str_z(text), .payload = ML_STR("{}")};
    ml_buf_init(&out, ML_JWS_MAX);
    int e = ml_jws_sign(&what, &out, &err);
    assert_true(e == 0 ? out.n > 0 : out.n == 0);
    ml_buf_done(&out);
}

static void sign(void)
{
    sign_with(RSA_PEM);
    sign_with(P256_PEM);
    sign_with(ED25519_PEM);
}

static void sign_again(void)
{
    struct ml_buf out;
    struct ml_err err;
    struct ml_jws_sign what = {.pem = ML_STR(P256_PEM), .payload = ML_STR("{}")};
    ml_buf_init(&out, ML_JWS_MAX);
    int e = ml_jws_sign(&what, &out, &err);
    assert_true(e == 0 ? out.n > 0 : out.n == 0);
    ml_buf_done(&out);
}

static void seal(void)
{
    struct ml_seal_keys *k = NULL;
    struct ml_buf sealed, out;
    struct ml_err err;
    ml_buf_init(&sealed, 4096);
    ml_buf_init(&out, 4096);
    if (ml_seal_keys_new(&k, ML_STR("0123456789abcdefghijklmnopqrstuv"), &err) == 0) {
        if (ml_seal(k, ML_STR("p"), ML_STR("b"), 0, ML_STR("text"), &sealed)) {
            enum ml_unsealed r =
                ml_unseal(k, ML_STR("p"), ML_STR("b"), 1, ml_buf_str(&sealed), &out);
            assert_true(r == ML_UNSEALED ? out.n == 4 : out.n == 0);
        } else {
            assert_int_equal(sealed.n, 0);
        }
    }
    ml_seal_keys_free(k);
    ml_buf_done(&sealed);
    ml_buf_done(&out);
}

static void sweep(void (*scenario)(void), long least)
{
    long n = 0;
    scenario();                      /* what OpenSSL fetches once is there before memory runs out */
    for (;; n += n < 200 ? 1 : 11) { /* reading a PEM takes thousands, most of them alike */
        reached = false;
        left = lost = n;
        scenario();
        left = -1;
        if (!reached)
            break;
    }
    assert_true(n >= least);
    scenario(); /* nothing that failed stays behind */
}

static void every_allocation(void **state)
{
    sweep(seal, 5);
    sweep(verify_rs256, 50);
    sweep(verify_ps384, 50);
    sweep(verify_es512, 50);
    sweep(verify_eddsa, 10);
    sweep(sign, 100);
    sweep(sign_again, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation)};
    if (CRYPTO_set_mem_functions(failing_malloc, failing_realloc, plain_free) != 1)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
