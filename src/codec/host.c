/* Hosts of URLs and Host headers (RFC 3986 3.2, RFC 9110 7.2). Pure functions; any thread. */
#include "codec/path.h"

#include <arpa/inet.h>

enum { HOST_MAX_BYTES = 253 };

static bool is_host_byte(char c)
{
    return (c >= '0' && c <= '9') || (ml_lower(c) >= 'a' && ml_lower(c) <= 'z') || c == '-' ||
           c == '_' || c == '.';
}

/* Labels are not empty, but for one that a trailing dot leaves. */
static bool name_ok(struct ml_str name)
{
    bool label = false;
    if (name.n && name.p[name.n - 1] == '.')
        name.n--;
    if (name.n > HOST_MAX_BYTES)
        return false;
    for (size_t i = 0; i < name.n; i++) {
        if (!is_host_byte(name.p[i]) || (name.p[i] == '.' && !label))
            return false;
        label = name.p[i] != '.';
    }
    return label;
}

/* literal without its brackets. */
static bool ipv6_parse(struct ml_str literal, struct in6_addr *ret)
{
    char text[INET6_ADDRSTRLEN];
    if (literal.n == 0 || literal.n >= sizeof text || memchr(literal.p, 0, literal.n))
        return false;
    memcpy(text, literal.p, literal.n);
    text[literal.n] = 0;
    return inet_pton(AF_INET6, text, ret) == 1;
}

static struct ml_str inside_brackets(struct ml_str name)
{
    return ml_str(name.p + 1, name.n - 2);
}

static bool port_parse(struct ml_str digits, unsigned *ret)
{
    unsigned long long port;
    if (digits.n > 5 || !ml_str_u64(digits, &port) || port < 1 || port > 65535)
        return false;
    *ret = (unsigned)port;
    return true;
}

int ml_host_split(struct ml_str input, struct ml_str *ret_name, unsigned *ret_port,
                  struct ml_err *err)
{
    struct in6_addr address;
    bool literal = input.n && input.p[0] == '[';
    const char *end = input.n ? memchr(input.p, literal ? ']' : ':', input.n) : NULL;
    size_t n = end ? (size_t)(end - input.p) + (literal ? 1 : 0) : input.n;
    struct ml_str name = ml_str(input.p, n);
    unsigned port = 0;
    if (literal ? !end || !ipv6_parse(inside_brackets(name), &address) : !name_ok(name))
        return ml_fail(err, ML_E_INVALID, "host name is empty or has bytes that no host name has");
    if (n < input.n &&
        (input.p[n] != ':' || !port_parse(ml_str(input.p + n + 1, input.n - n - 1), &port)))
        return ml_fail(err, ML_E_INVALID, "port of a host is not a number from 1 to 65535");
    *ret_name = name;
    *ret_port = port;
    return 0;
}

/* One spelling an address: RFC 5952, as inet_ntop writes it. */
static struct ml_str ipv6_canonical(struct ml_arena *arena, struct ml_str name)
{
    struct in6_addr address;
    char text[INET6_ADDRSTRLEN];
    if (!ipv6_parse(inside_brackets(name), &address) ||
        !inet_ntop(AF_INET6, &address, text, sizeof text))
        return (struct ml_str){NULL, 0};
    return ml_arena_printf(arena, "[%s]", text);
}

static struct ml_str lower_name(struct ml_arena *arena, struct ml_str name)
{
    if (name.n && name.p[name.n - 1] == '.')
        name.n--;
    char *out = ml_arena_alloc(arena, name.n + 1);
    if (!out)
        return (struct ml_str){NULL, 0};
    for (size_t i = 0; i < name.n; i++)
        out[i] = ml_lower(name.p[i]);
    out[name.n] = 0;
    return ml_str(out, name.n);
}

int ml_host_parse(struct ml_arena *arena, struct ml_str input, struct ml_str *ret_name,
                  unsigned *ret_port, struct ml_err *err)
{
    struct ml_str name = {NULL, 0};
    unsigned port = 0;
    int r = ml_host_split(input, &name, &port, err);
    if (r < 0)
        return r;
    name = ml_str_starts(name, ML_STR("[")) ? ipv6_canonical(arena, name) : lower_name(arena, name);
    if (!name.p)
        return ml_fail(err, ML_E_NOMEM, "no memory left for the host of this request");
    *ret_name = name;
    *ret_port = port;
    return 0;
}
