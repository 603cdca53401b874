/* Our own places: the paths under AUTHSERVICE_URL_PREFIX and the callback. Nothing else of a
 * client's is ours, and nothing of these is an application's, whatever the policy says (compat.md
 * Q1 to Q3). */
#pragma once

#include "codec/request.h"
#include "engine/settings.h"

/* Where the theme's static files are, below the prefix. */
extern const char ml_themes[];

enum ml_ground { ML_GROUND_FOREIGN, ML_GROUND_VERIFY, ML_GROUND_PLACE, ML_GROUND_NOTHING };

/* What follows `place` when path is it or below it, by whole segments; p == NULL when it is not. */
struct ml_str ml_below(struct ml_str path, const char *place);

/* Looks at r->path. VERIFY: the rest is to be judged (r->path is it, r->verify set). PLACE:
 * r->place says which (r->path of a page is what is below the prefix). NOTHING: reserved, and not
 * there. FOREIGN: a client's. On the web port (r->web) gateways may have taken the prefix away. */
enum ml_ground ml_places_find(const struct ml_settings *s, struct ml_request *r);
