/* A worker: a thread with its loop, Lua states, HTTP client and check connections. The engine posts
 * letters to it; everything else here runs on the worker's own thread unless it says otherwise. */
#pragma once

#include "base/mailbox.h"
#include "engine/metrics.h"
#include "net/http1.h"
#include "script/vm.h"

#include <pthread.h>
#include <stdatomic.h>

struct ml_engine;

/* What the main thread asks a worker for in one letter and reads from the answer: see engine.c. */
enum { ML_REPORT_UPSTREAMS = 64 }; /* more are left out of /metrics */

struct ml_worker_report {
    struct ml_http_stats http;
    size_t connections;
    struct ml_script_stats script;
    struct ml_upstream_line {
        char name[64];
        struct ml_upstream_stats stats; /* its name points to the copy above */
    } upstreams[ML_REPORT_UPSTREAMS];
    size_t upstream_count;
};

struct ml_worker {
    struct ml_engine *engine;
    unsigned index;
    pthread_t thread;
    uv_loop_t loop;
    struct ml_mailbox mailbox;
    struct ml_client *client;
    struct ml_session_seat *seat; /* at the sessions; lives from before the script to after it */
    struct ml_script *script;
    struct ml_http_server *checks, *web;
    struct ml_vm *vm;        /* the current generation; NULL only before the first */
    struct ml_vm *opened;    /* half built: its policy is loaded in a later turn of the loop */
    struct ml_vm *next;      /* built, waiting for the flip */
    uv_timer_t readiness;    /* on worker 0: publishes ml_vm_ready of vm and of next */
    _Atomic bool next_ready; /* next's providers have been discovered; any thread */
    bool rebuilding, stopping;
    struct ml_counters counters;
    _Atomic int load; /* connections handed over and not yet closed, for the acceptor; any thread */
    uint64_t next_id; /* request ids */
};

/* For any thread that runs policies: signals belong to the main thread, but SIGURG is the
 * watchdog's way to stop a runaway policy here. */
void ml_worker_block_signals(void);

/* Any thread but the worker's; starts it and waits until it serves its mailbox. */
int ml_worker_start(struct ml_worker *w, struct ml_engine *engine, unsigned index,
                    struct ml_err *err);
/* Any thread: asks it to close everything and joins it. */
void ml_worker_stop(struct ml_worker *w);
/* Any thread: builds a VM of the bundle; done(arg, ok) runs on the engine's thread. */
void ml_worker_build(struct ml_worker *w, struct ml_bundle *bundle, uint64_t generation,
                     void (*done)(void *arg, bool ok), void *arg);
/* Any thread: makes the built VM current (flip), or drops it. */
void ml_worker_flip(struct ml_worker *w, bool keep);
/* Any thread: a connection of the check port or the web port, counted in w->load already. */
void ml_worker_adopt(struct ml_worker *w, int fd, const char *peer, bool web);
void ml_worker_drain(struct ml_worker *w);
/* Any thread: fills a report; done(arg, report) runs on the engine's thread and owns nothing of it
 * afterwards. false: the worker is closed, done will not run. */
bool ml_worker_ask(struct ml_worker *w, void (*done)(void *arg, struct ml_worker_report *report),
                   void *arg);

/* On the worker's thread, by gates: decides with the current generation. See ml_vm_decide. */
void ml_worker_decide(struct ml_worker *w, struct ml_request *request, struct ml_decision *d,
                      void (*done)(void *arg), void *arg, struct ml_run **ret);
/* 16 hex digits, unique in this process. */
void ml_worker_request_id(struct ml_worker *w, char out[17]);
