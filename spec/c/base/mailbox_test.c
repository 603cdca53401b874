/* The mailbox across threads: every letter is read once, in its sender's order, or refused. */
#include "base/mailbox.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SENDERS = 4, LETTERS = 5000 };

struct numbered {
    struct ml_letter letter;
    int sender, number;
};

static struct ml_mailbox box;
static int next_number[SENDERS], read_count;
static _Atomic int refused;
static int close_after; /* letters; 0: only when all are there */

static void on_read(struct ml_letter *letter)
{
    struct numbered *n = ML_CONTAINER(letter, struct numbered, letter);
    assert_int_equal(n->number, next_number[n->sender]);
    next_number[n->sender]++;
    free(n);
    read_count++;
    if (read_count == (close_after ? close_after : SENDERS * LETTERS))
        uv_stop(box.wake.loop);
}

static void *send_all(void *arg)
{
    for (int i = 0; i < LETTERS; i++) {
        struct numbered *n = ML_NEW(struct numbered);
        n->letter.read = on_read;
        n->sender = (int)(intptr_t)arg;
        n->number = i;
        if (!ml_mailbox_post(&box, &n->letter)) {
            refused++;
            free(n);
        }
    }
    return NULL;
}

static void run(int until)
{
    uv_loop_t loop;
    pthread_t senders[SENDERS];
    memset(next_number, 0, sizeof next_number);
    read_count = 0;
    refused = 0;
    close_after = until;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(ml_mailbox_open(&box, &loop), 0);
    for (int i = 0; i < SENDERS; i++)
        assert_int_equal(pthread_create(&senders[i], NULL, send_all, (void *)(intptr_t)i), 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    ml_mailbox_close(&box); /* while senders may still post */
    for (int i = 0; i < SENDERS; i++)
        pthread_join(senders[i], NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    assert_int_equal(read_count + refused, SENDERS * LETTERS);
}

static void all_arrive(void **state)
{
    run(0);
    assert_int_equal(refused, 0);
    for (int i = 0; i < SENDERS; i++)
        assert_int_equal(next_number[i], LETTERS);
}

static void none_is_lost_at_the_close(void **state)
{
    run(100);
    assert_true(read_count >= 100);
}

static void a_closed_box_refuses(void **state)
{
    uv_loop_t loop;
    struct numbered late = {.letter = {.read = on_read}};
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(ml_mailbox_open(&box, &loop), 0);
    ml_mailbox_close(&box);
    assert_false(ml_mailbox_post(&box, &late.letter));
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_arrive),
        cmocka_unit_test(none_is_lost_at_the_close),
        cmocka_unit_test(a_closed_box_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
