/* Who is master, by Sentinel: one sentinel is asked, and listened to until it goes away; then the
 * next. Whatever it says, a connection to the master is used only when ROLE agrees. One thread: the
 * loop's. */
#include "client/redis_internal.h"

#include "base/log.h"

#include <stdio.h>

static void follow(struct ml_redis *r, const struct ml_redis_address *master)
{
    struct ml_redis_node *node = &r->nodes[0];
    if (!node->used || !ml_redis_same_address(&node->address, master)) {
        ml_log(ML_LOG_INFO, "Redis: the sentinels name a master", ML_FZ("host", master->host),
               ML_FZ("port", master->port));
        ml_redis_node_use(node, master);
    }
    ml_redis_unpark(r, NULL);
}

static void watch_up(struct ml_redis_conn *c)
{
    c->client->watch.failures = 0;
    c->client->watch.why[0] = '\0';
    follow(c->client, &c->master);
}

/* One after the other at once, then after a while from the first. */
static void watch_down(struct ml_redis_conn *c, const char *why)
{
    struct ml_redis *r = c->client;
    struct ml_redis_seeker *w = &r->watch;
    unsigned count = (unsigned)r->setup->address_count;
    w->conn = NULL;
    if (r->closing)
        return;
    snprintf(w->why, sizeof w->why, "%s", why);
    w->retry_ms = uv_now(r->loop);
    if (++w->failures % count == 0) {
        w->retry_ms = ml_redis_retry_at(r, w->failures / count);
        if (w->failures == count)
            ml_log(ML_LOG_WARN, "Redis: no sentinel names a master", ML_FZ("error", why));
        ml_redis_unpark(r, w->why);
    }
    ml_redis_plan(r, w->retry_ms);
}

/* "NAME OLD-HOST OLD-PORT HOST PORT" */
static void watch_push(struct ml_redis_conn *c, const struct ml_redis_reply *reply)
{
    struct ml_redis_address master;
    char text[sizeof master.host + 8];
    if (reply->type != ML_REDIS_ARRAY || reply->count != 3 ||
        !ml_str_eq(reply->items[0].text, ML_STR("message")))
        return;
    struct ml_str words[5], rest = reply->items[2].text;
    for (size_t i = 0; i < 5; i++)
        words[i] = ml_str_cut(rest, ' ', &rest);
    if (!ml_str_eq(words[0], ml_str_z(c->client->setup->master)))
        return;
    int n = snprintf(text, sizeof text, "%.*s:%.*s", ML_FMT(words[3]), ML_FMT(words[4]));
    if (n > 0 && (size_t)n < sizeof text && ml_redis_parse_address(ml_str_z(text), "", &master))
        follow(c->client, &master);
}

static const struct ml_redis_owner watch_owner = {watch_up, watch_down, watch_push};

void ml_redis_watch_tend(struct ml_redis *r, uint64_t now)
{
    struct ml_redis_seeker *w = &r->watch;
    const struct ml_redis_setup *s = r->setup;
    if (w->conn)
        return;
    if (w->retry_ms <= now)
        w->conn = ml_redis_conn_open(r, ML_REDIS_WATCH, &s->addresses[w->turn++ % s->address_count],
                                     &watch_owner, r);
    else
        ml_redis_plan(r, w->retry_ms);
}

void ml_redis_watch_doubt(struct ml_redis *r)
{
    struct ml_redis_seeker *w = &r->watch;
    if (!w->conn || w->conn->state != ML_REDIS_UP)
        return;
    ml_redis_conn_fail(w->conn, ML_E_UNAVAILABLE, "asked again");
    w->failures = 0;
    w->retry_ms = uv_now(r->loop);
    ml_redis_plan(r, w->retry_ms);
}
