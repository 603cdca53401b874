/* Regular expressions by PCRE2 with RE2's meaning where the two differ ('$' is the very end, \d and
 * \w are ASCII, '.' stops at a line feed only). Work is bounded: match limit 100,000, depth 250
 * (about as many turns of a repeated group), heap 1 MiB, 150,000 steps a call (under 5 ms); no JIT,
 * no \C, no limit-changing prefixes. A regex is immutable and may be shared; matching is pure. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

struct ml_regex;

/* At most 4 KiB of pattern and 31 groups. NULL with err (offset and PCRE2's text). */
struct ml_regex *ml_regex_compile(struct ml_str pattern, struct ml_err *err);
void ml_regex_free(struct ml_regex *re);
enum { ML_REGEX_GROUPS = 32 };
/* Groups 0.. in ret (p == NULL: did not take part). Returns the number of groups, 0 for no match,
 * or ML_E_TOOBIG when a limit stopped it: never "no match" in that case. Subject: at most 64 KiB,
 * UTF-8. */
int ml_regex_match(const struct ml_regex *re, struct ml_str subject,
                   struct ml_str ret[ML_REGEX_GROUPS], struct ml_err *err);
/* All matches replaced, as Go's ReplaceAllString does. $1, ${1}, ${name} and $$ in the replacement
 * as RE2/Go expands them ($0 the whole match; a name is the longest run of letters, digits and _;
 * an unknown group is empty). Appends to out; nothing on an error. Returns the number of
 * replacements or a negative error: ML_E_TOOBIG for a limit or a full out. */
int ml_regex_replace(const struct ml_regex *re, struct ml_str subject, struct ml_str replacement,
                     struct ml_buf *out, struct ml_err *err);
