/* host.fetch, bearer_get and sleep: what suspends a coroutine until the loop has news.
 *
 * fetch: the await box comes first, its arena holds what the request needs beyond Lua's own strings
 * (joined credentials); the transfer holds a reference until its callback has run or it was
 * cancelled. An answer's headers are looked up in the result when they are asked for, which few
 * are: their table holds the box. */
#include "script/internal.h"

#include "base/clock.h"
#include "base/mem.h"
#include "codec/header.h"
#include "codec/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    HEADERS_MAX = 64,
    ARENA = 128 * 1024,
    TIMEOUT_MS = 10000,
    TIMEOUT_MAX_MS = 60000,
    ROOM_FROM_MS = 1000,
    SLEEP_MAX = 86400,
    BOX = 2,     /* stack index of a fetch's box, behind its options */
    GET_BOX = 5, /* of a bearer_get's */
};

struct transfer {
    struct ml_await await;
    struct ml_arena arena; /* until the request was copied by the client */
    struct ml_fetch *fetch;
    struct ml_fetch_result *result;
};

static void free_transfer(struct ml_await *a)
{
    struct transfer *t = (struct transfer *)a;
    ml_fetch_result_free(t->result);
    ml_arena_done(&t->arena);
    free(t);
}

static void cancel_transfer(struct ml_await *a)
{
    struct transfer *t = (struct transfer *)a;
    ml_fetch_cancel(t->fetch);
    ml_await_unref(a);
}

static void on_fetched(void *arg, struct ml_fetch_result *result)
{
    struct transfer *t = arg;
    t->result = result;
    ml_await_complete(&t->await);
    ml_await_unref(&t->await);
}

/* The text of a header's value: text, a secret, or a list of both, joined. */
static struct ml_str header_value(lua_State *L, struct transfer *t, int idx)
{
    struct ml_str s = ml_secret_value(L, idx);
    if (s.p)
        return s;
    if (lua_type(L, idx) != LUA_TTABLE)
        return ml_vm_check_text(L, idx);
    s = ML_STR("");
    lua_Integer count = (lua_Integer)lua_rawlen(L, idx);
    luaL_argcheck(L, count <= 8, 1, "a header of more than 8 parts");
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, idx, i);
        struct ml_str part = ml_secret_value(L, -1);
        part = part.p ? part : ml_vm_check_text(L, -1);
        struct ml_str both = ml_arena_printf(&t->arena, "%.*s%.*s", ML_FMT(s), ML_FMT(part));
        if (!both.p)
            luaL_error(L, "fetch: a header is too large");
        s = both;
        lua_pop(L, 1);
    }
    return s;
}

/* Table of headers at idx; its strings stay on it. headers: HEADERS_MAX of them. */
static size_t take_headers(lua_State *L, struct transfer *t, int idx, struct ml_header *headers)
{
    size_t count = 0;
    if (lua_isnil(L, idx))
        return 0;
    luaL_checktype(L, idx, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
        struct ml_str name = ml_vm_check_text(L, -2);
        struct ml_str value = header_value(L, t, lua_gettop(L));
        if (count == HEADERS_MAX || !ml_header_name_ok(name) || !ml_header_value_ok(value))
            luaL_error(L, "fetch: a header cannot be sent");
        headers[count++] = (struct ml_header){name, value};
    }
    return count;
}

static struct ml_str text_option(lua_State *L, const char *name, struct ml_str absent)
{
    return lua_getfield(L, 1, name) == LUA_TNIL ? absent : ml_vm_check_text(L, -1);
}

/* What is left for the call, of a timeout at idx that may be nil; 0: nothing. */
static uint32_t timeout_ms(lua_State *L, int idx, struct ml_run *run)
{
    uint64_t ms = TIMEOUT_MS, now;
    if (!lua_isnil(L, idx)) {
        lua_Number seconds = luaL_checknumber(L, idx);
        luaL_argcheck(L, isfinite(seconds), 1, "timeout must be a number of seconds");
        seconds = seconds < 0.001 ? 0.001 : seconds;
        ms = seconds * 1000 < TIMEOUT_MAX_MS ? (uint64_t)(seconds * 1000) : TIMEOUT_MAX_MS;
    }
    if (run->task)
        return (uint32_t)ms;
    now = ml_mono_ms();
    uint64_t deadline = ml_run_deadline(run), left = deadline > now ? deadline - now : 0;
    if (left > ROOM_FROM_MS)
        left -= left / 20; /* who asked can still say that nobody answered, and whom it asked */
    return (uint32_t)(left < ms ? left : ms);
}

