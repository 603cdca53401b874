/* Outbound HTTP for one worker: curl multi on uv, one pool of connections per upstream, deadlines,
 * size caps, a circuit breaker, a bound on what is in flight. No redirects, no cookies, no proxies
 * from the environment, http and https only, TLS always verified. One thread: that of its loop. */
#pragma once

#include "base/err.h"
#include "base/str.h"
#include "codec/request.h"

#include <stdint.h>
#include <uv.h>

struct ml_client;
struct ml_upstream;
struct ml_fetch;

struct ml_client_options {
    uv_loop_t *loop;
    uint32_t connect_ms; /* default 1000 */
    unsigned in_flight;  /* per upstream, default 64; further ones wait in a queue */
    unsigned queue;      /* per upstream, default 1024; further ones fail at once with ML_E_BUSY */
    unsigned open_after; /* failures within 10 s, no success between them, that open the breaker:
                            default 5, at most 32 */
    uint32_t probe_ms;   /* an open breaker lets one request through so often, default 1000 */
};
/* All bounds are per client, that is, per worker.
 *
 * The breaker's failures are network errors, timeouts of at least connect_ms, 5xx and 429; anything
 * else that the upstream answers is a success. A 429 opens it at once for what Retry-After asks
 * (RFC 9110 10.2.3), 1 to 60 s. When it opens, what waits in the queue fails too. */

int ml_client_new(struct ml_client **ret, const struct ml_client_options *options);
/* Fails all transfers (their callbacks run, ML_E_CANCELED), closes; closed(ctx) runs when the last
 * handle is gone. */
void ml_client_close(struct ml_client *c, void (*closed)(void *ctx), void *ctx);

/* Who is asked, and how it is known. Two upstreams never share a connection (S-160). Texts are
 * copied. */
struct ml_upstream_options {
    const char *name;    /* for metrics, logs and errors */
    const char *ca_file; /* PEM added to the system roots; NULL or "": none */
    const char *ca_pem;  /* PEM text that replaces the system roots (a cluster's CA); NULL: none */
    const char *cert_pem, *key_pem; /* client certificate; NULL: none */
    /* Its trimmed content is sent as "Authorization: Bearer" unless the request brings its own:
     * re-read at most each 10 s, and after a 401; unreadable: the fetch fails. NULL: none */
    const char *token_file;
};
/* The upstream of exactly these options: the same one for the same options as long as anybody holds
 * it (of ca_file the content counts). NULL with err when a file cannot be read or is no PEM, and
 * past 256 upstreams. A holder may outlive the client: only unref is left to do then. */
struct ml_upstream *ml_upstream_get(struct ml_client *c, const struct ml_upstream_options *options,
                                    struct ml_err *err);
void ml_upstream_unref(struct ml_upstream *u);

/* The URL is http(s)://host[:port]/..., ASCII, at most 8 KiB, without user, fragment, backslash or
 * IPv6 zone. Of headers at most 64 and 64 KiB, checked by ml_header_name_ok and ml_header_value_ok;
 * those of the connection itself (Content-Length, Transfer-Encoding, Connection, ...) are refused.
 * The body is at most 256 KiB. */
struct ml_fetch_request {
    struct ml_upstream *upstream;
    struct ml_str method, url;
    const struct ml_header *headers;
    size_t header_count;
    struct ml_str bearer; /* sent as "Authorization: Bearer ..."; empty: none */
    struct ml_str body;
    uint32_t timeout_ms; /* total, 1 to 60000 */
    size_t max_body;     /* of the answer; 0: 1 MiB */
};

struct ml_fetch_result {
    int error;      /* 0, or ML_E_TIMEOUT, ML_E_UNAVAILABLE, ML_E_TOOBIG, ML_E_BUSY, ML_E_CANCELED,
                       ML_E_INVALID */
    char text[256]; /* of an error: what happened, for the log: "connection refused"; no URL query,
                       no credential */
    int status;
    struct ml_header *headers; /* names lower case; at most 64 KiB and 200 of them */
    size_t header_count;
    struct ml_str body; /* as sent: never decoded */
    uint32_t elapsed_ms;
};
void ml_fetch_result_free(struct ml_fetch_result *r);

/* result is the callee's. Runs on the client's loop, outside curl's callbacks, never from within
 * ml_fetch_start. */
typedef void (*ml_fetch_done)(void *arg, struct ml_fetch_result *result);

/* Copies the request. An error return (bad URL, breaker open: ML_E_UNAVAILABLE, queue full:
 * ML_E_BUSY) means that `done` will not run. */
int ml_fetch_start(struct ml_client *c, const struct ml_fetch_request *request, ml_fetch_done done,
                   void *arg, struct ml_fetch **ret, struct ml_err *err);
/* `done` will not run. Not to be called after `done` has. */
void ml_fetch_cancel(struct ml_fetch *f);

/* Per upstream, for /metrics; calls fn for each. Counters are monotonic. Same thread as the client.
 */
struct ml_upstream_stats {
    const char *name;
    uint64_t requests, failures, rejected; /* rejected: by breaker or queue */
    unsigned in_flight, queued;
    bool open;
};
void ml_client_stats(struct ml_client *c, void (*fn)(void *ctx, const struct ml_upstream_stats *s),
                     void *ctx);

/* Once per process, before any thread. Fails when libcurl was not built with OpenSSL. */
int ml_client_global_init(void);
void ml_client_global_done(void);
