/* Error texts. No state; any thread. */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>

int ml_fail(struct ml_err *err, int code, const char *format, ...)
{
    if (err) {
        va_list args;
        err->code = code;
        va_start(args, format);
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
    }
    return code;
}
