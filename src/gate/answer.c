/* Denials, answers, refusals. Worker threads; no state. */
#include "gate/answer.h"

#include "base/clock.h"

const struct ml_header ml_no_store = {{"cache-control", 13}, {"no-store", 8}};
static const struct ml_header plain_text = {{"content-type", 12},
                                            {"text/plain; charset=utf-8", 25}};

void ml_answer_refused(struct ml_worker *w, struct ml_exchange *x, int status, const char *text,
                       uint64_t started_ns)
{
    struct ml_header headers[] = {ml_no_store, plain_text};
    struct ml_http_response res = {
        .status = status, .headers = headers, .header_count = 2, .body = ml_str_z(text)};
    ml_counters_add(&w->counters, status == 404 ? ML_R_NOT_FOUND : ML_R_BAD_REQUEST,
                    ml_mono_ns() - started_ns);
    ml_exchange_reply(x, &res);
}

void ml_answer_client(struct ml_exchange *x, const struct ml_decision *d, int lowest)
{
    struct ml_header headers[ML_CLIENT_HEADERS_MAX + 2];
    size_t n = 0;
    if (d->status < lowest) {
        headers[n++] = ml_no_store;
        ml_exchange_reply(
            x, &(struct ml_http_response){.status = 503, .headers = headers, .header_count = n});
        return;
    }
    headers[n++] = ml_no_store;
    headers[n++] =
        (struct ml_header){plain_text.name, d->content_type.n ? d->content_type : plain_text.value};
    for (size_t i = 0; i < d->client_count; i++)
        if (!ml_str_ieq(d->client[i].name, ml_no_store.name)) /* nothing of ours is kept */
            headers[n++] = d->client[i];
    struct ml_http_response res = {
        .status = d->status, .headers = headers, .header_count = n, .body = d->body};
    ml_exchange_reply(x, &res);
}
