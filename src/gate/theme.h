/* Static files of the pages (style sheets, images), in memory: what is served cannot change under a
 * running server, and no name of a client's ever reaches the file system. Immutable, any thread. */
#pragma once

#include "base/err.h"
#include "base/str.h"

struct ml_theme;

struct ml_theme_file {
    struct ml_str name; /* below the directory: "kubeflow/styles.css" */
    struct ml_str body;
    const char *type; /* media type */
};

/* Reads the regular files below dir: at most 256, 1 MiB each, 8 MiB together, 4 folders deep;
 * hidden ones and links are left out. A directory that is not there has no files. */
int ml_theme_read(struct ml_theme **ret, const char *dir, struct ml_err *err);
void ml_theme_free(struct ml_theme *t); /* NULL allowed */
/* The file of exactly that name behind a slash ("/kubeflow/styles.css"), or NULL. */
const struct ml_theme_file *ml_theme_find(const struct ml_theme *t, struct ml_str name);
