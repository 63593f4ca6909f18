#include <assert.h>
#include <inttypes.h>
#include <unistd.h>

#include "broker/gateway/internal.h"

#define PATH_ALL    "/mcp"
#define PATH_PREFIX "/servers/"
#define NO_ID       ((struct mcp_slice){0})
#define BUSY        (-32000) /* as the front says it */

void timer_arm(sd_event_source **source, sd_event *loop, uint64_t ms, sd_event_time_handler_t handler, void *user)
{
        if (!*source)
                (void)sd_event_add_time_relative(loop, source, CLOCK_MONOTONIC, ms * 1000, 0, handler, user);
        else if (sd_event_source_set_time_relative(*source, ms * 1000) >= 0)
                (void)sd_event_source_set_enabled(*source, SD_EVENT_ONESHOT);
}

void timer_off(sd_event_source *source)
{
        if (source)
                (void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
}

int gateway_new(struct gateway **ret, sd_event *loop, const struct gateway_config *config, const struct gateway_controller *controller,
                struct err **err)
{
        struct upstream_pool *pool = NULL;
        struct gateway *g;

        if (sodium_init() < 0)
                return err_set(err, ERR_INTERNAL, "libsodium does not start");
        if (upstream_pool_new(&pool, loop, config->ca_file, err) < 0)
                return -1;
        g = NEW(struct gateway);
        g->pool = pool;
        g->loop = sd_event_ref(loop);
        g->config = *config;
        g->controller = *controller;
        list_init(&g->idle);
        list_init(&g->listens);
        list_init(&g->held);
        list_init(&g->downs);
        list_init(&g->calls);
        list_init(&g->learners);
        randombytes_buf(g->key, sizeof(g->key));
        randombytes_buf(g->hash_key, sizeof(g->hash_key));
        *ret = g;
        return 0;
}

struct gateway *gateway_free(struct gateway *g)
{
        if (!g)
                return NULL;
        g->freeing = true;
        while (g->n_servers)
                server_free(g->servers[g->n_servers - 1]);
        while (!list_empty(&g->idle))
                session_free(list_first(&g->idle, struct session, in_idle));
        listens_free(g, NULL);
        while (!list_empty(&g->calls))
                call_cancel(list_first(&g->calls, struct call, in_gateway), "the gateway ends");
        sd_event_source_disable_unref(g->idle_timer);
        sd_event_source_disable_unref(g->held_timer);
        sd_event_source_disable_unref(g->down_timer);
        sd_event_source_disable_unref(g->learn_timer);
        sd_event_source_disable_unref(g->differs_timer);
        assert(g->charged == 0 && g->kept == 0);
        upstream_pool_free(g->pool);
        sd_event_unref(g->loop);
        sodium_memzero(g->key, sizeof(g->key));
        free(g->servers);
        free(g->buckets);
        free(g->routes);
        free(g);
        return NULL;
}

/* -- from the link --------------------------------------------------------------------------------------------------------------- */
void gateway_server(struct gateway *g, const struct channel_entry *entry)
{
        server_update(g, entry);
}

void gateway_server_gone(struct gateway *g, const char *name)
{
        struct server *s = server_find(g, name, strlen(name));

        if (s)
                server_free(s);
}

void gateway_stream(struct gateway *g, const char *name, unsigned serial, const char *instance, int fd)
{
        struct server *s = server_find(g, name, strlen(name));

        if (s)
                server_stream(s, serial, instance, fd);
        else
                close(fd);
}

void gateway_refused(struct gateway *g, const char *name, unsigned serial, const char *why)
{
        struct server *s = server_find(g, name, strlen(name));

        if (s)
                server_refused(s, serial, why);
}

void gateway_link(struct gateway *g, bool up)
{
        g->link_up = up;
        if (up)
                pins_tell_all(g);
        for (size_t i = 0; i < g->n_servers; i++) {
                g->servers[i]->asked = false;
                if (!up)
                        instances_unlinked(g->servers[i]);
                if (!up && g->servers[i]->entry.readiness != READINESS_UP)
                        wait_failed(g->servers[i], ERR_UNAVAILABLE, "the controller that starts it went away: try again");
        }
}

void gateway_link_stale(struct gateway *g, const char *why)
{
        for (size_t i = 0; i < g->n_servers; i++)
                server_down(g->servers[i], why);
}

/* -- from the front -------------------------------------------------------------------------------------------------------------- */
/* 0: *ret is the server, or NULL for all. -1: no path of ours. */
static int endpoint_of(struct gateway *g, const char *path, struct server **ret)
{
        const char *name, *end;

        *ret = NULL;
        if (str_eq(path, PATH_ALL))
                return 0;
        if (!str_has_prefix(path, PATH_PREFIX))
                return -1;
        name = path + strlen(PATH_PREFIX);
        end = strchr(name, '/');
        if (!end || !str_eq(end, PATH_ALL))
                return -1;
        *ret = server_find(g, name, (size_t)(end - name));
        return *ret ? 0 : -1;
}

/* Does the header, a list of media ranges, have this type? type: "application/json". */
static bool accepts(const char *header, const char *type)
{
        size_t major = strcspn(type, "/") + 1;

        while (header && *header) {
                size_t n;

                header += strspn(header, " \t,");
                n = strcspn(header, " \t,;");
                if ((n == strlen(type) && strncasecmp(header, type, n) == 0) || (n == 3 && memcmp(header, "*/*", 3) == 0) ||
                    (n == major + 1 && strncasecmp(header, type, major) == 0 && header[major] == '*'))
                        return true;
                header += strcspn(header, ",");
        }
        return false;
}

static bool is_json(const char *content_type)
{
        size_t n = content_type ? strcspn(content_type, " \t;") : 0;

        return n == strlen("application/json") && strncasecmp(content_type, "application/json", n) == 0;
}

/* The body decides, then the header: a request that only says in its header that it is modern lacks what the body must have. */
static bool is_modern(struct exchange *x, const struct mcp_message *m)
{
        const char *version = exchange_header(x, "MCP-Protocol-Version");
        int r;

        if (mcp_has(m->meta_version) || mcp_is(m->method, "server/discover") || mcp_is(m->method, "subscriptions/listen"))
                return true;
        if (mcp_is(m->method, "initialize") || !version)
                return false;
        r = mcp_revision_find(mcp_slice_of(version));
        return r >= 0 && mcp_revision_era((enum mcp_revision)r) == MCP_ERA_MODERN;
}

static void post(struct gateway *g, struct server *endpoint, struct exchange *x)
{
        const char *accept = exchange_header(x, "Accept");
        _cleanup_err_ struct err *why = NULL;
        _cleanup_buf_ struct buf text = {0};
        struct mcp_message m = {0};
        size_t n;
        int fault;

        if (!accepts(accept, "application/json") || !accepts(accept, "text/event-stream")) {
                reply_error(x, 406, NO_ID, MCP_INVALID_REQUEST, "Not Acceptable: Accept must list application/json and text/event-stream");
                return;
        }
        if (!is_json(exchange_header(x, "Content-Type"))) {
                reply_error(x, 415, NO_ID, MCP_INVALID_REQUEST, "Unsupported Media Type: Content-Type must be application/json");
                return;
        }
        (void)exchange_body(x, &n);
        if (!gateway_has_room(g, n)) {
                exchange_add_header(x, "Retry-After", "1");
                reply_error(x, 503, NO_ID, BUSY, "too many large requests are under way: try again");
                return;
        }
        exchange_take_body(x, &text);
        fault = mcp_message_scan(&m, text.data ? text.data : "", text.len, &why);
        if (!fault && is_modern(x, &m))
                modern_post(g, endpoint, x, &text, &m);
        else
                legacy_post(g, endpoint, x, &text, &m, fault, why);
}

static void not_allowed(struct exchange *x)
{
        exchange_add_header(x, "Allow", "GET, POST, DELETE");
        reply_error(x, 405, NO_ID, MCP_INVALID_REQUEST, "Method Not Allowed");
}

void gateway_exchange(struct exchange *x, void *gateway)
{
        struct gateway *g = gateway;
        const char *method = exchange_method(x);
        struct server *endpoint;

        if (endpoint_of(g, exchange_path(x), &endpoint) < 0)
                reply_error(x, 404, NO_ID, MCP_INVALID_REQUEST, "Not Found: no server of this name");
        else if (str_eq(method, "POST"))
                post(g, endpoint, x);
        else if (str_eq(method, "DELETE") && exchange_header(x, "Mcp-Session-Id"))
                legacy_delete(g, endpoint, x);
        else if (!str_eq(method, "GET") || !exchange_header(x, "Mcp-Session-Id"))
                not_allowed(x);
        else if (!accepts(exchange_header(x, "Accept"), "text/event-stream"))
                reply_error(x, 406, NO_ID, MCP_INVALID_REQUEST, "Not Acceptable: Accept must list text/event-stream");
        else
                legacy_get(g, endpoint, x);
}

/* -- figures --------------------------------------------------------------------------------------------------------------------- */
static uint64_t m_up(const struct server *s)
{
        const struct instance *i;

        LIST_FOREACH (i, &s->instances, struct instance, in_server)
                if (i->leg && i->leg->ready)
                        return 1;
        return s->shared && s->shared->ready;
}

void gateway_counts(const struct gateway *g, struct gateway_counts *ret)
{
        *ret = g->counts;
        ret->servers = (unsigned)g->n_servers;
        ret->sessions = g->n_sessions;
        ret->calls_in_flight = ret->servers_up = 0;
        for (size_t i = 0; i < g->n_servers; i++) {
                const struct server *s = g->servers[i];

                ret->servers_up += m_up(s) != 0;
                ret->calls_in_flight += s->in_flight;
        }
}

struct metric {
        const char *name, *type, *help;
        uint64_t (*value)(const struct server *s);
};

static uint64_t m_instances(const struct server *s)
{
        return s->n_instances;
}

static uint64_t m_in_flight(const struct server *s)
{
        return s->in_flight;
}

static uint64_t m_waiting(const struct server *s)
{
        return s->n_waiting;
}

static uint64_t m_calls(const struct server *s)
{
        return s->calls;
}

static uint64_t m_failed(const struct server *s)
{
        return s->failed;
}

static uint64_t m_timeouts(const struct server *s)
{
        return s->timeouts;
}

static uint64_t m_starts(const struct server *s)
{
        return s->starts;
}

static uint64_t m_withheld(const struct server *s)
{
        return s->n_differences;
}

void gateway_metrics(const struct gateway *g, struct buf *out)
{
        static const struct metric metrics[] = {
                {"bulkhead_server_up", "gauge", "A session with the server is ready.", m_up},
                {"bulkhead_server_instances", "gauge", "Instances for single sessions, of a server that has them.", m_instances},
                {"bulkhead_server_calls_in_flight", "gauge", "Requests that the server has not answered yet.", m_in_flight},
                {"bulkhead_server_calls_waiting", "gauge", "Requests that wait for the server to come up.", m_waiting},
                {"bulkhead_server_calls_total", "counter", "Requests sent to the server.", m_calls},
                {"bulkhead_server_calls_failed_total", "counter", "Requests that got no answer.", m_failed},
                {"bulkhead_server_timeouts_total", "counter", "Requests that took too long.", m_timeouts},
                {"bulkhead_server_withheld", "gauge", "Tools and the like that differ from what was approved.", m_withheld},
                {"bulkhead_server_starts_total", "counter", "Starts asked of the controller.", m_starts},
        };

        for (size_t i = 0; i < ELEMENTSOF(metrics); i++) {
                buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n", metrics[i].name, metrics[i].help, metrics[i].name, metrics[i].type);
                for (size_t k = 0; k < g->n_servers; k++)
                        buf_addf(out, "%s{server=\"%s\"} %" PRIu64 "\n", metrics[i].name, g->servers[k]->entry.name,
                                 metrics[i].value(g->servers[k]));
        }
        buf_addf(out, "# HELP bulkhead_sessions Sessions of legacy clients.\n# TYPE bulkhead_sessions gauge\nbulkhead_sessions %u\n",
                 g->n_sessions);
}
