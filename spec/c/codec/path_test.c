/* What a request target means: security.md S-005 to S-014, S-127. */
#include "base/mem.h"
#include "codec/path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct pair {
    const char *target;
    const char *path; /* NULL: refused with ML_E_INVALID */
};

static const struct pair pairs[] = {
    /* plain */
    {"/", "/"},
    {"/a", "/a"},
    {"/a/", "/a/"},
    {"/a/b/c", "/a/b/c"},
    {"/a.b/..c/d..", "/a.b/..c/d.."},
    {"/.../x", "/.../x"},
    {"/.well-known/x", "/.well-known/x"},
    {"/A/b", "/A/b"},
    {"/a:b@c/d+e", "/a:b@c/d+e"},
    {"*", "*"},
    /* the query is not the path (S-006, S-012) */
    {"/admin?x", "/admin"},
    {"/admin?", "/admin"},
    {"/private?path=/status", "/private"},
    {"/private?/status", "/private"},
    {"/a?/../b", "/a"},
    {"/a?b?c", "/a"},
    {"/a?x=100%", "/a"},
    {"/a?x=%2f%00", "/a"},
    {"/a?x=\\", "/a"},
    {"?", NULL},
    {"*?x", NULL},
    /* fragments (S-007) */
    {"/foo/secret#/bar", NULL},
    {"/foo?x#y", NULL},
    {"/#", NULL},
    {"/foo/secret%23/bar", "/foo/secret#/bar"},
    /* slashes (S-008) */
    {"//admin/users", "/admin/users"},
    {"///admin/users", "/admin/users"},
    {"//evil.example/admin", "/evil.example/admin"},
    {"/a//b", "/a/b"},
    {"/a///", "/a/"},
    {"//", "/"},
    {"/\\admin/users", NULL},
    {"/a\\admin", NULL},
    {"\\a", NULL},
    /* dot segments (S-009) */
    {"/.", "/"},
    {"/./", "/"},
    {"/..", NULL},
    {"/../a", NULL},
    {"/a/../../b", NULL},
    {"/a/.", "/a/"},
    {"/a/./b", "/a/b"},
    {"/a/..", "/"},
    {"/a/../", "/"},
    {"/a/b/..", "/a/"},
    {"/a/b/../", "/a/"},
    {"/public/../admin/secrets", "/admin/secrets"},
    {"/a/b/../../c", "/c"},
    {"/public/..%2fadmin", NULL},
    {"/public/%2e%2e/admin", NULL},
    {"/public/.%2e/admin", NULL},
    {"/public/%2E./admin", NULL},
    {"/a/%2e/b", NULL},
    {"/a/%2e", NULL},
    {"/a/%2e%2e%2e/b", "/a/.../b"},
    {"/a%2eb", "/a.b"},
    {"/public/..;/admin", NULL},
    {"/public/..;x=1/admin", NULL},
    {"/public/.;/admin", NULL},
    {"/public/...;/admin", NULL},
    {"/public/%2e%2e;/admin", NULL},
    {"/public/..%3b/admin", NULL},
    {"/public/%2e%2e%3B/admin", NULL},
    /* slashes merged before or after ".."? (nginx and Envoy differ) */
    {"/public//../admin", NULL},
    {"//../admin", NULL},
    {"/a//./../b", NULL},
    {"/a//b/../../c", NULL},
    {"/a//b/../c", "/a/c"},
    {"/public/;/../admin", NULL},
    /* encoded separators and controls (S-010) */
    {"/a%2Fadmin", NULL},
    {"/a%2fadmin", NULL},
    {"/a%5cadmin", NULL},
    {"/a%5Cadmin", NULL},
    {"/a%00", NULL},
    {"/admin%00.css", NULL},
    {"/a%0d%0ab", NULL},
    {"/a%7f", NULL},
    {"/a%1F", NULL},
    {"/a b", NULL},
    {"/a\tb", NULL},
    {"/a\x7f", NULL},
    {"/a\r\nHost: b", NULL},
    /* percent encoding */
    {"/%61dmin", "/admin"},
    {"/%41", "/A"},
    {"/a%20b", "/a b"},
    {"/a%3Fb", "/a?b"},
    {"/%", NULL},
    {"/%4", NULL},
    {"/%4/a", NULL},
    {"/%zz", NULL},
    {"/%u0041", NULL},
    {"/% 41", NULL},
    {"/%-1", NULL},
    {"/a%25", "/a%"},
    {"/a%25b", "/a%b"},
    {"/100%25/x", "/100%/x"},
    /* double encoding */
    {"/a%252Fadmin", NULL},
    {"/%252e%252e/admin", NULL},
    {"/a%25%32%66admin", NULL},
    {"/a%2%35", NULL},
    {"/a%25%32f", NULL},
    {"/a;x=%252f", NULL},
    /* UTF-8 */
    {"/\xC3\xA9", "/\xC3\xA9"},
    {"/%C3%A9", "/\xC3\xA9"},
    {"/%c3%a9", "/\xC3\xA9"},
    {"/%F0%9F%98%80", "/\xF0\x9F\x98\x80"},
    {"/%C0%AF", NULL},
    {"/%c0%ae%c0%ae/admin", NULL},
    {"/%E0%80%AF", NULL},
    {"/%F0%80%80%AF", NULL},
    {"/%ED%A0%80", NULL},
    {"/%F4%90%80%80", NULL},
    {"/%80", NULL},
    {"/%C3", NULL},
    {"/%C3/%A9", NULL},
    {"/\xC0\xAF", NULL},
    {"/a\xFF", NULL},
    {"/a?\xFF", NULL},
    /* absolute form */
    {"http://a.example/x", "/x"},
    {"HTTPS://a.example:8443/x/../y?z", "/y"},
    {"http://a.example", "/"},
    {"http://a.example?x", "/"},
    {"http://a.example//admin", "/admin"},
    {"http://a@b/x", NULL},
    {"http://a:b@c/x", NULL},
    {"http://trusted\\@evil/x", NULL},
    {"http:///x", NULL},
    {"http://", NULL},
    {"http:/x", NULL},
    {"http://a.example#/x", NULL},
    {"http://a.example:0/x", NULL},
    {"http://a%2eexample/x", NULL},
    {"ftp://a.example/x", NULL},
    {"javascript:/x", NULL},
    /* nothing of params (S-013) */
    {"/a;x=%2f", NULL},
    {"/a;x=%", NULL},
    {"/a;x=\\", NULL},
    {"/a;%ff", NULL},
    {"/a?x;y", "/a"},
    /* neither */
    {"", NULL},
    {"a", NULL},
    {"admin/users", NULL},
    {"a.example:443", NULL},
    {"**", NULL},
    {"*/", NULL},
};

