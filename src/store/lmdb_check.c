/* A walk over the trees of an LMDB file by pread: each page is what it says it is, each node lies
 * in its page, each child in the file, no page is used twice or used and free, the counts agree.
 *
 * Layout (little or big endian as the machine): a page's head has its number 8, pad 2, flags 2,
 * lower 2, upper 2 (of an overflow page: the number of pages 4), then the offsets of the nodes, 2
 * each. A node has 4 + 2 bytes of data size and flags (of a branch: the 48 bits of the child), key
 * size 2, key, data. A tree's record has pad 4 (of the first in a meta page: the page size), flags
 * 2, depth 2, branch, leaf and overflow pages, entries, root, 8 each. A meta page has magic 4 and
 * version 4 at 16, the records of free pages and of the main tree at 40 and 88, last page 136,
 * transaction 144. */
#include "store/lmdb_check.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    PAGE_HEAD = 16,
    NODE_HEAD = 8,
    META_BYTES = 152,
    TREE_BYTES = 48,
    DEPTH_MAX = 32,
    KEY_MAX = 511,
    BRANCH = 1,
    LEAF = 2,
    BIG_DATA = 1, /* of a node: its data is the number of an overflow page */
    SUB_TREE = 2, /* its data is a tree's record */
};

static const uint64_t no_page = UINT64_MAX;

struct tree {
    uint64_t branches, leaves, overflow, entries, root;
    unsigned depth, flags;
};

struct walk {
    int fd;
    uint64_t page_bytes, last;
    uint8_t *used;                 /* a bit a page */
    uint8_t *pages[DEPTH_MAX + 1]; /* of the way down */
    struct tree seen;              /* of the tree that is walked */
    bool free_tree, main_tree;
    const char *why;
};

static uint64_t number(const uint8_t *p, size_t bytes)
{
    union {
        uint16_t two;
        uint32_t four;
        uint64_t eight;
    } n;
    memcpy(&n, p, bytes);
    return bytes == 2 ? n.two : bytes == 4 ? n.four : n.eight;
}

static bool bad(struct walk *w, const char *why)
{
    w->why = why;
    return false;
}

/* Marks a run of pages; false when one of them is out of the file or used already. */
static bool use(struct walk *w, uint64_t page, uint64_t count)
{
    if (page < 2 || count == 0 || page > w->last || count > w->last - page + 1)
        return bad(w, "a page lies outside of it");
    for (uint64_t i = page; i < page + count; i++) {
        if (w->used[i / 8] & 1 << i % 8)
            return bad(w, "a page is used twice");
        w->used[i / 8] |= (uint8_t)(1 << i % 8);
    }
    return true;
}

static bool read_page(struct walk *w, uint64_t page, uint8_t *to, size_t n)
{
    return pread(w->fd, to, n, (off_t)(page * w->page_bytes)) == (ssize_t)n ||
           bad(w, "it cannot be read");
}

static bool read_tree(struct walk *w, const uint8_t *p, unsigned flags, struct tree *ret)
{
    *ret = (struct tree){.flags = (unsigned)number(p + 4, 2) & 0xff, /* above: of the file */
                         .depth = (unsigned)number(p + 6, 2),
                         .branches = number(p + 8, 8),
                         .leaves = number(p + 16, 8),
                         .overflow = number(p + 24, 8),
                         .entries = number(p + 32, 8),
                         .root = number(p + 40, 8)};
    if (ret->flags != flags || ret->depth > DEPTH_MAX)
        return bad(w, "a tree is not one of ours");
    return true;
}

/* A list of free pages: their count, then their numbers. */
static bool check_free(struct walk *w, const uint8_t *data, size_t n)
{
    uint64_t count = n >= 8 ? number(data, 8) : n;
    if (n < 8 || n % 8 != 0 || count != n / 8 - 1)
        return bad(w, "a list of free pages is damaged");
    for (uint64_t i = 1; i <= count; i++)
        if (!use(w, number(data + 8 * i, 8), 1))
            return false;
    return true;
}

static bool check_big_free(struct walk *w, uint64_t page, size_t n)
{
    uint8_t *data = malloc(n + PAGE_HEAD);
    bool good = data ? read_page(w, page, data, n + PAGE_HEAD) && check_free(w, data + PAGE_HEAD, n)
                     : bad(w, "no memory to check it");
    free(data);
    return good;
}

/* The trees below the main one are walked when it is done. */
struct later {
    struct tree trees[8];
    size_t n;
};

static bool check_data(struct walk *w, const uint8_t *data, size_t n, unsigned flags,
                       struct later *later)
{
    if (flags == BIG_DATA) {
        uint64_t page = number(data, 8), count = (PAGE_HEAD - 1 + n) / w->page_bytes + 1;
        w->seen.overflow += count;
        return use(w, page, count) && (!w->free_tree || check_big_free(w, page, n));
    }
    if (flags == SUB_TREE && w->main_tree) {
        if (n != TREE_BYTES || later->n == sizeof later->trees / sizeof later->trees[0])
            return bad(w, "a tree is not one of ours");
        return read_tree(w, data, 0, &later->trees[later->n++]);
    }
    if (flags != 0)
        return bad(w, "a node is not one of ours");
    return !w->free_tree || check_free(w, data, n);
}

static bool check_page(struct walk *w, uint64_t page, unsigned depth, unsigned leaf_depth,
                       struct later *later);

