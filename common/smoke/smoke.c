#include "common/smoke/smoke.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "common/file.h"
#include "common/smoke/smoke_internal.h"
#include "common/text.h"

/* On top of the server's own time: what the Engine may take for networks and containers. */
#define ENGINE_TIME_MS 60000U
#define CLEAN_ROUNDS   4U
#define CLEAN_USEC     250000U /* doubled each time */

static void ask_owner(struct smoke *s);

/*
 * In this order. Something goes wrong: on with CLEAN_UP. Each run() leads to smoke_next(), smoke_fail() or smoke_finish(), at once or
 * later.
 */
static const struct step {
        const char *what; /* for errors */
        void (*run)(struct smoke *s);
} steps[] = {
        {"asking the Engine what it can do", smoke_read_info},
        {"looking at the image", smoke_read_image},
        {"looking for a container an earlier smoke test left", smoke_find_container},
        {"removing a container an earlier smoke test left", smoke_remove_container},
        {"looking for a network an earlier smoke test left", smoke_find_network},
        {"removing a network an earlier smoke test left", smoke_remove_network},
        {"making its network", smoke_make_network},
        {"checking its network", smoke_check_network},
        {"putting its firewall rules in place", ask_owner},
        {"creating the container", smoke_make_container},
        {"checking the container", smoke_check_container},
        {"attaching to the container", smoke_attach},
        {"starting the container", smoke_start_container},
        {"speaking to the server", smoke_talk},
        {"looking how the container ended", smoke_see_end},
#define TALK     13
#define CLEAN_UP 15
        {"looking for its container", smoke_find_container},
        {"removing its container", smoke_remove_container},
        {"looking for its network", smoke_find_network},
        {"removing its network", smoke_remove_network},
};
_Static_assert(ELEMENTSOF(steps) == CLEAN_UP + 4, "cleaning up begins at the right step");

/* Nothing was made for it, and nothing is to be removed. */
static bool is_external(const struct smoke *s)
{
        return s->request.entry->source == SOURCE_URL;
}

