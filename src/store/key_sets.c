/* Key sets by the id of the entry that they were parsed from: ids name a content and are never used
 * again. Slots are few and looked through one by one. */
#include "store/key_sets.h"

#include "base/mem.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

struct slot {
    uint64_t id; /* of the entry; 0: free */
    uint64_t used;
    struct ml_jwks *set; /* NULL: it is none */
    int error;
    char why[128];
};

struct ml_key_sets {
    pthread_mutex_t lock;
    uint64_t clock; /* counts uses */
    struct slot slots[ML_KEY_SETS_MAX];
};

struct ml_key_sets *ml_key_sets_new(void)
{
    struct ml_key_sets *s = ML_NEW(struct ml_key_sets);
    pthread_mutex_init(&s->lock, NULL);
    return s;
}

void ml_key_sets_free(struct ml_key_sets *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < ML_KEY_SETS_MAX; i++)
        ml_jwks_unref(s->slots[i].set);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static struct slot *find_locked(struct ml_key_sets *s, uint64_t id)
{
    for (size_t i = 0; i < ML_KEY_SETS_MAX; i++)
        if (s->slots[i].id == id) {
            s->slots[i].used = ++s->clock;
            return &s->slots[i];
        }
    return NULL;
}

static struct slot *oldest_locked(struct ml_key_sets *s)
{
    struct slot *oldest = &s->slots[0];
    for (size_t i = 1; i < ML_KEY_SETS_MAX; i++)
        if (s->slots[i].used < oldest->used)
            oldest = &s->slots[i];
    return oldest;
}

/* What the slot says, as ml_key_sets_get does. */
static int answer(const struct slot *slot, struct ml_jwks **ret, struct ml_err *err)
{
    if (!slot->set)
        return ml_fail(err, slot->error, "%s", slot->why);
    *ret = ml_jwks_ref(slot->set);
    return 0;
}

/* Takes the reference to set. Another worker may have been faster: then there are two for a while.
 */
static void keep(struct ml_key_sets *s, uint64_t id, struct ml_jwks *set, const struct ml_err *err)
{
    pthread_mutex_lock(&s->lock);
    struct slot *slot = oldest_locked(s);
    struct ml_jwks *old = slot->set;
    *slot = (struct slot){.id = id, .used = ++s->clock, .set = set};
    if (!set) {
        slot->error = err->code;
        snprintf(slot->why, sizeof slot->why, "%.*s", (int)sizeof slot->why - 1, err->text);
    }
    pthread_mutex_unlock(&s->lock);
    ml_jwks_unref(old);
}

int ml_key_sets_get(struct ml_key_sets *s, const struct ml_entry *e, struct ml_jwks **ret,
                    struct ml_err *err)
{
    struct ml_err why = {.code = 0};
    struct ml_jwks *set = NULL;
    int r = 0;
    if (s) {
        pthread_mutex_lock(&s->lock);
        struct slot *slot = find_locked(s, e->id);
        r = slot ? answer(slot, ret, err) : 0;
        pthread_mutex_unlock(&s->lock);
        if (slot)
            return r;
    }
    r = ml_jwks_new(&set, ml_str(e->bytes, e->n), &why);
    if (r == ML_E_NOMEM || !s)
        return r == 0 ? (*ret = set, 0) : ml_fail(err, r, "%s", why.text);
    if (set)
        *ret = ml_jwks_ref(set);
    keep(s, e->id, set, &why);
    return set ? 0 : ml_fail(err, r, "%s", why.text);
}
