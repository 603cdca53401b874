/* Settings: the environment, read once at start, validated whole, immutable after that (shared by
 * all threads). Names and defaults are the ancestor's where it has them. A variable that is set but
 * empty counts as set. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ml_settings;

/* Reads environ. Every wrong variable gives one line in errors, each old or unknown name one line
 * in warnings. ML_E_INVALID when there are errors; *ret is set only on 0. */
int ml_settings_new(struct ml_settings **ret, char *const *environ_, struct ml_buf *errors,
                    struct ml_buf *warnings);
void ml_settings_free(struct ml_settings *s);

/* Effective value of a setting or, for other names, of the environment variable; NULL when it is
 * not set (a policy's env() then takes its own default). ctx is the ml_settings. */
const char *ml_settings_env(void *ctx, const char *name);
/* Value or default of a setting of the table; never NULL. */
const char *ml_settings_text(const struct ml_settings *s, const char *name);
bool ml_settings_bool(const struct ml_settings *s, const char *name);
long long ml_settings_int(const struct ml_settings *s,
                          const char *name); /* durations in milliseconds */

/* Path of AUTHSERVICE_URL_PREFIX without trailing slash, of VERIFY_AUTH_URL and of REDIRECT_URL:
 * canonical, never empty. */
const char *ml_settings_prefix(const struct ml_settings *s);
const char *ml_settings_verify(const struct ml_settings *s);
const char *ml_settings_callback(const struct ml_settings *s);

/* What `moonlatch settings` prints: a line each, NAME=value, where it comes from; secrets hidden.
 */
void ml_settings_print(const struct ml_settings *s, struct ml_buf *out);
