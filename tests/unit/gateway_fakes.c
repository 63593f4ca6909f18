#include "tests/unit/gateway_fakes.h"

#include <unistd.h>

#include "common/mcp/sse.h"

struct upstream *fake_upstreams[256];
size_t n_fake_upstreams;

static struct exchange *all_exchanges[4096];
static size_t n_exchanges;

/* -- the front ----------------------------------------------------------------------------------------------------------------- */
struct exchange *fake_exchange(const char *method, const char *path, const char *body, ...)
{
        struct exchange *x = NEW(struct exchange);
        const char *line;
        va_list ap;

        x->method = mem_strdup(method);
        x->path = mem_strdup(path);
        if (body)
                buf_adds(&x->body, body);
        va_start(ap, body);
        while ((line = va_arg(ap, const char *)))
                x->headers[x->n_headers++] = mem_strdup(line);
        va_end(ap);
        assert_true(n_exchanges < ELEMENTSOF(all_exchanges));
        all_exchanges[n_exchanges++] = x;
        return x;
}

static void exchange_free(struct exchange *x)
{
        free(x->method);
        free(x->path);
        free(x->answer);
        for (size_t i = 0; i < x->n_headers; i++)
                free(x->headers[i]);
        for (size_t i = 0; i < x->n_out_headers; i++)
                free(x->out_headers[i]);
        for (size_t i = 0; i < x->n_events; i++)
                free(x->events[i]);
        buf_deinit(&x->body);
        free(x);
}

void fake_leave(struct exchange *x)
{
        void (*left)(struct exchange *, void *) = x->left;

        assert_false(x->over);
        x->over = true;
        x->left = NULL;
        if (left)
                left(x, x->user);
}

static const char *value_of(const char *line, const char *name)
{
        size_t n = strlen(name);

        return strncasecmp(line, name, n) == 0 && line[n] == ':' ? line + n + 2 : NULL;
}

const char *fake_header(const struct exchange *x, const char *name)
{
        for (size_t i = 0; i < x->n_out_headers; i++)
                if (value_of(x->out_headers[i], name))
                        return value_of(x->out_headers[i], name);
        return NULL;
}

const char *fake_last(const struct exchange *x)
{
        if (x->is_stream)
                return x->n_events ? x->events[x->n_events - 1] : "";
        return x->answer ? x->answer : "";
}

const char *exchange_method(const struct exchange *x)
{
        return x->method;
}

void *exchange_identity(const struct exchange *x)
{
        return x->identity;
}

const char *exchange_path(const struct exchange *x)
{
        return x->path;
}

const char *exchange_header(const struct exchange *x, const char *name)
{
        for (size_t i = 0; i < x->n_headers; i++)
                if (value_of(x->headers[i], name))
                        return value_of(x->headers[i], name);
        return NULL;
}

unsigned exchange_header_count(const struct exchange *x, const char *name)
{
        unsigned n = 0;

        for (size_t i = 0; i < x->n_headers; i++)
                n += value_of(x->headers[i], name) != NULL;
        return n;
}

const char *exchange_body(const struct exchange *x, size_t *n)
{
        *n = x->body.len;
        return x->body.data ? x->body.data : "";
}

void exchange_take_body(struct exchange *x, struct buf *ret)
{
        *ret = x->body;
        x->body = (struct buf){0};
}

void exchange_on_left(struct exchange *x, void (*left)(struct exchange *, void *), void *user)
{
        assert_false(x->over);
        x->left = left;
        x->user = user;
}

void exchange_add_header(struct exchange *x, const char *name, const char *value)
{
        assert_false(x->over || x->is_stream);
        x->out_headers[x->n_out_headers++] = mem_printf("%s: %s", name, value);
}

void exchange_answer(struct exchange *x, unsigned status, _unused_ const char *content_type, struct buf *body)
{
        assert_false(x->over || x->is_stream);
        x->over = true;
        x->status = status;
        x->answer = buf_take(body);
}

void exchange_stream(struct exchange *x)
{
        assert_false(x->over || x->is_stream);
        x->is_stream = true;
        x->status = 200;
}

