/* Runs Lua scripts against the pure host libraries, without a VM. Scripts see host.base() and
 * `host`. */
#pragma once

#include "script/libs.h"

#include <lauxlib.h>
#include <lualib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* Instead of the one of budget.c. */
static bool killed;
bool ml_budget_killed(lua_State *L)
{
    return killed;
}

__attribute__((unused)) static int run_open(lua_State *L)
{
    lua_newtable(L);
    ml_lib_string(L);
    ml_lib_base(L);
    ml_lib_json(L);
    ml_lib_text(L);
    ml_lib_regex(L);
    ml_lib_secret(L);
    ml_secret_push(L, "API_KEY", ML_STR("hunter2-hunter2"));
    lua_setfield(L, -2, "a_secret");
    lua_setglobal(L, "host");
    return 0;
}

/* An environment with `host` in it is left on the stack. */
__attribute__((unused)) static void run_env(lua_State *L)
{
    lua_getglobal(L, "host");
    lua_getfield(L, -1, "base");
    assert_int_equal(lua_pcall(L, 0, 1, 0), LUA_OK);
    lua_insert(L, -2);
    lua_setfield(L, -2, "host");
}

/* Runs code in a fresh environment; returns its error text, or NULL. */
__attribute__((unused)) static const char *run_error(lua_State *L, const char *code)
{
    lua_settop(L, 0);
    if (luaL_loadbufferx(L, code, strlen(code), "=test", "t") != LUA_OK)
        return lua_tostring(L, -1);
    run_env(L);
    lua_setupvalue(L, -2, 1);
    if (lua_pcall(L, 0, LUA_MULTRET, 0) == LUA_OK)
        return NULL;
    return lua_isstring(L, -1) ? lua_tostring(L, -1) : luaL_typename(L, -1);
}

#define run(L, code) run_at((L), (code), __LINE__)
__attribute__((unused)) static void run_at(lua_State *L, const char *code, int line)
{
    const char *error = run_error(L, code);
    if (error)
        fail_msg("line %d: %s\n%s", line, error, code);
}

/* code must raise an error whose text holds `expected`. */
#define run_fails(L, code, expected) run_fails_at((L), (code), (expected), __LINE__)
__attribute__((unused)) static void run_fails_at(lua_State *L, const char *code,
                                                 const char *expected, int line)
{
    const char *error = run_error(L, code);
    if (!error || !strstr(error, expected))
        fail_msg("line %d: wanted '%s', got '%s'\n%s", line, expected, error ? error : "no error",
                 code);
}

__attribute__((unused)) static int run_setup(void **state)
{
    lua_State *L = luaL_newstate();
    *state = L;
    killed = false;
    lua_pushcfunction(L, run_open);
    return lua_pcall(L, 0, 0, 0);
}

__attribute__((unused)) static int run_teardown(void **state)
{
    lua_close(*state);
    return 0;
}

#define RUN_TEST(f) cmocka_unit_test_setup_teardown(f, run_setup, run_teardown)
