/* Host functions by module. Each ml_lib_x finds the host table on top of L's stack and adds its
 * functions; it runs protected. Only files of script/ include this. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

#include <lua.h>
#include <stdbool.h>

#if LUA_VERSION_NUM != 504
#error "Moonlatch needs Lua 5.4"
#endif

/* Pure modules: need nothing but L. */
void ml_lib_base(lua_State *L);  /* base readonly load_chunk */
void ml_lib_json(lua_State *L);  /* json_decode json_encode json_list yaml_decode */
void ml_lib_text(lua_State *L);  /* base64_* sha256 equals url_* utf8_ok */
void ml_lib_regex(lua_State *L); /* regex */
void ml_lib_secret(
    lua_State *L); /* the secret type (ml_secret_*); host.secret itself is in lib_config.c */
void ml_lib_string(lua_State *L); /* pushes nothing; installs the bounded string library and closes
                                     the string metatable */

/* Modules of the engine's host: need the VM behind L. */
void ml_lib_config(lua_State *L);  /* env secret read_file module upstream */
void ml_lib_http(lua_State *L);    /* fetch sleep */
void ml_lib_cache(lua_State *L);   /* begin settle cache_* */
void ml_lib_board(lua_State *L);   /* post post_failure read */
void ml_lib_seal(lua_State *L);    /* random digest seal unseal */
void ml_lib_jwt(lua_State *L);     /* jwt_* */
void ml_lib_session(lua_State *L); /* session_* */
void ml_lib_request(lua_State *L); /* see host.lua; the request userdata */

/* JSON text onto the stack (one value; null is nil). 0, or a negative error and nothing pushed. May
 * raise out-of-memory. */
int ml_lua_push_json(lua_State *L, struct ml_str text, struct ml_err *err);
/* The value at idx as JSON appended to out; raises on what JSON cannot hold. out must be owned by a
 * userdata or static: the raise does not free it. */
void ml_lua_to_json(lua_State *L, int idx, struct ml_buf *out);

/* A secret: prints as <secret NAME>, refuses concatenation, comparison with text is false, indexing
 * raises. */
void ml_secret_push(lua_State *L, const char *name, struct ml_str value);
/* The value behind idx, or p == NULL when it is no secret. Lives as long as the userdata. */
struct ml_str ml_secret_value(lua_State *L, int idx);

/* True once the budget of what runs on L is used up: pcall must raise again, host calls must refuse
 * (budget.c). */
bool ml_budget_killed(lua_State *L);