static int on_event(_unused_ const char *type, const char *data, size_t n, void *user, _unused_ struct err **err)
{
        struct exchange *x = user;

        if (x->n_events < ELEMENTSOF(x->events))
                x->events[x->n_events++] = mem_strndup(data, n);
        return 0;
}

void exchange_send(struct exchange *x, struct buf *event)
{
        struct sse_reader reader = {.max = 1U << 20};

        assert_true(x->is_stream && !x->over);
        assert_int_equal(sse_reader_feed(&reader, event->data, event->len, on_event, x, NULL), 0);
        sse_reader_deinit(&reader);
        buf_deinit(event);
}

void exchange_end(struct exchange *x)
{
        assert_true(x->is_stream && !x->over);
        x->over = true;
}

/* -- servers --------------------------------------------------------------------------------------------------------------------- */
static int upstream_new(struct upstream **ret, const struct upstream_config *config, const struct upstream_events *events, void *user,
                        bool is_http)
{
        struct upstream *u = NEW(struct upstream);

        assert_true(n_fake_upstreams < ELEMENTSOF(fake_upstreams));
        fake_upstreams[n_fake_upstreams++] = u;
        u->events = events;
        u->user = user;
        u->is_http = is_http;
        u->capabilities = mem_strndup(config->capabilities.at, config->capabilities.n);
        u->last = &u->calls;
        *ret = u;
        return 0;
}

int upstream_stdio_new(struct upstream **ret, _unused_ sd_event *loop, const struct upstream_config *config,
                       const struct upstream_events *events, void *user, _unused_ struct err **err)
{
        close(config->fd);
        return upstream_new(ret, config, events, user, false);
}

int upstream_http_new(struct upstream **ret, _unused_ sd_event *loop, const struct upstream_config *config,
                      const struct upstream_events *events, void *user, _unused_ struct err **err)
{
        return upstream_new(ret, config, events, user, true);
}

int upstream_pool_new(struct upstream_pool **ret, _unused_ sd_event *loop, _unused_ const char *ca_file, _unused_ struct err **err)
{
        *ret = NULL;
        return 0;
}

struct upstream_pool *upstream_pool_free(_unused_ struct upstream_pool *p)
{
        return NULL;
}

void fake_fail(struct upstream_call *c, enum err_code code, const char *why)
{
        struct err *err = NULL;

        assert_false(c->over);
        c->over = true;
        (void)err_set(&err, code, "%s", why);
        c->request.done(c, NULL, err, c->request.user);
        err_free(err);
}

static void fail_all(struct upstream *u)
{
        for (struct upstream_call *c = u->calls; c; c = c->next)
                if (!c->over)
                        fake_fail(c, ERR_UNAVAILABLE, "the session is over");
}

struct upstream *upstream_free(struct upstream *u)
{
        assert_false(u->freed);
        u->freed = true;
        u->ready = false;
        fail_all(u);
        return NULL;
}

bool upstream_is_ready(const struct upstream *u)
{
        return u->ready;
}

enum mcp_era upstream_era(const struct upstream *u)
{
        return u->era;
}

enum mcp_revision upstream_revision(const struct upstream *u)
{
        return u->era == MCP_ERA_MODERN ? MCP_NEWEST : MCP_NEWEST_LEGACY;
}

const struct mcp_message *upstream_info(const struct upstream *u)
{
        return &u->info;
}

unsigned upstream_calls(const struct upstream *u)
{
        return (unsigned)u->n_calls;
}

bool upstream_probe_failed(const struct upstream *u)
{
        return !u->info_text;
}

char *upstream_stderr_tail(_unused_ const struct upstream *u)
{
        return mem_strdup("");
}

static char *copy(struct mcp_slice s)
{
        return s.at ? mem_strndup(s.at, s.n) : NULL;
}

struct upstream_call *upstream_request(struct upstream *u, const struct upstream_request *request)
{
        struct upstream_call *c = NEW(struct upstream_call);

