#include <arpa/inet.h>
#include <strings.h>

#include "broker/gateway/upstream_http.h"
#include "common/mcp/headers.h"

/*
 * Sessions with HTTP servers: one POST for each message. The address is the one that the controller told, as a number; no name is looked
 * up, no redirection followed, no proxy asked, and nothing that a server names is connected to.
 */

/* -- requests ------------------------------------------------------------------------------------------------------------------ */

static const struct {
        const char *method;
        bool has_body, has_revision, has_session;
} lists[N_LISTS] = {
        [LIST_MODERN] = {"POST", true, true, true}, [LIST_INITIALIZE] = {"POST", true, false, false},
        [LIST_LEGACY] = {"POST", true, true, true}, [LIST_EVENTS] = {"GET", false, true, true},
        [LIST_BYE] = {"DELETE", false, true, true},
};

static void add_field(struct buf *b, const char *name, const char *value)
{
        buf_adds(b, name);
        buf_adds(b, ": ");
        buf_adds(b, value);
        buf_adds(b, "\r\n");
}

static bool is_named(const char *header, const char *name)
{
        size_t n = strlen(name);

        return strncasecmp(header, name, n) == 0 && header[n] == ':';
}

/* What the configuration says stands instead of it. */
static void add_default(const struct http *h, struct buf *b, const char *name, const char *value)
{
        for (char *const *p = h->extra; p && *p; p++)
                if (is_named(*p, name))
                        return;
        add_field(b, name, value);
}

static const char *path_of(const struct http *h, enum http_list which)
{
        return lists[which].has_body && h->sse ? h->endpoint : h->path;
}

const struct buf *http_list(struct http *h, enum http_list which)
{
        struct buf *b = &h->lists[which];

        if (b->len > 0)
                return b;
        buf_addf(b, "%s %s HTTP/1.1\r\n", lists[which].method, path_of(h, which));
        add_default(h, b, "Host", h->authority);
        add_default(h, b, "User-Agent", "bulkhead");
        for (char *const *p = h->extra; p && *p; p++) {
                buf_adds(b, *p);
                buf_adds(b, "\r\n");
        }
        if (lists[which].has_body)
                add_default(h, b, "Content-Type", "application/json");
        add_default(h, b, "Accept", which == LIST_EVENTS ? "text/event-stream" : "application/json, text/event-stream");
        if (which == LIST_MODERN)
                add_field(b, "MCP-Protocol-Version", mcp_revision_name(MCP_NEWEST));
        else if (lists[which].has_revision && h->upstream->era == MCP_ERA_LEGACY)
                add_field(b, "MCP-Protocol-Version", mcp_revision_name(h->upstream->revision));
        if (lists[which].has_session && h->session)
                add_field(b, "Mcp-Session-Id", h->session);
        return b;
}

/* What mirrors a modern request's body. */
static void mirror(struct buf *b, const struct outgoing *m)
{
        _cleanup_free_ char *name = mcp_has(m->name) ? mcp_string(m->name) : NULL;
        _cleanup_free_ char *value = name ? mcp_header_encode(name, strlen(name)) : NULL;

        add_field(b, "Mcp-Method", m->method);
        if (value)
                add_field(b, "Mcp-Name", value);
        for (char *const *p = m->headers; p && *p; p++) {
                buf_adds(b, *p);
                buf_adds(b, "\r\n");
        }
}

/* -- sending ------------------------------------------------------------------------------------------------------------------- */

static enum http_list list_of(const struct http *h, enum mcp_method method)
{
        if (h->upstream->era == MCP_ERA_MODERN || method == MCP_M_DISCOVER)
                return LIST_MODERN;
        return method == MCP_M_INITIALIZE ? LIST_INITIALIZE : LIST_LEGACY;
}

static void post(struct http *h, enum stream_kind kind, const struct outgoing *m)
{
        struct http_stream *s = stream_new(h, kind);
        enum mcp_method method = m->call ? m->call->method : MCP_M_UNKNOWN;
        enum http_list which = list_of(h, method);
        const struct buf *list = http_list(h, which);
        struct buf *own = &h->pool->scratch;
        struct iovec parts[2 + ELEMENTSOF(m->parts)];
        size_t n = 0;

        own->len = 0;
        if (which == LIST_MODERN)
                mirror(own, m);
        buf_adds(own, "Content-Length: ");
        buf_addu(own, m->n);
        buf_adds(own, "\r\n\r\n");
        parts[n++] = (struct iovec){list->data, list->len};
        parts[n++] = (struct iovec){own->data, own->len};
        for (size_t i = 0; i < m->n_parts; i++)
                parts[n++] = (struct iovec){(void *)(uintptr_t)m->parts[i].at, m->parts[i].n};
        /* What a server does for these is done once more without harm, should they have to be sent again. */
        s->repeatable = method != MCP_M_TOOLS_CALL && method != MCP_M_UNKNOWN;
        if (m->call) {
                s->call = m->call;
                m->call->stream = s;
        }
        connection_start(s, parts, n);
}

static int http_send(struct upstream *u, const struct outgoing *m, struct err **err)
{
        struct http *h = u->transport;

        if (m->call) {
                post(h, STREAM_CALL, m);
                return 0;
        }
        if (u->era == MCP_ERA_MODERN)
                return err_set(err, ERR_INVALID, "there are no notifications to a modern HTTP server");
        if (h->n_notes >= HTTP_MAX_NOTES)
                return err_set(err, ERR_LIMIT, "%u notifications are on their way already", h->n_notes);
        if (h->sse && !h->endpoint)
                return err_set(err, ERR_UNAVAILABLE, "the server has not named its endpoint yet");
        post(h, STREAM_NOTE, m);
        return 0;
}

