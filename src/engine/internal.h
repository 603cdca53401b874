/* What engine.c, reload.c and report.c share. Main thread, but for what is atomic or under
 * ready_lock. */
#pragma once

#include "engine/engine.h"

struct ml_reload_waiter {
    struct ml_reload_waiter *next;
    ml_reload_done done;
    void *arg;
};

enum ml_reload_state { ML_RELOAD_IDLE, ML_RELOAD_CHECKING, ML_RELOAD_BUILDING, ML_RELOAD_WAITING };

struct ml_engine {
    uv_loop_t *loop;
    const struct ml_settings *settings;
    char *policy;
    struct ml_library *library;
    ml_http_handler on_check, on_web;
    const void *site;
    void (*reloaded)(void *ctx);
    void *ctx;
    struct ml_mailbox mailbox;
    struct ml_cache *cache;
    struct ml_flights *flights;
    struct ml_board *board;
    struct ml_key_sets *key_sets;
    struct ml_seal_keys *seal;
    struct ml_sessions *sessions;
    uint8_t secret[32];
    struct ml_worker *workers;
    unsigned worker_count, in_flight;
    bool closing;
    void (*closed)(void *ctx);
    void *closed_ctx;

    /* readiness */
    _Atomic bool ready;
    pthread_mutex_t ready_lock;
    char not_ready[512];

    /* generations: reload.c */
    uint64_t generation;      /* current */
    struct ml_bundle *bundle; /* current */
    enum ml_reload_state reload_state;
    struct ml_bundle *candidate;
    unsigned built, failed;
    uint64_t waiting_since_ms;
    bool forced;             /* build even when the files are as they were */
    bool again, force_again; /* asked for during a reload */
    struct ml_reload_waiter *waiters, *later;
    pthread_t checker; /* while CHECKING */
    struct ml_letter checked;
    int check_result;
    struct ml_buf report; /* of the last check */
    struct ml_buf trial;  /* the check's own, while its thread has it */
    uv_timer_t settle;    /* debounce of file events */
    uv_timer_t patience;  /* waits for a candidate's providers */
    uv_fs_event_t watch;
    bool watching;
    uint64_t reloads, reload_failures;
    bool last_failed;
};

/* sessions.c: e->seal and e->sessions; their families of /metrics. */
int ml_engine_open_sessions(struct ml_engine *e, struct ml_err *err);
void ml_engine_print_sessions(struct ml_engine *e, struct ml_buf *out);
/* reload.c */
void ml_engine_reload_open(struct ml_engine *e);
void ml_engine_reload_close(struct ml_engine *e);
/* In engine.c: after the last handle has closed. */
void ml_engine_free(struct ml_engine *e);
/* The first generation; runs the loop until all workers have it. */
int ml_engine_first_generation(struct ml_engine *e, struct ml_buf *report, struct ml_err *err);
