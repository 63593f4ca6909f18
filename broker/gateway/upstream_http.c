#include <arpa/inet.h>

#include "broker/gateway/upstream_http.h"
#include "common/mcp/headers.h"

/*
 * Sessions with HTTP servers: one POST for each message. The address is the one that the controller told, as a number; no name is looked
 * up, no redirection followed, no proxy asked, and nothing that a server names is connected to.
 */

/* -- headers ------------------------------------------------------------------------------------------------------------------ */

void slist_add(struct curl_slist **list, const char *text)
{
        struct curl_slist *longer = curl_slist_append(*list, text);

        if (!longer)
                abort();
        *list = longer;
}

static void add_named(struct curl_slist **list, const char *name, const char *value)
{
        _cleanup_free_ char *text = mem_printf("%s: %s", name, value);

        slist_add(list, text);
}

/* Made once for each kind of request, when the handshake has come so far. */
struct curl_slist *http_list(struct http *h, enum http_list which)
{
        struct curl_slist **list = &h->lists[which];

        if (*list)
                return *list;
        for (char **p = h->extra; p && *p; p++)
                slist_add(list, *p);
        if (which == LIST_EVENTS) {
                add_named(list, "Accept", "text/event-stream");
        } else {
                add_named(list, "Content-Type", "application/json");
                add_named(list, "Accept", "application/json, text/event-stream");
                slist_add(list, "Expect:");
        }
        if (which == LIST_MODERN)
                add_named(list, "MCP-Protocol-Version", mcp_revision_name(MCP_NEWEST));
        else if (which != LIST_INITIALIZE && h->upstream->era == MCP_ERA_LEGACY)
                add_named(list, "MCP-Protocol-Version", mcp_revision_name(h->upstream->revision));
        if (which != LIST_INITIALIZE && h->session)
                add_named(list, "Mcp-Session-Id", h->session);
        return *list;
}

/* What mirrors a modern request's body. */
static void mirror(struct http_stream *s, const struct outgoing *m)
{
        size_t n = 0, n_extra = strv_len(m->headers);
        _cleanup_free_ char **texts = NEW_N(char *, n_extra + 2);
        _cleanup_free_ char *name = mcp_has(m->name) ? mcp_string(m->name) : NULL;
        _cleanup_free_ char *value = name ? mcp_header_encode(name, strlen(name)) : NULL;

        texts[n++] = mem_printf("Mcp-Method: %s", m->method);
        if (value)
                texts[n++] = mem_printf("Mcp-Name: %s", value);
        for (size_t i = 0; i < n_extra; i++)
                texts[n++] = mem_strdup(m->headers[i]);
        stream_headers(s, texts, n, http_list(s->http, LIST_MODERN));
}

/* -- sending ------------------------------------------------------------------------------------------------------------------ */

static struct http_stream *post(struct http *h, enum stream_kind kind, const struct outgoing *m)
{
        struct http_stream *s = stream_new(h, kind);
        enum mcp_method method = m->call ? m->call->method : MCP_M_UNKNOWN;

        for (size_t i = 0; i < m->n_parts; i++)
                buf_add(&s->body, m->parts[i].at, m->parts[i].n);
        /* What a server does for these is done once more without harm, should curl have to send them again. */
        s->repeatable = method != MCP_M_TOOLS_CALL && method != MCP_M_UNKNOWN;
        if (h->upstream->era == MCP_ERA_MODERN || method == MCP_M_DISCOVER)
                mirror(s, m);
        else
                stream_headers(s, NULL, 0, http_list(h, method == MCP_M_INITIALIZE ? LIST_INITIALIZE : LIST_LEGACY));
        if (m->call) {
                s->call = m->call;
                m->call->stream = s;
        }
        stream_start(s);
        return s;
}

