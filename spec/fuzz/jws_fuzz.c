/* Compact JWS against the keys of the RFCs' examples: what verifies is one of those examples, byte
 * for byte. */
#include "fuzz.h"

#include "../c/crypto/jose_vectors.h"
#include "crypto/jws.h"

enum { ALL = (1 << 10) - 1 };

static const char *const good[] = {
    A2_JWS,     A3_JWS, A4_JWS, COOKBOOK_RS256_JWS, COOKBOOK_PS384_JWS, COOKBOOK_ES512_JWS,
    RFC8037_JWS};

static bool is_good(struct ml_str token)
{
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (ml_str_eq(token, ml_str_z(good[i])))
            return true;
    return false;
}

static const struct ml_jwks *keys(void)
{
    static struct ml_jwks *set;
    if (!set)
        ML_REQUIRE(ml_jwks_new(&set,
                               ML_STR("{\"keys\":[{" A2_KEY "},{" A3_KEY "},{" A4_KEY
                                      "},{" COOKBOOK_RSA_KEY "},{" COOKBOOK_EC_KEY "},{" RFC8037_KEY
                                      "}]}"),
                               NULL) == 0);
    return set;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ml_str token = fuzz_str(data, size);
    struct ml_jws jws;
    struct ml_buf out;
    struct ml_err err;
    ml_buf_init(&out, ML_JWS_MAX);
    int e = ml_jws_parse(token, &jws, &err);
    if (e == 0) {
        const struct ml_jws_parts *p = &jws.parts;
        ML_REQUIRE(p->header.n + p->payload.n + p->signature.n + 2 == token.n);
        ML_REQUIRE(jws.algorithm && !(jws.algorithm & (jws.algorithm - 1)));
        ML_REQUIRE(jws.kid.n <= ML_JWK_KID_MAX && jws.typ.n <= ML_JWS_TYP_MAX);
        e = ml_jws_verify(&jws, keys(), ALL, &out, &err);
        ML_REQUIRE(e == 0 || out.n == 0);
    }
    ML_REQUIRE((e == 0) == is_good(token));
    ml_buf_done(&out);
    return 0;
}
