/* Sessions in Redis: one node, Sentinel or Cluster. See session_backend.h and client/redis.h. */
#pragma once

#include "client/redis.h"
#include "store/session_backend.h"

extern const struct ml_session_backend ml_session_redis;

/* Connects only when a link is made. ML_E_INVALID when the options are wrong, ML_E_IO when the CA
 * file cannot be read. Options are copied. */
int ml_redis_store_new(void **store, const struct ml_redis_options *options, struct ml_err *err);
