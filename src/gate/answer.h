/* Answers to the client that every HTTP/1.1 gate gives alike. */
#pragma once

#include "engine/worker.h"
#include "net/http1.h"

extern const struct ml_header ml_no_store;

/* A request that never reached a policy: counted, plain text. */
void ml_answer_refused(struct ml_worker *w, struct ml_exchange *x, int status, const char *text,
                       uint64_t started_ns);
/* A denial or one of our own answers. lowest: the least status that this gate may send; what is
 * below it becomes a 503, for a gateway would take it for an allow. */
void ml_answer_client(struct ml_exchange *x, const struct ml_decision *d, int lowest);
