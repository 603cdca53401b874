/* A fetch's way: queued at its upstream, running in curl, ready, delivered. Every fetch goes
 * through the queue, which is pumped whenever there is room; the total deadline runs from the
 * start. One thread; nothing here runs inside curl. */
#include "client/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdio.h>

static void to_ready(struct ml_fetch *f)
{
    f->result->elapsed_ms = (uint32_t)(ml_mono_ms() - f->start_ms);
    ml_client_deliver(f->upstream->client, f);
}

static void leave_queue(struct ml_fetch *f)
{
    struct ml_upstream *u = f->upstream;
    TAILQ_REMOVE(&u->queue, f, link);
    if (--u->queued == 0)
        uv_timer_stop(&u->queue_timer);
}

static void fail(struct ml_fetch *f, int error, const char *why)
{
    ml_failure(f->result, error, why);
    to_ready(f);
}

static void fail_queued(struct ml_upstream *u, int error, const char *why)
{
    struct ml_fetch *f;
    while ((f = TAILQ_FIRST(&u->queue))) {
        leave_queue(f);
        fail(f, error, why);
    }
}

/* Takes a running fetch out of curl. */
static void detach(struct ml_fetch *f)
{
    struct ml_upstream *u = f->upstream;
    curl_multi_remove_handle(u->multi, f->slot->easy);
    ml_slot_give_back(u, f->slot);
    f->slot = NULL;
    TAILQ_REMOVE(&u->running, f, link);
    u->in_flight--;
}

static void circuit_text(const struct ml_upstream *u, char *out, size_t n)
{
    snprintf(out, n, "circuit open: %s", u->last_failure);
}

/* What waits behind an upstream that is down would only wait for its deadline. */
static void opened(struct ml_upstream *u)
{
    char text[160];
    ml_log(ML_LOG_WARN, "circuit open", ML_FZ("upstream", u->name), ML_FZ("why", u->last_failure));
    circuit_text(u, text, sizeof text);
    u->rejected += u->queued;
    fail_queued(u, ML_E_UNAVAILABLE, text);
}

static const char *header(const struct ml_fetch_result *r, struct ml_str name, char *out, size_t n)
{
    out[0] = '\0';
    for (size_t i = 0; i < r->header_count; i++) {
        if (ml_str_eq(r->headers[i].name, name) && r->headers[i].value.n < n) {
            snprintf(out, n, "%.*s", ML_FMT(r->headers[i].value));
            break;
        }
    }
    return out;
}

/* A deadline shorter than a connect's says more about the caller than about the upstream. */
static bool is_failure(const struct ml_fetch *f, uint64_t now)
{
    const struct ml_fetch_result *r = f->result;
    if (r->error == ML_E_TIMEOUT)
        return now - f->sent_ms >= f->upstream->client->options.connect_ms;
    return r->error == ML_E_UNAVAILABLE || (!r->error && (r->status >= 500 || r->status == 429));
}

static void record_failure(struct ml_upstream *u, struct ml_fetch *f, uint64_t now)
{
    const struct ml_fetch_result *r = f->result;
    bool was_open = u->breaker.open;
    u->failures++;
    if (r->error)
        snprintf(u->last_failure, sizeof u->last_failure, "%.*s", (int)sizeof u->last_failure - 1,
                 r->text);
    else
        snprintf(u->last_failure, sizeof u->last_failure, "status %d", r->status);
    if (!r->error && r->status == 429) {
        char wait[64];
        header(r, ML_STR("retry-after"), wait, sizeof wait);
        ml_breaker_back_off(&u->breaker, now, ml_retry_after_ms(wait, ml_wall_ms()));
    } else {
        ml_breaker_failure(&u->breaker, now, f->ticket);
    }
    if (u->breaker.open && !was_open)
        opened(u);
}

static void record(struct ml_fetch *f)
{
    struct ml_upstream *u = f->upstream;
    uint64_t now = ml_mono_ms();
    bool was_open = u->breaker.open;
    if (is_failure(f, now)) {
        record_failure(u, f, now);
    } else if (!f->result->error || f->result->error == ML_E_TOOBIG) {
        ml_breaker_success(&u->breaker, f->ticket);
        if (was_open && !u->breaker.open)
            ml_log(ML_LOG_INFO, "circuit closed", ML_FZ("upstream", u->name));
    }
    if (!f->result->error && f->result->status == 401)
        u->token_read_ms = 0;
}

void ml_fetch_finished(struct ml_fetch *f, CURLcode code)
{
    ml_transfer_collect(f->slot, f, code);
    detach(f);
    record(f);
    to_ready(f);
}

void ml_fetch_fail_running(struct ml_upstream *u, int error, const char *why)
{
    struct ml_fetch *f;
    while ((f = TAILQ_FIRST(&u->running))) {
        detach(f);
        fail(f, error, why);
    }
}

void ml_fetch_fail_all(struct ml_upstream *u, int error, const char *why)
{
    fail_queued(u, error, why);
    ml_fetch_fail_running(u, error, why);
}

