/* moonlatch serve: listeners, signals, drain. Owns the main loop; everything here runs on the main
 * thread. */
#include "app/app.h"

#include "base/clock.h"
#include "base/mem.h"
#include "client/fetch.h"
#include "engine/engine.h"
#include "gate/admin.h"
#include "gate/envoy_http.h"
#include "gate/status.h"
#include "gate/theme.h"
#include "gate/web.h"
#include "net/listener.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TICK_MS = 100, QUIET_MS = 500, LAST_MS = 1000, TRIM_MS = 1000 };

struct serve {
    uv_loop_t loop;
    struct ml_settings *settings;
    struct ml_engine *engine;
    struct ml_theme *theme;
    struct ml_listener *check_listener, *web_listener, *status_listener, *admin_listener;
    struct ml_http_server *status_server, *admin_server;
    struct ml_status status;
    struct ml_admin admin;
    uv_signal_t signals[3];
    uv_timer_t drain, trim;
    uint64_t drain_until_ms, busy_at_ms;
    bool draining, closing;
    int exit_code;
};

/* Stopping ---------------------------------------------------------------------------------------
 */

static void on_engine_closed(void *ctx)
{
    struct serve *s = ctx;
    s->engine = NULL;
}

static void nothing(void *ctx)
{
}

static void close_listener(struct ml_listener **l)
{
    if (*l)
        ml_listener_close(*l);
    *l = NULL;
}

static void close_all(struct serve *s)
{
    if (s->closing)
        return;
    s->closing = true;
    close_listener(&s->check_listener);
    close_listener(&s->web_listener);
    close_listener(&s->status_listener);
    close_listener(&s->admin_listener);
    if (s->engine)
        ml_engine_close(s->engine, on_engine_closed, s);
    if (s->status_server)
        ml_http_server_close(s->status_server, nothing, NULL);
    if (s->admin_server)
        ml_http_server_close(s->admin_server, nothing, NULL);
    for (size_t i = 0; i < sizeof s->signals / sizeof s->signals[0]; i++)
        uv_close((uv_handle_t *)&s->signals[i], NULL);
    uv_close((uv_handle_t *)&s->drain, NULL);
    uv_close((uv_handle_t *)&s->trim, NULL);
}

/* Connections are served, each answer with "Connection: close", until it has been quiet for a while
 * (gateways take their time to notice the readiness) or time is nearly up; then new ones are
 * refused, and at the end all is closed. */
static void on_drain_tick(uv_timer_t *timer)
{
    struct serve *s = timer->data;
    uint64_t now = ml_mono_ms();
    int connections = ml_engine_connections(s->engine);
    if (connections > 0)
        s->busy_at_ms = now;
    if (s->check_listener && now + LAST_MS >= s->drain_until_ms) {
        close_listener(&s->check_listener);
        close_listener(&s->web_listener);
    }
    if (now >= s->drain_until_ms || now - s->busy_at_ms >= QUIET_MS ||
        (!s->check_listener && connections == 0))
        close_all(s);
}

static void start_drain(struct serve *s)
{
    long long timeout = ml_settings_int(s->settings, "DRAIN_TIMEOUT");
    s->draining = s->status.draining = true;
    s->busy_at_ms = ml_mono_ms();
    /* A little less than promised, for the closing itself. */
    s->drain_until_ms = s->busy_at_ms + (uint64_t)(timeout > 1000 ? timeout - 500 : timeout / 2);
    ml_log(ML_LOG_INFO, "draining", ML_FN("timeout_ms", timeout),
           ML_FN("connections", ml_engine_connections(s->engine)));
    ml_engine_drain(s->engine);
    uv_timer_start(&s->drain, on_drain_tick, 0, TICK_MS);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct serve *s = handle->data;
    if (s->closing)
        return;
    if (number == SIGHUP)
        ml_engine_reload(s->engine, "SIGHUP", true, NULL, NULL);
    else if (s->draining)
        close_all(s);
    else
        start_drain(s);
}

/* Starting
 * ----------------------------------------------------------------------------------------- */

static void on_trim(uv_timer_t *timer)
{
    ml_app_trim();
}

/* A start needs memory for a moment, and so does a reload. */
static void on_reloaded(void *ctx)
{
    struct serve *s = ctx;
    if (!s->closing)
        uv_timer_start(&s->trim, on_trim, TRIM_MS, 0);
}

