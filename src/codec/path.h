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
    bool has_params;        /* some segment had ";...", or "%3B", which some programs cut at, too */
};

/* Parses an RFC 9112 3.2 origin-form, absolute-form (http, https) or "*" target.
 * Canonical path: percent-decoded once; "." and ".." segments (RFC 3986 5.2.4) and repeated slashes
 * resolved;
 * ";params" cut from each segment; a trailing slash kept.
 * Refused with ML_E_INVALID, because two programs could read them differently: '#', space, controls
 * and bytes that are not UTF-8 anywhere; and in the path '\', bad or incomplete percent encoding,
 * an encoded '/', '\' or control, an encoded dot in a dot segment, dots followed by ";" (or "%3B"),
 * double encoding (what is decoded holds
 * '%' and two hex digits), a ".." above the root, and a ".." that follows an empty segment
 * ("/a//../b" is "/a/b" or "/b", as the slashes are merged last or first). The query is not decoded
 * and may hold '\' and any '%'. The target longer than 16 KiB: ML_E_TOOBIG. No room in the arena:
 * ML_E_NOMEM. ret is untouched on failure. */
int ml_target_parse(struct ml_arena *arena, struct ml_str input, struct ml_target *ret,
                    struct ml_err *err);

/* A Host header or authority. ml_host_split: slices of the input, the name as written; port 0 when
 * absent. ml_host_parse: the name lower-cased, without one trailing dot; an IPv6 literal in its RFC
 * 5952 form, in []. Two spellings of one host give one name. Refused with ML_E_INVALID: userinfo,
 * bytes other than letters, digits, '-', '_' and '.', empty names and labels, names over 253 bytes,
 * bad IPv6 literals, zones, ports that are empty or not in 1 to 65535. */
int ml_host_split(struct ml_str input, struct ml_str *ret_name, unsigned *ret_port,
                  struct ml_err *err);
int ml_host_parse(struct ml_arena *arena, struct ml_str input, struct ml_str *ret_name,
                  unsigned *ret_port, struct ml_err *err);