/* The upstream of a bare URL: one per origin, the least recently used gives way. */
static struct ml_upstream *origin(struct ml_script *s, const struct ml_url *url, struct ml_err *err)
{
    char text[320];
    struct ml_origin *oldest = &s->origins[0];
    unsigned port = url->port ? url->port : ml_str_ieq(url->scheme, ML_STR("https")) ? 443 : 80;
    int n =
        snprintf(text, sizeof text, "%.*s://%.*s:%u", ML_FMT(url->scheme), ML_FMT(url->host), port);
    if (n >= (int)sizeof text) {
        ml_fail(err, ML_E_TOOBIG, "the host name is too long");
        return NULL;
    }
    for (size_t i = 0; i < ML_ORIGINS_MAX; i++) {
        struct ml_origin *o = &s->origins[i];
        if (o->text && strcmp(o->text, text) == 0) {
            o->used = ++s->origin_clock;
            return o->upstream;
        }
        if (o->used < oldest->used)
            oldest = o;
    }
    struct ml_upstream_options options = {.name = text};
    struct ml_upstream *u = ml_upstream_get(s->options.client, &options, err);
    if (!u)
        return NULL;
    if (oldest->upstream)
        ml_upstream_unref(oldest->upstream);
    free(oldest->text);
    *oldest = (struct ml_origin){ml_xstrdup(text), u, ++s->origin_clock};
    return u;
}

static struct ml_upstream *choose_upstream(lua_State *L, struct ml_script *s, struct ml_str target,
                                           struct ml_err *err)
{
    struct ml_url url;
    struct ml_upstream *u =
        lua_getfield(L, 1, "upstream") == LUA_TNIL ? NULL : ml_upstream_check(L, -1);
    if (ml_url_parse(target, &url, err) != ML_OK)
        return NULL;
    return u ? u : origin(s, &url, err);
}

static int push_error(lua_State *L, const char *why)
{
    lua_pushnil(L);
    lua_pushstring(L, why);
    return 2;
}

static const char headers_type[] = "moonlatch.answer_headers";
static char box_key; /* its address is the key of the box in a table of headers */

/* Pushes the lines of a name joined (RFC 9110 5.2), or nil. Names are lower case already. */
static void push_header(lua_State *L, const struct ml_fetch_result *r, struct ml_str name)
{
    int count = 0;
    for (size_t i = 0; i < r->header_count; i++) {
        const struct ml_header *h = &r->headers[i];
        if (!ml_str_eq(h->name, name))
            continue;
        if (count++ > 0)
            lua_pushliteral(L, ", ");
        lua_pushlstring(L, h->value.p ? h->value.p : "", h->value.n);
        if (count > 1)
            lua_concat(L, 3);
    }
    if (count == 0)
        lua_pushnil(L);
}

/* The result behind the table of headers at 1, or NULL when it has all of them in itself. */
static const struct ml_fetch_result *result_behind(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    if (lua_rawgetp(L, 1, &box_key) != LUA_TUSERDATA)
        return NULL;
    return ((const struct transfer *)ml_await_check(L, -1))->result;
}

static int headers_index(lua_State *L)
{
    const struct ml_fetch_result *r = result_behind(L);
    if (!r || lua_type(L, 2) != LUA_TSTRING)
        return 0;
    push_header(L, r, ml_vm_check_text(L, 2));
    return 1;
}

static int headers_next(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 2);
    if (lua_next(L, 1))
        return 2;
    lua_pushnil(L);
    return 1;
}

/* Who wants to see all of them gets a plain table. */
static int headers_pairs(lua_State *L)
{
    const struct ml_fetch_result *r = result_behind(L);
    for (size_t i = 0; r && i < r->header_count; i++) {
        lua_pushlstring(L, r->headers[i].name.p, r->headers[i].name.n);
        push_header(L, r, r->headers[i].name);
        lua_rawset(L, 1);
    }
    lua_pushnil(L);
    lua_rawsetp(L, 1, &box_key);
    lua_pushcfunction(L, headers_next);
    lua_pushvalue(L, 1);
    lua_pushnil(L);
    return 3;
}

/* box: stack index. */
static void push_headers(lua_State *L, int box)
{
    lua_createtable(L, 0, 1);
    lua_pushvalue(L, box);
    lua_rawsetp(L, -2, &box_key);
    luaL_setmetatable(L, headers_type);
}

static int k_fetch(lua_State *L, int status, lua_KContext ctx)
{
    struct transfer *t = (struct transfer *)(intptr_t)ctx;
    const struct ml_fetch_result *r = t->result;
    if (r->error)
        return push_error(L, r->text);
    lua_createtable(L, 0, 3);
    lua_pushinteger(L, r->status);
    lua_setfield(L, -2, "status");
    push_headers(L, BOX);
    lua_setfield(L, -2, "headers");
    lua_pushlstring(L, r->body.p ? r->body.p : "", r->body.n);
    lua_setfield(L, -2, "body");
    return 1;
}

/* Nothing may raise once the transfer has started. */
static int start(lua_State *L, struct transfer *t, const struct ml_fetch_request *request,
                 lua_KFunction k)
{
    struct ml_client *client = ml_vm_of(L)->script->options.client;
    struct ml_err err = {.text = ""};
    if (request->timeout_ms == 0)
        return push_error(L, "no time is left");
    if (ml_fetch_start(client, request, on_fetched, t, &t->fetch, &err) != ML_OK)
        return push_error(L, err.text);
    ml_await_ref(&t->await);
    return ml_await_yield(L, &t->await, k);
}

