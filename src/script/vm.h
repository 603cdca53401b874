/* The script room's face: policies run here, and nowhere else is lua.h included.
 *
 *   ml_script   one per worker: scheduler, ready list, watchdog registration. Outlives every VM.
 *   ml_bundle   the files of one policy, read once. Immutable, counted, shared by all workers.
 *   ml_library  our own Lua files, compiled once. Immutable, shared by all workers.
 *   ml_vm       one lua_State: a bundle on a worker (a generation). Counted; closes when nobody
 * decides in it. ml_run      one decision (or background task) in it: a pooled coroutine.
 *
 * All but ml_bundle, ml_library and the watchdog belong to the worker's thread. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "base/mailbox.h"
#include "client/fetch.h"
#include "codec/request.h"
#include "crypto/seal.h"
#include "store/board.h"
#include "store/cache.h"
#include "store/flight.h"
#include "store/key_sets.h"
#include "store/session.h"

#include <stdint.h>
#include <uv.h>

struct ml_script;
struct ml_bundle;
struct ml_library;
struct ml_vm;
struct ml_run;

struct ml_budget {
    uint32_t resume_cpu_ms;  /* one uninterrupted stretch of Lua; default 10 */
    uint32_t request_cpu_ms; /* all stretches of one request; default 50 */
    uint32_t load_cpu_ms;    /* loading and checking a policy; default 400 */
    uint32_t host_calls;     /* waiting host calls of one request; default 32 */
    size_t memory;           /* of one state; default 16 MiB */
    size_t block;            /* of one allocation; default 1 MiB + 64 KiB */
};
extern const struct ml_budget ml_default_budget;

/* What host functions reach. Everything outlives the ml_script made with it. */
struct ml_script_options {
    uv_loop_t *loop;
    struct ml_mailbox *mailbox; /* of this worker: flights of other workers wake us through it */
    struct ml_client *client;
    struct ml_cache *cache;
    struct ml_flights *flights;
    struct ml_board *board;
    struct ml_key_sets *key_sets;     /* NULL: JWK Sets are parsed for each token */
    const struct ml_seal_keys *seal;  /* NULL: seal and unseal raise */
    struct ml_session_seat *sessions; /* of this worker; NULL: session calls fail */
    const uint8_t *cache_secret;      /* 32 bytes, per process */
    const struct ml_library *library;
    struct ml_budget budget;
    /* Effective environment of this process (old names resolved); NULL when not set. */
    const char *(*env)(void *ctx, const char *name);
    void *env_ctx;
};

int ml_script_new(struct ml_script **ret, const struct ml_script_options *options);
/* Cancels what runs; every VM must have been unreferenced before. closed(ctx) when the last handle
 * is gone and no other worker's answer is on its way to us: the mailbox must stay open, and the
 * loop run, until then. */
void ml_script_close(struct ml_script *s, void (*closed)(void *ctx), void *ctx);

struct ml_script_stats {
    uint64_t resumes, waits, killed_cpu, killed_memory, killed_calls, errors, stale;
    uint64_t lua_bytes;
    unsigned running; /* runs that wait now */
};
struct ml_script_stats ml_script_stats(const struct ml_script *s);

/* The watchdog thread: one per process, before the first ml_script_new (which refuses with
 * ML_E_INVALID without it, for nothing may run unwatched), stopped after the last ml_script_close.
 * It looks every 2 ms at what each ml_script runs and, past the CPU budget, makes the worker's own
 * thread arm a hook (SIGURG) that raises an error no pcall can catch. */
int ml_watchdog_start(void);
void ml_watchdog_stop(void);

/* Compiles every .lua file below directory/moonlatch but those in testing/ (bounded: 256 files, 1
 * MiB each). Outlives every ml_script made with it. */
int ml_library_new(struct ml_library **ret, const char *directory, struct ml_err *err);
void ml_library_free(struct ml_library *library);

/* Reads the policy file and every .lua file beside it but hidden ones and specs (_spec.lua)
 * (bounded: 64 files, 1 MiB each, regular files, links followed), hashes them. */
int ml_bundle_read(struct ml_bundle **ret, const char *path, struct ml_err *err);
struct ml_bundle *ml_bundle_ref(struct ml_bundle *b);
void ml_bundle_unref(struct ml_bundle *b);
const char *ml_bundle_path(const struct ml_bundle *b); /* of the policy file, as given */
const char *ml_bundle_hash(const struct ml_bundle *b); /* hex SHA-256 over names and contents */

/* A new state: opens the sandbox, loads the library, loads, checks and compiles the policy. On
 * failure returns ML_E_POLICY and leaves the checker's text (many lines) in report; warnings of a
 * good policy are there too. */
int ml_vm_new(struct ml_vm **ret, struct ml_script *s, struct ml_bundle *b, uint64_t generation,
              struct ml_buf *report);
/* Its two halves, for a loop that serves others between them: an empty state with the library
 * (NULL: the report says why), then, once, the bundle's policy; a vm that cannot load is only to be
 * unreferenced. */
struct ml_vm *ml_vm_open(struct ml_script *s, struct ml_bundle *b, uint64_t generation,
                         struct ml_buf *report);
int ml_vm_load(struct ml_vm *vm, struct ml_buf *report);
struct ml_vm *ml_vm_ref(struct ml_vm *vm);
void ml_vm_unref(struct ml_vm *vm);
const char *ml_vm_name(const struct ml_vm *vm); /* the policy's name */
uint64_t ml_vm_generation(const struct ml_vm *vm);
struct ml_bundle *ml_vm_bundle(const struct ml_vm *vm); /* borrowed; lives as long as vm */
/* Upstream header names that the policy owns, lower case: a request with an alias of one is
 * refused. */
size_t ml_vm_owned_headers(const struct ml_vm *vm, const struct ml_str **ret);
/* Whether the policy answers our own places (login, logout, pages): a decision about one is a 503
 * without it. */
bool ml_vm_serves_places(const struct ml_vm *vm);
/* After an out-of-memory error: the state must be replaced by a new one of the same bundle. */
bool ml_vm_poisoned(const struct ml_vm *vm);
/* Runs the policy's background tasks (discovery) until the VM is unreferenced for good or
 * ml_vm_stop_tasks. On one worker only. */
void ml_vm_start_tasks(struct ml_vm *vm);
void ml_vm_stop_tasks(struct ml_vm *vm);
/* Whether each provider of the policy has been discovered; if not, why, in err. */
bool ml_vm_ready(struct ml_vm *vm, struct ml_err *err);

/* Decides. d is empty and stays where it is until done(arg) has run; request and arena as well; d's
 * slices live so long, too (some are the VM's). done may run before ml_vm_decide returns. The
 * result is always a decision: an error, a runaway, a missed deadline is a deny with 503. Holds a
 * reference to vm meanwhile. *ret (set only when done has not run yet) can be cancelled. */
void ml_vm_decide(struct ml_vm *vm, const struct ml_request *request, struct ml_decision *d,
                  void (*done)(void *arg), void *arg, struct ml_run **ret);
/* The client went away: done will not run; the coroutine is closed, its waits are dropped. */
void ml_run_cancel(struct ml_run *run);

/* Checks a policy without keeping it: what `moonlatch check` prints. Returns 0, or ML_E_POLICY;
 * *warnings counts them. */
int ml_policy_check(struct ml_script *s, const char *path, struct ml_buf *report,
                    unsigned *warnings);
