/* Redis replies: however they are cut into pieces, the same trees come out, within bounds. */
#include "fuzz.h"

#include "client/redis_internal.h"

struct sum {
    uint64_t hash;
    unsigned replies;
    bool failed;
};

static void add(struct sum *s, const void *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        s->hash = (s->hash ^ ((const uint8_t *)p)[i]) * 1099511628211ULL;
}

static void add_reply(struct sum *s, const struct ml_redis_reply *reply, unsigned depth)
{
    ML_REQUIRE(depth < 16 && reply->count <= ML_REDIS_ITEMS_MAX);
    ML_REQUIRE(reply->count == 0 || reply->type == ML_REDIS_ARRAY);
    add(s, &reply->type, sizeof reply->type);
    add(s, &reply->integer, sizeof reply->integer);
    if (reply->text.n)
        add(s, reply->text.p, reply->text.n);
    for (size_t i = 0; i < reply->count; i++)
        add_reply(s, &reply->items[i], depth + 1);
}

static struct sum read_all(struct ml_str in, size_t piece)
{
    struct ml_arena arena;
    struct sum s = {.hash = 14695981039346656037ULL};
    ml_arena_init(&arena, ML_REDIS_ARENA_BYTES);
    redisReader *reader = ml_redis_reader_new(&arena);
    ML_REQUIRE(reader);
    for (size_t at = 0; at < in.n && !s.failed; at += piece) {
        size_t n = in.n - at < piece ? in.n - at : piece;
        ML_REQUIRE(redisReaderFeed(reader, in.p + at, n) == REDIS_OK);
        void *reply = NULL;
        while (!(s.failed = redisReaderGetReply(reader, &reply) != REDIS_OK) && reply) {
            add_reply(&s, reply, 0);
            s.replies++;
            ml_arena_reset(&arena);
            reply = NULL;
        }
    }
    redisReaderFree(reader);
    ml_arena_done(&arena);
    return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct ml_str in = fuzz_str(data + 1, size - 1);
    struct sum whole = read_all(in, in.n + 1), pieces = read_all(in, 1 + data[0] % 16);
    ML_REQUIRE(whole.failed == pieces.failed && whole.replies == pieces.replies);
    ML_REQUIRE(whole.hash == pieces.hash);
    return 0;
}
