/* What the files of client/ share. Everything here is on the client's one thread.
 *
 *   client.c    the loop's side: delivery of results, close, stats
 *   upstream.c  identities and their life; token.c the token file; trust.c certificates
 *   multi.c     curl's multi interface on uv
 *   transfer.c  one easy handle: options, callbacks, result; failure.c its errors in words
 *   request.c   a request checked and copied
 *   fetch.c     a fetch's way: queued, running, ready, delivered */
#pragma once

#include "base/buf.h"
#include "client/breaker.h"
#include "client/fetch.h"

#include <curl/curl.h>
#include <stdbool.h>
#include <sys/queue.h>

struct ml_watch;
struct x509_store_st;

enum {
    ML_CLIENT_UPSTREAMS_MAX = 256,
    ML_SLOTS_KEPT = 64, /* easy handles an upstream keeps for reuse: as many as fly by default */
    ML_RESPONSE_HEADERS_MAX = 200,
    ML_RESPONSE_HEADER_BYTES = 64 * 1024,
};

/* An easy handle with what it receives. Reused: options that never change are set once. */
struct ml_slot {
    struct ml_slot *next;
    CURL *easy;
    CURLU *url;             /* parsed once for as long as the fetches have the same */
    char *url_text;         /* of url; NULL: none, or one that curl is to refuse itself */
    struct ml_fetch *fetch; /* NULL: idle */
    bool get;               /* set up for a GET without a body */
    int refused;            /* ML_E_..., when a callback of ours ended the transfer */
    const char *why;
    size_t header_bytes; /* of all header lines, interim responses and trailers too */
    bool in_trailers;
    struct ml_buf head, body; /* head: names and values, as (offset, length) below */
    size_t header_count;
    struct {
        uint32_t name, name_n, value, value_n;
    } headers[ML_RESPONSE_HEADERS_MAX];
};

enum ml_fetch_state { ML_FETCH_QUEUED, ML_FETCH_RUNNING, ML_FETCH_READY };

/* One allocation: the copied request is behind it (credentials: wiped before the free). */
struct ml_fetch {
    TAILQ_ENTRY(ml_fetch) link; /* on upstream's queue or running, or on the client's ready */
    enum ml_fetch_state state;
    struct ml_upstream *upstream; /* holds a reference */
    struct ml_slot *slot;         /* while running */
    struct ml_fetch_result *result;
    ml_fetch_done done;
    void *arg;
    uint32_t ticket; /* the breaker's */
    uint64_t start_ms, sent_ms, deadline_ms;
    size_t max_body;
    char *url, *host, *method; /* host: as a certificate must name it */
    char *body;
    size_t body_n;
    struct curl_slist *headers;
    size_t bytes; /* of this allocation */
};
TAILQ_HEAD(ml_fetch_list, ml_fetch);

struct ml_upstream {
    TAILQ_ENTRY(ml_upstream) link;
    struct ml_client *client; /* there until this is shut and has no fetches */
    unsigned refs, handles;   /* freed when both are 0 */
    bool shut, pumping;
    char *name, *ca_extra, *ca_pem, *cert_pem, *key_pem, *token_file; /* "" when not given */
    struct x509_store_st *trust; /* NULL until https is used first */

    CURLM *multi;
    struct ml_watch *watches;
    uv_timer_t multi_timer, queue_timer;
    struct ml_fetch_list queue, running;
    unsigned queued, in_flight;
    uint64_t queue_due_ms; /* when queue_timer fires */
    struct ml_slot *slots;
    unsigned slot_count;

    struct ml_breaker breaker;
    char last_failure[128];

    char *token; /* "Authorization: Bearer ..." */
    size_t token_n;
    uint64_t token_read_ms; /* 0: read it again */

    uint64_t requests, failures, rejected;
};
TAILQ_HEAD(ml_upstream_list, ml_upstream);

struct ml_client {
    struct ml_client_options options;
    uv_idle_t deliver; /* active while something is ready */
    struct ml_fetch_list ready;
    size_t ready_count;
    struct ml_upstream_list upstreams;
    unsigned upstream_count;
    unsigned shutting; /* upstreams whose handles are not gone yet */
    bool closing;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

/* client.c: f is on no list; its result is set. */
void ml_client_deliver(struct ml_client *c, struct ml_fetch *f);
void ml_client_check_closed(struct ml_client *c);

/* upstream.c */
void ml_upstream_shut(struct ml_upstream *u);
void ml_upstream_handle_gone(struct ml_upstream *u);

/* token.c: the header line, or NULL with err. */
const char *ml_upstream_token(struct ml_upstream *u, uint64_t now_ms, struct ml_err *err);
void ml_upstream_forget_token(struct ml_upstream *u);

/* trust.c */
int ml_trust_check_ca(const char *pem, struct ml_err *err);
int ml_trust_check_pair(const char *cert_pem, const char *key_pem, struct ml_err *err);
/* CURLOPT_SSL_CTX_FUNCTION; arg is the slot. */
CURLcode ml_trust_apply(CURL *easy, void *ssl_ctx, void *arg);
void ml_trust_free(struct x509_store_st *trust);
const char *ml_trust_error_text(long verify_result);
void ml_trust_global_done(void);

/* multi.c */
int ml_multi_open(struct ml_upstream *u);
/* CURLOPT_CLOSESOCKETFUNCTION; arg is the upstream. */
int ml_multi_close_socket(void *arg, curl_socket_t fd);
/* Without running transfers. */
void ml_multi_close(struct ml_upstream *u);
/* Lets curl work and finishes what is done. */
void ml_multi_act(struct ml_upstream *u, curl_socket_t fd, int events);

/* transfer.c */
struct ml_slot *ml_slot_take(struct ml_upstream *u);
void ml_slot_give_back(struct ml_upstream *u, struct ml_slot *s);
void ml_slots_free(struct ml_upstream *u);
/* Sets what is this fetch's. */
CURLcode ml_transfer_prepare(struct ml_slot *s, struct ml_fetch *f, uint64_t left_ms);
/* Fills f->result from the transfer that ended with code. */
void ml_transfer_collect(struct ml_slot *s, struct ml_fetch *f, CURLcode code);

/* failure.c: fills error and text. */
void ml_failure(struct ml_fetch_result *r, int error, const char *text);
void ml_failure_by_code(struct ml_fetch_result *r, CURL *easy, CURLcode code);

/* request.c: checks and copies; 0 or negative. token: a header line to add, or NULL. */
int ml_fetch_build(struct ml_fetch **ret, const struct ml_fetch_request *r, const char *token,
                   struct ml_err *err);
void ml_fetch_free(struct ml_fetch *f);

/* fetch.c */
void ml_fetch_pump(struct ml_upstream *u);
void ml_fetch_finished(struct ml_fetch *f, CURLcode code);
/* Ends all of the upstream's fetches with that error. */
void ml_fetch_fail_all(struct ml_upstream *u, int error, const char *why);
void ml_fetch_fail_running(struct ml_upstream *u, int error, const char *why);
