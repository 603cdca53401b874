/* The server's pools of exchanges and outputs: what one request used, the next one takes. Bounded,
 * so that a burst does not hold its memory for ever. Runs on the server's loop. */
#include "net/http1_internal.h"

#include <stdlib.h>

static void free_exchange(struct ml_exchange *x)
{
    if (!x)
        return;
    ml_arena_done(&x->arena);
    ml_buf_done(&x->body);
    free(x->headers);
    free(x->buf);
    free(x);
}

static struct ml_exchange *new_exchange(const struct ml_http_server *s)
{
    struct ml_exchange *x = calloc(1, sizeof *x);
    if (!x)
        return NULL;
    ml_arena_init(&x->arena, HTTP1_ARENA);
    ml_buf_init(&x->body, s->limits.body_bytes);
    x->cap = HTTP1_BUFFER;
    x->buf = malloc(x->cap);
    if (!x->buf) {
        free_exchange(x);
        return NULL;
    }
    return x;
}

struct ml_exchange *ml_http1_take_exchange(struct ml_http1_conn *c)
{
    struct ml_http_server *s = c->server;
    struct ml_exchange *x = s->exchanges;
    if (x) {
        s->exchanges = x->next;
        s->exchange_count--;
    } else {
        x = new_exchange(s);
    }
    if (x) {
        x->conn = c;
        x->start = x->at = x->n = 0;
        ml_http1_parse_init(x);
    }
    c->x = x;
    return x;
}

void ml_http1_drop_exchange(struct ml_http1_conn *c)
{
    struct ml_http_server *s = c->server;
    struct ml_exchange *x = c->x;
    if (!x)
        return;
    c->x = NULL;
    x->conn = NULL;
    if (s->closing || s->exchange_count >= HTTP1_POOL || x->cap > HTTP1_BUFFER_KEEP) {
        free_exchange(x);
        return;
    }
    ml_arena_reset(&x->arena);
    x->next = s->exchanges;
    s->exchanges = x;
    s->exchange_count++;
}

static void free_out(struct ml_http1_out *out)
{
    ml_buf_done(&out->buf);
    free(out);
}

struct ml_http1_out *ml_http1_take_out(struct ml_http1_conn *c)
{
    struct ml_http_server *s = c->server;
    struct ml_http1_out *out = s->outs;
    if (out) {
        s->outs = out->next;
        s->out_count--;
    } else {
        out = calloc(1, sizeof *out);
        if (!out)
            return NULL;
        ml_buf_init(&out->buf, HTTP1_OUT + HTTP1_FLUSH);
    }
    c->out = out;
    return out;
}

void ml_http1_drop_out(struct ml_http_server *s, struct ml_http1_out *out)
{
    if (!out)
        return;
    if (s->closing || s->out_count >= HTTP1_POOL || out->buf.cap > HTTP1_FLUSH) {
        free_out(out);
        return;
    }
    ml_buf_clear(&out->buf);
    out->next = s->outs;
    s->outs = out;
    s->out_count++;
}

void ml_http1_free_pools(struct ml_http_server *s)
{
    while (s->exchanges) {
        struct ml_exchange *next = s->exchanges->next;
        free_exchange(s->exchanges);
        s->exchanges = next;
    }
    while (s->outs) {
        struct ml_http1_out *next = s->outs->next;
        free_out(s->outs);
        s->outs = next;
    }
}
