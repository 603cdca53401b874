/* A backtracking matcher for Lua patterns, written from the reference manual (6.4.1).
 *
 * Lua's own backtracks without limit inside one C call, where no hook and no budget reaches it:
 * ".-.-.-b" on 400 bytes takes 12 s. This one pays a step for each pattern item tried and each
 * character a repetition eats, more where the work is more, and raises when ML_PATTERN_STEPS are
 * spent. It recurses once for each capture and each repetition of the pattern, so ML_PATTERN_BYTES
 * bounds the C stack. Results and errors equal Lua's (a differential test compares them). The
 * state's thread only. */
#include "script/pattern.h"

#include "script/pure.h"

#include <ctype.h>
#include <lauxlib.h>

static const char *match(struct ml_pattern *m, const char *s, const char *p);

static inline void spend(struct ml_pattern *m, ptrdiff_t steps)
{
    m->steps -= (int)steps;
    if (m->steps < 0)
        luaL_error(m->L, "this pattern is too complex for its subject; use regex");
}

static inline int byte(const char *p)
{
    return (unsigned char)*p;
}

/* Past the end of a set, p at its '['. The first character is a member even when it is a ']'. */
static const char *set_end(struct ml_pattern *m, const char *p)
{
    const char *begin = p++;
    if (p < m->end && *p == '^')
        p++;
    for (bool first = true;; first = false) {
        if (p >= m->end)
            luaL_error(m->L, "malformed pattern (missing ']')");
        if (*p == ']' && !first)
            break;
        if (*p++ == '%' && p < m->end)
            p++;
    }
    spend(m, (p - begin) >> 3);
    return p + 1;
}

/* Past the single-character item at p. */
static const char *item_end(struct ml_pattern *m, const char *p)
{
    if (*p == '[')
        return set_end(m, p);
    if (*p != '%')
        return p + 1;
    if (p + 1 >= m->end)
        luaL_error(m->L, "malformed pattern (ends with '%%')");
    return p + 2;
}

static bool in_class(int c, int class)
{
    bool in;
    switch (class | 0x20) {
    case 'a':
        in = isalpha(c);
        break;
    case 'c':
        in = iscntrl(c);
        break;
    case 'd':
        in = isdigit(c);
        break;
    case 'g':
        in = isgraph(c);
        break;
    case 'l':
        in = islower(c);
        break;
    case 'p':
        in = ispunct(c);
        break;
    case 's':
        in = isspace(c);
        break;
    case 'u':
        in = isupper(c);
        break;
    case 'w':
        in = isalnum(c);
        break;
    case 'x':
        in = isxdigit(c);
        break;
    case 'z': /* not in the manual any more, but in Lua */
        in = c == 0;
        break;
    default:
        return c == class;
    }
    return isupper(class) ? !in : in;
}

/* p at '[', end past ']'. */
static bool in_set(int c, const char *p, const char *end)
{
    bool found = true;
    const char *close = end - 1;
    p++;
    if (*p == '^') {
        found = false;
        p++;
    }
    while (p < close) {
        if (*p == '%') {
            if (in_class(c, byte(p + 1)))
                return found;
            p += 2;
        } else if (p + 2 < close && p[1] == '-') {
            if (byte(p) <= c && c <= byte(p + 2))
                return found;
            p += 3;
        } else {
            if (byte(p) == c)
                return found;
            p++;
        }
    }
    return !found;
}

/* Whether the item p to end takes the character at s. */
static inline bool takes(struct ml_pattern *m, const char *s, const char *p, const char *end)
{
    if (s >= m->subject_end)
        return false;
    switch (*p) {
    case '.':
        return true;
    case '%':
        return in_class(byte(s), byte(p + 1));
    case '[':
        spend(m, (end - p) >> 3);
        return in_set(byte(s), p, end);
    default:
        return *p == *s;
    }
}

/* item* and, from one further on, item+: the longest first. */
static const char *match_longest(struct ml_pattern *m, const char *s, const char *p,
                                 const char *end)
{
    const char *from = s;
    while (takes(m, s, p, end)) {
        spend(m, 1);
        s++;
    }
    for (; s >= from; s--) {
        const char *e = match(m, s, end + 1);
        if (e)
            return e;
    }
    return NULL;
}

/* item-: the shortest first. */
static const char *match_shortest(struct ml_pattern *m, const char *s, const char *p,
                                  const char *end)
{
    for (;;) {
        const char *e = match(m, s, end + 1);
        if (e)
            return e;
        if (!takes(m, s, p, end))
            return NULL;
        spend(m, 1); /* the match of an empty rest costs nothing */
        s++;
    }
}

static const char *match_open(struct ml_pattern *m, const char *s, const char *p)
{
    if (m->captures >= ML_PATTERN_CAPTURES)
        luaL_error(m->L, "too many captures");
    bool position = p + 1 < m->end && p[1] == ')';
    m->capture[m->captures++] =
        (struct ml_capture){s, position ? ML_CAPTURE_POSITION : ML_CAPTURE_OPEN};
    const char *e = match(m, s, p + (position ? 2 : 1));
    if (!e)
        m->captures--;
    return e;
}

static const char *match_close(struct ml_pattern *m, const char *s, const char *p)
{
    int i = m->captures - 1;
    while (i >= 0 && m->capture[i].n != ML_CAPTURE_OPEN)
        i--;
    if (i < 0)
        luaL_error(m->L, "invalid pattern capture");
    m->capture[i].n = s - m->capture[i].p;
    const char *e = match(m, s, p + 1);
    if (!e)
        m->capture[i].n = ML_CAPTURE_OPEN;
    return e;
}

