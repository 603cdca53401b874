/* The bytes of one connection: what the socket takes and gives, through TLS or not, and hiredis'
 * reader. While one write is with libuv, what comes next is collected: it goes in one piece.
 *
 * A peer can make us hold a chunk, a reply that is not whole (256 KiB) and its tree (512 KiB). One
 * thread: the loop's. */
#include "client/redis_internal.h"

#include "base/mem.h"

#include <stdlib.h>

enum { KEEP = 64 << 10 }; /* larger buffers are given back */

static void flush(struct ml_redis_conn *c);

static void on_write(uv_write_t *write, int status)
{
    struct ml_redis_conn *c = write->data;
    c->writing = false;
    if (c->state == ML_REDIS_DEAD)
        return;
    if (status < 0) {
        ml_redis_conn_fail(c, ML_E_UNAVAILABLE, "%s", uv_strerror(status));
        return;
    }
    if (c->state != ML_REDIS_UP) /* the password may be in it */
        ml_wipe(c->sending.p, c->sending.n);
    if (c->sending.cap > KEEP)
        ml_buf_done(&c->sending);
    ml_buf_clear(&c->sending);
    flush(c);
}

static void flush(struct ml_redis_conn *c)
{
    if (c->writing || c->out.n == 0)
        return;
    struct ml_buf empty = c->sending;
    c->sending = c->out;
    c->out = empty;
    uv_buf_t buf = uv_buf_init(c->sending.p, (unsigned)c->sending.n);
    c->write.data = c;
    int r = uv_write(&c->write, (uv_stream_t *)&c->tcp, &buf, 1, on_write);
    if (r < 0)
        ml_redis_conn_fail(c, ML_E_UNAVAILABLE, "%s", uv_strerror(r));
    else
        c->writing = true;
}

void ml_redis_io_write(struct ml_redis_conn *c, const char *p, size_t n)
{
    bool ok = c->ssl ? ml_redis_tls_write(c->ssl, p, n) && ml_redis_tls_take(c->ssl, &c->out)
                     : ml_buf_add(&c->out, p, n);
    if (ok)
        flush(c);
    else
        ml_redis_conn_fail(c, ML_E_UNAVAILABLE, "the peer takes nothing");
}

void ml_redis_io_command(struct ml_redis_conn *c, const char *const *words, size_t count)
{
    const char *args[4];
    size_t lengths[4];
    ML_REQUIRE(count <= 4);
    for (size_t i = 0; i < count; i++) {
        args[i] = words[i];
        lengths[i] = strlen(words[i]);
    }
    char *wire = NULL;
    int n = (int)redisFormatCommandArgv(&wire, (int)count, args, lengths);
    if (n < 0) {
        ml_redis_conn_fail(c, ML_E_UNAVAILABLE, "no memory");
        return;
    }
    ml_redis_io_write(c, wire, (size_t)n);
    ml_wipe(wire, (size_t)n);
    redisFreeCommand(wire);
}

/* Hands over each whole reply. A callback may have ended the connection, but its memory stays. */
static void feed(struct ml_redis_conn *c, const char *p, size_t n)
{
    if (redisReaderFeed(c->reader, p, n) != REDIS_OK) {
        ml_redis_conn_fail(c, ML_E_UNAVAILABLE, "no memory for a reply");
        return;
    }
    while (c->state != ML_REDIS_DEAD) {
        void *reply = NULL;
        if (redisReaderGetReply(c->reader, &reply) != REDIS_OK) {
            ml_redis_conn_fail(c, ML_E_UNAVAILABLE, "a reply that is malformed or too big");
            return;
        }
        if (!reply)
            break;
        ml_redis_conn_deliver(c, reply);
        ml_arena_reset(&c->arena);
    }
    if (c->state != ML_REDIS_DEAD && c->reader->len - c->reader->pos > ML_REDIS_REPLY_BYTES)
        ml_redis_conn_fail(c, ML_E_UNAVAILABLE, "a reply over %d bytes", ML_REDIS_REPLY_BYTES);
}

/* 1: it may go on to read. */
static int shake(struct ml_redis_conn *c)
{
    if (c->state != ML_REDIS_CONNECTING)
        return 1;
    struct ml_err err = {0};
    int r = ml_redis_tls_shake(c->ssl, &err);
    bool taken = ml_redis_tls_take(c->ssl, &c->out); /* an alert, if it failed */
    if (r < 0 || !taken)
        ml_redis_conn_fail(c, ML_E_UNAVAILABLE, "%s", r < 0 ? err.text : "no memory");
    else if (r == 0)
        flush(c);
    else
        ml_redis_greet(c);
    return r == 1 && c->state != ML_REDIS_DEAD;
}

static void feed_tls(struct ml_redis_conn *c, const char *p, size_t n)
{
    struct ml_err err = {0};
    char plain[16 << 10]; /* the largest record */
    int r = 0;
    ml_redis_tls_put(c->ssl, p, n);
    if (!shake(c))
        return;
    while (c->state != ML_REDIS_DEAD &&
           (r = ml_redis_tls_read(c->ssl, plain, sizeof plain, &err)) > 0)
        feed(c, plain, (size_t)r);
    if (c->state == ML_REDIS_DEAD)
        return;
    if (r < 0)
        ml_redis_conn_fail(c, ML_E_UNAVAILABLE, "%s", err.text);
    else
        ml_redis_io_write(c, "", 0); /* a key update may want an answer */
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct ml_redis_conn *c = handle->data;
    *buf = uv_buf_init(c->client->scratch, sizeof c->client->scratch);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct ml_redis_conn *c = stream->data;
    if (c->state == ML_REDIS_DEAD || n == 0)
        return;
    c->askable = c->written;
    if (n < 0)
        ml_redis_conn_fail(c, ML_E_UNAVAILABLE, "%s",
                           n == UV_EOF ? "connection closed" : uv_strerror((int)n));
    else if (c->ssl)
        feed_tls(c, buf->base, (size_t)n);
    else
        feed(c, buf->base, (size_t)n);
}

void ml_redis_io_start(struct ml_redis_conn *c)
{
    const struct ml_redis_setup *s = c->client->setup;
    c->reader = ml_redis_reader_new(&c->arena);
    if (s->tls)
        c->ssl = ml_redis_tls_new(s->tls, c->address.host);
    if (!c->reader || (s->tls && !c->ssl) ||
        uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read) < 0)
        ml_redis_conn_fail(c, ML_E_UNAVAILABLE, "no memory for a connection");
    else if (c->ssl)
        shake(c);
    else
        ml_redis_greet(c);
}

void ml_redis_io_done(struct ml_redis_conn *c)
{
    if (c->reader)
        redisReaderFree(c->reader);
    ml_redis_tls_done(c->ssl);
    ml_arena_done(&c->arena);
    if (c->out.p)
        ml_wipe(c->out.p, c->out.cap);
    if (c->sending.p)
        ml_wipe(c->sending.p, c->sending.cap);
    ml_buf_done(&c->out);
    ml_buf_done(&c->sending);
}
