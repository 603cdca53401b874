/* moonlatch revoke: asks the running server, by its admin listener, to forget somebody. */
#include "app/app.h"

#include "base/buf.h"
#include "base/mem.h"
#include "codec/text.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: moonlatch revoke --user NAME | --subject SUB | --sid SID | --token FILE | --all\n"
    "\n"
    "Ends sessions, and forgets verified bearer tokens, of:\n"
    "  --user NAME     the user, as the policy calls him\n"
    "  --subject SUB   the subject (sub) at OIDC_PROVIDER, or at --issuer URL\n"
    "  --sid SID       one session at the provider (sid), likewise\n"
    "  --token FILE    the session id or bearer token in FILE (-: standard input)\n"
    "  --all           everybody\n"
    "All replicas that share the session store follow within a second.\n";

enum { TOKEN_MAX = 16 * 1024 };

bool ml_app_read_token(const char *path, struct ml_buf *out)
{
    int fd = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    char part[4096];
    ssize_t n;
    if (fd < 0)
        return false;
    while ((n = read(fd, part, sizeof part)) > 0 && out->n <= TOKEN_MAX)
        ml_buf_add(out, part, (size_t)n);
    ml_wipe(part, sizeof part);
    if (fd != STDIN_FILENO)
        close(fd);
    struct ml_str text = ml_str_trim(ml_buf_str(out));
    while (text.n && (text.p[text.n - 1] == '\n' || text.p[text.n - 1] == '\r'))
        text.n--;
    if (n < 0 || !text.n || out->n > TOKEN_MAX)
        return false;
    memmove(out->p, text.p, text.n);
    out->n = text.n;
    return true;
}

static void add(struct ml_buf *form, const char *name, struct ml_str value)
{
    ml_buf_printf(form, "%s%s=", form->n ? "&" : "", name);
    ml_url_escape(value, form);
}

/* The form of the request; false when the arguments are wrong. */
static bool read_arguments(int argc, char **argv, const struct ml_settings *settings,
                           struct ml_buf *form)
{
    const char *issuer = ml_settings_text(settings, "OIDC_PROVIDER"), *kind = NULL, *value = "";
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        bool takes = strcmp(name, "--all") != 0;
        if (strncmp(name, "--", 2) != 0 || (takes && i + 1 >= argc))
            return false;
        if (strcmp(name, "--issuer") == 0) {
            issuer = argv[++i];
            continue;
        }
        if (kind)
            return false;
        kind = name + 2;
        value = takes ? argv[++i] : "";
    }
    static const char *const kinds[] = {"user", "subject", "sid", "token", "all"};
    size_t known = 0;
    while (kind && known < 5 && strcmp(kind, kinds[known]) != 0)
        known++;
    if (!kind || known == 5)
        return false;
    struct ml_buf token;
    ml_buf_init(&token, TOKEN_MAX + 4096);
    bool ok = strcmp(kind, "token") != 0 || ml_app_read_token(value, &token);
    if (!ok)
        fprintf(stderr, "moonlatch: %s cannot be read, or holds no token\n", value);
    add(form, kind, token.n ? ml_buf_str(&token) : ml_str_z(value));
    if (strcmp(kind, "subject") == 0 || strcmp(kind, "sid") == 0)
        add(form, "issuer", ml_str_z(issuer));
    if (token.p)
        ml_wipe(token.p, token.n);
    ml_buf_done(&token);
    return ok && !form->failed;
}

int ml_app_revoke(int argc, char **argv)
{
    struct ml_settings *settings = ml_app_read_settings();
    struct ml_buf form, answer;
    if (!settings)
        return 2;
    ml_buf_init(&form, 4 * TOKEN_MAX);
    ml_buf_init(&answer, 64 * 1024);
    int code = 2;
    if (!read_arguments(argc, argv, settings, &form)) {
        fputs(usage, stderr);
    } else {
        int status = ml_app_admin_call(settings, "POST", "/revoke", ml_buf_str(&form), &answer);
        code = status == 200 ? 0 : status == 400 ? 2 : 1;
        fprintf(code ? stderr : stdout, "%.*s", ML_FMT(ml_buf_str(&answer)));
    }
    if (form.p)
        ml_wipe(form.p, form.n);
    ml_buf_done(&form);
    ml_buf_done(&answer);
    ml_settings_free(settings);
    return code;
}
