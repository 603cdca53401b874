/* Digests. State: the fetched algorithms, process-wide; one EVP_MD_CTX a thread, freed when the
 * thread ends (a key's destructor, also for threads that are not ours). */
#include "crypto/digest.h"

#include "base/mem.h"

#include <endian.h>
#include <openssl/evp.h>
#include <pthread.h>

enum { GATHER = 256 };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
/* Fetched once: a fetch takes locks and costs more than the hash. */
enum { SHA256, SHA384, SHA512, KINDS };
static const char *const names[KINDS] = {"sha256", "sha384", "sha512"};
static EVP_MD *fetched[KINDS];
static _Thread_local EVP_MD_CTX *context;

static void free_context(void *p)
{
    EVP_MD_CTX_free(p);
    context = NULL;
}

static void init(void)
{
    if (pthread_key_create(&key, free_context) != 0)
        return;
    for (size_t i = 0; i < KINDS; i++)
        fetched[i] = EVP_MD_fetch(NULL, names[i], NULL);
}

/* This thread's context, begun anew. NULL when OpenSSL fails. */
static EVP_MD_CTX *begin(size_t kind)
{
    pthread_once(&once, init);
    if (!context && fetched[kind]) {
        context = EVP_MD_CTX_new();
        if (context && pthread_setspecific(key, context) != 0)
            free_context(context);
    }
    if (!context || !fetched[kind] || EVP_DigestInit_ex2(context, fetched[kind], NULL) != 1)
        return NULL;
    return context;
}

bool ml_sha256(struct ml_str in, struct ml_digest *ret)
{
    EVP_MD_CTX *c = begin(SHA256);
    return c && EVP_DigestUpdate(c, in.p, in.n) == 1 && EVP_DigestFinal_ex(c, ret->b, NULL) == 1;
}

size_t ml_digest_named(struct ml_str name, struct ml_str in, uint8_t out[ML_DIGEST_MAX])
{
    unsigned n = 0;
    size_t kind = 0;
    while (kind < KINDS && !ml_str_eq(name, ml_str_z(names[kind])))
        kind++;
    EVP_MD_CTX *c = kind < KINDS ? begin(kind) : NULL;
    bool ok = c && EVP_DigestUpdate(c, in.p, in.n) == 1 && EVP_DigestFinal_ex(c, out, &n) == 1;
    return ok ? n : 0;
}

void ml_digest_hex(const struct ml_digest *d, char out[65])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < sizeof d->b; i++) {
        out[2 * i] = digits[d->b[i] >> 4];
        out[2 * i + 1] = digits[d->b[i] & 15];
    }
    out[64] = 0;
}

/* What fits into one piece is hashed by one call, which is most of the cost of short keys. */
struct gather {
    EVP_MD_CTX *to;
    size_t n;
    bool failed;
    uint8_t b[GATHER];
};

static void flush(struct gather *g)
{
    g->failed |= EVP_DigestUpdate(g->to, g->b, g->n) != 1;
    g->n = 0;
}

static void add(struct gather *g, const void *p, size_t n)
{
    if (n > sizeof g->b - g->n)
        flush(g);
    if (n > sizeof g->b) {
        g->failed |= EVP_DigestUpdate(g->to, p, n) != 1;
    } else if (n) {
        memcpy(g->b + g->n, p, n);
        g->n += n;
    }
}

bool ml_keyed_hash(const uint8_t secret[32], const struct ml_str *parts, size_t count,
                   struct ml_digest *ret)
{
    struct gather g;
    g.to = begin(SHA256);
    g.n = 0;
    g.failed = false;
    if (!g.to)
        return false;
    add(&g, secret, 32);
    for (size_t i = 0; i < count; i++) {
        uint64_t length = htole64((uint64_t)parts[i].n);
        add(&g, &length, sizeof length);
        add(&g, parts[i].p, parts[i].n);
    }
    flush(&g);
    ml_wipe(g.b, sizeof g.b); /* secret and credential */
    return !g.failed && EVP_DigestFinal_ex(g.to, ret->b, NULL) == 1;
}
