/* Which records belong to whom: the index in Redis, what a kill does with it, and how keys are
 * written. A set's entries are record keys by their end. Runs on the link's thread. */
#include "store/session_redis_internal.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    KILL_BATCH = 256,  /* records at once */
    KILL_ROUNDS = 128, /* then it is said that there are more */
};

struct ml_str ml_session_redis_key(char out[ML_SESSION_REDIS_KEY], char kind,
                                   const struct ml_digest *d)
{
    char hex[65];
    ml_digest_hex(d, hex);
    int n = snprintf(out, ML_SESSION_REDIS_KEY, "moonlatch:%c:%s", kind, hex);
    return ml_str(out, (size_t)n);
}

struct ml_str ml_session_redis_number(char out[24], int64_t number)
{
    int n = snprintf(out, 24, "%lld", (long long)number);
    return ml_str(out, (size_t)n);
}

bool ml_session_redis_hex(const char *p, uint64_t *ret)
{
    uint64_t value = 0;
    for (size_t i = 0; i < 16; i++) {
        char c = p[i];
        bool digit = c >= '0' && c <= '9';
        if (!digit && (c < 'a' || c > 'f'))
            return false;
        value = value << 4 | (uint64_t)(digit ? c - '0' : c - 'a' + 10);
    }
    *ret = value;
    return true;
}

/* What is over goes, the entry comes, and the set lives as long as its last entry. */
void ml_session_redis_index(struct ml_session_link *l, const struct ml_digest *index,
                            const struct ml_digest *key, int64_t expires_ms, ml_redis_done done,
                            void *arg)
{
    static const char add[] = "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1]) "
                              "redis.call('ZADD', KEYS[1], ARGV[2], ARGV[3]) "
                              "local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES') "
                              "redis.call('PEXPIREAT', KEYS[1], last[2]) return 1";
    char name[ML_SESSION_REDIS_KEY], now[24], until[24], hex[65];
    ml_digest_hex(key, hex);
    struct ml_str args[] = {
        ML_STR("EVAL"),
        ml_str_z(add),
        ML_STR("1"),
        ml_session_redis_key(name, 'i', index),
        ml_session_redis_number(now, ml_wall_ms()),
        ml_session_redis_number(until, expires_ms),
        ml_str(hex, 64),
    };
    ml_redis_call(ml_session_redis_client(l), args, 7, 3, done, arg);
}

/* Batch by batch: list, remove each, take the entries of those that were there. What was not there
 * stays listed (its record may be on its way) and is stepped over. */
struct kill {
    struct ml_session_link *l;
    ml_session_done done;
    void *arg;
    struct ml_digest index;
    unsigned rounds;
    size_t skipped; /* entries that stay */
    int error;
    char why[256];
    struct ml_digest *keys; /* removed */
    size_t key_count, key_cap;
    struct ml_digest batch[KILL_BATCH];
    bool removed[KILL_BATCH];
    size_t batch_count, listed, waiting;
};

struct victim {
    struct kill *kill;
    size_t i;
};

static void kill_list(struct kill *k);

static void kill_end(struct kill *k)
{
    struct ml_session_answer answer = {
        .error = k->error, .text = k->why, .keys = k->keys, .key_count = k->key_count};
    answer.found = k->key_count > 0;
    k->done(k->arg, &answer);
    free(k->keys);
    free(k);
}

static void kill_failed(struct kill *k, int error, const char *why)
{
    k->error = error;
    snprintf(k->why, sizeof k->why, "%s", why);
}

/* The next batch, if this one was full. */
static void kill_next(struct kill *k)
{
    if (!k->error && k->listed == KILL_BATCH) {
        if (++k->rounds < KILL_ROUNDS) {
            kill_list(k);
            return;
        }
        kill_failed(k, ML_E_BUSY, "there are more sessions than one kill removes");
    }
    kill_end(k);
}

static void on_unlisted(void *arg, const struct ml_redis_answer *a)
{
    struct kill *k = arg;
    if (a->error && !k->error)
        kill_failed(k, a->error, a->text);
    kill_next(k);
}

