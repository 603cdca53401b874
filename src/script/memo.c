/* Decoded values of cache and board entries, per VM: a hit gives the same Lua table as the hit
 * before it, without parsing. Entries never change and ids are never used again, so that an id is
 * proof of the content. Bounded in number (direct-mapped slots) and in bytes of JSON, which bounds
 * the Lua memory within the state's own cap. */
#include "script/internal.h"

static void evict(lua_State *L, struct ml_vm *vm, size_t slot)
{
    if (!vm->memo_slots[slot].id)
        return;
    vm->memo_bytes -= vm->memo_slots[slot].n;
    vm->memo_slots[slot].id = vm->memo_slots[slot].n = 0;
    lua_pushnil(L);
    lua_rawseti(L, -2, (lua_Integer)slot + 1);
}

/* Memo table and value are on top; leaves them. */
static void keep(lua_State *L, struct ml_vm *vm, size_t slot, const struct ml_entry *e)
{
    size_t max = vm->script->options.budget.memory / 32;
    if (e->n > ML_MEMO_VALUE || e->n > max)
        return;
    lua_insert(L, -2);
    evict(L, vm, slot);
    while (vm->memo_bytes + e->n > max)
        evict(L, vm, vm->memo_hand++ % ML_MEMO_SLOTS);
    lua_pushvalue(L, -2);
    lua_rawseti(L, -2, (lua_Integer)slot + 1);
    lua_insert(L, -2);
    vm->memo_slots[slot].id = e->id;
    vm->memo_slots[slot].n = e->n;
    vm->memo_bytes += e->n;
}

void ml_vm_push_entry(lua_State *L, struct ml_entry *e)
{
    struct ml_vm *vm = ml_vm_of(L);
    struct ml_err err;
    size_t slot = e->id % ML_MEMO_SLOTS;
    /* Held by the VM while Lua may raise; a raise leaves it to the next one or to the VM's end. */
    ml_entry_unref(vm->held);
    vm->held = e;
    luaL_checkstack(L, 8, NULL);
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->memo);
    if (vm->memo_slots[slot].id == e->id) {
        lua_rawgeti(L, -1, (lua_Integer)slot + 1);
    } else {
        if (ml_lua_push_json(L, ml_str(e->bytes, e->n), &err) != ML_OK)
            luaL_error(L, "a cached value is no JSON: %s", err.text);
        keep(L, vm, slot, e);
    }
    lua_remove(L, -2);
    vm->held = NULL;
    ml_entry_unref(e);
}
