/* The client: nodes with a connection each, whom a command goes to, and one timer for all that is
 * to be tried again. One node, a master that sentinels name, or the nodes of a cluster differ only
 * in who fills the list. One thread: the loop's. */
#include "client/redis.h"

#include "base/log.h"
#include "base/mem.h"
#include "client/redis_internal.h"

#include <stdio.h>
#include <stdlib.h>

/* Nodes --------------------------------------------------------------------------------------- */

/* 10 to 20 ms after the first failure, twice that after the next, at last 500 to 1000. */
uint64_t ml_redis_retry_at(struct ml_redis *r, unsigned failures)
{
    unsigned random = 0;
    unsigned span = failures < 7 ? 10u << (failures ? failures - 1 : 0) : ML_REDIS_RETRY_MS / 2;
    ml_random(&random, sizeof random);
    return uv_now(r->loop) + span + random % (span + 1);
}

static const char *hopeless(const struct ml_redis *r);

static void node_up(struct ml_redis_conn *c)
{
    struct ml_redis_node *node = c->owner_arg;
    if (node->reported)
        ml_log(ML_LOG_INFO, "Redis answers again", ML_FZ("host", node->address.host),
               ML_FZ("port", node->address.port));
    node->reported = false;
    node->why[0] = node->client->ping_why[0] = '\0';
    ml_redis_unpark(node->client, NULL);
}

static void node_down(struct ml_redis_conn *c, const char *why)
{
    struct ml_redis_node *node = c->owner_arg;
    struct ml_redis *r = node->client;
    node->conn = NULL;
    if (r->closing || !node->used)
        return;
    if (c->up_ms && uv_now(r->loop) - c->up_ms >= ML_REDIS_STEADY_MS)
        node->failures = 0;
    snprintf(node->why, sizeof node->why, "%s", why);
    node->retry_ms = ml_redis_retry_at(r, ++node->failures);
    /* That an idle connection was closed is no news, if the next one comes up. */
    if (!node->reported && (node->failures > 1 || !c->up_ms || !TAILQ_EMPTY(&c->commands))) {
        ml_log(ML_LOG_WARN, "Redis does not answer", ML_FZ("error", why));
        node->reported = true;
    }
    ml_redis_plan(r, node->retry_ms);
    if (r->setup->mode == ML_REDIS_SENTINEL)
        ml_redis_watch_doubt(r);
    else if (r->setup->mode == ML_REDIS_CLUSTER)
        ml_redis_cluster_doubt(r);
    if (hopeless(r))
        ml_redis_unpark(r, hopeless(r));
}

static const struct ml_redis_owner node_owner = {node_up, node_down, NULL};

static void node_tend(struct ml_redis_node *node, uint64_t now)
{
    if (!node->used || node->conn)
        return;
    if (node->retry_ms <= now)
        node->conn =
            ml_redis_conn_open(node->client, ML_REDIS_DATA, &node->address, &node_owner, node);
    else
        ml_redis_plan(node->client, node->retry_ms);
}

void ml_redis_node_send(struct ml_redis_node *node, struct ml_redis_command *cmd)
{
    node_tend(node, uv_now(node->client->loop));
    if (node->conn)
        ml_redis_conn_send(node->conn, cmd);
    else
        ml_redis_command_end(cmd, ML_E_UNAVAILABLE, node->why, NULL);
}

void ml_redis_node_use(struct ml_redis_node *node, const struct ml_redis_address *address)
{
    struct ml_redis_conn *old = node->conn;
    node->used = false;
    if (old)
        ml_redis_conn_fail(old, ML_E_UNAVAILABLE, "is not the master any more");
    node->used = true;
    node->address = *address;
    node->failures = 0;
    node->slots = 0;
    node->reported = false;
    node->retry_ms = uv_now(node->client->loop);
    snprintf(node->why, sizeof node->why, "%s", old ? "Redis: a new master" : "");
    ml_redis_plan(node->client, node->retry_ms);
}

/* Commands ------------------------------------------------------------------------------------ */

static struct ml_redis_node *any_node(struct ml_redis *r)
{
    for (size_t i = 0; i < ML_REDIS_NODES_MAX; i++) {
        struct ml_redis_node *node = &r->nodes[r->turn++ % ML_REDIS_NODES_MAX];
        if (node->used && node->conn && node->conn->state == ML_REDIS_UP)
            return node;
    }
    return NULL;
}

/* In a cluster, what has no key goes to anyone; so does what has one as long as nobody knows where
 * it belongs: the answer will tell. */
static struct ml_redis_node *node_of(struct ml_redis *r, int slot)
{
    if (r->setup->mode != ML_REDIS_CLUSTER)
        return r->nodes[0].used ? &r->nodes[0] : NULL;
    if (slot >= 0 && r->slots[slot] != ML_REDIS_NO_NODE && r->nodes[r->slots[slot]].used)
        return &r->nodes[r->slots[slot]];
    return any_node(r);
}

/* Why nobody will be found soon; NULL: somebody is being asked or connected to. */
static const char *hopeless(const struct ml_redis *r)
{
    const char *why = "Redis: no node";
    if (r->setup->mode != ML_REDIS_CLUSTER)
        return r->watch.failures >= r->setup->address_count ? r->watch.why : NULL;
    for (size_t i = 0; i < ML_REDIS_NODES_MAX; i++) {
        if (r->nodes[i].used && r->nodes[i].conn)
            return NULL;
        if (r->nodes[i].used)
            why = r->nodes[i].why;
    }
    return why;
}

