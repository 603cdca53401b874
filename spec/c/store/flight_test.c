/* Single flight: roles, bounds, leaving, and thousands of waiters on many threads. */
#include "base/clock.h"
#include "base/mem.h"
#include "store/flight.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

struct guest {
    struct ml_waiter waiter;
    int woken;
    struct ml_entry *entry;
    char failure[32];
};

static void on_wake(struct ml_waiter *w, struct ml_entry *entry, const char *failure)
{
    struct guest *g = ML_CONTAINER(w, struct guest, waiter);
    g->woken++;
    g->entry = entry;
    snprintf(g->failure, sizeof g->failure, "%s", failure ? failure : "");
}

/* Two shards, one bucket: keys differ in their last bytes only. */
static struct ml_digest key_of(unsigned n)
{
    struct ml_digest key = {{(uint8_t)(n & 1)}};
    key.b[30] = (uint8_t)(n >> 8);
    key.b[31] = (uint8_t)n;
    return key;
}

static void all_get_what_the_leader_brings(void **state)
{
    struct ml_flights *f = ml_flights_new(16, 16);
    struct ml_digest key = key_of(1), other = key_of(2);
    struct guest leader = {.waiter.wake = on_wake}, guests[3], stranger = leader;
    assert_int_equal(ml_flight_join(f, &key, &leader.waiter), ML_FLIGHT_LEAD);
    assert_int_equal(ml_flight_join(f, &other, &stranger.waiter), ML_FLIGHT_LEAD);
    for (int i = 0; i < 3; i++) {
        guests[i] = leader;
        assert_int_equal(ml_flight_join(f, &key, &guests[i].waiter), ML_FLIGHT_WAIT);
    }
    assert_int_equal(ml_flights_waiting(f), 3);
    struct ml_entry *e = ml_entry_new(ML_ENTRY_CLAIMS, ML_STR("{}"), ml_wall_ms() + 1000);
    ml_flight_land(f, &key, e, NULL);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(guests[i].woken, 1);
        assert_ptr_equal(guests[i].entry, e);
        assert_false(ml_flight_leave(f, &key, &guests[i].waiter));
        ml_entry_unref(guests[i].entry);
    }
    assert_int_equal(e->refs, 1);
    ml_entry_unref(e);
    assert_int_equal(leader.woken, 0);
    assert_int_equal(ml_flights_waiting(f), 0);
    assert_int_equal(ml_flight_join(f, &key, &leader.waiter), ML_FLIGHT_LEAD); /* over */
    ml_flights_free(f);
}

static void leads_or_not_at_all(void **state)
{
    struct ml_flights *f = ml_flights_new(1, 16);
    struct ml_digest key = key_of(1), other = key_of(2);
    assert_int_equal(ml_flight_join(f, &key, NULL), ML_FLIGHT_LEAD);
    assert_int_equal(ml_flight_join(f, &key, NULL), ML_FLIGHT_WAIT);
    assert_int_equal(ml_flights_waiting(f), 0);
    assert_int_equal(ml_flight_join(f, &other, NULL), ML_FLIGHT_FULL);
    ml_flight_land(f, &key, NULL, NULL);
    assert_int_equal(ml_flight_join(f, &key, NULL), ML_FLIGHT_LEAD);
    ml_flights_free(f);
}

static void failure_and_giving_up(void **state)
{
    struct ml_flights *f = ml_flights_new(16, 16);
    struct ml_digest key = key_of(1);
    struct guest leader = {.waiter.wake = on_wake}, guest = leader;
    assert_int_equal(ml_flight_join(f, &key, &leader.waiter), ML_FLIGHT_LEAD);
    assert_int_equal(ml_flight_join(f, &key, &guest.waiter), ML_FLIGHT_WAIT);
    ml_flight_land(f, &key, NULL, "connection refused");
    assert_null(guest.entry);
    assert_string_equal(guest.failure, "connection refused");
    assert_int_equal(ml_flight_join(f, &key, &leader.waiter), ML_FLIGHT_LEAD);
    assert_int_equal(ml_flight_join(f, &key, &guest.waiter), ML_FLIGHT_WAIT);
    ml_flight_land(f, &key, NULL, NULL);
    assert_int_equal(guest.woken, 2);
    assert_string_equal(guest.failure, "");
    assert_int_equal(ml_flight_join(f, &key, &guest.waiter), ML_FLIGHT_LEAD); /* its turn */
    ml_flight_land(f, &key, NULL, NULL);
    ml_flight_land(f, &key, NULL, NULL); /* nothing there: nothing happens */
    ml_flights_free(f);
}

static void leaving(void **state)
{
    struct ml_flights *f = ml_flights_new(16, 16);
    struct ml_digest key = key_of(1);
    struct guest leader = {.waiter.wake = on_wake}, guests[3];
    assert_int_equal(ml_flight_join(f, &key, &leader.waiter), ML_FLIGHT_LEAD);
    for (int i = 0; i < 3; i++) {
        guests[i] = leader;
        ml_flight_join(f, &key, &guests[i].waiter);
    }
    for (int i = 1; i >= 0; i--) { /* from the middle, then from an end */
        assert_true(ml_flight_leave(f, &key, &guests[i].waiter));
        assert_false(ml_flight_leave(f, &key, &guests[i].waiter));
    }
    assert_false(ml_flight_leave(f, &key, &leader.waiter));
    ml_flight_land(f, &key, NULL, "x");
    assert_int_equal(guests[0].woken + guests[1].woken, 0);
    assert_int_equal(guests[2].woken, 1);
    ml_flights_free(f);
}

