/* Messages to the other replicas. What cannot be published is tried again for a few seconds: a
 * revocation that is lost would let its bearer in elsewhere. It may be heard twice. Whoever hears
 * nothing because his own connection broke is told "lost" by the client.
 *
 * A note is on the waiting list or with a command. Everything is on the link's thread. */
#include "store/session_redis_internal.h"

#include "base/log.h"
#include "base/mem.h"

#include <stdlib.h>

enum {
    AGAIN_MS = 250,
    TRIES_MAX = 20,
    WAITING_MAX = 64,
};

struct ml_session_redis_note {
    TAILQ_ENTRY(ml_session_redis_note) link;
    struct ml_session_redis_notes *notes;
    unsigned tries;
    size_t n;
    char text[];
};

static void on_again(uv_timer_t *timer);

static void give_up(struct ml_session_redis_note *note)
{
    if (!note->notes->closing)
        ml_log_text(ML_LOG_WARN, "Redis: a message to the other replicas was given up");
    free(note);
}

static void on_published(void *arg, const struct ml_redis_answer *a)
{
    struct ml_session_redis_note *note = arg;
    struct ml_session_redis_notes *notes = note->notes;
    if (a->error == 0) {
        free(note);
    } else if (notes->closing || ++note->tries >= TRIES_MAX || notes->count >= WAITING_MAX) {
        give_up(note);
    } else {
        TAILQ_INSERT_TAIL(&notes->waiting, note, link);
        notes->count++;
        if (!uv_is_active((uv_handle_t *)&notes->again))
            uv_timer_start(&notes->again, on_again, AGAIN_MS, 0);
    }
}

static void say(struct ml_session_redis_note *note)
{
    struct ml_str args[] = {ML_STR("PUBLISH"), ML_STR(ML_SESSION_REDIS_CHANNEL),
                            ml_str(note->text, note->n)};
    ml_redis_call(note->notes->redis, args, 3, 0, on_published, note);
}

/* Those that wait now: what fails at once waits again. */
static void on_again(uv_timer_t *timer)
{
    struct ml_session_redis_notes *notes = timer->data;
    for (size_t n = notes->count; n > 0; n--) {
        struct ml_session_redis_note *note = TAILQ_FIRST(&notes->waiting);
        TAILQ_REMOVE(&notes->waiting, note, link);
        notes->count--;
        say(note);
    }
}

void ml_session_redis_notes_init(struct ml_session_redis_notes *notes, struct ml_redis *redis,
                                 uv_loop_t *loop)
{
    *notes = (struct ml_session_redis_notes){.redis = redis};
    TAILQ_INIT(&notes->waiting);
    uv_timer_init(loop, &notes->again);
    notes->again.data = notes;
}

void ml_session_redis_publish(struct ml_session_redis_notes *notes, struct ml_str text)
{
    struct ml_session_redis_note *note = ml_xcalloc(1, sizeof *note + text.n + 1);
    note->notes = notes;
    note->n = text.n;
    if (text.n)
        memcpy(note->text, text.p, text.n);
    say(note);
}

static void on_closed(uv_handle_t *handle)
{
    struct ml_session_redis_notes *notes = handle->data;
    notes->closed(notes->closed_ctx);
}

void ml_session_redis_notes_close(struct ml_session_redis_notes *notes, void (*closed)(void *ctx),
                                  void *ctx)
{
    struct ml_session_redis_note *note;
    notes->closing = true;
    notes->closed = closed;
    notes->closed_ctx = ctx;
    while ((note = TAILQ_FIRST(&notes->waiting))) {
        TAILQ_REMOVE(&notes->waiting, note, link);
        give_up(note);
    }
    uv_close((uv_handle_t *)&notes->again, on_closed);
}
