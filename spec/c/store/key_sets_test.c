/* Parsed key sets: one for a snapshot, errors too, a bounded number of them, any thread. */
#include "store/key_sets.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define SET                                                                                        \
    "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":"                                       \
    "\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}"

static struct ml_entry *snapshot(const char *json)
{
    struct ml_entry *e = ml_entry_new(ML_ENTRY_CLAIMS, ml_str_z(json), INT64_MAX);
    assert_non_null(e);
    return e;
}

static struct ml_jwks *get(struct ml_key_sets *sets, const struct ml_entry *e)
{
    struct ml_jwks *set = NULL;
    struct ml_err err;
    assert_int_equal(ml_key_sets_get(sets, e, &set, &err), 0);
    return set;
}

static void parsed_once(void **state)
{
    struct ml_key_sets *sets = ml_key_sets_new();
    struct ml_entry *a = snapshot(SET), *b = snapshot(SET);
    struct ml_jwks *one = get(sets, a), *two = get(sets, a), *other = get(sets, b);
    assert_ptr_equal(one, two);
    assert_ptr_not_equal(one, other); /* another snapshot, though of the same text */
    assert_int_equal(ml_jwks_count(one), 1);
    ml_key_sets_free(sets); /* ours stay */
    assert_int_equal(ml_jwks_count(one), 1);
    ml_jwks_unref(one);
    ml_jwks_unref(two);
    ml_jwks_unref(other);
    ml_entry_unref(a);
    ml_entry_unref(b);
}

static void without_a_place(void **state)
{
    struct ml_entry *a = snapshot(SET), *bad = snapshot("[]");
    struct ml_jwks *one = get(NULL, a), *two = get(NULL, a), *none = NULL;
    struct ml_err err;
    assert_ptr_not_equal(one, two);
    assert_int_equal(ml_key_sets_get(NULL, bad, &none, &err), ML_E_INVALID);
    ml_jwks_unref(one);
    ml_jwks_unref(two);
    ml_entry_unref(a);
    ml_entry_unref(bad);
}

static void errors_are_kept(void **state)
{
    struct ml_key_sets *sets = ml_key_sets_new();
    struct ml_entry *bad = snapshot("{\"keys\":5}");
    for (int i = 0; i < 2; i++) {
        struct ml_jwks *set = NULL;
        struct ml_err err;
        assert_int_equal(ml_key_sets_get(sets, bad, &set, &err), ML_E_INVALID);
        assert_string_equal(err.text, "no JWK Set: it must be an object with a list of keys");
        assert_null(set);
    }
    ml_entry_unref(bad);
    ml_key_sets_free(sets);
}

/* The one that was used longest ago makes room. */
static void bounded(void **state)
{
    struct ml_key_sets *sets = ml_key_sets_new();
    struct ml_entry *entries[ML_KEY_SETS_MAX + 1];
    struct ml_jwks *first[ML_KEY_SETS_MAX + 1], *again;
    for (int i = 0; i <= ML_KEY_SETS_MAX; i++) {
        if (i == ML_KEY_SETS_MAX)
            ml_jwks_unref(get(sets, entries[0])); /* then 1 is the oldest */
        entries[i] = snapshot(SET);
        first[i] = get(sets, entries[i]);
    }
    again = get(sets, entries[0]);
    assert_ptr_equal(again, first[0]);
    ml_jwks_unref(again);
    again = get(sets, entries[2]);
    assert_ptr_equal(again, first[2]);
    ml_jwks_unref(again);
    again = get(sets, entries[1]);
    assert_ptr_not_equal(again, first[1]);
    ml_jwks_unref(again);
    for (int i = 0; i <= ML_KEY_SETS_MAX; i++) {
        ml_jwks_unref(first[i]);
        ml_entry_unref(entries[i]);
    }
    ml_key_sets_free(sets);
}

struct crowd {
    struct ml_key_sets *sets;
    struct ml_entry *entries[80]; /* more than there are places */
};

static void *get_often(void *arg)
{
    struct crowd *c = arg;
    bool ok = true;
    for (int i = 0; ok && i < 400; i++) {
        struct ml_jwks *set = NULL;
        struct ml_err err;
        ok = ml_key_sets_get(c->sets, c->entries[i * 7 % 80], &set, &err) == 0 &&
             ml_jwks_count(set) == 1;
        ml_jwks_unref(set);
    }
    return ok ? arg : NULL;
}

static void threads(void **state)
{
    struct crowd c = {.sets = ml_key_sets_new()};
    pthread_t t[4];
    for (int i = 0; i < 80; i++)
        c.entries[i] = snapshot(SET);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, get_often, &c), 0);
    for (int i = 0; i < 4; i++) {
        void *ok;
        pthread_join(t[i], &ok);
        assert_ptr_equal(ok, &c);
    }
    for (int i = 0; i < 80; i++)
        ml_entry_unref(c.entries[i]);
    ml_key_sets_free(c.sets);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parsed_once),     cmocka_unit_test(without_a_place),
        cmocka_unit_test(errors_are_kept), cmocka_unit_test(bounded),
        cmocka_unit_test(threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
