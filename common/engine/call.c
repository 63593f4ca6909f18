#include <malloc.h>

#include "common/engine/internal.h"

#define TRIM_AFTER (256U << 10)

static int on_deadline(_unused_ sd_event_source *s, _unused_ uint64_t usec, void *user)
{
        struct engine_call *c = user;
        struct err *err = NULL;

        if (c->state == CALL_RUNNING && c->http_status)
                (void)err_set(&err, ERR_TIMEOUT, "%s: the Engine's answer was not complete within %llu ms", c->what,
                              (unsigned long long)c->timeout_ms);
        else
                (void)err_set(&err, ERR_TIMEOUT, "%s: no answer from the Engine at %s within %llu ms", c->what, c->engine->socket_path,
                              (unsigned long long)c->timeout_ms);
        /* The deadline is the whole call's: no step may prolong it. */
        c->step = NULL;
        call_finish(c, 0, NULL, err);
        return 0;
}

static void set_request(struct engine_call *c, const char *method, const char *path, const char *query, json_object *body)
{
        c->method = method;
        mem_replace(&c->what, mem_printf("%s %s", method, path));
        mem_replace(&c->target, query && *query ? mem_printf("%s?%s", path, query) : mem_strdup(path));
        mem_replace(&c->body,
                    body ? mem_strdup(json_object_to_json_string_ext(body, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE))
                         : NULL);
}

static const char *known_method(const char *method)
{
        static const char *const methods[] = {"GET", "POST", "DELETE", "PUT", "HEAD"};

        for (size_t i = 0; i < ELEMENTSOF(methods); i++)
                if (str_eq(method, methods[i]))
                        return methods[i];
        return "GET";
}

struct engine_call *call_new(struct engine *e, const struct engine_request *r, engine_done_fn done, void *user)
{
        struct engine_call *c = NEW(struct engine_call);

        c->engine = e;
        c->max_answer = r->max_answer ? r->max_answer : 4U << 20;
        c->timeout_ms = r->timeout_ms ? r->timeout_ms : ENGINE_TIMEOUT_MS;
        c->done = done;
        c->user = user;
        set_request(c, known_method(r->method), r->path, r->query, r->body);
        return c;
}

void call_enqueue(struct engine_call *c)
{
        struct engine *e = c->engine;

        c->serial = ++e->serial;
        c->prev = e->last;
        *(e->last ? &e->last->next : &e->calls) = c;
        e->last = c;
        c->state = CALL_WAITING;
        /* Relative to now: the loop's cached time can be old when a program has just worked for a while. */
        if (c->timeout_ms != ENGINE_NO_TIMEOUT &&
            sd_event_add_time_relative(e->loop, &c->deadline, CLOCK_MONOTONIC, c->timeout_ms * 1000, 10000, on_deadline, c) < 0)
                abort(); /* out of memory, like everywhere */
        engine_kick(e);
}

void engine_call_start(struct engine *e, struct engine_call **ret, const struct engine_request *r, engine_done_fn done, void *user)
{
        struct engine_call *c = call_new(e, r, done, user);

        call_enqueue(c);
        if (ret)
                *ret = c;
}

static int on_again(_unused_ sd_event_source *s, _unused_ uint64_t usec, void *user)
{
        struct engine_call *c = user;

        if (c->failure) {
                c->step = NULL;
                call_finish(c, 0, NULL, TAKE_PTR(c->failure));
                return 0;
        }
        c->state = CALL_WAITING;
        engine_kick(c->engine);
        return 0;
}

static void wake_after(struct engine_call *c, uint64_t delay_ms)
{
        c->again = sd_event_source_disable_unref(c->again);
        if (sd_event_add_time_relative(c->engine->loop, &c->again, CLOCK_MONOTONIC, delay_ms * 1000, 5000, on_again, c) < 0)
                abort();
}

void call_fail_later(struct engine_call *c, struct err *err)
{
        transfer_stop(c);
        c->failure = err;
        wake_after(c, 0);
}

void call_pause(struct engine_call *c, uint64_t delay_ms)
{
        transfer_stop(c);
        c->state = CALL_WAITING;
        if (delay_ms > 0) {
                c->state = CALL_PAUSED;
                wake_after(c, delay_ms);
        }
        engine_kick(c->engine);
}

void call_again(struct engine_call *c, const char *method, const char *path, const char *query, json_object *body, uint64_t delay_ms)
{
        transfer_stop(c);
        set_request(c, known_method(method), path, query, body);
        call_pause(c, delay_ms);
}

static void unlink_call(struct engine_call *c)
{
        struct engine *e = c->engine;

        if (e->version_call == c)
                e->version_call = NULL;
        *(c->prev ? &c->prev->next : &e->calls) = c->next;
        *(c->next ? &c->next->prev : &e->last) = c->prev;
        c->prev = c->next = NULL;
}

static void call_free(struct engine_call *c)
{
        if (c->context_free)
                c->context_free(c->context);
        if (c->attach)
                attach_free(c->attach);
        err_free(c->failure);
        buf_deinit(&c->answer);
        free(c->what);
        free(c->target);
        free(c->body);
        free(c);
}

/* Out of the engine's hands; memory stays while somebody holds it. */
static void call_detach(struct engine_call *c)
{
        transfer_stop(c);
        c->deadline = sd_event_source_disable_unref(c->deadline);
        c->again = sd_event_source_disable_unref(c->again);
        unlink_call(c);
        engine_kick(c->engine); /* a slot is free */
        c->dead = true;
        if (c->held == 0)
                call_free(c);
}

void call_hold(struct engine_call *c)
{
        c->held++;
}

bool call_release(struct engine_call *c)
{
        c->held--;
        if (!c->dead)
                return true;
        if (c->held == 0)
                call_free(c);
        return false;
}

struct engine_call *engine_call_cancel(struct engine_call *c)
{
        if (c)
                call_detach(c);
        return NULL;
}

void call_finish(struct engine_call *c, int status, json_object *body, struct err *err)
{
        struct engine *e = c->engine;
        size_t weight = c->answer.cap;

        transfer_stop(c);
        engine_hold(e);
        call_hold(c);
        if (c->step && c->step(c, &status, &body, &err)) {
                json_object_put(body);
                err_free(err);
                (void)call_release(c);
                (void)engine_release(e);
                return;
        }
        engine_done_fn done = c->done;
        void *user = c->user;
        struct attach *attach = TAKE_PTR(c->attach);
        call_detach(c);
        (void)call_release(c);
        if (attach)
                attach_finish(attach, err);
        else if (done)
                done(status, err ? NULL : body, err, user);
        json_object_put(body);
        err_free(err);
        /* A list of a thousand containers took tens of megabytes for a moment: give them back. */
        if (weight >= TRIM_AFTER)
                malloc_trim(0);
        (void)engine_release(e);
}

/* -- escaping -------------------------------------------------------------------------------------------------------------- */

char *engine_escape(const char *s)
{
        struct buf b = {0};

        for (; *s; s++)
                if (strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~", *s))
                        buf_addc(&b, *s);
                else
                        buf_addf(&b, "%%%02X", (unsigned char)*s);
        return buf_take(&b);
}

char *engine_filters(const char *key, const char *value)
{
        _cleanup_json_ json_object *o = json_object_new_object();
        json_object *list = json_object_new_array();

        json_object_array_add(list, json_object_new_string(value));
        json_add(o, key, list);
        return engine_escape(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
}
