/* One connection to Redis, with one life: resolve, connect, greet, up, dead. It is never repaired;
 * its owner opens another. Commands wait on its list in the order in which they are answered.
 *
 * Freed when it is dead and its last handle has closed; until then callbacks may still look at its
 * state. One thread: the loop's. */
#include "client/redis_internal.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void connect_next(struct ml_redis_conn *c);

static void handle_gone(struct ml_redis_conn *c)
{
    if (--c->handles > 0 || c->state != ML_REDIS_DEAD)
        return;
    struct ml_redis *r = c->client;
    uv_freeaddrinfo(c->found);
    ml_redis_io_done(c);
    free(c);
    r->conns--;
    ml_redis_check_closed(r);
}

static void on_timer_closed(uv_handle_t *handle)
{
    handle_gone(handle->data);
}

static void on_tcp_closed(uv_handle_t *handle)
{
    struct ml_redis_conn *c = handle->data;
    c->tcp_open = false;
    if (c->state != ML_REDIS_DEAD) /* the next address; the handle that is gone counts for it */
        connect_next(c);
    else
        handle_gone(c);
}

void ml_redis_conn_fail(struct ml_redis_conn *c, int error, const char *format, ...)
{
    if (c->state == ML_REDIS_DEAD)
        return;
    char why[200], text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    snprintf(text, sizeof text, "Redis %.40s:%s: %s", c->address.host, c->address.port, why);
    c->state = ML_REDIS_DEAD;
    uv_close((uv_handle_t *)&c->timer, on_timer_closed);
    if (c->tcp_open && !uv_is_closing((uv_handle_t *)&c->tcp))
        uv_close((uv_handle_t *)&c->tcp, on_tcp_closed);
    if (c->resolving)
        uv_cancel((uv_req_t *)&c->resolve);
    c->owner->down(c, text);
    struct ml_redis_command *cmd;
    while ((cmd = TAILQ_FIRST(&c->commands))) {
        TAILQ_REMOVE(&c->commands, cmd, link);
        cmd->conn = NULL;
        ml_redis_command_end(cmd, error, text, NULL);
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct ml_redis_conn *c = timer->data;
    uint64_t now = uv_now(c->client->loop);
    static const char *const ping = "PING";
    if (c->soon)
        ml_redis_conn_fail(c, ML_E_UNAVAILABLE, "%s", c->soon);
    else if (c->state != ML_REDIS_UP)
        ml_redis_conn_fail(c, ML_E_TIMEOUT, "not connected within %d ms", ML_REDIS_CONNECT_MS);
    else if (now - c->heard_ms > 2 * ML_REDIS_PING_MS)
        ml_redis_conn_fail(c, ML_E_TIMEOUT, "silent for %d ms", 2 * ML_REDIS_PING_MS);
    else
        ml_redis_io_command(c, &ping, 1);
}

/* From the timer: who opens a connection has it when the call is back. */
static void fail_soon(struct ml_redis_conn *c, const char *why)
{
    c->soon = why;
    uv_timer_start(&c->timer, on_timer, 0, 0);
}

static void on_connect(uv_connect_t *req, int status)
{
    struct ml_redis_conn *c = req->data;
    if (c->state == ML_REDIS_DEAD)
        return;
    if (status == 0)
        ml_redis_io_start(c);
    else if (c->next)
        uv_close((uv_handle_t *)&c->tcp, on_tcp_closed);
    else
        ml_redis_conn_fail(c, ML_E_UNAVAILABLE, "%s", uv_strerror(status));
}

static void connect_to(struct ml_redis_conn *c, const struct sockaddr *address)
{
    uv_tcp_init(c->client->loop, &c->tcp);
    c->tcp.data = c->connect.data = c;
    c->tcp_open = true;
    uv_tcp_nodelay(&c->tcp, 1);
    uv_tcp_keepalive(&c->tcp, 1, 60);
    int r = uv_tcp_connect(&c->connect, &c->tcp, address, on_connect);
    if (r < 0)
        fail_soon(c, uv_strerror(r));
}

static void connect_next(struct ml_redis_conn *c)
{
    const struct addrinfo *address = c->next;
    c->next = address->ai_next;
    connect_to(c, address->ai_addr);
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *found)
{
    struct ml_redis_conn *c = req->data;
    c->resolving = false;
    c->found = c->next = found;
    if (c->state == ML_REDIS_DEAD) {
        handle_gone(c);
        return;
    }
    /* The handle that counted for the request counts for the socket from now on, or it is gone
     * before the failure (which needs the timer's) ends. */
    if (status == 0 && found) {
        connect_next(c);
    } else {
        c->handles--;
        ml_redis_conn_fail(c, ML_E_UNAVAILABLE, "the name has no address: %s", uv_strerror(status));
    }
}

/* What is an address already needs no thread. Of libuv's threads, look-ups never take more than
 * half, and one that has not begun is cancelled with its connection. */
static void start(struct ml_redis_conn *c)
{
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    int port = atoi(c->address.port);
    c->handles++;
    if (uv_ip4_addr(c->address.host, port, &v4) == 0) {
        connect_to(c, (struct sockaddr *)&v4);
    } else if (uv_ip6_addr(c->address.host, port, &v6) == 0) {
        connect_to(c, (struct sockaddr *)&v6);
    } else {
        c->resolve.data = c;
        c->resolving = uv_getaddrinfo(c->client->loop, &c->resolve, on_resolved, c->address.host,
                                      c->address.port, &hints) == 0;
        if (!c->resolving) {
            c->handles--;
            fail_soon(c, "the name cannot be looked up");
        }
    }
}

struct ml_redis_conn *ml_redis_conn_open(struct ml_redis *r, enum ml_redis_kind kind,
                                         const struct ml_redis_address *address,
                                         const struct ml_redis_owner *owner, void *arg)
{
    struct ml_redis_conn *c = ML_NEW(struct ml_redis_conn);
    c->client = r;
    c->kind = kind;
    c->owner = owner;
    c->owner_arg = arg;
    c->address = *address;
    c->channel = kind == ML_REDIS_WATCH ? "+switch-master" : r->channel;
    ml_buf_init(&c->out, ML_REDIS_OUT_BYTES);
    ml_buf_init(&c->sending, ML_REDIS_OUT_BYTES);
    ml_arena_init(&c->arena, ML_REDIS_ARENA_BYTES);
    TAILQ_INIT(&c->commands);
    uv_timer_init(r->loop, &c->timer);
    c->timer.data = c;
    c->handles = 1;
    r->conns++;
    uv_timer_start(&c->timer, on_timer, ML_REDIS_CONNECT_MS, 0);
    start(c);
    return c;
}

static void write_command(struct ml_redis_conn *c, struct ml_redis_command *cmd)
{
    static const char *const asking = "ASKING";
    cmd->seq = ++c->written;
    cmd->skip = cmd->asking ? 1 : 0;
    cmd->asking = false;
    if (cmd->skip > 0)
        ml_redis_io_command(c, &asking, 1);
    if (c->state == ML_REDIS_UP) /* else cmd is gone */
        ml_redis_io_write(c, cmd->wire, cmd->wire_n);
}

void ml_redis_conn_send(struct ml_redis_conn *c, struct ml_redis_command *cmd)
{
    TAILQ_INSERT_TAIL(&c->commands, cmd, link);
    cmd->conn = c;
    if (c->state == ML_REDIS_UP)
        write_command(c, cmd);
}

void ml_redis_conn_up(struct ml_redis_conn *c)
{
    c->state = ML_REDIS_UP;
    c->up_ms = c->heard_ms = uv_now(c->client->loop);
    uv_timer_stop(&c->timer);
    if (c->kind != ML_REDIS_DATA)
        uv_timer_start(&c->timer, on_timer, ML_REDIS_PING_MS, ML_REDIS_PING_MS);
    struct ml_redis_command *cmd;
    TAILQ_FOREACH(cmd, &c->commands, link)
    {
        write_command(c, cmd);
        if (c->state != ML_REDIS_UP) /* they are all gone */
            return;
    }
    c->owner->up(c);
}

void ml_redis_conn_deliver(struct ml_redis_conn *c, const struct ml_redis_reply *reply)
{
    struct ml_redis_command *cmd = TAILQ_FIRST(&c->commands);
    c->heard_ms = uv_now(c->client->loop);
    if (c->state == ML_REDIS_GREETING) {
        ml_redis_greet_reply(c, reply);
    } else if (c->kind != ML_REDIS_DATA) {
        c->owner->push(c, reply);
    } else if (!cmd || cmd->seq > c->askable) {
        ml_redis_conn_fail(c, ML_E_UNAVAILABLE, "a reply that nobody waits for");
    } else if (cmd->skip > 0) {
        cmd->skip--;
    } else {
        TAILQ_REMOVE(&c->commands, cmd, link);
        cmd->conn = NULL;
        ml_redis_command_reply(cmd, c, reply);
    }
}
