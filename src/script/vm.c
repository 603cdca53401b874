/* One lua_State: memory, references, life. It belongs to its worker's thread; the last reference
 * closes it. */
#include "script/internal.h"

#include "base/mem.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

/* Lua's allocator. A refusal makes Lua collect and try again; only the second refusal of the same
 * allocation, with nothing granted between, is the end: `exhausted` then ends the run, even if a
 * pcall caught the error. A single block over its bound is an ordinary error of that run: data from
 * outside must not make us rebuild the state. */
static void *allocate(void *ud, void *p, size_t osize, size_t nsize)
{
    struct ml_vm *vm = ud;
    const struct ml_budget *b = &vm->script->options.budget;
    if (!p)
        osize = 0;
    if (nsize > osize && nsize > b->block)
        return NULL;
    if (nsize == 0) {
        ml_heap_free(&vm->heap, p, osize);
    } else {
        bool room = nsize <= osize || nsize - osize <= b->memory - vm->used;
        void *q = room ? ml_heap_resize(&vm->heap, p, osize, nsize) : NULL;
        if (!q && nsize <= osize)
            q = p; /* Lua relies on shrinking */
        if (!q) {
            vm->exhausted = vm->exhausted || vm->refused == nsize;
            vm->refused = nsize;
            return NULL;
        }
        p = q;
        if (nsize > osize)
            vm->refused = 0;
    }
    vm->used += nsize - osize;
    vm->script->stats.lua_bytes += nsize - osize;
    return nsize ? p : NULL;
}

static int on_panic(lua_State *L)
{
    ml_require_failed("Lua error outside of protected mode", __FILE__, __LINE__);
}

int ml_vm_anchor(lua_State *L)
{
    int ref = luaL_ref(L, LUA_REGISTRYINDEX);
    ml_vm_of(L)->anchors++;
    return ref;
}

/* Existing integer keys only are written: this does not raise. */
void ml_vm_release(struct ml_vm *vm, int ref)
{
    luaL_unref(vm->L, LUA_REGISTRYINDEX, ref);
    vm->anchors--;
}

void ml_vm_error_text(lua_State *L, int status, char text[ML_ERROR_TEXT + 1])
{
    size_t n = 0, out = 0;
    const char *p = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &n) : NULL;
    if (status == LUA_ERRMEM) {
        snprintf(text, ML_ERROR_TEXT + 1, "not enough memory");
        return;
    }
    if (!p) {
        snprintf(text, ML_ERROR_TEXT + 1, "(the error is a %s value)", luaL_typename(L, -1));
        return;
    }
    for (; out < n && out < ML_ERROR_TEXT; out++)
        text[out] = iscntrl((unsigned char)p[out]) ? ' ' : p[out];
    /* Not in the middle of a UTF-8 sequence. */
    while (out < n && out > 0 && ((unsigned char)p[out] & 0xC0) == 0x80)
        out--;
    text[out] = '\0';
}

int ml_vm_protect(struct ml_vm *vm, lua_CFunction fn, void *arg, bool metered,
                  char text[ML_ERROR_TEXT + 1])
{
    const struct ml_budget *b = &vm->script->options.budget;
    bool killed = false;
    if (metered)
        ml_meter_enter(&vm->script->meter, vm->L, b->load_cpu_ms * UINT64_C(1000000));
    lua_pushcfunction(vm->L, fn);
    lua_pushlightuserdata(vm->L, arg);
    int status = lua_pcall(vm->L, 1, 0, 0);
    if (metered)
        killed = ml_meter_leave(&vm->script->meter, vm->L);
    if (status != LUA_OK)
        ml_vm_error_text(vm->L, status, text);
    lua_settop(vm->L, 0);
    if (killed) {
        snprintf(text, ML_ERROR_TEXT + 1, "it used more than %u ms of CPU", b->load_cpu_ms);
        vm->script->stats.killed_cpu++;
        status = LUA_ERRRUN;
    } else if (vm->exhausted) {
        snprintf(text, ML_ERROR_TEXT + 1, "it used more than %zu KiB of memory", b->memory >> 10);
        vm->script->stats.killed_memory++;
        vm->poisoned = true;
        status = LUA_ERRMEM;
    }
    return status;
}

static void free_vm(struct ml_vm *vm)
{
    vm->closing = true;
    ml_vm_stop_tasks(vm);
    while (vm->pooled)
        ml_vm_release(vm, vm->pool[--vm->pooled].ref);
    lua_close(vm->L);
    ml_heap_done(&vm->heap);
    ml_entry_unref(vm->held);
    ml_buf_done(&vm->scratch);
    for (unsigned i = 0; i < vm->provider_count; i++)
        free(vm->providers[i]);
    for (size_t i = 0; i < vm->owned_count; i++)
        free((char *)vm->owned[i].p);
    free(vm->owned);
    ml_bundle_unref(vm->bundle);
    vm->script->vms--;
    free(vm);
}

