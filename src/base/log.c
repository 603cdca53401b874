/* The log's ring and writer thread: process-wide, owned by this file. Producers hold the lock only
 * to copy one finished line; the writer holds it only to take one. */
#include "base/log.h"

#include "base/buf.h"
#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { RING = 256 * 1024, LINE = 16 * 1024 };

static const char *const names[] = {"FATAL", "ERROR", "WARN", "INFO", "DEBUG"};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    pthread_t thread;
    char *ring; /* lines end to end, bytes [head, tail) modulo RING */
    size_t head, tail;
    int fd;
    bool running, stopping, human;
} sink = {.lock = PTHREAD_MUTEX_INITIALIZER, .filled = PTHREAD_COND_INITIALIZER, .fd = 2};

static _Atomic int threshold = ML_LOG_INFO;
static _Atomic uint64_t dropped;

bool ml_log_on(enum ml_log_level level)
{
    return (int)level <= atomic_load_explicit(&threshold, memory_order_relaxed);
}

void ml_log_set_level(enum ml_log_level level)
{
    atomic_store(&threshold, (int)level);
}

uint64_t ml_log_dropped(void)
{
    return atomic_load(&dropped);
}

bool ml_log_level_parse(struct ml_str word, enum ml_log_level *ret)
{
    for (int i = 0; i <= ML_LOG_DEBUG; i++)
        if (ml_str_eq(word, ml_str_z(names[i]))) {
            *ret = (enum ml_log_level)i;
            return true;
        }
    return false;
}

/* Writes all of it unless the sink stays blocked for `patience` ms (-1: for ever). */
static bool write_all(int fd, const char *p, size_t n, int patience)
{
    while (n) {
        struct pollfd ready = {.fd = fd, .events = POLLOUT};
        int polled = poll(&ready, 1, patience);
        if (polled == 0)
            return false;
        ssize_t wrote = polled < 0 ? -1 : write(fd, p, n);
        if (wrote < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (wrote <= 0)
            return false;
        p += wrote;
        n -= (size_t)wrote;
    }
    return true;
}

static void *writer(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&sink.lock);
    while (true) {
        while (sink.head == sink.tail && !sink.stopping)
            pthread_cond_wait(&sink.filled, &sink.lock);
        if (sink.head == sink.tail)
            break;
        size_t at = sink.head % RING, n = sink.tail - sink.head;
        if (n > RING - at)
            n = RING - at;
        if (n > LINE)
            n = LINE; /* at most so much is lost when a sink breaks in the middle */
        int patience = sink.stopping ? 1000 : -1;
        pthread_mutex_unlock(&sink.lock);
        bool ok = write_all(sink.fd, sink.ring + at, n, patience);
        pthread_mutex_lock(&sink.lock);
        sink.head += n;
        if (!ok && sink.stopping)
            break;
    }
    pthread_mutex_unlock(&sink.lock);
    return NULL;
}

void ml_log_start(int fd, enum ml_log_level level, bool human)
{
    ml_log_set_level(level);
    sink.fd = fd;
    sink.human = human;
    sink.stopping = false;
    sink.ring = malloc(RING);
    sink.running = sink.ring && pthread_create(&sink.thread, NULL, writer, NULL) == 0;
}

void ml_log_stop(void)
{
    if (!sink.running)
        return;
    pthread_mutex_lock(&sink.lock);
    sink.stopping = true;
    pthread_cond_signal(&sink.filled);
    pthread_mutex_unlock(&sink.lock);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 2;
    /* A writer stuck in a blocked sink is left behind with its ring: the process is about to exit.
     */
    bool ended = pthread_timedjoin_np(sink.thread, NULL, &until) == 0;
    if (!ended)
        pthread_detach(sink.thread);
    pthread_mutex_lock(&sink.lock);
    sink.running = false;
    if (ended) {
        free(sink.ring);
        sink.ring = NULL;
        sink.head = sink.tail = 0;
    }
    pthread_mutex_unlock(&sink.lock);
}

static void emit(struct ml_str line)
{
    pthread_mutex_lock(&sink.lock);
    if (!sink.running) {
        pthread_mutex_unlock(&sink.lock);
        write_all(sink.fd, line.p, line.n, 1000);
        return;
    }
    if (line.n > RING - (sink.tail - sink.head)) {
        pthread_mutex_unlock(&sink.lock);
        atomic_fetch_add(&dropped, 1);
        return;
    }
    size_t at = sink.tail % RING, first = line.n < RING - at ? line.n : RING - at;
    memcpy(sink.ring + at, line.p, first);
    memcpy(sink.ring, line.p + first, line.n - first);
    sink.tail += line.n;
    pthread_cond_signal(&sink.filled);
    pthread_mutex_unlock(&sink.lock);
}

static void stamp(char *out, size_t n, bool human)
{
    int64_t now = ml_wall_ms();
    time_t seconds = (time_t)(now / 1000);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    size_t at = strftime(out, n, human ? "%H:%M:%S" : "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(out + at, n - at, human ? ".%03d" : ".%03dZ", (int)(now % 1000));
}

static void add_fields(struct ml_buf *b, const struct ml_field *f, size_t count, bool human)
{
    for (size_t i = 0; i < count; i++) {
        ml_buf_printf(b, human ? "  %s=" : ",\"%s\":", f[i].name);
        if (f[i].text.p)
            ml_buf_add_json(b, f[i].text);
        else
            ml_buf_printf(b, "%lld", (long long)f[i].number);
    }
}

/* Multi-line texts (a policy's errors) stay readable on a terminal. */
static void add_human(struct ml_buf *b, struct ml_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)
            ml_buf_printf(b, "\\x%02x", c);
        else
            ml_buf_add(b, s.p + i, 1);
    }
}

void ml_log_fields(enum ml_log_level level, struct ml_str message, const struct ml_field *fields,
                   size_t count)
{
    struct ml_buf line;
    char when[40];
    if (!ml_log_on(level))
        return;
    bool human = sink.human;
    ml_buf_init(&line, LINE);
    stamp(when, sizeof when, human);
    if (human) {
        ml_buf_printf(&line, "%s %-5s ", when, names[level]);
        add_human(&line, message);
    } else {
        ml_buf_printf(&line, "{\"time\":\"%s\",\"level\":\"%s\",\"message\":", when, names[level]);
        ml_buf_add_json(&line, message);
    }
    add_fields(&line, fields, count, human);
    ml_buf_add(&line, human ? "\n" : "}\n", human ? 1 : 2);
    if (line.failed)
        atomic_fetch_add(&dropped, 1);
    else
        emit(ml_buf_str(&line));
    ml_buf_done(&line);
}
