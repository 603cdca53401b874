/* Settings: owns copies of all values. Built on the main thread before any other starts, read-only
 * afterwards. */
#include "engine/settings.h"

#include "base/arena.h"
#include "base/mem.h"
#include "codec/header.h"
#include "codec/json.h"
#include "codec/path.h"
#include "codec/text.h"
#include "crypto/seal.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum type { TEXT, URL, PLACE, BOOL, INT, PORT, LIST, WORD, HEADER, JSON, FILE_, SECRET, DURATION };

static const struct setting {
    const char *name;
    enum type type;
    const char *fallback; /* NULL: none, the policy that needs it says so */
    const char *old_name;
    bool old_spaces;
    long long low, high;
    const char *words, *help;
} table[] = {
#define FILE FILE_
#define S(...) {__VA_ARGS__},
#include "engine/settings_table.h"
#undef S
#undef FILE
};

enum { COUNT = sizeof table / sizeof table[0] };

struct ml_settings {
    char *value[COUNT];        /* NULL: not set */
    const char *source[COUNT]; /* name of the variable it came from; NULL: the default */
    char *prefix, *verify, *callback;
};

static int find(const char *name)
{
    for (int i = 0; i < COUNT; i++)
        if (strcmp(table[i].name, name) == 0)
            return i;
    return -1;
}

/* Parsing of single values ----------------------------------------------------------------- */