static const struct pair with_params[] = {
    {"/admin;x", "/admin"},
    {"/admin;jsessionid=1/users;jsessionid=1", "/admin/users"},
    {"/private;x=/status", "/private/status"},
    {"/admin;", "/admin"},
    {"/;/admin", "/admin"},
    {"/admin/;x", "/admin/"},
    {"/a;b;c/d", "/a/d"},
    {"/admin%3bx", "/admin;x"},
    {"/a;x/../b", "/b"},
};

static void check_target(const struct pair *p, bool has_params)
{
    struct ml_arena arena;
    struct ml_err err = {.code = 0};
    struct ml_target t = {.scheme = ML_STR("untouched")};
    ml_arena_init(&arena, 64 * 1024);
    int r = ml_target_parse(&arena, ml_str_z(p->target), &t, &err);
    if (p->path ? r != 0 || !ml_str_eq(t.path, ml_str_z(p->path)) || t.has_params != has_params
                : r != ML_E_INVALID || !ml_str_eq(t.scheme, ML_STR("untouched")))
        fail_msg("%s: got %d %.*s params=%d, want %s (%s)", p->target, r, r ? 0 : (int)t.path.n,
                 t.path.p, t.has_params, p->path ? p->path : "refused", err.text);
    ml_arena_done(&arena);
}

static void targets(void **state)
{
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        check_target(&pairs[i], false);
    for (size_t i = 0; i < sizeof with_params / sizeof with_params[0]; i++)
        check_target(&with_params[i], true);
}

/* What was understood once must mean the same when a program behind us reads it again. */
static void canonical_is_a_fixed_point(void **state)
{
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        struct ml_arena arena;
        struct ml_target t;
        const char *path = pairs[i].path;
        if (!path || strpbrk(path, "#?; %*"))
            continue; /* decoded delimiters: the text alone is no target any more */
        ml_arena_init(&arena, 64 * 1024);
        assert_int_equal(ml_target_parse(&arena, ml_str_z(path), &t, NULL), 0);
        assert_true(ml_str_eq(t.path, ml_str_z(path)));
        ml_arena_done(&arena);
    }
}

static void parts(void **state)
{
    struct ml_arena arena;
    struct ml_target t;
    struct ml_str in = ML_STR("hTTps://B.example:1/a%20;c/%41?x=%31;#");
    ml_arena_init(&arena, 64 * 1024);
    in.n--; /* the '#' stands behind the input */
    assert_int_equal(ml_target_parse(&arena, in, &t, NULL), 0);
    assert_true(ml_str_eq(t.scheme, ML_STR("hTTps")));
    assert_true(ml_str_eq(t.host, ML_STR("B.example:1")));
    assert_true(ml_str_eq(t.raw_path, ML_STR("/a%20;c/%41")));
    assert_true(ml_str_eq(t.path, ML_STR("/a /A")));
    assert_true(ml_str_eq(t.query, ML_STR("x=%31;")));
    assert_true(t.has_params);
    assert_int_equal(ml_target_parse(&arena, ML_STR("/a"), &t, NULL), 0);
    assert_null(t.host.p);
    assert_null(t.scheme.p);
    assert_int_equal(t.query.n, 0);
    assert_int_equal(ml_target_parse(&arena, ML_STR("/a\0b"), &t, NULL), ML_E_INVALID);
    ml_arena_done(&arena);
}

