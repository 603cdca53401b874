/* The one place that decides what a request target means (policy 1.6, S-005 to S-014). Pure. */
#pragma once

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"

struct ml_target {
    struct ml_str path;     /* canonical, see below; always starts with '/' (or is "*") */
    struct ml_str raw_path; /* slice of the input */
    struct ml_str query;    /* slice of the input, without '?' */
    struct ml_str host;     /* of an absolute-form target: authority as sent; else p == NULL */
    struct ml_str scheme;   /* of an absolute-form target; else p == NULL */
    bool has_params;        /* some segment had ";..." */
};

/* Parses an RFC 9112 origin-form, absolute-form (http, https) or "*" target.
 * Canonical path: percent-decoded once; "." and ".." segments and repeated slashes resolved (a ".."
 * above the root is refused); ";params" cut from each segment; a trailing slash kept.
 * Refused with ML_E_INVALID, because two programs could read them differently: '#', '\', controls,
 * bad or incomplete percent encoding, an encoded '/', '\', control or NUL, an encoded dot in a dot segment,
 * a segment that is dots followed by ";", double encoding ("%25" followed by two hex digits), bytes that are not UTF-8.
 * The target longer than 16 KiB: ML_E_TOOBIG. No room in the arena: ML_E_NOMEM. */
int ml_target_parse(struct ml_arena *arena, struct ml_str input, struct ml_target *ret,
                    struct ml_err *err);

/* A Host header or authority: lower-cased name without port and without one trailing dot; port 0 when absent.
 * Refuses userinfo, commas, spaces, controls, '/', empty names, bad IPv6 literals and ports. */
int ml_host_parse(struct ml_arena *arena, struct ml_str input, struct ml_str *ret_name,
                  unsigned *ret_port, struct ml_err *err);
