/* YAML to JSON text, event by event, for files that an operator mounts. Pure; any thread.
 * The result goes through the JSON parser once: what JSON refuses (members twice, NUL, depth, size)
 * is refused here by the same rules. */
#include "codec/json.h"

#include "codec/text.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <yaml.h>

struct converter {
    struct ml_json_out out;
    struct ml_err *err;
    bool in_map[ML_JSON_DEPTH], at_key[ML_JSON_DEPTH];
    size_t depth, line; /* containers open; line of the event at hand, from 1 */
    bool done;
};

static int refuse(struct converter *c, const char *what)
{
    return ml_fail(c->err, ML_E_INVALID, "YAML line %zu: %s", c->line, what);
}

static bool is_one_of(const char *text, const char *const *words)
{
    while (*words)
        if (strcmp(text, *words++) == 0)
            return true;
    return false;
}

/* 10.3.2 of YAML 1.2: [-+]?digits, 0o7, 0xF. */
static bool is_integer(const char *text, int *base)
{
    const char *digits = "0123456789";
    *base = 10;
    if (strncmp(text, "0o", 2) == 0 || strncmp(text, "0x", 2) == 0) {
        *base = text[1] == 'o' ? 8 : 16;
        digits = *base == 8 ? "01234567" : "0123456789abcdefABCDEF";
        text += 2;
    } else if (*text == '-' || *text == '+') {
        text++;
    }
    return *text && text[strspn(text, digits)] == 0;
}

/* [-+]?(.digits|digits[.digits])[(e|E)[-+]digits] */
static bool is_real(const char *text)
{
    static const char digits[] = "0123456789";
    text += *text == '-' || *text == '+';
    size_t whole = strspn(text, digits), fraction = 0;
    text += whole;
    if (*text == '.') {
        fraction = strspn(++text, digits);
        text += fraction;
    }
    if (whole + fraction == 0)
        return false;
    if (*text == 'e' || *text == 'E') {
        text++;
        text += *text == '-' || *text == '+';
        if (strspn(text, digits) == 0)
            return false;
        text += strspn(text, digits);
    }
    return *text == 0;
}

static int add_number(struct converter *c, const char *text, int base)
{
    errno = 0;
    if (base) {
        long long v = strtoll(base == 10 ? text : text + 2, NULL, base);
        if (errno)
            return refuse(c, "a number out of range");
        ml_json_integer(&c->out, v);
    } else {
        double v = strtod(text, NULL);
        if (!isfinite(v))
            return refuse(c, "a number out of range");
        ml_json_real(&c->out, v);
    }
    return 0;
}

/* A plain scalar by the core schema. */
static int add_plain(struct converter *c, struct ml_str value)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const yes[] = {"true", "True", "TRUE", NULL};
    static const char *const no[] = {"false", "False", "FALSE", NULL};
    static const char *const not_finite[] = {".inf",  ".Inf",  ".INF",  "+.inf", "+.Inf",
                                             "+.INF", "-.inf", "-.Inf", "-.INF", ".nan",
                                             ".NaN",  ".NAN",  NULL};
    const char *text = value.p; /* libyaml ends its values with a NUL */
    int base;
    if (memchr(text, 0, value.n))
        return refuse(c, "a NUL");
    if (is_one_of(text, not_finite))
        return refuse(c, "a number that is not finite");
    if (is_integer(text, &base))
        return add_number(c, text, base);
    if (is_real(text))
        return add_number(c, text, 0);
    if (is_one_of(text, nulls))
        ml_json_literal(&c->out, "null");
    else if (is_one_of(text, yes))
        ml_json_literal(&c->out, "true");
    else if (is_one_of(text, no))
        ml_json_literal(&c->out, "false");
    else
        ml_json_text(&c->out, value);
    return 0;
}

/* Notes that a value begins here; *key says whether it is a map's key. */
static bool next_is_key(struct converter *c)
{
    if (c->depth == 0 || !c->in_map[c->depth - 1])
        return false;
    bool key = c->at_key[c->depth - 1];
    c->at_key[c->depth - 1] = !key;
    return key;
}

