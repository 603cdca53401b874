/* Tombstones: keys of sessions that ended here. Until the store has confirmed the end they keep
 * such a session dead, whatever the store says; afterwards for a while longer, against answers that
 * were on their way and replicas that lag. Bounded; any thread. */
#pragma once

#include "crypto/digest.h"

#include <stdbool.h>
#include <stddef.h>

enum { ML_TOMBSTONE_KEEP_MS = 60 * 1000 }; /* after the confirmation */

struct ml_tombstones;
struct ml_tombstones *ml_tombstones_new(size_t max);
void ml_tombstones_free(struct ml_tombstones *t);
/* confirmed: the store has it not any more. Full: the oldest confirmed one makes room; false when
 * none is confirmed, and nothing was added. */
bool ml_tombstones_add(struct ml_tombstones *t, const struct ml_digest *key, bool confirmed);
bool ml_tombstones_has(struct ml_tombstones *t, const struct ml_digest *key);
/* Up to n keys that the store should be asked to remove again: not confirmed, and not tried within
 * retry_ms. They count as tried now. */
size_t ml_tombstones_due(struct ml_tombstones *t, uint64_t retry_ms, struct ml_digest *keys,
                         size_t n);
void ml_tombstones_count(struct ml_tombstones *t, size_t *all, size_t *unconfirmed);
