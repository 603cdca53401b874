/* The log: a blocked sink must not block the program; lines are whole, escaped JSON. Real pipes. */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum { SIZE = 1 << 20 };

static int ends[2];
static char text[SIZE];
static _Atomic size_t drained; /* bytes of text so far */

/* All that comes out of the pipe until its other end is closed; its length. */
static size_t drain(void)
{
    size_t n = 0;
    ssize_t got;
    while (n < SIZE - 1 && (got = read(ends[0], text + n, SIZE - 1 - n)) > 0)
        drained = n += (size_t)got;
    text[n] = 0;
    return n;
}

static void finish(void)
{
    ml_log_stop();
    close(ends[1]);
    drain();
    close(ends[0]);
}

static void lines_are_json(void **state)
{
    assert_int_equal(pipe(ends), 0);
    ml_log_start(ends[1], ML_LOG_INFO, false);
    ml_log(ML_LOG_INFO, "a \"b\"\nc", ML_F("text", ML_STR("x\ny\xFF")), ML_FN("n", -5),
           ML_FZ("z", "w"), ML_F("empty", ML_STR("")));
    ml_log_text(ML_LOG_DEBUG, "too quiet");
    ml_log_text(ML_LOG_ERROR, "last");
    finish();
    assert_non_null(strstr(text, "\"level\":\"INFO\",\"message\":\"a \\\"b\\\"\\u000ac\""));
    assert_non_null(
        strstr(text, ",\"text\":\"x\\u000ay\xEF\xBF\xBD\",\"n\":-5,\"z\":\"w\",\"empty\":\"\"}\n"));
    assert_null(strstr(text, "quiet"));
    assert_memory_equal(text, "{\"time\":\"20", 11);
    char *second = strchr(text, '\n') + 1;
    assert_non_null(strstr(second, "\"last\"}\n"));
    assert_ptr_equal(strchr(second, '\n'), text + strlen(text) - 1);
}

static void people_read_it(void **state)
{
    assert_int_equal(pipe(ends), 0);
    ml_log_start(ends[1], ML_LOG_DEBUG, true);
    ml_log(ML_LOG_DEBUG, "two\nlines \x1b[0m", ML_F("k", ML_STR("v\x1b")));
    finish();
    assert_non_null(strstr(text, " DEBUG two\nlines \\x1b[0m  k=\"v\\u001b\"\n"));
}

/* Nobody reads the pipe: logging goes on at its speed, what does not fit is counted, not waited
 * for. */
static void a_blocked_pipe_blocks_nobody(void **state)
{
    enum { LINES = 3000 };
    uint64_t dropped = ml_log_dropped();
    static char filler[1001];
    memset(filler, 'x', 1000);
    assert_int_equal(pipe(ends), 0);
    ml_log_start(ends[1], ML_LOG_INFO, false);
    uint64_t from = ml_mono_ms();
    for (int i = 0; i < LINES; i++)
        ml_log(ML_LOG_INFO, filler, ML_FN("i", i));
    assert_true(ml_mono_ms() - from < 3000);
    dropped = ml_log_dropped() - dropped;
    assert_in_range(dropped, LINES - 400, LINES - 200); /* ring and pipe hold some 300 */
    from = ml_mono_ms();
    ml_log_stop(); /* blocked as well: bounded by some seconds */
    assert_true(ml_mono_ms() - from < 4000);
    /* The writer was left behind in its write: its end stays open. */
    assert_true(read(ends[0], text, sizeof text - 1) >= 4096);
    assert_memory_equal(text, "{\"time\":", 8);
}

/* Once the pipe is read again, lines go on whole and in order. */
static void a_pipe_recovers(void **state)
{
    static char filler[1001];
    memset(filler, 'x', 1000);
    assert_int_equal(pipe(ends), 0);
    ml_log_start(ends[1], ML_LOG_INFO, false);
    for (int i = 0; i < 1000; i++)
        ml_log(ML_LOG_INFO, filler, ML_FN("i", i));
    pthread_t reader;
    drained = 0;
    pthread_create(&reader, NULL, (void *(*)(void *))(void *)drain, NULL);
    while (drained < 250000) /* the ring, by now */
        usleep(1000);
    ml_log_text(ML_LOG_INFO, "recovered");
    ml_log_stop();
    close(ends[1]);
    pthread_join(reader, NULL);
    close(ends[0]);
    int last = -1;
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        assert_memory_equal(line, "{\"time\":", 8);
        assert_int_equal(end[-1], '}');
        char *number = strstr(line, "\"i\":");
        if (number && number < end) {
            assert_true(atoi(number + 4) > last);
            last = atoi(number + 4);
        }
    }
    assert_true(last > 100);
    assert_non_null(strstr(text, "\"recovered\"}\n"));
}

static void *log_often(void *arg)
{
    for (int i = 0; i < 200; i++)
        ml_log(ML_LOG_INFO, "line", ML_FN("thread", (intptr_t)arg), ML_FN("i", i));
    return NULL;
}

static void threads_do_not_mix_lines(void **state)
{
    pthread_t t[4];
    assert_int_equal(pipe(ends), 0);
    ml_log_start(ends[1], ML_LOG_INFO, false);
    for (intptr_t i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, log_often, (void *)i);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    fcntl(ends[1], F_SETPIPE_SZ, SIZE);
    finish();
    int lines = 0;
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1, lines++) {
        assert_memory_equal(line, "{\"time\":", 8);
        assert_int_equal(end[-1], '}');
    }
    assert_int_equal(lines, 800);
}

static void a_line_that_is_too_long_is_dropped(void **state)
{
    static char filler[20001];
    memset(filler, 'x', 20000);
    uint64_t dropped = ml_log_dropped();
    assert_int_equal(pipe(ends), 0);
    ml_log_start(ends[1], ML_LOG_INFO, false);
    ml_log_text(ML_LOG_INFO, filler);
    ml_log_text(ML_LOG_INFO, "short");
    finish();
    assert_int_equal(ml_log_dropped() - dropped, 1);
    assert_null(strstr(text, "xxx"));
    assert_non_null(strstr(text, "short"));
}

/* The reader went away: writes fail (SIGPIPE is ignored by main) and the program lives. */
static void a_broken_pipe_is_survived(void **state)
{
    assert_int_equal(pipe(ends), 0);
    close(ends[0]);
    ml_log_start(ends[1], ML_LOG_INFO, false);
    for (int i = 0; i < 100; i++)
        ml_log_text(ML_LOG_INFO, "nobody reads this");
    ml_log_stop();
    close(ends[1]);
}

static void levels(void **state)
{
    enum ml_log_level level = ML_LOG_INFO;
    assert_true(ml_log_level_parse(ML_STR("WARN"), &level));
    assert_int_equal(level, ML_LOG_WARN);
    assert_false(ml_log_level_parse(ML_STR("warn"), &level));
    assert_false(ml_log_level_parse(ML_STR(""), &level));
    assert_false(ml_log_level_parse(ML_STR("DEBUG "), &level));
    assert_int_equal(level, ML_LOG_WARN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_json),
        cmocka_unit_test(people_read_it),
        cmocka_unit_test(threads_do_not_mix_lines),
        cmocka_unit_test(a_line_that_is_too_long_is_dropped),
        cmocka_unit_test(a_pipe_recovers),
        cmocka_unit_test(a_broken_pipe_is_survived),
        cmocka_unit_test(levels),
        cmocka_unit_test(a_blocked_pipe_blocks_nobody), /* last: it may leave a writer behind */
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
