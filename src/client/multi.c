/* curl's multi interface on uv: a uv_poll per socket that curl watches, a timer, and results read
 * after each call. curl is never called from its own callbacks; those only start and stop uv
 * handles. One thread. */
#include "client/internal.h"

#include "base/log.h"
#include "base/mem.h"

#include <stdlib.h>

/* Owned by the loop from its init until it has closed; counts as a handle of u. */
struct watch {
    uv_poll_t poll;
    struct ml_upstream *upstream;
    curl_socket_t fd;
};

static void on_watch_closed(uv_handle_t *handle)
{
    struct watch *w = handle->data;
    struct ml_upstream *u = w->upstream;
    free(w);
    ml_upstream_handle_gone(u);
}

/* An error (status < 0: uv has stopped the poll) is first shown to curl as readiness: what it then
 * reads or writes fails by itself, and on a connection that the peer closed while it was idle curl
 * tries anew, which it does not after CURL_CSELECT_ERR. Only when it has seen nothing and would
 * wait for ever it is told. */
static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct watch *w = poll->data; /* there until its close callback, which does not run in here */
    struct ml_upstream *u = w->upstream;
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

static struct watch *watch_new(struct ml_upstream *u, curl_socket_t fd)
{
    struct watch *w = ML_NEW(struct watch);
    if (uv_poll_init_socket(u->client->options.loop, &w->poll, fd) < 0) {
        free(w);
        return NULL;
    }
    w->poll.data = w;
    w->upstream = u;
    w->fd = fd;
    u->handles++;
    return w;
}

/* CURLMOPT_SOCKETFUNCTION. After POLL_REMOVE curl may close fd: the poll stops at once. */
static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *assigned)
{
    struct ml_upstream *u = arg;
    struct watch *w = assigned;
    if (what == CURL_POLL_REMOVE || what == CURL_POLL_NONE) {
        if (w) {
            uv_close((uv_handle_t *)&w->poll, on_watch_closed);
            curl_multi_assign(u->multi, fd, NULL);
        }
        return 0;
    }
    if (!w) {
        w = watch_new(u, fd);
        if (!w)
            return -1;
        if (curl_multi_assign(u->multi, fd, w) != CURLM_OK) {
            uv_close((uv_handle_t *)&w->poll, on_watch_closed);
            return -1;
        }
    }
    int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
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
    /* Calls on_socket for what it still watches: u is there until those polls have closed. */
    curl_multi_cleanup(u->multi);
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
