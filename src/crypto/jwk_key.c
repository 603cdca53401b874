/* From the members of a JWK (RFC 7518 section 6, RFC 8037 section 2) to a key of OpenSSL. What is
 * wrong with a key is found before OpenSSL is asked, but for a point that is not on its curve: any
 * other failure of OpenSSL is a lack of memory and says nothing about the key. No state; any
 * thread. */
#include "codec/text.h"
#include "crypto/jose.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/param_build.h>

enum {
    NUMBER_MAX = 1025, /* bytes of an RSA number: 8192 bits and a zero that some put in front */
    OCTETS_MAX = 66,   /* of a coordinate, of an Edwards key */
};

static const char no_numbers[] = "its numbers are no key of its kty and crv";

/* A member in base64url as bytes; 0 when it is not one or longer than out. */
static size_t octets(const struct ml_member *m, uint8_t *out, size_t max)
{
    char room[NUMBER_MAX + 4]; /* the decoder wants to have some left */
    struct ml_buf b = {.p = room, .cap = sizeof room, .max = sizeof room}; /* never grows */
    if (!ml_member_is_text(m) || !ml_base64url_decode(m->text, &b) || b.n > max)
        return 0;
    memcpy(out, room, b.n);
    return b.n;
}

/* Short of memory, OpenSSL 3.0 may make a key that does not know its size. NULL: as was key. */
static EVP_PKEY *whole(EVP_PKEY *key)
{
    if (key && EVP_PKEY_get_size(key) > 0)
        return key;
    EVP_PKEY_free(key);
    return NULL;
}

/* NULL: OpenSSL failed. */
static EVP_PKEY *key_from(const char *type, OSSL_PARAM *params)
{
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *c = params ? EVP_PKEY_CTX_new_from_name(NULL, type, NULL) : NULL;
    if (!c || EVP_PKEY_fromdata_init(c) != 1 ||
        EVP_PKEY_fromdata(c, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
        key = NULL;
    EVP_PKEY_CTX_free(c);
    return whole(key);
}

static EVP_PKEY *rsa_key(const BIGNUM *n, const BIGNUM *e)
{
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    OSSL_PARAM *params = NULL;
    if (build && OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n) == 1 &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, e) == 1)
        params = OSSL_PARAM_BLD_to_param(build);
    EVP_PKEY *key = key_from("RSA", params);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    return key;
}

/* RFC 7518 section 6.3.1. */
static int make_rsa(const struct ml_member *m, struct ml_jwk *ret, const char **why)
{
    uint8_t n_bytes[NUMBER_MAX], e_bytes[NUMBER_MAX];
    size_t n_size = octets(&m[ML_JWK_N], n_bytes, sizeof n_bytes);
    size_t e_size = octets(&m[ML_JWK_E], e_bytes, sizeof e_bytes);
    *why = no_numbers;
    if (!n_size || !e_size)
        return ML_E_INVALID;
    int r = ML_E_NOMEM;
    BIGNUM *n = BN_bin2bn(n_bytes, (int)n_size, NULL), *e = BN_bin2bn(e_bytes, (int)e_size, NULL);
    if (n && e) {
        *why = ml_jwa_rsa_problem(n, e);
        ret->key = *why ? NULL : rsa_key(n, e);
        r = *why ? ML_E_INVALID : ret->key ? 0 : ML_E_NOMEM;
    }
    BN_free(n);
    BN_free(e);
    ret->algorithms = ml_jwa_kind(ML_JWA_RSA) | ml_jwa_kind(ML_JWA_PSS);
    return r;
}

/* Whether OpenSSL failed for the point's sake. */
static bool is_off_curve(void)
{
    bool found = false, short_of_memory = false;
    for (unsigned long e; (e = ERR_get_error());) {
        short_of_memory |= ERR_GET_REASON(e) == ERR_R_MALLOC_FAILURE;
        found |= ERR_GET_LIB(e) == ERR_LIB_EC && (ERR_GET_REASON(e) == EC_R_POINT_IS_NOT_ON_CURVE ||
                                                  ERR_GET_REASON(e) == EC_R_INVALID_ENCODING);
    }
    return found && !short_of_memory;
}