static void limits(void **state)
{
    struct ml_arena arena;
    struct ml_target t;
    size_t n = 16 * 1024;
    char *text = ml_xmalloc(n + 1);
    memset(text, 'a', n + 1);
    text[0] = '/';
    ml_arena_init(&arena, 64 * 1024);
    assert_int_equal(ml_target_parse(&arena, ml_str(text, n), &t, NULL), 0);
    assert_int_equal(t.path.n, n);
    assert_int_equal(ml_target_parse(&arena, ml_str(text, n + 1), &t, NULL), ML_E_TOOBIG);
    ml_arena_done(&arena);
    ml_arena_init(&arena, 1024);
    assert_int_equal(ml_target_parse(&arena, ML_STR("/a"), &t, NULL), ML_E_NOMEM);
    ml_arena_done(&arena);
    free(text);
}

static const struct {
    const char *in, *name; /* NULL: refused */
    unsigned port;
} hosts[] = {
    {"a.example", "a.example", 0},
    {"ADMIN.example.com", "admin.example.com", 0},
    {"admin.example.com.", "admin.example.com", 0},
    {"admin.example.com:443", "admin.example.com", 443},
    {"Admin.Example.com.:65535", "admin.example.com", 65535},
    {"a_b-c", "a_b-c", 0},
    {"127.0.0.1:80", "127.0.0.1", 80},
    {"[::1]", "[::1]", 0},
    {"[::1]:8080", "[::1]", 8080},
    {"[0:0:0:0:0:0:0:1]", "[::1]", 0},
    {"[2001:DB8::A]", "[2001:db8::a]", 0},
    {"", NULL, 0},
    {".", NULL, 0},
    {"..", NULL, 0},
    {"a..", NULL, 0},
    {"a..b", NULL, 0},
    {".a", NULL, 0},
    {":80", NULL, 0},
    {"a:", NULL, 0},
    {"a:0", NULL, 0},
    {"a:65536", NULL, 0},
    {"a:080808", NULL, 0},
    {"a:8o", NULL, 0},
    {"a:+80", NULL, 0},
    {"a:80:80", NULL, 0},
    {"a,b", NULL, 0},
    {"a b", NULL, 0},
    {" a", NULL, 0},
    {"a ", NULL, 0},
    {"a@b", NULL, 0},
    {"a/b", NULL, 0},
    {"a\\b", NULL, 0},
    {"a?b", NULL, 0},
    {"a#b", NULL, 0},
    {"a%2eb", NULL, 0},
    {"a\r\nb", NULL, 0},
    {"\xC3\xA9.example", NULL, 0},
    {"::1", NULL, 0},
    {"[::1", NULL, 0},
    {"[]", NULL, 0},
    {"[::1]x", NULL, 0},
    {"[::1]x:80", NULL, 0},
    {"[fe80::1%25eth0]", NULL, 0},
    {"[fe80::1%eth0]", NULL, 0},
    {"[v1.a]", NULL, 0},
    {"[127.0.0.1]", NULL, 0},
    {"[:::1]", NULL, 0},
    {"a]", NULL, 0},
};

static void host_names(void **state)
{
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        struct ml_arena arena;
        struct ml_str name = {NULL, 0};
        unsigned port = 77;
        ml_arena_init(&arena, 64 * 1024);
        int r = ml_host_parse(&arena, ml_str_z(hosts[i].in), &name, &port, NULL);
        if (hosts[i].name
                ? r != 0 || !ml_str_eq(name, ml_str_z(hosts[i].name)) || port != hosts[i].port
                : r != ML_E_INVALID || name.p || port != 77)
            fail_msg("%s: got %d %.*s %u", hosts[i].in, r, (int)name.n, name.p, port);
        ml_arena_done(&arena);
    }
}

static void host_limits(void **state)
{
    struct ml_arena arena;
    struct ml_str name;
    unsigned port;
    char text[254];
    memset(text, 'a', sizeof text);
    ml_arena_init(&arena, 64 * 1024);
    assert_int_equal(ml_host_parse(&arena, ml_str(text, 253), &name, &port, NULL), 0);
    assert_int_equal(ml_host_parse(&arena, ml_str(text, 254), &name, &port, NULL), ML_E_INVALID);
    assert_int_equal(ml_host_parse(&arena, ML_STR("a\0b"), &name, &port, NULL), ML_E_INVALID);
    assert_int_equal(ml_host_parse(&arena, ML_STR("[::\0]"), &name, &port, NULL), ML_E_INVALID);
    ml_arena_done(&arena);
    ml_arena_init(&arena, 0);
    assert_int_equal(ml_host_parse(&arena, ML_STR("a"), &name, &port, NULL), ML_E_NOMEM);
    assert_int_equal(ml_host_parse(&arena, ML_STR("[::1]"), &name, &port, NULL), ML_E_NOMEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(targets),    cmocka_unit_test(canonical_is_a_fixed_point),
        cmocka_unit_test(parts),      cmocka_unit_test(limits),
        cmocka_unit_test(host_names), cmocka_unit_test(host_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
