/* SHA-256 by the vectors of FIPS 180-4, and the keyed hash of cache keys. */
#include "base/clock.h"
#include "crypto/digest.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static const uint8_t secret[32] = "0123456789abcdef0123456789abcdef";

static void sha256(void **state)
{
    static const char *const pairs[][2] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    char hex[65];
    struct ml_digest d;
    for (size_t i = 0; i < 3; i++) {
        assert_true(ml_sha256(ml_str_z(pairs[i][0]), &d));
        ml_digest_hex(&d, hex);
        assert_string_equal(hex, pairs[i][1]);
    }
    assert_true(ml_sha256((struct ml_str){NULL, 0}, &d));
    ml_digest_hex(&d, hex);
    assert_string_equal(hex, pairs[0][1]);
}

static struct ml_digest keyed(const struct ml_str *parts, size_t count)
{
    struct ml_digest d;
    assert_true(ml_keyed_hash(secret, parts, count, &d));
    return d;
}

/* The format is fixed: secret, then for each part its length (8 bytes, little-endian) and its
 * bytes. */
static void keyed_hash_input(void **state)
{
    char input[32 + 8 + 2 + 8] = {0};
    struct ml_str parts[2] = {ML_STR("ab"), ML_STR("")};
    struct ml_digest want, got = keyed(parts, 2);
    memcpy(input, secret, 32);
    input[32] = 2;
    memcpy(input + 40, "ab", 2);
    assert_true(ml_sha256(ml_str(input, sizeof input), &want));
    assert_memory_equal(&want, &got, sizeof want);
}

/* Around the size of the piece that is hashed at once, and past it. */
static void keyed_hash_of_any_length(void **state)
{
    char input[32 + 8 + 300 + 8 + 300], part[300];
    memcpy(input, secret, 32);
    for (size_t i = 0; i < sizeof part; i++)
        part[i] = (char)(i * 7 + 1);
    for (size_t n = 0; n <= sizeof part; n++) {
        size_t m = sizeof part - n, at = 32;
        struct ml_str parts[2] = {ml_str(part, n), ml_str(part, m)};
        struct ml_digest want, got = keyed(parts, 2);
        for (size_t k = 0; k < 2; at += parts[k++].n) {
            for (int shift = 0; shift < 64; shift += 8)
                input[at++] = (char)((uint64_t)parts[k].n >> shift);
            memcpy(input + at, part, parts[k].n);
        }
        assert_true(ml_sha256(ml_str(input, at), &want));
        assert_memory_equal(&want, &got, sizeof want);
    }
}

static void no_two_lists_collide(void **state)
{
    static const struct {
        struct ml_str parts[3];
        size_t count;
    } lists[] = {
        {{{NULL, 0}}, 0},
        {{ML_STR("")}, 1},
        {{ML_STR(""), ML_STR("")}, 2},
        {{ML_STR("ab"), ML_STR("c")}, 2},
        {{ML_STR("a"), ML_STR("bc")}, 2},
        {{ML_STR("abc")}, 1},
        {{ML_STR("abc"), ML_STR("")}, 2},
        {{ML_STR(""), ML_STR("abc")}, 2},
        {{ML_STR("a"), ML_STR("b"), ML_STR("c")}, 3},
        {{ML_STR("a\0\0\0\0\0\0\0b")}, 1},
        {{ML_STR("\1\0\0\0\0\0\0\0a")}, 1},
        {{ML_STR("ABC")}, 1},
    };
    enum { N = sizeof lists / sizeof lists[0] };
    struct ml_digest seen[N];
    for (size_t i = 0; i < N; i++) {
        seen[i] = keyed(lists[i].parts, lists[i].count);
        for (size_t j = 0; j < i; j++)
            if (memcmp(&seen[i], &seen[j], sizeof seen[i]) == 0)
                fail_msg("lists %zu and %zu", i, j);
    }
    uint8_t other[32] = {0};
    struct ml_digest d;
    assert_true(ml_keyed_hash(other, lists[3].parts, 2, &d));
    assert_memory_not_equal(&d, &seen[3], sizeof d);
}

static void *hash_often(void *arg)
{
    struct ml_str parts[2] = {ML_STR("opaque"), ml_str_z(arg)};
    struct ml_digest first, d;
    bool ok = ml_keyed_hash(secret, parts, 2, &first);
    for (int i = 0; ok && i < 5000; i++)
        ok = ml_keyed_hash(secret, parts, 2, &d) && memcmp(&d, &first, sizeof d) == 0;
    return ok ? arg : NULL;
}

/* Contexts are a thread's own, and go with it (the leak checker sees those that do not). */
static void threads(void **state)
{
    pthread_t t[4];
    char names[4][2] = {"a", "b", "c", "d"};
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, hash_often, names[i]), 0);
    for (int i = 0; i < 4; i++) {
        void *ok;
        pthread_join(t[i], &ok);
        assert_ptr_equal(ok, names[i]);
    }
}

/* ML_TIMES=1 prints what a key costs; the bound here is loose, for sanitizers and busy machines. */
static void cost(void **state)
{
    enum { ROUNDS = 20000 };
    char token[200];
    memset(token, 'x', sizeof token);
    struct ml_str parts[3] = {ML_STR("opaque:corp"), ML_STR("authorization"), ml_str(token, 200)};
    struct ml_digest d;
    uint64_t from = ml_thread_cpu_ns();
    for (int i = 0; i < ROUNDS; i++)
        assert_true(ml_keyed_hash(secret, parts, 3, &d));
    int ns = (int)((ml_thread_cpu_ns() - from) / ROUNDS);
    if (getenv("ML_TIMES"))
        print_message("keyed hash of a 200 byte credential: %d ns\n", ns);
    assert_true(ns < 50000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256),
        cmocka_unit_test(keyed_hash_input),
        cmocka_unit_test(keyed_hash_of_any_length),
        cmocka_unit_test(no_two_lists_collide),
        cmocka_unit_test(threads),
        cmocka_unit_test(cost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
