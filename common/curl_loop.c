#include "common/curl_loop.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/mem.h"

#define MAX_EVENTS 32 /* of curl's sockets, before others have their turn */

struct curl_loop {
        sd_event *loop;
        CURLM *multi;
        /*
         * curl's sockets, behind one descriptor for the loop. sd-event asks all that is ready again before each callback: with hundreds of
         * answers at once that would be most of the work. And curl says anew with each transfer what it waits for.
         */
        int epoll;
        sd_event_source *io;
        /*
         * curl moves its timer several times for every transfer. Ours only moves when it would ring too late, and when it rings too early
         * it is wound again: no system call for a transfer that goes well.
         */
        sd_event_source *timer;
        uint64_t due;          /* what curl asked for, microseconds of CLOCK_MONOTONIC; UINT64_MAX = nothing */
        uint64_t armed;        /* when the timer rings */
        bool busy;             /* inside curl: the timer is looked after when we are out of it */
        sd_event_source *kick; /* turn() is due */
        CURL *over;            /* found by curl_loop_start(), for curl_loop_next() */
        CURLcode over_code;
        curl_loop_turn_fn turn;
        void *user;
};

/* sd-event fails here for want of memory only. */
static void check(int r)
{
        if (r < 0)
                abort();
}

static void arm(struct curl_loop *l)
{
        if (l->due >= l->armed)
                return;
        l->armed = l->due;
        check(sd_event_source_set_time(l->timer, l->due));
        check(sd_event_source_set_enabled(l->timer, SD_EVENT_ONESHOT));
}

static void act(struct curl_loop *l, curl_socket_t fd, int mask)
{
        int running;

        l->busy = true;
        (void)curl_multi_socket_action(l->multi, fd, mask, &running);
        l->busy = false;
        arm(l);
}

/* curl ignores what is told of a socket that it has closed meanwhile. */
static void act_on(struct curl_loop *l, const struct epoll_event *e)
{
        int mask = 0;

        if (e->events & EPOLLIN)
                mask |= CURL_CSELECT_IN;
        if (e->events & EPOLLOUT)
                mask |= CURL_CSELECT_OUT;
        if (e->events & (EPOLLERR | EPOLLHUP))
                mask |= mask ? 0 : CURL_CSELECT_ERR;
        act(l, e->data.fd, mask);
}

static int on_io(_unused_ sd_event_source *s, _unused_ int fd, _unused_ uint32_t revents, void *user)
{
        struct curl_loop *l = user;
        struct epoll_event events[MAX_EVENTS];
        int n = epoll_wait(l->epoll, events, MAX_EVENTS, 0);

        for (int i = 0; i < n; i++)
                act_on(l, &events[i]);
        l->turn(l->user);
        return 0;
}

static uint64_t now(struct curl_loop *l)
{
        uint64_t t;

        check(sd_event_now(l->loop, CLOCK_MONOTONIC, &t));
        return t;
}

static int on_timer(_unused_ sd_event_source *s, _unused_ uint64_t usec, void *user)
{
        struct curl_loop *l = user;

        l->armed = UINT64_MAX;
        if (l->due > now(l)) {
                arm(l);
                return 0;
        }
        l->due = UINT64_MAX;
        act(l, CURL_SOCKET_TIMEOUT, 0);
        l->turn(l->user);
        return 0;
}

static int on_kick(_unused_ sd_event_source *s, void *user)
{
        struct curl_loop *l = user;

        l->turn(l->user);
        return 0;
}

/* known: not NULL for a socket that is in the set. */
static int on_curl_socket(_unused_ CURL *easy, curl_socket_t fd, int what, void *user, void *known)
{
        struct curl_loop *l = user;
        struct epoll_event e = {.events = (what & CURL_POLL_IN ? EPOLLIN : 0U) | (what & CURL_POLL_OUT ? EPOLLOUT : 0U), .data.fd = fd};

        if (what == CURL_POLL_REMOVE) {
                (void)epoll_ctl(l->epoll, EPOLL_CTL_DEL, fd, NULL);
                curl_multi_assign(l->multi, fd, NULL);
                return 0;
        }
        if (epoll_ctl(l->epoll, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &e) < 0)
                return -1;
        curl_multi_assign(l->multi, fd, l);
        return 0;
}

static int on_curl_timer(_unused_ CURLM *multi, long timeout_ms, void *user)
{
        struct curl_loop *l = user;

        l->due = timeout_ms < 0 ? UINT64_MAX : now(l) + (uint64_t)timeout_ms * 1000;
        if (!l->busy)
                arm(l);
        return 0;
}

