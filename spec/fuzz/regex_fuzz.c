/* Regular expressions: "pattern\nreplacement\nsubject". Nothing crashes, runs long or breaks UTF-8.
 */
#include "fuzz.h"

#include "codec/regex.h"
#include "codec/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ml_str replacement, subject, g[ML_REGEX_GROUPS];
    struct ml_str pattern = ml_str_cut(fuzz_str(data, size), '\n', &replacement);
    struct ml_err err;
    struct ml_buf out;
    replacement = ml_str_cut(replacement, '\n', &subject);
    struct ml_regex *re = ml_regex_compile(pattern, &err);
    if (!re)
        return 0;
    int r = ml_regex_match(re, subject, g, &err);
    ML_REQUIRE(r <= ML_REGEX_GROUPS);
    for (int i = 0; i < r; i++)
        if (g[i].p && subject.p)
            ML_REQUIRE(g[i].p >= subject.p && g[i].p + g[i].n <= subject.p + subject.n);
    ml_buf_init(&out, 1 << 20);
    int count = ml_regex_replace(re, subject, replacement, &out, &err);
    ML_REQUIRE(count >= 0 || out.n == 0);
    ML_REQUIRE(count < 0 || r < 0 || (count > 0) == (r > 0));
    if (count >= 0 && ml_utf8_ok(subject) && ml_utf8_ok(replacement))
        ML_REQUIRE(ml_utf8_ok(ml_buf_str(&out)));
    ml_buf_done(&out);
    ml_regex_free(re);
    return 0;
}
