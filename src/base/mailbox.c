/* Mailbox: owned by the thread whose loop it wakes; post is for all threads. */
#include "base/mailbox.h"

#include <stddef.h>

/* uv_async_send calls coalesce, so that each wake-up must take the whole list. */
static void read_all(struct ml_mailbox *m)
{
    pthread_mutex_lock(&m->lock);
    struct ml_letter *letter = m->first;
    m->first = NULL;
    m->last = &m->first;
    pthread_mutex_unlock(&m->lock);
    while (letter) {
        struct ml_letter *next = letter->next;
        letter->read(letter);
        letter = next;
    }
}

static void on_wake(uv_async_t *wake)
{
    read_all(wake->data);
}

int ml_mailbox_open(struct ml_mailbox *m, uv_loop_t *loop)
{
    *m = (struct ml_mailbox){.first = NULL};
    m->last = &m->first;
    pthread_mutex_init(&m->lock, NULL);
    int r = uv_async_init(loop, &m->wake, on_wake);
    m->wake.data = m;
    return r;
}

bool ml_mailbox_post(struct ml_mailbox *m, struct ml_letter *letter)
{
    pthread_mutex_lock(&m->lock);
    bool open = !m->closed;
    if (open) {
        letter->next = NULL;
        *m->last = letter;
        m->last = &letter->next;
        uv_async_send(&m->wake);
    }
    pthread_mutex_unlock(&m->lock);
    return open;
}

void ml_mailbox_close_then(struct ml_mailbox *m, uv_close_cb closed)
{
    pthread_mutex_lock(&m->lock);
    m->closed = true;
    pthread_mutex_unlock(&m->lock);
    read_all(m);
    uv_close((uv_handle_t *)&m->wake, closed);
}

void ml_mailbox_close(struct ml_mailbox *m)
{
    ml_mailbox_close_then(m, NULL);
}
