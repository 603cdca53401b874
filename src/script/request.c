/* The request as Lua sees it: a userdata with read-only fields, made at the start of a run.
 *
 * It holds the run's number, not a pointer: numbers are never used twice, so that a policy which
 * keeps a request (or its headers) beyond its end gets "this request has ended", never another
 * request's data. Values are pushed when asked for. */
#include "script/internal.h"

#include "codec/header.h"
#include "codec/text.h"

#include <stddef.h>

enum { QUERY_NAMES = 256 }; /* parameters that are looked through */

static const char request_type[] = "moonlatch.request", view_type[] = "moonlatch.view";

enum view { VIEW_QUERY, VIEW_HEADERS, VIEW_COOKIES, VIEW_FORM };

struct request_box {
    uint64_t number;
};

/* req.headers, req.cookies, req.query, req.form */
struct view_box {
    uint64_t number;
    enum view view;
};

/* What a key of req stands for. */
enum field {
    FIELD_TEXT, /* with the offset of a slice in struct ml_request */
    FIELD_VIEW, /* with a view */
    FIELD_BEARER,
    FIELD_HAS_PARAMS,
    FIELD_VERIFY,
    FIELD_WEB,
    FIELD_ENDPOINT,
};

static struct ml_run *live_run(lua_State *L, uint64_t number)
{
    struct ml_run *run = ml_vm_of(L)->run;
    if (!run || run->task || run->number != number || ml_budget_killed(L))
        luaL_error(L, "this request has ended");
    return run;
}

static struct ml_run *check_run(lua_State *L)
{
    struct ml_run *run = ml_vm_of(L)->run;
    if (run && run->box && lua_touserdata(L, 1) == run->box && !ml_budget_killed(L))
        return run;
    struct request_box *box = luaL_checkudata(L, 1, request_type);
    return live_run(L, box->number);
}

static int push_text(lua_State *L, struct ml_str s)
{
    if (s.p)
        lua_pushlstring(L, s.p, s.n);
    else
        lua_pushnil(L);
    return 1;
}

/* All lines of a header as one value (RFC 9110 5.2, cookies RFC 6265 5.4); p == NULL when there is
 * none. */
static struct ml_str header(lua_State *L, struct ml_run *run, struct ml_str name)
{
    const struct ml_request *r = run->request;
    struct ml_str join = ml_str_ieq(name, ML_STR("cookie")) ? ML_STR("; ") : ML_STR(", ");
    struct ml_str value = {NULL, 0};
    struct ml_buf *b = &run->vm->scratch;
    size_t count = 0;
    for (size_t i = 0; i < r->header_count; i++) {
        if (!ml_str_ieq(r->headers[i].name, name))
            continue;
        if (count++ == 0) {
            value = r->headers[i].value.p ? r->headers[i].value : ML_STR("");
            continue;
        }
        if (count == 2) {
            ml_buf_clear(b);
            ml_buf_add_str(b, value);
        }
        ml_buf_add_str(b, join);
        ml_buf_add_str(b, r->headers[i].value);
    }
    if (count > 1 && b->failed)
        luaL_error(L, "a header is too large");
    return count > 1 ? ml_buf_str(b) : value;
}

static struct ml_str bearer(const struct ml_request *r)
{
    struct ml_str authorization = ml_request_header(r, ML_STR("authorization"), NULL);
    return authorization.p ? ml_bearer(authorization) : authorization;
}

static int push_cookie(lua_State *L, struct ml_run *run, struct ml_str name)
{
    size_t count = 0;
    struct ml_str all = header(L, run, ML_STR("cookie"));
    struct ml_str value = all.p ? ml_cookie(all, name, &count) : all;
    if (count != 1) /* two cookies of one name: nobody knows which one the application takes */
        value.p = NULL;
    return push_text(L, value);
}

