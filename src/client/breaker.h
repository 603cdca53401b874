/* The circuit breaker of one upstream: a state machine over the caller's clock. One thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { ML_BREAKER_WINDOW_MS = 10000, ML_BREAKER_FAILURES_MAX = 32 };

struct ml_breaker {
    unsigned open_after;
    uint32_t probe_ms;
    bool open;
    uint32_t epoch;   /* counts openings */
    uint64_t next_ms; /* open: when the next probe may go */
    unsigned count;   /* failures since the last success, at most open_after are remembered */
    uint64_t failures[ML_BREAKER_FAILURES_MAX]; /* when; oldest first */
};

/* open_after: 1 to ML_BREAKER_FAILURES_MAX failures without a success between them, within 10 s,
 * open it. */
void ml_breaker_init(struct ml_breaker *b, unsigned open_after, uint32_t probe_ms);
/* Whether a request may go now; open, it lets one through each probe_ms. *ticket goes with the
 * request and back with its outcome: what was sent before the last opening says nothing about the
 * state since. */
bool ml_breaker_allow(struct ml_breaker *b, uint64_t now_ms, uint32_t *ticket);
void ml_breaker_success(struct ml_breaker *b, uint32_t ticket);
void ml_breaker_failure(struct ml_breaker *b, uint64_t now_ms, uint32_t ticket);
/* The upstream asked to be left alone (429): opens at once, no probe before wait_ms are over (1 to
 * 60 s). */
void ml_breaker_back_off(struct ml_breaker *b, uint64_t now_ms, int64_t wait_ms);

/* Retry-After of RFC 9110 10.2.3, delay-seconds or HTTP-date, as milliseconds from now; 0 when it
 * is neither. */
int64_t ml_retry_after_ms(const char *value, int64_t wall_ms);