        assert_true(u->ready);
        c->u = u;
        c->request = *request;
        c->method = mem_strdup(request->method_name ? request->method_name : mcp_method_name(request->method));
        c->params = copy(request->params);
        c->token = copy(request->progress_token);
        c->name = copy(request->name);
        c->headers = request->headers ? strv_join(request->headers, "\n") : NULL;
        if (request->progress_token.at) /* inside params, or replacing it would write elsewhere */
                assert_true(request->progress_token.at >= request->params.at &&
                            request->progress_token.at + request->progress_token.n <= request->params.at + request->params.n);
        *u->last = c;
        u->last = &c->next;
        u->n_calls++;
        return c;
}

void *upstream_call_user(const struct upstream_call *call)
{
        return call->request.user;
}

void upstream_call_cancel(struct upstream_call *call, _unused_ const char *reason)
{
        assert_false(call->over);
        call->over = call->cancelled = true;
}

void upstream_call_extend(struct upstream_call *call, uint64_t ms)
{
        call->extended_ms = ms;
}

void upstream_notify(_unused_ struct upstream *u, _unused_ const char *method, _unused_ struct mcp_slice params)
{
}

void upstream_answer(struct upstream *u, struct mcp_slice id, struct mcp_slice result, struct mcp_slice error)
{
        assert_true(u->n_answered < ELEMENTSOF(u->answered));
        assert_true(!result.at != !error.at);
        u->answered[u->n_answered++] = mem_printf("%.*s %s %.*s", (int)id.n, id.at, result.at ? "result" : "error",
                                                  (int)(result.at ? result.n : error.n), result.at ? result.at : error.at);
}

void fake_ready(struct upstream *u, enum mcp_era era, const char *result)
{
        u->ready = true;
        u->era = era;
        u->info_text = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":%s}", result);
        assert_int_equal(mcp_message_scan(&u->info, u->info_text, strlen(u->info_text), NULL), 0);
        u->events->ready(u, u->user);
}

void fake_end_with(struct upstream *u, enum err_code code, const char *why)
{
        struct err *err = NULL;

        u->ready = false;
        fail_all(u);
        (void)err_set(&err, code, "%s", why);
        u->events->ended(u, err, u->user);
        err_free(err);
}

void fake_end(struct upstream *u)
{
        fake_end_with(u, ERR_UNAVAILABLE, "it died");
}

struct upstream_call *fake_call(struct upstream *u, const char *method)
{
        struct upstream_call *found = NULL;

        for (struct upstream_call *c = u->calls; c; c = c->next)
                if (!c->over && (!method || str_eq(c->method, method)))
                        found = c;
        return found;
}

static void answer(struct upstream_call *c, const char *kind, const char *value)
{
        char *text = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":99,\"%s\":%s}", kind, value);
        struct mcp_message m;

        assert_non_null(c);
        assert_false(c->over);
        assert_int_equal(mcp_message_scan(&m, text, strlen(text), NULL), 0);
        c->over = true;
        c->request.done(c, &m, NULL, c->request.user);
        free(text);
}

void fake_result(struct upstream_call *c, const char *result)
{
        answer(c, "result", result);
}

void fake_error(struct upstream_call *c, const char *error)
{
        answer(c, "error", error);
}

void fake_notify(struct upstream *u, struct upstream_call *c, const char *text)
{
        char *heap = mem_strdup(text);
        struct mcp_message m;

        assert_int_equal(mcp_message_scan(&m, heap, strlen(heap), NULL), 0);
        if (c)
                c->request.notification(c, &m, c->request.user);
        else
                u->events->notification(u, &m, u->user);
        free(heap);
}

void fake_request(struct upstream *u, struct upstream_call *c, const char *text)
{
        char *heap = mem_strdup(text);
        struct mcp_message m;

        assert_int_equal(mcp_message_scan(&m, heap, strlen(heap), NULL), 0);
        u->events->request(u, c, &m, u->user);
        free(heap);
}

