/* For groups whose tests have one world each: it and its shared stores. */
#pragma once

#include "world.h"

static struct shared shared;
static struct world world;

static int open_world(void **state)
{
    shared_open(&shared);
    world_open(&world, &shared);
    return 0;
}

static int close_world(void **state)
{
    world_close(&world);
    shared_close(&shared);
    return 0;
}
