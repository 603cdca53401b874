/* What the files of the Redis client share. All of a client is on the thread of its loop.
 *
 *   redis_setup.c     the options, checked
 *   redis.c           the client: its nodes, whom a command goes to, what is tried again
 *   redis_command.c   a command's life: bounds, deadline, answer, redirection
 *   redis_conn.c      one connection's life; redis_greet.c its first commands, redis_io.c its bytes
 *   redis_reply.c     replies as trees
 *   redis_sentinel.c  who is master; redis_cluster.c who has which slot
 *   redis_subscribe.c messages */
#pragma once

#include "base/arena.h"
#include "base/buf.h"
#include "client/redis.h"

#include <hiredis/hiredis.h>
#include <sys/queue.h>

struct ssl_ctx_st;
struct ssl_st;

enum {
    ML_REDIS_ADDRESSES_MAX = 16,
    ML_REDIS_PENDING_BYTES = 8 << 20, /* of all commands of a client */
    ML_REDIS_OUT_BYTES = 16 << 20,    /* not yet taken by the socket */
    ML_REDIS_ARENA_BYTES = 512 << 10, /* a reply as a tree */
    ML_REDIS_ITEMS_MAX = 4096,        /* of one array */
    ML_REDIS_NODES_MAX = 64,
    ML_REDIS_SLOTS = 16384,
    ML_REDIS_REDIRECTS_MAX = 3,
    ML_REDIS_MESSAGE_BYTES = 4096,
    ML_REDIS_PING_MS = 1000,   /* of a connection that only listens */
    ML_REDIS_STEADY_MS = 1000, /* up for so long: its next failure is the first again */
    ML_REDIS_NO_NODE = 255,
};

struct ml_redis_address {
    char host[256], port[6];
};

struct ml_redis_setup {
    struct ml_redis_address addresses[ML_REDIS_ADDRESSES_MAX];
    size_t address_count;
    enum ml_redis_mode mode;
    char *user, *password, *master; /* "" when not given */
    char db[12];
    struct ssl_ctx_st *tls; /* NULL: without */
};

/* One allocation; the formatted bytes are hiredis'. */
struct ml_redis_command {
    TAILQ_ENTRY(ml_redis_command) all;  /* on the client's list, in the order of deadlines */
    TAILQ_ENTRY(ml_redis_command) link; /* on its connection's list or on the client's parked */
    struct ml_redis *client;
    struct ml_redis_conn *conn; /* NULL: parked, or on its way */
    bool parked, asking;        /* asking: ASKING goes before it */
    unsigned skip;              /* replies that come before its own */
    unsigned redirects;
    int slot;     /* -1: any node will do */
    uint64_t seq; /* the connection's count when it was written */
    uint64_t deadline_ms;
    char *wire;
    size_t wire_n;
    ml_redis_done done;
    void *arg;
};
TAILQ_HEAD(ml_redis_commands, ml_redis_command);

enum ml_redis_kind { ML_REDIS_DATA, ML_REDIS_WATCH, ML_REDIS_EVENTS };

enum ml_redis_step {
    ML_REDIS_AUTH,
    ML_REDIS_SELECT,
    ML_REDIS_PING,
    ML_REDIS_ROLE,
    ML_REDIS_MASTER,
    ML_REDIS_SUBSCRIBE,
};

/* Who has the connection. down comes exactly once and last; up and push perhaps before it. */
struct ml_redis_owner {
    void (*up)(struct ml_redis_conn *c);
    void (*down)(struct ml_redis_conn *c, const char *why);
    void (*push)(struct ml_redis_conn *c, const struct ml_redis_reply *reply);
};

enum ml_redis_state { ML_REDIS_CONNECTING, ML_REDIS_GREETING, ML_REDIS_UP, ML_REDIS_DEAD };

