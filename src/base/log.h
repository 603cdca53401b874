/* The log: one line an event, JSON or, on a terminal, for people. Lines go through a bounded ring
 * to a writer thread, so that a blocked sink never blocks a loop: what does not fit is dropped and
 * counted. Any thread. */
#pragma once

#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>

enum ml_log_level { ML_LOG_FATAL, ML_LOG_ERROR, ML_LOG_WARN, ML_LOG_INFO, ML_LOG_DEBUG };

/* One field. Text is escaped; never pass a credential. */
struct ml_field {
    const char *name;
    struct ml_str text; /* used when text.p is not NULL */
    int64_t number;
};
#define ML_F(name, str) ((struct ml_field){(name), (str), 0})
#define ML_FZ(name, z) ((struct ml_field){(name), ml_str_z(z), 0})
#define ML_FN(name, n) ((struct ml_field){(name), {NULL, 0}, (int64_t)(n)})

/* Starts the writer thread on descriptor fd. Before it, lines are written directly to stderr. */
void ml_log_start(int fd, enum ml_log_level level, bool human);
/* Writes out what is queued, for at most a second, and ends the thread. */
void ml_log_stop(void);
void ml_log_set_level(enum ml_log_level level);
bool ml_log_on(enum ml_log_level level);
/* Lines dropped since the start. */
uint64_t ml_log_dropped(void);
/* "FATAL" ... "DEBUG"; false for any other word. */
bool ml_log_level_parse(struct ml_str word, enum ml_log_level *ret);

void ml_log_fields(enum ml_log_level level, struct ml_str message, const struct ml_field *fields,
                   size_t count);
#define ml_log(level, message, ...)                                                                \
    do {                                                                                           \
        if (ml_log_on(level)) {                                                                    \
            const struct ml_field ml_fields_[] = {__VA_ARGS__};                                    \
            ml_log_fields(level, ml_str_z(message), ml_fields_,                                    \
                          sizeof ml_fields_ / sizeof ml_fields_[0]);                               \
        }                                                                                          \
    } while (0)
/* Fatal events are logged before exit; the macro with no field. */
#define ml_log_text(level, message) ml_log_fields(level, ml_str_z(message), NULL, 0)
