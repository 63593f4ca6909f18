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

static void on_turn(void *user)
{
        struct engine *e = user;
        CURL *easy;
        CURLcode code;

        engine_hold(e);
        deliver_all(e);
        while (!e->dead && curl_loop_next(e->curl, &easy, &code)) {
                struct engine_call *c = NULL;

                curl_easy_getinfo(easy, CURLINFO_PRIVATE, &c);
                transfer_done(c, code);
        }
        (void)engine_release(e);
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
        curl_loop_free(e->curl);
        sd_event_source_disable_unref(e->kick);
        sd_event_unref(e->loop);
        free(e->socket_path);
        free(e->version);
        free(e);
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
        int r = sd_event_add_defer(e->loop, &e->kick, on_kick, e);

        if (r >= 0)
                r = sd_event_source_set_enabled(e->kick, SD_EVENT_OFF);
        if (r < 0)
                return err_sys(err, r, "event loop for the Engine client");
        /* Room for all that run, an event stream and some pulls. */
        return curl_loop_new(&e->curl, e->loop, ENGINE_PARALLEL + 4, on_turn, e, err);
}

int engine_new(struct engine **ret, sd_event *loop, const char *socket_path, struct err **err)
{
        _cleanup_(engine_freep) struct engine *e = NULL;

        if (socket_path[0] != '/' || strlen(socket_path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
                return err_set(err, ERR_INVALID, "the Engine's socket must be an absolute path of at most 107 characters: %s", socket_path);
        e = NEW(struct engine);
        e->loop = sd_event_ref(loop);
        e->socket_path = mem_strdup(socket_path);
        e->version = mem_strdup("");
        if (set_up_loop(e, err) < 0)
                return -1;
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
