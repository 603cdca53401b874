/* The line of the log that says what was decided and why. */
#pragma once

#include "codec/request.h"

/* Allows at DEBUG, all else at INFO (what failed on our side at WARN). Method, host, path, route,
 * result, user and the steps; never a credential, a query or a header. */
void ml_decision_log(const struct ml_request *r, const struct ml_decision *d, uint64_t elapsed_ns);
