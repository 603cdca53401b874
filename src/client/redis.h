/* Redis for one worker: connections that stay open, pipelined commands (RESP2), one node, a master
 * that sentinels name, or a cluster. hiredis reads and formats; sockets, TLS and time are ours.
 *
 * Each command has 250 ms. One that is late closes its connection, and with it ends all that wait
 * on it: an answer that comes too late finds nobody (S-172). What is broken is tried again after a
 * random time of at most a second; until then commands fail at once. Nothing is sent twice.
 *
 * A setup is immutable and any thread's; a client belongs to the thread of its loop. */
#pragma once

#include "base/err.h"
#include "base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

enum {
    ML_REDIS_PENDING_MAX = 1024, /* commands of a client; one more is ML_E_BUSY */
    ML_REDIS_ARGS_MAX = 512,
    ML_REDIS_REPLY_BYTES = 256 << 10,
    ML_REDIS_COMMAND_MS = 250,
    ML_REDIS_CONNECT_MS = 1000, /* resolve, connect, TLS, AUTH, SELECT */
    ML_REDIS_RETRY_MS = 1000,
};

enum ml_redis_mode { ML_REDIS_SINGLE, ML_REDIS_SENTINEL, ML_REDIS_CLUSTER };

struct ml_redis_options {
    /* "host:port" or a comma-separated list of at most 16: sentinels, or some nodes of the cluster.
     * Without a port it is 6379, of a sentinel 26379. */
    const char *addresses;
    const char *user, *password; /* NULL or "": none */
    unsigned db;                 /* a cluster has only 0 */
    enum ml_redis_mode mode;
    const char *master;  /* the name that sentinels know it by */
    bool tls;            /* always verified, by the name or address that is connected to */
    const char *ca_file; /* PEM, believed instead of the system's roots; NULL or "": those */
};

struct ml_redis_setup;
/* Checks and copies; reads ca_file. */
int ml_redis_setup_new(struct ml_redis_setup **ret, const struct ml_redis_options *options,
                       struct ml_err *err);
/* After the last client of it is closed. */
void ml_redis_setup_free(struct ml_redis_setup *s);

enum ml_redis_type {
    ML_REDIS_NIL,
    ML_REDIS_STRING,
    ML_REDIS_STATUS,
    ML_REDIS_ERROR,
    ML_REDIS_INTEGER,
    ML_REDIS_ARRAY,
};

struct ml_redis_reply {
    enum ml_redis_type type;
    struct ml_str text; /* STRING, STATUS, ERROR */
    long long integer;
    struct ml_redis_reply *items;
    size_t count;
};

/* Lives until done returns. error is 0 (reply is there and no ERROR) or ML_E_UNAVAILABLE,
 * ML_E_TIMEOUT, ML_E_BUSY, ML_E_TOOBIG, ML_E_CANCELED; text says why, in our words and the first
 * word of Redis': its sentences may repeat what it was sent. */
struct ml_redis_answer {
    int error;
    const char *text;
    const struct ml_redis_reply *reply;
};
typedef void (*ml_redis_done)(void *arg, const struct ml_redis_answer *answer);

struct ml_redis;
/* Starts connecting. */
int ml_redis_new(struct ml_redis **ret, uv_loop_t *loop, const struct ml_redis_setup *setup);
/* Ends what is under way with ML_E_CANCELED; closed(ctx) runs when the last handle is gone. */
void ml_redis_close(struct ml_redis *r, void (*closed)(void *ctx), void *ctx);

/* Every argument is sent as one bulk string, whatever is in it (S-171). key: which argument is the
 * key (a cluster needs to know); 0: none, any node will do. done (NULL: nobody asks) is called
 * once, perhaps before this returns. */
void ml_redis_call(struct ml_redis *r, const struct ml_str *args, size_t count, size_t key,
                   ml_redis_done done, void *arg);

/* Messages of one channel, on a connection of its own. fn gets the message "lost" whenever others
 * may have been missed: when the subscription breaks, and when it stands (again). Once per client.
 */
void ml_redis_subscribe(struct ml_redis *r, const char *channel,
                        void (*fn)(void *ctx, struct ml_str message), void *ctx);

/* Whether all nodes can be asked now. Sends a PING, so that one that hangs is found out. */
bool ml_redis_ready(struct ml_redis *r, struct ml_err *err);
