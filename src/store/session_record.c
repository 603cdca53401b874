/* Sealed session records. Layout of the plain bytes, big endian: version 1 (byte), revision 8,
 * version of the record 8, created 8, ends 8, touched 8, idle 8, count of index hashes (byte), the
 * hashes, length of the open part 4, open part, closed part. The seal is bound to the record's key:
 * a record that was moved to another key does not open (S-173). */
#include "store/session_record.h"

#include <string.h>

enum {
    VERSION = 1,
    HEAD = 1 + 6 * 8 + 1, /* up to the hashes */
    TOUCH_MS = 60 * 1000,
    PLAIN_MAX = ML_SESSION_VALUE_MAX - ML_SEAL_OVERHEAD,
};

int64_t ml_session_record_expiry(const struct ml_session_record *r)
{
    if (r->idle_ms > 0 && r->touched_ms + r->idle_ms < r->ends_ms)
        return r->touched_ms + r->idle_ms;
    return r->ends_ms;
}

bool ml_session_record_stale(const struct ml_session_record *r, int64_t now_ms)
{
    int64_t interval = r->idle_ms / 10 < TOUCH_MS ? r->idle_ms / 10 : TOUCH_MS;
    return r->idle_ms > 0 && now_ms - r->touched_ms >= interval;
}

void ml_session_plain_init(struct ml_buf *plain)
{
    ml_buf_init(plain, PLAIN_MAX);
    ml_buf_reserve(plain, PLAIN_MAX); /* at once: growing would leave copies behind */
}

void ml_session_plain_done(struct ml_buf *plain)
{
    if (plain->p)
        ml_wipe(plain->p, plain->n);
    ml_buf_done(plain);
}

static void put(struct ml_buf *b, uint64_t n, int bytes)
{
    uint8_t out[8];
    for (int i = 0; i < bytes; i++)
        out[i] = (uint8_t)(n >> (8 * (bytes - 1 - i)));
    ml_buf_add(b, out, (size_t)bytes);
}

static uint64_t get(const char **p, int bytes)
{
    uint64_t n = 0;
    for (int i = 0; i < bytes; i++)
        n = n << 8 | (uint8_t) * (*p)++;
    return n;
}

static void encode(const struct ml_session_record *r, struct ml_buf *b)
{
    put(b, VERSION, 1);
    put(b, r->revision, 8);
    put(b, r->version, 8);
    put(b, (uint64_t)r->created_ms, 8);
    put(b, (uint64_t)r->ends_ms, 8);
    put(b, (uint64_t)r->touched_ms, 8);
    put(b, (uint64_t)r->idle_ms, 8);
    put(b, r->index_count, 1);
    ml_buf_add(b, r->index, r->index_count * sizeof r->index[0]);
    put(b, r->open.n, 4);
    ml_buf_add_str(b, r->open);
    ml_buf_add_str(b, r->closed);
}

/* Its bytes are authentic; the checks are for records of another version of this program. */
static bool decode(struct ml_str in, struct ml_session_record *ret)
{
    const char *p = in.p, *end = in.p + in.n;
    if (in.n < HEAD || get(&p, 1) != VERSION)
        return false;
    ret->revision = get(&p, 8);
    ret->version = get(&p, 8);
    ret->created_ms = (int64_t)get(&p, 8);
    ret->ends_ms = (int64_t)get(&p, 8);
    ret->touched_ms = (int64_t)get(&p, 8);
    ret->idle_ms = (int64_t)get(&p, 8);
    ret->index_count = get(&p, 1);
    size_t hashes = ret->index_count * sizeof ret->index[0];
    if (ret->index_count > ML_SESSION_INDEX_MAX || (size_t)(end - p) < hashes + 4)
        return false;
    memcpy(ret->index, p, hashes);
    p += hashes;
    size_t open = get(&p, 4);
    if ((size_t)(end - p) < open)
        return false;
    ret->open = ml_str(p, open);
    ret->closed = ml_str(p + open, (size_t)(end - p) - open);
    return true;
}

static struct ml_str bound(const struct ml_digest *key)
{
    return ml_str((const char *)key->b, sizeof key->b);
}

int ml_session_record_seal(const struct ml_session_record *r, const struct ml_seal_keys *keys,
                           const struct ml_digest *key, struct ml_buf *out)
{
    struct ml_buf plain;
    int result = 0;
    if (r->open.n > PLAIN_MAX || r->closed.n > PLAIN_MAX ||
        HEAD + sizeof r->index + 4 + r->open.n + r->closed.n > PLAIN_MAX)
        return ML_E_TOOBIG;
    ml_session_plain_init(&plain);
    encode(r, &plain);
    if (plain.failed)
        result = ML_E_NOMEM;
    else if (!ml_seal(keys, ML_STR("session"), bound(key), r->ends_ms, ml_buf_str(&plain), out))
        result = ML_E_IO;
    ml_session_plain_done(&plain);
    return result;
}

bool ml_session_record_open(struct ml_session_record *ret, const struct ml_seal_keys *keys,
                            const struct ml_digest *key, int64_t now_ms, struct ml_str sealed,
                            struct ml_buf *plain)
{
    return ml_unseal(keys, ML_STR("session"), bound(key), now_ms, sealed, plain) == ML_UNSEALED &&
           decode(ml_buf_str(plain), ret) && ml_session_record_expiry(ret) > now_ms;
}