struct ml_redis_conn {
    struct ml_redis *client;
    enum ml_redis_kind kind;
    enum ml_redis_state state;
    const struct ml_redis_owner *owner;
    void *owner_arg;
    const char *channel; /* of EVENTS and WATCH */
    struct ml_redis_address address;
    unsigned handles; /* freed when dead and 0 */
    const char *soon; /* fail from the timer with this text; NULL: nothing of the kind */

    uv_getaddrinfo_t resolve;
    struct addrinfo *found, *next; /* next: to be tried */
    bool resolving;
    uv_tcp_t tcp;
    bool tcp_open;
    uv_connect_t connect;
    uv_timer_t timer; /* until up: the deadline; then PINGs of those that only listen */
    uint64_t up_ms, heard_ms;

    struct ssl_st *ssl; /* NULL: without TLS, or not yet */
    struct ml_buf out, sending;
    bool writing;
    uv_write_t write;
    redisReader *reader;
    struct ml_arena arena; /* of the reply being read */

    enum ml_redis_step steps[4];
    size_t step_count, step;
    struct ml_redis_address master;    /* what a sentinel said */
    struct ml_redis_commands commands; /* in the order in which they are answered */
    uint64_t written, askable;         /* askable: written before what is read now was */
};

struct ml_redis_node {
    struct ml_redis *client;
    bool used;
    struct ml_redis_address address;
    struct ml_redis_conn *conn; /* NULL: broken; tried again at retry_ms of the loop's time */
    uint64_t retry_ms;
    unsigned failures, slots;
    char why[256];
    bool reported; /* that it does not answer */
};

/* A connection to one of several places, tried in turn. */
struct ml_redis_seeker {
    struct ml_redis_conn *conn;
    size_t turn;
    uint64_t retry_ms;
    unsigned failures;
    char why[256];
};

struct ml_redis {
    uv_loop_t *loop;
    const struct ml_redis_setup *setup;
    bool closing;
    void (*closed)(void *ctx);
    void *closed_ctx;
    unsigned handles, conns; /* freed when closing and both are 0 */
    uv_timer_t deadline;     /* of the first command */
    bool late;               /* the deadline has passed: one more look at the sockets first */
    uv_timer_t tend;         /* when something is to be tried again */
    uint64_t tend_ms;

    struct ml_redis_commands commands, parked;
    size_t pending, pending_bytes;
    const struct ml_redis_conn *answering; /* while a done runs that got an answer */
    bool pinging;
    char ping_why[256]; /* "": the last PING was answered */

    struct ml_redis_node nodes[ML_REDIS_NODES_MAX]; /* not a cluster: only the first */
    size_t turn;                                    /* among them, for what has no key */

    struct ml_redis_seeker watch; /* sentinels */

    uint8_t slots[ML_REDIS_SLOTS]; /* cluster: which node, or NO_NODE */
    bool mapped, map_wanted, mapping;
    uint64_t map_ms; /* not before */

    struct ml_redis_seeker events;
    const char *channel;
    void (*on_message)(void *ctx, struct ml_str message);
    void *on_message_ctx;

    char scratch[64 << 10]; /* what is read from any socket */
};

/* redis_setup.c: "host:port", "[v6]:port", "host"; false when it is none. */
bool ml_redis_parse_address(struct ml_str text, const char *port, struct ml_redis_address *ret);
bool ml_redis_same_address(const struct ml_redis_address *a, const struct ml_redis_address *b);

/* redis.c */
/* At that time of the loop, or sooner, everything broken is looked at. */
void ml_redis_plan(struct ml_redis *r, uint64_t at_ms);
uint64_t ml_redis_retry_at(struct ml_redis *r, unsigned failures);
/* Finds somebody for the command, or ends it. */
void ml_redis_route(struct ml_redis_command *cmd);
void ml_redis_unpark(struct ml_redis *r, const char *why); /* why: end them; NULL: route them */
void ml_redis_node_send(struct ml_redis_node *node, struct ml_redis_command *cmd);
/* Has it connected as soon as the loop is back. */
void ml_redis_node_use(struct ml_redis_node *node, const struct ml_redis_address *address);
void ml_redis_check_closed(struct ml_redis *r);

