/* JWK Sets: JSON to keys of OpenSSL. A set is filled while its JSON is walked and never changes
 * after that; the last reference, on any thread, frees it. */
#include "crypto/jwk.h"

#include "base/mem.h"
#include "crypto/jose.h"

#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>

struct reader {
    struct ml_jwks *set;
    struct ml_err err; /* why we stopped the walk; code 0: we did not */
    unsigned depth;
    bool in_keys, there; /* inside of "keys"; it was there */
    size_t place;        /* of the current key, from 1 */
    struct ml_member *current;
    struct ml_member members[ML_JWK_MEMBERS];
    bool may_verify; /* "key_ops" has it */
};

static const char *const names[ML_JWK_MEMBERS] = {"kty", "crv", "alg", "use", "kid", "key_ops",
                                                  "n",   "e",   "x",   "y",   "d",   "k"};

/* What can be said before the numbers are looked at; NULL: nothing against it. */
static const char *label_problem(const struct reader *r)
{
    const struct ml_member *m = r->members;
    if (!ml_member_is_text(&m[ML_JWK_KTY]))
        return "no kty";
    if (m[ML_JWK_D].there || m[ML_JWK_K].there || ml_member_is(&m[ML_JWK_KTY], "oct"))
        return "it holds a secret, which no set may";
    if (m[ML_JWK_USE].there && !ml_member_is(&m[ML_JWK_USE], "sig"))
        return "its use is not sig";
    if (m[ML_JWK_KEY_OPS].there && !r->may_verify)
        return "its key_ops have no verify";
    if (m[ML_JWK_ALG].there &&
        (!ml_member_is_text(&m[ML_JWK_ALG]) || !ml_jwa_find(m[ML_JWK_ALG].text)))
        return "its alg is none that signs here";
    if (m[ML_JWK_KID].there &&
        (!ml_member_is_text(&m[ML_JWK_KID]) || m[ML_JWK_KID].text.n > ML_JWK_KID_MAX))
        return "its kid is no text of at most 255 bytes";
    return NULL;
}

static void free_key(struct ml_jwk *k)
{
    for (size_t i = 0; i < ML_JWA_COUNT; i++)
        EVP_PKEY_CTX_free(k->begun[i]);
    EVP_PKEY_free(k->key);
    free((char *)k->kid.p);
}

/* Adds the key that was read. false: no memory, and the walk ends; r->err says so. */
static bool on_key_end(struct reader *r)
{
    struct ml_jwks *set = r->set;
    const struct ml_member *m = r->members;
    struct ml_jwk k = {.key = NULL};
    const char *why = label_problem(r);
    if (!why && ml_jwk_make(m, &k, &why) == ML_E_NOMEM) {
        ml_fail(&r->err, ML_E_NOMEM, "no memory for a key");
        return false;
    }
    if (!why && m[ML_JWK_ALG].there) {
        k.algorithms &= ml_jwa_bit(ml_jwa_find(m[ML_JWK_ALG].text));
        why = k.algorithms ? NULL : "its alg does not fit its kty and crv";
    }
    bool begun = why || ml_jwk_begin(&k);
    if (why || !begun)
        free_key(&k);
    if (!begun) {
        ml_fail(&r->err, ML_E_NOMEM, "no memory for a key");
        return false;
    }
    if (why) {
        if (!set->complaint[0])
            snprintf(set->complaint, sizeof set->complaint, "key %zu: %s", r->place, why);
        return true;
    }
    struct ml_str kid = m[ML_JWK_KID].text;
    if (m[ML_JWK_KID].there)
        k.kid = ml_str(ml_xstrndup(kid.p, kid.n), kid.n);
    set->keys[set->n++] = k;
    return true;
}

static bool on_key_begin(struct reader *r)
{
    if (r->place++ == ML_JWKS_MAX) {
        ml_fail(&r->err, ML_E_TOOBIG, "more than %d keys", ML_JWKS_MAX);
        return false;
    }
    r->may_verify = false;
    for (size_t i = 0; i < ML_JWK_MEMBERS; i++)
        r->members[i] = (struct ml_member){.name = names[i]};
    return true;
}

/* The set is at depth 1, "keys" at 2, a key at 3, its key_ops at 4. */
static bool begin(void *ctx, enum ml_json_kind kind, size_t size)
{
    struct reader *r = ctx;
    unsigned depth = ++r->depth;
    if ((depth == 1 && kind != ML_JSON_OBJECT) ||
        (depth == 2 && r->in_keys && kind != ML_JSON_ARRAY))
        return false;
    if (depth == 3 && r->in_keys && kind == ML_JSON_OBJECT)
        return on_key_begin(r);
    if (depth == 4 && r->current)
        r->current->kind = kind;
    return true;
}

static bool end(void *ctx, enum ml_json_kind kind)
{
    struct reader *r = ctx;
    unsigned depth = r->depth--;
    if (depth == 3)
        r->current = NULL;
    return depth == 3 && r->in_keys && kind == ML_JSON_OBJECT ? on_key_end(r) : true;
}

static bool key(void *ctx, struct ml_str name)
{
    struct reader *r = ctx;
    if (r->depth == 1) {
        r->in_keys = ml_str_eq(name, ML_STR("keys"));
        r->there |= r->in_keys;
    }
    if (r->depth == 3 && r->in_keys)
        r->current = ml_member_find(r->members, ML_JWK_MEMBERS, name);
    return true;
}

static bool scalar(void *ctx, enum ml_json_kind kind, struct ml_str text, long long integer,
                   double real)
{
    struct reader *r = ctx;
    if (r->depth == 3 && r->current) {
        r->current->kind = kind;
        r->current->text = text;
    }
    if (r->depth == 4 && r->current == &r->members[ML_JWK_KEY_OPS] &&
        r->current->kind == ML_JSON_ARRAY && kind == ML_JSON_STRING)
        r->may_verify |= ml_str_eq(text, ML_STR("verify"));
    return r->depth != 1 || !r->in_keys;
}

int ml_jwks_new(struct ml_jwks **ret, struct ml_str json, struct ml_err *err)
{
    static const struct ml_json_events events = {scalar, begin, key, end};
    struct reader r = {.set = calloc(1, sizeof(struct ml_jwks))};
    if (!r.set)
        return ml_fail(err, ML_E_NOMEM, "no memory for a JWK Set");
    atomic_init(&r.set->refs, 1);
    ERR_clear_error();
    int code = ml_json_walk(json, &events, &r, err);
    ERR_clear_error(); /* what it says of ours is nobody else's error */
    if (code == ML_E_CANCELED && r.err.code)
        code = ml_fail(err, r.err.code, "%s", r.err.text);
    else if (code == ML_E_CANCELED || (code == 0 && !r.there))
        code = ml_fail(err, ML_E_INVALID, "no JWK Set: it must be an object with a list of keys");
    if (code == 0)
        *ret = r.set;
    else
        ml_jwks_unref(r.set);
    return code;
}

struct ml_jwks *ml_jwks_ref(struct ml_jwks *set)
{
    atomic_fetch_add_explicit(&set->refs, 1, memory_order_relaxed);
    return set;
}

void ml_jwks_unref(struct ml_jwks *set)
{
    if (!set || atomic_fetch_sub_explicit(&set->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < set->n; i++)
        free_key(&set->keys[i]);
    free(set);
}

size_t ml_jwks_count(const struct ml_jwks *set)
{
    return set->n;
}

const char *ml_jwks_complaint(const struct ml_jwks *set)
{
    return set->complaint;
}
