/* Sealing: what opens, what does not, and the lists of keys. */
#include "base/clock.h"
#include "codec/text.h"
#include "crypto/seal.h"

#include <openssl/err.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define HEX_KEY "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F"
#define BASE64_KEY "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
#define URL_KEY "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
#define TEXT_KEY "correct horse battery staple and one more"
#define NOW INT64_C(1700000000000)

static const struct ml_str login = {"login", 5};
static const struct ml_str nothing = {"", 0};

static struct ml_seal_keys *keys_of(const char *list)
{
    struct ml_seal_keys *k = NULL;
    struct ml_err err;
    if (ml_seal_keys_new(&k, ml_str_z(list), &err) != 0)
        fail_msg("%s", err.text);
    return k;
}

static struct ml_buf sealed_by(const char *list, struct ml_str purpose, struct ml_str bound,
                               int64_t expires, struct ml_str plain)
{
    struct ml_seal_keys *k = keys_of(list);
    struct ml_buf out;
    ml_buf_init(&out, 2 << 20);
    assert_true(ml_seal(k, purpose, bound, expires, plain, &out));
    ml_seal_keys_free(k);
    return out;
}

static enum ml_unsealed opened(const char *list, struct ml_str purpose, struct ml_str bound,
                               int64_t now, struct ml_str sealed, struct ml_buf *out)
{
    struct ml_seal_keys *k = keys_of(list);
    enum ml_unsealed r = ml_unseal(k, purpose, bound, now, sealed, out);
    ml_seal_keys_free(k);
    return r;
}

static enum ml_unsealed outcome(const char *list, struct ml_str purpose, struct ml_str bound,
                                int64_t now, const struct ml_buf *sealed)
{
    struct ml_buf out;
    ml_buf_init(&out, 2 << 20);
    enum ml_unsealed r = opened(list, purpose, bound, now, ml_buf_str(sealed), &out);
    assert_true(r == ML_UNSEALED || out.n == 0);
    ml_buf_done(&out);
    return r;
}

static void comes_back(void **state)
{
    static char large[ML_SEAL_PLAIN_MAX];
    const struct ml_str texts[] = {nothing, ML_STR("a"), ML_STR("a\0b"),
                                   ml_str(large, sizeof large)};
    for (size_t i = 0; i < 4; i++) {
        struct ml_buf out, sealed = sealed_by(HEX_KEY, login, ML_STR("r1"), NOW + 1, texts[i]);
        assert_int_equal(sealed.n, texts[i].n + ML_SEAL_OVERHEAD);
        ml_buf_init(&out, 2 << 20);
        ml_buf_add(&out, "x", 1); /* appended, not replaced */
        assert_int_equal(opened(HEX_KEY, login, ML_STR("r1"), NOW, ml_buf_str(&sealed), &out),
                         ML_UNSEALED);
        assert_true(out.p[0] == 'x' && ml_str_eq(ml_str(out.p + 1, out.n - 1), texts[i]));
        ml_buf_done(&out);
        ml_buf_done(&sealed);
    }
}

static void belongs_to_purpose_and_bound(void **state)
{
    struct ml_buf s = sealed_by(HEX_KEY, login, ML_STR("r1"), 0, ML_STR("text"));
    assert_int_equal(outcome(HEX_KEY, login, ML_STR("r1"), NOW, &s), ML_UNSEALED);
    const struct ml_str purposes[] = {ML_STR("state"), ML_STR("logi"), ML_STR("login1"), nothing};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(outcome(HEX_KEY, purposes[i], ML_STR("r1"), NOW, &s), ML_UNSEAL_REFUSED);
    const struct ml_str bounds[] = {nothing, ML_STR("r"), ML_STR("r2"), ML_STR("r11")};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(outcome(HEX_KEY, login, bounds[i], NOW, &s), ML_UNSEAL_REFUSED);
    ml_buf_done(&s);
}

