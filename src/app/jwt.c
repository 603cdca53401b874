/* moonlatch jwt: explains a token. What it says of itself is printed as it stands there, without
 * the signature; what the policy says to it is found out by asking the policy, as a gateway would.
 */
#include "app/app.h"

#include "base/clock.h"
#include "base/mem.h"
#include "client/fetch.h"
#include "codec/json.h"
#include "codec/text.h"
#include "crypto/jws.h"
#include "engine/engine.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static const char usage[] =
    "usage: moonlatch jwt [--policy FILE] TOKEN-FILE|-\n"
    "\n"
    "Prints the header, the claims and the times of a JWT, then what the policy says to it: which\n"
    "provider takes it, and why not. Its signature is not printed. Exit: 0 it lets somebody in, 1 "
    "it\n"
    "does not, 2 wrong input. The policy is asked as a gateway would ask it, so that "
    "authenticators\n"
    "may show the token to their providers.\n";

enum { DEADLINE_MS = 15000, ARENA_MAX = 1 << 20 };

/* JSON on one line, without anything that a terminal obeys. */
static void print_json(const char *name, struct ml_str json)
{
    printf("%-9s", name);
    for (size_t i = 0; i < json.n; i++) {
        unsigned char c = (unsigned char)json.p[i];
        bool c1 = c == 0xc2 && i + 1 < json.n && (unsigned char)json.p[i + 1] < 0xa0;
        putchar(c < 0x20 ? ' ' : c == 0x7f || c1 ? '?' : c);
        i += c1;
    }
    putchar('\n');
}

/* Top-level claims that are moments. */
struct times {
    unsigned depth;
    char name[4];
    bool has[3];
    double at[3];
};
static const char *const moments[3] = {"iat", "nbf", "exp"};

static bool on_key(void *ctx, struct ml_str name)
{
    struct times *t = ctx;
    snprintf(t->name, sizeof t->name, "%.*s", t->depth == 1 && name.n == 3 ? 3 : 0, name.p);
    return true;
}

static bool on_scalar(void *ctx, enum ml_json_kind kind, struct ml_str text, long long integer,
                      double real)
{
    struct times *t = ctx;
    for (size_t i = 0; i < 3 && t->depth == 1; i++)
        if (strcmp(t->name, moments[i]) == 0 && (kind == ML_JSON_INTEGER || kind == ML_JSON_REAL)) {
            t->has[i] = true;
            t->at[i] = kind == ML_JSON_INTEGER ? (double)integer : real;
        }
    return true;
}

static bool on_begin(void *ctx, enum ml_json_kind kind, size_t size)
{
    struct times *t = ctx;
    t->depth++;
    return true;
}

static bool on_end(void *ctx, enum ml_json_kind kind)
{
    struct times *t = ctx;
    t->depth--;
    return true;
}

static void print_moment(const char *name, double at)
{
    static const struct {
        double below, unit;
        const char *word;
    } units[] = {{120, 1, "s"}, {7200, 60, "min"}, {172800, 3600, "h"}, {1e300, 86400, "days"}};
    double from_now = at - (double)ml_wall_ms() / 1000, span = from_now < 0 ? -from_now : from_now;
    char text[32];
    struct tm tm;
    size_t u = 0;
    if (!(at >= 0 && at < 1e11)) {
        printf("%-9sno moment\n", name);
        return;
    }
    gmtime_r(&(time_t){(time_t)at}, &tm);
    strftime(text, sizeof text, "%F %T UTC", &tm);
    while (span >= units[u].below)
        u++;
    printf("%-9s%s, %s%.0f %s%s\n", name, text, from_now < 0 ? "" : "in ", span / units[u].unit,
           units[u].word, from_now < 0 ? " ago" : "");
}

static void print_times(struct ml_str claims)
{
    static const struct ml_json_events events = {on_scalar, on_begin, on_key, on_end};
    struct times t = {.depth = 0};
    struct ml_err err;
    if (ml_json_walk(claims, &events, &t, &err) != 0) {
        printf("         no strict JSON: %s\n", err.text);
        return;
    }
    for (size_t i = 0; i < 3; i++)
        if (t.has[i])
            print_moment(moments[i], t.at[i]);
}

static bool print_part(const char *name, struct ml_str part, bool with_times)
{
    struct ml_buf text;
    ml_buf_init(&text, ML_JWS_MAX + 4);
    bool ok = ml_base64url_decode(part, &text);
    if (ok)
        print_json(name, ml_buf_str(&text));
    else
        printf("%-9sno base64url\n", name);
    if (ok && with_times)
        print_times(ml_buf_str(&text));
    ml_buf_done(&text);
    return ok;
}

