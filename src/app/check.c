/* moonlatch check FILE...: each file in a state of its own. */
#include "app/app.h"

#include "base/clock.h"
#include "client/fetch.h"
#include "engine/engine.h"

#include <stdio.h>
#include <string.h>

static bool check_file(const struct ml_settings *settings, const struct ml_library *library,
                       const char *path)
{
    struct ml_buf report;
    unsigned warnings = 0;
    uint64_t from = ml_mono_ns();
    ml_buf_init(&report, 1 << 20);
    bool ok = ml_engine_check(settings, library, path, &report, &warnings) == 0;
    printf("%s %s  %.2f ms\n%.*s", ok ? "ok  " : "FAIL", path, (double)(ml_mono_ns() - from) / 1e6,
           ML_FMT(ml_buf_str(&report)));
    ml_buf_done(&report);
    return ok;
}

int ml_app_check(int argc, char **argv)
{
    const char *directory = ml_app_library();
    if (argc < 2 || argv[1][0] == '-') {
        fputs("usage: moonlatch check FILE...\n", stderr);
        return 2;
    }
    if (!directory) {
        fputs("moonlatch: the Lua library is not installed beside the binary\n", stderr);
        return 1;
    }
    struct ml_settings *settings = ml_app_read_settings();
    if (!settings)
        return 2;
    struct ml_library *library = NULL;
    struct ml_err err;
    if (ml_library_new(&library, directory, &err) != 0) {
        fprintf(stderr, "moonlatch: %s\n", err.text);
        ml_settings_free(settings);
        return 1;
    }
    int failed = 0;
    ml_client_global_init();
    ml_watchdog_start();
    for (int i = 1; i < argc; i++)
        failed += !check_file(settings, library, argv[i]);
    ml_watchdog_stop();
    ml_client_global_done();
    ml_library_free(library);
    ml_settings_free(settings);
    return failed ? 2 : 0;
}