/* %bxy, p at x. Returns the end of the balanced text. */
static const char *balanced(struct ml_pattern *m, const char *s, const char *p)
{
    if (p + 1 >= m->end)
        luaL_error(m->L, "malformed pattern (missing arguments to '%%b')");
    if (s >= m->subject_end || *s != p[0])
        return NULL;
    int depth = 1;
    while (++s < m->subject_end) {
        spend(m, 1);
        if (*s == p[1]) {
            if (--depth == 0)
                return s + 1;
        } else if (*s == p[0]) {
            depth++;
        }
    }
    return NULL;
}

/* %f[set], p at '[', end past ']'. The ends of the subject count as '\0'. */
static bool frontier(struct ml_pattern *m, const char *s, const char *p, const char *end)
{
    int before = s == m->subject ? 0 : byte(s - 1);
    int after = s == m->subject_end ? 0 : byte(s);
    spend(m, (end - p) >> 2);
    return !in_set(before, p, end) && in_set(after, p, end);
}

/* %1 to %9. */
static const char *back_reference(struct ml_pattern *m, const char *s, int digit)
{
    int i = digit - '1';
    if (i < 0 || i >= m->captures || m->capture[i].n == ML_CAPTURE_OPEN)
        luaL_error(m->L, "invalid capture index %%%d", i + 1);
    ptrdiff_t n = m->capture[i].n;
    if (n == ML_CAPTURE_POSITION || m->subject_end - s < n)
        return NULL;
    spend(m, n >> 6);
    return memcmp(m->capture[i].p, s, (size_t)n) == 0 ? s + n : NULL;
}

/* The items that begin with '%' and are no single character: moves *p past it and returns where the
 * subject goes on, or NULL when it does not match; *single when it is a single-character item after
 * all. */
static const char *match_special(struct ml_pattern *m, const char *s, const char **p, bool *single)
{
    const char *at = *p + 1;
    int kind = at < m->end ? byte(at) : 0;
    if (kind == 'b') {
        *p = at + 3;
        return balanced(m, s, at + 1);
    }
    if (kind == 'f') {
        at++;
        if (at >= m->end || *at != '[')
            luaL_error(m->L, "missing '[' after '%%f' in pattern");
        *p = set_end(m, at);
        return frontier(m, s, at, *p) ? s : NULL;
    }
    if (kind >= '0' && kind <= '9') {
        *p = at + 1;
        return back_reference(m, s, kind);
    }
    *single = true;
    return s;
}

/* One step along the pattern after another; recursion only where there is something to come back
 * to. */
static const char *match(struct ml_pattern *m, const char *s, const char *p)
{
    while (p < m->end) {
        spend(m, 1);
        if (*p == '(')
            return match_open(m, s, p);
        if (*p == ')')
            return match_close(m, s, p);
        if (*p == '$' && p + 1 == m->end)
            return s == m->subject_end ? s : NULL;
        if (*p == '%') {
            bool single = false;
            s = match_special(m, s, &p, &single);
            if (!s)
                return NULL;
            if (!single)
                continue;
        }
        const char *end = item_end(m, p);
        int repeat = end < m->end ? *end : 0;
        if (repeat == '*')
            return match_longest(m, s, p, end);
        if (repeat == '-')
            return match_shortest(m, s, p, end);
        bool taken = takes(m, s, p, end);
        if (repeat == '+')
            return taken ? match_longest(m, s + 1, p, end) : NULL;
        if (repeat == '?') {
            const char *e = taken ? match(m, s + 1, end + 1) : NULL;
            if (e)
                return e;
            end++;
        } else if (taken) {
            s++;
        } else {
            return NULL;
        }
        p = end;
    }
    return s;
}

void ml_pattern_init(struct ml_pattern *m, lua_State *L, struct ml_str subject,
                     struct ml_str pattern)
{
    if (subject.n > ML_SUBJECT_MAX)
        luaL_error(L, "the text is too long for a pattern (64 KiB at most)");
    if (pattern.n > ML_PATTERN_BYTES)
        luaL_error(L, "the pattern is too long (%d bytes at most)", ML_PATTERN_BYTES);
    m->L = L;
    m->subject = subject.p;
    m->subject_end = subject.p + subject.n;
    m->end = pattern.p + pattern.n;
    m->steps = ML_PATTERN_STEPS;
    m->captures = 0;
}

const char *ml_pattern_match(struct ml_pattern *m, const char *s, const char *p)
{
    m->captures = 0;
    return match(m, s, p);
}

void ml_pattern_push_one(struct ml_pattern *m, int i, const char *s, const char *e)
{
    if (i >= m->captures) {
        if (i != 0)
            luaL_error(m->L, "invalid capture index %%%d", i + 1);
        lua_pushlstring(m->L, s, (size_t)(e - s));
        return;
    }
    const struct ml_capture *c = &m->capture[i];
    if (c->n == ML_CAPTURE_OPEN)
        luaL_error(m->L, "unfinished capture");
    if (c->n == ML_CAPTURE_POSITION)
        lua_pushinteger(m->L, c->p - m->subject + 1);
    else
        lua_pushlstring(m->L, c->p, (size_t)c->n);
}

int ml_pattern_push(struct ml_pattern *m, const char *s, const char *e)
{
    int n = m->captures == 0 && s ? 1 : m->captures;
    luaL_checkstack(m->L, n, "too many captures");
    for (int i = 0; i < n; i++)
        ml_pattern_push_one(m, i, s, e);
    return n;
}

bool ml_pattern_is_plain(struct ml_str text)
{
    for (size_t i = 0; i < text.n; i++)
        if (text.p[i] && strchr("^$*+?.([%-", text.p[i]))
            return false;
    return true;
}
