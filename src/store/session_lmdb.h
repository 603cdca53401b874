/* Sessions in a file: LMDB. Reads are a look into the memory map, on the worker's thread; writes
 * are taken together by one thread and committed durably. One process at a time.
 *
 * The file is opened when it is first needed, by the writer's thread, and again when that failed
 * (S-420). A file that is damaged is set aside (PATH.damaged-TIME) and a new one begun. */
#pragma once

#include "store/session_backend.h"

extern const struct ml_session_backend ml_session_lmdb;

struct ml_lmdb_options {
    const char *path;   /* beside it: PATH-lock, PATH.lock, PATH.key */
    uint64_t max_bytes; /* past them those sessions are evicted that end first */
    unsigned readers;   /* links at most; 0: 512 */
    const char *key;    /* text that is kept in PATH.key when the file is opened; NULL: none */
};
/* Strings are copied. */
void *ml_lmdb_store_new(const struct ml_lmdb_options *options);

enum { ML_LMDB_KEY_TEXT = 1024 };
/* The sealing keys that an earlier process has kept beside the store at path, with a NUL.
 * ML_E_NOTFOUND: none yet. ML_E_IO: it cannot be read, err says why. */
int ml_lmdb_key_read(const char *path, char out[ML_LMDB_KEY_TEXT], struct ml_err *err);