uint64_t smoke_now_ms(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* -- calls in flight --------------------------------------------------------------------------------------------------------- */

struct smoke_pending *smoke_pending_new(struct smoke *s, struct smoke_pending **slot, smoke_answer_fn answer)
{
        struct smoke_pending *p = NEW(struct smoke_pending);

        *p = (struct smoke_pending){.smoke = s, .slot = slot, .answer = answer};
        *slot = p;
        return p;
}

void smoke_answered(int status, json_object *body, struct err *err, void *pending)
{
        struct smoke_pending *p = pending;
        struct smoke *s = p->smoke;
        smoke_answer_fn answer = p->answer;

        if (s)
                *p->slot = NULL;
        free(p);
        if (s)
                answer(s, status, body, err);
}

static void forget(struct smoke_pending **slot)
{
        if (*slot)
                (*slot)->smoke = NULL;
        *slot = NULL;
}

/* -- ends -------------------------------------------------------------------------------------------------------------------- */

static void smoke_free(struct smoke *s)
{
        forget(&s->pending);
        if (s->attaching)
                engine_call_cancel(s->attaching);
        spawn_cancel(s->helper);
        smoke_connector_free(s->connector);
        sd_event_source_disable_unref(s->deadline);
        sd_event_source_disable_unref(s->later);
        fd_closep(&s->stream);
        free(s->container);
        free(s->network);
        free(s->container_id);
        free(s->network_id);
        free((char *)(uintptr_t)s->request.subnet);
        free((char *)(uintptr_t)s->request.owner);
        strv_free(s->placeholders);
        json_freep(&s->image_inspect);
        json_freep(&s->info);
        smoke_result_free(s->result);
        err_free(s->err);
        err_free(s->clean_err);
        sd_event_unref(s->loop);
        free(s);
}

struct smoke *smoke_cancel(struct smoke *s)
{
        if (s)
                smoke_free(s);
        return NULL;
}

static int on_clean_again(_unused_ sd_event_source *source, _unused_ uint64_t usec, void *user)
{
        struct smoke *s = user;

        s->later = sd_event_source_disable_unref(s->later);
        s->step = CLEAN_UP;
        steps[CLEAN_UP].run(s);
        return 0;
}

/* Something could not be removed: the Engine may have been away for a moment. */
static bool clean_again(struct smoke *s)
{
        if (!s->clean_err)
                return false;
        s->later = sd_event_source_disable_unref(s->later);
        if (++s->clean_rounds < CLEAN_ROUNDS &&
            sd_event_add_time_relative(s->loop, &s->later, CLOCK_MONOTONIC, CLEAN_USEC << s->clean_rounds, 0, on_clean_again, s) >= 0) {
                s->clean_err = err_free(s->clean_err);
                return true;
        }
        if (!s->err)
                s->err = TAKE_PTR(s->clean_err);
        return false;
}

static void complete(struct smoke *s)
{
        if (clean_again(s))
                return;
        struct smoke_result *result = TAKE_PTR(s->result);
        struct err *err = TAKE_PTR(s->err);
        smoke_done_fn done = s->done;
        void *user = s->user;

        if (err) {
                smoke_result_free(result);
                result = NULL;
        } else {
                result->duration_ms = smoke_now_ms() - s->begin;
                result->at = time(NULL);
        }
        smoke_free(s);
        done(result, err, user);
        err_free(err);
}

void smoke_next(struct smoke *s)
{
        s->step++;
        if (is_external(s)) {
                complete(s);
                return;
        }
        if (s->expired && !s->cleaning) {
                struct err *err = NULL;
                err_set(&err, ERR_TIMEOUT, "the smoke test of %s took more than its %llu s: stopped before %s", s->request.entry->name,
                        (unsigned long long)(s->conf->smoke_timeout_ms + ENGINE_TIME_MS) / 1000, steps[s->step].what);
                smoke_fail(s, err);
                return;
        }
        if (s->step >= CLEAN_UP)
                s->cleaning = true;
        if (s->step < ELEMENTSOF(steps))
                steps[s->step].run(s);
        else
                complete(s);
}

void smoke_fail(struct smoke *s, struct err *err)
{
        if (s->step < ELEMENTSOF(steps) && err_code(err) != ERR_TIMEOUT)
                err_wrap(&err, "smoke test of %s: %s", s->request.entry->name, steps[s->step].what);
        struct err **slot = s->cleaning ? &s->clean_err : &s->err;
        if (*slot)
                err_free(err);
        else
                *slot = err;
        /* While cleaning up, what can still be removed is. */
        if (!s->cleaning)
                s->step = CLEAN_UP - 1;
        s->cleaning = true;
        smoke_next(s);
}

void smoke_finish(struct smoke *s, struct smoke_result *result)
{
        smoke_result_free(s->result);
        s->result = result;
        smoke_next(s);
}

static int on_deadline(_unused_ sd_event_source *source, _unused_ uint64_t usec, void *user)
{
        struct smoke *s = user;

        /* Every Engine call and the helper have deadlines of their own; this one keeps their sum in bounds. */
        s->expired = true;
        return 0;
}

/* -- beginning --------------------------------------------------------------------------------------------------------------- */

static void ask_owner(struct smoke *s)
{
        if (!s->ready) {
                smoke_next(s);
                return;
        }
        s->waiting_for_owner = true;
        s->ready(s, s->bridge, s->address, s->user);
}

void smoke_continue(struct smoke *s, const struct err *err)
{
        if (!s || !s->waiting_for_owner)
                return;
        s->waiting_for_owner = false;
        if (err)
                smoke_fail(s, err_dup(err));
        else
                smoke_next(s);
}

/* The first step, from the loop: smoke_start() must have returned before anything is called back. */
static int on_begin(sd_event_source *source, void *user)
{
        struct smoke *s = user;

        sd_event_source_set_enabled(source, SD_EVENT_OFF);
        s->step = is_external(s) ? TALK : 0;
        steps[s->step].run(s);
        return 0;
}

static struct smoke *smoke_new(sd_event *loop, struct engine *engine, const struct conf *conf, const struct smoke_request *request)
{
        struct smoke *s = NEW(struct smoke);
        const struct registry_entry *e = request->entry;

        s->loop = sd_event_ref(loop);
        s->engine = engine;
        s->conf = conf;
        s->request = *request;
        s->request.subnet = mem_strdup(request->subnet);
        s->request.owner = mem_strdup(request->owner);
        s->stream = -1;
        s->begin = smoke_now_ms();
        s->container = spec_container_name(e->name, request->spec, ROLE_SMOKE);
        s->network = spec_network_name(e->name, request->spec, ROLE_SMOKE);
        spec_bridge_name(s->bridge, request->owner, e->name, request->spec, ROLE_SMOKE);
        for (char **name = e->secrets; name && *name; name++) {
                _cleanup_free_ char *variable = mem_printf("%s=" SMOKE_PLACEHOLDER, *name);
                s->placeholders = strv_append(s->placeholders, variable);
        }
        return s;
}

int smoke_start(struct smoke **ret, sd_event *loop, struct engine *engine, const struct conf *conf, const struct smoke_request *request,
                smoke_ready_fn before_start, smoke_done_fn done, void *user, struct err **err)
{
        struct smoke *s = smoke_new(loop, engine, conf, request);
        uint64_t limit = (conf->smoke_timeout_ms + ENGINE_TIME_MS) * 1000;
        int r;

        s->ready = before_start;
        s->done = done;
        s->user = user;
        if (is_external(s)) {
                snprintf(s->address, sizeof(s->address), "%s", request->entry->address);
        } else if (smoke_addresses(s, request->subnet, err) < 0) {
                smoke_free(s);
                return -1;
        }
        r = sd_event_add_time_relative(loop, &s->deadline, CLOCK_MONOTONIC, limit, 0, on_deadline, s);
        if (r >= 0)
                r = sd_event_add_defer(loop, &s->later, on_begin, s);
        if (r < 0) {
                smoke_free(s);
                return err_sys(err, r, "starting a smoke test of %s", request->entry->name);
        }
        if (ret)
                *ret = s;
        return 0;
}
