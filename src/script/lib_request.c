/* host.plan allow pass deny answer step route log now credential. The hot path: each allow of a
 * cached check goes through here.
 *
 * What is written into the decision is copied into the request's arena; it counts only once decide
 * has returned (run.c). The request itself, as Lua sees it, is in request.c. */
#include "script/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "codec/header.h"

#include <math.h>
#include <stdio.h>

enum { STEP_TEXT = 300, LOG_TEXT = 1024, LOG_FIELDS = 8, LOGS_MAX = 32, USER_TEXT = 1024 };

static const char plan_type[] = "moonlatch.plan";

/* Header names that a policy owns, made while loading; its memory is a userdata kept for the VM's
 * life. */
struct plan {
    size_t count;
    struct ml_str strip;
    struct {
        struct ml_str name;
        bool remove;
    } names[];
};

/* The run of the request at idx 1: exactly the one that executes, and not killed. */
static struct ml_run *check_run(lua_State *L)
{
    struct ml_run *run = ml_vm_of(L)->run;
    if (!run || !run->box || lua_touserdata(L, 1) != run->box || ml_budget_killed(L)) {
        luaL_checktype(L, 1, LUA_TUSERDATA);
        luaL_error(L, "this request has ended");
    }
    return run;
}

/* A copy in the request's arena. */
static struct ml_str keep(lua_State *L, struct ml_run *run, struct ml_str s)
{
    struct ml_str copy = ml_arena_dup(run->request->arena, s);
    if (!copy.p)
        luaL_error(L, "the answer is too large");
    return copy;
}

static struct ml_str keep_short(lua_State *L, struct ml_run *run, int idx, size_t max)
{
    if (lua_type(L, idx) <= LUA_TNIL)
        return ML_STR("");
    struct ml_str s = ml_vm_check_text(L, idx);
    s.n = s.n < max ? s.n : max;
    return keep(L, run, s);
}

/* What CGI-like backends take for a '-'. */
static const char alias_marks[] = {'_', '.'};

static size_t alias_bytes(struct ml_str name)
{
    return memchr(name.p, '-', name.n) ? sizeof alias_marks * (name.n + 1) : 0;
}

/* "x-user" -> ",x_user,x.user". */
static char *add_aliases(char *out, const char *begin, struct ml_str name)
{
    for (size_t k = 0; alias_bytes(name) && k < sizeof alias_marks; k++) {
        if (out != begin)
            *out++ = ',';
        for (size_t i = 0; i < name.n; i++)
            *out++ = name.p[i] == '-' ? alias_marks[k] : ml_lower(name.p[i]);
    }
    return out;
}

/* Checks names[i] and kinds[i]; the strings stay on the stack's tables. Returns the bytes that name
 * needs. */
static size_t check_name(lua_State *L, lua_Integer i)
{
    if (lua_rawgeti(L, 1, i) != LUA_TSTRING || lua_rawgeti(L, 2, i) != LUA_TSTRING)
        luaL_error(L, "plan: names and kinds must be texts");
    struct ml_str name = ml_vm_check_text(L, -2), kind = ml_vm_check_text(L, -1), other;
    if (!ml_header_name_ok(name))
        luaL_error(L, "plan: this is no header name: %s", name.p);
    if (!ml_str_eq(kind, ML_STR("set")) && !ml_str_eq(kind, ML_STR("remove")))
        luaL_error(L, "plan: a kind is \"set\" or \"remove\"");
    for (lua_Integer k = 1; k < i; k++) {
        lua_rawgeti(L, 1, k);
        other = ml_vm_check_text(L, -1);
        if (ml_str_ieq(name, other))
            luaL_error(L, "plan: header %s is there twice", name.p);
        lua_pop(L, 1);
    }
    lua_pop(L, 2);
    return name.n + alias_bytes(name);
}

