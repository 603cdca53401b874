/* JSON: what is accepted can be written, is accepted again, and is written the same again. */
#include "fuzz.h"

#include "codec/json.h"

static bool scalar(void *ctx, enum ml_json_kind kind, struct ml_str text, long long integer,
                   double real)
{
    static const char *const literals[] = {"null", "false", "true"};
    if (kind == ML_JSON_STRING)
        ml_json_text(ctx, text);
    else if (kind == ML_JSON_INTEGER)
        ml_json_integer(ctx, integer);
    else if (kind == ML_JSON_REAL)
        ml_json_real(ctx, real);
    else
        ml_json_literal(ctx, literals[kind]);
    return true;
}

static bool begin(void *ctx, enum ml_json_kind kind, size_t size)
{
    ml_json_begin(ctx, kind == ML_JSON_ARRAY ? '[' : '{');
    return true;
}

static bool key(void *ctx, struct ml_str name)
{
    ml_json_name(ctx, name);
    return true;
}

static bool end(void *ctx, enum ml_json_kind kind)
{
    ml_json_end(ctx, kind == ML_JSON_ARRAY ? ']' : '}');
    return true;
}

static int rewrite(struct ml_str in, struct ml_buf *out)
{
    static const struct ml_json_events events = {scalar, begin, key, end};
    struct ml_json_out o = {out, false};
    struct ml_err err;
    return ml_json_walk(in, &events, &o, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ml_buf one, two;
    ml_buf_init(&one, 16 << 20);
    ml_buf_init(&two, 16 << 20);
    if (rewrite(fuzz_str(data, size), &one) == 0 && one.n <= ML_JSON_BYTES) {
        ML_REQUIRE(!one.failed && rewrite(ml_buf_str(&one), &two) == 0);
        ML_REQUIRE(ml_str_eq(ml_buf_str(&one), ml_buf_str(&two)));
    }
    ml_buf_done(&one);
    ml_buf_done(&two);
    return 0;
}
