/* The server: its connections' lists and deadlines, drain and close. A coarse tick looks
 * at the oldest member of each list; no request starts or stops a timer. Runs on its loop; nothing
 * here is shared with another thread. */
#include "net/http1_internal.h"

#include "base/err.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

const struct ml_http_limits ml_http_default_limits = {
    .target_bytes = 16384,
    .header_bytes = 65536,
    .header_count = 128,
    .body_bytes = 65536,
    .connections = 20000,
    .header_ms = 5000,
    .idle_ms = 75000,
    .body_ms = 5000,
    .write_ms = 10000,
};

/* ---- lists ---- */

static void on_idle(uv_idle_t *idle);

static void unlink_conn(struct ml_http1_list *list, struct ml_http1_conn *c)
{
    if (c->prev)
        c->prev->next = c->next;
    else
        list->first = c->next;
    if (c->next)
        c->next->prev = c->prev;
    else
        list->last = c->prev;
    list->count--;
}

static void append_conn(struct ml_http1_list *list, struct ml_http1_conn *c)
{
    c->prev = list->last;
    c->next = NULL;
    if (list->last)
        list->last->next = c;
    else
        list->first = c;
    list->last = c;
    list->count++;
}

void ml_http1_wait(struct ml_http1_conn *c, enum ml_http1_wait wait)
{
    struct ml_http_server *s = c->server;
    if (c->wait == wait)
        return; /* its deadline runs on: a byte now and then does not move it */
    if (c->wait != HTTP1_WAITS)
        unlink_conn(&s->lists[c->wait], c);
    append_conn(&s->lists[wait], c);
    c->wait = wait;
    c->since = uv_now(s->loop);
    if (wait == HTTP1_READY)
        uv_idle_start(&s->idle, on_idle);
}

/* Each connection that was READY gets one turn; those that are READY again wait for the next one.
 */
static void on_idle(uv_idle_t *idle)
{
    struct ml_http_server *s = idle->data;
    struct ml_http1_list *ready = &s->lists[HTTP1_READY];
    for (size_t n = ready->count; n > 0 && ready->first; n--) {
        struct ml_http1_conn *c = ready->first;
        ml_http1_wait(c, HTTP1_HANDLER);
        ml_http1_run(c);
    }
    if (ready->count == 0)
        uv_idle_stop(idle);
}

static uint64_t allowance(const struct ml_http_server *s, enum ml_http1_wait wait)
{
    const struct ml_http_limits *l = &s->limits;
    switch (wait) {
    case HTTP1_IDLE: /* a connection that came while draining may still say something */
        return s->draining && l->header_ms < l->idle_ms ? l->header_ms : l->idle_ms;
    case HTTP1_HEADER:
        return l->header_ms;
    case HTTP1_BODY:
        return l->body_ms;
    case HTTP1_WRITE:
        return l->write_ms;
    default:
        return HTTP1_LINGER_MS;
    }
}

static void on_tick(uv_timer_t *tick)
{
    struct ml_http_server *s = tick->data;
    uint64_t now = uv_now(s->loop);
    bool late = now - s->ticked > 4 * s->tick_ms;
    s->ticked = now;
    if (late && !s->skipped) {
        s->skipped = true; /* the loop stood still: what the peers sent meanwhile is read first */
        return;
    }
    s->skipped = false;
    for (int wait = 0; wait < HTTP1_TIMED; wait++) {
        uint64_t allowed = allowance(s, wait);
        struct ml_http1_conn *c;
        while ((c = s->lists[wait].first) && now - c->since >= allowed)
            ml_http1_expire(c);
    }
}

static uint64_t tick_of(const struct ml_http_limits *l)
{
    uint32_t least = l->header_ms;
    const uint32_t others[] = {l->idle_ms, l->body_ms, l->write_ms, HTTP1_LINGER_MS};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        least = others[i] < least ? others[i] : least;
    return least / 8 < 10 ? 10 : least / 8;
}

