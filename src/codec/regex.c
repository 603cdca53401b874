/* Regular expressions by PCRE2. A regex owns its code and its match context, both immutable once
 * compiled; each match has its own match data. Any thread.
 * PCRE2 counts its match limit anew at each start position, so that many costly positions could add
 * up: automatic callouts count the steps of a whole call. */
#include "codec/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>

enum {
    PATTERN_MAX = 4096,
    SUBJECT_MAX = 64 * 1024,
    MATCH_LIMIT = 100000,
    DEPTH_LIMIT = 250,
    HEAP_LIMIT_KIB = 1024,
    STEPS_MAX = 150000, /* of one ml_regex_match or ml_regex_replace: under 5 ms */
};

struct ml_regex {
    pcre2_code *code;
    uint32_t groups; /* the whole match included */
};

/* What one call to match or replace works with. */
struct matching {
    const struct ml_regex *re;
    struct ml_str subject;
    pcre2_match_context *limits;
    pcre2_match_data *data;
    unsigned steps;
    size_t start, end; /* of the match just found */
};

static int count_step(pcre2_callout_block *block, void *arg)
{
    (void)block;
    return ++((struct matching *)arg)->steps > STEPS_MAX ? PCRE2_ERROR_MATCHLIMIT : 0;
}

static pcre2_code *compile(struct ml_str pattern, int *why, PCRE2_SIZE *offset)
{
    /* RE2's '$' is the very end; PCRE2's also stands before a last line feed: "a@corp.com\n". */
    uint32_t options =
        PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C | PCRE2_DOLLAR_ENDONLY | PCRE2_AUTO_CALLOUT;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    *why = PCRE2_ERROR_NOMEMORY;
    *offset = 0;
    if (!context)
        return NULL;
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, DEPTH_LIMIT);
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)(pattern.n ? pattern.p : ""), pattern.n, options,
                                     why, offset, context);
    pcre2_compile_context_free(context);
    return code;
}

struct ml_regex *ml_regex_compile(struct ml_str pattern, struct ml_err *err)
{
    int why;
    PCRE2_SIZE offset;
    uint32_t captures = 0;
    if (pattern.n > PATTERN_MAX) {
        ml_fail(err, ML_E_TOOBIG, "pattern longer than %d bytes", PATTERN_MAX);
        return NULL;
    }
    /* (*LIMIT_MATCH=...), (*NO_JIT) and their like are options of the program, not of a pattern. */
    if (ml_str_starts(pattern, ML_STR("(*"))) {
        ml_fail(err, ML_E_INVALID, "pattern must not begin with (*");
        return NULL;
    }
    struct ml_regex *re = calloc(1, sizeof *re);
    pcre2_code *code = re ? compile(pattern, &why, &offset) : NULL;
    if (!re) {
        ml_fail(err, ML_E_NOMEM, "no memory for this pattern");
    } else if (!code) {
        PCRE2_UCHAR text[160] = "";
        pcre2_get_error_message(why, text, sizeof text);
        ml_fail(err, why == PCRE2_ERROR_NOMEMORY ? ML_E_NOMEM : ML_E_INVALID, "%s at offset %zu",
                (const char *)text, (size_t)offset);
    } else {
        pcre2_pattern_info(code, PCRE2_INFO_CAPTURECOUNT, &captures);
        if (captures < ML_REGEX_GROUPS) {
            *re = (struct ml_regex){code, captures + 1};
            return re;
        }
        ml_fail(err, ML_E_TOOBIG, "pattern has more than %d groups", ML_REGEX_GROUPS - 1);
        pcre2_code_free(code);
    }
    free(re);
    return NULL;
}

void ml_regex_free(struct ml_regex *re)
{
    if (!re)
        return;
    pcre2_code_free(re->code);
    free(re);
}

static void matching_done(struct matching *m)
{
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->limits);
}

static int matching_init(struct matching *m, const struct ml_regex *re, struct ml_str subject,
                         struct ml_err *err)
{
    if (subject.n > SUBJECT_MAX)
        return ml_fail(err, ML_E_TOOBIG, "text for a pattern longer than %d bytes", SUBJECT_MAX);
    *m = (struct matching){.re = re, .subject = subject};
    if (!subject.p)
        m->subject.p = "";
    m->limits = pcre2_match_context_create(NULL);
    m->data = pcre2_match_data_create(re->groups, NULL);
    if (!m->limits || !m->data) {
        matching_done(m);
        return ml_fail(err, ML_E_NOMEM, "no memory to match a pattern");
    }
    pcre2_set_match_limit(m->limits, MATCH_LIMIT);
    pcre2_set_depth_limit(m->limits, DEPTH_LIMIT);
    pcre2_set_heap_limit(m->limits, HEAP_LIMIT_KIB);
    pcre2_set_callout(m->limits, count_step, m);
    return 0;
}

