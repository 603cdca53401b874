/* The session store of tests: a table in this process's memory, gone with it. */
#pragma once

#include "store/session_backend.h"

extern const struct ml_session_backend ml_session_memory;
/* A store for at most max sessions; past them a new one is refused with ML_E_BUSY. */
void *ml_session_memory_new(size_t max);
/* Tests: while on, every call fails with ML_E_UNAVAILABLE. Any thread. */
void ml_session_memory_fail(void *store, bool on);
