/* json_decode, json_encode, json_list, yaml_decode; JSON text to Lua values and back for the rest
 * of the room.
 *
 * Decoding has two passes. Lua may raise wherever it allocates, and a raise must not jump over the
 * parser, which owns its tree: so the walk writes a tape (tag bytes, lengths, texts) into a scratch
 * buffer and touches no lua_State; afterwards values are made of the tape. Lists from [] carry a
 * shared metatable as their mark; a list with items needs none. The state's thread only. */
#include "codec/json.h"
#include "script/pure.h"

#include <lauxlib.h>
#include <math.h>
#include <stdint.h>

/* LEVEL_STACK: slots for one level of nesting; a stack that is grown for the deepest text is grown
 * again after each collection, which shrinks it. */
enum { ENCODE_DEPTH = 32, TAPE_MAX = 16 << 20, LEVEL_STACK = LUA_MINSTACK };

static char list_key; /* its address is the registry's key of the mark */

static void push_list_mark(lua_State *L)
{
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &list_key) == LUA_TTABLE)
        return;
    lua_pop(L, 1);
    lua_createtable(L, 0, 1);
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &list_key);
}

static bool has_list_mark(lua_State *L, int idx)
{
    if (!lua_getmetatable(L, idx))
        return false;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &list_key);
    bool marked = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return marked;
}

/* --- text to tape --- */

struct tape {
    struct ml_buf *buf;
    unsigned depth;
    uint64_t lists; /* bit i: the container at depth i is a list */
    bool hole;      /* a list had a null in it */
};

static bool tape_add(struct ml_buf *b, char tag, const void *p, size_t n)
{
    if (!ml_buf_reserve(b, n + 1))
        return false;
    b->p[b->n] = tag;
    memcpy(b->p + b->n + 1, p, n);
    b->n += n + 1;
    return true;
}

static bool tape_text(struct ml_buf *b, char tag, struct ml_str s)
{
    uint32_t n = (uint32_t)s.n;
    return tape_add(b, tag, &n, sizeof n) && ml_buf_add_str(b, s);
}

static bool on_scalar(void *ctx, enum ml_json_kind kind, struct ml_str text, long long integer,
                      double real)
{
    struct tape *t = ctx;
    switch (kind) {
    case ML_JSON_NULL:
        t->hole = t->depth > 0 && (t->lists >> (t->depth - 1) & 1);
        return !t->hole && tape_add(t->buf, 'n', "", 0);
    case ML_JSON_FALSE:
        return tape_add(t->buf, 'f', "", 0);
    case ML_JSON_TRUE:
        return tape_add(t->buf, 't', "", 0);
    case ML_JSON_INTEGER:
        return tape_add(t->buf, 'i', &integer, sizeof integer);
    case ML_JSON_REAL:
        return tape_add(t->buf, 'r', &real, sizeof real);
    case ML_JSON_STRING:
        return tape_text(t->buf, 's', text);
    default:
        return false;
    }
}

static bool on_begin(void *ctx, enum ml_json_kind kind, size_t size)
{
    struct tape *t = ctx;
    if (t->depth >= ML_JSON_DEPTH)
        return false;
    uint64_t bit = (uint64_t)1 << t->depth++;
    t->lists = kind == ML_JSON_ARRAY ? t->lists | bit : t->lists & ~bit;
    uint32_t n = (uint32_t)size;
    return tape_add(t->buf, kind == ML_JSON_ARRAY ? '[' : '{', &n, sizeof n);
}

static bool on_key(void *ctx, struct ml_str name)
{
    return tape_text(((struct tape *)ctx)->buf, 'k', name);
}

static bool on_end(void *ctx, enum ml_json_kind kind)
{
    struct tape *t = ctx;
    t->depth--;
    return tape_add(t->buf, ']', "", 0);
}

static int tape_write(struct tape *t, struct ml_str text, struct ml_err *err)
{
    static const struct ml_json_events events = {on_scalar, on_begin, on_key, on_end};
    int r = ml_json_walk(text, &events, t, err);
    if (r == 0 || r != ML_E_CANCELED)
        return r;
    if (t->hole)
        return ml_fail(err, ML_E_INVALID, "a list with a null in it");
    return ml_fail(err, ML_E_TOOBIG, "too large or too deep");
}

