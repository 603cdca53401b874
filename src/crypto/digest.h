/* SHA-256 and the keyed hash of cache keys (OpenSSL 3 EVP). Any thread; contexts are thread-local.
 */
#pragma once

#include "base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ml_digest {
    uint8_t b[32];
};

/* false only when OpenSSL fails: the caller denies. */
bool ml_sha256(struct ml_str in, struct ml_digest *ret);
/* "sha256" "sha384" "sha512" (FIPS 180-4); the bytes go to out. 0: another name, or OpenSSL failed.
 */
enum { ML_DIGEST_MAX = 64 };
size_t ml_digest_named(struct ml_str name, struct ml_str in, uint8_t out[ML_DIGEST_MAX]);
void ml_digest_hex(const struct ml_digest *d, char out[65]);

/* Hash over secret (32 bytes, per process) and the parts, each with its length in front: no two
 * lists of parts give the same input. Not for anything that leaves the process. */
bool ml_keyed_hash(const uint8_t secret[32], const struct ml_str *parts, size_t count,
                   struct ml_digest *ret);
