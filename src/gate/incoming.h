/* What came on a listener, as the request that policies judge: one for all gates that speak
 * HTTP/1.1.
 */
#pragma once

#include "engine/worker.h"
#include "net/http1.h"

/* Fills *r, whose slices are req's or the arena's. 0, or the status of the refusal with its text in
 * *why. */
int ml_incoming_read(struct ml_worker *w, struct ml_arena *arena, const struct ml_http_request *req,
                     struct ml_request *r, const char **why);
