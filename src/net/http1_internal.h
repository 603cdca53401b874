/* What the files of the HTTP/1.1 server share. All of it lives on the server's loop.
 *
 * A connection holds an exchange (buffer, parser, header table, arena) only from the first byte of
 * a request to its answer; idle connections hold none. Every connection is in exactly one list,
 * which is also its deadline. */
#pragma once

#include "base/buf.h"
#include "net/http1.h"

#include <llhttp.h>

enum {
    HTTP1_BUFFER = 4096,       /* an exchange's first buffer */
    HTTP1_BUFFER_KEEP = 16384, /* larger ones are not kept in the pool */
    HTTP1_ROOM = 512,          /* less free space than this: make room before reading */
    HTTP1_POOL = 256,          /* exchanges and outputs kept for later */
    HTTP1_ARENA = 256 * 1024,  /* bound of an exchange's arena */
    HTTP1_OUT = 16 << 20,      /* bound of one answer */
    HTTP1_FLUSH = 64 * 1024,   /* collected answers are flushed past this */
    HTTP1_BATCH = 64,          /* requests answered per wake-up of a connection */
    HTTP1_LINGER_MS = 1000,    /* after our FIN, wait so long for the peer's */
    HTTP1_LINGER = 256 * 1024, /* and throw so many bytes away */
    HTTP1_RESPONSE_HEADERS = 100,
};

/* What a connection waits for. The kinds up to HTTP1_TIMED expire in the order in which they were
 * entered. */
enum ml_http1_wait {
    HTTP1_IDLE, /* a first byte */
    HTTP1_HEADER,
    HTTP1_BODY,
    HTTP1_WRITE,
    HTTP1_LINGERING,
    HTTP1_TIMED,
    HTTP1_READY = HTTP1_TIMED, /* its turn: there are requests in its buffer */
    HTTP1_HANDLER,             /* the handler's reply */
    HTTP1_CLOSED,              /* the close callback */
    HTTP1_WAITS,
};

enum ml_http1_phase {
    HTTP1_IN_HEAD,   /* before and in a request head */
    HTTP1_KEEP_BODY, /* reading a body for the handler */
    HTTP1_PENDING,   /* the handler has it */
    HTTP1_SKIP_BODY, /* answered; its body is thrown away */
    HTTP1_LAST,      /* nothing more is parsed: write, linger, close */
};

struct ml_exchange {
    struct ml_exchange *next; /* in the pool */
    struct ml_http1_conn *conn;
    llhttp_t parser;
    struct ml_arena arena;
    /* [start, at) is parsed of this message, [at, n) is not; the slices of request point into it.
     */
    char *buf;
    size_t cap, start, at, n;
    struct ml_http_request request;
    struct ml_header *headers; /* header_cap of them */
    size_t header_cap;
    size_t body_wire; /* bytes of the body as sent, chunk framing included */
    struct ml_buf body;
    int status; /* of the refusal when a parser callback stopped */
    bool head_done, message_done;
    bool keep_alive; /* what the client asked */
    bool is_head;
    bool pending; /* the handler owes a reply */
    void (*on_cancel)(void *arg);
    void *cancel_arg;
};

/* Answers on their way out. */
struct ml_http1_out {
    struct ml_http1_out *next;
    uv_write_t req;
    struct ml_http1_conn *conn;
    struct ml_buf buf;
};

struct ml_http1_conn {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } uv;
    int fd; /* the handle's */
    struct ml_http_server *server;
    struct ml_http1_conn *prev, *next; /* in the list of `wait` */
    enum ml_http1_wait wait;
    uint64_t since; /* loop time at which it entered the list */
    enum ml_http1_phase phase;
    struct ml_exchange *x;        /* NULL when idle */
    struct ml_http1_out *out;     /* answers being collected, or NULL */
    struct ml_http1_out *sending; /* with uv_write, or NULL */
    size_t lingered;
    bool running;  /* in ml_http1_run */
    bool reading;  /* uv_read_start is on */
    bool eof;      /* the peer's FIN was read */
    bool shut;     /* our FIN was sent */
    bool crlf;     /* the one empty line before a request was there (RFC 9112 2.2) */
    char peer[48]; /* INET6_ADDRSTRLEN is 46 */
};

struct ml_http1_list {
    struct ml_http1_conn *first, *last;
    size_t count;
};

struct ml_http_server {
    uv_loop_t *loop;
    struct ml_http_limits limits;
    ml_http_handler handler;
    void *ctx;
    void (*on_closed)(void *ctx);
    bool keep_body, draining, closing;
    uv_timer_t tick; /* runs while there are connections */
    uv_idle_t idle;  /* runs while somebody is READY */
    uint64_t tick_ms, ticked;
    bool skipped; /* the last tick did nothing */
    size_t connections, handles;
    struct ml_http1_list lists[HTTP1_WAITS];
    struct ml_http_stats stats;
    struct ml_exchange *exchanges; /* the pools */
    struct ml_http1_out *outs;
    size_t exchange_count, out_count;
    uint64_t date_until; /* loop time */
    char date[40];       /* the whole field line */
    size_t date_n;
    void (*closed)(void *ctx);
    void *closed_ctx;
    char scratch[16384]; /* what is read only to be thrown away */
};

/* http1.c */
void ml_http1_wait(struct ml_http1_conn *c, enum ml_http1_wait wait);
void ml_http1_gone(struct ml_http1_conn *c); /* its handle is closed: frees it */

/* http1_pool.c */
struct ml_exchange *ml_http1_take_exchange(struct ml_http1_conn *c); /* NULL: no memory */
void ml_http1_drop_exchange(struct ml_http1_conn *c);
struct ml_http1_out *ml_http1_take_out(struct ml_http1_conn *c);
void ml_http1_drop_out(struct ml_http_server *s, struct ml_http1_out *out);
void ml_http1_free_pools(struct ml_http_server *s);

/* http1_conn.c */
int ml_http1_open(struct ml_http1_conn *c, int fd);
void ml_http1_expire(struct ml_http1_conn *c);
/* Parses and answers what can be; then flushes and decides what to wait for. */
void ml_http1_run(struct ml_http1_conn *c);
void ml_http1_close(struct ml_http1_conn *c);

/* http1_parse.c. 0: more bytes are needed; 1: complete; else the status of a refusal. */
void ml_http1_parse_init(struct ml_exchange *x);
int ml_http1_parse_head(struct ml_exchange *x);
int ml_http1_parse_body(struct ml_exchange *x);
/* Makes room for a read, by moving or growing the buffer. false: there is none. */
bool ml_http1_make_room(struct ml_exchange *x);

/* http1_check.c. What llhttp does not check of a head: 1, or the status of a refusal. */
int ml_http1_check_head(struct ml_exchange *x);

/* http1_write.c. Both add to the connection's output; false when there is no memory. */
bool ml_http1_write_response(struct ml_exchange *x, const struct ml_http_response *res, bool close);
bool ml_http1_write_error(struct ml_http1_conn *c, int status);
/* Sends what can be sent at once and leaves the rest to libuv (c->sending). Negative: the peer is
 * gone. */
int ml_http1_flush(struct ml_http1_conn *c);
