/* YAML: ends with an error and nothing written, or with JSON. */
#include "fuzz.h"

#include "codec/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ml_buf out;
    struct ml_err err = {.code = 0};
    ml_buf_init(&out, 4 << 20);
    int r = ml_yaml_to_json(fuzz_str(data, size), &out, &err);
    ML_REQUIRE(r == 0 ? out.n > 0 && !out.failed : out.n == 0 && err.code == r);
    ml_buf_done(&out);
    return 0;
}
