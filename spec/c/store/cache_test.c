/* The cache: life, bounds, what a flood may and may not do, and many threads at once. */
#include "base/clock.h"
#include "store/cache.h"

#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const int64_t minute = 60000;

/* Spread like a hash's output. */
static struct ml_digest key_of(uint64_t n)
{
    struct ml_digest key;
    uint64_t x = n + UINT64_C(0x9e3779b97f4a7c15);
    for (size_t i = 0; i < sizeof key.b; i += 8) {
        x ^= x >> 30;
        x *= UINT64_C(0xbf58476d1ce4e5b9);
        x ^= x >> 27;
        x *= UINT64_C(0x94d049bb133111eb);
        x ^= x >> 31;
        memcpy(key.b + i, &x, 8);
        x += n;
    }
    return key;
}

static void put(struct ml_cache *c, uint64_t n, const char *text, enum ml_entry_kind kind,
                int64_t ms)
{
    struct ml_digest key = key_of(n);
    struct ml_entry *e = ml_entry_new(kind, ml_str_z(text), ml_wall_ms() + ms);
    assert_non_null(e);
    ml_cache_put(c, &key, e);
    ml_entry_unref(e);
}

static bool has(struct ml_cache *c, uint64_t n)
{
    struct ml_digest key = key_of(n);
    struct ml_entry *e = ml_cache_get(c, &key);
    ml_entry_unref(e);
    return e != NULL;
}

static void put_get_replace_remove(void **state)
{
    struct ml_cache *c = ml_cache_new(1 << 20);
    struct ml_digest key = key_of(1);
    assert_null(ml_cache_get(c, &key));
    put(c, 1, "{\"a\":1}", ML_ENTRY_CLAIMS, minute);
    struct ml_entry *first = ml_cache_get(c, &key);
    assert_string_equal(first->bytes, "{\"a\":1}");
    assert_int_equal(first->n, 7);
    assert_int_equal(first->kind, ML_ENTRY_CLAIMS);
    put(c, 1, "no", ML_ENTRY_REFUSAL, minute);
    struct ml_entry *second = ml_cache_get(c, &key);
    assert_string_equal(second->bytes, "no");
    assert_int_equal(second->kind, ML_ENTRY_REFUSAL);
    assert_int_not_equal(first->id, second->id);
    assert_int_equal(ml_cache_stats(c).entries, 1);
    ml_cache_remove(c, &key);
    assert_null(ml_cache_get(c, &key));
    assert_string_equal(first->bytes, "{\"a\":1}"); /* a holder keeps it */
    ml_entry_unref(first);
    ml_entry_unref(second);
    assert_int_equal(ml_cache_stats(c).entries, 0);
    assert_int_equal(ml_cache_stats(c).hits, 2);
    assert_int_equal(ml_cache_stats(c).misses, 2);
    ml_cache_free(c);
}

/* A key that differs in its last byte only is another key (S-041, S-043). */
static void keys_are_compared_in_full(void **state)
{
    struct ml_cache *c = ml_cache_new(1 << 20);
    struct ml_digest key = key_of(1);
    put(c, 1, "{}", ML_ENTRY_CLAIMS, minute);
    for (size_t i = 0; i < sizeof key.b; i++) {
        struct ml_digest other = key;
        other.b[i] ^= 1;
        assert_null(ml_cache_get(c, &other));
    }
    ml_cache_free(c);
}

/* S-045 */
static void expires(void **state)
{
    struct ml_cache *c = ml_cache_new(1 << 20);
    put(c, 1, "{}", ML_ENTRY_CLAIMS, 1000);
    put(c, 2, "{}", ML_ENTRY_CLAIMS, 0); /* dead already */
    put(c, 3, "{}", ML_ENTRY_CLAIMS, -5);
    assert_true(has(c, 1));
    assert_false(has(c, 2));
    assert_false(has(c, 3));
    ml_clock_advance(900);
    assert_true(has(c, 1));
    ml_clock_advance(101);
    assert_false(has(c, 1));
    assert_int_equal(ml_cache_stats(c).entries, 0);
    assert_int_equal(ml_cache_stats(c).expired, 1);
    ml_cache_free(c);
}

/* A dead or oversized answer must not leave the older one in place. */
static void what_is_not_kept_still_replaces(void **state)
{
    struct ml_cache *c = ml_cache_new(1 << 20);
    char *big = calloc(1, (1 << 14) + 1);
    memset(big, 'x', 1 << 14);
    put(c, 1, "{}", ML_ENTRY_CLAIMS, minute);
    put(c, 1, "{}", ML_ENTRY_CLAIMS, -1);
    assert_false(has(c, 1));
    put(c, 1, "{}", ML_ENTRY_CLAIMS, minute);
    put(c, 1, big, ML_ENTRY_CLAIMS, minute);
    assert_false(has(c, 1));
    big[(1 << 14) - 200] = '\0';
    put(c, 1, big, ML_ENTRY_CLAIMS, minute);
    assert_true(has(c, 1));
    free(big);
    ml_cache_free(c);
}

