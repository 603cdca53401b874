/* host.jwt_peek jwt_verify jwt_sign: JWTs (RFC 7519) in compact form. Signatures and headers are
 * judged here, claims by the caller. Nothing of C is held while Lua may raise. The state's thread
 * only. */
#include "script/internal.h"
#include "script/pure.h"

#include "codec/text.h"
#include "crypto/jws.h"
#include "store/key_sets.h"

enum { ALGORITHMS_MAX = 16 };

/* blame: "key" or "token"; NULL: the function does not say. */
static int refuse(lua_State *L, const char *why, const char *blame)
{
    lua_pushnil(L);
    lua_pushstring(L, why);
    if (blame)
        lua_pushstring(L, blame);
    return blame ? 3 : 2;
}

/* Of JSON. */
static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Pushes the JSON object in text; false, and nothing pushed, when it is none. */
static bool push_object(lua_State *L, struct ml_str text)
{
    struct ml_err err;
    size_t i = 0;
    while (i < text.n && is_space(text.p[i]))
        i++;
    return i < text.n && text.p[i] == '{' && ml_lua_push_json(L, text, &err) == ML_OK;
}

static bool push_part(lua_State *L, struct ml_str part)
{
    struct ml_buf *b = ml_scratch_get(L, ML_SCRATCH_TEXT, ML_JWS_MAX);
    return ml_base64url_decode(part, b) && push_object(L, ml_buf_str(b));
}

static int l_jwt_peek(lua_State *L)
{
    struct ml_jws_parts parts;
    struct ml_err err;
    if (ml_jws_split(ml_vm_check_text(L, 1), &parts, &err) != 0)
        return refuse(L, err.text, NULL);
    if (!push_part(L, parts.payload) || !push_part(L, parts.header))
        return refuse(L, "the token's header or claims are no strict JSON object in base64url",
                      NULL);
    return 2;
}

/* A list of names; a name that is not known is the caller's mistake. */
static uint32_t check_algorithms(lua_State *L, int idx)
{
    uint32_t mask = 0;
    luaL_checktype(L, idx, LUA_TTABLE);
    for (lua_Integer i = 1; i <= ALGORITHMS_MAX && lua_rawgeti(L, idx, i) != LUA_TNIL; i++) {
        uint32_t bit = ml_jws_algorithm(ml_vm_check_text(L, -1));
        luaL_argcheck(L, bit, idx, "an algorithm that is not known");
        mask |= bit;
        lua_pop(L, 1);
    }
    luaL_argcheck(L, mask, idx, "no algorithms");
    return mask;
}

/* The parsed keys that the board has under that name. ML_E_NOTFOUND: there are none. */
static int read_keys(struct ml_vm *vm, struct ml_str board, struct ml_jwks **ret,
                     struct ml_err *err)
{
    const struct ml_script_options *o = &vm->script->options;
    char why[ML_WHY_MAX + 1] = "not known yet";
    struct ml_entry *e = ml_board_read(o->board, board);
    if (!e) {
        ml_board_failure(o->board, board, why, sizeof why);
        return ml_fail(err, ML_E_NOTFOUND, "the keys are not known: %s", why);
    }
    int r = ml_key_sets_get(o->key_sets, e, ret, err);
    ml_entry_unref(e);
    return r == 0 || r == ML_E_NOMEM ? r : ml_fail(err, ML_E_NOTFOUND, "the keys cannot be used");
}

/* The payload goes to out. As ml_jws_verify; runs no Lua. */
static int verify(struct ml_vm *vm, struct ml_str token, struct ml_str board, uint32_t algorithms,
                  struct ml_jws *jws, struct ml_buf *out, struct ml_err *err)
{
    struct ml_jwks *set = NULL;
    int r = ml_jws_parse(token, jws, err);
    if (r != 0)
        return r;
    r = read_keys(vm, board, &set, err);
    if (!set)
        return r;
    r = ml_jws_verify(jws, set, algorithms, out, err);
    if (r == ML_E_NOTFOUND && *ml_jwks_complaint(set)) {
        struct ml_err first = *err;
        ml_fail(err, r, "%s (of the set, %s)", first.text, ml_jwks_complaint(set));
    }
    ml_jwks_unref(set);
    return r;
}

