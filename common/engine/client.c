#include <errno.h>
#include <sys/epoll.h>
#include <sys/un.h>

#include "common/engine/internal.h"

/* -- curl and the loop ------------------------------------------------------------------------------------------------------- */

/* Callbacks into owners happen here and below only, never inside curl. Every step may change the list or free the engine. */
static void deliver_all(struct engine *e)
{
        struct engine_call *c;

        for (c = e->calls; c && !e->dead;) {
                if (c->easy && ((c->opened && !c->opened_told) || (c->sink && c->opened && c->answer.len > 0))) {
                        (void)transfer_deliver(c);
                        c = e->calls;
                } else
                        c = c->next;
        }
}

static void drain(struct engine *e)
{
        CURLMsg *m;
        int left;

        deliver_all(e);
        /* One wake-up can bring many messages, and curl does not wake us for the rest. */
        while (!e->dead && (m = curl_multi_info_read(e->multi, &left))) {
                struct engine_call *c = NULL;

                if (m->msg != CURLMSG_DONE)
                        continue;
                curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &c);
                transfer_done(c, m->data.result);
        }
}

static void act(struct engine *e, curl_socket_t fd, int mask)
{
        int running;

        engine_hold(e);
        (void)curl_multi_socket_action(e->multi, fd, mask, &running);
        drain(e);
        (void)engine_release(e);
}

static int on_io(_unused_ sd_event_source *s, int fd, uint32_t revents, void *user)
{
        int mask = 0;

        if (revents & EPOLLIN)
                mask |= CURL_CSELECT_IN;
        if (revents & EPOLLOUT)
                mask |= CURL_CSELECT_OUT;
        if (revents & (EPOLLERR | EPOLLHUP))
                mask |= mask ? 0 : CURL_CSELECT_ERR;
        act(user, fd, mask);
        return 0;
}

static int on_timer(_unused_ sd_event_source *s, _unused_ uint64_t usec, void *user)
{
        act(user, CURL_SOCKET_TIMEOUT, 0);
        return 0;
}

static int on_curl_socket(_unused_ CURL *easy, curl_socket_t fd, int what, void *user, void *source)
{
        struct engine *e = user;
        sd_event_source *s = source;
        uint32_t events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);

        if (what == CURL_POLL_REMOVE) {
                sd_event_source_disable_unref(s);
                curl_multi_assign(e->multi, fd, NULL);
                return 0;
        }
        if (s)
                return sd_event_source_set_io_events(s, events) < 0 ? -1 : 0;
        if (sd_event_add_io(e->loop, &s, fd, events, on_io, e) < 0)
                return -1;
        curl_multi_assign(e->multi, fd, s);
        return 0;
}

static int on_curl_timer(_unused_ CURLM *multi, long timeout_ms, void *user)
{
        struct engine *e = user;

        if (timeout_ms < 0)
                return sd_event_source_set_enabled(e->timer, SD_EVENT_OFF) < 0 ? -1 : 0;
        if (sd_event_source_set_time_relative(e->timer, (uint64_t)timeout_ms * 1000) < 0)
                return -1;
        return sd_event_source_set_enabled(e->timer, SD_EVENT_ONESHOT) < 0 ? -1 : 0;
}

/* -- the line ---------------------------------------------------------------------------------------------------------------- */

static bool may_start(const struct engine *e, const struct engine_call *c)
{
        if (c->state != CALL_WAITING)
                return false;
        if (c->unversioned)
                return true;
        return e->negotiated && (c->no_slot || e->n_running < ENGINE_PARALLEL);
}

static int on_kick(_unused_ sd_event_source *s, void *user)
{
        struct engine *e = user;
        struct engine_call *c, *next;
        bool waiting = false;

        engine_hold(e);
        for (c = e->calls; c; c = next) {
                next = c->next;
                if (may_start(e, c))
                        transfer_start(c);
                else if (c->state == CALL_WAITING)
                        waiting = true;
        }
        if (waiting && !e->negotiated && !e->version_call)
                version_start(e);
        (void)engine_release(e);
        return 0;
}

void engine_kick(struct engine *e)
{
        if (!e->dead)
                (void)sd_event_source_set_enabled(e->kick, SD_EVENT_ONESHOT);
}

/* -- the object -------------------------------------------------------------------------------------------------------------- */

static void engine_destroy(struct engine *e)
{
        while (e->calls)
                (void)engine_call_cancel(e->calls);
        if (e->multi)
                curl_multi_cleanup(e->multi);
        sd_event_source_disable_unref(e->timer);
        sd_event_source_disable_unref(e->kick);
        sd_event_unref(e->loop);
        free(e->socket_path);
        free(e->version);
        free(e);
        curl_global_cleanup();
}