static struct ml_vm *new_vm(struct ml_script *s, struct ml_bundle *b)
{
    struct ml_vm *vm = ML_NEW(struct ml_vm);
    vm->script = s;
    vm->refs = 1;
    vm->answer = LUA_REFNIL;
    vm->heap.max = s->options.budget.memory;
    vm->L = lua_newstate(allocate, vm);
    if (!vm->L) {
        free(vm);
        return NULL;
    }
    lua_atpanic(vm->L, on_panic);
    *(struct ml_vm **)lua_getextraspace(vm->L) = vm;
    ml_buf_init(&vm->scratch, ML_FILE_BYTES);
    vm->bundle = ml_bundle_ref(b);
    s->vms++;
    return vm;
}

/* One protected step under the load budget; the report gets our text when it does not finish. */
static bool step(struct ml_vm *vm, lua_CFunction fn, void *arg, struct ml_buf *report)
{
    char text[ML_ERROR_TEXT + 1];
    vm->loading = true;
    int status = ml_vm_protect(vm, fn, arg, true, text);
    vm->loading = false;
    if (status != LUA_OK)
        ml_buf_printf(report, "%s: the policy could not be loaded: %s\n",
                      ml_bundle_path(vm->bundle), text);
    return status == LUA_OK;
}

struct ml_vm *ml_vm_open(struct ml_script *s, struct ml_bundle *b, uint64_t generation,
                         struct ml_buf *report)
{
    struct ml_vm *vm = new_vm(s, b);
    if (!vm) {
        ml_buf_printf(report, "%s: no memory for a Lua state\n", ml_bundle_path(b));
        return NULL;
    }
    vm->generation = generation;
    if (step(vm, ml_load_open, vm, report))
        return vm;
    ml_vm_unref(vm);
    return NULL;
}

int ml_vm_load(struct ml_vm *vm, struct ml_buf *report)
{
    struct ml_load l = {.vm = vm, .report = report};
    return step(vm, ml_load_run, &l, report) && l.errors == 0 ? ML_OK : ML_E_POLICY;
}

int ml_vm_new(struct ml_vm **ret, struct ml_script *s, struct ml_bundle *b, uint64_t generation,
              struct ml_buf *report)
{
    struct ml_vm *vm = ml_vm_open(s, b, generation, report);
    if (!vm || ml_vm_load(vm, report) != ML_OK) {
        ml_vm_unref(vm);
        return ML_E_POLICY;
    }
    *ret = vm;
    return ML_OK;
}

int ml_policy_check(struct ml_script *s, const char *path, struct ml_buf *report,
                    unsigned *warnings)
{
    struct ml_bundle *b;
    struct ml_err err;
    struct ml_load l = {.report = report, .check = true};
    if (ml_bundle_read(&b, path, &err) != ML_OK) {
        ml_buf_printf(report, "%s\n", err.text);
        return ML_E_POLICY;
    }
    struct ml_vm *vm = l.vm = ml_vm_open(s, b, 0, report);
    bool ok = vm && step(vm, ml_load_run, &l, report) && l.errors == 0;
    ml_vm_unref(vm);
    ml_bundle_unref(b);
    if (warnings)
        *warnings = l.warnings > 0 ? (unsigned)l.warnings : 0;
    return ok ? ML_OK : ML_E_POLICY;
}

struct ml_vm *ml_vm_ref(struct ml_vm *vm)
{
    vm->refs++;
    return vm;
}

void ml_vm_unref(struct ml_vm *vm)
{
    if (vm && --vm->refs == 0)
        free_vm(vm);
}

const char *ml_vm_name(const struct ml_vm *vm)
{
    return vm->name;
}

uint64_t ml_vm_generation(const struct ml_vm *vm)
{
    return vm->generation;
}

struct ml_bundle *ml_vm_bundle(const struct ml_vm *vm)
{
    return vm->bundle;
}

bool ml_vm_serves_places(const struct ml_vm *vm)
{
    return vm->answer != LUA_REFNIL;
}

size_t ml_vm_owned_headers(const struct ml_vm *vm, const struct ml_str **ret)
{
    *ret = vm->owned;
    return vm->owned_count;
}

bool ml_vm_poisoned(const struct ml_vm *vm)
{
    return vm->poisoned;
}

bool ml_vm_ready(struct ml_vm *vm, struct ml_err *err)
{
    char why[256];
    struct ml_board *board = vm->script->options.board;
    for (unsigned i = 0; i < vm->provider_count; i++) {
        struct ml_str name = ml_str_z(vm->providers[i]);
        struct ml_entry *e = ml_board_read(board, name);
        ml_entry_unref(e);
        if (e)
            continue;
        if (!ml_board_failure(board, name, why, sizeof why))
            snprintf(why, sizeof why, "not discovered yet");
        ml_fail(err, ML_E_UNAVAILABLE, "provider %s: %s", vm->providers[i], why);
        return false;
    }
    return true;
}
