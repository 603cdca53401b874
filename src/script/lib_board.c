/* host.post post_failure read: the board that all workers share. */
#include "script/internal.h"

enum { WHY_MAX = 255 };

static int l_post(lua_State *L)
{
    struct ml_vm *vm = ml_vm_check_live(L);
    struct ml_str name = ml_vm_check_text(L, 1);
    luaL_checkany(L, 2);
    ml_buf_clear(&vm->scratch);
    ml_lua_to_json(L, 2, &vm->scratch);
    if (vm->scratch.failed ||
        !ml_board_post(vm->script->options.board, name, ml_buf_str(&vm->scratch)))
        return luaL_error(L, "the value is too large for the board, or the board is full");
    return 0;
}

static int l_post_failure(lua_State *L)
{
    struct ml_vm *vm = ml_vm_check_live(L);
    struct ml_str name = ml_vm_check_text(L, 1), why = ml_vm_check_text(L, 2);
    why.n = why.n < WHY_MAX ? why.n : WHY_MAX;
    ml_board_fail(vm->script->options.board, name, why);
    return 0;
}

static int l_read(lua_State *L)
{
    struct ml_vm *vm = ml_vm_check_live(L);
    char why[WHY_MAX + 1];
    struct ml_str name = ml_vm_check_text(L, 1);
    struct ml_entry *e = ml_board_read(vm->script->options.board, name);
    if (e) {
        ml_vm_push_entry(L, e);
        return 1;
    }
    lua_pushnil(L);
    if (ml_board_failure(vm->script->options.board, name, why, sizeof why))
        lua_pushstring(L, why);
    else
        lua_pushliteral(L, "not known yet");
    return 2;
}

void ml_lib_board(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"post", l_post}, {"post_failure", l_post_failure}, {"read", l_read}, {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}
