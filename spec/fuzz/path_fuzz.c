/* Targets and hosts: what is accepted is canonical, and canonical again when read again. */
#include "fuzz.h"

#include "codec/path.h"
#include "codec/text.h"

static void check_path(struct ml_arena *arena, const struct ml_target *t)
{
    struct ml_target again;
    struct ml_str p = t->path;
    if (ml_str_eq(p, ML_STR("*")))
        return;
    ML_REQUIRE(p.n && p.p[0] == '/' && p.n <= t->raw_path.n + 1 && ml_utf8_ok(p));
    bool delimiter = false;
    for (size_t i = 0; i < p.n; i++) {
        ML_REQUIRE(p.p[i] != '\\' && (unsigned char)p.p[i] >= 0x20 && p.p[i] != 0x7f);
        ML_REQUIRE(i == 0 || p.p[i] != '/' || p.p[i - 1] != '/');
        delimiter |= strchr(" #?;%", p.p[i]) != NULL;
    }
    if (delimiter)
        return; /* these were encoded: the decoded text is no target */
    ML_REQUIRE(ml_target_parse(arena, p, &again, NULL) == 0);
    ML_REQUIRE(ml_str_eq(again.path, p) && !again.has_params);
}

static void check_host(struct ml_arena *arena, struct ml_str in)
{
    struct ml_str name, again;
    unsigned port;
    if (ml_host_parse(arena, in, &name, &port, NULL) < 0)
        return;
    ML_REQUIRE(port <= 65535 && name.n && name.p[name.n - 1] != '.');
    ML_REQUIRE(ml_host_parse(arena, name, &again, &port, NULL) == 0);
    ML_REQUIRE(port == 0 && ml_str_eq(name, again));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ml_arena arena;
    struct ml_target t;
    struct ml_str in = fuzz_str(data, size);
    ml_arena_init(&arena, 256 * 1024);
    if (ml_target_parse(&arena, in, &t, NULL) == 0) {
        check_path(&arena, &t);
        if (t.host.p)
            check_host(&arena, t.host);
    }
    check_host(&arena, in);
    ml_arena_done(&arena);
    return 0;
}
