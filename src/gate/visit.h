/* One request on any HTTP/1.1 gate, from its bytes to its answer. What gates differ in is a struct
 * ml_gate. Worker threads. */
#pragma once

#include "engine/worker.h"
#include "net/http1.h"

struct ml_visit {
    const struct ml_gate *gate;
    struct ml_worker *worker;
    struct ml_exchange *x;
    struct ml_run *run;
    uint64_t started_ns;
    struct ml_request request;
    struct ml_decision d;
};

struct ml_gate {
    bool web;   /* answers go to the client as they are */
    int lowest; /* the least status of a denial or answer: see ml_answer_client */
    /* Whose path it is: 0 to go on to the policy, or a status with its text; -1: answered. */
    int (*locate)(struct ml_visit *v, const char **why);
    void (*allow)(struct ml_visit *v);
};

/* Handles one request; the visit lives in the exchange's arena. */
void ml_visit_start(const struct ml_gate *gate, struct ml_worker *w, struct ml_exchange *x,
                    const struct ml_http_request *req);
