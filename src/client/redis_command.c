/* A command's life: counted and formatted, sent by whoever has its connection, answered, late, or
 * redirected. All of a client's are on one list in the order of their deadlines, since each has the
 * same time: one timer, for the first. One thread: the loop's. */
#include "client/redis_internal.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

static void on_deadline(uv_timer_t *timer);

static void watch_deadline(struct ml_redis *r)
{
    struct ml_redis_command *first = TAILQ_FIRST(&r->commands);
    uint64_t now = uv_now(r->loop);
    if (first && !r->closing && !uv_is_active((uv_handle_t *)&r->deadline))
        uv_timer_start(&r->deadline, on_deadline,
                       first->deadline_ms > now ? first->deadline_ms - now : 1, 0);
}

/* What was written may still be answered: that ends the connection. What was not only goes: a
 * connection that is slow to come up has its own time. */
static void expire(struct ml_redis_command *cmd)
{
    struct ml_redis_conn *c = cmd->conn;
    if (c && c->state == ML_REDIS_UP) {
        ml_redis_conn_fail(c, ML_E_TIMEOUT, "no answer in %d ms", ML_REDIS_COMMAND_MS);
        return;
    }
    if (c)
        TAILQ_REMOVE(&c->commands, cmd, link);
    ml_redis_command_end(cmd, ML_E_TIMEOUT, "Redis: not connected in time", NULL);
}

/* A loop that was held up may have the answer in its socket: one more turn before the verdict. */
static void on_deadline(uv_timer_t *timer)
{
    struct ml_redis *r = timer->data;
    struct ml_redis_command *first = TAILQ_FIRST(&r->commands);
    uint64_t now = uv_now(r->loop);
    bool late = first && first->deadline_ms <= now;
    if (late && !r->late) {
        r->late = true;
        uv_timer_start(&r->deadline, on_deadline, 1, 0);
        return;
    }
    r->late = false;
    while ((first = TAILQ_FIRST(&r->commands)) && first->deadline_ms <= now)
        expire(first);
    watch_deadline(r);
}

void ml_redis_command_end(struct ml_redis_command *cmd, int error, const char *text,
                          const struct ml_redis_reply *reply)
{
    struct ml_redis *r = cmd->client;
    struct ml_redis_answer answer = {error, text, reply};
    ml_redis_done done = cmd->done;
    void *arg = cmd->arg;
    TAILQ_REMOVE(&r->commands, cmd, all);
    if (cmd->parked)
        TAILQ_REMOVE(&r->parked, cmd, link);
    r->pending--;
    r->pending_bytes -= cmd->wire_n;
    redisFreeCommand(cmd->wire);
    free(cmd);
    if (done)
        done(arg, &answer);
}

void ml_redis_code(const struct ml_redis_reply *reply, char out[24])
{
    size_t n = 0;
    while (n < reply->text.n && n < 23 && reply->text.p[n] >= 'A' && reply->text.p[n] <= 'Z') {
        out[n] = reply->text.p[n];
        n++;
    }
    out[n] = '\0';
    if (n == 0 || (n < reply->text.n && reply->text.p[n] != ' '))
        memcpy(out, "ERR", 4);
}

static bool is_one_of(const char *code, const char *const *words)
{
    while (*words && strcmp(*words, code) != 0)
        words++;
    return *words != NULL;
}

static void refused(struct ml_redis_command *cmd, struct ml_redis_conn *c,
                    const struct ml_redis_reply *reply)
{
    /* Another connection, or another node, may do better. */
    static const char *const elsewhere[] = {"READONLY", "MASTERDOWN", "LOADING", "NOAUTH", NULL};
    static const char *const moving[] = {"MOVED", "ASK", "CLUSTERDOWN", NULL};
    struct ml_redis *r = cmd->client;
    char code[24], text[128];
    ml_redis_code(reply, code);
    bool moved = r->setup->mode == ML_REDIS_CLUSTER && is_one_of(code, moving);
    if (moved && ml_redis_redirect(cmd, c, reply->text))
        return;
    snprintf(text, sizeof text, "Redis %.40s:%s: answers %s", c->address.host, c->address.port,
             code);
    if (moved)
        ml_redis_cluster_doubt(r);
    if (is_one_of(code, elsewhere))
        ml_redis_conn_fail(c, ML_E_UNAVAILABLE, "answers %s", code);
    ml_redis_command_end(cmd, ML_E_UNAVAILABLE, text, NULL);
}

void ml_redis_command_reply(struct ml_redis_command *cmd, struct ml_redis_conn *c,
                            const struct ml_redis_reply *reply)
{
    struct ml_redis *r = cmd->client;
    if (reply->type == ML_REDIS_ERROR) {
        refused(cmd, c, reply);
        return;
    }
    r->answering = c;
    ml_redis_command_end(cmd, 0, "", reply);
    r->answering = NULL;
}

static int format(const struct ml_str *args, size_t count, char **wire, size_t *wire_n)
{
    const char *texts[ML_REDIS_ARGS_MAX];
    size_t lengths[ML_REDIS_ARGS_MAX], sum = 0;
    for (size_t i = 0; i < count; i++) {
        texts[i] = args[i].p ? args[i].p : "";
        lengths[i] = args[i].n;
        sum += args[i].n;
    }
    if (sum > ML_REDIS_PENDING_BYTES)
        return ML_E_TOOBIG;
    int n = (int)redisFormatCommandArgv(wire, (int)count, texts, lengths);
    *wire_n = n > 0 ? (size_t)n : 0;
    return n > 0 ? 0 : ML_E_BUSY;
}

static void refuse(ml_redis_done done, void *arg, int error, const char *text)
{
    struct ml_redis_answer answer = {error, text, NULL};
    if (done)
        done(arg, &answer);
}

void ml_redis_call(struct ml_redis *r, const struct ml_str *args, size_t count, size_t key,
                   ml_redis_done done, void *arg)
{
    char *wire = NULL;
    size_t wire_n = 0;
    ML_REQUIRE(count > 0 && count <= ML_REDIS_ARGS_MAX && key < count);
    int error = r->closing                           ? ML_E_CANCELED
                : r->pending >= ML_REDIS_PENDING_MAX ? ML_E_BUSY
                                                     : format(args, count, &wire, &wire_n);
    if (error == 0 && wire_n > ML_REDIS_PENDING_BYTES - r->pending_bytes) {
        redisFreeCommand(wire);
        error = ML_E_BUSY;
    }
    if (error < 0) {
        refuse(done, arg, error, "Redis: too much is under way");
        return;
    }
    struct ml_redis_command *cmd = ML_NEW(struct ml_redis_command);
    cmd->client = r;
    cmd->wire = wire;
    cmd->wire_n = wire_n;
    cmd->done = done;
    cmd->arg = arg;
    cmd->slot = key > 0 ? ml_redis_slot_of(args[key]) : -1;
    cmd->deadline_ms = uv_now(r->loop) + ML_REDIS_COMMAND_MS;
    TAILQ_INSERT_TAIL(&r->commands, cmd, all);
    r->pending++;
    r->pending_bytes += wire_n;
    watch_deadline(r);
    ml_redis_route(cmd);
}
