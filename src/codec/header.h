/* Rules for header names, values and credentials (RFC 9110 5.5, 5.6.2, RFC 6750 2.1). Pure. */
#pragma once

#include "base/str.h"

#include <stdbool.h>

bool ml_header_name_ok(struct ml_str name); /* RFC 9110 token, at most 256 bytes */
/* For values that we write: no CR, LF, NUL, other controls (tab and C1 too), DEL, U+2028 or U+2029;
 * no leading or trailing space; valid UTF-8; at most 32 KiB. */
bool ml_header_value_ok(struct ml_str value);
/* Nothing but printable ASCII, the space among it. */
bool ml_printable(struct ml_str s);
/* Bytes of RFC 6750 2.1 b64token only, at least one; '=' anywhere. */
bool ml_b64token_ok(struct ml_str s);
/* True when name differs from `known` only in bytes that are alphanumeric in neither ('_' or '.'
 * for '-'), case folded, and is not simply the same name: a spelling that CGI-like backends would
 * confuse. */
bool ml_header_is_alias(struct ml_str name, struct ml_str known);
/* The token of "Bearer <b64token>" (scheme in any case, one or more spaces, RFC 6750 2.1 syntax).
 * p == NULL when the scheme is another one, the token is empty or has other bytes in it. */
struct ml_str ml_bearer(struct ml_str authorization);
/* Value of a cookie in a Cookie header ("; " separated, RFC 6265 5.4), quotes kept; p == NULL when
 * the name is absent or there twice. *count (NULL allowed) says how often it is there. Names are
 * case-sensitive. */
struct ml_str ml_cookie(struct ml_str header, struct ml_str name, size_t *count);