static bool check_node(struct walk *w, const uint8_t *p, uint64_t offset, bool leaf, unsigned depth,
                       unsigned leaf_depth, struct later *later)
{
    if (offset + NODE_HEAD > w->page_bytes || offset % 2 != 0)
        return bad(w, "a node lies outside of its page");
    const uint8_t *node = p + offset;
    uint64_t low = number(node, 2) | number(node + 2, 2) << 16, key = number(node + 6, 2);
    unsigned flags = (unsigned)number(node + 4, 2);
    uint64_t data = !leaf ? 0 : flags & BIG_DATA ? 8 : low;
    if (key > KEY_MAX || offset + NODE_HEAD + key + data > w->page_bytes)
        return bad(w, "a node lies outside of its page");
    if (!leaf)
        return check_page(w, low | (uint64_t)flags << 32, depth + 1, leaf_depth, later);
    w->seen.entries++;
    if (w->free_tree && key != 8)
        return bad(w, "a list of free pages is damaged");
    return check_data(w, node + NODE_HEAD + key, (size_t)low, flags, later);
}

static bool check_page(struct walk *w, uint64_t page, unsigned depth, unsigned leaf_depth,
                       struct later *later)
{
    bool leaf = depth == leaf_depth;
    if (!use(w, page, 1))
        return false;
    if (!w->pages[depth] && !(w->pages[depth] = malloc(w->page_bytes)))
        return bad(w, "no memory to check it");
    uint8_t *p = w->pages[depth];
    if (!read_page(w, page, p, w->page_bytes))
        return false;
    uint64_t lower = number(p + 12, 2), upper = number(p + 14, 2);
    uint64_t nodes = (lower - PAGE_HEAD) / 2;
    if (number(p, 8) != page || number(p + 10, 2) != (leaf ? LEAF : BRANCH) || lower < PAGE_HEAD ||
        lower % 2 != 0 || lower > upper || upper > w->page_bytes || nodes < (leaf ? 1 : 2))
        return bad(w, "a page is damaged");
    w->seen.leaves += leaf;
    w->seen.branches += !leaf;
    for (uint64_t i = 0; i < nodes; i++) {
        uint64_t offset = number(p + PAGE_HEAD + 2 * i, 2);
        if (offset < upper)
            return bad(w, "a node lies outside of its page");
        if (!check_node(w, p, offset, leaf, depth, leaf_depth, later))
            return false;
    }
    return true;
}

static bool check_tree(struct walk *w, const struct tree *t, bool main_tree)
{
    struct later later = {.n = 0};
    w->seen = (struct tree){.root = t->root};
    w->main_tree = main_tree;
    if (t->root != no_page && !check_page(w, t->root, 1, t->depth, &later))
        return false;
    if (w->seen.entries != t->entries || w->seen.leaves != t->leaves ||
        w->seen.branches != t->branches || w->seen.overflow != t->overflow ||
        (t->root == no_page && t->depth != 0))
        return bad(w, "a tree's counts are wrong");
    for (size_t i = 0; i < later.n; i++)
        if (!check_tree(w, &later.trees[i], false))
            return false;
    return true;
}

static bool check_trees(struct walk *w, const uint8_t *meta)
{
    enum { INTEGER_KEY = 8 };
    struct tree free_pages, main_tree;
    if (!read_tree(w, meta + 40, INTEGER_KEY, &free_pages) ||
        !read_tree(w, meta + 88, 0, &main_tree))
        return false;
    w->free_tree = true;
    if (!check_tree(w, &free_pages, false))
        return false;
    w->free_tree = false;
    return check_tree(w, &main_tree, true);
}

static bool is_meta(const uint8_t *p, uint64_t page, uint64_t page_bytes)
{
    enum { META = 8 };
    return number(p, 8) == page && number(p + 10, 2) == META && number(p + 16, 4) == 0xBEEFC0DE &&
           number(p + 20, 4) == 1 && number(p + 40, 4) == page_bytes;
}

static bool check_file(struct walk *w, off_t size)
{
    uint8_t first[META_BYTES], second[META_BYTES];
    if (pread(w->fd, first, sizeof first, 0) != sizeof first)
        return bad(w, "it is too short");
    w->page_bytes = number(first + 40, 4);
    if (w->page_bytes < 512 || w->page_bytes > 32768 ||
        (w->page_bytes & (w->page_bytes - 1)) != 0 || !is_meta(first, 0, w->page_bytes))
        return bad(w, "it is not an LMDB file");
    if (pread(w->fd, second, sizeof second, (off_t)w->page_bytes) != sizeof second ||
        !is_meta(second, 1, w->page_bytes))
        return bad(w, "its second meta page is damaged");
    const uint8_t *newest = number(first + 144, 8) < number(second + 144, 8) ? second : first;
    w->last = number(newest + 136, 8);
    if (w->last < 1 || w->last >= (uint64_t)size / w->page_bytes)
        return bad(w, "it is shorter than it says");
    w->used = calloc(1, w->last / 8 + 1);
    return w->used ? check_trees(w, newest) : bad(w, "no memory to check it");
}

const char *ml_lmdb_check(int fd, off_t size)
{
    struct walk w = {.fd = fd};
    if (size > 0)
        check_file(&w, size);
    for (size_t i = 0; i <= DEPTH_MAX; i++)
        free(w.pages[i]);
    free(w.used);
    return w.why;
}