static int l_fetch(lua_State *L)
{
    struct ml_vm *vm = ml_vm_check_live(L);
    struct ml_err err = {.text = ""};
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    luaL_checkstack(L, 32, NULL);
    if (!ml_await_allowed(L, "fetch"))
        return push_error(L, "too many requests wait");
    struct ml_header headers[HEADERS_MAX];
    struct transfer *t = ml_await_new(L, sizeof *t, cancel_transfer, free_transfer);
    ml_arena_init(&t->arena, ARENA);
    struct ml_fetch_request request = {
        .method = text_option(L, "method", ML_STR("GET")),
        .url = text_option(L, "url", ML_STR("")),
        .body = text_option(L, "body", ML_STR("")),
        .headers = headers,
    };
    lua_getfield(L, 1, "headers");
    request.header_count = take_headers(L, t, lua_gettop(L), headers);
    lua_getfield(L, 1, "timeout");
    request.timeout_ms = timeout_ms(L, -1, vm->run);
    request.upstream = choose_upstream(L, vm->script, request.url, &err);
    if (!request.upstream)
        return push_error(L, err.text);
    return start(L, t, &request, k_fetch);
}

static int k_bearer_get(lua_State *L, int status, lua_KContext ctx)
{
    const struct ml_fetch_result *r = ((struct transfer *)(intptr_t)ctx)->result;
    if (r->error)
        return push_error(L, r->text);
    lua_pushinteger(L, r->status);
    lua_pushlstring(L, r->body.p ? r->body.p : "", r->body.n);
    push_header(L, r, ML_STR("content-type"));
    push_header(L, r, ML_STR("www-authenticate"));
    ml_await_release(L, GET_BOX);
    return 4;
}

/* What is asked about each new token: one fetch, and no tables. */
static int l_bearer_get(lua_State *L)
{
    static const struct ml_header accept = {{"Accept", 6}, {"application/json", 16}};
    struct ml_vm *vm = ml_vm_check_live(L);
    lua_settop(L, 4);
    if (!ml_await_allowed(L, "fetch"))
        return push_error(L, "too many requests wait");
    struct ml_fetch_request request = {
        .upstream = ml_upstream_check(L, 1),
        .method = ML_STR("GET"),
        .url = ml_vm_check_text(L, 2),
        .headers = &accept,
        .header_count = 1,
        .bearer = ml_vm_check_text(L, 3),
        .timeout_ms = timeout_ms(L, 4, vm->run),
    };
    if (request.bearer.n == 0 || !ml_header_value_ok(request.bearer))
        return luaL_error(L, "bearer_get: this token cannot be sent");
    struct transfer *t = ml_await_new(L, sizeof *t, cancel_transfer, free_transfer);
    return start(L, t, &request, k_bearer_get);
}

struct nap {
    struct ml_await await;
    uv_timer_t timer;
};

static void free_nap(struct ml_await *a)
{
    free(a);
}

static void on_nap_closed(uv_handle_t *handle)
{
    struct nap *nap = handle->data;
    struct ml_script *s = nap->await.script;
    ml_await_unref(&nap->await);
    ml_script_unpin(s);
}

static void cancel_nap(struct ml_await *a)
{
    uv_close((uv_handle_t *)&((struct nap *)a)->timer, on_nap_closed);
}

static void on_nap(uv_timer_t *timer)
{
    struct nap *nap = timer->data;
    ml_await_complete(&nap->await);
    uv_close((uv_handle_t *)timer, on_nap_closed);
}

static int k_sleep(lua_State *L, int status, lua_KContext ctx)
{
    return 0;
}

static int l_sleep(lua_State *L)
{
    struct ml_vm *vm = ml_vm_check_live(L);
    lua_Number seconds = luaL_checknumber(L, 1);
    luaL_argcheck(L, isfinite(seconds), 1, "a number of seconds is needed");
    if (vm->run && !vm->run->task)
        return luaL_error(L, "sleep: only background tasks may sleep");
    if (!ml_await_allowed(L, "sleep"))
        return luaL_error(L, "too many tasks wait");
    seconds = seconds < 0 ? 0 : seconds > SLEEP_MAX ? SLEEP_MAX : seconds;
    struct nap *nap = ml_await_new(L, sizeof *nap, cancel_nap, free_nap);
    uv_timer_init(vm->script->options.loop, &nap->timer);
    nap->timer.data = nap;
    ml_script_pin(vm->script);
    ml_await_ref(&nap->await);
    uv_timer_start(&nap->timer, on_nap, (uint64_t)(seconds * 1000), 0);
    return ml_await_yield(L, &nap->await, k_sleep);
}

void ml_lib_http(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"fetch", l_fetch}, {"bearer_get", l_bearer_get}, {"sleep", l_sleep}, {NULL, NULL}};
    static const luaL_Reg headers[] = {
        {"__index", headers_index}, {"__pairs", headers_pairs}, {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
    ml_vm_new_type(L, headers_type, headers);
    lua_pop(L, 1);
}
