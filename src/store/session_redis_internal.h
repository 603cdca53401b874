/* What the files of sessions in Redis share. */
#pragma once

#include "store/session_redis.h"

#include <sys/queue.h>

#define ML_SESSION_REDIS_CHANNEL "moonlatch:events"

enum { ML_SESSION_REDIS_KEY = 12 + 64 + 1 }; /* "moonlatch:x:", hex, NUL */

struct ml_redis *ml_session_redis_client(struct ml_session_link *l);

/* session_redis_index.c */
struct ml_str ml_session_redis_key(char out[ML_SESSION_REDIS_KEY], char kind,
                                   const struct ml_digest *d);
struct ml_str ml_session_redis_number(char out[24], int64_t number);
/* 16 lower-case hex digits. */
bool ml_session_redis_hex(const char *p, uint64_t *ret);
void ml_session_redis_index(struct ml_session_link *l, const struct ml_digest *index,
                            const struct ml_digest *key, int64_t expires_ms, ml_redis_done done,
                            void *arg);
void ml_session_redis_kill(struct ml_session_link *l, const struct ml_digest *index,
                           ml_session_done done, void *arg);

/* session_redis_notes.c: a link's messages to the other replicas. */
struct ml_session_redis_notes {
    struct ml_redis *redis;
    uv_timer_t again;
    TAILQ_HEAD(, ml_session_redis_note) waiting;
    size_t count; /* of those */
    bool closing;
    void (*closed)(void *ctx);
    void *closed_ctx;
};
void ml_session_redis_notes_init(struct ml_session_redis_notes *notes, struct ml_redis *redis,
                                 uv_loop_t *loop);
void ml_session_redis_publish(struct ml_session_redis_notes *notes, struct ml_str text);
/* Before the client is closed: nothing is tried again. */
void ml_session_redis_notes_close(struct ml_session_redis_notes *notes, void (*closed)(void *ctx),
                                  void *ctx);
