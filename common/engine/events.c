#include <time.h>
#include <unistd.h>

#include "common/engine/stream.h"
#include "common/log.h"

#define EVENT_MAX      (256U << 10) /* an event carries its object's labels */
#define GARBAGE_MAX    100          /* lines in a row that are no events, before the stream counts as broken */
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000
#define OPEN_WITHIN_MS 2000

struct engine_events {
        struct engine *engine;
        struct engine_call *call; /* NULL between two streams */
        sd_event_source *again;
        sd_event_source *late;
        char *filters;
        uint64_t backoff_ms;
        unsigned n_garbage;
        bool told_down; /* once for each time it goes away */
        struct lines lines;
        engine_event_fn event;
        engine_lost_fn lost, down;
        void *user;
};

static void subscribe(struct engine_events *v);

static int events_line(const char *line, size_t n, void *user, struct err **err)
{
        struct engine_call *c = user;
        struct engine_events *v = c->context;
        _cleanup_json_ json_object *event = NULL;

        if (c->dead) /* the owner let go of the stream in one of its callbacks */
                return -1;
        if (!line || answer_json(&event, c->what, line, n, NULL) < 0 || !json_object_is_type(event, json_type_object)) {
                /* Something happened that we cannot read, so look at everything. */
                if (++v->n_garbage > GARBAGE_MAX)
                        return err_set(err, ERR_INVALID, "%s: the Engine's event stream is not made of JSON objects", c->what);
                v->lost(v->user);
                return 0;
        }
        v->n_garbage = 0;
        v->event(event, v->user);
        return 0;
}

static int events_sink(struct engine_call *c, const char *data, size_t n, struct err **err)
{
        struct engine_events *v = c->context;
        struct lines lines = v->lines;
        int r;

        /* On our own stack meanwhile: a callback may free v. */
        v->lines = (struct lines){.max = EVENT_MAX};
        r = lines_feed(&lines, data, n, events_line, c, err);
        if (c->dead || r < 0)
                lines_deinit(&lines);
        else
                v->lines = lines;
        return c->dead ? 0 : r;
}

static void events_open(struct engine_call *c)
{
        struct engine_events *v = c->context;

        v->told_down = false;
        v->backoff_ms = 0;
        v->late = sd_event_source_disable_unref(v->late);
        v->lost(v->user);
}

static int on_again(_unused_ sd_event_source *s, _unused_ uint64_t usec, void *user)
{
        subscribe(user);
        return 0;
}

/* Some Engines send the header with the first event only. The owner's list must not wait for that. */
static int on_late(_unused_ sd_event_source *s, _unused_ uint64_t usec, void *user)
{
        struct engine_events *v = user;

        v->late = sd_event_source_disable_unref(v->late);
        v->lost(v->user);
        return 0;
}

static void events_over(_unused_ int status, _unused_ json_object *body, struct err *err, void *user)
{
        struct engine_events *v = user;
        struct engine *e = v->engine;
        uint64_t wait_ms, random = 0;

        v->call = NULL;
        v->late = sd_event_source_disable_unref(v->late);
        lines_deinit(&v->lines);
        v->n_garbage = 0;
        e->negotiated = false; /* whoever answers next may be another Engine */
        v->backoff_ms = MIN(MAX(v->backoff_ms * 2, (uint64_t)BACKOFF_MIN_MS), (uint64_t)BACKOFF_MAX_MS);
        if (getentropy(&random, sizeof(random)) < 0)
                random = 0; /* without jitter, then */
        wait_ms = v->backoff_ms / 2 + random % (v->backoff_ms / 2 + 1);
        if (sd_event_add_time_relative(e->loop, &v->again, CLOCK_MONOTONIC, wait_ms * 1000, 5000, on_again, v) < 0)
                abort();
        log_debug("the Engine's event stream ended", "why", err ? err_msg(err) : "closed by the Engine");
        if (v->told_down)
                return;
        v->told_down = true;
        if (v->down)
                v->down(v->user); /* last: it may free v */
}

/*
 * "since" a moment ago, because the Engine sends its header before it begins to listen to itself: an event between the two would be lost,
 * and nobody would know (getEvents in https://github.com/moby/moby/blob/v20.10.24/api/server/router/system/system_routes.go).
 */
static void subscribe(struct engine_events *v)
{
        _cleanup_free_ char *query =
                mem_printf("since=%lld%s%s", (long long)time(NULL) - 1, v->filters ? "&filters=" : "", v->filters ? v->filters : "");
        struct engine_request request = {.method = "GET", .path = "/events", .query = query, .timeout_ms = ENGINE_NO_TIMEOUT};

        v->again = sd_event_source_disable_unref(v->again);
        v->call = call_new(v->engine, &request, events_over, v);
        v->call->no_slot = true;
        v->call->sink = events_sink;
        v->call->on_open = events_open;
        v->call->context = v;
        call_enqueue(v->call);
        if (sd_event_add_time_relative(v->engine->loop, &v->late, CLOCK_MONOTONIC, OPEN_WITHIN_MS * 1000, 50000, on_late, v) < 0)
                abort();
}

int engine_events_new(struct engine_events **ret, struct engine *e, const char *filters, engine_event_fn event, engine_lost_fn lost,
                      engine_lost_fn down, void *user, _unused_ struct err **err)
{
        struct engine_events *v = NEW(struct engine_events);

        v->engine = e;
        v->filters = filters && *filters ? mem_strdup(str_has_prefix(filters, "filters=") ? filters + strlen("filters=") : filters) : NULL;
        v->event = event;
        v->lost = lost;
        v->down = down;
        v->user = user;
        v->lines.max = EVENT_MAX;
        subscribe(v);
        *ret = v;
        return 0;
}

struct engine_events *engine_events_free(struct engine_events *v)
{
        if (!v)
                return NULL;
        (void)engine_call_cancel(v->call);
        sd_event_source_disable_unref(v->again);
        sd_event_source_disable_unref(v->late);
        lines_deinit(&v->lines);
        free(v->filters);
        free(v);
        return NULL;
}
