/* Revocations: sessions end in the store, verified bearer tokens leave the cache, and the other
 * replicas are told. A struct revocation for each that is under way, handed from the main thread to
 * worker 0, who has a seat at the session store, and back. */
#include "engine/internal.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

enum { VALUE_MAX = 2048, TOKEN_MAX = 16 * 1024 }; /* a JWT may be long; of it only a tag is told */

struct revocation {
    struct ml_letter letter;
    struct ml_engine *e;
    struct ml_worker *w;
    char kind[8], *value;
    size_t tokens, sessions;
    char failure[256]; /* "": done */
    ml_reload_done done;
    void *arg;
};

/* The cache ------------------------------------------------------------------------------------ */

struct search {
    bool all;
    uint32_t tag;
    char *text; /* a JSON string, with its quotes */
};

/* More may match than is meant (somebody else's claim with that text): it is asked again, no more.
 */
static bool matches(void *ctx, const struct ml_entry *e)
{
    const struct search *s = ctx;
    if (s->all)
        return true;
    return s->text ? strcasestr(e->bytes, s->text) != NULL : e->tag == s->tag;
}

/* value of a subject: "ISSUER SUB"; claims hold the second word. */
static size_t purge(struct ml_engine *e, struct ml_str kind, struct ml_str value)
{
    struct search s = {.all = ml_str_eq(kind, ML_STR("all"))};
    struct ml_buf text;
    if (ml_str_eq(kind, ML_STR("sid")))
        return 0;
    ml_buf_init(&text, 16 * 1024);
    if (ml_str_eq(kind, ML_STR("subject")))
        ml_str_cut(value, ' ', &value);
    if (ml_str_eq(kind, ML_STR("tag"))) {
        char hex[9];
        snprintf(hex, sizeof hex, "%.*s", ML_FMT(value));
        s.tag = (uint32_t)strtoul(hex, NULL, 16);
    } else if (!s.all) {
        ml_buf_add_json(&text, value);
        ml_buf_add(&text, "", 1);
        s.text = text.failed ? NULL : text.p;
        s.all = text.failed; /* better too much */
    }
    size_t purged = ml_cache_purge(e->cache, matches, &s);
    ml_buf_done(&text);
    return purged;
}

/* What another replica told ---------------------------------------------------------------------
 */

struct told {
    struct ml_letter letter;
    struct ml_engine *e;
    struct ml_str text; /* "KIND VALUE", behind the struct */
};

static void read_told(struct ml_letter *letter)
{
    struct told *t = ML_CONTAINER(letter, struct told, letter);
    struct ml_str value, kind = ml_str_cut(t->text, ' ', &value);
    size_t tokens = purge(t->e, kind, value);
    ml_log(ML_LOG_INFO, "revocation by another replica", ML_F("kind", kind),
           ML_FN("tokens", (long long)tokens));
    free(t);
}

/* On worker 0's thread. */
static void on_message(void *ctx, struct ml_str message)
{
    struct ml_worker *w = ctx;
    struct ml_str rest, word = ml_str_cut(message, ' ', &rest);
    if (!ml_str_eq(word, ML_STR("revoke")) || !rest.n)
        return;
    struct told *t = ml_xcalloc(1, sizeof *t + rest.n);
    memcpy(t + 1, rest.p, rest.n);
    t->letter.read = read_told;
    t->e = w->engine;
    t->text = ml_str((char *)(t + 1), rest.n);
    if (!ml_mailbox_post(&w->engine->mailbox, &t->letter))
        free(t);
}

void ml_engine_listen(struct ml_worker *w)
{
    if (w->index == 0)
        ml_session_listen(w->seat, on_message, w);
}

/* Our own ------------------------------------------------------------------------------------- */

static void finish(struct revocation *r)
{
    char text[512];
    bool ok = !*r->failure;
    if (ok)
        snprintf(text, sizeof text, "sessions ended: %zu\ncached identities forgotten here: %zu\n",
                 r->sessions, r->tokens);
    else
        snprintf(text, sizeof text, "cached identities forgotten here: %zu\nsessions: %s\n",
                 r->tokens, r->failure);
    ml_log(ok ? ML_LOG_INFO : ML_LOG_ERROR, "revocation", ML_FZ("kind", r->kind),
           ML_FN("sessions", (long long)r->sessions), ML_FN("tokens", (long long)r->tokens),
           ML_FZ("why", r->failure));
    r->done(r->arg, ok, ml_str_z(text));
    ml_wipe(r->value, strlen(r->value));
    free(r->value);
    free(r);
}

static void read_finished(struct ml_letter *letter)
{
    finish(ML_CONTAINER(letter, struct revocation, letter));
}

/* On worker 0's thread, as is what follows. */
static void on_killed(void *arg, const struct ml_session_reply *reply)
{
    struct revocation *r = arg;
    r->sessions = reply->found ? 1 : reply->count;
    if (reply->error)
        snprintf(r->failure, sizeof r->failure, "%s", reply->text ? reply->text : "failed");
    r->letter.read = read_finished;
    ml_mailbox_post(&r->e->mailbox, &r->letter); /* open as long as a worker runs */
}

static void read_revocation(struct ml_letter *letter)
{
    struct revocation *r = ML_CONTAINER(letter, struct revocation, letter);
    struct ml_session_seat *seat = r->w->seat;
    struct ml_str value = ml_str_z(r->value);
    bool token = strcmp(r->kind, "token") == 0;
    char message[VALUE_MAX + 32];
    int n = token ? snprintf(message, sizeof message, "revoke tag %08x", ml_cache_tag(value))
                  : snprintf(message, sizeof message, "revoke %s %s", r->kind, r->value);
    ml_session_publish(seat, ml_str(message, (size_t)n));
    if (token)
        ml_session_delete(seat, value, on_killed, r);
    else
        ml_session_kill(seat, ml_str_z(r->kind), value, on_killed, r);
}

static bool known_kind(struct ml_str kind)
{
    static const char *const kinds[] = {"user", "subject", "sid", "token", "all"};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (ml_str_eq(kind, ml_str_z(kinds[i])))
            return true;
    return false;
}

int ml_engine_revoke(struct ml_engine *e, struct ml_str kind, struct ml_str value,
                     ml_reload_done done, void *arg)
{
    bool all = ml_str_eq(kind, ML_STR("all"));
    size_t max = ml_str_eq(kind, ML_STR("token")) ? TOKEN_MAX : VALUE_MAX;
    if (!known_kind(kind) || all != (value.n == 0) || value.n > max ||
        memchr(value.p ? value.p : "", 0, value.n))
        return ML_E_INVALID;
    struct revocation *r = ML_NEW(struct revocation);
    snprintf(r->kind, sizeof r->kind, "%.*s", ML_FMT(kind));
    r->value = ml_xstrndup(value.p ? value.p : "", value.n);
    r->e = e;
    r->w = &e->workers[0];
    r->done = done;
    r->arg = arg;
    r->letter.read = read_revocation;
    if (strcmp(r->kind, "token") == 0) {
        char tag[9];
        snprintf(tag, sizeof tag, "%08x", ml_cache_tag(value));
        r->tokens = purge(e, ML_STR("tag"), ml_str(tag, 8));
    } else {
        r->tokens = purge(e, kind, value);
    }
    if (e->closing || !ml_mailbox_post(&r->w->mailbox, &r->letter)) {
        snprintf(r->failure, sizeof r->failure, "the server is stopping");
        finish(r);
    }
    return 0;
}
