/* The circuit breaker. Failures count while no success comes between them: one bad answer in a
 * hundred must not cut off an upstream that serves the rest. Pure: no clock, no I/O, but curl's
 * date parser. */
#include "client/breaker.h"

#include "base/str.h"

#include <curl/curl.h>
#include <string.h>

enum { BACK_OFF_MIN_MS = 1000, BACK_OFF_MAX_MS = 60000 };

void ml_breaker_init(struct ml_breaker *b, unsigned open_after, uint32_t probe_ms)
{
    if (open_after < 1)
        open_after = 1;
    if (open_after > ML_BREAKER_FAILURES_MAX)
        open_after = ML_BREAKER_FAILURES_MAX;
    *b = (struct ml_breaker){.open_after = open_after, .probe_ms = probe_ms};
}

bool ml_breaker_allow(struct ml_breaker *b, uint64_t now_ms, uint32_t *ticket)
{
    if (b->open) {
        if (now_ms < b->next_ms)
            return false;
        /* Not one at a time: a probe that hangs must not hide that the upstream is back. */
        b->next_ms = now_ms + b->probe_ms;
    }
    *ticket = b->epoch;
    return true;
}

void ml_breaker_success(struct ml_breaker *b, uint32_t ticket)
{
    if (ticket != b->epoch)
        return;
    b->open = false;
    b->count = 0;
}

static void open_until(struct ml_breaker *b, uint64_t next_ms)
{
    b->open = true;
    b->epoch++;
    b->count = 0;
    b->next_ms = next_ms;
}

void ml_breaker_failure(struct ml_breaker *b, uint64_t now_ms, uint32_t ticket)
{
    if (ticket != b->epoch || b->open)
        return;
    if (b->count == b->open_after) {
        memmove(b->failures, b->failures + 1, (b->count - 1) * sizeof b->failures[0]);
        b->count--;
    }
    b->failures[b->count++] = now_ms;
    if (b->count == b->open_after && now_ms - b->failures[0] <= ML_BREAKER_WINDOW_MS)
        open_until(b, now_ms + b->probe_ms);
}

void ml_breaker_back_off(struct ml_breaker *b, uint64_t now_ms, int64_t wait_ms)
{
    if (wait_ms < BACK_OFF_MIN_MS)
        wait_ms = BACK_OFF_MIN_MS;
    if (wait_ms > BACK_OFF_MAX_MS)
        wait_ms = BACK_OFF_MAX_MS;
    uint64_t until = now_ms + (uint64_t)wait_ms;
    /* Answers to what was in flight already do not shorten it. */
    open_until(b, b->open && b->next_ms > until ? b->next_ms : until);
}

int64_t ml_retry_after_ms(const char *value, int64_t wall_ms)
{
    struct ml_str text = ml_str_trim(ml_str_z(value));
    unsigned long long seconds;
    if (ml_str_u64(text, &seconds))
        return seconds < BACK_OFF_MAX_MS / 1000 ? (int64_t)seconds * 1000 : BACK_OFF_MAX_MS;
    time_t date = curl_getdate(value, NULL);
    return date < 0 ? 0 : (int64_t)date * 1000 - wall_ms;
}