static void expires(void **state)
{
    struct ml_buf s = sealed_by(HEX_KEY, login, nothing, NOW, ML_STR("text"));
    assert_int_equal(outcome(HEX_KEY, login, nothing, NOW - 1, &s), ML_UNSEALED);
    assert_int_equal(outcome(HEX_KEY, login, nothing, NOW, &s), ML_UNSEAL_EXPIRED);
    /* Expired, but not ours: that comes first. */
    assert_int_equal(outcome(HEX_KEY, ML_STR("state"), nothing, NOW, &s), ML_UNSEAL_REFUSED);
    ml_buf_done(&s);
    s = sealed_by(HEX_KEY, login, nothing, 0, ML_STR("text"));
    assert_int_equal(outcome(HEX_KEY, login, nothing, INT64_MAX, &s), ML_UNSEALED);
    ml_buf_done(&s);
}

/* S-002, S-064 to S-066: every single bit, every cut, every byte more. */
static void no_change_survives(void **state)
{
    struct ml_seal_keys *k = keys_of(HEX_KEY);
    struct ml_buf s = sealed_by(HEX_KEY, login, ML_STR("r"), NOW + 1, ML_STR("some text")), out;
    struct ml_str sealed = ml_buf_str(&s);
    ml_buf_init(&out, 4096);
    assert_int_equal(ml_unseal(k, login, ML_STR("r"), NOW, sealed, &out), ML_UNSEALED);
    ml_buf_clear(&out);
    for (size_t bit = 0; bit < 8 * s.n; bit++) {
        s.p[bit / 8] ^= (char)(1 << bit % 8);
        assert_int_equal(ml_unseal(k, login, ML_STR("r"), NOW, sealed, &out), ML_UNSEAL_REFUSED);
        s.p[bit / 8] ^= (char)(1 << bit % 8);
    }
    for (size_t n = 0; n < s.n; n++)
        assert_int_equal(ml_unseal(k, login, ML_STR("r"), NOW, ml_str(s.p, n), &out),
                         ML_UNSEAL_REFUSED);
    ml_buf_add(&s, "", 1);
    assert_int_equal(ml_unseal(k, login, ML_STR("r"), NOW, ml_buf_str(&s), &out),
                     ML_UNSEAL_REFUSED);
    assert_int_equal(out.n, 0);
    assert_int_equal(ERR_peek_error(), 0); /* nobody else on this thread takes it for his */
    ml_buf_done(&out);
    ml_buf_done(&s);
    ml_seal_keys_free(k);
}

/* S-065: bytes moved between the plain text's neighbours. */
static void fields_do_not_shift(void **state)
{
    struct ml_buf s = sealed_by(HEX_KEY, ML_STR("ab"), ML_STR("cd"), 0, ML_STR("text"));
    assert_int_equal(outcome(HEX_KEY, ML_STR("abc"), ML_STR("d"), NOW, &s), ML_UNSEAL_REFUSED);
    assert_int_equal(outcome(HEX_KEY, ML_STR("a"), ML_STR("bcd"), NOW, &s), ML_UNSEAL_REFUSED);
    assert_int_equal(outcome(HEX_KEY, ML_STR("ab"), ML_STR("cd"), NOW, &s), ML_UNSEALED);
    ml_buf_done(&s);
}

static void nonces_differ(void **state)
{
    enum { N = 2000 };
    static char seen[N][12];
    struct ml_seal_keys *k = keys_of(HEX_KEY);
    struct ml_buf out;
    ml_buf_init(&out, 4096);
    for (int i = 0; i < N; i++) {
        ml_buf_clear(&out);
        assert_true(ml_seal(k, login, nothing, 0, ML_STR("same"), &out));
        memcpy(seen[i], out.p + 13, 12);
        for (int j = 0; j < i; j++)
            assert_memory_not_equal(seen[i], seen[j], 12);
    }
    ml_buf_done(&out);
    ml_seal_keys_free(k);
}

