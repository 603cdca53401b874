/* Memory that cannot fail, memory that may, secrets, and constant time. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* For sizes that the program chooses: abort when there is none. What a peer sizes is allocated
 * with malloc, from an arena or a buffer, and its failure denies that one request. */
void *ml_xmalloc(size_t n);
void *ml_xcalloc(size_t count, size_t n);
void *ml_xrealloc(void *p, size_t n);
char *ml_xstrdup(const char *z);
char *ml_xstrndup(const char *p, size_t n);

#define ML_NEW(type) ((type *)ml_xcalloc(1, sizeof(type)))
#define ML_CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Overwrites a secret so that the compiler cannot leave it out. */
void ml_wipe(void *p, size_t n);
/* Equality in time that depends on the lengths only. */
bool ml_equal_ct(const void *a, size_t an, const void *b, size_t bn);
/* Bytes of the kernel's CSPRNG; false (and zeroed output) when it fails: the caller denies. */
bool ml_random(void *out, size_t n);

/* Fatal: the program's own state is broken. */
#define ML_REQUIRE(cond)                                                                           \
    do {                                                                                           \
        if (!(cond))                                                                               \
            ml_require_failed(#cond, __FILE__, __LINE__);                                          \
    } while (0)
_Noreturn void ml_require_failed(const char *cond, const char *file, int line);