/* ---- the server's life ---- */

int ml_http_server_new(struct ml_http_server **ret, const struct ml_http_options *options)
{
    struct ml_http_server *s = ML_NEW(struct ml_http_server);
    s->loop = options->loop;
    s->limits = options->limits ? *options->limits : ml_http_default_limits;
    s->handler = options->handler;
    s->ctx = options->ctx;
    s->on_closed = options->on_closed;
    s->keep_body = options->keep_body;
    s->tick_ms = tick_of(&s->limits);
    uv_timer_init(s->loop, &s->tick); /* neither can fail */
    uv_idle_init(s->loop, &s->idle);
    s->tick.data = s->idle.data = s;
    s->handles = 2;
    *ret = s;
    return 0;
}

static void tell_closed(struct ml_http_server *s)
{
    if (s->on_closed)
        s->on_closed(s->ctx);
}

void ml_http_server_adopt(struct ml_http_server *s, int fd, const char *peer)
{
    struct ml_http1_conn *c = NULL;
    if (!s->closing && s->connections < s->limits.connections)
        c = calloc(1, sizeof *c);
    if (!c) {
        close(fd);
        tell_closed(s);
        return;
    }
    c->server = s;
    c->wait = HTTP1_WAITS;
    snprintf(c->peer, sizeof c->peer, "%s", peer ? peer : "");
    s->connections++;
    s->stats.accepted++;
    if (s->connections == 1) {
        s->ticked = uv_now(s->loop);
        uv_timer_start(&s->tick, on_tick, s->tick_ms, s->tick_ms);
    }
    if (ml_http1_open(c, fd) < 0) {
        close(fd);
        if (c->wait == HTTP1_WAITS) { /* it never became a handle */
            s->connections--;
            free(c);
            tell_closed(s);
        }
    }
}

void ml_http_server_drain(struct ml_http_server *s)
{
    struct ml_http1_conn *next;
    s->draining = true;
    for (struct ml_http1_conn *c = s->lists[HTTP1_IDLE].first; c; c = next) {
        int unread = 0;
        next = c->next;
        /* A request that has arrived but was not read yet is still answered. */
        if (ioctl(c->fd, FIONREAD, &unread) == 0 && unread > 0)
            continue;
        ml_http1_close(c);
    }
}

size_t ml_http_server_connections(const struct ml_http_server *s)
{
    return s->connections;
}

struct ml_http_stats ml_http_server_stats(const struct ml_http_server *s)
{
    return s->stats;
}

static void handle_gone(struct ml_http_server *s)
{
    if (--s->handles > 0)
        return;
    if (s->closed)
        s->closed(s->closed_ctx);
    ml_http1_free_pools(s);
    free(s);
}

void ml_http1_gone(struct ml_http1_conn *c)
{
    struct ml_http_server *s = c->server;
    ml_http1_drop_exchange(c);
    ml_http1_drop_out(s, c->out);
    ml_http1_drop_out(s, c->sending);
    unlink_conn(&s->lists[HTTP1_CLOSED], c);
    tell_closed(s);
    free(c);
    if (--s->connections == 0 && !s->closing)
        uv_timer_stop(&s->tick);
    handle_gone(s);
}

static void on_own_closed(uv_handle_t *handle)
{
    handle_gone(handle->data);
}

void ml_http_server_close(struct ml_http_server *s, void (*closed)(void *ctx), void *ctx)
{
    if (s->closing)
        return;
    s->closing = true;
    s->closed = closed;
    s->closed_ctx = ctx;
    for (int wait = 0; wait < HTTP1_CLOSED; wait++)
        while (s->lists[wait].first)
            ml_http1_close(s->lists[wait].first);
    uv_close((uv_handle_t *)&s->tick, on_own_closed);
    uv_close((uv_handle_t *)&s->idle, on_own_closed);
}