static void open_signals(struct serve *s)
{
    static const int numbers[] = {SIGHUP, SIGTERM, SIGINT};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        uv_signal_init(&s->loop, &s->signals[i]);
        s->signals[i].data = s;
        uv_signal_start(&s->signals[i], on_signal, numbers[i]);
    }
    uv_timer_init(&s->loop, &s->drain);
    uv_timer_init(&s->loop, &s->trim);
    s->drain.data = s;
}

static void on_status_accepted(void *ctx, int fd, const char *peer)
{
    struct serve *s = ctx;
    ml_http_server_adopt(s->status_server, fd, peer);
}

static void on_admin_accepted(void *ctx, int fd, const char *peer)
{
    struct serve *s = ctx;
    ml_http_server_adopt(s->admin_server, fd, peer);
}

static int listen_on(struct serve *s, struct ml_listener **l, const char *host,
                     const char *port_setting, ml_accepted fn, void *ctx)
{
    char address[512];
    struct ml_err err = {.text = ""};

    if (strchr(host, ':') && host[0] != '[')
        snprintf(address, sizeof address, "[%s]:%s", host,
                 ml_settings_text(s->settings, port_setting));
    else
        snprintf(address, sizeof address, "%s:%s", host,
                 ml_settings_text(s->settings, port_setting));
    int r = ml_listener_open(l, &s->loop, address, fn, ctx, &err);
    if (r != 0)
        fprintf(stderr, "moonlatch: %s=%s: %s\n", port_setting,
                ml_settings_text(s->settings, port_setting), err.text);
    return r;
}

static const struct ml_http_limits small_limits = {.target_bytes = 4096,
                                                   .header_bytes = 16384,
                                                   .header_count = 64,
                                                   .body_bytes = 16384,
                                                   .connections = 256,
                                                   .header_ms = 5000,
                                                   .idle_ms = 60000,
                                                   .body_ms = 5000,
                                                   .write_ms = 10000};

static int open_status(struct serve *s)
{
    struct ml_http_options options = {
        .loop = &s->loop, .limits = &small_limits, .handler = ml_status_handle, .ctx = &s->status};
    s->status.engine = s->engine;
    int r = ml_http_server_new(&s->status_server, &options);
    return r ? r
             : listen_on(s, &s->status_listener, "", "READINESS_PROBE_PORT", on_status_accepted, s);
}

static bool is_default(const struct serve *s)
{
    return ml_settings_env(s->settings, "ADMIN_ADDR") == NULL;
}

/* The default socket is a convenience: where its directory cannot be had (a read-only root), the
 * server starts without. An address that was asked for is a must. */
static int open_admin(struct serve *s)
{
    const char *address = ml_settings_text(s->settings, "ADMIN_ADDR");
    struct ml_err err = {.text = ""};
    struct ml_http_options options = {.loop = &s->loop,
                                      .limits = &small_limits,
                                      .handler = ml_admin_handle,
                                      .ctx = &s->admin,
                                      .keep_body = true};
    if (!*address || strcmp(address, "off") == 0)
        return 0;
    s->admin.engine = s->engine;
    s->admin.token =
        strncmp(address, "unix:", 5) == 0 ? NULL : ml_settings_text(s->settings, "ADMIN_TOKEN");
    if (is_default(s))
        mkdir("/run/moonlatch", 0700);
    int r = ml_http_server_new(&s->admin_server, &options);
    if (r == 0)
        r = ml_listener_open(&s->admin_listener, &s->loop, address, on_admin_accepted, s, &err);
    if (r != 0 && is_default(s)) {
        ml_log(ML_LOG_WARN, "no admin listener", ML_FZ("address", address),
               ML_FZ("reason", err.text));
        return 0;
    }
    if (r != 0)
        fprintf(stderr, "moonlatch: ADMIN_ADDR=%s: %s\n", address, err.text);
    return r;
}

