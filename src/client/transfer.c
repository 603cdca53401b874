/* One transfer: an easy handle, what it may do, what it has received. Handles are reused within
 * their upstream: options that never change are set once, and nothing of a request stays in an idle
 * one. One thread. */
#include "client/internal.h"

#include "base/mem.h"
#include "codec/header.h"

#include <stdlib.h>

static size_t refuse(struct ml_slot *s, int error, const char *why)
{
    s->refused = error;
    s->why = why;
    return 0; /* fewer bytes than offered: curl ends the transfer */
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
    struct ml_slot *s = arg;
    if (n > s->body.max - s->body.n)
        return refuse(s, ML_E_TOOBIG, "the answer's body is too big");
    if (!ml_buf_add(&s->body, data, n))
        return refuse(s, ML_E_UNAVAILABLE, "no memory for the answer's body");
    return n;
}

static bool has_control(struct ml_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (((unsigned char)s.p[i] < 0x20 && s.p[i] != '\t') || s.p[i] == 0x7f)
            return true;
    return false;
}

static size_t keep_header(struct ml_slot *s, struct ml_str line, size_t n)
{
    struct ml_str value, name = ml_str_cut(line, ':', &value);
    value = ml_str_trim(value);
    /* No colon, a folded line (RFC 9112 5.2), a space before the colon: none of it is guessed at.
     */
    if (!value.p || !ml_header_name_ok(name) || has_control(value))
        return refuse(s, ML_E_UNAVAILABLE, "malformed header in the answer");
    if (s->header_count == ML_RESPONSE_HEADERS_MAX)
        return refuse(s, ML_E_TOOBIG, "too many headers in the answer");
    size_t at = s->head.n;
    if (!ml_buf_add_str(&s->head, name) || !ml_buf_add_str(&s->head, value))
        return refuse(s, ML_E_UNAVAILABLE, "no memory for the answer's headers");
    for (size_t i = at; i < at + name.n; i++)
        s->head.p[i] = ml_lower(s->head.p[i]);
    s->headers[s->header_count].name = (uint32_t)at;
    s->headers[s->header_count].name_n = (uint32_t)name.n;
    s->headers[s->header_count].value = (uint32_t)(at + name.n);
    s->headers[s->header_count].value_n = (uint32_t)value.n;
    s->header_count++;
    return n;
}

/* One line at a time: status lines, headers, the empty line; after the body the trailers, which are
 * dropped. */
static size_t on_header(char *data, size_t size, size_t n, void *arg)
{
    struct ml_slot *s = arg;
    struct ml_str line = {data, n};
    s->header_bytes += n;
    if (s->header_bytes > ML_RESPONSE_HEADER_BYTES)
        return refuse(s, ML_E_TOOBIG, "the answer's headers are too big");
    while (line.n && (line.p[line.n - 1] == '\r' || line.p[line.n - 1] == '\n'))
        line.n--;
    if (s->in_trailers)
        return n;
    if (ml_str_istarts(line, ML_STR("HTTP/"))) {
        ml_buf_clear(&s->head); /* what an interim response (1xx) said is forgotten */
        s->header_count = 0;
        return n;
    }
    if (line.n)
        return keep_header(s, line, n);
    long status = 0;
    curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &status);
    s->in_trailers = status >= 200;
    return n;
}

/* An option that this libcurl does not know must not be missing silently. */
#define SET(option, value) (ok &= curl_easy_setopt(e, option, value) == CURLE_OK)

static bool set_limits(CURL *e, const struct ml_upstream *u)
{
    bool ok = true;
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_NOPROXY, "*");
    SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
    /* One request a connection at a time: the bound on what is in flight bounds connections. */
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)u->client->options.connect_ms);
    /* Answers are small; curl makes and frees this buffer with each transfer. */
    SET(CURLOPT_BUFFERSIZE, 4096L);
    /* A resolver thread that hangs is left behind, not waited for. */
    SET(CURLOPT_QUICK_EXIT, 1L);
    return ok;
}

static bool set_tls(CURL *e, const struct ml_upstream *u, struct ml_slot *s)
{
    bool ok = true;
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_CAINFO, NULL); /* trust.c brings the store */
    SET(CURLOPT_CAPATH, NULL);
    SET(CURLOPT_CA_CACHE_TIMEOUT, 0L);
    SET(CURLOPT_SSL_CTX_FUNCTION, ml_trust_apply);
    SET(CURLOPT_SSL_CTX_DATA, s);
    if (!*u->cert_pem)
        return ok;
    struct curl_blob cert = {u->cert_pem, strlen(u->cert_pem), CURL_BLOB_NOCOPY};
    struct curl_blob key = {u->key_pem, strlen(u->key_pem), CURL_BLOB_NOCOPY};
    SET(CURLOPT_SSLCERT_BLOB, &cert);
    SET(CURLOPT_SSLKEY_BLOB, &key);
    return ok;
}

static bool set_callbacks(CURL *e, struct ml_upstream *u, struct ml_slot *s)
{
    bool ok = true;
    SET(CURLOPT_CLOSESOCKETFUNCTION, ml_multi_close_socket);
    SET(CURLOPT_CLOSESOCKETDATA, u);
    SET(CURLOPT_PRIVATE, s);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, s);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, s);
    return ok;
}

static struct ml_slot *slot_new(struct ml_upstream *u)
{
    struct ml_slot *s = ML_NEW(struct ml_slot);
    CURL *e = s->easy = curl_easy_init();
    if (!e || !set_limits(e, u) || !set_tls(e, u, s) || !set_callbacks(e, u, s)) {
        curl_easy_cleanup(e);
        free(s);
        return NULL;
    }
    ml_buf_init(&s->head, ML_RESPONSE_HEADER_BYTES);
    return s;
}

