/* Scratch buffers: memory of C code that a Lua error must not leak.
 *
 * A Lua error jumps over C frames, so nothing that they own may be on the C stack. These buffers
 * belong to a userdata in the registry instead; whoever needs one takes it, fills it, pushes the
 * result. No library calls Lua code between taking a buffer and its last use, so two per state are
 * enough. The state's thread only. */
#include "script/pure.h"

#include <lauxlib.h>

enum { SCRATCH_KEEP = 64 * 1024 };

struct scratch {
    struct ml_buf bufs[ML_SCRATCHES];
};

static char scratch_key; /* its address is the registry's key */

static int l_scratch_gc(lua_State *L)
{
    struct scratch *s = lua_touserdata(L, 1);
    for (int i = 0; i < ML_SCRATCHES; i++)
        ml_buf_done(&s->bufs[i]);
    return 0;
}

static struct scratch *scratch_new(lua_State *L)
{
    struct scratch *s = lua_newuserdatauv(L, sizeof *s, 0);
    for (int i = 0; i < ML_SCRATCHES; i++)
        ml_buf_init(&s->bufs[i], 0);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, l_scratch_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &scratch_key);
    return s;
}

struct ml_buf *ml_scratch_get(lua_State *L, enum ml_scratch which, size_t max)
{
    luaL_checkstack(L, 4, NULL);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &scratch_key);
    struct scratch *s = lua_touserdata(L, -1);
    lua_pop(L, 1);
    if (!s)
        s = scratch_new(L);
    struct ml_buf *b = &s->bufs[which];
    ml_scratch_trim(b);
    if (b->cap > max)
        ml_buf_done(b);
    b->max = max;
    return b;
}

void ml_scratch_trim(struct ml_buf *b)
{
    ml_buf_clear(b);
    if (b->cap > SCRATCH_KEEP)
        ml_buf_done(b);
}

int ml_scratch_push(lua_State *L, struct ml_buf *b)
{
    if (b->failed)
        return luaL_error(L, "the result is too large");
    lua_pushlstring(L, b->p ? b->p : "", b->n);
    ml_scratch_trim(b);
    return 1;
}
