/*
 * subscriptions/listen: the streams of modern clients, and one of ours to every modern server.
 * Source: MCP 2026-07-28, basic/patterns/subscriptions.
 */
#include "broker/gateway/internal.h"

#define RELISTEN_MS 1000U
#define GATHER_MS   20U   /* what changes in this time is told together: every time all of it is told */
#define COUNTS_MS   2000U /* a server that has not acknowledged a subscription by then is not waited for */
#define MAX_URIS    256U

static void listen_free(struct listen *l)
{
        list_del(&l->in_gateway);
        subs_leave_all(&l->subs);
        guard_unref(l->g, l->who);
        free(l->id);
        free(l);
}

static void on_left(_unused_ struct exchange *x, void *user)
{
        listen_free(user);
}

static void send_text(struct listen *l, const struct buf *text)
{
        struct buf event = {0};

        sse_add_event(&event, NULL, NULL, text->data, text->len);
        exchange_send(l->x, &event);
}

/* Every message on the stream says which subscription it is for. */
void listen_event(struct listen *l, const struct mcp_message *m)
{
        _cleanup_buf_ struct buf text = {0}, meta = {0};

        mcp_object_set(&meta, m->meta, MCP_META_SUBSCRIPTION, mcp_slice_of(l->id));
        buf_adds(&text, "{\"jsonrpc\":\"2.0\",\"method\":\"");
        mcp_add_slice(&text, m->method);
        buf_adds(&text, "\",\"params\":");
        mcp_object_set(&text, m->params, "_meta", slice_of_buf(&meta));
        buf_addc(&text, '}');
        send_text(l, &text);
}

static void listen_end(struct listen *l)
{
        _cleanup_buf_ struct buf text = {0};

        buf_addf(&text, "{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{\"resultType\":\"complete\",\"_meta\":{\"%s\":%s}}}", l->id,
                 MCP_META_SUBSCRIPTION, l->id);
        send_text(l, &text);
        exchange_on_left(l->x, NULL, NULL);
        exchange_end(l->x);
        listen_free(l);
}

void listens_free(struct gateway *g, const struct server *s)
{
        struct listen *l;

        LIST_FOREACH (l, &g->listens, struct listen, in_gateway)
                if (!s || l->server == s)
                        listen_end(l);
}

void listens_review(struct gateway *g)
{
        struct listen *l;

        LIST_FOREACH (l, &g->listens, struct listen, in_gateway)
                if (l->who && g->guard->standing(l->who, g->guard->user) != GATEWAY_COUNTS)
                        listen_end(l);
}

/* -- a client's ------------------------------------------------------------------------------------------------------------------ */
/* Does the server do that? All servers together do everything. */
static bool supports(const struct call *c, const char *kind, const char *what)
{
        struct mcp_slice capability = c->server ? leg_capability(c->leg, kind) : (struct mcp_slice){0};

        return !c->server || (mcp_is_object(capability) && mcp_is_true(mcp_object_get(capability, what)));
}

static bool wanted(const struct call *c, const char *key, const char *kind)
{
        return mcp_is_true(mcp_object_get(c->m.notifications, key)) && supports(c, kind, "listChanged");
}

/* Whose resource it is: as lists have shown, or because there is one server alone that it could be of for this client. */
static struct server *owner_of(const struct call *c, struct mcp_slice uri)
{
        struct server *found = c->server ? c->server : route_find(c->g, uri);

        if (found)
                return guard_sees(c->g, c->who, POLICY_RESOURCE, found, uri) ? found : NULL;
        for (size_t i = 0; i < c->g->n_servers; i++) {
                if (!guard_sees(c->g, c->who, POLICY_RESOURCE, c->g->servers[i], uri))
                        continue;
                if (found)
                        return NULL;
                found = c->g->servers[i];
        }
        return found;
}

/* Subscribes, and appends the URIs that will be told of. */
static void join_uris(struct listen *l, const struct call *c, struct buf *out)
{
        struct mcp_slice uris = mcp_object_get(c->m.notifications, "resourceSubscriptions"), uri;
        size_t pos = 0;

        if (!mcp_is_array(uris) || !supports(c, "resources", "subscribe"))
                return;
        for (unsigned n = 0; n < MAX_URIS && mcp_array_next(uris, &pos, &uri) == 1; n++) {
                struct server *s = mcp_is_string(uri) ? owner_of(c, uri) : NULL;

                if (!s || !subs_join(s, uri, NULL, l))
                        continue;
                buf_addc(out, out->len ? ',' : '[');
                mcp_add_slice(out, uri);
        }
        if (out->len)
                buf_addc(out, ']');
}

static void acknowledge(struct listen *l, const struct buf *uris)
{
        _cleanup_buf_ struct buf text = {0};
        const char *sep = "";

        buf_addf(&text,
                 "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/subscriptions/acknowledged\",\"params\":{\"_meta\":{\"%s\":%s},"
                 "\"notifications\":{",
                 MCP_META_SUBSCRIPTION, l->id);
        if (l->tools) {
                buf_adds(&text, "\"toolsListChanged\":true");
                sep = ",";
        }
        if (l->prompts) {
                buf_addf(&text, "%s\"promptsListChanged\":true", sep);
                sep = ",";
        }
        if (l->resources) {
                buf_addf(&text, "%s\"resourcesListChanged\":true", sep);
                sep = ",";
        }
        if (uris->len)
                buf_addf(&text, "%s\"resourceSubscriptions\":%s", sep, uris->data);
        buf_adds(&text, "}}}");
        send_text(l, &text);
}

