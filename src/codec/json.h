/* JSON by jansson: strict, bounded, in our own terms. Pure. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

struct json_t; /* jansson's, for codec/ and crypto/ */

/* A cursor that other rooms use without jansson.h. */
enum ml_json_kind { ML_JSON_NULL, ML_JSON_FALSE, ML_JSON_TRUE, ML_JSON_INTEGER, ML_JSON_REAL, ML_JSON_STRING,
                    ML_JSON_ARRAY, ML_JSON_OBJECT };

/* Receives a document depth first. A callback returns false to stop (the parse then fails with ML_E_CANCELED). */
struct ml_json_events {
    bool (*scalar)(void *ctx, enum ml_json_kind kind, struct ml_str text, long long integer, double real);
    bool (*begin)(void *ctx, enum ml_json_kind kind, size_t size); /* array or object; size: its members */
    bool (*key)(void *ctx, struct ml_str name);
    bool (*end)(void *ctx, enum ml_json_kind kind);
};

enum { ML_JSON_DEPTH = 64, ML_JSON_BYTES = 1 << 20 };

/* Parses text (any JSON value; UTF-8; duplicate members refused; at most ML_JSON_DEPTH deep and ML_JSON_BYTES
 * long; trailing bytes refused; NUL in a string refused) and walks it. err names what is wrong and where,
 * never the content. */
int ml_json_walk(struct ml_str text, const struct ml_json_events *events, void *ctx, struct ml_err *err);

/* A writer with the separators and escapes; the caller keeps the nesting right. */
struct ml_json_out {
    struct ml_buf *buf;
    bool comma;
};
void ml_json_begin(struct ml_json_out *o, char open);  /* '{' or '[' */
void ml_json_end(struct ml_json_out *o, char close);
void ml_json_name(struct ml_json_out *o, struct ml_str name);
void ml_json_text(struct ml_json_out *o, struct ml_str value);
void ml_json_integer(struct ml_json_out *o, long long value);
void ml_json_real(struct ml_json_out *o, double value); /* NaN and infinity: null */
void ml_json_literal(struct ml_json_out *o, const char *literal); /* true, false, null */

/* YAML 1.1 core (by libyaml) as JSON text: maps, lists, plain scalars by the core schema, no anchors, no tags,
 * one document, ML_JSON_DEPTH deep. For kubeconfig files. */
int ml_yaml_to_json(struct ml_str text, struct ml_buf *out, struct ml_err *err);