/* --- tape to values --- */

static size_t read_size(const char **at)
{
    uint32_t n;
    memcpy(&n, *at, sizeof n);
    *at += sizeof n;
    return n;
}

static void push_text(lua_State *L, const char **at)
{
    size_t n = read_size(at);
    lua_pushlstring(L, *at, n);
    *at += n;
}

static void push_value(lua_State *L, const char **at);

static void push_list(lua_State *L, const char **at)
{
    size_t n = read_size(at);
    luaL_checkstack(L, LEVEL_STACK, NULL);
    lua_createtable(L, (int)n, 0);
    if (n == 0) {
        push_list_mark(L);
        lua_setmetatable(L, -2);
    }
    for (lua_Integer i = 1; **at != ']'; i++) {
        push_value(L, at);
        lua_rawseti(L, -2, i);
    }
    (*at)++;
}

static void push_object(lua_State *L, const char **at)
{
    luaL_checkstack(L, LEVEL_STACK, NULL);
    lua_createtable(L, 0, (int)read_size(at));
    while (**at != ']') {
        (*at)++; /* 'k' */
        push_text(L, at);
        push_value(L, at);
        lua_rawset(L, -3); /* nil: the member is absent */
    }
    (*at)++;
}

/* The value at *at, which moves past it. At most ML_JSON_DEPTH deep, as the walk was. */
static void push_value(lua_State *L, const char **at)
{
    long long integer;
    double real;
    switch (*(*at)++) {
    case 'f':
        lua_pushboolean(L, 0);
        break;
    case 't':
        lua_pushboolean(L, 1);
        break;
    case 'i':
        memcpy(&integer, *at, sizeof integer);
        *at += sizeof integer;
        lua_pushinteger(L, integer);
        break;
    case 'r':
        memcpy(&real, *at, sizeof real);
        *at += sizeof real;
        lua_pushnumber(L, real);
        break;
    case 's':
        push_text(L, at);
        break;
    case '[':
        push_list(L, at);
        break;
    case '{':
        push_object(L, at);
        break;
    default:
        lua_pushnil(L);
    }
}

int ml_lua_push_json(lua_State *L, struct ml_str text, struct ml_err *err)
{
    luaL_checkstack(L, LEVEL_STACK, NULL);
    struct tape t = {.buf = ml_scratch_get(L, ML_SCRATCH_TAPE, TAPE_MAX)};
    int r = tape_write(&t, text, err);
    if (r < 0)
        return r;
    const char *at = t.buf->p;
    push_value(L, &at);
    ml_scratch_trim(t.buf);
    return 0;
}

/* --- values to text --- */

struct encoder {
    lua_State *L;
    struct ml_json_out out;
    int depth;
};

static void encode(struct encoder *e, int idx);

/* Every key must be an index of the list: neither holes nor names beside the items. */
static void encode_list(struct encoder *e, int idx)
{
    lua_State *L = e->L;
    lua_Integer n = (lua_Integer)lua_rawlen(L, idx), keys = 0;
    ml_json_begin(&e->out, '[');
    for (lua_Integer i = 1; i <= n; i++) {
        if (lua_rawgeti(L, idx, i) == LUA_TNIL)
            luaL_error(L, "JSON cannot hold a list with holes");
        encode(e, lua_gettop(L));
        lua_pop(L, 1);
    }
    ml_json_end(&e->out, ']');
    for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1))
        if (++keys > n)
            luaL_error(L, "JSON cannot hold a table with both items and names");
}

static void encode_object(struct encoder *e, int idx)
{
    lua_State *L = e->L;
    ml_json_begin(&e->out, '{');
    for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            luaL_error(L, "JSON cannot hold a table with a %s as a name", luaL_typename(L, -2));
        struct ml_str name;
        name.p = lua_tolstring(L, -2, &name.n);
        ml_json_name(&e->out, name);
        encode(e, lua_gettop(L));
    }
    ml_json_end(&e->out, '}');
}

