/* The readiness port: every path 200 when checks are answered, 503 with the reason when not;
 * /livez; /metrics. */
#pragma once

#include "engine/engine.h"
#include "net/http1.h"

struct ml_status {
    struct ml_engine *engine;
    bool draining;
};

/* ctx is a struct ml_status. Main thread. */
void ml_status_handle(void *ctx, struct ml_exchange *x, const struct ml_http_request *req);
