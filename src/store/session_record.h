/* The record of a session: what is sealed into the store, version 1. Pure; any thread. */
#pragma once

#include "crypto/digest.h"
#include "crypto/seal.h"
#include "store/session_backend.h"

struct ml_session_record {
    uint64_t revision; /* of what callers see: counts replaces */
    uint64_t version;  /* of the stored record: counts touches too; what the backend compares */
    int64_t created_ms, ends_ms, touched_ms; /* ml_wall_ms() */
    int64_t idle_ms;                         /* 0: no such limit */
    struct ml_digest index[ML_SESSION_INDEX_MAX];
    size_t index_count;
    struct ml_str open, closed;
};

/* When it is dead: its end, or idle_ms after the last touch. */
int64_t ml_session_record_expiry(const struct ml_session_record *r);
/* Whether a read now is worth a write of touched_ms: after a tenth of idle_ms, or a minute. */
bool ml_session_record_stale(const struct ml_session_record *r, int64_t now_ms);

/* Appends the sealed record to out. ML_E_TOOBIG: over ML_SESSION_VALUE_MAX; ML_E_NOMEM; ML_E_IO: no
 * randomness. */
int ml_session_record_seal(const struct ml_session_record *r, const struct ml_seal_keys *keys,
                           const struct ml_digest *key, struct ml_buf *out);
/* *ret's slices are of plain, which the caller wipes (ml_session_plain_done). false: not ours, of
 * another version, of another key, or over. */
bool ml_session_record_open(struct ml_session_record *ret, const struct ml_seal_keys *keys,
                            const struct ml_digest *key, int64_t now_ms, struct ml_str sealed,
                            struct ml_buf *plain);
void ml_session_plain_init(struct ml_buf *plain);
void ml_session_plain_done(struct ml_buf *plain);