static void encode_table(struct encoder *e, int idx)
{
    lua_State *L = e->L;
    if (++e->depth > ENCODE_DEPTH)
        luaL_error(L, "JSON text would be too deep (a cycle?)");
    luaL_checkstack(L, LEVEL_STACK, NULL);
    bool list = lua_rawgeti(L, idx, 1) != LUA_TNIL || has_list_mark(L, idx);
    lua_pop(L, 1);
    if (list)
        encode_list(e, idx);
    else
        encode_object(e, idx);
    e->depth--;
}

static void encode_number(struct encoder *e, int idx)
{
    if (lua_isinteger(e->L, idx)) {
        ml_json_integer(&e->out, lua_tointeger(e->L, idx));
        return;
    }
    if (!isfinite(lua_tonumber(e->L, idx)))
        luaL_error(e->L, "JSON cannot hold NaN or infinity");
    ml_json_real(&e->out, lua_tonumber(e->L, idx));
}

/* The value at the absolute index idx. The size bound also ends what shares tables many times over.
 */
static void encode(struct encoder *e, int idx)
{
    lua_State *L = e->L;
    struct ml_str s;
    if (e->out.buf->failed)
        luaL_error(L, "JSON text would be too large");
    switch (lua_type(L, idx)) {
    case LUA_TNIL:
        ml_json_literal(&e->out, "null");
        return;
    case LUA_TBOOLEAN:
        ml_json_literal(&e->out, lua_toboolean(L, idx) ? "true" : "false");
        return;
    case LUA_TNUMBER:
        encode_number(e, idx);
        return;
    case LUA_TSTRING:
        s.p = lua_tolstring(L, idx, &s.n);
        ml_json_text(&e->out, s);
        return;
    case LUA_TTABLE:
        encode_table(e, idx);
        return;
    default:
        if (!ml_readonly_target(L, idx))
            luaL_error(L, "JSON cannot hold a %s", luaL_typename(L, idx));
        encode_table(e, lua_gettop(L));
        lua_pop(L, 1);
    }
}

void ml_lua_to_json(lua_State *L, int idx, struct ml_buf *out)
{
    struct encoder e = {.L = L, .out = {.buf = out}};
    luaL_checkstack(L, LEVEL_STACK, NULL);
    encode(&e, lua_absindex(L, idx));
    if (out->failed)
        luaL_error(L, "JSON text would be too large");
}

/* --- host functions --- */

static int push_decoded(lua_State *L, struct ml_str text)
{
    struct ml_err err;
    if (ml_lua_push_json(L, text, &err) == 0)
        return 1;
    lua_pushnil(L);
    lua_pushstring(L, err.text);
    return 2;
}

static int l_json_decode(lua_State *L)
{
    struct ml_str text;
    text.p = luaL_checklstring(L, 1, &text.n);
    return push_decoded(L, text);
}

static int l_json_encode(lua_State *L)
{
    luaL_checkany(L, 1);
    struct ml_buf *out = ml_scratch_get(L, ML_SCRATCH_TEXT, ML_TEXT_MAX);
    ml_lua_to_json(L, 1, out);
    return ml_scratch_push(L, out);
}

static int l_json_list(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    if (lua_getmetatable(L, 1)) {
        if (!has_list_mark(L, 1))
            return luaL_argerror(L, 1, "this table has a metatable");
        lua_pop(L, 1);
        return 1;
    }
    push_list_mark(L);
    lua_setmetatable(L, 1);
    return 1;
}

static int l_yaml_decode(lua_State *L)
{
    struct ml_str text;
    text.p = luaL_checklstring(L, 1, &text.n);
    struct ml_buf *json = ml_scratch_get(L, ML_SCRATCH_TEXT, ML_TEXT_MAX);
    struct ml_err err;
    if (ml_yaml_to_json(text, json, &err) < 0) {
        lua_pushnil(L);
        lua_pushstring(L, err.text);
        return 2;
    }
    int n = push_decoded(L, ml_buf_str(json));
    ml_scratch_trim(json);
    return n;
}

void ml_lib_json(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"json_decode", l_json_decode},
        {"json_encode", l_json_encode},
        {"json_list", l_json_list},
        {"yaml_decode", l_yaml_decode},
        {NULL, NULL},
    };
    luaL_setfuncs(L, functions, 0);
}
