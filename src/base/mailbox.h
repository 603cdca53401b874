/* The only way from one thread to another: a list of letters and a wake-up. */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <uv.h>

struct ml_letter {
    struct ml_letter *next;
    void (*read)(struct ml_letter *letter); /* on the owner's thread; may free the letter */
};

struct ml_mailbox {
    uv_async_t wake;
    pthread_mutex_t lock;
    struct ml_letter *first, **last;
    bool closed;
};

/* On the owner's thread, before anybody posts. 0 or a libuv error. */
int ml_mailbox_open(struct ml_mailbox *m, uv_loop_t *loop);
/* Any thread. The letter belongs to the mailbox until it is read. false when closed: it was not
 * taken. */
bool ml_mailbox_post(struct ml_mailbox *m, struct ml_letter *letter);
/* On the owner's thread: reads what is there, refuses what comes later, closes the handle
 * (the loop must run once more before the memory may go). */
void ml_mailbox_close(struct ml_mailbox *m);
/* The same; closed(handle) runs when the memory may go. handle->data is m. */
void ml_mailbox_close_then(struct ml_mailbox *m, uv_close_cb closed);
