/* The first commands of a connection: who we are, which database, and whether it is the one that we
 * want. They go out together; each answer is judged before anybody else's command is sent.
 *
 * PING is there to be refused: LOADING, NOAUTH, MASTERDOWN and MISCONF show at once. */
#include "client/redis_internal.h"

static void add(struct ml_redis_conn *c, enum ml_redis_step step)
{
    c->steps[c->step_count++] = step;
}

static void choose_steps(struct ml_redis_conn *c)
{
    const struct ml_redis_setup *s = c->client->setup;
    if (*s->password)
        add(c, ML_REDIS_AUTH);
    if (c->kind == ML_REDIS_DATA) {
        if (strcmp(s->db, "0") != 0)
            add(c, ML_REDIS_SELECT);
        add(c, s->mode == ML_REDIS_SENTINEL ? ML_REDIS_ROLE : ML_REDIS_PING);
        return;
    }
    if (c->kind == ML_REDIS_WATCH)
        add(c, ML_REDIS_MASTER);
    add(c, ML_REDIS_SUBSCRIBE);
}

static void say(struct ml_redis_conn *c, enum ml_redis_step step)
{
    const struct ml_redis_setup *s = c->client->setup;
    const char *words[3] = {0};
    size_t n = 0;
    switch (step) {
    case ML_REDIS_AUTH:
        words[n++] = "AUTH";
        if (*s->user)
            words[n++] = s->user;
        words[n++] = s->password;
        break;
    case ML_REDIS_SELECT:
        words[n++] = "SELECT";
        words[n++] = s->db;
        break;
    case ML_REDIS_PING:
        words[n++] = "PING";
        break;
    case ML_REDIS_ROLE:
        words[n++] = "ROLE";
        break;
    case ML_REDIS_MASTER:
        words[n++] = "SENTINEL";
        words[n++] = "get-master-addr-by-name";
        words[n++] = s->master;
        break;
    case ML_REDIS_SUBSCRIBE:
        words[n++] = "SUBSCRIBE";
        words[n++] = c->channel;
        break;
    }
    ml_redis_io_command(c, words, n);
}

void ml_redis_greet(struct ml_redis_conn *c)
{
    choose_steps(c);
    c->state = ML_REDIS_GREETING;
    for (size_t i = 0; i < c->step_count && c->state == ML_REDIS_GREETING; i++)
        say(c, c->steps[i]);
}

static bool item_is(const struct ml_redis_reply *reply, const char *word)
{
    return reply->type == ML_REDIS_ARRAY && reply->count > 0 &&
           ml_str_eq(reply->items[0].text, ml_str_z(word));
}

static const char *judge_master(struct ml_redis_conn *c, const struct ml_redis_reply *reply)
{
    char text[sizeof c->master.host + 8];
    if (reply->type == ML_REDIS_NIL)
        return "the sentinel knows no master of that name";
    if (reply->type != ML_REDIS_ARRAY || reply->count != 2)
        return "the sentinel's answer is none";
    int n = snprintf(text, sizeof text, "%.*s:%.*s", ML_FMT(reply->items[0].text),
                     ML_FMT(reply->items[1].text));
    if (n < 0 || (size_t)n >= sizeof text ||
        !ml_redis_parse_address(ml_str_z(text), "", &c->master))
        return "the sentinel's answer is no address";
    return NULL;
}

/* NULL, or why the connection is not to be used. */
static const char *judge(struct ml_redis_conn *c, const struct ml_redis_reply *reply)
{
    bool ok = false;
    switch (c->steps[c->step]) {
    case ML_REDIS_AUTH:
        /* Many sentinels have no password where their master has one: what comes next tells. */
        ok = reply->type == ML_REDIS_STATUS || c->kind == ML_REDIS_WATCH;
        break;
    case ML_REDIS_SELECT:
    case ML_REDIS_PING:
        ok = reply->type == ML_REDIS_STATUS;
        break;
    case ML_REDIS_ROLE:
        if (reply->type == ML_REDIS_ARRAY && !item_is(reply, "master"))
            return "is not the master";
        ok = reply->type == ML_REDIS_ARRAY;
        break;
    case ML_REDIS_MASTER:
        if (reply->type != ML_REDIS_ERROR)
            return judge_master(c, reply);
        break;
    case ML_REDIS_SUBSCRIBE:
        ok = item_is(reply, "subscribe");
        break;
    }
    return ok ? NULL : "an answer that is none";
}

void ml_redis_greet_reply(struct ml_redis_conn *c, const struct ml_redis_reply *reply)
{
    static const char *const names[] = {"AUTH", "SELECT", "PING", "ROLE", "SENTINEL", "SUBSCRIBE"};
    char code[24];
    const char *why = judge(c, reply);
    if (why && reply->type == ML_REDIS_ERROR) {
        ml_redis_code(reply, code);
        ml_redis_conn_fail(c, ML_E_UNAVAILABLE, "answers %s to %s", code, names[c->steps[c->step]]);
    } else if (why) {
        ml_redis_conn_fail(c, ML_E_UNAVAILABLE, "%s", why);
    } else if (++c->step == c->step_count) {
        ml_redis_conn_up(c);
    }
}