static void kill_keep(struct kill *k, const struct ml_digest *key)
{
    if (k->key_count == k->key_cap) {
        k->key_cap = k->key_cap ? k->key_cap * 2 : 16;
        k->keys = ml_xrealloc(k->keys, k->key_cap * sizeof *k->keys);
    }
    k->keys[k->key_count++] = *key;
}

static void kill_unlist(struct kill *k)
{
    char key[ML_SESSION_REDIS_KEY], hex[KILL_BATCH][65];
    struct ml_str args[2 + KILL_BATCH] = {ML_STR("ZREM"),
                                          ml_session_redis_key(key, 'i', &k->index)};
    size_t n = 2;
    for (size_t i = 0; i < k->batch_count; i++) {
        if (!k->removed[i])
            continue;
        kill_keep(k, &k->batch[i]);
        ml_digest_hex(&k->batch[i], hex[i]);
        args[n++] = ml_str(hex[i], 64);
    }
    k->skipped += k->listed - (n - 2);
    if (n > 2)
        ml_redis_call(ml_session_redis_client(k->l), args, n, 1, on_unlisted, k);
    else
        kill_next(k);
}

static void on_victim(void *arg, const struct ml_redis_answer *a)
{
    struct victim *v = arg;
    struct kill *k = v->kill;
    if (a->error)
        kill_failed(k, a->error, a->text);
    else
        k->removed[v->i] = a->reply->integer > 0;
    free(v);
    if (--k->waiting == 0)
        kill_unlist(k);
}

static bool read_digest(struct ml_str hex, struct ml_digest *ret)
{
    if (hex.n != 64)
        return false;
    for (size_t i = 0; i < 4; i++) {
        uint64_t part;
        if (!ml_session_redis_hex(hex.p + 16 * i, &part))
            return false;
        for (size_t j = 0; j < 8; j++)
            ret->b[8 * i + j] = (uint8_t)(part >> (56 - 8 * j));
    }
    return true;
}

static void kill_batch(struct kill *k)
{
    /* One more than there are, so that an answer at once does not end it in the loop. */
    k->waiting = k->batch_count + 1;
    for (size_t i = 0; i < k->batch_count; i++) {
        char text[ML_SESSION_REDIS_KEY];
        struct victim *v = ML_NEW(struct victim);
        *v = (struct victim){k, i};
        struct ml_str args[] = {ML_STR("DEL"), ml_session_redis_key(text, 's', &k->batch[i])};
        ml_redis_call(ml_session_redis_client(k->l), args, 2, 1, on_victim, v);
    }
    if (--k->waiting == 0)
        kill_unlist(k);
}

static void on_listed(void *arg, const struct ml_redis_answer *a)
{
    struct kill *k = arg;
    k->batch_count = k->listed = 0;
    memset(k->removed, 0, sizeof k->removed);
    if (a->error) {
        kill_failed(k, a->error, a->text);
        kill_end(k);
        return;
    }
    k->listed = a->reply->count;
    for (size_t i = 0; i < a->reply->count && i < KILL_BATCH; i++)
        if (read_digest(a->reply->items[i].text, &k->batch[k->batch_count]))
            k->batch_count++;
    kill_batch(k);
}

static void kill_list(struct kill *k)
{
    char key[ML_SESSION_REDIS_KEY], from[24], to[24];
    struct ml_str args[] = {ML_STR("ZRANGE"), ml_session_redis_key(key, 'i', &k->index),
                            ml_session_redis_number(from, (int64_t)k->skipped),
                            ml_session_redis_number(to, (int64_t)k->skipped + KILL_BATCH - 1)};
    ml_redis_call(ml_session_redis_client(k->l), args, 4, 1, on_listed, k);
}

void ml_session_redis_kill(struct ml_session_link *l, const struct ml_digest *index,
                           ml_session_done done, void *arg)
{
    struct kill *k = ML_NEW(struct kill);
    k->l = l;
    k->done = done;
    k->arg = arg;
    k->index = *index;
    kill_list(k);
}
