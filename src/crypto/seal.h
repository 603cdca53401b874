/* Sealing: AES-256-GCM (OpenSSL 3 EVP) of what leaves the process and comes back: cookies, login
 * state, session records. Any thread; keys are immutable.
 *
 * A sealed text is: version 1, key id 4, expiry 8 (big endian ms since 1970, 0: none), nonce 12,
 * ciphertext, tag 16. The key of a purpose is derived (HKDF-SHA256, RFC 5869) from the key and the
 * purpose's label, so that nothing sealed for one purpose opens for another. Everything in front of
 * the ciphertext and `bound` (what the text belongs to: a record's key; may be empty) is
 * authenticated. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h" /* ml_random */
#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    ML_SEAL_OVERHEAD = 41,
    ML_SEAL_KEYS_MAX = 8,
    ML_SEAL_KEY_BYTES = 32,
    ML_SEAL_KEY_TEXT = 44,       /* of a key as base64url, with its NUL */
    ML_SEAL_PLAIN_MAX = 1 << 20, /* bytes */
};

struct ml_seal_keys;
/* list: keys separated by commas, each 32 bytes as hex, base64 or base64url, or a text of at least
 * 32 characters; the first seals, all open (SESSION_KEY). White space around a key does not count.
 * At most ML_SEAL_KEYS_MAX. ML_E_INVALID: err names the key by its place in the list. */
int ml_seal_keys_new(struct ml_seal_keys **ret, struct ml_str list, struct ml_err *err);
/* One key of ML_SEAL_KEY_BYTES random bytes, base64url and a NUL, for ml_seal_keys_new. false: no
 * randomness. */
bool ml_seal_key_make(char out[ML_SEAL_KEY_TEXT]);
void ml_seal_keys_free(struct ml_seal_keys *k); /* NULL allowed */

/* Appends the sealed bytes to out; nothing when it fails. false: the plain text is too long, there
 * is no memory, or the generator or OpenSSL failed (S-072). */
bool ml_seal(const struct ml_seal_keys *k, struct ml_str purpose, struct ml_str bound,
             int64_t expires_ms, struct ml_str plain, struct ml_buf *out);
enum ml_unsealed { ML_UNSEALED, ML_UNSEAL_EXPIRED, ML_UNSEAL_REFUSED };
/* Appends the plain bytes to out; nothing when it fails. REFUSED says nothing about why. EXPIRED:
 * it is ours, but old. now_ms: ml_wall_ms(). */
enum ml_unsealed ml_unseal(const struct ml_seal_keys *k, struct ml_str purpose, struct ml_str bound,
                           int64_t now_ms, struct ml_str sealed, struct ml_buf *out);
