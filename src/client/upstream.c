/* Upstreams: who is asked and how it is known. Each has its own multi handle, so that a connection
 * never serves two identities (S-160). Counted: its holders and its fetches hold references; at
 * zero it is shut, and freed when its last uv handle has closed. One thread. */
#include "client/internal.h"

#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { CA_FILE_BYTES = 1 << 20, NAME_BYTES = 256 };

static const char *or_empty(const char *z)
{
    return z ? z : "";
}

/* A file's text, NUL-terminated and malloc'd; NULL with err. */
static char *read_text(const char *path, size_t max, struct ml_err *err)
{
    FILE *file = fopen(path, "re");
    if (!file) {
        ml_fail(err, ML_E_IO, "%s: %s", path, strerror(errno));
        return NULL;
    }
    char *text = malloc(max + 1);
    size_t n = text ? fread(text, 1, max + 1, file) : 0;
    bool failed = !text || ferror(file) || n > max || memchr(text, '\0', n);
    fclose(file);
    if (failed) {
        ml_fail(err, ML_E_IO, "%s: cannot be read, is over %zu bytes or holds a NUL", path, max);
        free(text);
        return NULL;
    }
    text[n] = '\0';
    return text;
}

static bool same(const struct ml_upstream *u, const struct ml_upstream_options *o,
                 const char *extra)
{
    return strcmp(u->name, or_empty(o->name)) == 0 && strcmp(u->ca_extra, extra) == 0 &&
           strcmp(u->ca_pem, or_empty(o->ca_pem)) == 0 &&
           strcmp(u->cert_pem, or_empty(o->cert_pem)) == 0 &&
           strcmp(u->key_pem, or_empty(o->key_pem)) == 0 &&
           strcmp(u->token_file, or_empty(o->token_file)) == 0;
}

static int check(const struct ml_upstream_options *o, const char *extra, struct ml_err *err)
{
    if (strlen(or_empty(o->name)) > NAME_BYTES)
        return ml_fail(err, ML_E_INVALID, "the upstream's name is over %d bytes", NAME_BYTES);
    if (*extra && ml_trust_check_ca(extra, err) < 0)
        return err ? err->code : ML_E_INVALID;
    if (*or_empty(o->ca_pem) && ml_trust_check_ca(o->ca_pem, err) < 0)
        return err ? err->code : ML_E_INVALID;
    if (*or_empty(o->cert_pem) || *or_empty(o->key_pem))
        return ml_trust_check_pair(or_empty(o->cert_pem), or_empty(o->key_pem), err);
    return 0;
}

static void wipe_free(char *z)
{
    if (z)
        ml_wipe(z, strlen(z));
    free(z);
}

static void upstream_free(struct ml_upstream *u)
{
    ml_upstream_forget_token(u);
    ml_trust_free(u->trust);
    free(u->name);
    free(u->ca_extra);
    free(u->ca_pem);
    free(u->cert_pem);
    wipe_free(u->key_pem);
    free(u->token_file);
    free(u);
}

static struct ml_upstream *upstream_new(struct ml_client *c, const struct ml_upstream_options *o,
                                        const char *extra, struct ml_err *err)
{
    struct ml_upstream *u = ML_NEW(struct ml_upstream);
    u->client = c;
    u->refs = 1;
    u->name = ml_xstrdup(or_empty(o->name));
    u->ca_extra = ml_xstrdup(extra);
    u->ca_pem = ml_xstrdup(or_empty(o->ca_pem));
    u->cert_pem = ml_xstrdup(or_empty(o->cert_pem));
    u->key_pem = ml_xstrdup(or_empty(o->key_pem));
    u->token_file = ml_xstrdup(or_empty(o->token_file));
    TAILQ_INIT(&u->queue);
    TAILQ_INIT(&u->running);
    ml_breaker_init(&u->breaker, c->options.open_after, c->options.probe_ms);
    if (ml_multi_open(u) < 0) {
        ml_fail(err, ML_E_NOMEM, "curl has no memory");
        upstream_free(u);
        return NULL;
    }
    uv_timer_init(c->options.loop, &u->multi_timer);
    uv_timer_init(c->options.loop, &u->queue_timer);
    u->multi_timer.data = u->queue_timer.data = u;
    u->handles = 2;
    TAILQ_INSERT_TAIL(&c->upstreams, u, link);
    c->upstream_count++;
    return u;
}

static struct ml_upstream *get(struct ml_client *c, const struct ml_upstream_options *o,
                               const char *extra, struct ml_err *err)
{
    struct ml_upstream *u;
    TAILQ_FOREACH(u, &c->upstreams, link)
    {
        if (same(u, o, extra)) {
            u->refs++;
            return u;
        }
    }
    if (check(o, extra, err) < 0)
        return NULL;
    if (c->upstream_count >= ML_CLIENT_UPSTREAMS_MAX) {
        ml_fail(err, ML_E_BUSY, "more than %d upstreams", ML_CLIENT_UPSTREAMS_MAX);
        return NULL;
    }
    return upstream_new(c, o, extra, err);
}

struct ml_upstream *ml_upstream_get(struct ml_client *c, const struct ml_upstream_options *options,
                                    struct ml_err *err)
{
    if (c->closing) {
        ml_fail(err, ML_E_CANCELED, "the client is closing");
        return NULL;
    }
    /* The text of the file, not its name, is the identity: a new CA makes a new upstream. */
    char *extra = NULL;
    if (*or_empty(options->ca_file)) {
        extra = read_text(options->ca_file, CA_FILE_BYTES, err);
        if (!extra)
            return NULL;
        if (!*extra) {
            ml_fail(err, ML_E_INVALID, "%s: no certificate in it", options->ca_file);
            free(extra);
            return NULL;
        }
    }
    struct ml_upstream *u = get(c, options, or_empty(extra), err);
    free(extra);
    return u;
}

static void free_if_unused(struct ml_upstream *u)
{
    if (u->refs == 0 && u->handles == 0)
        upstream_free(u);
}

void ml_upstream_handle_gone(struct ml_upstream *u)
{
    if (--u->handles > 0)
        return;
    struct ml_client *c = u->client;
    free_if_unused(u);
    c->shutting--;
    ml_client_check_closed(c);
}

static void on_timer_closed(uv_handle_t *handle)
{
    ml_upstream_handle_gone(handle->data);
}

/* Without fetches that are queued or running. */
void ml_upstream_shut(struct ml_upstream *u)
{
    u->shut = true;
    TAILQ_REMOVE(&u->client->upstreams, u, link);
    u->client->upstream_count--;
    u->client->shutting++;
    ml_slots_free(u);
    ml_multi_close(u);
    uv_close((uv_handle_t *)&u->multi_timer, on_timer_closed);
    uv_close((uv_handle_t *)&u->queue_timer, on_timer_closed);
}

void ml_upstream_unref(struct ml_upstream *u)
{
    if (!u || --u->refs > 0)
        return;
    if (!u->shut)
        ml_upstream_shut(u);
    else
        free_if_unused(u);
}
