/* host.session_*: with a store that answers at once, one that takes its time, one that is away, and
 * none. What the functions mean is in spec/support/host_contract.lua; this is about waiting. */
#include "world.h"

#include "store/session_lmdb.h"

static struct shared shared;
static struct world world;

static int open_memory(void **state)
{
    shared_open(&shared);
    world_open(&world, &shared);
    return 0;
}

/* Writes are answered by another thread, after a commit. */
static int open_lmdb(void **state)
{
    char path[64];
    struct ml_err err;
    snprintf(path, sizeof path, "%s/sessions", directory);
    shared_open(&shared);
    ml_sessions_free(shared.sessions);
    shared.sessions = ml_sessions_new(&(struct ml_sessions_options){
        .backend = &ml_session_lmdb,
        .store = ml_lmdb_store_new(&(struct ml_lmdb_options){.path = path, .max_bytes = 8 << 20}),
        .keys = shared.keys,
        .cache = shared.cache,
        .cache_ms = 1000});
    world_open(&world, &shared);
    while (!ml_session_ready(world.seat, &err))
        usleep(1000);
    return 0;
}

static int close_world(void **state)
{
    world_close(&world);
    shared_close(&shared);
    return 0;
}

static void passes(const char *body)
{
    struct ask a;
    ask_body(&world, body, &a);
    if (a.d.action != ML_ALLOW)
        fail_msg("%u %s", a.d.status, last_reason(&a));
    ask_done(&a);
}

static const char one_life[] =
    "local id = assert(seam.session_create { open = { n = 1 }, tokens = { t = 'x' }, lifetime = "
    "60,\n"
    "  index = { user = 'alice' } })\n"
    "local state, open = seam.session_read(id)\n"
    "assert(state == 'hit' and open.n == 1)\n"
    "local tokens, revision = seam.session_tokens(id)\n"
    "assert(tokens.t == 'x')\n"
    "assert(seam.session_replace(id, revision, { n = 2 }, { t = 'y' }))\n"
    "local _, why = seam.session_replace(id, revision, { n = 3 }, {})\n"
    "assert(why == 'conflict')\n"
    "assert(select(2, seam.session_read(id)).n == 2)\n"
    "assert(seam.session_kill('user', 'alice') == 1)\n"
    "assert(seam.session_read(id) == 'none')\n"
    "assert(seam.session_delete(id))\n"
    "allow()";

static void test_one_life(void **state)
{
    passes(one_life);
}

/* Wherever it is left, nothing is left behind. */
static void test_clients_go_away(void **state)
{
    struct ml_vm *vm = load_body(&world, one_life);
    for (int turns = 0; turns < 12; turns++) {
        struct ask a;
        ask_open(&a);
        ask_start(&a, vm);
        for (int i = 0; i < turns && !a.done; i++)
            uv_run(&world.loop, UV_RUN_ONCE);
        if (!a.done)
            ml_run_cancel(a.run);
        assert_true(a.done <= 1);
        ask_done(&a);
    }
    ml_vm_unref(vm);
}

static void test_many_at_once(void **state)
{
    enum { COUNT = 40 };
    static struct ask asks[COUNT];
    struct ml_vm *vm = load_body(
        &world, "local ids = {}\n"
                "for i = 1, 4 do ids[i] = assert(seam.session_create { open = { n = i },\n"
                "  tokens = {}, lifetime = 60 }) end\n"
                "for i = 1, 4 do assert(select(2, seam.session_read(ids[i])).n == i) end\n"
                "allow()");
    for (int i = 0; i < COUNT; i++) {
        ask_open(&asks[i]);
        asks[i].request.deadline_ms = ml_mono_ms() + 60000;
        ask_start(&asks[i], vm);
    }
    for (int i = 0; i < COUNT; i++) {
        ask_wait(&asks[i], &world);
        assert_int_equal(asks[i].d.action, ML_ALLOW);
        ask_done(&asks[i]);
    }
    ml_vm_unref(vm);
}

static void test_where_nothing_may_wait(void **state)
{
    passes("local ran, why = pcall(table.sort, { 1, 2 }, function() return seam.session_read(\n"
           "  'mls_' .. string.rep('A', 43)) end)\n"
           "assert(not ran and why:find('cannot wait here', 1, true), why)\n"
           "allow()");
}

/* S-420: an outage is told from an end, and what was remembered goes on for its second. */
static void test_the_store_is_away(void **state)
{
    passes("local kept = assert(seam.session_create { open = { n = 1 }, tokens = {}, lifetime = 60 "
           "})\n"
           "assert(seam.session_read(kept) == 'hit') allow()");
    ml_session_memory_fail(shared.store, true);
    passes("local id = 'mls_' .. string.rep('A', 43)\n"
           "local function failed(nothing, how, why)\n"
           "  assert(nothing == nil and how == 'failed' and #why > 0) end\n"
           "local state, why = seam.session_read(id)\n"
           "assert(state == 'failed' and why == 'the store is told to fail')\n"
           "failed(seam.session_tokens(id))\n"
           "failed(seam.session_replace(id, 1, {}, {}))\n"
           "local made, why = seam.session_create { open = {}, tokens = {}, lifetime = 60 }\n"
           "assert(made == nil and why == 'the store is told to fail')\n"
           "assert(seam.session_lock(id, 1) == 'failed')\n"
           "assert(seam.session_kill('user', 'alice') == nil)\n"
           "assert(seam.session_delete(id) == nil)\n"
           "assert(seam.session_read(id) == 'none')\n"
           "allow()");
    ml_session_memory_fail(shared.store, false);
}

static void test_no_store(void **state)
{
    world.script->options.sessions = NULL;
    passes("local state, why = seam.session_read('mls_' .. string.rep('A', 43))\n"
           "assert(state == 'failed' and why == 'there is no session store')\n"
           "assert(seam.session_create { open = {}, tokens = {}, lifetime = 60 } == nil)\n"
           "seam.session_unlock('x')\n"
           "allow()");
    world.script->options.sessions = world.seat;
}

int main(void)
{
#define IN_MEMORY(fn) cmocka_unit_test_setup_teardown(fn, open_memory, close_world)
#define IN_LMDB(fn) cmocka_unit_test_setup_teardown(fn, open_lmdb, close_world)
    const struct CMUnitTest tests[] = {
        IN_MEMORY(test_one_life),          IN_LMDB(test_one_life),
        IN_MEMORY(test_clients_go_away),   IN_LMDB(test_clients_go_away),
        IN_LMDB(test_many_at_once),        IN_MEMORY(test_where_nothing_may_wait),
        IN_MEMORY(test_the_store_is_away), IN_MEMORY(test_no_store),
    };
    return RUN_TWICE("sessions", tests);
}
