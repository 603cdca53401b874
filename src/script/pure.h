/* What the pure host libraries (lib_base.c to lib_secret.c) share. Only they include this. */
#pragma once

#include "script/libs.h"

/* Limits of one call into a library; the hook cannot stop C code, these do. */
enum {
    ML_TEXT_MAX = 1 << 20,    /* bytes that a library function returns */
    ML_SUBJECT_MAX = 1 << 16, /* bytes that patterns and utf8.len look at */
};

/* Buffers that live as long as the state, so that an error thrown past C code leaks nothing
 * (scratch.c). The content is lost at the next ml_scratch_get of the same one. */
enum ml_scratch { ML_SCRATCH_TEXT, ML_SCRATCH_TAPE, ML_SCRATCHES };
struct ml_buf *ml_scratch_get(lua_State *L, enum ml_scratch which, size_t max);
/* Gives a large buffer's memory back; the content is lost. */
void ml_scratch_trim(struct ml_buf *b);
/* Pushes the content as a string; raises when the buffer has failed. */
int ml_scratch_push(lua_State *L, struct ml_buf *b);

/* Read-only views of tables (readonly.c). */
int ml_readonly_wrap(lua_State *L); /* the table on top becomes its view; other values stay */
bool ml_readonly_is(lua_State *L, int idx);
/* Pushes the table behind the view at idx; false, and nothing pushed, for anything else. */
bool ml_readonly_target(lua_State *L, int idx);
int ml_readonly_next(lua_State *L); /* next(view, key) */

/* Stock libraries and our selections of them (stock.c). */
/* Pushes a new table with those of the names that the library of `open` has; nothing global is
 * changed. */
void ml_stock_select(lua_State *L, lua_CFunction open, const char *const *names);
/* table[name] of the table on top = fn with the stock function of that name as its first upvalue.
 */
void ml_stock_wrap(lua_State *L, const char *name, lua_CFunction fn);
/* Runs the stock function of the first upvalue in this very call frame. */
int ml_stock_call(lua_State *L);
/* Replaces the table on top by a table that shows it and refuses assignment. */
void ml_stock_seal(lua_State *L, const char *name);

/* Pushes the value as people read it, never with an address; a __tostring that is no text raises.
 */
const char *ml_value_text(lua_State *L, int idx, size_t *n);

/* Push the bounded libraries: plain tables, to be sealed. The string library is one per state. */
void ml_string_open(lua_State *L);
void ml_table_open(lua_State *L);
void ml_math_open(lua_State *L);
void ml_utf8_open(lua_State *L);