/* RFC 7518 section 6.2.1: coordinates of exactly the field's length. OpenSSL takes no point that is
 * not on the curve, and these curves have no others of a small order. */
static int make_ec(const struct ml_member *m, struct ml_jwk *ret, const char **why)
{
    const struct ml_jwa *a = ml_jwa_of_curve(&m[ML_JWK_CRV]);
    uint8_t point[1 + 2 * OCTETS_MAX] = {4}; /* uncompressed: 04 x y */
    *why = no_numbers;
    if (!a || octets(&m[ML_JWK_X], point + 1, a->half) != a->half ||
        octets(&m[ML_JWK_Y], point + 1 + a->half, a->half) != a->half)
        return ML_E_INVALID;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)a->group, 0),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point, 1 + 2 * a->half),
        OSSL_PARAM_construct_end(),
    };
    ret->key = key_from("EC", params);
    ret->algorithms = ml_jwa_bit(a);
    if (!ret->key)
        return is_off_curve() ? ML_E_INVALID : ML_E_NOMEM;
    return 0;
}

/* RFC 8037 section 2; X25519 and X448 sign nothing. */
static int make_okp(const struct ml_member *m, struct ml_jwk *ret, const char **why)
{
    static const struct {
        const char *name;
        size_t size;
    } curves[] = {{"Ed25519", 32}, {"Ed448", 57}};
    uint8_t x[OCTETS_MAX];
    *why = no_numbers;
    for (size_t i = 0; i < 2; i++) {
        if (!ml_member_is(&m[ML_JWK_CRV], curves[i].name))
            continue;
        size_t n = octets(&m[ML_JWK_X], x, sizeof x);
        if (n != curves[i].size)
            return ML_E_INVALID;
        ret->key = whole(EVP_PKEY_new_raw_public_key_ex(NULL, curves[i].name, NULL, x, n));
        ret->algorithms = ml_jwa_kind(ML_JWA_EDDSA);
        return ret->key ? 0 : ML_E_NOMEM;
    }
    return ML_E_INVALID;
}

/* NULL: OpenSSL failed. */
static EVP_PKEY_CTX *begin(EVP_PKEY *key, const struct ml_jwa *a)
{
    OSSL_PARAM digest =
        OSSL_PARAM_construct_utf8_string(OSSL_SIGNATURE_PARAM_DIGEST, (char *)a->digest, 0);
    OSSL_PARAM plain[] = {digest, OSSL_PARAM_construct_end()};
    OSSL_PARAM pss[] = {
        digest,
        OSSL_PARAM_construct_utf8_string(OSSL_SIGNATURE_PARAM_PAD_MODE,
                                         (char *)OSSL_PKEY_RSA_PAD_MODE_PSS, 0),
        OSSL_PARAM_construct_utf8_string(OSSL_SIGNATURE_PARAM_PSS_SALTLEN,
                                         (char *)OSSL_PKEY_RSA_PSS_SALT_LEN_DIGEST, 0),
        OSSL_PARAM_construct_end(),
    };
    EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    if (c && EVP_PKEY_verify_init_ex(c, a->kind == ML_JWA_PSS ? pss : plain) == 1)
        return c;
    EVP_PKEY_CTX_free(c);
    return NULL;
}

bool ml_jwk_begin(struct ml_jwk *key)
{
    for (size_t i = 0; i < ML_JWA_COUNT; i++) {
        const struct ml_jwa *a = &ml_jwa_table[i];
        if (!a->digest || !(key->algorithms & ml_jwa_bit(a)))
            continue;
        key->begun[i] = begin(key->key, a);
        if (!key->begun[i])
            return false;
    }
    return true;
}

int ml_jwk_make(const struct ml_member *m, struct ml_jwk *ret, const char **why)
{
    int r = ML_E_INVALID;
    *why = no_numbers;
    if (ml_member_is(&m[ML_JWK_KTY], "RSA"))
        r = make_rsa(m, ret, why);
    else if (ml_member_is(&m[ML_JWK_KTY], "EC"))
        r = make_ec(m, ret, why);
    else if (ml_member_is(&m[ML_JWK_KTY], "OKP"))
        r = make_okp(m, ret, why);
    if (r == 0)
        *why = NULL;
    return r;
}