static int open_engine(struct serve *s, const char *policy, const char *library)
{
    struct ml_buf report;
    struct ml_err err = {.text = ""};
    struct ml_engine_options options = {.loop = &s->loop,
                                        .settings = s->settings,
                                        .policy = policy,
                                        .library = library,
                                        .on_check = ml_envoy_http_check,
                                        .on_web = ml_web_handle,
                                        .site = s->theme,
                                        .reloaded = on_reloaded,
                                        .ctx = s};
    ml_buf_init(&report, 1 << 20);
    int r = ml_engine_new(&s->engine, &options, &report, &err);
    if (r == ML_E_POLICY)
        fprintf(stderr, "moonlatch: %s: %s\n%.*s", policy, err.text, ML_FMT(ml_buf_str(&report)));
    else if (r != 0)
        fprintf(stderr, "moonlatch: %s\n", err.text);
    else if (report.n)
        ml_log(ML_LOG_WARN, "the policy has warnings", ML_F("report", ml_buf_str(&report)));
    ml_buf_done(&report);
    return r;
}

static int read_theme(struct serve *s)
{
    struct ml_err err = {.text = ""};
    const char *dir = ml_app_themes();
    int r = dir ? ml_theme_read(&s->theme, dir, &err) : 0;
    if (r != 0)
        fprintf(stderr, "moonlatch: %s: %s\n", dir, err.text);
    return r;
}

static int open_all(struct serve *s, const char *policy, const char *library)
{
    const char *host = ml_settings_text(s->settings, "SERVER_HOSTNAME");
    int r = read_theme(s);
    if (r == 0)
        r = open_engine(s, policy, library);
    if (r == 0)
        r = open_status(s);
    if (r == 0)
        r = open_admin(s);
    if (r == 0)
        r = listen_on(s, &s->check_listener, host, "SERVER_PORT", ml_engine_adopt, s->engine);
    if (r == 0)
        r = listen_on(s, &s->web_listener, host, "WEB_SERVER_PORT", ml_engine_adopt_web, s->engine);
    if (r == 0)
        ml_engine_watch(s->engine);
    return r;
}

static void start_log(const struct ml_settings *s)
{
    enum ml_log_level level = ML_LOG_INFO;
    const char *format = ml_settings_text(s, "MOONLATCH_LOG_FORMAT");
    ml_log_level_parse(ml_str_z(ml_settings_text(s, "LOG_LEVEL")), &level);
    bool human =
        strcmp(format, "human") == 0 || (strcmp(format, "auto") == 0 && isatty(STDERR_FILENO));
    ml_log_start(STDERR_FILENO, level, human);
}

static int run(struct serve *s, const char *policy, const char *library)
{
    ML_REQUIRE(uv_loop_init(&s->loop) == 0);
    open_signals(s);
    int r = open_all(s, policy, library);
    if (r == 0)
        ml_log(ML_LOG_INFO, "serving", ML_FN("check_port", ml_listener_port(s->check_listener)),
               ML_FZ("policy", policy), ML_FZ("version", ML_VERSION));
    else
        close_all(s);
    uv_run(&s->loop, UV_RUN_DEFAULT);
    ML_REQUIRE(uv_loop_close(&s->loop) == 0);
    ml_theme_free(s->theme);
    if (r == 0)
        ml_log_text(ML_LOG_INFO, "stopped");
    return r == 0 ? 0 : r == ML_E_POLICY ? 2 : 1;
}

static int parse_arguments(int argc, char **argv, const char **policy)
{
    *policy = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--policy") == 0 && i + 1 < argc)
            *policy = argv[++i];
        else if (strncmp(argv[i], "--policy=", 9) == 0)
            *policy = argv[i] + 9;
        else
            return -1;
    }
    return 0;
}

int ml_app_serve(int argc, char **argv)
{
    const char *policy, *library = ml_app_library();
    if (parse_arguments(argc, argv, &policy) != 0) {
        fputs("usage: moonlatch serve [--policy FILE]\n", stderr);
        return 2;
    }
    if (!policy)
        policy = ml_app_default_policy();
    if (!policy || !library) {
        fputs("moonlatch: the Lua library and policies are not installed beside the binary\n",
              stderr);
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    struct serve *s = ML_NEW(struct serve);
    s->settings = ml_app_read_settings();
    if (!s->settings) {
        free(s);
        return 2;
    }
    start_log(s->settings);
    int code = 1;
    if (ml_client_global_init() == 0 && ml_watchdog_start() == 0)
        code = run(s, policy, library);
    else
        fputs("moonlatch: cannot start the HTTP client or the watchdog\n", stderr);
    ml_watchdog_stop();
    ml_client_global_done();
    ml_log_stop();
    ml_settings_free(s->settings);
    free(s);
    return code;
}
