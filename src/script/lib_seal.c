/* host.random digest seal unseal: what leaves the process and comes back. Sealed texts are
 * base64url, fit for cookies and URLs. The state's thread only. */
#include "script/internal.h"
#include "script/pure.h"

#include "base/clock.h"
#include "base/mem.h"
#include "codec/text.h"
#include "crypto/digest.h"
#include "crypto/seal.h"

#include <math.h>

enum { RANDOM_MIN = 16, RANDOM_MAX = 64, TTL_MAX = 366 * 86400 }; /* bytes, bytes, seconds */

static int l_random(lua_State *L)
{
    lua_Integer n = luaL_checkinteger(L, 1);
    char bytes[RANDOM_MAX];
    luaL_argcheck(L, n >= RANDOM_MIN && n <= RANDOM_MAX, 1, "16 to 64 bytes");
    struct ml_buf *out = ml_scratch_get(L, ML_SCRATCH_TEXT, ML_TEXT_MAX);
    if (!ml_random(bytes, (size_t)n)) /* never a weaker one: S-072 */
        return luaL_error(L, "the system's random number generator fails");
    ml_base64url_encode(ml_str(bytes, (size_t)n), out);
    ml_wipe(bytes, sizeof bytes);
    return ml_scratch_push(L, out);
}

static int l_digest(lua_State *L)
{
    struct ml_str name = ml_vm_check_text(L, 1), text = ml_vm_check_text(L, 2);
    uint8_t bytes[ML_DIGEST_MAX];
    size_t n = ml_digest_named(name, text, bytes);
    luaL_argcheck(L, n, 1, "sha256, sha384 or sha512");
    lua_pushlstring(L, (char *)bytes, n);
    return 1;
}

static const struct ml_seal_keys *check_keys(lua_State *L)
{
    const struct ml_seal_keys *keys = ml_vm_of(L)->script->options.seal;
    if (!keys)
        luaL_error(L, "no sealing key");
    return keys;
}

/* Seconds to the moment in ms at which they have passed. */
static int64_t check_end(lua_State *L, int idx)
{
    lua_Number ttl = luaL_checknumber(L, idx);
    luaL_argcheck(L, ttl > 0 && ttl <= TTL_MAX, idx, "more than 0 seconds, at most a year");
    return ml_wall_ms() + (int64_t)ceil(ttl * 1000);
}

static int l_seal(lua_State *L)
{
    const struct ml_seal_keys *keys = check_keys(L);
    struct ml_str purpose = ml_vm_check_text(L, 1), text = ml_vm_check_text(L, 2);
    int64_t end = check_end(L, 3);
    struct ml_buf *sealed = &ml_vm_of(L)->scratch, *out;
    ml_buf_clear(sealed);
    if (!ml_seal(keys, purpose, ML_STR(""), end, text, sealed))
        return luaL_error(L, "the text cannot be sealed: too long, or no memory or randomness");
    out = ml_scratch_get(L, ML_SCRATCH_TEXT, ML_TEXT_MAX);
    if (!ml_base64url_encode(ml_buf_str(sealed), out))
        return luaL_error(L, "the text is too long");
    return ml_scratch_push(L, out);
}

static int l_unseal(lua_State *L)
{
    const struct ml_seal_keys *keys = check_keys(L);
    struct ml_str purpose = ml_vm_check_text(L, 1), text = ml_vm_check_text(L, 2);
    struct ml_buf *sealed = &ml_vm_of(L)->scratch;
    struct ml_buf *out = ml_scratch_get(L, ML_SCRATCH_TEXT, ML_TEXT_MAX);
    enum ml_unsealed r = ML_UNSEAL_REFUSED;
    ml_buf_clear(sealed);
    if (ml_base64url_decode(text, sealed))
        r = ml_unseal(keys, purpose, ML_STR(""), ml_wall_ms(), ml_buf_str(sealed), out);
    if (r == ML_UNSEALED)
        return ml_scratch_push(L, out);
    lua_pushnil(L);
    lua_pushstring(L, r == ML_UNSEAL_EXPIRED ? "expired" : "not ours");
    return 2;
}

void ml_lib_seal(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"random", l_random}, {"digest", l_digest}, {"seal", l_seal},
        {"unseal", l_unseal}, {NULL, NULL},
    };
    luaL_setfuncs(L, functions, 0);
}
