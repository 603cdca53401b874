/* An HTTP/1.1 server for one worker: connections, parsing (llhttp, strict), limits, deadlines,
 * pipelining in order, drain. Sans policy: a handler gets each request and answers it once, now or
 * later; how long it may take is the handler's own deadline. The process must ignore SIGPIPE. One
 * thread: that of its loop. */
#pragma once

#include "base/arena.h"
#include "base/str.h"
#include "codec/request.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct ml_http_limits {
    size_t target_bytes; /* 414 past it; default 16 KiB */
    size_t header_bytes; /* whole request head; 431 past it; default 64 KiB */
    size_t header_count; /* 431 past it; default 128 */
    size_t body_bytes;   /* 413 and close past it (chunk framing counts); after the answer: close;
                            default 64 KiB */
    size_t connections;  /* of this server; more are closed at once; default 20000 */
    uint32_t header_ms; /* from the first byte of a request to its last header: 408; default 5000 */
    uint32_t idle_ms;   /* before and between requests: closed; default 75000 */
    uint32_t body_ms;   /* for the body: 408; default 5000 */
    uint32_t write_ms;  /* for the peer to take an answer: closed; default 10000 */
};
extern const struct ml_http_limits ml_http_default_limits;

struct ml_http_server;
struct ml_exchange; /* one request and its one answer */

struct ml_http_request {
    struct ml_str method, target; /* target as sent */
    int minor;                    /* HTTP/1.minor */
    const struct ml_header *headers;
    size_t header_count;
    struct ml_str peer; /* address of the other end, no port */
    struct ml_str body; /* only when the server was made with keep_body; else empty */
};

struct ml_http_response {
    int status;
    const struct ml_header *headers; /* Content-Length, Date, Connection are added by the server */
    size_t header_count;
    struct ml_str body; /* not sent in answer to HEAD, nor with 204 and 304 */
    bool close;         /* end the connection after it */
};

/* Called outside the parser once the head (and a kept body) is complete. The slices of req live
 * until the reply. Requests that break the grammar or a limit never get here. */
typedef void (*ml_http_handler)(void *ctx, struct ml_exchange *x,
                                const struct ml_http_request *req);

struct ml_http_options {
    uv_loop_t *loop;
    const struct ml_http_limits *limits; /* NULL: the defaults; copied */
    ml_http_handler handler;
    void *ctx;
    void (*on_closed)(void *ctx); /* NULL allowed: a connection taken by ml_http_server_adopt is
                                     gone (also one that could not be served); once each */
    bool keep_body;               /* admin: give the body to the handler (bounded by body_bytes) */
};

int ml_http_server_new(struct ml_http_server **ret, const struct ml_http_options *options);
/* Takes fd (TCP or unix stream). Closes it when it cannot be served. */
void ml_http_server_adopt(struct ml_http_server *s, int fd, const char *peer);
/* From now on answers say "Connection: close" and idle connections are closed. */
void ml_http_server_drain(struct ml_http_server *s);
size_t ml_http_server_connections(const struct ml_http_server *s);
/* Closes everything now; exchanges in flight are cancelled. `closed` runs when the last handle is
 * gone (the server is freed after it). */
void ml_http_server_close(struct ml_http_server *s, void (*closed)(void *ctx), void *ctx);

struct ml_http_stats {
    uint64_t accepted, requests, rejected; /* rejected: answered by the server itself, 4xx/5xx */
};
struct ml_http_stats ml_http_server_stats(const struct ml_http_server *s);

/* The exchange's arena: reset after the reply. 256 KiB at most. */
struct ml_arena *ml_exchange_arena(struct ml_exchange *x);
/* Answers. Exactly once, or never after a cancel. Copies what it is given. A header or status that
 * is not valid HTTP, one of the fields that the server adds, more than 100 fields or 16 MiB become
 * a 500 without a body: never a malformed answer. The next request of the connection may reach the
 * handler before this returns. */
void ml_exchange_reply(struct ml_exchange *x, const struct ml_http_response *res);
/* When the connection is reset (or the server closes) before the reply: fn runs once, the exchange
 * is dead after it. A peer that only ends its side (FIN) is still answered. */
void ml_exchange_on_cancel(struct ml_exchange *x, void (*fn)(void *arg), void *arg);