void engine_hold(struct engine *e)
{
        e->held++;
}

bool engine_release(struct engine *e)
{
        e->held--;
        if (!e->dead)
                return true;
        if (e->held == 0)
                engine_destroy(e);
        return false;
}

struct engine *engine_free(struct engine *e)
{
        if (!e)
                return NULL;
        e->dead = true;
        while (e->calls)
                (void)engine_call_cancel(e->calls);
        if (e->held == 0)
                engine_destroy(e);
        return NULL;
}

static int set_up_loop(struct engine *e, struct err **err)
{
        int r = sd_event_add_time_relative(e->loop, &e->timer, CLOCK_MONOTONIC, 0, 1, on_timer, e);

        if (r >= 0)
                r = sd_event_source_set_enabled(e->timer, SD_EVENT_OFF);
        if (r >= 0)
                r = sd_event_add_defer(e->loop, &e->kick, on_kick, e);
        if (r >= 0)
                r = sd_event_source_set_enabled(e->kick, SD_EVENT_OFF);
        return r < 0 ? err_sys(err, r, "event loop for the Engine client") : 0;
}

int engine_new(struct engine **ret, sd_event *loop, const char *socket_path, struct err **err)
{
        _cleanup_(engine_freep) struct engine *e = NULL;

        if (socket_path[0] != '/' || strlen(socket_path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
                return err_set(err, ERR_INVALID, "the Engine's socket must be an absolute path of at most 107 characters: %s", socket_path);
        /* No TLS: only the unix socket is spoken to. */
        if (curl_global_init(CURL_GLOBAL_NOTHING) != CURLE_OK)
                return err_set(err, ERR_INTERNAL, "cannot initialise libcurl");
        e = NEW(struct engine);
        e->loop = sd_event_ref(loop);
        e->socket_path = mem_strdup(socket_path);
        e->version = mem_strdup("");
        e->multi = curl_multi_init();
        if (!e->multi)
                return err_set(err, ERR_INTERNAL, "cannot initialise libcurl");
        if (set_up_loop(e, err) < 0)
                return -1;
        curl_multi_setopt(e->multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket);
        curl_multi_setopt(e->multi, CURLMOPT_SOCKETDATA, e);
        curl_multi_setopt(e->multi, CURLMOPT_TIMERFUNCTION, on_curl_timer);
        curl_multi_setopt(e->multi, CURLMOPT_TIMERDATA, e);
        /* Those in use count, and at the bound a finished one is closed: room for all that run, an event stream and some pulls. */
        curl_multi_setopt(e->multi, CURLMOPT_MAXCONNECTS, (long)ENGINE_PARALLEL + 4);
        *ret = TAKE_PTR(e);
        return 0;
}

unsigned engine_api_minor(const struct engine *e)
{
        return e->minor;
}

const char *engine_version(const struct engine *e)
{
        return e->version;
}

bool engine_is_podman(const struct engine *e)
{
        return e->podman;
}

/* -- for programs without a loop of their own -------------------------------------------------------------------------------- */

void engine_waiter_done(int status, json_object *body, struct err *err, void *user)
{
        struct engine_waiter *w = user;

        w->finished = true;
        w->status = status;
        w->body = json_object_get(body);
        w->err = err ? err_dup(err) : NULL;
}

int engine_waiter_wait(struct engine *e, struct engine_waiter *w, struct err **err)
{
        while (!w->finished) {
                int r = sd_event_run(e->loop, UINT64_MAX);
                if (r < 0)
                        return err_sys(err, r, "waiting for the Engine");
        }
        return w->err ? err_move(err, TAKE_PTR(w->err)) : 0;
}

void engine_waiter_deinit(struct engine_waiter *w)
{
        json_object_put(w->body);
        err_free(w->err);
        *w = (struct engine_waiter){0};
}

int engine_wait(struct engine *e, const struct engine_request *request, int *status, json_object **body, struct err **err)
{
        _cleanup_(engine_waiter_deinit) struct engine_waiter w = {0};
        struct engine_call *c = NULL;

        if (body)
                *body = NULL;
        engine_call_start(e, &c, request, engine_waiter_done, &w);
        int r = engine_waiter_wait(e, &w, err);
        if (!w.finished)
                (void)engine_call_cancel(c);
        if (status)
                *status = w.status;
        if (r == 0 && body)
                *body = TAKE_PTR(w.body);
        return r;
}
