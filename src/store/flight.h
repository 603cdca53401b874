/* Single flight: of all who want one key at the same time, one leads and the others wait for what
 * it brings. Shared by all workers; any thread. */
#pragma once

#include "store/cache.h"

struct ml_flights;

/* Owned by the one who waits; must stay where it is until woken, or until ml_flight_leave said
 * true. */
struct ml_waiter {
    struct ml_waiter *next, **link;
    /* Called once, on the leader's thread, with no lock held. entry is a reference for the waiter
     * (NULL: the leader failed, with `failure` as the reason, or gave up, failure == NULL: try
     * again). */
    void (*wake)(struct ml_waiter *w, struct ml_entry *entry, const char *failure);
};

enum ml_flight_role { ML_FLIGHT_LEAD, ML_FLIGHT_WAIT, ML_FLIGHT_FULL };

struct ml_flights *ml_flights_new(size_t max_keys,
                                  size_t max_waiters); /* bounds over all; past them FULL */
void ml_flights_free(struct ml_flights *f);
/* w NULL: to lead or not at all; WAIT then means that another leads, and nothing is joined. Who
 * leads must look into the cache again: the flight before may have landed since it looked. */
enum ml_flight_role ml_flight_join(struct ml_flights *f, const struct ml_digest *key,
                                   struct ml_waiter *w);
/* By the leader, exactly once: with a result, a failure text, or neither (gave up). Wakes all.
 * Does nothing when the key has no flight. */
void ml_flight_land(struct ml_flights *f, const struct ml_digest *key, struct ml_entry *entry,
                    const char *failure);
/* A waiter gives up. true: it will not be woken. false: wake has run or is running. */
bool ml_flight_leave(struct ml_flights *f, const struct ml_digest *key, struct ml_waiter *w);
size_t ml_flights_waiting(struct ml_flights *f);
