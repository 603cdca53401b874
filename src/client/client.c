/* The client: a list of upstreams and the results that wait for delivery. Results are handed over
 * from an idle handle, so that no callback of ours ever runs inside curl or inside ml_fetch_start.
 * One thread: the loop's. */
#include "client/internal.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

int ml_client_global_init(void)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return ML_E_UNAVAILABLE;
    /* trust.c hands OpenSSL's objects to curl: with another TLS library it would trust nobody. */
    const char *tls = curl_version_info(CURLVERSION_NOW)->ssl_version;
    return tls && strncmp(tls, "OpenSSL/", 8) == 0 ? 0 : ML_E_UNAVAILABLE;
}

void ml_client_global_done(void)
{
    ml_trust_global_done();
    curl_global_cleanup();
}

static void default_to(uint32_t *option, uint32_t value)
{
    if (*option == 0)
        *option = value;
}

int ml_client_new(struct ml_client **ret, const struct ml_client_options *options)
{
    struct ml_client *c = ML_NEW(struct ml_client);
    c->options = *options;
    default_to(&c->options.connect_ms, 1000);
    default_to(&c->options.in_flight, 64);
    default_to(&c->options.queue, 1024);
    default_to(&c->options.open_after, 5);
    default_to(&c->options.probe_ms, 1000);
    TAILQ_INIT(&c->ready);
    TAILQ_INIT(&c->upstreams);
    uv_idle_init(options->loop, &c->deliver);
    c->deliver.data = c;
    *ret = c;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct ml_client *c = handle->data;
    void (*closed)(void *ctx) = c->closed;
    void *ctx = c->closed_ctx;
    free(c);
    if (closed)
        closed(ctx);
}

void ml_client_check_closed(struct ml_client *c)
{
    uv_handle_t *handle = (uv_handle_t *)&c->deliver;
    if (c->closing && c->ready_count == 0 && c->shutting == 0 && !uv_is_closing(handle))
        uv_close(handle, on_closed);
}

void ml_client_close(struct ml_client *c, void (*closed)(void *ctx), void *ctx)
{
    ML_REQUIRE(!c->closing);
    c->closing = true;
    c->closed = closed;
    c->closed_ctx = ctx;
    struct ml_upstream *u, *next;
    for (u = TAILQ_FIRST(&c->upstreams); u; u = next) {
        next = TAILQ_NEXT(u, link);
        ml_fetch_fail_all(u, ML_E_CANCELED, "the client is closing");
        ml_upstream_shut(u);
    }
    ml_client_check_closed(c);
}

/* What was ready when this turn began: what callbacks add waits for the next turn. */
static void on_deliver(uv_idle_t *idle)
{
    struct ml_client *c = idle->data;
    for (size_t n = c->ready_count; n > 0 && c->ready_count > 0; n--) {
        struct ml_fetch *f = TAILQ_FIRST(&c->ready);
        ml_fetch_done done = f->done;
        void *arg = f->arg;
        struct ml_fetch_result *result = f->result;
        TAILQ_REMOVE(&c->ready, f, link);
        c->ready_count--;
        f->result = NULL;
        ml_fetch_free(f);
        done(arg, result);
    }
    if (c->ready_count == 0)
        uv_idle_stop(idle);
    ml_client_check_closed(c);
}

void ml_client_deliver(struct ml_client *c, struct ml_fetch *f)
{
    f->state = ML_FETCH_READY;
    TAILQ_INSERT_TAIL(&c->ready, f, link);
    if (c->ready_count++ == 0)
        uv_idle_start(&c->deliver, on_deliver);
}

void ml_client_stats(struct ml_client *c, void (*fn)(void *ctx, const struct ml_upstream_stats *s),
                     void *ctx)
{
    struct ml_upstream *u;
    TAILQ_FOREACH(u, &c->upstreams, link)
    {
        struct ml_upstream_stats s = {
            .name = u->name,
            .requests = u->requests,
            .failures = u->failures,
            .rejected = u->rejected,
            .in_flight = u->in_flight,
            .queued = u->queued,
            .open = u->breaker.open,
        };
        fn(ctx, &s);
    }
}
