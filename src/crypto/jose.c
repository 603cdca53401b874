/* The algorithms of JOSE as one table, and what a key must be to serve one. No state; any thread.
 */
#include "crypto/jose.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>

enum { RSA_MIN_BITS = 2048, RSA_MAX_BITS = 8192, EXPONENT_MAX_BITS = 64 };

const struct ml_jwa ml_jwa_table[ML_JWA_COUNT] = {
    {"RS256", ML_JWA_RSA, "sha256", NULL, NULL, 0},
    {"RS384", ML_JWA_RSA, "sha384", NULL, NULL, 0},
    {"RS512", ML_JWA_RSA, "sha512", NULL, NULL, 0},
    {"PS256", ML_JWA_PSS, "sha256", NULL, NULL, 0},
    {"PS384", ML_JWA_PSS, "sha384", NULL, NULL, 0},
    {"PS512", ML_JWA_PSS, "sha512", NULL, NULL, 0},
    {"ES256", ML_JWA_ECDSA, "sha256", "P-256", "prime256v1", 32},
    {"ES384", ML_JWA_ECDSA, "sha384", "P-384", "secp384r1", 48},
    {"ES512", ML_JWA_ECDSA, "sha512", "P-521", "secp521r1", 66},
    {"EdDSA", ML_JWA_EDDSA, NULL, NULL, NULL, 0},
};

const struct ml_jwa *ml_jwa_find(struct ml_str name)
{
    for (size_t i = 0; i < ML_JWA_COUNT; i++)
        if (ml_str_eq(name, ml_str_z(ml_jwa_table[i].name)))
            return &ml_jwa_table[i];
    return NULL;
}

uint32_t ml_jws_algorithm(struct ml_str name)
{
    const struct ml_jwa *a = ml_jwa_find(name);
    return a ? ml_jwa_bit(a) : 0;
}

const char *ml_jws_algorithm_name(uint32_t bit)
{
    for (size_t i = 0; i < ML_JWA_COUNT; i++)
        if (bit == UINT32_C(1) << i)
            return ml_jwa_table[i].name;
    return "";
}

struct ml_member *ml_member_find(struct ml_member *list, size_t count, struct ml_str name)
{
    for (size_t i = 0; i < count; i++)
        if (ml_str_eq(name, ml_str_z(list[i].name))) {
            list[i].there = true;
            return &list[i];
        }
    return NULL;
}

bool ml_member_is_text(const struct ml_member *m)
{
    return m->there && m->kind == ML_JSON_STRING;
}

bool ml_member_is(const struct ml_member *m, const char *text)
{
    return ml_member_is_text(m) && ml_str_eq(m->text, ml_str_z(text));
}

const struct ml_jwa *ml_jwa_of_curve(const struct ml_member *m)
{
    for (size_t i = 0; i < ML_JWA_COUNT; i++)
        if (ml_jwa_table[i].curve && ml_member_is(m, ml_jwa_table[i].curve))
            return &ml_jwa_table[i];
    return NULL;
}

/* Whether the remainder of n by every small prime is a power of 65537: the pattern of keys that
 * Infineon's library made (ROCA, CVE-2017-15361), which can be factored. By chance one key in 2^27
 * has it. */
static bool has_known_factors(const BIGNUM *n)
{
    static const unsigned char primes[] = {
        3,  5,  7,  11, 13, 17,  19,  23,  29,  31,  37,  41,  43,  47,  53,  59,  61,  67,  71,
        73, 79, 83, 89, 97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167};
    for (size_t i = 0; i < sizeof primes; i++) {
        unsigned long p = primes[i], rest = BN_mod_word(n, p), power = 1;
        do
            power = power * (65537 % p) % p;
        while (power != rest && power != 1);
        if (power != rest)
            return false;
    }
    return true;
}

const char *ml_jwa_rsa_problem(const BIGNUM *n, const BIGNUM *e)
{
    if (BN_num_bits(n) < RSA_MIN_BITS)
        return "an RSA key of less than 2048 bits";
    if (BN_num_bits(n) > RSA_MAX_BITS)
        return "an RSA key of more than 8192 bits";
    if (!BN_is_odd(n))
        return "an RSA key whose modulus is even";
    if (!BN_is_odd(e) || BN_is_one(e) || BN_num_bits(e) > EXPONENT_MAX_BITS)
        return "an RSA key whose exponent is even, below 3 or longer than 64 bits";
    if (has_known_factors(n))
        return "an RSA key that can be factored (CVE-2017-15361)";
    return NULL;
}

uint32_t ml_jwa_kind(enum ml_jwa_kind kind)
{
    uint32_t mask = 0;
    for (size_t i = 0; i < ML_JWA_COUNT; i++)
        if (ml_jwa_table[i].kind == kind)
            mask |= UINT32_C(1) << i;
    return mask;
}

static uint32_t rsa_algorithms(const EVP_PKEY *key, const char **why)
{
    BIGNUM *n = NULL, *e = NULL;
    if (EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_N, &n) != 1 ||
        EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_E, &e) != 1)
        *why = "an RSA key without its numbers";
    else
        *why = ml_jwa_rsa_problem(n, e);
    BN_free(n);
    BN_free(e);
    return *why ? 0 : ml_jwa_kind(ML_JWA_RSA) | ml_jwa_kind(ML_JWA_PSS);
}

static uint32_t ec_algorithms(const EVP_PKEY *key, const char **why)
{
    char group[32] = "";
    EVP_PKEY_get_utf8_string_param(key, OSSL_PKEY_PARAM_GROUP_NAME, group, sizeof group, NULL);
    for (size_t i = 0; i < ML_JWA_COUNT; i++)
        if (ml_jwa_table[i].group && strcmp(group, ml_jwa_table[i].group) == 0)
            return UINT32_C(1) << i;
    *why = "an EC key on another curve than P-256, P-384, P-521";
    return 0;
}

uint32_t ml_jwa_of_key(const EVP_PKEY *key, const char **why)
{
    if (EVP_PKEY_is_a(key, "RSA"))
        return rsa_algorithms(key, why);
    if (EVP_PKEY_is_a(key, "EC"))
        return ec_algorithms(key, why);
    if (EVP_PKEY_is_a(key, "ED25519") || EVP_PKEY_is_a(key, "ED448"))
        return ml_jwa_kind(ML_JWA_EDDSA);
    *why = "neither RSA nor EC nor Ed25519 nor Ed448";
    return 0;
}
