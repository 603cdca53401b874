/* base64, percent encoding, URLs: what decodes has one spelling; what was encoded comes back. */
#include "fuzz.h"

#include "codec/text.h"

typedef bool coder(struct ml_str in, struct ml_buf *out);

static bool unescape(struct ml_str in, struct ml_buf *out)
{
    return ml_url_unescape(in, false, out);
}

static void check(struct ml_str in, coder *encode, coder *decode, bool one_spelling)
{
    struct ml_buf one, two;
    ml_buf_init(&one, 4 << 20);
    ml_buf_init(&two, 16 << 20);
    if (decode(in, &one)) {
        ML_REQUIRE(encode(ml_buf_str(&one), &two));
        ML_REQUIRE(!one_spelling || ml_str_eq(in, ml_buf_str(&two)));
    } else {
        ML_REQUIRE(one.n == 0);
    }
    ml_buf_clear(&one);
    ml_buf_clear(&two);
    ML_REQUIRE(encode(in, &one) && decode(ml_buf_str(&one), &two));
    ML_REQUIRE(ml_str_eq(in, ml_buf_str(&two)));
    ml_buf_done(&one);
    ml_buf_done(&two);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ml_str in = fuzz_str(data, size);
    struct ml_url u;
    check(in, ml_base64_encode, ml_base64_decode, true);
    check(in, ml_base64url_encode, ml_base64url_decode, true);
    check(in, ml_url_escape, unescape, false);
    if (ml_url_parse(in, &u, NULL) == 0) {
        ML_REQUIRE(u.host.n && u.port <= 65535 && !memchr(u.host.p, '@', u.host.n));
        ML_REQUIRE(ml_utf8_ok(in));
    }
    return 0;
}
