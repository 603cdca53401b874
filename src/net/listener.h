/* Listening sockets: TCP ("host:port") and unix ("unix:/path", mode 0600). Accepts and hands each
 * connection's descriptor on; pauses when descriptors run out. Lives on one loop. */
#pragma once

#include "base/err.h"

#include <uv.h>

struct ml_listener;
/* fd is non-blocking, close-on-exec and the callee's from now on; peer is the address as text
 * ("10.0.0.1", "unix"). */
typedef void (*ml_accepted)(void *ctx, int fd, const char *peer);

/* address: "0.0.0.0:8080", "[::]:8080", ":8080" (all, dual stack), "host:port", "unix:/run/x.sock".
 * A stale unix socket is replaced, a live one is refused. backlog: SOMAXCONN. */
int ml_listener_open(struct ml_listener **ret, uv_loop_t *loop, const char *address,
                     ml_accepted on_accept, void *ctx, struct ml_err *err);
/* The bound port (for ":0" in tests), 0 for unix. */
int ml_listener_port(const struct ml_listener *l);
/* Stops accepting and frees itself once the loop has run; removes its unix socket. */
void ml_listener_close(struct ml_listener *l);