static bool parse_bool(const char *v, bool *ret)
{
    static const char *const yes[] = {"1", "t", "T", "true", "True", "TRUE", "on", "yes"};
    static const char *const no[] = {"0", "f", "F", "false", "False", "FALSE", "off", "no"};
    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
        if (strcmp(v, yes[i]) == 0 || strcmp(v, no[i]) == 0) {
            *ret = strcmp(v, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

static bool parse_int(const char *v, long long *ret)
{
    unsigned long long n;
    if (!ml_str_u64(ml_str_z(v), &n) || n > 1ULL << 62)
        return false;
    *ret = (long long)n;
    return true;
}

/* "10s", "500ms", "2m", "1h", or a bare number of seconds; in milliseconds. */
static bool parse_duration(const char *v, long long *ret)
{
    static const struct {
        const char *unit;
        long long ms;
    } units[] = {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
    size_t digits = strspn(v, "0123456789");
    unsigned long long n;
    if (!ml_str_u64(ml_str(v, digits), &n) || n > 1000000000ULL)
        return false;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(v + digits, units[i].unit) == 0) {
            *ret = (long long)n * units[i].ms;
            return true;
        }
    }
    return false;
}

static bool has_word(const char *words, const char *v)
{
    size_t n = strlen(v);
    for (const char *p = words; n && *p; p += strcspn(p, " "), p += *p == ' ')
        if (strcspn(p, " ") == n && memcmp(p, v, n) == 0)
            return true;
    return false;
}

static const char *check_number(const struct setting *s, const char *v)
{
    static _Thread_local char why[120];
    long long n;
    bool duration = s->type == DURATION;
    if (!(duration ? parse_duration(v, &n) : parse_int(v, &n)))
        return duration ? "must be a duration such as 500ms, 10s or 2m" : "must be a whole number";
    if (n < s->low || n > s->high) {
        snprintf(why, sizeof why, "must be from %lld to %lld%s", s->low, s->high,
                 duration ? " ms" : "");
        return why;
    }
    return NULL;
}

static const char *check_place(const char *v, bool url_only)
{
    struct ml_url url;
    if (!*v)
        return NULL;
    if (!url_only && v[0] == '/' && v[1] != '/')
        return strpbrk(v, " \t\r\n\\#") ? "is not a path" : NULL;
    if (ml_url_parse(ml_str_z(v), &url, NULL) != 0)
        return url_only ? "must be an http or https URL without user info"
                        : "must be an http or https URL, or a path that starts with one slash";
    return NULL;
}

static bool discard(void *ctx, enum ml_json_kind kind, struct ml_str text, long long i, double r)
{
    return true;
}
static bool discard_begin(void *ctx, enum ml_json_kind kind, size_t size)
{
    return true;
}
static bool discard_key(void *ctx, struct ml_str name)
{
    return true;
}
static bool discard_end(void *ctx, enum ml_json_kind kind)
{
    return true;
}

static const char *check_json(const char *v)
{
    static const struct ml_json_events events = {discard, discard_begin, discard_key, discard_end};
    return !*v || ml_json_walk(ml_str_z(v), &events, NULL, NULL) == 0 ? NULL : "is not valid JSON";
}

/* Why v is not a value of that setting, or NULL. */
static const char *check(const struct setting *s, const char *v)
{
    bool b;
    switch (s->type) {
    case URL:
    case PLACE:
        return check_place(v, s->type == URL);
    case BOOL:
        return parse_bool(v, &b) ? NULL : "must be true or false";
    case INT:
    case PORT:
    case DURATION:
        return check_number(s, v);
    case WORD:
        return has_word(s->words, v) ? NULL : "must be one of:";
    case HEADER:
        return !*v || ml_header_name_ok(ml_str_z(v)) ? NULL : "is not a header name";
    case JSON:
        return check_json(v);
    case FILE_:
        return !*v || access(v, R_OK) == 0 ? NULL : "is not a readable file";
    default:
        return ml_utf8_ok(ml_str_z(v)) ? NULL : "is not UTF-8";
    }
}

/* Names -------------------------------------------------------------------------------------- */

static size_t distance(const char *a, const char *b)
{
    size_t an = strlen(a), bn = strlen(b), row[64];
    if (an >= 64 || bn >= 64)
        return 64;
    for (size_t j = 0; j <= bn; j++)
        row[j] = j;
    for (size_t i = 1; i <= an; i++) {
        size_t corner = row[0];
        row[0] = i;
        for (size_t j = 1; j <= bn; j++) {
            size_t above = row[j], best = corner + (a[i - 1] != b[j - 1]);
            if (above + 1 < best)
                best = above + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            corner = above;
            row[j] = best;
        }
    }
    return row[bn];
}

static const char *nearest(const char *name)
{
    const char *best = NULL;
    size_t best_distance = 4;
    for (int i = 0; i < COUNT; i++) {
        size_t d = distance(name, table[i].name);
        if (d < best_distance) {
            best_distance = d;
            best = table[i].name;
        }
    }
    return best;
}

/* What Kubernetes injects for a Service called moonlatch: MOONLATCH_PORT,
 * MOONLATCH_PORT_8080_TCP_ADDR, MOONLATCH_SERVICE_HOST ... */
static bool injected(const char *name)
{
    return strncmp(name, "MOONLATCH_PORT", 14) == 0 || strncmp(name, "MOONLATCH_SERVICE_", 18) == 0;
}

static void warn_unknown(char *const *environ_, struct ml_buf *warnings)
{
    for (; *environ_; environ_++) {
        char name[64];
        size_t n = strcspn(*environ_, "=");
        if (strncmp(*environ_, "MOONLATCH_", 10) != 0 || n >= sizeof name)
            continue;
        memcpy(name, *environ_, n);
        name[n] = 0;
        if (find(name) >= 0 || injected(name))
            continue;
        const char *near = nearest(name);
        ml_buf_printf(warnings, "%s is not a setting of moonlatch%s%s%s\n", name,
                      near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    }
}

static const char *lookup(char *const *environ_, const char *name)
{
    size_t n = strlen(name);
    for (; *environ_; environ_++)
        if (strncmp(*environ_, name, n) == 0 && (*environ_)[n] == '=')
            return *environ_ + n + 1;
    return NULL;
}

/* Reading ------------------------------------------------------------------------------------- */

static char *from_old_name(const struct setting *s, const char *v)
{
    char *copy = ml_xstrdup(v);
    if (s->old_spaces)
        for (char *p = copy; *p; p++)
            if (*p == ' ')
                *p = ',';
    return copy;
}

static void take(struct ml_settings *s, int i, char *const *environ_, struct ml_buf *warnings)
{
    const struct setting *t = &table[i];
    const char *v = lookup(environ_, t->name),
               *old = t->old_name ? lookup(environ_, t->old_name) : NULL;
    if (v) {
        s->value[i] = ml_xstrdup(v);
        s->source[i] = t->name;
    } else if (old) {
        s->value[i] = from_old_name(t, old);
        s->source[i] = t->old_name;
    }
    if (old)
        ml_buf_printf(warnings, "%s is an old name%s %s\n", t->old_name,
                      v ? " and is ignored beside" : "; use", t->name);
}

static void validate(struct ml_settings *s, int i, struct ml_buf *errors)
{
    const struct setting *t = &table[i];
    const char *why = s->value[i] ? check(t, s->value[i]) : NULL;
    if (!why)
        return;
    /* The value itself helps to find the mistake, but never a secret's. */
    ml_buf_printf(errors, "%s ", s->source[i]);
    if (t->type != SECRET && strlen(s->value[i]) < 200) {
        ml_buf_add(errors, "is ", 3);
        ml_buf_add_json(errors, ml_str_z(s->value[i]));
        ml_buf_add(errors, "; it ", 5);
    }
    ml_buf_printf(errors, "%s%s%s\n", why, t->type == WORD ? " " : "",
                  t->type == WORD ? t->words : "");
}

/* The canonical path of a URL or path, without trailing slashes; NULL when it is not canonical. */
static char *place_path(const char *v, const char *more)
{
    struct ml_arena arena;
    struct ml_target target;
    struct ml_url url;
    char *result = NULL;
    struct ml_str path = ml_str_z(v);
    if (v[0] != '/' && ml_url_parse(path, &url, NULL) == 0)
        path = url.path;
    while (path.n && path.p[path.n - 1] == '/')
        path.n--;
    ml_arena_init(&arena, 64 * 1024);
    struct ml_str whole = ml_arena_printf(&arena, "%.*s%s", ML_FMT(path), more);
    if (whole.n == 0)
        result = ml_xstrdup("");
    else if (ml_target_parse(&arena, whole, &target, NULL) == 0 && !target.query.p &&
             !target.has_params)
        result = ml_xstrndup(target.path.p, target.path.n);
    ml_arena_done(&arena);
    return result;
}

/* The reserved paths. A prefix of "/" would reserve (in the ancestor: open) everything (compat.md
 * Q3). */
static void derive_places(struct ml_settings *s, struct ml_buf *errors)
{
    const char *verify = ml_settings_text(s, "VERIFY_AUTH_URL"),
               *prefix = ml_settings_text(s, "AUTHSERVICE_URL_PREFIX"),
               *callback = ml_settings_text(s, "REDIRECT_URL");
    s->prefix = place_path(prefix, "");
    s->verify = *verify ? place_path(verify, "") : place_path(prefix, "/verify");
    s->callback = *callback ? place_path(callback, "") : place_path(prefix, "/oidc/callback");
    if (!s->prefix || !*s->prefix)
        ml_buf_printf(errors,
                      "AUTHSERVICE_URL_PREFIX must have a path of its own, such as /authservice/: "
                      "all requests below it are answered by this service\n");
    if (!s->verify || !*s->verify)
        ml_buf_printf(errors,
                      "VERIFY_AUTH_URL must have a path of its own, such as /authservice/verify\n");
    if (!s->callback || !*s->callback)
        ml_buf_printf(errors, "REDIRECT_URL must have a path of its own, such as "
                              "/authservice/oidc/callback\n");
}

static void check_keys(struct ml_settings *s, struct ml_buf *errors)
{
    struct ml_str list = ml_str_z(ml_settings_text(s, "SESSION_KEY"));
    struct ml_seal_keys *keys = NULL;
    struct ml_err err = {.text = ""};
    if (list.n && ml_seal_keys_new(&keys, list, &err) != 0)
        ml_buf_printf(errors, "SESSION_KEY: %s\n", err.text);
    ml_seal_keys_free(keys);
}

static void notice_bolt(struct ml_settings *s, struct ml_buf *warnings)
{
    const char *type = ml_settings_env(s, "SESSION_STORE_TYPE");
    if (type && strcmp(type, "boltdb") == 0)
        ml_buf_printf(
            warnings,
            "SESSION_STORE_TYPE boltdb is taken as lmdb: sessions are kept in %s.lmdb, and "
            "those of the old file are not read\n",
            ml_settings_text(s, "SESSION_STORE_PATH"));
}

static void check_together(struct ml_settings *s, struct ml_buf *errors)
{
    const char *admin = ml_settings_text(s, "ADMIN_ADDR");
    bool local = strncmp(admin, "unix:", 5) == 0 || !*admin || strcmp(admin, "off") == 0;
    bool loopback = strncmp(admin, "127.", 4) == 0 || strncmp(admin, "[::1]:", 6) == 0 ||
                    strncmp(admin, "localhost:", 10) == 0;
    if (!local && !loopback)
        ml_buf_printf(errors,
                      "ADMIN_ADDR must be unix:PATH, a loopback address with a port, or off\n");
    else if (loopback && strlen(ml_settings_text(s, "ADMIN_TOKEN")) < 16)
        ml_buf_printf(
            errors,
            "ADMIN_TOKEN must have at least 16 characters when ADMIN_ADDR is not a unix socket\n");
}

int ml_settings_new(struct ml_settings **ret, char *const *environ_, struct ml_buf *errors,
                    struct ml_buf *warnings)
{
    struct ml_settings *s = ML_NEW(struct ml_settings);
    size_t before = errors->n;
    for (int i = 0; i < COUNT; i++) {
        take(s, i, environ_, warnings);
        validate(s, i, errors);
    }
    warn_unknown(environ_, warnings);
    derive_places(s, errors);
    check_together(s, errors);
    check_keys(s, errors);
    notice_bolt(s, warnings);
    if (errors->n != before || errors->failed) {
        ml_settings_free(s);
        return ML_E_INVALID;
    }
    *ret = s;
    return 0;
}

void ml_settings_free(struct ml_settings *s)
{
    if (!s)
        return;
    for (int i = 0; i < COUNT; i++) {
        if (s->value[i] && table[i].type == SECRET)
            ml_wipe(s->value[i], strlen(s->value[i]));
        free(s->value[i]);
    }
    free(s->prefix);
    free(s->verify);
    free(s->callback);
    free(s);
}

const char *ml_settings_env(void *ctx, const char *name)
{
    const struct ml_settings *s = ctx;
    int i = find(name);
    return i >= 0 ? s->value[i] : getenv(name);
}

const char *ml_settings_text(const struct ml_settings *s, const char *name)
{
    int i = find(name);
    ML_REQUIRE(i >= 0);
    return s->value[i] ? s->value[i] : table[i].fallback ? table[i].fallback : "";
}

bool ml_settings_bool(const struct ml_settings *s, const char *name)
{
    bool b = false;
    parse_bool(ml_settings_text(s, name), &b);
    return b;
}

long long ml_settings_int(const struct ml_settings *s, const char *name)
{
    long long n = 0;
    int i = find(name);
    const char *v = ml_settings_text(s, name);
    if (i >= 0 && table[i].type == DURATION)
        parse_duration(v, &n);
    else
        parse_int(v, &n);
    return n;
}

const char *ml_settings_prefix(const struct ml_settings *s)
{
    return s->prefix;
}

const char *ml_settings_verify(const struct ml_settings *s)
{
    return s->verify;
}

const char *ml_settings_callback(const struct ml_settings *s)
{
    return s->callback;
}

void ml_settings_print(const struct ml_settings *s, struct ml_buf *out)
{
    for (int i = 0; i < COUNT; i++) {
        const struct setting *t = &table[i];
        const char *v = s->value[i] ? s->value[i] : t->fallback;
        bool hidden = t->type == SECRET && v && *v;
        ml_buf_printf(out, "%s=%s", t->name, hidden ? "<hidden>" : v ? v : "");
        ml_buf_printf(out, "   # %s%s; %s\n",
                      s->source[i] ? "from "
                      : v          ? "default"
                                   : "not set",
                      s->source[i] ? s->source[i] : "", t->help);
    }
}