static void keys_rotate(void **state)
{
    struct ml_buf s = sealed_by(TEXT_KEY, login, nothing, 0, ML_STR("text"));
    assert_int_equal(outcome(HEX_KEY, login, nothing, NOW, &s), ML_UNSEAL_REFUSED);
    assert_int_equal(outcome(HEX_KEY " ,\t" TEXT_KEY "\n", login, nothing, NOW, &s), ML_UNSEALED);
    ml_buf_done(&s);
    s = sealed_by(HEX_KEY "," TEXT_KEY, login, nothing, 0, ML_STR("text"));
    assert_int_equal(outcome(HEX_KEY, login, nothing, NOW, &s), ML_UNSEALED);
    assert_int_equal(outcome(TEXT_KEY, login, nothing, NOW, &s), ML_UNSEAL_REFUSED);
    ml_buf_done(&s);
}

static void spellings_of_one_key(void **state)
{
    const char *const spellings[] = {HEX_KEY, BASE64_KEY, URL_KEY, " \t" HEX_KEY "\r\n"};
    struct ml_buf s = sealed_by(HEX_KEY, login, nothing, 0, ML_STR("text"));
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(outcome(spellings[i], login, nothing, NOW, &s), ML_UNSEALED);
    ml_buf_done(&s);
}

