/* JSON by jansson. What jansson does not bound is bounded before it sees the text: length, depth
 * (its parser recurses) and the number of values (each costs hundreds of bytes). State: jansson's
 * hash seed and allocator, set once. Any thread. */
#include "codec/json.h"

#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* jansson's memory. When an allocation fails in the middle of a text, jansson loses a byte of it
 * and goes on, or ends the program; so a failure leaves the parser at once instead. All of a text's
 * memory goes at once when its reader is done; that of a usual text is the parser's own. */
struct block {
    struct block *next, **at;
};

struct parser {
    struct block *blocks; /* what does not fit in near */
    size_t used;          /* of near, whose pieces are not used twice */
    jmp_buf failed;
    _Alignas(max_align_t) char near[8192];
};

static _Thread_local struct parser *running;

static void *allocate(size_t n)
{
    struct parser *p = running;
    size_t size = (n + sizeof(max_align_t) - 1) & ~(sizeof(max_align_t) - 1);
    if (n <= sizeof p->near && size <= sizeof p->near - p->used) {
        p->used += size;
        return p->near + p->used - size;
    }
    struct block *b = malloc(sizeof *b + n); /* n: within the bounds of a text, see parse */
    if (!b)
        longjmp(p->failed, 1);
    *b = (struct block){p->blocks, &p->blocks};
    if (b->next)
        b->next->at = &b->next;
    p->blocks = b;
    return b + 1;
}

static void release(void *memory)
{
    struct block *b = memory;
    if (!b-- || (uintptr_t)memory - (uintptr_t)running->near < sizeof running->near)
        return;
    *b->at = b->next;
    if (b->next)
        b->next->at = b->at;
    free(b);
}

static pthread_once_t prepared = PTHREAD_ONCE_INIT;

/* Else the first object of two threads at once would do it. 0: from the system's randomness. */
static void prepare(void)
{
    json_set_alloc_funcs(allocate, release);
    json_object_seed(0);
}

/* Depth and number of values without recursion. Text that is not JSON at all may pass: jansson says
 * so. */
static int check_bounds(struct ml_str text, struct ml_err *err)
{
    size_t depth = 0, values = 1;
    bool quoted = false;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        if (quoted && c == '\\')
            i++;
        else if (c == '"')
            quoted = !quoted;
        else if (quoted)
            continue;
        else if (c == '[' || c == '{') {
            values++;
            if (++depth > ML_JSON_DEPTH)
                return ml_fail(err, ML_E_TOOBIG, "JSON nested deeper than %d", ML_JSON_DEPTH);
        } else if ((c == ']' || c == '}') && depth > 0)
            depth--;
        else if (c == ',')
            values++;
    }
    if (values > ML_JSON_VALUES)
        return ml_fail(err, ML_E_TOOBIG, "JSON of more than %d values", ML_JSON_VALUES);
    return 0;
}

/* jansson's own texts quote the input, which may be a secret. */
static const char *reason(const json_error_t *e)
{
    switch (json_error_code(e)) {
    case json_error_invalid_utf8:
        return "bytes that are not UTF-8";
    case json_error_premature_end_of_input:
        return "an early end";
    case json_error_end_of_input_expected:
        return "bytes after the value";
    case json_error_null_character:
    case json_error_null_byte_in_key:
        return "a NUL in a string";
    case json_error_duplicate_key:
        return "a member twice";
    case json_error_numeric_overflow:
        return "a number out of range";
    default:
        return "a syntax error";
    }
}