static void set_text(lua_State *L, const char *name, struct ml_str value)
{
    lua_pushlstring(L, value.p, value.n);
    lua_setfield(L, -2, name);
}

/* Only what was judged: a caller cannot take anything else of it for true. */
static void push_header(lua_State *L, const struct ml_jws *jws)
{
    lua_createtable(L, 0, 3);
    set_text(L, "alg", ml_str_z(ml_jws_algorithm_name(jws->algorithm)));
    if (jws->has_kid)
        set_text(L, "kid", jws->kid);
    if (jws->has_typ)
        set_text(L, "typ", jws->typ);
}

static int l_jwt_verify(lua_State *L)
{
    struct ml_vm *vm = ml_vm_check_live(L);
    struct ml_str token = ml_vm_check_text(L, 1), board = ml_vm_check_text(L, 2);
    uint32_t algorithms = check_algorithms(L, 3);
    struct ml_buf *out = ml_scratch_get(L, ML_SCRATCH_TEXT, ML_TEXT_MAX);
    struct ml_jws jws;
    struct ml_err err = {.text = ""};
    switch (verify(vm, token, board, algorithms, &jws, out, &err)) {
    case 0:
        break;
    case ML_E_NOTFOUND:
        return refuse(L, err.text, "key");
    case ML_E_NOMEM: /* neither good nor bad: the caller must not take it for a refusal */
        return luaL_error(L, "%s", err.text);
    default:
        return refuse(L, err.text, "token");
    }
    if (!push_object(L, ml_buf_str(out)))
        return refuse(L, "the token's claims are no strict JSON object", "token");
    push_header(L, &jws);
    return 2;
}

/* Field `name` of the table at idx, or an empty text; stays on the stack. */
static struct ml_str option(lua_State *L, int idx, const char *name)
{
    if (lua_isnoneornil(L, idx) || lua_getfield(L, idx, name) == LUA_TNIL)
        return ML_STR("");
    return ml_vm_check_text(L, -1);
}

static int l_jwt_sign(lua_State *L)
{
    struct ml_vm *vm = ml_vm_check_live(L);
    struct ml_err err;
    luaL_checktype(L, 1, LUA_TTABLE);
    struct ml_str pem = ml_secret_value(L, 2);
    luaL_argcheck(L, pem.p, 2, "a secret is needed");
    if (!lua_isnoneornil(L, 3))
        luaL_checktype(L, 3, LUA_TTABLE);
    lua_settop(L, 3);
    struct ml_jws_sign what = {.pem = pem,
                               .alg = option(L, 3, "alg"),
                               .kid = option(L, 3, "kid"),
                               .typ = option(L, 3, "typ")};
    ml_buf_clear(&vm->scratch);
    ml_lua_to_json(L, 1, &vm->scratch);
    what.payload = ml_buf_str(&vm->scratch);
    luaL_argcheck(L, !vm->scratch.failed && what.payload.n && what.payload.p[0] == '{', 1,
                  "claims with names are needed");
    struct ml_buf *out = ml_scratch_get(L, ML_SCRATCH_TEXT, ML_TEXT_MAX);
    if (ml_jws_sign(&what, out, &err) != 0)
        return refuse(L, err.text, NULL);
    return ml_scratch_push(L, out);
}

void ml_lib_jwt(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"jwt_peek", l_jwt_peek},
        {"jwt_verify", l_jwt_verify},
        {"jwt_sign", l_jwt_sign},
        {NULL, NULL},
    };
    luaL_setfuncs(L, functions, 0);
}