static int on_scalar(struct converter *c, const yaml_event_t *e)
{
    struct ml_str value = ml_str((const char *)e->data.scalar.value, e->data.scalar.length);
    bool plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (e->data.scalar.anchor || e->data.scalar.tag)
        return refuse(c, "anchors and tags are not supported");
    if (next_is_key(c)) {
        if (plain && ml_str_eq(value, ML_STR("<<")))
            return refuse(c, "merge keys are not supported");
        ml_json_name(&c->out, value);
        return 0;
    }
    if (plain)
        return add_plain(c, value);
    ml_json_text(&c->out, value);
    return 0;
}

static int on_begin(struct converter *c, bool map, const void *anchor, const void *tag)
{
    if (anchor || tag)
        return refuse(c, "anchors and tags are not supported");
    if (next_is_key(c))
        return refuse(c, "a key that is not a scalar");
    if (c->depth == ML_JSON_DEPTH)
        return ml_fail(c->err, ML_E_TOOBIG, "YAML nested deeper than %d", ML_JSON_DEPTH);
    c->in_map[c->depth] = c->at_key[c->depth] = map;
    c->depth++;
    ml_json_begin(&c->out, map ? '{' : '[');
    return 0;
}

static int on_end(struct converter *c)
{
    c->depth--;
    ml_json_end(&c->out, c->in_map[c->depth] ? '}' : ']');
    return 0;
}

static int on_event(struct converter *c, const yaml_event_t *e)
{
    c->line = e->start_mark.line + 1;
    switch (e->type) {
    case YAML_SCALAR_EVENT:
        return on_scalar(c, e);
    case YAML_SEQUENCE_START_EVENT:
        return on_begin(c, false, e->data.sequence_start.anchor, e->data.sequence_start.tag);
    case YAML_MAPPING_START_EVENT:
        return on_begin(c, true, e->data.mapping_start.anchor, e->data.mapping_start.tag);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return on_end(c);
    case YAML_ALIAS_EVENT:
        return refuse(c, "aliases are not supported");
    case YAML_DOCUMENT_START_EVENT:
        return c->out.comma ? refuse(c, "more than one document") : 0;
    case YAML_STREAM_END_EVENT:
        c->done = true;
        return c->out.comma ? 0 : refuse(c, "no document");
    default:
        return 0;
    }
}

static int convert(struct ml_str text, struct converter *c)
{
    yaml_parser_t parser;
    yaml_event_t event;
    int r = 0;
    if (!yaml_parser_initialize(&parser))
        return ml_fail(c->err, ML_E_NOMEM, "no memory for this YAML");
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text.p, text.n);
    while (r == 0 && !c->done) {
        if (yaml_parser_parse(&parser, &event)) {
            r = on_event(c, &event);
            yaml_event_delete(&event);
        } else { /* libyaml's texts are constants: nothing of the content is in them */
            c->line = parser.problem_mark.line + 1;
            r = parser.error == YAML_MEMORY_ERROR
                    ? ml_fail(c->err, ML_E_NOMEM, "no memory for this YAML")
                    : refuse(c, parser.problem ? parser.problem : "syntax error");
        }
        if (r == 0 && c->out.buf->failed)
            r = ml_fail(c->err, ML_E_TOOBIG, "YAML too large");
    }
    yaml_parser_delete(&parser);
    return r;
}

static bool any_scalar(void *ctx, enum ml_json_kind kind, struct ml_str text, long long integer,
                       double real)
{
    return true;
}

static bool any_begin(void *ctx, enum ml_json_kind kind, size_t size)
{
    return true;
}

static bool any_key(void *ctx, struct ml_str name)
{
    return true;
}

static bool any_end(void *ctx, enum ml_json_kind kind)
{
    return true;
}

int ml_yaml_to_json(struct ml_str text, struct ml_buf *out, struct ml_err *err)
{
    static const struct ml_json_events any = {any_scalar, any_begin, any_key, any_end};
    struct converter c = {.out = {out, false}, .err = err};
    size_t start = out->n;
    if (text.n > ML_JSON_BYTES)
        return ml_fail(err, ML_E_TOOBIG, "YAML longer than %d bytes", ML_JSON_BYTES);
    if (!ml_utf8_ok(text))
        return ml_fail(err, ML_E_INVALID, "YAML is not UTF-8");
    int r = convert(text, &c);
    if (r == 0)
        r = ml_json_walk(ml_str(out->p + start, out->n - start), &any, NULL, err);
    if (r < 0)
        out->n = start;
    return r;
}
