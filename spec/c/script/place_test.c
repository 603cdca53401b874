/* Our own places: what a policy may answer there, and that none of it is ever an allow by mistake.
 */
#include "one_world.h"

/* Asks with this body at a place. */
static void ask_place(const char *body, enum ml_place place, bool web, struct ask *a)
{
    static const struct ml_header headers[] = {
        {{"Content-Type", 12}, {"Application/x-www-form-urlencoded; charset=utf-8", 48}}};
    struct ml_vm *vm = load_body(&world, body);
    ask_open(a);
    a->request.place = place;
    a->request.web = web;
    a->request.body = ML_STR("a=1+2&b=%00&a=3");
    a->request.headers = headers;
    a->request.header_count = 1;
    ask_start(a, vm);
    ask_wait(a, &world);
    a->vm = vm;
}

static void test_answer(void **state)
{
    struct ask a;
    ask_place(
        "host.answer(req, 200, 'login', 'text/html', '<p>', { ['Set-Cookie'] = { 'a=1', 'b=2' } })",
        ML_PLACE_PAGE, true, &a);
    assert_int_equal(a.d.action, ML_ANSWER);
    assert_int_equal(a.d.status, 200);
    assert_true(ml_str_eq(a.d.content_type, ML_STR("text/html")));
    assert_true(ml_str_eq(a.d.body, ML_STR("<p>")));
    assert_int_equal(a.d.client_count, 2);
    assert_true(ml_str_eq(a.d.client[0].value, ML_STR("a=1")));
    assert_true(ml_str_eq(a.d.client[1].value, ML_STR("b=2")));
    ask_done(&a);
    ask_place("host.answer(req, 201, 'login', 'application/json', '{}')", ML_PLACE_LOGOUT, false,
              &a);
    assert_int_equal(a.d.action, ML_ANSWER);
    assert_int_equal(a.d.status, 201);
    ask_done(&a);
}

static void test_a_denial_may_be_a_page(void **state)
{
    struct ask a;
    ask_place("host.answer(req, 403, 'denied', 'text/html', '<p>')", ML_PLACE_NONE, false, &a);
    assert_int_equal(a.d.action, ML_ANSWER);
    assert_int_equal(a.d.status, 403);
    ask_done(&a);
}