static void puts_sweep_the_expired(void **state)
{
    struct ml_cache *c = ml_cache_new(64 << 20);
    for (uint64_t n = 0; n < 10000; n++)
        put(c, n, "{}", ML_ENTRY_CLAIMS, 1000);
    ml_clock_advance(1001);
    for (uint64_t n = 0; n < 10000; n++)
        put(c, 1000000 + n, "{}", ML_ENTRY_CLAIMS, minute);
    assert_int_equal(ml_cache_stats(c).entries, 10000);
    assert_int_equal(ml_cache_stats(c).expired, 10000);
    ml_cache_free(c);
}

/* S-047: 100 users in use, a flood of random tokens beside them, each asked for so often. */
static void flood(enum ml_entry_kind kind, int asks, size_t length)
{
    const size_t max = 4 << 20;
    struct ml_cache *c = ml_cache_new(max);
    char text[1024] = "";
    memset(text, 'c', length);
    for (uint64_t n = 0; n < 100; n++)
        put(c, n, text, ML_ENTRY_CLAIMS, 60 * minute);
    size_t hits = 0, tries = 0;
    for (uint64_t n = 0; n < 100000; n++) {
        put(c, 1000 + n, text, kind, 60 * minute);
        for (int i = 0; i < asks; i++)
            has(c, 1000 + n);
        if (n % 3 == 0) { /* each user once in 300 flood tokens */
            tries++;
            hits += has(c, n / 3 % 100);
        }
        assert_true(n % 1000 != 0 || ml_cache_stats(c).bytes <= max);
    }
    if (hits < tries)
        print_message("%zu hits of %zu\n", hits, tries);
    assert_true(hits * 1000 >= tries * 999);
    assert_true(ml_cache_stats(c).evictions > 80000);
    ml_cache_free(c);
}

static void flood_of_claims(void **state)
{
    flood(ML_ENTRY_CLAIMS, 0, 300);
}

/* Each of them looks like a user, once. */
static void flood_of_claims_asked_again(void **state)
{
    for (size_t length = 250; length < 600; length += 50)
        flood(ML_ENTRY_CLAIMS, 2, length);
}

static void flood_of_refusals(void **state)
{
    flood(ML_ENTRY_REFUSAL, 3, 300);
}

/* Refusals never push claims out, even claims that nobody asked for since. */
static void refusals_compete_with_refusals(void **state)
{
    struct ml_cache *c = ml_cache_new(4 << 20);
    for (uint64_t n = 0; n < 5000; n++)
        put(c, n, "{\"sub\":\"somebody\"}", ML_ENTRY_CLAIMS, 60 * minute);
    for (uint64_t n = 0; n < 100000; n++)
        put(c, 100000 + n, "invalid", ML_ENTRY_REFUSAL, 60 * minute);
    size_t left = 0;
    for (uint64_t n = 0; n < 5000; n++)
        left += has(c, n);
    assert_int_equal(left, 5000);
    ml_cache_free(c);
}

/* The bar: 600 bytes and the claims for each of 100 000 tokens, measured at the heap. */
static void costs_little(void **state)
{
    struct ml_cache *c = ml_cache_new(256 << 20);
    char claims[513];
    memset(claims, 'c', 512);
    claims[512] = '\0';
    struct mallinfo2 before = mallinfo2();
    for (uint64_t n = 0; n < 100000; n++)
        put(c, n, claims, ML_ENTRY_CLAIMS, 60 * minute);
    struct mallinfo2 after = mallinfo2();
    struct ml_cache_stats s = ml_cache_stats(c);
    double each = (double)s.bytes / 100000 - 512;
    double heap = (double)(after.uordblks - before.uordblks) / 100000 - 512; /* ASan has its own */
    print_message("per token: %.0f bytes by our count, %.0f by malloc's\n", each, heap);
    assert_int_equal(s.entries, 100000);
    assert_true(each < 300);
    assert_true(heap < 300);
    ml_cache_free(c);
}

static void tiny_caches_work(void **state)
{
    for (size_t max = 0; max < 40000; max += 1000) {
        struct ml_cache *c = ml_cache_new(max);
        for (uint64_t n = 0; n < 200; n++)
            put(c, n, "{}", ML_ENTRY_CLAIMS, minute);
        ml_cache_free(c);
    }
}

static void expiry_is_jittered_and_bounded(void **state)
{
    const int64_t now = INT64_C(1700000000000);
    int64_t least = INT64_MAX, most = 0;
    for (int i = 0; i < 2000; i++) {
        int64_t at = ml_cache_expiry(now, 60000, 0) - now;
        least = at < least ? at : least;
        most = at > most ? at : most;
    }
    assert_in_range(least, 54000, 54500);
    assert_in_range(most, 59500, 60000);
    for (int i = 0; i < 100; i++) {
        assert_in_range(ml_cache_expiry(now, 300000, now + 2000), now + 1800, now + 2000);
        assert_in_range(ml_cache_expiry(now, 5, 0), now + 5, now + 5);
    }
    assert_int_equal(ml_cache_expiry(now, 0, 0), now);
    assert_int_equal(ml_cache_expiry(now, -1, 0), now);
    assert_int_equal(ml_cache_expiry(now, 60000, now - 1), now);
    assert_int_equal(ml_cache_expiry(now, 60000, -1), now);
    assert_true(ml_cache_expiry(now, INT64_MAX, 0) > now);
    assert_true(ml_cache_expiry(now, INT64_MAX, INT64_MAX) > now);
}

