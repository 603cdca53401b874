/* The board: what background tasks find out for all workers, by name: provider metadata now, key
 * sets later. Small counted snapshots; bounded in number (256) and bytes (1 MiB each). Any thread.
 */
#pragma once

#include "base/str.h"
#include "store/cache.h"

struct ml_board;
struct ml_board *ml_board_new(void);
void ml_board_free(struct ml_board *b);
/* Replaces the snapshot of that name (the same content keeps its id) and clears its failure. false:
 * a bound. */
bool ml_board_post(struct ml_board *b, struct ml_str name, struct ml_str json);
/* Says why there is none yet (or no newer one); a snapshot that is there stays. */
void ml_board_fail(struct ml_board *b, struct ml_str name, struct ml_str why);
/* A reference to the snapshot (its id changes with its content), or NULL. */
struct ml_entry *ml_board_read(struct ml_board *b, struct ml_str name);
/* Copies the last failure into out; false when there is none. */
bool ml_board_failure(struct ml_board *b, struct ml_str name, char *out, size_t n);
