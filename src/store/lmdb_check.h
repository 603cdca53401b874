/* Whether an LMDB file may be given to LMDB, which trusts its pages: a damaged one would make it
 * write past its buffers. Format of LMDB 0.9 on 64 bits. Pure reading; any thread. */
#pragma once

#include <sys/types.h>

/* Reads both meta pages and every page of the newest tree but the values' own: about 12 MB for
 * 25,000 sessions. NULL: whole (or empty); else what is wrong. */
const char *ml_lmdb_check(int fd, off_t size);
