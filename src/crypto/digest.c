/* Digests. State: the fetched algorithm, process-wide; one EVP_MD_CTX a thread, freed when the
 * thread ends (a key's destructor, also for threads that are not ours). */
#include "crypto/digest.h"

#include <openssl/evp.h>
#include <pthread.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static EVP_MD *sha256; /* fetched once: a fetch takes locks and costs more than the hash */
static _Thread_local EVP_MD_CTX *context;

static void free_context(void *p)
{
    EVP_MD_CTX_free(p);
    context = NULL;
}

static void init(void)
{
    if (pthread_key_create(&key, free_context) == 0)
        sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
}

/* This thread's context, begun anew. NULL when OpenSSL fails. */
static EVP_MD_CTX *begin(void)
{
    pthread_once(&once, init);
    if (!context && sha256) {
        context = EVP_MD_CTX_new();
        if (context && pthread_setspecific(key, context) != 0)
            free_context(context);
    }
    if (!context || EVP_DigestInit_ex2(context, sha256, NULL) != 1)
        return NULL;
    return context;
}

bool ml_sha256(struct ml_str in, struct ml_digest *ret)
{
    EVP_MD_CTX *c = begin();
    return c && EVP_DigestUpdate(c, in.p, in.n) == 1 && EVP_DigestFinal_ex(c, ret->b, NULL) == 1;
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

bool ml_keyed_hash(const uint8_t secret[32], const struct ml_str *parts, size_t count,
                   struct ml_digest *ret)
{
    EVP_MD_CTX *c = begin();
    if (!c || EVP_DigestUpdate(c, secret, 32) != 1)
        return false;
    for (size_t i = 0; i < count; i++) {
        uint8_t length[8];
        for (int shift = 0; shift < 8; shift++)
            length[shift] = (uint8_t)((uint64_t)parts[i].n >> (8 * shift));
        if (EVP_DigestUpdate(c, length, sizeof length) != 1 ||
            EVP_DigestUpdate(c, parts[i].p, parts[i].n) != 1)
            return false;
    }
    return EVP_DigestFinal_ex(c, ret->b, NULL) == 1;
}
