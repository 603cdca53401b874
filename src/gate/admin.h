/* The admin listener: POST /reload, GET /policy, POST /revoke (a form: user=NAME, see
 * ml_engine_revoke). On a unix socket its mode is the protection; on a
 * loopback address a bearer token is asked for. */
#pragma once

#include "engine/engine.h"
#include "net/http1.h"

struct ml_admin {
    struct ml_engine *engine;
    const char *token; /* NULL: none is asked for (unix socket) */
};

/* ctx is a struct ml_admin. Main thread. */
void ml_admin_handle(void *ctx, struct ml_exchange *x, const struct ml_http_request *req);
