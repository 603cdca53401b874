/* base64, sha256, equals, url_escape, url_parse, utf8_ok: the codec's and crypto's functions on Lua
 * strings. Results are made in a scratch buffer. The state's thread only. */
#include "base/mem.h"
#include "codec/text.h"
#include "crypto/digest.h"
#include "script/pure.h"

#include <lauxlib.h>

static struct ml_str check_text(lua_State *L, int arg)
{
    struct ml_str s;
    s.p = luaL_checklstring(L, arg, &s.n);
    return s;
}

static int l_base64_encode(lua_State *L)
{
    struct ml_str in = check_text(L, 1);
    struct ml_buf *out = ml_scratch_get(L, ML_SCRATCH_TEXT, ML_TEXT_MAX);
    bool ok = lua_toboolean(L, 2) ? ml_base64url_encode(in, out) : ml_base64_encode(in, out);
    return ok ? ml_scratch_push(L, out) : luaL_error(L, "the text is too long");
}

static int l_base64_decode(lua_State *L)
{
    struct ml_str in = check_text(L, 1);
    bool url = lua_toboolean(L, 2);
    struct ml_buf *out = ml_scratch_get(L, ML_SCRATCH_TEXT, ML_TEXT_MAX);
    if (url ? ml_base64url_decode(in, out) : ml_base64_decode(in, out))
        return ml_scratch_push(L, out);
    lua_pushnil(L);
    lua_pushstring(L, url ? "not base64url" : "not base64");
    return 2;
}

static int l_sha256(lua_State *L)
{
    struct ml_digest digest;
    char hex[65];
    if (!ml_sha256(check_text(L, 1), &digest))
        return luaL_error(L, "SHA-256 failed");
    ml_digest_hex(&digest, hex);
    lua_pushlstring(L, hex, 64);
    return 1;
}

static int l_equals(lua_State *L)
{
    struct ml_str a = check_text(L, 1), b = check_text(L, 2);
    lua_pushboolean(L, ml_equal_ct(a.p, a.n, b.p, b.n));
    return 1;
}

static int l_url_escape(lua_State *L)
{
    struct ml_str in = check_text(L, 1);
    struct ml_buf *out = ml_scratch_get(L, ML_SCRATCH_TEXT, ML_TEXT_MAX);
    if (!ml_url_escape(in, out))
        return luaL_error(L, "the text is too long");
    return ml_scratch_push(L, out);
}

static void set_part(lua_State *L, const char *name, struct ml_str part)
{
    if (!part.p)
        return;
    lua_pushlstring(L, part.p, part.n);
    lua_setfield(L, -2, name);
}

/* RFC 3986: parts that are not there are nil, the port too. */
static int l_url_parse(lua_State *L)
{
    struct ml_url url;
    struct ml_err err;
    if (ml_url_parse(check_text(L, 1), &url, &err) < 0) {
        lua_pushnil(L);
        lua_pushstring(L, err.text);
        return 2;
    }
    lua_createtable(L, 0, 5);
    set_part(L, "scheme", url.scheme);
    set_part(L, "host", url.host);
    set_part(L, "path", url.path);
    set_part(L, "query", url.query);
    if (url.port) {
        lua_pushinteger(L, url.port);
        lua_setfield(L, -2, "port");
    }
    return 1;
}

static int l_utf8_ok(lua_State *L)
{
    lua_pushboolean(L, ml_utf8_ok(check_text(L, 1)));
    return 1;
}

void ml_lib_text(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"base64_encode", l_base64_encode},
        {"base64_decode", l_base64_decode},
        {"sha256", l_sha256},
        {"equals", l_equals},
        {"url_escape", l_url_escape},
        {"url_parse", l_url_parse},
        {"utf8_ok", l_utf8_ok},
        {NULL, NULL},
    };
    luaL_setfuncs(L, functions, 0);
}