struct job {
    struct ml_cache *cache;
    uint64_t seed;
    int mixups;
};

/* Each entry says its key: whoever gets another one's has seen a mix-up. */
static void *hammer(void *arg)
{
    struct job *j = arg;
    uint64_t x = j->seed;
    char text[32];
    for (int i = 0; i < 40000; i++) {
        x = x * UINT64_C(6364136223846793005) + 1442695040888963407U;
        uint64_t n = (x >> 33) % 2000;
        struct ml_digest key = key_of(n);
        snprintf(text, sizeof text, "%llu", (unsigned long long)n);
        if (x >> 62 == 0) {
            struct ml_entry *e =
                ml_entry_new(n % 3 ? ML_ENTRY_CLAIMS : ML_ENTRY_REFUSAL, ml_str_z(text),
                             ml_wall_ms() + (int64_t)(x >> 40) % 50);
            ml_cache_put(j->cache, &key, e);
            ml_entry_unref(e);
        } else if (i % 97 == 0) {
            ml_cache_remove(j->cache, &key);
            ml_cache_stats(j->cache);
        } else {
            struct ml_entry *e = ml_cache_get(j->cache, &key);
            j->mixups += e && strcmp(e->bytes, text) != 0;
            ml_entry_unref(e);
        }
    }
    return NULL;
}

static void many_threads(void **state)
{
    struct ml_cache *c = ml_cache_new(200000); /* evicts all the time */
    pthread_t threads[6];
    struct job jobs[6];
    for (size_t i = 0; i < 6; i++) {
        jobs[i] = (struct job){c, i + 1, 0};
        pthread_create(&threads[i], NULL, hammer, &jobs[i]);
    }
    for (size_t i = 0; i < 6; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(jobs[i].mixups, 0);
    }
    assert_true(ml_cache_stats(c).hits > 0);
    assert_true(ml_cache_stats(c).bytes <= 200000);
    ml_cache_free(c);
}

static bool holds(void *ctx, const struct ml_entry *e)
{
    return memmem(e->bytes, e->n, ctx, strlen(ctx)) != NULL;
}

static void purge_removes_what_matches(void **state)
{
    struct ml_cache *c = ml_cache_new(1 << 20);
    char text[32];
    for (uint64_t i = 0; i < 200; i++) {
        snprintf(text, sizeof text, "{\"u\":\"%s\"}", i % 4 ? "bob" : "alice");
        put(c, i, text, ML_ENTRY_CLAIMS, minute);
    }
    char wanted[] = "\"alice\"";
    assert_int_equal(ml_cache_purge(c, holds, wanted), 50);
    for (uint64_t i = 0; i < 200; i++)
        assert_int_equal(has(c, i), i % 4 != 0);
    assert_int_equal(ml_cache_stats(c).entries, 150);
    ml_cache_free(c);
}

static void put_since_a_purge_is_none(void **state)
{
    struct ml_cache *c = ml_cache_new(1 << 20);
    struct ml_digest key = key_of(1);
    struct ml_entry *e = ml_entry_new(ML_ENTRY_CLAIMS, ML_STR("{}"), ml_wall_ms() + minute);
    char wanted[] = "nobody";
    uint64_t before = ml_cache_purges(c);
    ml_cache_purge(c, holds, wanted);
    ml_cache_put_since(c, &key, e, before);
    assert_false(has(c, 1));
    ml_cache_put_since(c, &key, e, ml_cache_purges(c));
    assert_true(has(c, 1));
    ml_entry_unref(e);
    ml_cache_free(c);
    assert_true(ml_cache_tag(ML_STR("a")) != ml_cache_tag(ML_STR("b")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(purge_removes_what_matches),
        cmocka_unit_test(put_since_a_purge_is_none),
        cmocka_unit_test(put_get_replace_remove),
        cmocka_unit_test(keys_are_compared_in_full),
        cmocka_unit_test(expires),
        cmocka_unit_test(what_is_not_kept_still_replaces),
        cmocka_unit_test(puts_sweep_the_expired),
        cmocka_unit_test(flood_of_claims),
        cmocka_unit_test(flood_of_claims_asked_again),
        cmocka_unit_test(flood_of_refusals),
        cmocka_unit_test(refusals_compete_with_refusals),
        cmocka_unit_test(costs_little),
        cmocka_unit_test(tiny_caches_work),
        cmocka_unit_test(expiry_is_jittered_and_bounded),
        cmocka_unit_test(many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