/* What the token says of itself. */
static void print_token(struct ml_str token)
{
    struct ml_jws_parts parts;
    struct ml_jws jws;
    struct ml_err err;
    if (ml_jws_split(token, &parts, &err) != 0) {
        printf("%s\n", err.text);
        return;
    }
    print_part("header", parts.header, false);
    print_part("claims", parts.payload, true);
    if (ml_jws_parse(token, &jws, &err) != 0)
        printf("%-9s%s\n", "problem", err.text);
    else if (jws.has_kid)
        print_json("key", jws.kid);
    else
        printf("%-9sno kid: the set's keys for %s are tried\n", "key",
               ml_jws_algorithm_name(jws.algorithm));
}

static void on_decision(void *ctx, const struct ml_decision *d)
{
    *(bool *)ctx = d->action == ML_ALLOW;
    for (size_t i = 0; i < d->step_count; i++) {
        const struct ml_step *s = &d->steps[i];
        printf("  %-12.*s %.*s%s%.*s\n", ML_FMT(s->name), ML_FMT(s->outcome),
               s->reason.n ? ": " : "", ML_FMT(s->reason));
    }
    if (d->action == ML_ALLOW)
        printf("  => allow (%.*s)\n", ML_FMT(d->user.n ? d->user : d->reason));
    else
        printf("  => deny %d (%.*s)\n", d->status, ML_FMT(d->reason));
}

/* Asks the policy; the exit code. */
static int ask(const struct ml_settings *settings, const struct ml_library *library,
               const char *policy, struct ml_str token)
{
    struct ml_arena arena;
    struct ml_buf report;
    bool allowed = false;
    ml_arena_init(&arena, ARENA_MAX);
    ml_buf_init(&report, 1 << 20);
    struct ml_header bearer = {ML_STR("authorization"),
                               ml_arena_printf(&arena, "Bearer %.*s", ML_FMT(token))};
    struct ml_request request = {
        .arena = &arena,
        .id = ML_STR("jwt"),
        .method = ML_STR("GET"),
        .scheme = ML_STR("https"),
        .host = ML_STR("localhost"),
        .path = ML_STR("/"),
        .raw_path = ML_STR("/"),
        .query = ML_STR(""),
        .headers = &bearer,
        .header_count = 1,
        .client_ip = ML_STR("127.0.0.1"),
        .verify = true, /* nobody is sent to a login */
        .deadline_ms = ml_mono_ms() + DEADLINE_MS,
    };
    printf("%-9s%s\n", "policy", policy);
    int r = ml_engine_ask(settings, library, policy, &request, on_decision, &allowed, &report);
    if (r != 0)
        printf("%.*s", ML_FMT(ml_buf_str(&report)));
    ml_wipe((char *)bearer.value.p, bearer.value.n);
    ml_buf_done(&report);
    ml_arena_done(&arena);
    return r != 0 ? 2 : allowed ? 0 : 1;
}

static int explain(const struct ml_settings *settings, const char *policy, struct ml_str token)
{
    struct ml_library *library = NULL;
    struct ml_err err;
    const char *directory = ml_app_library();
    print_token(token);
    if (!policy || !directory || ml_library_new(&library, directory, &err) != 0) {
        fputs("moonlatch: the policy or the Lua library is not installed beside the binary\n",
              stderr);
        return 2;
    }
    ml_client_global_init();
    ml_watchdog_start();
    int code = ask(settings, library, policy, token);
    ml_watchdog_stop();
    ml_client_global_done();
    ml_library_free(library);
    return code;
}

int ml_app_jwt(int argc, char **argv)
{
    bool given = argc == 4 && strcmp(argv[1], "--policy") == 0;
    const char *path = argv[argc - 1];
    struct ml_buf token;
    if (!(argc == 2 || given) || (path[0] == '-' && path[1])) {
        fputs(usage, stderr);
        return 2;
    }
    struct ml_settings *settings = ml_app_read_settings();
    if (!settings)
        return 2;
    ml_buf_init(&token, 32 * 1024);
    int code = 2;
    if (ml_app_read_token(path, &token))
        code = explain(settings, given ? argv[2] : ml_app_default_policy(), ml_buf_str(&token));
    else
        fprintf(stderr, "moonlatch: %s cannot be read, or holds no token\n", path);
    if (token.p)
        ml_wipe(token.p, token.n);
    ml_buf_done(&token);
    ml_settings_free(settings);
    return code;
}