static void http_settle(struct upstream *u)
{
        struct outgoing o = {0};

        outgoing_note(&o, "notifications/initialized", (struct mcp_slice){0});
        post(u->transport, STREAM_SETTLE, &o);
}

void http_open_events(struct http *h)
{
        h->events = stream_new(h, STREAM_EVENTS);
        h->events->repeatable = true;
        stream_request(h->events, http_list(h, LIST_EVENTS), NULL);
        connection_start(h->events, NULL, 0);
}

/* -- the session -------------------------------------------------------------------------------------------------------------- */

/*
 * Answered on its own stream: that ends by itself, most often in the same turn, and its connection is used again. Otherwise nobody wants
 * the answer any more: to a modern server, closing the stream says so.
 */
static void http_forget(struct upstream *u, struct upstream_call *c)
{
        struct http *h = u->transport;
        struct http_stream *s = c->stream;

        c->stream = NULL;
        if (!s)
                return;
        s->call = NULL;
        if (s->finished && s->held)
                return; /* stream_ended() closes it */
        if ((s->held || h->sse) && u->state != UPSTREAM_ENDED)
                stream_linger(s);
        else
                stream_close(s);
}

static void say_goodbye(struct http *h)
{
        struct http_stream *s;

        if (!h->session || h->upstream->era != MCP_ERA_LEGACY || h->pool->n_byes >= HTTP_MAX_BYES)
                return;
        s = stream_new(h, STREAM_BYE);
        s->repeatable = true;
        stream_request(s, http_list(h, LIST_BYE), NULL);
        stream_leave(s);
}

static void http_close(struct upstream *u)
{
        struct http *h = u->transport;
        struct http_stream *s;

        while ((s = list_first(&h->streams, struct http_stream, in_list)))
                stream_close(s);
        say_goodbye(h);
        h->linger = sd_event_source_disable_unref(h->linger);
}

static void http_destroy(struct upstream *u)
{
        struct http *h = u->transport;

        for (size_t i = 0; i < N_LISTS; i++)
                buf_deinit(&h->lists[i]);
        peer_unref(h->peer);
        upstream_pool_free(h->own_pool);
        strv_free(h->extra);
        free(h->authority);
        free(h->origin);
        free(h->path);
        free(h->endpoint);
        free(h->session);
        free(h->trouble);
        free(h);
}

static const char *http_trouble(const struct upstream *u)
{
        const struct http *h = u->transport;

        return h->trouble;
}

static const struct upstream_ops http_ops = {
        .send = http_send,
        .settle = http_settle,
        .forget = http_forget,
        .close = http_close,
        .destroy = http_destroy,
        .trouble = http_trouble,
        .closes_to_cancel = true,
};

static bool is_header(const char *line)
{
        const char *colon = strchr(line, ':');

        return colon && http_is_token(line, (size_t)(colon - line)) && http_is_value(colon + 1, strlen(colon + 1));
}

/* Header lines and paths come from the registry and from secrets, and are sent as they are. */
static int check_config(const struct upstream_config *config, struct err **err)
{
        if (!config->path || config->path[0] != '/')
                return err_set(err, ERR_INVALID, "server %s: its path must begin with a slash", config->name);
        for (const char *p = config->path; *p; p++)
                if (*p <= ' ' || *p > '~' || *p == '#')
                        return err_set(err, ERR_INVALID, "server %s: its path has characters that no URL has", config->name);
        for (char *const *h = config->headers; h && *h; h++)
                if (!is_header(*h))
                        return err_set(err, ERR_INVALID, "server %s: one of its headers is not one line of \"Name: value\"", config->name);
        if (config->port == 0 || config->address.s_addr == INADDR_ANY)
                return err_set(err, ERR_INVALID, "server %s: it has no address and port", config->name);
        return 0;
}

static struct http *http_new(struct upstream *u, const struct upstream_config *config)
{
        struct http *h = NEW(struct http);
        char text[INET_ADDRSTRLEN];

        list_init(&h->streams);
        h->upstream = u;
        h->pool = config->pool;
        if (config->tls_host && config->port == 443)
                h->authority = mem_strdup(config->tls_host);
        else
                h->authority =
                        mem_printf("%s:%u", config->tls_host ? config->tls_host : inet_ntop(AF_INET, &config->address, text, sizeof(text)),
                                   config->port);
        h->origin = mem_printf("%s://%s", config->tls_host ? "https" : "http", h->authority);
        h->path = mem_strdup(config->path);
        h->sse = config->sse;
        h->extra = strv_dup(config->headers);
        return h;
}

int upstream_http_new(struct upstream **ret, sd_event *loop, const struct upstream_config *config, const struct upstream_events *events,
                      void *user, struct err **err)
{
        _cleanup_(upstream_freep) struct upstream *u = NULL;
        struct http *h;

        if (check_config(config, err) < 0 || upstream_new(&u, loop, config, events, user, err) < 0)
                return -1;
        h = http_new(u, config);
        u->ops = &http_ops;
        u->transport = h;
        u->legacy_only |= h->sse; /* no modern server speaks the older transport */
        if (!h->pool && upstream_pool_new(&h->own_pool, loop, NULL, err) < 0)
                return -1;
        h->pool = h->pool ? h->pool : h->own_pool;
        if (pool_peer(&h->peer, h->pool, config, err) < 0)
                return err_wrap(err, "server %s", config->name);
        if (handshake_start(u, err) < 0)
                return -1;
        if (h->sse)
                http_open_events(h);
        else
                handshake_go(u);
        *ret = TAKE_PTR(u);
        return 0;
}
