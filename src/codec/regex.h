/* Regular expressions by PCRE2 with bounded work: match limit 100,000, depth 250, heap 1 MiB, no JIT, no
 * \C, no callouts, no limit-changing prefixes. A regex is immutable and may be shared; matching is pure. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

struct ml_regex;

/* At most 4 KiB of pattern. NULL with err (offset and PCRE2's text). */
struct ml_regex *ml_regex_compile(struct ml_str pattern, struct ml_err *err);
void ml_regex_free(struct ml_regex *re);
enum { ML_REGEX_GROUPS = 32 };
/* Groups 0.. in ret (p == NULL: did not take part). Returns the number of groups, 0 for no match, or
 * ML_E_TOOBIG when a limit stopped it: never "no match" in that case. Subject: at most 64 KiB, UTF-8. */
int ml_regex_match(const struct ml_regex *re, struct ml_str subject, struct ml_str ret[ML_REGEX_GROUPS],
                   struct ml_err *err);
/* All matches replaced; $1, ${1}, ${name} and $$ in the replacement as RE2/Go expands them ($0 the whole match; a name is
 * the longest run of letters, digits and _; an unknown group is empty). Returns the number of replacements or a negative error. */
int ml_regex_replace(const struct ml_regex *re, struct ml_str subject, struct ml_str replacement, struct ml_buf *out,
                     struct ml_err *err);