static int http_send(struct upstream *u, const struct outgoing *m, struct err **err)
{
        struct http *h = u->transport;

        if (m->call) {
                (void)post(h, STREAM_CALL, m);
                return 0;
        }
        if (u->era == MCP_ERA_MODERN)
                return err_set(err, ERR_INVALID, "there are no notifications to a modern HTTP server");
        if (h->n_notes >= HTTP_MAX_NOTES)
                return err_set(err, ERR_LIMIT, "%u notifications are on their way already", h->n_notes);
        if (h->sse && !h->endpoint)
                return err_set(err, ERR_UNAVAILABLE, "the server has not named its endpoint yet");
        (void)post(h, STREAM_NOTE, m);
        return 0;
}

static void http_settle(struct upstream *u)
{
        struct outgoing o = {0};

        outgoing_note(&o, "notifications/initialized", (struct mcp_slice){0});
        (void)post(u->transport, STREAM_SETTLE, &o);
}

void http_open_events(struct http *h)
{
        h->events = stream_new(h, STREAM_EVENTS);
        h->events->repeatable = true;
        stream_headers(h->events, NULL, 0, http_list(h, LIST_EVENTS));
        stream_start(h->events);
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
        if (!h->session || h->upstream->era != MCP_ERA_LEGACY || h->pool->n_byes >= HTTP_MAX_BYES)
                return;
        (void)http_list(h, LIST_LEGACY);
        stream_leave(stream_new(h, STREAM_BYE), TAKE_PTR(h->lists[LIST_LEGACY]));
}

static void http_close(struct upstream *u)
{
        struct http *h = u->transport;

        while (h->streams)
                stream_close(h->streams);
        say_goodbye(h);
        h->linger = sd_event_source_disable_unref(h->linger);
}

static void http_destroy(struct upstream *u)
{
        struct http *h = u->transport;

        for (size_t i = 0; i < N_LISTS; i++)
                curl_slist_free_all(h->lists[i]);
        upstream_pool_free(h->own_pool);
        strv_free(h->extra);
        free(h->origin);
        free(h->url);
        free(h->endpoint);
        free(h->session);
        free(h);
}

static const char *http_trouble(const struct upstream *u)
{
        const struct http *h = u->transport;

        return h->trouble[0] ? h->trouble : NULL;
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

/* Header lines and paths come from the registry and from secrets; curl would send a line break as it is. */
static int check_config(const struct upstream_config *config, struct err **err)
{
        if (!config->path || config->path[0] != '/')
                return err_set(err, ERR_INVALID, "server %s: its path must begin with a slash", config->name);
        for (const char *p = config->path; *p; p++)
                if (*p <= ' ' || *p > '~' || *p == '#')
                        return err_set(err, ERR_INVALID, "server %s: its path has characters that no URL has", config->name);
        for (char *const *h = config->headers; h && *h; h++)
                if (strpbrk(*h, "\r\n") || !strchr(*h, ':'))
                        return err_set(err, ERR_INVALID, "server %s: one of its headers is not one line of \"Name: value\"", config->name);
        if (config->port == 0 || config->address.s_addr == INADDR_ANY)
                return err_set(err, ERR_INVALID, "server %s: it has no address and port", config->name);
        return 0;
}

static struct http *http_new(struct upstream *u, const struct upstream_config *config)
{
        struct http *h = NEW(struct http);
        char text[INET_ADDRSTRLEN];

        h->upstream = u;
        h->pool = config->pool;
        h->address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = config->address, .sin_port = htons(config->port)};
        h->origin = mem_printf("http://%s:%u", inet_ntop(AF_INET, &config->address, text, sizeof(text)), config->port);
        h->url = mem_printf("%s%s", h->origin, config->path);
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
        if (!h->pool && upstream_pool_new(&h->own_pool, loop, err) < 0)
                return -1;
        h->pool = h->pool ? h->pool : h->own_pool;
        if (handshake_start(u, err) < 0)
                return -1;
        if (h->sse)
                http_open_events(h);
        else
                handshake_go(u);
        *ret = TAKE_PTR(u);
        return 0;
}