static void listen_open(struct call *c)
{
        _cleanup_buf_ struct buf uris = {0};
        struct listen *l;

        if (!c->reply || !c->reply->x) {
                call_free(c);
                return;
        }
        l = NEW(struct listen);
        l->g = c->g;
        l->server = c->server;
        l->who = guard_ref(c->g, c->who);
        l->principal = c->principal;
        l->id = mem_strndup(c->m.id.at, c->m.id.n);
        l->tools = wanted(c, "toolsListChanged", "tools");
        l->prompts = wanted(c, "promptsListChanged", "prompts");
        l->resources = wanted(c, "resourcesListChanged", "resources");
        list_init(&l->subs);
        list_add(&c->g->listens, &l->in_gateway);
        join_uris(l, c, &uris);
        if (!c->reply->streaming)
                exchange_stream(c->reply->x);
        l->x = reply_take(c);
        exchange_on_left(l->x, on_left, l);
        acknowledge(l, &uris);
        call_free(c);
}

void listen_start(struct call *c)
{
        if (!mcp_is_object(c->m.notifications))
                call_error(c, MCP_INVALID_PARAMS, "Invalid params: notifications is needed", (struct mcp_slice){0});
        else if (c->server)
                server_want(c->server, c, listen_open);
        else
                listen_open(c);
}

/* -- ours ------------------------------------------------------------------------------------------------------------------------ */
static void subscribed_all(struct leg *l)
{
        struct call *c;

        timer_off(l->subscribing_timer);
        while ((c = list_first(&l->subscribing, struct call, in_queue))) {
                list_del(&c->in_queue);
                call_answer(c, mcp_slice_of("{}"));
        }
}

static int on_subscribing_over(_unused_ sd_event_source *source, _unused_ uint64_t now, void *user)
{
        subscribed_all(user);
        return 0;
}

static bool is_to_listen_anew(const struct leg *l)
{
        int enabled = SD_EVENT_OFF;

        return l->listen_timer && sd_event_source_get_enabled(l->listen_timer, &enabled) >= 0 && enabled != SD_EVENT_OFF;
}

/* A client that was told so may change the resource at once, and wants to hear of it. */
void leg_answer_subscribed(struct leg *l, struct call *c)
{
        if (!is_to_listen_anew(l) && (l->listen_counts || !l->listen)) {
                call_answer(c, mcp_slice_of("{}"));
                return;
        }
        if (list_empty(&l->subscribing))
                timer_arm(&l->subscribing_timer, l->server->g->loop, COUNTS_MS, on_subscribing_over, l);
        list_add(&l->subscribing, &c->in_queue);
}

void leg_listen_over(struct leg *l)
{
        if (l->listen)
                upstream_call_cancel(TAKE_PTR(l->listen), NULL);
        sd_event_source_disable_unref(l->listen_timer);
        subscribed_all(l);
        sd_event_source_disable_unref(l->subscribing_timer);
}

static void on_listen_notification(struct upstream_call *up, const struct mcp_message *m, void *user)
{
        struct leg *l = user;

        if (!mcp_is(m->method, "notifications/subscriptions/acknowledged")) {
                subs_notification(l, m);
        } else if (up == l->listen) {
                l->listen_counts = true;
                if (!is_to_listen_anew(l))
                        subscribed_all(l);
        }
}

static int on_relisten(_unused_ sd_event_source *source, _unused_ uint64_t now, void *user)
{
        leg_listen(user);
        return 0;
}

/* A server that knows no such request is not asked again; one that ended the stream is, after a while. */
static void on_listen_done(_unused_ struct upstream_call *up, const struct mcp_message *answer, _unused_ const struct err *why, void *user)
{
        struct leg *l = user;

        l->listen = NULL;
        subscribed_all(l);
        if (!l->ready || (answer && answer->kind == MCP_ERROR))
                return;
        timer_arm(&l->listen_timer, l->server->g->loop, RELISTEN_MS, on_relisten, l);
}

static void listen_params(struct buf *out, struct leg *l)
{
        buf_addf(out,
                 "{\"_meta\":{\"" MCP_META_VERSION "\":\"%s\",\"" MCP_META_CLIENT "\":%s,\"" MCP_META_CAPABILITIES "\":{}},"
                 "\"notifications\":{\"toolsListChanged\":true,\"promptsListChanged\":true,\"resourcesListChanged\":true",
                 mcp_revision_name(MCP_NEWEST), gateway_client_info);
        subs_uris(l, out);
        buf_adds(out, "}}");
}

static bool may_listen(const struct leg *l)
{
        static const char *const kinds[] = {"tools", "prompts", "resources"};

        for (size_t i = 0; i < ELEMENTSOF(kinds); i++) {
                struct mcp_slice capability = leg_capability(l, kinds[i]);

                if (mcp_is_object(capability) &&
                    (mcp_is_true(mcp_object_get(capability, "listChanged")) || mcp_is_true(mcp_object_get(capability, "subscribe"))))
                        return true;
        }
        return false;
}

void leg_listen_anew(struct leg *l)
{
        if (now_ms(l->server->g->loop) - l->listened_ms >= GATHER_MS)
                leg_listen(l);
        else
                timer_arm(&l->listen_timer, l->server->g->loop, GATHER_MS, on_relisten, l);
}

void leg_listen(struct leg *l)
{
        _cleanup_buf_ struct buf params = {0};
        struct upstream_call *old = TAKE_PTR(l->listen);
        struct upstream_request request = {
                .method = MCP_M_LISTEN, .notification = on_listen_notification, .done = on_listen_done, .user = l};

        timer_off(l->listen_timer);
        l->listened_ms = now_ms(l->server->g->loop);
        if (l->ready && may_listen(l)) {
                listen_params(&params, l);
                request.params = slice_of_buf(&params);
                l->listen_counts = false;
                l->listen = upstream_request(l->u, &request);
        }
        if (old)
                upstream_call_cancel(old, "the subscription changed");
}
