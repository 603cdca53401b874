/* regex: compiled PCRE2 expressions as userdata with test, match, replace. What a limit stops
 * raises; it is never "no match". Their memory is not Lua's, so their number in one state is
 * bounded. The state's thread only. */
#include "codec/regex.h"
#include "script/pure.h"

#include <lauxlib.h>

enum { REGEXES_MAX = 1000 };

static const char type_name[] = "regex";

struct regex_box {
    struct ml_regex *re;
    unsigned *live; /* of this state: the user value keeps it */
};

static struct ml_regex *check_regex(lua_State *L)
{
    struct regex_box *box = luaL_checkudata(L, 1, type_name);
    if (!box->re)
        luaL_error(L, "this regex is closed");
    return box->re;
}

static struct ml_str check_subject(lua_State *L)
{
    struct ml_str s;
    s.p = luaL_checklstring(L, 2, &s.n);
    if (s.n > ML_SUBJECT_MAX)
        luaL_error(L, "the text is too long for a regex (64 KiB at most)");
    return s;
}

static int fail(lua_State *L, int code, const struct ml_err *err)
{
    if (code == ML_E_TOOBIG)
        return luaL_error(L, "the regex is too complex for its subject");
    return luaL_error(L, "%s", err->text);
}

static int l_test(lua_State *L)
{
    struct ml_regex *re = check_regex(L);
    struct ml_str groups[ML_REGEX_GROUPS];
    struct ml_err err;
    int n = ml_regex_match(re, check_subject(L), groups, &err);
    if (n < 0)
        return fail(L, n, &err);
    lua_pushboolean(L, n > 0);
    return 1;
}

/* The groups, or the whole match when the regex has none; nil for a group that took no part, and
 * for no match. */
static int l_match(lua_State *L)
{
    struct ml_regex *re = check_regex(L);
    struct ml_str groups[ML_REGEX_GROUPS];
    struct ml_err err;
    int n = ml_regex_match(re, check_subject(L), groups, &err);
    if (n < 0)
        return fail(L, n, &err);
    luaL_checkstack(L, ML_REGEX_GROUPS, NULL);
    if (n == 0) {
        lua_pushnil(L);
        return 1;
    }
    for (int i = n > 1; i < n; i++) {
        if (groups[i].p)
            lua_pushlstring(L, groups[i].p, groups[i].n);
        else
            lua_pushnil(L);
    }
    return n > 1 ? n - 1 : 1;
}

static int l_replace(lua_State *L)
{
    struct ml_regex *re = check_regex(L);
    struct ml_str subject = check_subject(L), replacement;
    replacement.p = luaL_checklstring(L, 3, &replacement.n);
    struct ml_buf *out = ml_scratch_get(L, ML_SCRATCH_TEXT, ML_TEXT_MAX);
    struct ml_err err;
    int n = ml_regex_replace(re, subject, replacement, out, &err);
    if (out->failed)
        return luaL_error(L, "the result is too large");
    if (n < 0)
        return fail(L, n, &err);
    return ml_scratch_push(L, out);
}

static int l_gc(lua_State *L)
{
    struct regex_box *box = lua_touserdata(L, 1);
    if (box->re) {
        ml_regex_free(box->re);
        (*box->live)--;
    }
    box->re = NULL;
    return 0;
}

/* Upvalue: the counter of live ones. The box comes first, so that a raise finds an owner for what
 * follows. */
static int l_regex(lua_State *L)
{
    struct ml_str pattern;
    pattern.p = luaL_checklstring(L, 1, &pattern.n);
    unsigned *live = lua_touserdata(L, lua_upvalueindex(1));
    if (*live >= REGEXES_MAX)
        return luaL_error(L, "too many regexes (%d at most)", REGEXES_MAX);
    struct regex_box *box = lua_newuserdatauv(L, sizeof *box, 1);
    *box = (struct regex_box){.live = live};
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_setiuservalue(L, -2, 1);
    luaL_setmetatable(L, type_name);
    struct ml_err err;
    box->re = ml_regex_compile(pattern, &err);
    if (!box->re) {
        lua_pushnil(L);
        lua_pushstring(L, err.text);
        return 2;
    }
    ++*live;
    return 1;
}

static void make_metatable(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"test", l_test}, {"match", l_match}, {"replace", l_replace}, {NULL, NULL}};
    luaL_newmetatable(L, type_name);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, l_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}

void ml_lib_regex(lua_State *L)
{
    make_metatable(L);
    unsigned *live = lua_newuserdatauv(L, sizeof *live, 0);
    *live = 0;
    lua_pushcclosure(L, l_regex, 1);
    lua_setfield(L, -2, "regex");
}
