/* The engine: settings, shared stores, workers, policy generations. Lives on the main thread and
 * its loop; what other threads may call says so. */
#pragma once

#include "engine/settings.h"
#include "engine/worker.h"

#include <stdbool.h>
#include <uv.h>

struct ml_engine_options {
    uv_loop_t *loop;
    const struct ml_settings *settings;
    const char *policy;          /* path of the policy file */
    const char *library;         /* directory that holds moonlatch/init.lua */
    ml_http_handler on_check;    /* the gate of the check port; ctx is the struct ml_worker */
    ml_http_handler on_web;      /* of the web port, likewise */
    const void *site;            /* on_web's own */
    void (*reloaded)(void *ctx); /* a start or a reload has ended; NULL allowed */
    void *ctx;
};

/* Checks the policy, starts the workers, makes the first generation current. A bad policy:
 * ML_E_POLICY with the checker's text in report. */
int ml_engine_new(struct ml_engine **ret, const struct ml_engine_options *options,
                  struct ml_buf *report, struct ml_err *err);
/* Stops the workers and frees everything; the loop must run until its handles are closed. Calls
 * closed(ctx). */
void ml_engine_close(struct ml_engine *e, void (*closed)(void *ctx), void *ctx);

const struct ml_settings *ml_engine_settings(const struct ml_engine *e);
/* A new connection of the check port goes to the worker with the fewest. */
void ml_engine_adopt(void *engine, int fd, const char *peer);
/* The same for the web port. */
void ml_engine_adopt_web(void *engine, int fd, const char *peer);
/* All workers close their connections as they fall idle. */
void ml_engine_drain(struct ml_engine *e);
int ml_engine_connections(const struct ml_engine *e);

/* Reload. force: also when the policy's files are as they were (what they read may have changed).
 * `done` (NULL allowed) runs on the main thread with the outcome: ok and the warnings, or the text
 * that says why the old generation stays. Calls during a reload are answered by one further reload.
 */
typedef void (*ml_reload_done)(void *arg, bool ok, struct ml_str text);
void ml_engine_reload(struct ml_engine *e, const char *why, bool force, ml_reload_done done,
                      void *arg);
/* Reloads when the policy's directory changes. */
void ml_engine_watch(struct ml_engine *e);

/* Ends sessions and forgets verified bearer tokens, here and on the replicas that share the session
 * store. kind: "user" (as the policy calls him), "subject" ("ISSUER SUB"), "sid" ("ISSUER SID"),
 * "token" (a session id or a bearer token) or "all" (no value); value: at most 2 KiB. done runs on
 * the main thread, perhaps before this returns, with a text for people; not ok: tokens are
 * forgotten, the session store could not be asked. ML_E_INVALID: no such kind, or no such value;
 * done does not run. */
int ml_engine_revoke(struct ml_engine *e, struct ml_str kind, struct ml_str value,
                     ml_reload_done done, void *arg);

/* Whether checks are answered: set-up has once been complete. err says what is missing. Any thread.
 */
bool ml_engine_ready(struct ml_engine *e, struct ml_err *err);
/* By worker 0. */
void ml_engine_set_ready(struct ml_engine *e, bool ready, const char *why);

/* JSON for the admin listener: name, path, hash, generation, last reload. */
void ml_engine_describe(struct ml_engine *e, struct ml_buf *out);
/* Collects /metrics from all workers; done(arg, text) runs on the main thread, within a second. */
void ml_engine_metrics(struct ml_engine *e, void (*done)(void *arg, struct ml_str text), void *arg);

/* For workers: shared things, immutable or thread-safe. */
struct ml_script_options ml_engine_script_options(struct ml_engine *e);
/* A worker's share of the 64 requests that a provider gets from this process at a time. */
unsigned ml_engine_in_flight(const struct ml_engine *e);
/* Hears what other replicas revoke; on the worker's thread. */
void ml_engine_listen(struct ml_worker *w);
struct ml_sessions *ml_engine_sessions(const struct ml_engine *e);
ml_http_handler ml_engine_check_handler(const struct ml_engine *e);
ml_http_handler ml_engine_web_handler(const struct ml_engine *e);
const void *ml_engine_site(const struct ml_engine *e);
struct ml_mailbox *ml_engine_mailbox(struct ml_engine *e);

/* Checks a policy in a state of its own on the calling thread; what `moonlatch check` and reloads
 * use. */
int ml_engine_check(const struct ml_settings *settings, const struct ml_library *library,
                    const char *path, struct ml_buf *report, unsigned *warnings);
/* The same for files that were read already, with nothing kept: reloads try a bundle before any
 * worker sees it. */
int ml_engine_try(const struct ml_settings *settings, const struct ml_library *library,
                  struct ml_bundle *bundle, struct ml_buf *report);
/* Loads the policy in a state of its own, lets it read what its providers publish (a few seconds),
 * and decides one request in it, within `deadline_ms` of the request; there is no session store.
 * told(ctx, d) sees the decision, whose slices end with that call. ML_E_POLICY: report says what is
 * wrong with the policy. */
int ml_engine_ask(const struct ml_settings *settings, const struct ml_library *library,
                  const char *path, const struct ml_request *request,
                  void (*told)(void *ctx, const struct ml_decision *d), void *ctx,
                  struct ml_buf *report);
/* CPUs that the cgroup quota gives us, rounded up; at least 1. */
unsigned ml_cpus(void);