static int l_plan(lua_State *L)
{
    ml_vm_check_loading(L, "plan");
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    lua_Integer count = (lua_Integer)lua_rawlen(L, 1);
    size_t bytes = 0;
    if (count > ML_UPSTREAM_HEADERS_MAX)
        return luaL_error(L, "plan: more than %d headers", ML_UPSTREAM_HEADERS_MAX);
    for (lua_Integer i = 1; i <= count; i++)
        bytes += check_name(L, i);
    struct plan *plan;
    size_t head = sizeof *plan + (size_t)count * sizeof plan->names[0];
    plan = lua_newuserdatauv(L, head + bytes, 0);
    plan->count = (size_t)count;
    char *p = (char *)plan + head;
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, 1, i);
        lua_rawgeti(L, 2, i);
        struct ml_str name = ml_vm_check_text(L, -2);
        memcpy(p, name.p, name.n);
        plan->names[i - 1].name = ml_str(p, name.n);
        plan->names[i - 1].remove = ml_str_eq(ml_vm_check_text(L, -1), ML_STR("remove"));
        p += name.n;
        lua_pop(L, 2);
    }
    char *strip = p;
    for (size_t i = 0; i < plan->count; i++)
        p = add_aliases(p, strip, plan->names[i].name);
    plan->strip = ml_str(strip, (size_t)(p - strip));
    luaL_setmetatable(L, plan_type);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX,
                plan); /* decisions point into it: it lives as long as the VM */
    return 1;
}

/* Plans are never collected: the address of one that was checked before is proof. */
static const struct plan *check_plan(lua_State *L, struct ml_vm *vm)
{
    const void *box = lua_touserdata(L, 2), *type = NULL;
    if (box && box == vm->last_plan)
        return box;
    if (lua_getmetatable(L, 2)) {
        type = lua_topointer(L, -1);
        lua_pop(L, 1);
    }
    if (type != vm->plan_type)
        luaL_typeerror(L, 2, "plan");
    vm->last_plan = box;
    return box;
}

static void add_upstream(lua_State *L, struct ml_run *run, struct ml_str name, bool remove, int idx)
{
    struct ml_decision *d = run->d;
    struct ml_upstream_header *h = &d->upstream[d->upstream_count];
    *h = (struct ml_upstream_header){name, ML_STR(""), remove ? ML_HEADER_REMOVE : ML_HEADER_BLANK};
    if (!remove && !lua_isnoneornil(L, idx)) {
        struct ml_str value = ml_vm_check_text(L, idx);
        if (!ml_header_value_ok(value)) {
            lua_pushlstring(L, name.p, name.n);
            luaL_error(L, "the value for header %s cannot be sent", lua_tostring(L, -1));
        }
        h->value = keep(L, run, value);
        h->op = ML_HEADER_SET;
    }
    d->upstream_count++;
}

static int l_allow(lua_State *L)
{
    struct ml_run *run = check_run(L);
    struct ml_decision *d = run->d;
    const struct plan *plan = check_plan(L, run->vm);
    struct ml_str user = keep_short(L, run, 3, USER_TEXT), reason = ml_vm_check_text(L, 4);
    bool public = ml_str_eq(reason, ML_STR("public"));
    if (!public && !ml_str_eq(reason, ML_STR("allowed")))
        return luaL_error(L, "allow: the reason is \"allowed\" or \"public\"");
    if ((size_t)lua_gettop(L) > 4 + plan->count)
        return luaL_error(L, "allow: more values than headers");
    if (d->action != ML_UNDECIDED)
        return luaL_error(L, "this request is decided already");
    d->upstream_count = 0;
    for (size_t i = 0; i < plan->count; i++)
        add_upstream(L, run, plan->names[i].name, plan->names[i].remove, (int)i + 5);
    d->user = user;
    d->strip = plan->strip;
    ml_decision_allow(d);
    d->reason = public ? ML_STR("public") : ML_STR("allowed");
    return 0;
}

