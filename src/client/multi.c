/* curl's multi interface on uv: a uv_poll per socket that curl watches, a timer, and results read
 * after each call. curl is never called from its own callbacks; those only start and stop uv
 * handles. The poll of a connection goes on while the connection is idle, until curl closes it or
 * the peer says something: the next transfer on it costs no system call for that. One thread. */
#include "client/internal.h"

#include "base/log.h"
#include "base/mem.h"

#include <stdlib.h>
#include <unistd.h>

/* Owned by the loop from its init until it has closed; counts as a handle of u. */
struct ml_watch {
    uv_poll_t poll;
    struct ml_upstream *upstream;
    struct ml_watch *next; /* of the upstream's, while it is not closing */
    curl_socket_t fd;
    int events; /* what the poll waits for; 0: it is stopped */
    bool idle;  /* an open connection that no transfer uses */
};

static void on_watch_closed(uv_handle_t *handle)
{
    struct ml_watch *w = handle->data;
    struct ml_upstream *u = w->upstream;
    free(w);
    ml_upstream_handle_gone(u);
}

/* Moves what it finds to the front: curl uses the same connections again, busy times apart. */
static struct ml_watch *watch_find(struct ml_upstream *u, curl_socket_t fd)
{
    struct ml_watch **link = &u->watches, *w;
    while ((w = *link) && w->fd != fd)
        link = &w->next;
    if (w) {
        *link = w->next;
        w->next = u->watches;
        u->watches = w;
    }
    return w;
}

static void watch_close(struct ml_upstream *u, curl_socket_t fd)
{
    struct ml_watch *w = watch_find(u, fd);
    if (!w)
        return;
    u->watches = w->next;
    uv_close((uv_handle_t *)&w->poll, on_watch_closed);
}

/* The poll ends before the number of the socket can be another one's. */
int ml_multi_close_socket(void *arg, curl_socket_t fd)
{
    watch_close(arg, fd);
    return close(fd);
}

/* An error (status < 0: uv has stopped the poll) is first shown to curl as readiness: what it then
 * reads or writes fails by itself, and on a connection that the peer closed while it was idle curl
 * tries anew, which it does not after CURL_CSELECT_ERR. Only when it has seen nothing and would
 * wait for ever it is told. */
static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct ml_watch *w =
        poll->data; /* there until its close callback, which does not run in here */
    struct ml_upstream *u = w->upstream;
    if (status < 0)
        w->events = 0;
    if (w->idle) { /* the peer has closed it, or is about to: curl looks before it uses it again */
        uv_poll_stop(poll);
        w->events = 0;
        return;
    }
    int flags = status < 0 ? CURL_CSELECT_IN | CURL_CSELECT_OUT : 0;
    if (events & UV_READABLE)
        flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        flags |= CURL_CSELECT_OUT;
    ml_multi_act(u, w->fd, flags);
    uv_handle_t *handle = (uv_handle_t *)poll;
    if (status < 0 && !uv_is_closing(handle) && !uv_is_active(handle))
        ml_multi_act(u, w->fd, CURL_CSELECT_ERR);
    ml_fetch_pump(u);
}

static struct ml_watch *watch_new(struct ml_upstream *u, curl_socket_t fd)
{
    struct ml_watch *w = ML_NEW(struct ml_watch);
    if (uv_poll_init_socket(u->client->options.loop, &w->poll, fd) < 0) {
        free(w);
        return NULL;
    }
    w->poll.data = w;
    w->upstream = u;
    w->fd = fd;
    w->next = u->watches;
    u->watches = w;
    u->handles++;
    return w;
}

/* A transfer leaves its socket. Where an answer came in, that is a connection, which curl closes
 * by ml_multi_close_socket only; any other (one that lost the race to connect, one of a resolver)
 * it may close behind our back at once. */
static void leave_socket(struct ml_upstream *u, struct ml_watch *w, CURL *easy)
{
    struct ml_slot *s = NULL;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&s);
    if (s && s->header_bytes > 0)
        w->idle = true;
    else
        watch_close(u, w->fd);
}

/* CURLMOPT_SOCKETFUNCTION. */
static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *unused)
{
    struct ml_upstream *u = arg;
    struct ml_watch *w = watch_find(u, fd);
    if (what == CURL_POLL_REMOVE || what == CURL_POLL_NONE) {
        if (w)
            leave_socket(u, w, easy);
        return 0;
    }
    if (!w && !(w = watch_new(u, fd)))
        return -1;
    w->idle = false;
    int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
    if (events == w->events)
        return 0;
    w->events = events;
    return uv_poll_start(&w->poll, events, on_poll) < 0 ? -1 : 0;
}

static void on_timer(uv_timer_t *timer)
{
    struct ml_upstream *u = timer->data;
    ml_multi_act(u, CURL_SOCKET_TIMEOUT, 0);
    ml_fetch_pump(u);
}

/* CURLMOPT_TIMERFUNCTION. 0 fires on the loop's next turn; -1 stops. */
static int on_timeout(CURLM *multi, long ms, void *arg)
{
    struct ml_upstream *u = arg;
    if (ms < 0)
        uv_timer_stop(&u->multi_timer);
    else
        uv_timer_start(&u->multi_timer, on_timer, (uint64_t)ms, 0);
    return 0;
}

int ml_multi_open(struct ml_upstream *u)
{
    CURLM *m = curl_multi_init();
    if (!m)
        return ML_E_NOMEM;
    u->multi = m;
    long connections = (long)u->client->options.in_flight;
    curl_multi_setopt(m, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(m, CURLMOPT_SOCKETDATA, u);
    curl_multi_setopt(m, CURLMOPT_TIMERFUNCTION, on_timeout);
    curl_multi_setopt(m, CURLMOPT_TIMERDATA, u);
    curl_multi_setopt(m, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
    curl_multi_setopt(m, CURLMOPT_MAXCONNECTS, connections);
    return 0;
}

void ml_multi_close(struct ml_upstream *u)
{
    /* Calls on_socket for what it still watches, closes connections: u is there until those polls
     * have closed. */
    curl_multi_cleanup(u->multi);
    while (u->watches)
        watch_close(u, u->watches->fd);
    u->multi = NULL;
    uv_timer_stop(&u->multi_timer);
}

/* After an error all transfers are in an unknown state (curl_multi_socket_action(3)): none is
 * believed. */
static void start_over(struct ml_upstream *u, CURLMcode code)
{
    ml_log(ML_LOG_ERROR, "outbound HTTP of an upstream starts over", ML_FZ("upstream", u->name),
           ML_FZ("error", curl_multi_strerror(code)));
    ml_fetch_fail_running(u, ML_E_UNAVAILABLE, "the transfer was lost");
    ml_slots_free(u);
    ml_multi_close(u);
    ML_REQUIRE(ml_multi_open(u) == 0);
}

void ml_multi_act(struct ml_upstream *u, curl_socket_t fd, int events)
{
    int running, left;
    CURLMsg *message;
    CURLMcode code = curl_multi_socket_action(u->multi, fd, events, &running);
    if (code != CURLM_OK) {
        start_over(u, code);
        return;
    }
    /* Read always, also when nothing runs any more: the last transfer may have ended on a timer. */
    while ((message = curl_multi_info_read(u->multi, &left))) {
        struct ml_slot *s = NULL;
        CURLcode result = message->data.result;
        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&s);
        ml_fetch_finished(s->fetch, result);
    }
}