static void bounds(void **state)
{
    struct ml_flights *f = ml_flights_new(2, 2);
    struct ml_digest keys[3] = {key_of(1), key_of(2), key_of(3)};
    struct guest g[5];
    for (int i = 0; i < 5; i++)
        g[i] = (struct guest){.waiter.wake = on_wake};
    assert_int_equal(ml_flight_join(f, &keys[0], &g[0].waiter), ML_FLIGHT_LEAD);
    assert_int_equal(ml_flight_join(f, &keys[1], &g[1].waiter), ML_FLIGHT_LEAD);
    assert_int_equal(ml_flight_join(f, &keys[2], &g[2].waiter), ML_FLIGHT_FULL);
    assert_int_equal(ml_flight_join(f, &keys[0], &g[2].waiter), ML_FLIGHT_WAIT);
    assert_int_equal(ml_flight_join(f, &keys[1], &g[3].waiter), ML_FLIGHT_WAIT);
    assert_int_equal(ml_flight_join(f, &keys[1], &g[4].waiter), ML_FLIGHT_FULL);
    assert_true(ml_flight_leave(f, &keys[0], &g[2].waiter));
    assert_int_equal(ml_flight_join(f, &keys[1], &g[4].waiter), ML_FLIGHT_WAIT);
    ml_flight_land(f, &keys[0], NULL, NULL);
    assert_int_equal(ml_flight_join(f, &keys[2], &g[2].waiter), ML_FLIGHT_LEAD);
    ml_flight_land(f, &keys[1], NULL, NULL);
    assert_int_equal(g[3].woken + g[4].woken, 2);
    ml_flights_free(f);
}

/* S-043, S-414: threads join few keys at once; leaders land, guests leave or are woken, each
 * exactly once, and each gets its own key's entry. */
enum { THREADS = 6, ROUNDS = 400, GUESTS = 16, KEYS = 8 };

struct shared_guest {
    struct ml_waiter waiter;
    unsigned key;
    _Atomic int woken, mixups;
};

static void on_shared_wake(struct ml_waiter *w, struct ml_entry *entry, const char *failure)
{
    struct shared_guest *g = ML_CONTAINER(w, struct shared_guest, waiter);
    if (entry && (unsigned)atoi(entry->bytes) != g->key)
        g->mixups++;
    ml_entry_unref(entry);
    g->woken++; /* last: the owner may free it now */
}

static struct ml_flights *flights;
static _Atomic int leads, waits, left, landed;

static void land_one(unsigned n, const struct ml_digest *key)
{
    char text[16];
    snprintf(text, sizeof text, "%u", n);
    struct ml_entry *e = ml_entry_new(ML_ENTRY_CLAIMS, ml_str_z(text), ml_wall_ms() + 1000);
    ml_flight_land(flights, key, e, NULL);
    ml_entry_unref(e);
    landed++;
}

static void *crowd(void *arg)
{
    unsigned x = (unsigned)(uintptr_t)arg;
    int *problems = calloc(1, sizeof *problems);
    for (int round = 0; round < ROUNDS; round++) {
        struct shared_guest *guests = calloc(GUESTS, sizeof *guests);
        enum ml_flight_role roles[GUESTS];
        struct ml_digest keys[GUESTS];
        for (int i = 0; i < GUESTS; i++) {
            x = x * 1103515245 + 12345;
            guests[i].key = (x >> 16) % KEYS;
            guests[i].waiter.wake = on_shared_wake;
            keys[i] = key_of(guests[i].key);
            roles[i] = ml_flight_join(flights, &keys[i], &guests[i].waiter);
            leads += roles[i] == ML_FLIGHT_LEAD;
            waits += roles[i] == ML_FLIGHT_WAIT;
        }
        for (int i = 0; i < GUESTS; i += 3)
            if (roles[i] == ML_FLIGHT_WAIT &&
                ml_flight_leave(flights, &keys[i], &guests[i].waiter)) {
                *problems += guests[i].woken != 0;
                roles[i] = ML_FLIGHT_FULL;
                left++;
            }
        for (int i = 0; i < GUESTS; i++)
            if (roles[i] == ML_FLIGHT_LEAD)
                land_one(guests[i].key, &keys[i]);
        for (int i = 0; i < GUESTS; i++) {
            while (roles[i] == ML_FLIGHT_WAIT && guests[i].woken == 0)
                usleep(50);
            *problems += guests[i].woken != (roles[i] == ML_FLIGHT_WAIT) || guests[i].mixups;
        }
        free(guests);
    }
    return problems;
}

static void thousands_of_waiters(void **state)
{
    pthread_t threads[THREADS];
    flights = ml_flights_new(64, 100000);
    for (size_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, crowd, (void *)(uintptr_t)(i + 1));
    for (size_t i = 0; i < THREADS; i++) {
        int *problems;
        pthread_join(threads[i], (void **)&problems);
        assert_int_equal(*problems, 0);
        free(problems);
    }
    assert_int_equal(leads, landed);
    assert_int_equal(leads + waits, THREADS * ROUNDS * GUESTS);
    assert_true(left > 0);
    assert_int_equal(ml_flights_waiting(flights), 0);
    ml_flights_free(flights);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_get_what_the_leader_brings),
        cmocka_unit_test(leads_or_not_at_all),
        cmocka_unit_test(failure_and_giving_up),
        cmocka_unit_test(leaving),
        cmocka_unit_test(bounds),
        cmocka_unit_test(thousands_of_waiters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
