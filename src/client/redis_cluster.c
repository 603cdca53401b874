/* Redis Cluster: which node has which of the 16,384 slots. The map is asked for when something says
 * that it is wrong, at most a few times a second; MOVED mends the one slot at once. One thread: the
 * loop's. */
#include "client/redis_internal.h"

#include <stdio.h>
#include <stdlib.h>

/* CRC-16/XMODEM of the key, or of what is between its first { and the next }. */
int ml_redis_slot_of(struct ml_str key)
{
    const char *open = key.n ? memchr(key.p, '{', key.n) : NULL;
    const char *end = open ? memchr(open, '}', key.n - (size_t)(open - key.p)) : NULL;
    if (end && end > open + 1)
        key = ml_str(open + 1, (size_t)(end - open - 1));
    unsigned crc = 0;
    for (size_t i = 0; i < key.n; i++) {
        crc ^= (unsigned)(unsigned char)key.p[i] << 8;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1;
    }
    return (int)(crc & (ML_REDIS_SLOTS - 1));
}

/* NULL: there are too many. */
static struct ml_redis_node *find_or_add(struct ml_redis *r, const struct ml_redis_address *address)
{
    struct ml_redis_node *unused = NULL;
    for (size_t i = 0; i < ML_REDIS_NODES_MAX; i++) {
        struct ml_redis_node *node = &r->nodes[i];
        if (node->used && ml_redis_same_address(&node->address, address))
            return node;
        if (!node->used && !unused)
            unused = node;
    }
    if (unused)
        ml_redis_node_use(unused, address);
    return unused;
}

static void add_seeds(struct ml_redis *r)
{
    for (size_t i = 0; i < r->setup->address_count; i++)
        find_or_add(r, &r->setup->addresses[i]);
}

void ml_redis_cluster_init(struct ml_redis *r)
{
    memset(r->slots, ML_REDIS_NO_NODE, sizeof r->slots);
    add_seeds(r);
    r->map_wanted = true;
}

/* A node that does not know its own name says "", NULL or "?": then it is whom we asked. */
static bool read_address(const struct ml_redis_reply *node, const struct ml_redis_conn *from,
                         struct ml_redis_address *ret)
{
    char text[sizeof ret->host + 32];
    if (node->type != ML_REDIS_ARRAY || node->count < 2 || node->items[1].type != ML_REDIS_INTEGER)
        return false;
    struct ml_str host = node->items[0].text;
    if (host.n == 0 || ml_str_eq(host, ML_STR("?")))
        host = ml_str_z(from->address.host);
    int n = snprintf(text, sizeof text, "%.*s:%lld", ML_FMT(host), node->items[1].integer);
    return n > 0 && (size_t)n < sizeof text && ml_redis_parse_address(ml_str_z(text), "", ret);
}

/* [first, last, [host, port, ...], replicas...] */
static bool read_range(struct ml_redis *r, const struct ml_redis_reply *range, uint8_t *slots,
                       size_t *left)
{
    struct ml_redis_address address;
    if (range->type != ML_REDIS_ARRAY || range->count < 3 ||
        !read_address(&range->items[2], r->answering, &address))
        return false;
    long long first = range->items[0].integer, last = range->items[1].integer;
    if (first < 0 || last < first || last >= ML_REDIS_SLOTS || (size_t)(last - first) >= *left)
        return false;
    struct ml_redis_node *node = find_or_add(r, &address);
    if (!node)
        return false;
    size_t n = (size_t)(last - first) + 1;
    memset(slots + first, (int)(node - r->nodes), n);
    node->slots += (unsigned)n;
    *left -= n;
    return true;
}

/* Nodes without a slot are left: replicas, and who went away. */
static void retire(struct ml_redis *r)
{
    for (size_t i = 0; i < ML_REDIS_NODES_MAX; i++) {
        struct ml_redis_node *node = &r->nodes[i];
        if (!node->used || node->slots > 0)
            continue;
        node->used = false;
        if (node->conn)
            ml_redis_conn_fail(node->conn, ML_E_UNAVAILABLE, "has no slots any more");
    }
}

static bool apply(struct ml_redis *r, const struct ml_redis_reply *reply)
{
    uint8_t slots[ML_REDIS_SLOTS];
    size_t left = ML_REDIS_SLOTS;
    memset(slots, ML_REDIS_NO_NODE, sizeof slots);
    for (size_t i = 0; i < ML_REDIS_NODES_MAX; i++)
        r->nodes[i].slots = 0;
    bool ok = reply->type == ML_REDIS_ARRAY && reply->count > 0;
    for (size_t i = 0; ok && i < reply->count; i++)
        ok = read_range(r, &reply->items[i], slots, &left);
    if (!ok)
        return false;
    memcpy(r->slots, slots, sizeof slots);
    r->mapped = left == 0;
    return true;
}

static void on_map(void *arg, const struct ml_redis_answer *answer)
{
    struct ml_redis *r = arg;
    r->mapping = false;
    if (r->closing)
        return;
    r->map_ms = ml_redis_retry_at(r, 5);
    bool ok = answer->error == 0 && apply(r, answer->reply);
    if (ok)
        retire(r);
    else
        add_seeds(r);
    if (!ok || !r->mapped)
        ml_redis_cluster_doubt(r);
    ml_redis_plan(r, r->map_ms);
}

void ml_redis_cluster_tend(struct ml_redis *r, uint64_t now)
{
    static const struct ml_str ask[] = {ML_STR("CLUSTER"), ML_STR("SLOTS")};
    if (!r->map_wanted || r->mapping)
        return;
    if (r->map_ms > now) {
        ml_redis_plan(r, r->map_ms);
        return;
    }
    r->map_wanted = false;
    r->mapping = true;
    ml_redis_call(r, ask, 2, 0, on_map, r);
}

void ml_redis_cluster_doubt(struct ml_redis *r)
{
    r->map_wanted = true;
    ml_redis_plan(r, r->map_ms);
}

/* "MOVED 3999 host:port", "ASK 3999 host:port" */
bool ml_redis_redirect(struct ml_redis_command *cmd, const struct ml_redis_conn *from,
                       struct ml_str error)
{
    struct ml_redis *r = cmd->client;
    struct ml_redis_address address;
    struct ml_str rest, word = ml_str_cut(error, ' ', &rest);
    struct ml_str number = ml_str_cut(rest, ' ', &rest);
    unsigned long long slot;
    char text[sizeof address.host + 8];
    bool unnamed = rest.n > 0 && rest.p[0] == ':';
    int n = snprintf(text, sizeof text, "%s%.*s", unnamed ? from->address.host : "", ML_FMT(rest));
    if (++cmd->redirects > ML_REDIS_REDIRECTS_MAX || !ml_str_u64(number, &slot) ||
        slot >= ML_REDIS_SLOTS || n <= 0 || (size_t)n >= sizeof text ||
        !ml_redis_parse_address(ml_str_z(text), "", &address))
        return false;
    struct ml_redis_node *node = find_or_add(r, &address);
    if (!node)
        return false;
    cmd->asking = ml_str_eq(word, ML_STR("ASK"));
    if (!cmd->asking) {
        r->slots[slot] = (uint8_t)(node - r->nodes);
        ml_redis_cluster_doubt(r);
    }
    ml_redis_node_send(node, cmd);
    return true;
}
