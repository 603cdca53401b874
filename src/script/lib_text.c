/* base64, sha256, equals, url_escape, url_parse, utf8_ok, b64token, printable: the codec's and
 * crypto's functions on Lua strings. Results are made in a scratch buffer. The state's thread only.
 */
#include "base/mem.h"
#include "codec/header.h"
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

static int l_b64token(lua_State *L)
{
    lua_pushboolean(L, ml_b64token_ok(check_text(L, 1)));
    return 1;
}

/* Bytes of the text at idx when it is printable ASCII and has none of `without`; else 0. */
static size_t printable(lua_State *L, int idx, struct ml_str without)
{
    struct ml_str s;
    if (lua_type(L, idx) != LUA_TSTRING)
        return 0;
    s.p = lua_tolstring(L, idx, &s.n);
    if (!ml_printable(s))
        return 0;
    for (size_t i = 0; i < without.n; i++)
        if (memchr(s.p, without.p[i], s.n))
            return 0;
    return s.n;
}

/* Of a table that has the keys 1 to n and no others; else false. */
static bool printable_list(lua_State *L, struct ml_str without, lua_Integer n, size_t *bytes)
{
    lua_Integer count = 0;
    for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
        size_t more = printable(L, -1, without);
        lua_Integer key = lua_isinteger(L, -2) ? lua_tointeger(L, -2) : 0;
        if (more == 0 || key < 1 || key > n)
            return false;
        *bytes += more;
        count++;
    }
    return count == n;
}

static int l_printable(lua_State *L)
{
    lua_settop(L, 2);
    struct ml_str without = lua_isnil(L, 2) ? ML_STR("") : check_text(L, 2);
    size_t bytes = 0;
    if (lua_type(L, 1) == LUA_TTABLE) {
        lua_Integer n = (lua_Integer)lua_rawlen(L, 1);
        if (!printable_list(L, without, n, &bytes))
            return 0;
        lua_pushinteger(L, (lua_Integer)bytes);
        lua_pushinteger(L, n);
        return 2;
    }
    if ((bytes = printable(L, 1, without)) == 0)
        return 0;
    lua_pushinteger(L, (lua_Integer)bytes);
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
        {"b64token", l_b64token},
        {"printable", l_printable},
        {NULL, NULL},
    };
    luaL_setfuncs(L, functions, 0);
}