/* 1 and m->start, m->end; 0 for no match at or after `from`; else a negative error. */
static int find(struct matching *m, size_t from, struct ml_err *err)
{
    int r = pcre2_match(m->re->code, (PCRE2_SPTR)m->subject.p, m->subject.n, from,
                        from ? PCRE2_NO_UTF_CHECK : 0, m->data, m->limits);
    if (r == PCRE2_ERROR_NOMATCH)
        return 0;
    if (r == PCRE2_ERROR_MATCHLIMIT || r == PCRE2_ERROR_DEPTHLIMIT || r == PCRE2_ERROR_HEAPLIMIT ||
        r == PCRE2_ERROR_RECURSELOOP)
        return ml_fail(err, ML_E_TOOBIG, "pattern takes too long on this text");
    if (r == PCRE2_ERROR_NOMEMORY)
        return ml_fail(err, ML_E_NOMEM, "no memory to match a pattern");
    if (r >= PCRE2_ERROR_UTF8_ERR21 && r <= PCRE2_ERROR_UTF8_ERR1)
        return ml_fail(err, ML_E_INVALID, "text for a pattern is not UTF-8");
    if (r < 0)
        return ml_fail(err, ML_E_INVALID, "pattern fails on this text (PCRE2 error %d)", r);
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(m->data);
    if (at[0] > at[1] || at[0] < from) /* \K can move the start */
        return ml_fail(err, ML_E_INVALID, "pattern moves the start of its match with \\K");
    m->start = at[0];
    m->end = at[1];
    return 1;
}

static struct ml_str group(const struct matching *m, size_t i)
{
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(m->data);
    if (i >= m->re->groups || at[2 * i] == PCRE2_UNSET || at[2 * i] > at[2 * i + 1])
        return (struct ml_str){NULL, 0};
    return ml_str(m->subject.p + at[2 * i], at[2 * i + 1] - at[2 * i]);
}

int ml_regex_match(const struct ml_regex *re, struct ml_str subject,
                   struct ml_str ret[ML_REGEX_GROUPS], struct ml_err *err)
{
    struct matching m = {.re = re};
    int r = matching_init(&m, re, subject, err);
    if (r < 0)
        return r;
    r = find(&m, 0, err);
    if (r > 0) {
        for (size_t i = 0; i < ML_REGEX_GROUPS; i++)
            ret[i] = group(&m, i);
        r = (int)re->groups;
    }
    matching_done(&m);
    return r;
}

static bool is_word(char c)
{
    return (c >= '0' && c <= '9') || (ml_lower(c) >= 'a' && ml_lower(c) <= 'z') || c == '_';
}

static struct ml_str group_by_name(const struct matching *m, struct ml_str name)
{
    char z[64];
    unsigned long long number;
    if (ml_str_u64(name, &number) && (name.n == 1 || name.p[0] != '0'))
        return number < m->re->groups ? group(m, (size_t)number) : (struct ml_str){NULL, 0};
    if (name.n >= sizeof z) /* PCRE2's names are shorter */
        return (struct ml_str){NULL, 0};
    memcpy(z, name.p, name.n);
    z[name.n] = 0;
    int found = pcre2_substring_number_from_name(m->re->code, (PCRE2_SPTR)z);
    return found > 0 ? group(m, (size_t)found) : (struct ml_str){NULL, 0};
}

/* What stands after a '$' in rest: its name, or p == NULL when it is not one. *used: bytes of it.
 */
static struct ml_str cut_name(struct ml_str rest, size_t *used)
{
    bool braces = rest.n && rest.p[0] == '{';
    size_t from = braces ? 1 : 0, to = from;
    while (to < rest.n && is_word(rest.p[to]))
        to++;
    if (to == from || (braces && (to == rest.n || rest.p[to] != '}')))
        return (struct ml_str){NULL, 0};
    *used = braces ? to + 1 : to;
    return ml_str(rest.p + from, to - from);
}

/* Go's Regexp.Expand. A '$' that starts nothing stays as it is. */
static void expand(const struct matching *m, struct ml_str text, struct ml_buf *out)
{
    while (text.n) {
        struct ml_str rest, name;
        size_t used = 0;
        ml_buf_add_str(out, ml_str_cut(text, '$', &rest));
        if (!rest.p)
            return;
        name = cut_name(rest, &used);
        if (name.p) {
            ml_buf_add_str(out, group_by_name(m, name));
        } else {
            ml_buf_add(out, "$", 1);
            used = rest.n && rest.p[0] == '$' ? 1 : 0;
        }
        text = ml_str(rest.p + used, rest.n - used);
    }
}

/* The byte after the character at i. */
static size_t next_character(struct ml_str s, size_t i)
{
    for (i++; i < s.n && ((unsigned char)s.p[i] & 0xC0) == 0x80;)
        i++;
    return i;
}

/* As Go's ReplaceAllString: no empty match directly after another match. */
static int replace_all(struct matching *m, struct ml_str replacement, struct ml_buf *out,
                       struct ml_err *err)
{
    size_t from = 0, copied = 0;
    int count = 0;
    while (from <= m->subject.n && !out->failed) {
        int r = find(m, from, err);
        if (r < 0)
            return r;
        if (r == 0)
            break;
        ml_buf_add(out, m->subject.p + copied, m->start - copied);
        if (m->end > copied || m->start == 0) {
            expand(m, replacement, out);
            count++;
        }
        copied = m->end;
        from = m->end > from ? m->end : next_character(m->subject, from);
    }
    ml_buf_add(out, m->subject.p + copied, m->subject.n - copied);
    return out->failed ? ml_fail(err, ML_E_TOOBIG, "replaced text is too long") : count;
}

int ml_regex_replace(const struct ml_regex *re, struct ml_str subject, struct ml_str replacement,
                     struct ml_buf *out, struct ml_err *err)
{
    struct matching m = {.re = re};
    size_t start = out->n;
    int r = matching_init(&m, re, subject, err);
    if (r < 0)
        return r;
    r = replace_all(&m, replacement, out, err);
    if (r < 0)
        out->n = start;
    matching_done(&m);
    return r;
}
