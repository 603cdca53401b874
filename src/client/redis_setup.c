/* The options of Redis, checked and copied. A setup is immutable; any thread. */
#include "client/redis_internal.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

static const char *or_empty(const char *z)
{
    return z ? z : "";
}

static bool host_ok(struct ml_str host)
{
    for (size_t i = 0; i < host.n; i++) {
        char c = ml_lower(host.p[i]);
        bool ok = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
                  c == '_' || c == ':';
        if (!ok)
            return false;
    }
    return host.n > 0 && host.n < sizeof((struct ml_redis_address *)0)->host;
}

bool ml_redis_parse_address(struct ml_str text, const char *port, struct ml_redis_address *ret)
{
    struct ml_str host = text, rest = {NULL, 0};
    if (text.n > 0 && text.p[0] == '[') {
        host = ml_str_cut(ml_str(text.p + 1, text.n - 1), ']', &rest);
        if (!rest.p || (rest.n > 0 && rest.p[0] != ':'))
            return false;
        rest = rest.n > 0 ? ml_str(rest.p + 1, rest.n - 1) : (struct ml_str){NULL, 0};
    } else {
        /* The last colon: a cluster announces IPv6 addresses without brackets. */
        const char *colon = memrchr(text.p, ':', text.n);
        if (colon) {
            host = ml_str(text.p, (size_t)(colon - text.p));
            rest = ml_str(colon + 1, text.n - host.n - 1);
        }
    }
    unsigned long long number;
    if (!rest.p)
        rest = ml_str_z(port);
    if (!host_ok(host) || !ml_str_u64(rest, &number) || number < 1 || number > 65535)
        return false;
    snprintf(ret->host, sizeof ret->host, "%.*s", ML_FMT(host));
    snprintf(ret->port, sizeof ret->port, "%llu", number);
    return true;
}

bool ml_redis_same_address(const struct ml_redis_address *a, const struct ml_redis_address *b)
{
    return strcmp(a->host, b->host) == 0 && strcmp(a->port, b->port) == 0;
}

static int parse_addresses(struct ml_redis_setup *s, const char *text, struct ml_err *err)
{
    const char *port = s->mode == ML_REDIS_SENTINEL ? "26379" : "6379";
    struct ml_str rest = ml_str_z(text);
    size_t max = s->mode == ML_REDIS_SINGLE ? 1 : ML_REDIS_ADDRESSES_MAX;
    do {
        struct ml_str one = ml_str_trim(ml_str_cut(rest, ',', &rest));
        if (s->address_count >= max)
            return ml_fail(err, ML_E_INVALID, "Redis: more than %zu address%s", max,
                           max > 1 ? "es" : " (a list needs the mode sentinel or cluster)");
        if (!ml_redis_parse_address(one, port, &s->addresses[s->address_count]))
            return ml_fail(err, ML_E_INVALID, "Redis: an address is not host:port");
        s->address_count++;
    } while (rest.p);
    return 0;
}

static int check(const struct ml_redis_options *o, struct ml_err *err)
{
    if (!*or_empty(o->addresses))
        return ml_fail(err, ML_E_INVALID, "Redis: no address");
    if (*or_empty(o->user) && !*or_empty(o->password))
        return ml_fail(err, ML_E_INVALID, "Redis: a user name without a password");
    if (o->mode == ML_REDIS_SENTINEL && !*or_empty(o->master))
        return ml_fail(err, ML_E_INVALID, "Redis: the sentinels need the master's name");
    if (o->mode == ML_REDIS_CLUSTER && o->db != 0)
        return ml_fail(err, ML_E_INVALID, "Redis: a cluster has no database but 0");
    if (*or_empty(o->ca_file) && !o->tls)
        return ml_fail(err, ML_E_INVALID, "Redis: a CA file, but TLS is off");
    return 0;
}

int ml_redis_setup_new(struct ml_redis_setup **ret, const struct ml_redis_options *o,
                       struct ml_err *err)
{
    int r = check(o, err);
    if (r < 0)
        return r;
    struct ml_redis_setup *s = ML_NEW(struct ml_redis_setup);
    s->mode = o->mode;
    s->user = ml_xstrdup(or_empty(o->user));
    s->password = ml_xstrdup(or_empty(o->password));
    s->master = ml_xstrdup(or_empty(o->master));
    snprintf(s->db, sizeof s->db, "%u", o->db);
    r = parse_addresses(s, o->addresses, err);
    if (r == 0 && o->tls)
        r = ml_redis_tls_setup(&s->tls, or_empty(o->ca_file), err);
    if (r == 0)
        *ret = s;
    else
        ml_redis_setup_free(s);
    return r;
}

void ml_redis_setup_free(struct ml_redis_setup *s)
{
    if (!s)
        return;
    ml_wipe(s->password, strlen(s->password));
    free(s->user);
    free(s->password);
    free(s->master);
    ml_redis_tls_free(s->tls);
    free(s);
}