static void upstream_memory(struct upstream *u)
{
        while (u->calls) {
                struct upstream_call *c = u->calls;

                u->calls = c->next;
                free(c->method);
                free(c->params);
                free(c->token);
                free(c->name);
                free(c->headers);
                free(c);
        }
        for (size_t i = 0; i < u->n_answered; i++)
                free(u->answered[i]);
        free(u->capabilities);
        free(u->info_text);
        free(u);
}

void fakes_free(void)
{
        while (n_fake_upstreams)
                upstream_memory(fake_upstreams[--n_fake_upstreams]);
        while (n_exchanges)
                exchange_free(all_exchanges[--n_exchanges]);
}

/* -- all of it ---------------------------------------------------------------------------------------------------------------------- */
static void on_start(_unused_ const char *name, unsigned serial, bool lists, void *user)
{
        struct world *w = user;

        w->starts++;
        w->started = serial;
        w->started_lists = lists;
}

static void on_stop(_unused_ const char *name, unsigned serial, void *user)
{
        struct world *w = user;

        w->stops++;
        w->stopped = serial;
}

static void on_differs(_unused_ const char *name, const char *const *what, size_t n, void *user)
{
        struct world *w = user;

        w->n_differs = n;
        mem_replace(&w->differs, n ? mem_strdup(what[0]) : NULL);
}

static void on_renew(_unused_ const char *name, _unused_ const char *instance, void *user)
{
        ((struct world *)user)->renews++;
}

struct world *world_new(void)
{
        static const struct gateway_config config = {.upstream = {.max_message = 1 << 20},
                                                     .call_timeout_ms = 1000,
                                                     .call_cap_ms = 5000,
                                                     .start_ms = 100,
                                                     .max_sessions = 8,
                                                     .session_idle_ms = 60000,
                                                     .max_waiting = 4,
                                                     .max_agent_instances = 2};
        struct world *w = NEW(struct world);
        struct gateway_controller controller = {.start = on_start, .stop = on_stop, .renew = on_renew, .differs = on_differs, .user = w};

        assert_true(sd_event_new(&w->loop) >= 0);
        assert_int_equal(gateway_new(&w->g, w->loop, &config, &controller, NULL), 0);
        gateway_link(w->g, true);
        return w;
}

void world_free(struct world *w)
{
        gateway_free(w->g);
        sd_event_unref(w->loop);
        free(w->differs);
        free(w);
        fakes_free();
}

static int on_time(_unused_ sd_event_source *s, _unused_ uint64_t now, void *user)
{
        *(bool *)user = true;
        return 0;
}

void world_run(struct world *w, unsigned ms)
{
        sd_event_source *timer = NULL;
        bool over = false;

        assert_true(sd_event_add_time_relative(w->loop, &timer, CLOCK_MONOTONIC, ms * 1000ULL, 1, on_time, &over) >= 0);
        while (!over)
                assert_true(sd_event_run(w->loop, UINT64_MAX) >= 0);
        sd_event_source_disable_unref(timer);
}

struct upstream *world_server(struct world *w, const char *name, const char *prefix, enum mcp_era era, const char *capabilities)
{
        char *n = mem_strdup(name), *p = mem_strdup(prefix), *result;
        char instance[] = "0123456789ab";
        struct channel_entry e = {.name = n, .transport = TRANSPORT_STDIO, .readiness = READINESS_UP, .instance = instance, .prefix = p};
        struct upstream *u;

        gateway_server(w->g, &e);
        gateway_stream(w->g, name, 0, instance, dup(0));
        free(n);
        free(p);
        u = fake_upstreams[n_fake_upstreams - 1];
        result = era == MCP_ERA_MODERN
                         ? mem_printf("{\"resultType\":\"complete\",\"supportedVersions\":[\"2026-07-28\"],\"capabilities\":%s}",
                                      capabilities)
                         : mem_printf("{\"protocolVersion\":\"2025-11-25\",\"capabilities\":%s,"
                                      "\"serverInfo\":{\"name\":\"fake\",\"version\":\"1\"}}",
                                      capabilities);
        fake_ready(u, era, result);
        free(result);
        return u;
}
