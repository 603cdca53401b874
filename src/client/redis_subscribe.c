/* Messages: one connection that only listens. It is asked each second whether it is there; who
 * listens is told when it breaks and when it stands again, since what was said in between is lost.
 * One thread: the loop's. */
#include "client/redis_internal.h"

#include <stdio.h>

static void say_lost(struct ml_redis *r)
{
    if (!r->closing)
        r->on_message(r->on_message_ctx, ML_STR("lost"));
}

static void events_up(struct ml_redis_conn *c)
{
    say_lost(c->client);
}

static void events_down(struct ml_redis_conn *c, const char *why)
{
    struct ml_redis *r = c->client;
    struct ml_redis_seeker *e = &r->events;
    e->conn = NULL;
    if (r->closing)
        return;
    if (c->up_ms && uv_now(r->loop) - c->up_ms >= ML_REDIS_STEADY_MS)
        e->failures = 0;
    e->retry_ms = ml_redis_retry_at(r, ++e->failures);
    ml_redis_plan(r, e->retry_ms);
    if (c->up_ms)
        say_lost(r);
}

static void events_push(struct ml_redis_conn *c, const struct ml_redis_reply *reply)
{
    struct ml_redis *r = c->client;
    bool message = reply->type == ML_REDIS_ARRAY && reply->count == 3 &&
                   ml_str_eq(reply->items[0].text, ML_STR("message")) &&
                   ml_str_eq(reply->items[1].text, ml_str_z(r->channel));
    if (message && reply->items[2].text.n <= ML_REDIS_MESSAGE_BYTES)
        r->on_message(r->on_message_ctx, reply->items[2].text);
}

static const struct ml_redis_owner events_owner = {events_up, events_down, events_push};

/* A cluster's nodes pass messages on: any will do. */
static const struct ml_redis_node *choose(struct ml_redis *r)
{
    for (size_t i = 0; i < ML_REDIS_NODES_MAX; i++) {
        const struct ml_redis_node *node = &r->nodes[r->events.turn++ % ML_REDIS_NODES_MAX];
        if (node->used)
            return node;
    }
    return NULL;
}

static bool still_there(const struct ml_redis *r)
{
    for (size_t i = 0; i < ML_REDIS_NODES_MAX; i++)
        if (r->nodes[i].used &&
            ml_redis_same_address(&r->nodes[i].address, &r->events.conn->address))
            return true;
    return false;
}

void ml_redis_events_tend(struct ml_redis *r, uint64_t now)
{
    struct ml_redis_seeker *e = &r->events;
    if (!r->on_message || r->closing)
        return;
    if (e->conn && !still_there(r)) {
        e->failures = 0;
        ml_redis_conn_fail(e->conn, ML_E_UNAVAILABLE, "another node has the messages now");
        if (r->closing) /* whoever was told may have closed it */
            return;
    }
    const struct ml_redis_node *node = e->conn || e->retry_ms > now ? NULL : choose(r);
    if (node)
        e->conn = ml_redis_conn_open(r, ML_REDIS_EVENTS, &node->address, &events_owner, r);
    else if (!e->conn && e->retry_ms > now)
        ml_redis_plan(r, e->retry_ms);
}

void ml_redis_subscribe(struct ml_redis *r, const char *channel,
                        void (*fn)(void *ctx, struct ml_str message), void *ctx)
{
    r->channel = channel;
    r->on_message = fn;
    r->on_message_ctx = ctx;
    ml_redis_events_tend(r, uv_now(r->loop));
}