/* A gateway takes a 200 on the check port for an allow. */
static void test_answers_that_are_none(void **state)
{
    static const struct {
        const char *body;
        enum ml_place place;
        bool web;
    } cases[] = {
        {"host.answer(req, 200, 'login', '', '')", ML_PLACE_PAGE, false},
        {"host.answer(req, 202, 'login', '', '')", ML_PLACE_PAGE, false},
        {"host.answer(req, 204, 'login', '', '')", ML_PLACE_LOGOUT, false},
        {"host.answer(req, 299, 'login', '', '')", ML_PLACE_CALLBACK, false},
        {"host.answer(req, 199, 'login', '', '')", ML_PLACE_PAGE, true},
        {"host.answer(req, 600, 'login', '', '')", ML_PLACE_PAGE, true},
        {"host.answer(req, '201', 'login', '', '')", ML_PLACE_PAGE, true},
        {"host.answer(req, 201, 'allowed', '', '')", ML_PLACE_PAGE, true},
        {"host.answer(req, 201, 'login', 'a\\nb', '')", ML_PLACE_PAGE, true},
        {"host.answer(req, 201, 'login', '', '', { a = { 'x\\r\\ny' } })", ML_PLACE_PAGE, true},
        {"host.answer(req, 201, 'login', '', '', { a = { {} } })", ML_PLACE_PAGE, true},
        {"local t = {} for i = 1, 17 do t[i] = 'x' end host.answer(req, 201, 'login', '', '', { a "
         "= t })",
         ML_PLACE_PAGE, true},
        {"host.answer(req, 201, 'login', '', '') allow()", ML_PLACE_PAGE, true},
        {"host.answer(req, 201, 'login', '', '') host.pass(req)", ML_PLACE_PAGE, false},
        {"host.answer(req, 201, 'login', '', '')", ML_PLACE_NONE, false},
        {"host.answer(req, 399, 'denied', '', '')", ML_PLACE_NONE, false},
        {"host.pass(req)", ML_PLACE_NONE, false},
        {"host.pass(req)", ML_PLACE_PAGE, true},
        {"host.pass(req) error('late')", ML_PLACE_PAGE, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ask a;
        ask_place(cases[i].body, cases[i].place, cases[i].web, &a);
        assert_failed(&a, "error");
        ask_done(&a);
    }
}

static void test_pass_takes_our_headers_out(void **state)
{
    struct ask a;
    ask_place("host.pass(req)", ML_PLACE_PAGE, false, &a);
    assert_int_equal(a.d.action, ML_ALLOW);
    assert_true(ml_str_eq(a.d.reason, ML_STR("public")));
    assert_int_equal(a.d.upstream_count, 2);
    /* Blanked and removed: a gateway that knows no removal overwrites what the client sent. */
    assert_int_equal(a.d.upstream[0].op, ML_HEADER_BLANK);
    assert_int_equal(a.d.upstream[1].op, ML_HEADER_BLANK);
    ask_done(&a);
}

static void test_fields(void **state)
{
    struct ask a;
    ask_place(
        "assert(req.endpoint == 'callback') assert(req.web == true)\n"
        "assert(req.form.a == '1 2') assert(req.form.b == '\\0') assert(req.form.c == nil)\n"
        "assert(tostring(req.form) == 'a=1+2&b=%00&a=3') assert(req.body == 'a=1+2&b=%00&a=3')\n"
        "allow()",
        ML_PLACE_CALLBACK, true, &a);
    assert_int_equal(a.d.action, ML_ALLOW);
    ask_done(&a);
    ask_body(
        &world,
        "assert(req.endpoint == nil) assert(req.web == false) assert(tostring(req.form) == '')\n"
        "assert(req.form.a == nil) allow()",
        &a);
    assert_int_equal(a.d.action, ML_ALLOW);
    ask_done(&a);
}

/* Places have a function of their own; without it nothing judges them by mistake. */
static void test_who_answers(void **state)
{
    static const char with[] =
        "local plan = host.plan({}, {})\n"
        "return { decide = function(req) host.allow(req, plan, nil, 'public') end,\n"
        "answer = function(req) host.answer(req, 404, 'denied', '', '') end }";
    static const char without[] =
        "local plan = host.plan({}, {})\n"
        "return { decide = function(req) host.allow(req, plan, nil, 'public') end }";
    const char *const texts[] = {with, without};
    for (int i = 0; i < 4; i++) {
        struct ml_vm *vm = load(&world, texts[i % 2]);
        struct ask a;
        assert_int_equal(ml_vm_serves_places(vm), i % 2 == 0);
        ask_open(&a);
        a.request.place = i < 2 ? ML_PLACE_NONE : ML_PLACE_PAGE;
        ask_start(&a, vm);
        ask_wait(&a, &world);
        a.vm = vm;
        if (i < 2)
            assert_int_equal(a.d.action, ML_ALLOW);
        else if (i == 2)
            assert_int_equal(a.d.status, 404);
        else
            assert_failed(&a, "error");
        ask_done(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_answer, open_world, close_world),
        cmocka_unit_test_setup_teardown(test_a_denial_may_be_a_page, open_world, close_world),
        cmocka_unit_test_setup_teardown(test_answers_that_are_none, open_world, close_world),
        cmocka_unit_test_setup_teardown(test_pass_takes_our_headers_out, open_world, close_world),
        cmocka_unit_test_setup_teardown(test_fields, open_world, close_world),
        cmocka_unit_test_setup_teardown(test_who_answers, open_world, close_world),
    };
    return RUN_TWICE("place", tests);
}