void curl_loop_add(struct curl_loop *l, CURL *easy)
{
        if (curl_multi_add_handle(l->multi, easy) != CURLM_OK)
                abort();
}

/* One wake-up can bring many messages, and curl does not wake us for the rest. */
static bool next_over(struct curl_loop *l, CURL **easy, CURLcode *code)
{
        CURLMsg *m;
        int left;

        while ((m = curl_multi_info_read(l->multi, &left))) {
                if (m->msg != CURLMSG_DONE)
                        continue;
                *easy = m->easy_handle;
                *code = m->data.result;
                return true;
        }
        return false;
}

bool curl_loop_next(struct curl_loop *l, CURL **easy, CURLcode *code)
{
        if (!l->over)
                return next_over(l, easy, code);
        *easy = TAKE_PTR(l->over);
        *code = l->over_code;
        return true;
}

void curl_loop_kick(struct curl_loop *l)
{
        (void)sd_event_source_set_enabled(l->kick, SD_EVENT_ONESHOT);
}

void curl_loop_start(struct curl_loop *l, CURL *easy)
{
        l->busy = true;
        curl_loop_add(l, easy);
        l->due = UINT64_MAX; /* curl's wish to be called at once is granted */
        act(l, CURL_SOCKET_TIMEOUT, 0);
        if (l->over || next_over(l, &l->over, &l->over_code))
                curl_loop_kick(l);
}

void curl_loop_remove(struct curl_loop *l, CURL *easy)
{
        if (l->over == easy)
                l->over = NULL;
        curl_multi_remove_handle(l->multi, easy);
}

static int set_up_sources(struct curl_loop *l, struct err **err)
{
        int r;

        l->epoll = epoll_create1(EPOLL_CLOEXEC);
        if (l->epoll < 0)
                return err_sys(err, errno, "event loop for HTTP");
        r = sd_event_add_io(l->loop, &l->io, l->epoll, EPOLLIN, on_io, l);
        if (r >= 0)
                r = sd_event_add_time(l->loop, &l->timer, CLOCK_MONOTONIC, 0, 1, on_timer, l);
        if (r >= 0)
                r = sd_event_source_set_enabled(l->timer, SD_EVENT_OFF);
        if (r >= 0)
                r = sd_event_add_defer(l->loop, &l->kick, on_kick, l);
        if (r >= 0)
                r = sd_event_source_set_enabled(l->kick, SD_EVENT_OFF);
        return r < 0 ? err_sys(err, r, "event loop for HTTP") : 0;
}

int curl_loop_new(struct curl_loop **ret, sd_event *loop, unsigned max_idle, curl_loop_turn_fn turn, void *user, struct err **err)
{
        _cleanup_(curl_loop_freep) struct curl_loop *l = NULL;

        /* No TLS: unix sockets and the containers' own addresses are spoken to. */
        if (curl_global_init(CURL_GLOBAL_NOTHING) != CURLE_OK)
                return err_set(err, ERR_INTERNAL, "cannot initialise libcurl");
        l = NEW(struct curl_loop);
        *l = (struct curl_loop){.loop = sd_event_ref(loop),
                                .multi = curl_multi_init(),
                                .epoll = -1,
                                .due = UINT64_MAX,
                                .armed = UINT64_MAX,
                                .turn = turn,
                                .user = user};
        if (!l->multi)
                return err_set(err, ERR_INTERNAL, "cannot initialise libcurl");
        if (set_up_sources(l, err) < 0)
                return -1;
        curl_multi_setopt(l->multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket);
        curl_multi_setopt(l->multi, CURLMOPT_SOCKETDATA, l);
        curl_multi_setopt(l->multi, CURLMOPT_TIMERFUNCTION, on_curl_timer);
        curl_multi_setopt(l->multi, CURLMOPT_TIMERDATA, l);
        /* Those in use count, and at the bound a finished one is closed. */
        curl_multi_setopt(l->multi, CURLMOPT_MAXCONNECTS, (long)max_idle);
        *ret = TAKE_PTR(l);
        return 0;
}

struct curl_loop *curl_loop_free(struct curl_loop *l)
{
        if (!l)
                return NULL;
        if (l->multi)
                curl_multi_cleanup(l->multi);
        sd_event_source_disable_unref(l->io);
        if (l->epoll >= 0)
                close(l->epoll);
        sd_event_source_disable_unref(l->timer);
        sd_event_source_disable_unref(l->kick);
        sd_event_unref(l->loop);
        free(l);
        curl_global_cleanup();
        return NULL;
}