static void free_blocks(struct parser *p)
{
    for (struct block *b = p->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    p->blocks = NULL;
}

/* As json_loadb; *nomem: there was no memory. */
static json_t *load(struct parser *p, struct ml_str text, json_error_t *e, bool *nomem)
{
    json_t *root = NULL;
    running = p;
    *nomem = setjmp(p->failed) != 0;
    if (!*nomem)
        root =
            json_loadb(text.n ? text.p : "", text.n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, e);
    running = NULL;
    return root;
}

/* *ret is p's: until its blocks are freed, p stays where it is. */
static int parse(struct parser *p, struct ml_str text, json_t **ret, struct ml_err *err)
{
    json_error_t e;
    bool nomem;
    if (text.n > ML_JSON_BYTES)
        return ml_fail(err, ML_E_TOOBIG, "JSON longer than %d bytes", ML_JSON_BYTES);
    int r = check_bounds(text, err);
    if (r < 0)
        return r;
    pthread_once(&prepared, prepare);
    *ret = load(p, text, &e, &nomem);
    if (*ret)
        return 0;
    if (nomem)
        return ml_fail(err, ML_E_NOMEM, "no memory for this JSON");
    return ml_fail(err, ML_E_INVALID, "JSON has %s at line %d, column %d", reason(&e), e.line,
                   e.column);
}

static bool walk_scalar(json_t *v, const struct ml_json_events *ev, void *ctx)
{
    struct ml_str none = {NULL, 0};
    switch (json_typeof(v)) {
    case JSON_STRING:
        return ev->scalar(ctx, ML_JSON_STRING, ml_str(json_string_value(v), json_string_length(v)),
                          0, 0);
    case JSON_INTEGER:
        return ev->scalar(ctx, ML_JSON_INTEGER, none, json_integer_value(v), 0);
    case JSON_REAL:
        return ev->scalar(ctx, ML_JSON_REAL, none, 0, json_real_value(v));
    case JSON_TRUE:
        return ev->scalar(ctx, ML_JSON_TRUE, none, 0, 0);
    case JSON_FALSE:
        return ev->scalar(ctx, ML_JSON_FALSE, none, 0, 0);
    default:
        return ev->scalar(ctx, ML_JSON_NULL, none, 0, 0);
    }
}

/* Recursion is at most ML_JSON_DEPTH deep: check_bounds saw to it. */
static bool walk(json_t *v, const struct ml_json_events *ev, void *ctx)
{
    if (json_is_array(v)) {
        if (!ev->begin(ctx, ML_JSON_ARRAY, json_array_size(v)))
            return false;
        for (size_t i = 0; i < json_array_size(v); i++)
            if (!walk(json_array_get(v, i), ev, ctx))
                return false;
        return ev->end(ctx, ML_JSON_ARRAY);
    }
    if (json_is_object(v)) {
        if (!ev->begin(ctx, ML_JSON_OBJECT, json_object_size(v)))
            return false;
        for (void *at = json_object_iter(v); at; at = json_object_iter_next(v, at))
            if (!ev->key(ctx, ml_str_z(json_object_iter_key(at))) ||
                !walk(json_object_iter_value(at), ev, ctx))
                return false;
        return ev->end(ctx, ML_JSON_OBJECT);
    }
    return walk_scalar(v, ev, ctx);
}

int ml_json_walk(struct ml_str text, const struct ml_json_events *events, void *ctx,
                 struct ml_err *err)
{
    struct parser p;
    json_t *root = NULL;
    p.blocks = NULL;
    p.used = 0;
    int r = parse(&p, text, &root, err);
    if (r == 0 && !walk(root, events, ctx))
        r = ml_fail(err, ML_E_CANCELED, "JSON was not what its reader wanted");
    free_blocks(&p);
    return r;
}

static void separate(struct ml_json_out *o)
{
    if (o->comma)
        ml_buf_add(o->buf, ",", 1);
    o->comma = true;
}

void ml_json_begin(struct ml_json_out *o, char open)
{
    separate(o);
    ml_buf_add(o->buf, &open, 1);
    o->comma = false;
}

void ml_json_end(struct ml_json_out *o, char close)
{
    ml_buf_add(o->buf, &close, 1);
    o->comma = true;
}

void ml_json_name(struct ml_json_out *o, struct ml_str name)
{
    separate(o);
    ml_buf_add_json(o->buf, name);
    ml_buf_add(o->buf, ":", 1);
    o->comma = false;
}

void ml_json_text(struct ml_json_out *o, struct ml_str value)
{
    separate(o);
    ml_buf_add_json(o->buf, value);
}

void ml_json_integer(struct ml_json_out *o, long long value)
{
    separate(o);
    ml_buf_printf(o->buf, "%lld", value);
}

void ml_json_literal(struct ml_json_out *o, const char *literal)
{
    separate(o);
    ml_buf_add_str(o->buf, ml_str_z(literal));
}

/* The shortest text that reads back as the same value, and as a real. */
void ml_json_real(struct ml_json_out *o, double value)
{
    char text[40];
    if (!isfinite(value)) {
        ml_json_literal(o, "null");
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    ml_json_literal(o, text);
    if (!strpbrk(text, ".e"))
        ml_buf_add(o->buf, ".0", 2);
}
