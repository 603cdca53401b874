/* Our own Lua library, compiled once per process: a state that is built later takes the bytecode,
 * which costs a tenth of parsing, and a reload never mixes files of two releases. Only files of the
 * library's directory get here; policies are text always (S-510). Line numbers and names are kept,
 * for the errors of our own code. Made on one thread; immutable afterwards, any thread. */
#include "script/internal.h"

#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { MODULES_MAX = 256, DEPTH_MAX = 4, CODE_MAX = 4 * ML_FILE_BYTES };

struct module {
    char *name; /* as it is required: moonlatch.authn.opaque */
    struct ml_buf code;
};

struct ml_library {
    size_t count;
    struct module modules[MODULES_MAX];
};

struct reading {
    struct ml_library *library;
    lua_State *L;
    size_t prefix; /* of each path: what comes before moonlatch/ */
    struct ml_buf text;
    struct ml_err *err;
};

static int add_code(lua_State *L, const void *p, size_t n, void *ud)
{
    return !ml_buf_add(ud, p, n);
}

/* moonlatch/authn/opaque.lua -> moonlatch.authn.opaque, moonlatch/init.lua -> moonlatch */
static char *module_name(const char *relative)
{
    size_t n = strlen(relative) - 4;
    if (n > 5 && strncmp(relative + n - 5, "/init", 5) == 0)
        n -= 5;
    char *name = ml_xstrndup(relative, n);
    for (char *p = name; *p; p++)
        if (*p == '/')
            *p = '.';
    return name;
}

static int add_file(struct reading *r, const char *path)
{
    char chunk[PATH_MAX + 1];
    struct ml_library *library = r->library;
    if (library->count == MODULES_MAX)
        return ml_fail(r->err, ML_E_TOOBIG, "%s: more than %d files", path, MODULES_MAX);
    ml_buf_clear(&r->text);
    int e = ml_file_read(path, &r->text, r->err);
    if (e != ML_OK)
        return e;
    struct module *m = &library->modules[library->count++];
    m->name = module_name(path + r->prefix);
    ml_buf_init(&m->code, CODE_MAX);
    snprintf(chunk, sizeof chunk, "@%s", path + r->prefix);
    if (luaL_loadbufferx(r->L, r->text.p ? r->text.p : "", r->text.n, chunk, "t") != LUA_OK)
        e = ml_fail(r->err, ML_E_INVALID, "%s: %s", path, lua_tostring(r->L, -1));
    else if (lua_dump(r->L, add_code, &m->code, 0) != 0)
        e = ml_fail(r->err, ML_E_TOOBIG, "%s: too large", path);
    lua_settop(r->L, 0);
    return e;
}

/* What specs need is no part of the server. */
static int is_ours(const struct dirent *entry)
{
    return entry->d_name[0] != '.' && strcmp(entry->d_name, "testing") != 0;
}

static bool is_lua(const char *name)
{
    size_t n = strlen(name);
    return n > 4 && strcmp(name + n - 4, ".lua") == 0;
}

static int add_directory(struct reading *r, const char *path, int depth);

static int add_entry(struct reading *r, const char *directory, const char *name, int depth)
{
    char path[PATH_MAX];
    struct stat st;
    if (snprintf(path, sizeof path, "%s/%s", directory, name) >= (int)sizeof path)
        return ml_fail(r->err, ML_E_TOOBIG, "%s: path too long", directory);
    if (is_lua(name))
        return add_file(r, path);
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return add_directory(r, path, depth + 1);
    return ML_OK;
}

static int add_directory(struct reading *r, const char *path, int depth)
{
    struct dirent **entries = NULL;
    if (depth > DEPTH_MAX)
        return ml_fail(r->err, ML_E_TOOBIG, "%s: nested too deep", path);
    int e = ML_OK, count = scandir(path, &entries, is_ours, alphasort);
    if (count < 0)
        return ml_fail(r->err, ML_E_IO, "%s: %s", path, strerror(errno));
    for (int i = 0; i < count; i++) {
        if (e == ML_OK)
            e = add_entry(r, path, entries[i]->d_name, depth);
        free(entries[i]);
    }
    free(entries);
    return e;
}

int ml_library_new(struct ml_library **ret, const char *directory, struct ml_err *err)
{
    char path[PATH_MAX];
    struct reading r = {ML_NEW(struct ml_library), luaL_newstate(), strlen(directory) + 1,
                        .err = err};
    int e = ML_OK;
    ml_buf_init(&r.text, ML_FILE_BYTES);
    if (!r.L)
        e = ml_fail(err, ML_E_NOMEM, "no memory for a Lua state");
    else if (snprintf(path, sizeof path, "%s/moonlatch", directory) >= (int)sizeof path)
        e = ml_fail(err, ML_E_TOOBIG, "%s: path too long", directory);
    else
        e = add_directory(&r, path, 0);
    if (r.L)
        lua_close(r.L);
    ml_buf_done(&r.text);
    if (e == ML_OK)
        *ret = r.library;
    else
        ml_library_free(r.library);
    return e;
}

void ml_library_free(struct ml_library *library)
{
    if (!library)
        return;
    for (size_t i = 0; i < library->count; i++) {
        free(library->modules[i].name);
        ml_buf_done(&library->modules[i].code);
    }
    free(library);
}

bool ml_library_code(const struct ml_library *library, struct ml_str name, struct ml_str *ret)
{
    for (size_t i = 0; i < library->count; i++) {
        if (!ml_str_eq(ml_str_z(library->modules[i].name), name))
            continue;
        *ret = ml_buf_str(&library->modules[i].code);
        return true;
    }
    return false;
}