void ml_redis_route(struct ml_redis_command *cmd)
{
    struct ml_redis *r = cmd->client;
    struct ml_redis_node *node = node_of(r, cmd->slot);
    const char *why = node ? NULL : hopeless(r);
    if (node) {
        ml_redis_node_send(node, cmd);
    } else if (why) {
        ml_redis_command_end(cmd, ML_E_UNAVAILABLE, why, NULL);
    } else {
        cmd->parked = true;
        TAILQ_INSERT_TAIL(&r->parked, cmd, link);
    }
}

void ml_redis_unpark(struct ml_redis *r, const char *why)
{
    struct ml_redis_commands parked = TAILQ_HEAD_INITIALIZER(parked);
    struct ml_redis_command *cmd;
    TAILQ_CONCAT(&parked, &r->parked, link); /* what is parked again waits for the next time */
    while ((cmd = TAILQ_FIRST(&parked))) {
        TAILQ_REMOVE(&parked, cmd, link);
        cmd->parked = false;
        if (r->closing)
            ml_redis_command_end(cmd, ML_E_CANCELED, "Redis: the client is closing", NULL);
        else if (why)
            ml_redis_command_end(cmd, ML_E_UNAVAILABLE, why, NULL);
        else
            ml_redis_route(cmd);
    }
}

/* What is tried again ------------------------------------------------------------------------- */

static void tend(struct ml_redis *r)
{
    uint64_t now = uv_now(r->loop);
    r->tend_ms = UINT64_MAX;
    for (size_t i = 0; i < ML_REDIS_NODES_MAX; i++)
        node_tend(&r->nodes[i], now);
    if (r->setup->mode == ML_REDIS_SENTINEL)
        ml_redis_watch_tend(r, now);
    if (r->setup->mode == ML_REDIS_CLUSTER)
        ml_redis_cluster_tend(r, now);
    ml_redis_events_tend(r, now);
}

static void on_tend(uv_timer_t *timer)
{
    tend(timer->data);
}

void ml_redis_plan(struct ml_redis *r, uint64_t at_ms)
{
    uint64_t now = uv_now(r->loop);
    if (r->closing || at_ms >= r->tend_ms)
        return;
    r->tend_ms = at_ms;
    uv_timer_start(&r->tend, on_tend, at_ms > now ? at_ms - now : 0, 0);
}

/* Life ---------------------------------------------------------------------------------------- */

int ml_redis_new(struct ml_redis **ret, uv_loop_t *loop, const struct ml_redis_setup *setup)
{
    struct ml_redis *r = ML_NEW(struct ml_redis);
    r->loop = loop;
    r->setup = setup;
    TAILQ_INIT(&r->commands);
    TAILQ_INIT(&r->parked);
    uv_timer_init(loop, &r->deadline);
    uv_timer_init(loop, &r->tend);
    r->deadline.data = r->tend.data = r;
    r->handles = 2;
    r->tend_ms = UINT64_MAX;
    for (size_t i = 0; i < ML_REDIS_NODES_MAX; i++)
        r->nodes[i].client = r;
    if (setup->mode == ML_REDIS_SINGLE)
        ml_redis_node_use(&r->nodes[0], &setup->addresses[0]);
    if (setup->mode == ML_REDIS_CLUSTER)
        ml_redis_cluster_init(r);
    tend(r);
    *ret = r;
    return 0;
}

void ml_redis_check_closed(struct ml_redis *r)
{
    if (!r->closing || r->handles > 0 || r->conns > 0)
        return;
    void (*closed)(void *ctx) = r->closed;
    void *ctx = r->closed_ctx;
    free(r);
    if (closed)
        closed(ctx);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct ml_redis *r = handle->data;
    r->handles--;
    ml_redis_check_closed(r);
}

static void cancel(struct ml_redis_conn *c)
{
    if (c)
        ml_redis_conn_fail(c, ML_E_CANCELED, "the client is closing");
}

void ml_redis_close(struct ml_redis *r, void (*closed)(void *ctx), void *ctx)
{
    ML_REQUIRE(!r->closing);
    r->closing = true;
    r->closed = closed;
    r->closed_ctx = ctx;
    uv_close((uv_handle_t *)&r->deadline, on_timer_closed);
    uv_close((uv_handle_t *)&r->tend, on_timer_closed);
    for (size_t i = 0; i < ML_REDIS_NODES_MAX; i++)
        cancel(r->nodes[i].conn);
    cancel(r->watch.conn);
    cancel(r->events.conn);
    ml_redis_unpark(r, NULL);
}

/* Readiness ----------------------------------------------------------------------------------- */

static void on_ping(void *arg, const struct ml_redis_answer *answer)
{
    struct ml_redis *r = arg;
    r->pinging = false;
    snprintf(r->ping_why, sizeof r->ping_why, "%s", answer->error ? answer->text : "");
}

static const char *what_is_missing(const struct ml_redis *r)
{
    if (r->setup->mode == ML_REDIS_CLUSTER && !r->mapped)
        return "Redis: the cluster's slots are not known";
    if (r->setup->mode == ML_REDIS_SENTINEL && !r->nodes[0].used)
        return r->watch.why[0] ? r->watch.why : "Redis: the master is not known yet";
    for (size_t i = 0; i < ML_REDIS_NODES_MAX; i++) {
        const struct ml_redis_node *node = &r->nodes[i];
        if (node->used && (!node->conn || node->conn->state != ML_REDIS_UP))
            return node->why[0] ? node->why : "Redis: not connected yet";
    }
    return r->ping_why[0] ? r->ping_why : NULL;
}

bool ml_redis_ready(struct ml_redis *r, struct ml_err *err)
{
    const struct ml_str ping = ML_STR("PING");
    const char *missing = what_is_missing(r);
    if (missing)
        ml_fail(err, ML_E_UNAVAILABLE, "%s", missing);
    if (!r->pinging && !r->closing) {
        r->pinging = true;
        ml_redis_call(r, &ping, 1, 0, on_ping, r);
    }
    return missing == NULL;
}