/* From the queue into curl, or, when that fails at once, to what is ready. */
static void run(struct ml_fetch *f, uint64_t now)
{
    struct ml_upstream *u = f->upstream;
    leave_queue(f);
    if (now >= f->deadline_ms) {
        fail(f, ML_E_TIMEOUT, "waited too long for a free connection");
        return;
    }
    struct ml_slot *s = ml_slot_take(u);
    if (!s || ml_transfer_prepare(s, f, f->deadline_ms - now) != CURLE_OK ||
        curl_multi_add_handle(u->multi, s->easy) != CURLM_OK) {
        if (s)
            ml_slot_give_back(u, s);
        fail(f, ML_E_UNAVAILABLE, "no memory for the transfer");
        return;
    }
    f->state = ML_FETCH_RUNNING;
    f->slot = s;
    f->sent_ms = now;
    TAILQ_INSERT_TAIL(&u->running, f, link);
    u->in_flight++;
}

static void on_queue_timer(uv_timer_t *timer);

/* The timer is set to the next deadline in the queue: deadlines are not in its order. */
static void watch_queued(struct ml_upstream *u, uint64_t deadline_ms)
{
    uint64_t now = ml_mono_ms();
    if (uv_is_active((uv_handle_t *)&u->queue_timer) && u->queue_due_ms <= deadline_ms)
        return;
    u->queue_due_ms = deadline_ms;
    uv_timer_start(&u->queue_timer, on_queue_timer, deadline_ms > now ? deadline_ms - now : 0, 0);
}

static void on_queue_timer(uv_timer_t *timer)
{
    struct ml_upstream *u = timer->data;
    struct ml_fetch *f, *next;
    uint64_t now = ml_mono_ms();
    for (f = TAILQ_FIRST(&u->queue); f; f = next) {
        next = TAILQ_NEXT(f, link);
        if (f->deadline_ms > now) {
            watch_queued(u, f->deadline_ms);
            continue;
        }
        leave_queue(f);
        fail(f, ML_E_TIMEOUT, "waited too long for a free connection");
    }
}

void ml_fetch_pump(struct ml_upstream *u)
{
    if (u->pumping || u->shut)
        return;
    u->pumping = true;
    for (bool again = true; again;) {
        struct ml_fetch *f;
        again = false;
        while (u->in_flight < u->client->options.in_flight && (f = TAILQ_FIRST(&u->queue))) {
            run(f, ml_mono_ms());
            again = true;
        }
        /* What ends at once makes room for the next: a loop, not a recursion. */
        if (again)
            ml_multi_act(u, CURL_SOCKET_TIMEOUT, 0);
    }
    u->pumping = false;
}

static int admit(struct ml_upstream *u, uint64_t now, uint32_t *ticket, struct ml_err *err)
{
    const struct ml_client_options *o = &u->client->options;
    if (u->in_flight >= o->in_flight && u->queued >= o->queue) {
        u->rejected++;
        return ml_fail(err, ML_E_BUSY, "%u requests wait for this upstream", u->queued);
    }
    if (!ml_breaker_allow(&u->breaker, now, ticket)) {
        char text[160];
        u->rejected++;
        circuit_text(u, text, sizeof text);
        return ml_fail(err, ML_E_UNAVAILABLE, "%s", text);
    }
    return 0;
}

int ml_fetch_start(struct ml_client *c, const struct ml_fetch_request *request, ml_fetch_done done,
                   void *arg, struct ml_fetch **ret, struct ml_err *err)
{
    struct ml_upstream *u = request->upstream;
    struct ml_fetch *f;
    const char *token = NULL;
    uint64_t now = ml_mono_ms();
    if (u->shut)
        return ml_fail(err, ML_E_CANCELED, "the client is closing");
    if (*u->token_file && !(token = ml_upstream_token(u, now, err)))
        return ML_E_UNAVAILABLE;
    int code = ml_fetch_build(&f, request, token, err);
    if (code < 0)
        return code;
    u->refs++;
    f->upstream = u;
    code = admit(u, now, &f->ticket, err);
    if (code < 0) {
        ml_fetch_free(f);
        return code;
    }
    f->done = done;
    f->arg = arg;
    f->start_ms = now;
    f->deadline_ms = now + request->timeout_ms;
    u->requests++;
    TAILQ_INSERT_TAIL(&u->queue, f, link);
    u->queued++;
    if (ret)
        *ret = f;
    ml_fetch_pump(u);
    if (f->state == ML_FETCH_QUEUED)
        watch_queued(u, f->deadline_ms);
    return 0;
}

void ml_fetch_cancel(struct ml_fetch *f)
{
    struct ml_upstream *u = f->upstream;
    struct ml_client *c = u->client;
    if (f->state == ML_FETCH_READY) {
        TAILQ_REMOVE(&c->ready, f, link);
        c->ready_count--;
        ml_fetch_free(f);
        return;
    }
    if (f->state == ML_FETCH_RUNNING)
        detach(f);
    else
        leave_queue(f);
    ml_fetch_pump(u); /* f still holds u */
    ml_fetch_free(f);
}
