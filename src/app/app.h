/* The program: one function a subcommand, each returning the exit code (0 good, 1 failed, 2 wrong
 * input). */
#pragma once

#include "engine/settings.h"

#include <stdbool.h>

int ml_app_serve(int argc, char **argv);
int ml_app_check(int argc, char **argv);
int ml_app_settings(int argc, char **argv);
int ml_app_revoke(int argc, char **argv);
int ml_app_jwt(int argc, char **argv);

/* Directory that holds moonlatch/init.lua, and the policy served by default: installed beside the
 * binary (BIN/../share/moonlatch) or in the source tree above it. NULL when neither is there.
 * Static storage. */
const char *ml_app_library(void);
const char *ml_app_default_policy(void);
/* The style sheets and images of the pages, in the same way. */
const char *ml_app_themes(void);

/* After a start or reload: gives memory back that only that needed (trim.c). */
void ml_app_trim(void);

/* Asks the server of these settings by its admin listener; waits. The status, with the body in
 * answer; 0 when nobody answered, with a line that says so. */
int ml_app_admin_call(const struct ml_settings *settings, const char *method, const char *target,
                      struct ml_str body, struct ml_buf *answer);

/* The trimmed content of a file (-: standard input) of at most 16 KiB, for whoever wipes it; false
 * when it cannot be read or is empty. */
bool ml_app_read_token(const char *path, struct ml_buf *out);

/* Reads the environment; warnings and errors go to stderr. NULL: refused. */
struct ml_settings *ml_app_read_settings(void);