/* The body's text when it says that it is a form. */
static struct ml_str form(const struct ml_request *r)
{
    struct ml_str parameters, type = ml_request_header(r, ML_STR("content-type"), NULL);
    type = ml_str_trim(ml_str_cut(type, ';', &parameters));
    bool is_form = type.p && ml_str_ieq(type, ML_STR("application/x-www-form-urlencoded"));
    return is_form ? r->body : (struct ml_str){NULL, 0};
}

/* The first parameter of that name, decoded as a form (WHATWG URL 5.1); one that cannot be decoded
 * is absent. */
static int push_parameter(lua_State *L, struct ml_run *run, struct ml_str rest, struct ml_str name)
{
    struct ml_buf *b = &run->vm->scratch;
    for (int i = 0; rest.n && i < QUERY_NAMES; i++) {
        struct ml_str pair = ml_str_cut(rest, '&', &rest), value;
        struct ml_str key = ml_str_cut(pair, '=', &value);
        ml_buf_clear(b);
        if (!ml_url_unescape(key, true, b) || !ml_str_eq(ml_buf_str(b), name))
            continue;
        ml_buf_clear(b);
        if (!ml_url_unescape(value.p ? value : ML_STR(""), true, b))
            break;
        return push_text(L, b->n ? ml_buf_str(b) : ML_STR(""));
    }
    lua_pushnil(L);
    return 1;
}

static int view_index(lua_State *L)
{
    struct view_box *box = luaL_checkudata(L, 1, view_type);
    struct ml_run *run = live_run(L, box->number);
    struct ml_str name = ml_vm_check_text(L, 2);
    if (box->view == VIEW_HEADERS)
        return push_text(L, header(L, run, name));
    if (box->view == VIEW_COOKIES)
        return push_cookie(L, run, name);
    return push_parameter(L, run, box->view == VIEW_FORM ? form(run->request) : run->request->query,
                          name);
}

static int view_tostring(lua_State *L)
{
    struct view_box *box = luaL_checkudata(L, 1, view_type);
    struct ml_run *run = live_run(L, box->number);
    static const char *const names[] = {NULL, "<headers>", "<cookies>", "<form>"};
    if (box->view == VIEW_FORM) {
        struct ml_str text = form(run->request);
        return push_text(L, text.p ? text : ML_STR(""));
    }
    if (box->view == VIEW_QUERY)
        return push_text(L, run->request->query.p ? run->request->query : ML_STR(""));
    lua_pushstring(L, names[box->view]);
    return 1;
}

/* Made once a request, kept in its user value. */
static int push_view(lua_State *L, struct ml_run *run, enum view view)
{
    if (lua_getiuservalue(L, 1, (int)view + 1) == LUA_TUSERDATA)
        return 1;
    struct view_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    box->number = run->number;
    box->view = view;
    luaL_setmetatable(L, view_type);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, 1, (int)view + 1);
    return 1;
}

static int push_endpoint(lua_State *L, enum ml_place place)
{
    static const char *const names[] = {
        [ML_PLACE_CALLBACK] = "callback",
        [ML_PLACE_LOGOUT] = "logout",
        [ML_PLACE_BACKCHANNEL_LOGOUT] = "backchannel_logout",
        [ML_PLACE_FRONTCHANNEL_LOGOUT] = "frontchannel_logout",
        [ML_PLACE_PAGE] = "page",
    };
    lua_pushstring(L, names[place]);
    return 1;
}