static void slot_free(struct ml_slot *s)
{
    curl_easy_cleanup(s->easy);
    curl_url_cleanup(s->url);
    free(s->url_text);
    ml_buf_done(&s->head);
    ml_buf_done(&s->body);
    free(s);
}

struct ml_slot *ml_slot_take(struct ml_upstream *u)
{
    struct ml_slot *s = u->slots;
    if (!s)
        return slot_new(u);
    u->slots = s->next;
    u->slot_count--;
    return s;
}

void ml_slot_give_back(struct ml_upstream *u, struct ml_slot *s)
{
    s->fetch = NULL;
    ml_buf_done(&s->body);
    if (u->slot_count >= ML_SLOTS_KEPT) {
        slot_free(s);
        return;
    }
    /* These point into the fetch, which dies. */
    curl_easy_setopt(s->easy, CURLOPT_HTTPHEADER, NULL);
    if (!s->get)
        curl_easy_setopt(s->easy, CURLOPT_POSTFIELDS, NULL);
    s->next = u->slots;
    u->slots = s;
    u->slot_count++;
}

void ml_slots_free(struct ml_upstream *u)
{
    for (struct ml_slot *s; (s = u->slots); u->slot_count--) {
        u->slots = s->next;
        slot_free(s);
    }
}

/* Parsing a URL is a tenth of a transfer's work in curl, and an endpoint's URL never changes. A URL
 * that cannot be parsed is left to the transfer, which fails by it. */
static CURLcode set_url(struct ml_slot *s, const char *text)
{
    if (s->url_text && strcmp(s->url_text, text) == 0)
        return CURLE_OK;
    CURLU *url = curl_url();
    bool parsed = url && curl_url_set(url, CURLUPART_URL, text, CURLU_DISALLOW_USER) == CURLUE_OK;
    curl_easy_setopt(s->easy, CURLOPT_CURLU, parsed ? url : NULL);
    CURLcode code = curl_easy_setopt(s->easy, CURLOPT_URL, text);
    curl_url_cleanup(s->url);
    free(s->url_text);
    s->url = url;
    s->url_text = code == CURLE_OK && parsed ? ml_xstrdup(text) : NULL;
    return code;
}

/* The usual GET after a GET changes nothing. */
static void set_method(struct ml_slot *s, const struct ml_fetch *f)
{
    CURL *e = s->easy;
    bool head = strcmp(f->method, "HEAD") == 0, post = f->body_n || strcmp(f->method, "POST") == 0;
    bool plain = head || strcmp(f->method, post ? "POST" : "GET") == 0;
    bool get = plain && !head && !post;
    if (get && s->get)
        return;
    s->get = get;
    /* In this order: setting POSTFIELDS, even to NULL, makes a POST of it. */
    curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)f->body_n);
    curl_easy_setopt(e, CURLOPT_POSTFIELDS, post ? f->body : NULL);
    curl_easy_setopt(e, post ? CURLOPT_POST : CURLOPT_HTTPGET, 1L);
    if (head)
        curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
    curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, plain ? NULL : f->method);
}

CURLcode ml_transfer_prepare(struct ml_slot *s, struct ml_fetch *f, uint64_t left_ms)
{
    CURL *e = s->easy;
    s->fetch = f;
    s->refused = 0;
    s->why = NULL;
    s->header_bytes = s->header_count = 0;
    s->in_trailers = false;
    ml_buf_clear(&s->head);
    ml_buf_init(&s->body, f->max_body);
    set_method(s, f);
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, f->headers);
    curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)left_ms);
    curl_easy_setopt(e, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)f->max_body);
    return set_url(s, f->url);
}

/* Headers and their bytes in one block, which r->headers owns. */
static bool copy_headers(struct ml_slot *s, struct ml_fetch_result *r)
{
    size_t list = s->header_count * sizeof *r->headers;
    if (list == 0)
        return true;
    r->headers = malloc(list + s->head.n);
    if (!r->headers)
        return false;
    char *bytes = (char *)r->headers + list;
    memcpy(bytes, s->head.p, s->head.n);
    for (size_t i = 0; i < s->header_count; i++) {
        r->headers[i].name = ml_str(bytes + s->headers[i].name, s->headers[i].name_n);
        r->headers[i].value = ml_str(bytes + s->headers[i].value, s->headers[i].value_n);
    }
    r->header_count = s->header_count;
    return true;
}

void ml_transfer_collect(struct ml_slot *s, struct ml_fetch *f, CURLcode code)
{
    struct ml_fetch_result *r = f->result;
    long status = 0;
    curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &status);
    if (s->refused)
        ml_failure(r, s->refused, s->why);
    else if (code != CURLE_OK)
        ml_failure_by_code(r, s->easy, code);
    else if (status < 200 || status > 599)
        ml_failure(r, ML_E_UNAVAILABLE, "malformed status in the answer");
    else if (!copy_headers(s, r))
        ml_failure(r, ML_E_UNAVAILABLE, "no memory for the answer's headers");
    if (r->error)
        return;
    r->status = (int)status;
    r->body = ml_buf_str(&s->body);
    ml_buf_init(&s->body, 0); /* the bytes are the result's now */
}

void ml_fetch_result_free(struct ml_fetch_result *r)
{
    if (!r)
        return;
    free(r->headers);
    if (r->body.p)
        free((char *)r->body.p);
    free(r);
}
