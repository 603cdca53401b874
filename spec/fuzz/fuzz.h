/* What every fuzz target shares. A property that does not hold aborts, so that the input is kept.
 */
#pragma once

#include "base/mem.h"
#include "base/str.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline struct ml_str fuzz_str(const uint8_t *data, size_t size)
{
    return ml_str((const char *)data, size);
}