/* Upvalue 1: name -> field << 16 | detail, or the method itself. */
static int request_index(lua_State *L)
{
    struct ml_run *run = check_run(L);
    lua_settop(L, 2);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) == LUA_TFUNCTION)
        return 1;
    if (!lua_isinteger(L, -1))
        return luaL_error(L, "a request has no field of that name");
    lua_Integer code = lua_tointeger(L, -1);
    const char *base = (const char *)run->request;
    switch ((enum field)(code >> 16)) {
    case FIELD_TEXT:
        return push_text(L, *(const struct ml_str *)(const void *)(base + (code & 0xFFFF)));
    case FIELD_VIEW:
        return push_view(L, run, (enum view)(code & 0xFFFF));
    case FIELD_BEARER:
        return push_text(L, bearer(run->request));
    case FIELD_HAS_PARAMS:
        lua_pushboolean(L, run->request->has_params);
        return 1;
    case FIELD_VERIFY:
        lua_pushboolean(L, run->request->verify);
        return 1;
    case FIELD_WEB:
        lua_pushboolean(L, run->request->web);
        return 1;
    case FIELD_ENDPOINT:
        return push_endpoint(L, run->request->place);
    }
    return 0;
}

/* A header that is there twice is no credential: nobody knows which one counts. */
int ml_request_credential(lua_State *L)
{
    struct ml_run *run = check_run(L);
    struct ml_str name = ml_vm_check_text(L, 2);
    struct ml_str value = ml_request_header(run->request, name, NULL);
    struct ml_str token = value.p ? ml_bearer(value) : value;
    if (!token.p && value.p && value.n && !ml_str_ieq(name, ML_STR("authorization")) &&
        !memchr(value.p, ' ', value.n))
        token = value;
    return push_text(L, token);
}

int ml_request_cookie(lua_State *L)
{
    struct ml_run *run = check_run(L);
    return push_cookie(L, run, ml_vm_check_text(L, 2));
}

static int no_newindex(lua_State *L)
{
    return luaL_error(L, "a request cannot be changed");
}

void ml_request_push(lua_State *L, struct ml_run *run)
{
    struct request_box *box = lua_newuserdatauv(L, sizeof *box, 4);
    box->number = run->number;
    lua_rawgeti(L, LUA_REGISTRYINDEX, run->vm->request_type);
    lua_setmetatable(L, -2);
    run->box = box;
}

static void push_fields(lua_State *L)
{
#define TEXT(name)                                                                                 \
    {                                                                                              \
#name, FIELD_TEXT, offsetof(struct ml_request, name)                                       \
    }
    static const struct {
        const char *name;
        enum field field;
        size_t detail;
    } fields[] = {
        TEXT(method),
        TEXT(scheme),
        TEXT(host),
        TEXT(path),
        TEXT(raw_path),
        TEXT(client_ip),
        TEXT(id),
        {"query", FIELD_VIEW, VIEW_QUERY},
        {"headers", FIELD_VIEW, VIEW_HEADERS},
        {"cookies", FIELD_VIEW, VIEW_COOKIES},
        {"form", FIELD_VIEW, VIEW_FORM},
        TEXT(body),
        {"bearer", FIELD_BEARER, 0},
        {"has_params", FIELD_HAS_PARAMS, 0},
        {"verify", FIELD_VERIFY, 0},
        {"web", FIELD_WEB, 0},
        {"endpoint", FIELD_ENDPOINT, 0},
    };
#undef TEXT
    lua_newtable(L);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        lua_pushinteger(L, (lua_Integer)((size_t)fields[i].field << 16 | fields[i].detail));
        lua_setfield(L, -2, fields[i].name);
    }
    lua_pushcfunction(L, ml_request_credential);
    lua_setfield(L, -2, "credential");
}

void ml_request_type(lua_State *L)
{
    static const luaL_Reg request[] = {{"__newindex", no_newindex}, {NULL, NULL}};
    static const luaL_Reg view[] = {{"__index", view_index},
                                    {"__newindex", no_newindex},
                                    {"__tostring", view_tostring},
                                    {NULL, NULL}};
    ml_vm_new_type(L, view_type, view);
    lua_pop(L, 1);
    ml_vm_new_type(L, request_type, request);
    push_fields(L);
    lua_pushcclosure(L, request_index, 1);
    lua_setfield(L, -2, "__index");
    ml_vm_of(L)->request_type = luaL_ref(L, LUA_REGISTRYINDEX);
}
