/* Lua patterns (reference manual 6.4.1) with bounded work. */
#pragma once

#include "base/str.h"

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

enum {
    ML_PATTERN_STEPS = 100000, /* of one call: about a millisecond */
    ML_PATTERN_BYTES = 256,
    ML_PATTERN_CAPTURES = 32,
};

struct ml_capture {
    const char *p;
    ptrdiff_t n; /* or ML_CAPTURE_OPEN, ML_CAPTURE_POSITION */
};
enum { ML_CAPTURE_OPEN = -1, ML_CAPTURE_POSITION = -2 };

/* One subject, one pattern; several matches share the budget. Lives on the C stack: owns nothing.
 */
struct ml_pattern {
    lua_State *L; /* for errors */
    const char *subject, *subject_end, *end;
    int steps; /* left */
    int captures;
    struct ml_capture capture[ML_PATTERN_CAPTURES];
};

/* Raises when either is too long. */
void ml_pattern_init(struct ml_pattern *m, lua_State *L, struct ml_str subject,
                     struct ml_str pattern);
/* Matches the pattern from p on at s. Returns where the match ends, or NULL. Raises on a malformed
 * pattern, as Lua does only when the match comes to that place, and when the steps are used up. */
const char *ml_pattern_match(struct ml_pattern *m, const char *s, const char *p)
    __attribute__((nonnull));
/* Pushes the captures of the match from s to e, the whole match when there are none and s is given;
 * returns their number. */
int ml_pattern_push(struct ml_pattern *m, const char *s, const char *e);
/* Pushes capture i, counted from 0; 0 is the whole match when there are none. */
void ml_pattern_push_one(struct ml_pattern *m, int i, const char *s, const char *e);
/* Whether text has no magic characters, so that it can be searched as it is. */
bool ml_pattern_is_plain(struct ml_str text);