/* S-022: refused with the place of what is wrong, and without the key. */
static void bad_lists(void **state)
{
    static const struct {
        const char *list, *why;
    } cases[] = {
        {"", "key 1 is empty"},
        {" \t\n", "key 1 is empty"},
        {HEX_KEY ",", "key 2 is empty"},
        {"," HEX_KEY, "key 1 is empty"},
        {HEX_KEY ",hunter2-hunter2", "key 2 has 15 characters; it must be 32 bytes as hex or "
                                     "base64, or a text of at least 32 characters"},
        {"0123456789abcdef0123456789abcde",
         "key 1 has 31 characters; it must be 32 bytes as hex or "
         "base64, or a text of at least 32 characters"},
        {"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "key 1 repeats a few characters only"},
        {"0000000000000000000000000000000000000000000000000000000000000000",
         "key 1 repeats a few characters only"},
        {HEX_KEY "," TEXT_KEY "," BASE64_KEY, "key 3 is the same as key 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ml_seal_keys *k = NULL;
        struct ml_err err;
        assert_int_equal(ml_seal_keys_new(&k, ml_str_z(cases[i].list), &err), ML_E_INVALID);
        assert_string_equal(err.text, cases[i].why);
        assert_null(k);
    }
}

static void as_many_keys_as_allowed(void **state)
{
    struct ml_buf list;
    struct ml_err err;
    struct ml_seal_keys *k = NULL;
    char key[44];
    ml_buf_init(&list, 4096);
    for (int i = 0; i < ML_SEAL_KEYS_MAX; i++) {
        assert_true(ml_seal_key_make(key));
        ml_buf_printf(&list, "%s%s", i ? "," : "", key);
    }
    assert_int_equal(ml_seal_keys_new(&k, ml_buf_str(&list), &err), 0);
    ml_seal_keys_free(k);
    ml_buf_add_str(&list, ML_STR("," HEX_KEY));
    assert_int_equal(ml_seal_keys_new(&k, ml_buf_str(&list), &err), ML_E_INVALID);
    assert_string_equal(err.text, "more than 8 keys");
    ml_buf_done(&list);
}

static void bounds(void **state)
{
    struct ml_seal_keys *k = keys_of(HEX_KEY);
    struct ml_buf out;
    char *large = calloc(1, ML_SEAL_PLAIN_MAX + ML_SEAL_OVERHEAD + 1);
    char label[65] = "";
    memset(label, 'p', sizeof label);
    ml_buf_init(&out, 2 << 20);
    assert_false(ml_seal(k, login, nothing, 0, ml_str(large, ML_SEAL_PLAIN_MAX + 1), &out));
    assert_false(ml_seal(k, ml_str(label, 65), nothing, 0, nothing, &out));
    assert_true(ml_seal(k, ml_str(label, 64), nothing, 0, nothing, &out));
    ml_buf_clear(&out);
    large[0] = 1;
    assert_int_equal(ml_unseal(k, login, nothing, NOW,
                               ml_str(large, ML_SEAL_PLAIN_MAX + ML_SEAL_OVERHEAD + 1), &out),
                     ML_UNSEAL_REFUSED);
    assert_true(out.n == 0 && !out.failed);
    ml_buf_done(&out);
    ml_buf_init(&out, ML_SEAL_OVERHEAD + 3); /* no room: refused, and nothing half written */
    assert_false(ml_seal(k, login, nothing, 0, ML_STR("text"), &out));
    assert_int_equal(out.n, 0);
    ml_buf_clear(&out);
    assert_true(ml_seal(k, login, nothing, 0, ML_STR("tex"), &out));
    struct ml_buf small;
    ml_buf_init(&small, 2);
    assert_int_equal(ml_unseal(k, login, nothing, NOW, ml_buf_str(&out), &small),
                     ML_UNSEAL_REFUSED);
    assert_int_equal(small.n, 0);
    ml_buf_done(&small);
    ml_buf_init(&small, 3); /* just enough */
    assert_int_equal(ml_unseal(k, login, nothing, NOW, ml_buf_str(&out), &small), ML_UNSEALED);
    ml_buf_done(&small);
    ml_buf_done(&out);
    ml_seal_keys_free(k);
    free(large);
}

static void *seal_often(void *arg)
{
    struct ml_buf sealed, out;
    ml_buf_init(&sealed, 4096);
    ml_buf_init(&out, 4096);
    bool ok = true;
    for (int i = 0; ok && i < 2000; i++) {
        ml_buf_clear(&sealed);
        ml_buf_clear(&out);
        ok = ml_seal(arg, login, nothing, NOW + 1, ML_STR("text"), &sealed) &&
             ml_unseal(arg, login, nothing, NOW, ml_buf_str(&sealed), &out) == ML_UNSEALED &&
             ml_str_eq(ml_buf_str(&out), ML_STR("text"));
    }
    ml_buf_done(&sealed);
    ml_buf_done(&out);
    return ok ? arg : NULL;
}

static void threads(void **state)
{
    struct ml_seal_keys *k = keys_of(HEX_KEY);
    pthread_t t[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, seal_often, k), 0);
    for (int i = 0; i < 4; i++) {
        void *ok;
        pthread_join(t[i], &ok);
        assert_ptr_equal(ok, k);
    }
    ml_seal_keys_free(k);
}

/* ML_TIMES=1 prints what a record costs; the bound is loose. */
static void cost(void **state)
{
    enum { ROUNDS = 20000 };
    static const char record[600];
    struct ml_seal_keys *k = keys_of(HEX_KEY);
    struct ml_buf sealed, out;
    ml_buf_init(&sealed, 4096);
    ml_buf_init(&out, 4096);
    uint64_t from = ml_thread_cpu_ns();
    for (int i = 0; i < ROUNDS; i++) {
        ml_buf_clear(&sealed);
        assert_true(ml_seal(k, login, nothing, NOW + 1, ml_str(record, sizeof record), &sealed));
    }
    uint64_t middle = ml_thread_cpu_ns();
    for (int i = 0; i < ROUNDS; i++) {
        ml_buf_clear(&out);
        assert_int_equal(ml_unseal(k, login, nothing, NOW, ml_buf_str(&sealed), &out), ML_UNSEALED);
    }
    int seal_ns = (int)((middle - from) / ROUNDS);
    int unseal_ns = (int)((ml_thread_cpu_ns() - middle) / ROUNDS);
    if (getenv("ML_TIMES"))
        print_message("record of 600 bytes: seal %d ns, unseal %d ns\n", seal_ns, unseal_ns);
    assert_true(seal_ns < 200000 && unseal_ns < 200000);
    ml_buf_done(&sealed);
    ml_buf_done(&out);
    ml_seal_keys_free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back),
        cmocka_unit_test(belongs_to_purpose_and_bound),
        cmocka_unit_test(expires),
        cmocka_unit_test(no_change_survives),
        cmocka_unit_test(fields_do_not_shift),
        cmocka_unit_test(nonces_differ),
        cmocka_unit_test(keys_rotate),
        cmocka_unit_test(spellings_of_one_key),
        cmocka_unit_test(bad_lists),
        cmocka_unit_test(as_many_keys_as_allowed),
        cmocka_unit_test(bounds),
        cmocka_unit_test(threads),
        cmocka_unit_test(cost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
