/* JWK Sets: what is taken is bounded, has algorithms, and can be asked about any token. */
#include "fuzz.h"

#include "../c/crypto/jose_vectors.h"
#include "crypto/jose.h"

static void ask(const struct ml_jwks *set, struct ml_str token)
{
    struct ml_jws jws;
    struct ml_buf out;
    struct ml_err err;
    ml_buf_init(&out, ML_JWS_MAX);
    ML_REQUIRE(ml_jws_parse(token, &jws, &err) == 0);
    int e = ml_jws_verify(&jws, set, UINT32_MAX, &out, &err);
    ML_REQUIRE(e == 0 || e == ML_E_INVALID || e == ML_E_NOTFOUND);
    ml_buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ml_jwks *set;
    struct ml_err err;
    if (ml_jwks_new(&set, fuzz_str(data, size), &err) != 0) {
        ML_REQUIRE(err.text[0]);
        return 0;
    }
    ML_REQUIRE(ml_jwks_count(set) <= ML_JWKS_MAX);
    for (size_t i = 0; i < set->n; i++) {
        ML_REQUIRE(set->keys[i].key && set->keys[i].algorithms);
        ML_REQUIRE(EVP_PKEY_get_size(set->keys[i].key) > 0);
        ML_REQUIRE(set->keys[i].kid.n <= ML_JWK_KID_MAX);
    }
    ask(set, ML_STR(A2_JWS));
    ask(set, ML_STR(A3_JWS));
    ask(set, ML_STR(RFC8037_JWS));
    ml_jwks_unref(set);
    return 0;
}
