/* Header names and values, bearer tokens, cookies. */
#include "fuzz.h"

#include "codec/header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ml_str in = fuzz_str(data, size), rest, first = ml_str_cut(in, '\n', &rest);
    size_t count;
    if (ml_header_value_ok(in))
        for (size_t i = 0; i < size; i++)
            ML_REQUIRE(data[i] >= 0x20 && data[i] != 0x7f);
    if (ml_header_name_ok(in)) {
        ML_REQUIRE(ml_header_value_ok(in));
        ML_REQUIRE(!ml_header_is_alias(in, in));
    }
    ML_REQUIRE(ml_header_is_alias(first, rest) == ml_header_is_alias(rest, first));
    struct ml_str token = ml_bearer(in);
    ML_REQUIRE(!token.p || (token.n && token.n + 7 <= in.n && ml_header_value_ok(token)));
    struct ml_str value = ml_cookie(rest, first, &count);
    ML_REQUIRE(!value.p == (count != 1));
    ML_REQUIRE(!value.p || value.n < rest.n);
    return 0;
}
