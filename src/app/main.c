/* moonlatch: dispatch of subcommands. */
#include "app/app.h"

#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "moonlatch " ML_VERSION ": authentication for gateways (Envoy and Istio ext_authz)\n"
    "\n"
    "  moonlatch serve [--policy FILE]   answer checks; settings come from the environment\n"
    "  moonlatch check FILE...           check policies: exit 0, or 2 with the errors\n"
    "  moonlatch settings                print the effective settings, secrets hidden\n"
    "  moonlatch revoke WHO              end sessions and forget tokens of somebody, everywhere\n"
    "  moonlatch jwt [--policy FILE] TOKEN-FILE|-   explain a JWT: what it says, what the policy "
    "says to it\n"
    "  moonlatch --version | --help\n"
    "\n"
    "Examples:\n"
    "  OIDC_PROVIDER=https://login.example.com CLIENT_ID=gate CLIENT_SECRET=... \\\n"
    "    ACCESS_TOKEN_AUTHN=opaque moonlatch serve\n"
    "  moonlatch serve --policy /etc/moonlatch/policy.lua\n"
    "  moonlatch check policies/*.lua && curl --unix-socket /run/moonlatch/admin.sock -X POST "
    "http://admin/reload\n"
    "  SERVER_PORT=9000 moonlatch settings | grep SERVER\n"
    "\n"
    "Signals: HUP reloads the policy, TERM drains and stops.\n";

extern char **environ;

/* BIN/../share/moonlatch/NAME, or NAME in the source tree of build/PRESET/moonlatch. */
static const char *beside_binary(char *out, size_t size, const char *name)
{
    static const char *const bases[] = {"../share/moonlatch", "../.."};
    char exe[3072];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    char *slash = n > 0 ? memrchr(exe, '/', (size_t)n) : NULL;
    if (!slash)
        return NULL;
    *slash = 0;
    for (size_t i = 0; i < sizeof bases / sizeof bases[0]; i++) {
        snprintf(out, size, "%s/%s/%s", exe, bases[i], name);
        if (access(out, R_OK) == 0)
            return out;
    }
    return NULL;
}

/* Where the library finds the templates of pages; whoever sets it says where. */
static void set_web(void)
{
    char path[4096];
    if (beside_binary(path, sizeof path, "web"))
        setenv("MOONLATCH_WEB", path, 0);
}

struct ml_settings *ml_app_read_settings(void)
{
    struct ml_settings *s = NULL;
    struct ml_buf errors, warnings;
    ml_buf_init(&errors, 256 * 1024);
    ml_buf_init(&warnings, 256 * 1024);
    ml_settings_new(&s, environ, &errors, &warnings);
    struct ml_str line, rest = ml_buf_str(&warnings);
    while (rest.p && rest.n) {
        line = ml_str_cut(rest, '\n', &rest);
        fprintf(stderr, "moonlatch: warning: %.*s\n", ML_FMT(line));
    }
    rest = ml_buf_str(&errors);
    while (rest.p && rest.n) {
        line = ml_str_cut(rest, '\n', &rest);
        fprintf(stderr, "moonlatch: %.*s\n", ML_FMT(line));
    }
    ml_buf_done(&errors);
    ml_buf_done(&warnings);
    set_web(); /* after the look at what operators have set */
    return s;
}

const char *ml_app_library(void)
{
    static char path[4096];
    return beside_binary(path, sizeof path, "lua");
}

const char *ml_app_default_policy(void)
{
    static char path[4096];
    return beside_binary(path, sizeof path, "policies/default.lua");
}

const char *ml_app_themes(void)
{
    static char path[4096];
    return beside_binary(path, sizeof path, "web/themes");
}

int ml_app_settings(int argc, char **argv)
{
    struct ml_buf out;
    struct ml_settings *s = argc == 1 ? ml_app_read_settings() : NULL;
    if (!s) {
        if (argc != 1)
            fputs("moonlatch: settings takes no arguments\n", stderr);
        return 2;
    }
    ml_buf_init(&out, 1 << 20);
    ml_settings_print(s, &out);
    printf("%.*s", ML_FMT(ml_buf_str(&out)));
    ml_buf_done(&out);
    ml_settings_free(s);
    return 0;
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "--help";
    if (strcmp(command, "serve") == 0)
        return ml_app_serve(argc - 1, argv + 1);
    if (strcmp(command, "check") == 0)
        return ml_app_check(argc - 1, argv + 1);
    if (strcmp(command, "settings") == 0)
        return ml_app_settings(argc - 1, argv + 1);
    if (strcmp(command, "revoke") == 0)
        return ml_app_revoke(argc - 1, argv + 1);
    if (strcmp(command, "jwt") == 0)
        return ml_app_jwt(argc - 1, argv + 1);
    if (strcmp(command, "--version") == 0) {
        puts("moonlatch " ML_VERSION);
        return 0;
    }
    bool help = strcmp(command, "--help") == 0 || strcmp(command, "-h") == 0;
    if (!help)
        fprintf(stderr, "moonlatch: there is no command '%s'\n\n", command);
    fputs(usage, help ? stdout : stderr);
    return help ? 0 : 2;
}