/* redis_command.c */
void ml_redis_command_reply(struct ml_redis_command *cmd, struct ml_redis_conn *c,
                            const struct ml_redis_reply *reply);
void ml_redis_command_end(struct ml_redis_command *cmd, int error, const char *text,
                          const struct ml_redis_reply *reply);
/* "READONLY" of "READONLY You can't write ...": upper case letters only; else "ERR". */
void ml_redis_code(const struct ml_redis_reply *reply, char out[24]);

/* redis_conn.c */
struct ml_redis_conn *ml_redis_conn_open(struct ml_redis *r, enum ml_redis_kind kind,
                                         const struct ml_redis_address *address,
                                         const struct ml_redis_owner *owner, void *arg);
/* Behind all others; written as soon as the connection is up. */
void ml_redis_conn_send(struct ml_redis_conn *c, struct ml_redis_command *cmd);
/* Ends it and all that waits on it. The memory is there until the loop has run. */
void ml_redis_conn_fail(struct ml_redis_conn *c, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* All steps are done. */
void ml_redis_conn_up(struct ml_redis_conn *c);
/* A whole reply. */
void ml_redis_conn_deliver(struct ml_redis_conn *c, const struct ml_redis_reply *reply);

/* redis_io.c */
/* The socket is connected. */
void ml_redis_io_start(struct ml_redis_conn *c);
void ml_redis_io_write(struct ml_redis_conn *c, const char *p, size_t n);
/* Formats and writes; a credential may be among them. */
void ml_redis_io_command(struct ml_redis_conn *c, const char *const *words, size_t count);
void ml_redis_io_done(struct ml_redis_conn *c);

/* redis_tls.c */
int ml_redis_tls_setup(struct ssl_ctx_st **ret, const char *ca_file, struct ml_err *err);
void ml_redis_tls_free(struct ssl_ctx_st *ctx);
struct ssl_st *ml_redis_tls_new(struct ssl_ctx_st *ctx, const char *host);
void ml_redis_tls_done(struct ssl_st *ssl);
/* Goes on with the handshake; 1: done, 0: more is needed, negative: failed, with err. */
int ml_redis_tls_shake(struct ssl_st *ssl, struct ml_err *err);
void ml_redis_tls_put(struct ssl_st *ssl, const char *p, size_t n); /* what the peer sent */
/* What it said: bytes; 0: nothing yet; negative: the end, with err. */
int ml_redis_tls_read(struct ssl_st *ssl, char *out, size_t n, struct ml_err *err);
bool ml_redis_tls_write(struct ssl_st *ssl, const char *p, size_t n);
/* Moves what is to be sent to out. */
bool ml_redis_tls_take(struct ssl_st *ssl, struct ml_buf *out);

/* redis_greet.c */
void ml_redis_greet(struct ml_redis_conn *c);
void ml_redis_greet_reply(struct ml_redis_conn *c, const struct ml_redis_reply *reply);

/* redis_reply.c: a reader whose replies are in the arena; NULL without memory. */
redisReader *ml_redis_reader_new(struct ml_arena *arena);

/* redis_sentinel.c */
void ml_redis_watch_tend(struct ml_redis *r, uint64_t now);
/* The master is not what it was: the next sentinel is asked. */
void ml_redis_watch_doubt(struct ml_redis *r);

/* redis_cluster.c */
void ml_redis_cluster_init(struct ml_redis *r);
void ml_redis_cluster_tend(struct ml_redis *r, uint64_t now);
void ml_redis_cluster_doubt(struct ml_redis *r);
int ml_redis_slot_of(struct ml_str key);
/* MOVED and ASK: false when the command must end. */
bool ml_redis_redirect(struct ml_redis_command *cmd, const struct ml_redis_conn *from,
                       struct ml_str error);

/* redis_subscribe.c */
void ml_redis_events_tend(struct ml_redis *r, uint64_t now);
