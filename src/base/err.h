/* Errors: 0 or a negative ML_E..., with a text for people in a struct the caller supplies. */
#pragma once

enum {
    ML_OK = 0,
    ML_E_NOMEM = -1,       /* a bound of memory, ours or the machine's */
    ML_E_INVALID = -2,     /* the input is wrong, and always will be */
    ML_E_TOOBIG = -3,      /* the input is over a limit */
    ML_E_TIMEOUT = -4,     /* a deadline passed */
    ML_E_UNAVAILABLE = -5, /* the other side could not be asked */
    ML_E_BUSY = -6,        /* a bound on work in flight */
    ML_E_CANCELED = -7,
    ML_E_NOTFOUND = -8,
    ML_E_IO = -9, /* the operating system said no; the text says why */
    ML_E_POLICY = -10,
};

struct ml_err {
    int code;
    char text[512]; /* never holds a credential */
};

/* Fills err (NULL is allowed) and returns code, so that `return ml_fail(err, ML_E_..., "...")`
 * reads. */
int ml_fail(struct ml_err *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
