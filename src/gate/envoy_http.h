/* The gate for Envoy's HTTP ext_authz (and whoever asks the same way): the request is the client's,
 * any method, any path. Only 200 allows. Reserved are the paths under AUTHSERVICE_URL_PREFIX. */
#pragma once

#include "net/http1.h"

/* The handler of the check port; ctx is the struct ml_worker of the connection. */
void ml_envoy_http_check(void *ctx, struct ml_exchange *x, const struct ml_http_request *req);
