/* The gate of the web port (8082): our own places as a browser, a provider or a gateway's route
 * reaches them, with bodies, and the static files of the theme. Nothing of an application is here:
 * all else is 404. */
#pragma once

#include "net/http1.h"

/* The handler of the web port; ctx is the struct ml_worker of the connection. The engine's site is
 * the struct ml_theme. */
void ml_web_handle(void *ctx, struct ml_exchange *x, const struct ml_http_request *req);
