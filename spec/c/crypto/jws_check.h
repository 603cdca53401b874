/* What the tests of JWS share: sets of keys, tokens, and what becomes of them. */
#pragma once

#include "base/clock.h"
#include "c/crypto/jose_keys.h"
#include "c/crypto/jose_vectors.h"
#include "codec/text.h"
#include "crypto/jws.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define UNUSED __attribute__((unused))

enum { ALL = (1 << 10) - 1 };

UNUSED static struct ml_jwks *set_of(const char *json)
{
    struct ml_jwks *set = NULL;
    struct ml_err err;
    if (ml_jwks_new(&set, ml_str_z(json), &err) != 0)
        fail_msg("%s", err.text);
    return set;
}
#define SET(...) set_of("{\"keys\":[" __VA_ARGS__ "]}")
#define KEY(members) "{" members "}"
#define NAMED(kid, members) "{\"kid\":\"" kid "\"," members "}"

/* The outcome of parsing and verifying; err has why. */
UNUSED static int verify(struct ml_str token, const struct ml_jwks *set, uint32_t algorithms,
                         struct ml_buf *out, struct ml_err *err)
{
    struct ml_jws jws;
    err->text[0] = 0;
    int e = ml_jws_parse(token, &jws, err);
    return e ? e : ml_jws_verify(&jws, set, algorithms, out, err);
}

UNUSED static int outcome(const char *token, const struct ml_jwks *set, uint32_t algorithms,
                          struct ml_err *err)
{
    struct ml_buf out;
    ml_buf_init(&out, ML_JWS_MAX);
    int e = verify(ml_str_z(token), set, algorithms, &out, err);
    assert_true(e == 0 || out.n == 0);
    ml_buf_done(&out);
    return e;
}

UNUSED static void refused(const char *token, const struct ml_jwks *set, int code, const char *why)
{
    struct ml_err err;
    int e = outcome(token, set, ALL, &err);
    if (e != code || !strstr(err.text, why))
        fail_msg("%s: %d '%s', wanted %d '%s'", token, e, err.text, code, why);
}

/* Signs whatever the header says. pss_salt: bytes of it; -1: not PSS. */
UNUSED static void sign_with(struct ml_buf *out, const char *pem, int pss_salt, const char *header,
                             const char *payload)
{
    uint8_t signature[512];
    size_t n = sizeof signature;
    BIO *bio = BIO_new_mem_buf(pem, -1);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    EVP_PKEY_CTX *pkey = NULL;
    ml_buf_clear(out);
    ml_base64url_encode(ml_str_z(header), out);
    ml_buf_add(out, ".", 1);
    ml_base64url_encode(ml_str_z(payload), out);
    assert_int_equal(
        EVP_DigestSignInit_ex(c, &pkey, pss_salt < 0 ? NULL : "SHA256", NULL, NULL, key, NULL), 1);
    if (pss_salt >= 0)
        assert_true(EVP_PKEY_CTX_set_rsa_padding(pkey, RSA_PKCS1_PSS_PADDING) == 1 &&
                    EVP_PKEY_CTX_set_rsa_pss_saltlen(pkey, pss_salt) == 1);
    assert_int_equal(EVP_DigestSign(c, signature, &n, (uint8_t *)out->p, out->n), 1);
    ml_buf_add(out, ".", 1);
    ml_base64url_encode(ml_str((char *)signature, n), out);
    ml_buf_add(out, "", 1);
    EVP_MD_CTX_free(c);
    EVP_PKEY_free(key);
    BIO_free(bio);
}

UNUSED static void sign_any(struct ml_buf *out, const char *header, const char *payload)
{
    sign_with(out, ED25519_PEM, -1, header, payload);
}

UNUSED static void sign_for(struct ml_buf *out, const char *pem, const char *kid)
{
    struct ml_err err;
    struct ml_jws_sign what = {.pem = ml_str_z(pem), .kid = ml_str_z(kid), .payload = ML_STR("{}")};
    ml_buf_clear(out);
    if (ml_jws_sign(&what, out, &err) != 0)
        fail_msg("%s", err.text);
    ml_buf_add(out, "", 1);
}
