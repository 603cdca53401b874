/* Counters of one worker and the text of /metrics. A worker writes its own with relaxed atomics,
 * anybody reads. */
#pragma once

#include "base/buf.h"
#include "codec/request.h"

#include <stdatomic.h>
#include <stdint.h>

enum ml_result {
    ML_R_ALLOWED,
    ML_R_PUBLIC,
    ML_R_UNAUTHENTICATED,
    ML_R_DENIED,
    ML_R_UNAVAILABLE,
    ML_R_ERROR,
    ML_R_LOGIN,
    ML_R_BAD_REQUEST,
    ML_R_NOT_FOUND, /* a reserved path that does not exist */
    ML_R_CANCELED,  /* the client went away */
    ML_R_MAX_
};

enum { ML_LATENCY_BUCKETS = 11 };

struct ml_counters {
    _Atomic uint64_t checks[ML_R_MAX_];
    _Atomic uint64_t
        latency[ML_LATENCY_BUCKETS + 1]; /* not cumulative; the last one is above all bounds */
    _Atomic uint64_t latency_ns;
};

/* The result that a decision's reason word stands for. */
enum ml_result ml_result_of(const struct ml_decision *d);
void ml_counters_add(struct ml_counters *c, enum ml_result result, uint64_t elapsed_ns);

/* Writers of the Prometheus text format 0.0.4. labels: "" or "{a=\"b\"}". */
void ml_metric_type(struct ml_buf *b, const char *name, const char *type, const char *help);
void ml_metric(struct ml_buf *b, const char *name, const char *labels, uint64_t value);
/* The checks and latency families, summed over n counters. */
void ml_counters_print(struct ml_buf *b, struct ml_counters *const *counters, size_t n);
/* Memory, CPU, descriptors and start of this process, under the usual process_ names. */
void ml_process_print(struct ml_buf *b);
