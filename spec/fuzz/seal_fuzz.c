/* Sealing: no bytes open that were not sealed here; what was sealed comes back; lists of keys. */
#include "fuzz.h"

#include "crypto/seal.h"

static void take_list(struct ml_str list)
{
    struct ml_seal_keys *k = NULL;
    struct ml_err err = {.text = ""};
    int e = ml_seal_keys_new(&k, list, &err);
    ML_REQUIRE((e == 0) == (k != NULL) && (e == 0 || err.text[0]));
    ml_seal_keys_free(k);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct ml_seal_keys *k;
    struct ml_str in = fuzz_str(data, size), p = ML_STR("p"), b = ML_STR("b");
    struct ml_buf sealed, out;
    ml_buf_init(&sealed, 4 << 20);
    ml_buf_init(&out, 4 << 20);
    if (!k)
        ML_REQUIRE(ml_seal_keys_new(&k, ML_STR("0123456789abcdefghijklmnopqrstuv"), NULL) == 0);
    ML_REQUIRE(ml_unseal(k, p, b, 1, in, &out) == ML_UNSEAL_REFUSED && out.n == 0);
    if (size <= ML_SEAL_PLAIN_MAX) {
        ML_REQUIRE(ml_seal(k, p, b, 0, in, &sealed));
        ML_REQUIRE(ml_unseal(k, p, b, 1, ml_buf_str(&sealed), &out) == ML_UNSEALED);
        ML_REQUIRE(ml_str_eq(in, ml_buf_str(&out)));
    }
    take_list(in);
    ml_buf_done(&sealed);
    ml_buf_done(&out);
    return 0;
}