/* The fields that frame a message belong to the server. */
static bool framing(struct ml_str name)
{
    static const char *const names[] = {"content-length", "transfer-encoding", "connection",
                                        "trailer",        "upgrade",           "keep-alive"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (ml_str_ieq(name, ml_str_z(names[i])))
            return true;
    return false;
}

/* A line of the answer to the client; the value is on top. */
static void add_client_header(lua_State *L, struct ml_run *run, struct ml_str name)
{
    struct ml_decision *d = run->d;
    struct ml_str value = ml_vm_check_text(L, -1);
    if (d->client_count == ML_CLIENT_HEADERS_MAX)
        luaL_error(L, "deny: more than %d headers", ML_CLIENT_HEADERS_MAX);
    if (!ml_header_name_ok(name) || framing(name) || !ml_header_value_ok(value))
        luaL_error(L, "deny: a header cannot be sent");
    d->client[d->client_count].name = keep(L, run, name);
    d->client[d->client_count++].value = keep(L, run, value);
}

/* {name = text, or a list of texts: a line each} */
static void add_client_headers(lua_State *L, struct ml_run *run, int idx)
{
    if (lua_isnoneornil(L, idx))
        return;
    luaL_checktype(L, idx, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
        struct ml_str name = ml_vm_check_text(L, -2);
        if (!lua_istable(L, -1)) {
            add_client_header(L, run, name);
            continue;
        }
        for (lua_Integer i = 1; lua_rawgeti(L, -1, i) != LUA_TNIL; i++, lua_pop(L, 1))
            add_client_header(L, run, name);
        lua_pop(L, 1);
    }
}

static struct ml_str deny_reason(lua_State *L, int idx)
{
    static const char *const names[] = {"unauthenticated", "denied", "unavailable",
                                        "error",           "login",  NULL};
    luaL_checktype(L, idx, LUA_TSTRING);
    return ml_str_z(names[luaL_checkoption(L, idx, NULL, names)]);
}

static int l_deny(lua_State *L)
{
    struct ml_run *run = check_run(L);
    struct ml_decision *d = run->d;
    struct ml_str reason = deny_reason(L, 3);
    lua_Integer status = lua_isinteger(L, 2) ? lua_tointeger(L, 2) : 0;
    if (status < 301 || status > 599)
        return luaL_error(L, "deny: the status is a number from 301 to 599");
    struct ml_str body = keep(L, run, lua_isnoneornil(L, 4) ? ML_STR("") : ml_vm_check_text(L, 4));
    if (d->action != ML_UNDECIDED)
        return luaL_error(L, "this request is decided already");
    d->client_count = 0;
    add_client_headers(L, run, 5);
    if (body.n)
        d->content_type = ML_STR("text/plain; charset=utf-8");
    ml_decision_deny(d, (int)status, reason, body);
    return 0;
}

/* answer(req, status, reason, content_type, body, headers): of one of our own places, or a denial
 * that is a page. */
static int l_answer(lua_State *L)
{
    struct ml_run *run = check_run(L);
    struct ml_decision *d = run->d;
    struct ml_str reason = deny_reason(L, 3), type = keep_short(L, run, 4, STEP_TEXT);
    lua_Integer status = lua_isinteger(L, 2) ? lua_tointeger(L, 2) : 0;
    bool success = status >= 200 && status < 300;
    if (status < 200 || status > 599 || (success && status != 201 && !run->request->web))
        return luaL_error(L, "answer: the status is a number from 200 to 599 and, where a gateway "
                             "would take it for an allow, no 2xx but 201");
    struct ml_str body = keep(L, run, lua_isnoneornil(L, 5) ? ML_STR("") : ml_vm_check_text(L, 5));
    if (run->request->place == ML_PLACE_NONE && status < 400)
        return luaL_error(L, "answer: of a check only a denial");
    if (!ml_header_value_ok(type))
        return luaL_error(L, "answer: the content type cannot be sent");
    if (d->action != ML_UNDECIDED)
        return luaL_error(L, "this request is decided already");
    d->client_count = 0;
    add_client_headers(L, run, 6);
    ml_decision_answer(d, (int)status, reason, type, body);
    return 0;
}

/* One of our own places, which the gateway's route leads to the web port: let through, with every
 * header that the policy owns taken out. */
static int l_pass(lua_State *L)
{
    struct ml_run *run = check_run(L);
    struct ml_decision *d = run->d;
    struct ml_vm *vm = run->vm;
    if (run->request->place == ML_PLACE_NONE || run->request->web)
        return luaL_error(L, "pass: this request is no place of ours on the check port");
    if (vm->owned_count > ML_UPSTREAM_HEADERS_MAX)
        return luaL_error(L, "pass: the policy has too many headers");
    if (d->action != ML_UNDECIDED)
        return luaL_error(L, "this request is decided already");
    for (d->upstream_count = 0; d->upstream_count < vm->owned_count; d->upstream_count++)
        d->upstream[d->upstream_count] =
            (struct ml_upstream_header){vm->owned[d->upstream_count], ML_STR(""), ML_HEADER_BLANK};
    ml_decision_allow(d);
    d->reason = ML_STR("public");
    return 0;
}

static int l_step(lua_State *L)
{
    struct ml_run *run = check_run(L);
    struct ml_str name = keep_short(L, run, 2, STEP_TEXT),
                  outcome = keep_short(L, run, 3, STEP_TEXT);
    ml_decision_step(run->d, name, outcome, keep_short(L, run, 4, STEP_TEXT));
    return 0;
}

static int l_route(lua_State *L)
{
    struct ml_run *run = check_run(L);
    run->d->route = keep_short(L, run, 2, STEP_TEXT);
    return 0;
}

/* Names are written as they are. */
static bool plain_name(struct ml_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = ml_lower(s.p[i]);
        if ((c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' && c != '.')
            return false;
    }
    return s.n > 0 && s.n <= 64;
}

/* The value on top; reals need `text` to live in. */
static struct ml_field field(lua_State *L, const char *name, char text[32])
{
    struct ml_str s;
    if (lua_isinteger(L, -1))
        return ML_FN(name, lua_tointeger(L, -1));
    if (lua_type(L, -1) == LUA_TNUMBER) {
        snprintf(text, 32, "%.14g", lua_tonumber(L, -1));
        return ML_FZ(name, text);
    }
    if (lua_isboolean(L, -1))
        return ML_FZ(name, lua_toboolean(L, -1) ? "true" : "false");
    s = ml_vm_check_text(L, -1);
    s.n = s.n < LOG_TEXT ? s.n : LOG_TEXT;
    return ML_F(name, s);
}

static size_t log_fields(lua_State *L, int idx, struct ml_field *fields, char (*texts)[32])
{
    size_t count = 0;
    if (lua_isnoneornil(L, idx))
        return 0;
    luaL_checktype(L, idx, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
        struct ml_str name = ml_vm_check_text(L, -2);
        if (count == LOG_FIELDS || !plain_name(name))
            luaL_error(L, "log: at most %d fields, names of letters, digits and _", LOG_FIELDS);
        fields[count] = field(L, name.p, texts[count]);
        count++;
    }
    return count;
}

static int l_log(lua_State *L)
{
    static const char *const names[] = {"error", "warn", "info", "debug", NULL};
    static const enum ml_log_level levels[] = {ML_LOG_ERROR, ML_LOG_WARN, ML_LOG_INFO,
                                               ML_LOG_DEBUG};
    char texts[LOG_FIELDS][32];
    struct ml_field fields[LOG_FIELDS + 2];
    struct ml_vm *vm = ml_vm_check_live(L);
    enum ml_log_level level = levels[luaL_checkoption(L, 1, NULL, names)];
    struct ml_str text = ml_vm_check_text(L, 2);
    size_t count = log_fields(L, 3, fields, texts);
    if (!ml_log_on(level) || (vm->run && !vm->run->task && vm->run->logs++ >= LOGS_MAX))
        return 0;
    text.n = text.n < LOG_TEXT ? text.n : LOG_TEXT;
    fields[count++] = ML_FZ("policy", vm->name);
    if (vm->run && !vm->run->task)
        fields[count++] = ML_F("id", vm->run->request->id.p ? vm->run->request->id : ML_STR(""));
    ml_log_fields(level, text, fields, count);
    return 0;
}

static int l_now(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)ml_wall_ms() / 1000.0);
    return 1;
}

void ml_lib_request(lua_State *L)
{
    static const luaL_Reg none[] = {{NULL, NULL}};
    static const luaL_Reg functions[] = {
        {"plan", l_plan},
        {"allow", l_allow},
        {"pass", l_pass},
        {"deny", l_deny},
        {"answer", l_answer},
        {"step", l_step},
        {"route", l_route},
        {"log", l_log},
        {"now", l_now},
        {"credential", ml_request_credential},
        {"cookie", ml_request_cookie},
        {NULL, NULL},
    };
    luaL_setfuncs(L, functions, 0);
    ml_vm_new_type(L, plan_type, none);
    ml_vm_of(L)->plan_type = lua_topointer(L, -1);
    lua_pop(L, 1);
    ml_request_type(L);
}
