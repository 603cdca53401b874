/* base64, percent encoding, URLs, UTF-8. Pure. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

bool ml_utf8_ok(struct ml_str s);
/* RFC 4648 base64 with padding, and base64url without: strict (no white space, no other alphabet,
 * trailing bits zero). Decoders append to out; false (and nothing appended) on bad input or when
 * out is full. */
bool ml_base64_encode(struct ml_str in, struct ml_buf *out);
bool ml_base64_decode(struct ml_str in, struct ml_buf *out);
bool ml_base64url_encode(struct ml_str in, struct ml_buf *out);
bool ml_base64url_decode(struct ml_str in, struct ml_buf *out);
/* RFC 3986 unreserved bytes stay, all else becomes %XX. */
bool ml_url_escape(struct ml_str in, struct ml_buf *out);
/* %XX decoded; with form, '+' is a space. false on bad escapes. */
bool ml_url_unescape(struct ml_str in, bool form, struct ml_buf *out);
/* The byte of the two hex digits at p; -1 when there are none (n: bytes left). */
int ml_url_hex(const char *p, size_t n);

struct ml_url {
    struct ml_str scheme, host, path, query,
        fragment;  /* slices; p == NULL when absent; an IPv6 host in [] */
    unsigned port; /* 0 when absent */
};
/* An absolute http or https URL (RFC 3986) of at most 16 KiB. Refuses userinfo, spaces, controls,
 * backslashes, bytes that are not ASCII, bad escapes, and hosts and ports that ml_host_split
 * refuses. */
int ml_url_parse(struct ml_str in, struct ml_url *ret, struct ml_err *err);
