/* Replies as trees, for hiredis' reader. Each lives in its connection's arena until it has been
 * handed over, so that freeing is nothing and size has a bound.
 *
 * The reader asks before it makes anything: an array that claims too much, a type that we never
 * asked for (RESP3), nesting that no command of ours needs or a full arena gets NULL, which ends
 * the connection. */
#include "client/redis_internal.h"

enum { NESTING_MAX = 7 }; /* hiredis before 1.0 has no more; later ones have no bound */

static struct ml_redis_reply *place(const redisReadTask *task, enum ml_redis_type type)
{
    struct ml_redis_reply *ret;
    if (task->parent) {
        struct ml_redis_reply *parent = task->parent->obj;
        if (task->idx < 0 || (size_t)task->idx >= parent->count)
            return NULL;
        ret = &parent->items[task->idx];
    } else {
        ret = ml_arena_alloc(task->privdata, sizeof *ret);
    }
    if (ret)
        *ret = (struct ml_redis_reply){.type = type};
    return ret;
}

static void *create_string(const redisReadTask *task, char *p, size_t n)
{
    enum ml_redis_type type;
    if (task->type == REDIS_REPLY_STRING)
        type = ML_REDIS_STRING;
    else if (task->type == REDIS_REPLY_STATUS)
        type = ML_REDIS_STATUS;
    else if (task->type == REDIS_REPLY_ERROR)
        type = ML_REDIS_ERROR;
    else
        return NULL;
    struct ml_redis_reply *ret = place(task, type);
    if (!ret)
        return NULL;
    ret->text = ml_arena_dup(task->privdata, ml_str(p, n));
    return ret->text.p ? ret : NULL;
}

static bool too_deep(const redisReadTask *task)
{
    size_t depth = 0;
    while ((task = task->parent) && depth < NESTING_MAX)
        depth++;
    return task != NULL;
}

static void *create_counted(const redisReadTask *task, long long count)
{
    if (task->type != REDIS_REPLY_ARRAY || count < 0 || count > ML_REDIS_ITEMS_MAX ||
        too_deep(task))
        return NULL;
    struct ml_redis_reply *ret = place(task, ML_REDIS_ARRAY);
    if (!ret || count == 0)
        return ret;
    size_t bytes = (size_t)count * sizeof *ret->items;
    ret->items = ml_arena_alloc(task->privdata, bytes);
    if (!ret->items)
        return NULL;
    memset(ret->items, 0, bytes);
    ret->count = (size_t)count;
    return ret;
}

static void *create_integer(const redisReadTask *task, long long value)
{
    struct ml_redis_reply *ret = place(task, ML_REDIS_INTEGER);
    if (ret)
        ret->integer = value;
    return ret;
}

static void *create_nil(const redisReadTask *task)
{
    return place(task, ML_REDIS_NIL);
}

static void free_object(void *object)
{
}

#if HIREDIS_MAJOR >= 1
static void *create_array(const redisReadTask *task, size_t count)
{
    return create_counted(task, count > ML_REDIS_ITEMS_MAX ? -1 : (long long)count);
}

static void *refuse_double(const redisReadTask *task, double value, char *p, size_t n)
{
    return NULL;
}

static void *refuse_bool(const redisReadTask *task, int value)
{
    return NULL;
}
#else
static void *create_array(const redisReadTask *task, int count)
{
    return create_counted(task, count);
}
#endif

static redisReplyObjectFunctions functions = {
    .createString = create_string,
    .createArray = create_array,
    .createInteger = create_integer,
    .createNil = create_nil,
    .freeObject = free_object,
#if HIREDIS_MAJOR >= 1
    .createDouble = refuse_double,
    .createBool = refuse_bool,
#endif
};

redisReader *ml_redis_reader_new(struct ml_arena *arena)
{
    redisReader *reader = redisReaderCreateWithFunctions(&functions);
    if (reader)
        reader->privdata = arena;
    return reader;
}
