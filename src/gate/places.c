/* Which path is whose. Any thread; no state. */
#include "gate/places.h"

const char ml_themes[] = "/site/themes";

struct ml_str ml_below(struct ml_str path, const char *place)
{
    struct ml_str prefix = ml_str_z(place);
    if (!path.p || !ml_str_starts(path, prefix) || (path.n > prefix.n && path.p[prefix.n] != '/'))
        return (struct ml_str){NULL, 0};
    return ml_str(path.p + prefix.n, path.n - prefix.n);
}

/* rest: what is below the prefix. */
static enum ml_place place_below(struct ml_str rest)
{
    static const struct {
        const char *path;
        enum ml_place place;
    } places[] = {
        {"/logout", ML_PLACE_LOGOUT},
        {"/backchannel_logout", ML_PLACE_BACKCHANNEL_LOGOUT},
        {"/frontchannel_logout", ML_PLACE_FRONTCHANNEL_LOGOUT},
    };
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (ml_str_eq(rest, ml_str_z(places[i].path)))
            return places[i].place;
    return ml_below(rest, "/site").n ? ML_PLACE_PAGE : ML_PLACE_NONE;
}

static bool is_callback(const struct ml_settings *s, const struct ml_request *r)
{
    struct ml_str callback = ml_str_z(ml_settings_callback(s));
    struct ml_str bare = ml_below(callback, ml_settings_prefix(s));
    return ml_str_eq(r->path, callback) || (r->web && bare.n && ml_str_eq(r->path, bare));
}

/* On the check port a place is one only as we write it: "/app/../authservice/site/homepage" may be
 * a page to us and an application's to a gateway that leads on the raw path. */
static bool is_spelt_out(const struct ml_request *r)
{
    return r->web || ml_str_eq(r->raw_path, r->path);
}

enum ml_ground ml_places_find(const struct ml_settings *s, struct ml_request *r)
{
    struct ml_str rest = ml_below(r->path, ml_settings_verify(s));
    if (rest.p && !r->web) {
        r->verify = true;
        r->path = rest.n ? rest : ML_STR("/");
        return ML_GROUND_VERIFY;
    }
    bool spelt_out = is_spelt_out(r);
    if (is_callback(s, r)) {
        if (!spelt_out)
            return ML_GROUND_NOTHING;
        r->place = ML_PLACE_CALLBACK;
        return ML_GROUND_PLACE;
    }
    rest = ml_below(r->path, ml_settings_prefix(s));
    if (!rest.p && !r->web)
        return ML_GROUND_FOREIGN;
    rest = rest.p ? rest : r->path;
    r->place = spelt_out ? place_below(rest) : ML_PLACE_NONE;
    if (r->place == ML_PLACE_PAGE)
        r->path = rest;
    return r->place == ML_PLACE_NONE ? ML_GROUND_NOTHING : ML_GROUND_PLACE;
}
