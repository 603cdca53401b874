/* JSON by jansson: strict, bounded, in our own terms. Pure. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

enum ml_json_kind {
    ML_JSON_NULL,
    ML_JSON_FALSE,
    ML_JSON_TRUE,
    ML_JSON_INTEGER,
    ML_JSON_REAL,
    ML_JSON_STRING,
    ML_JSON_ARRAY,
    ML_JSON_OBJECT
};

/* Receives a document depth first. A callback returns false to stop (the parse then fails with
 * ML_E_CANCELED). */
struct ml_json_events {
    bool (*scalar)(void *ctx, enum ml_json_kind kind, struct ml_str text, long long integer,
                   double real);
    bool (*begin)(void *ctx, enum ml_json_kind kind,
                  size_t size); /* array or object; size: its members */
    bool (*key)(void *ctx, struct ml_str name);
    bool (*end)(void *ctx, enum ml_json_kind kind);
};

enum { ML_JSON_DEPTH = 64, ML_JSON_BYTES = 1 << 20, ML_JSON_VALUES = 1 << 16 };

/* Parses text (any JSON value, RFC 8259; UTF-8) and walks it. ML_E_TOOBIG: deeper than
 * ML_JSON_DEPTH, longer than ML_JSON_BYTES, more than ML_JSON_VALUES values. ML_E_INVALID: not
 * JSON, a member twice, trailing bytes, a NUL in a string, an integer past int64, a real past
 * double. err names what is wrong and where, never the content. */
int ml_json_walk(struct ml_str text, const struct ml_json_events *events, void *ctx,
                 struct ml_err *err);

/* A writer with the separators and escapes; the caller keeps the nesting right. */
struct ml_json_out {
    struct ml_buf *buf;
    bool comma;
};
void ml_json_begin(struct ml_json_out *o, char open); /* '{' or '[' */
void ml_json_end(struct ml_json_out *o, char close);
void ml_json_name(struct ml_json_out *o, struct ml_str name);
void ml_json_text(struct ml_json_out *o, struct ml_str value);
void ml_json_integer(struct ml_json_out *o, long long value);
void ml_json_real(struct ml_json_out *o, double value);           /* NaN and infinity: null */
void ml_json_literal(struct ml_json_out *o, const char *literal); /* true, false, null */

/* YAML (by libyaml) as JSON text, appended to out: maps, lists, plain scalars by the core schema of
 * YAML 1.2 ("yes" is a text), no anchors, tags or merge keys, one document, the bounds and rules of
 * ml_json_walk. For kubeconfig files. Nothing is appended on failure; err has the line, never the
 * content. */
int ml_yaml_to_json(struct ml_str text, struct ml_buf *out, struct ml_err *err);
