/*
 * Notifications that belong to no call. A change of a list goes to everybody who uses the server; a change of a resource to those who
 * subscribed to it, once for all of them at the server; a log line to a client only when it can be nobody else's.
 */
#include "broker/gateway/internal.h"

struct sub {
        struct list in_server;
        struct server *server;
        char *uri; /* JSON string */
        size_t uri_n;
        struct list subscribers;
};

struct subscriber {
        struct list in_sub, in_owner;
        struct sub *sub;
        struct session *session; /* one of the two */
        struct listen *listen;
};

/* -- requests of our own ---------------------------------------------------------------------------------------------------------- */
static void on_own(struct call *c, _unused_ const struct mcp_message *answer, _unused_ const struct err *why)
{
        call_free(c);
}

void own_request(struct leg *l, enum mcp_method method, const char *params)
{
        struct call *c = call_new(l->server->g, NULL, NULL, MCP_ERA_LEGACY);

        c->own = true;
        c->server = l->server;
        c->leg = l;
        c->method = method;
        c->finish = on_own;
        buf_adds(&c->text, params);
        c->m.params = slice_of_buf(&c->text);
        call_send(c);
}

/* -- resources ---------------------------------------------------------------------------------------------------------------------- */
static struct sub *sub_find(struct server *s, struct mcp_slice uri)
{
        struct sub *sub;

        LIST_FOREACH (sub, &s->subs, struct sub, in_server)
                if (sub->uri_n == uri.n && memcmp(sub->uri, uri.at, uri.n) == 0)
                        return sub;
        return NULL;
}

static void tell_leg(struct leg *l, const struct sub *sub, enum mcp_method method)
{
        _cleanup_free_ char *params = NULL;

        if (!l || !l->ready)
                return;
        if (l->era == MCP_ERA_MODERN) {
                leg_listen_anew(l);
                return;
        }
        params = mem_printf("{\"uri\":%s}", sub->uri);
        own_request(l, method, params);
}

/* Is b one whom what comes on l is for? A server that all share tells all. */
static bool is_of(const struct subscriber *b, const struct leg *l)
{
        const struct instance *i = l->of_instance;

        if (!i)
                return true;
        return !i->own && (b->session ? b->session == i->session : !i->session && b->listen->principal == i->principal);
}

static void tell_instance(const struct subscriber *b, enum mcp_method method)
{
        const struct sub *sub = b->sub;
        const struct instance *i = instance_of_client(sub->server, b->session, b->session ? 0 : b->listen->principal);

        tell_leg(i ? i->leg : NULL, sub, method);
}

static struct sub *sub_new(struct server *s, struct mcp_slice uri)
{
        struct sub *sub = NEW(struct sub);

        sub->server = s;
        sub->uri = mem_strndup(uri.at, uri.n);
        sub->uri_n = uri.n;
        list_init(&sub->subscribers);
        list_add(&s->subs, &sub->in_server);
        s->n_subs++;
        return sub;
}

static void sub_add(struct sub *sub, struct session *session, struct listen *listen)
{
        struct subscriber *b;

        LIST_FOREACH (b, &sub->subscribers, struct subscriber, in_sub)
                if (b->session == session && b->listen == listen)
                        return;
        b = NEW(struct subscriber);
        b->sub = sub;
        b->session = session;
        b->listen = listen;
        list_add(&sub->subscribers, &b->in_sub);
        list_add(session ? &session->subs : &listen->subs, &b->in_owner);
        if (session)
                session->n_subs++;
        if (server_has_instances(sub->server))
                tell_instance(b, MCP_M_RESOURCES_SUBSCRIBE);
}

static bool has_room(struct server *s, struct mcp_slice uri, const struct session *session)
{
        return uri.n <= MAX_URI && (!session || session->n_subs < MAX_SUBSCRIPTIONS) && (s->n_subs < MAX_SUBS_SERVER || sub_find(s, uri));
}

bool subs_join(struct server *s, struct mcp_slice uri, struct session *session, struct listen *listen)
{
        struct sub *sub = sub_find(s, uri);
        bool fresh = !sub;

        if (!has_room(s, uri, session))
                return false;
        if (fresh)
                sub = sub_new(s, uri);
        sub_add(sub, session, listen);
        if (fresh)
                tell_leg(s->shared, sub, MCP_M_RESOURCES_SUBSCRIBE);
        return true;
}

static void leave(struct subscriber *b)
{
        struct sub *sub = b->sub;

        list_del(&b->in_sub);
        list_del(&b->in_owner);
        if (b->session)
                b->session->n_subs--;
        if (server_has_instances(sub->server))
                tell_instance(b, MCP_M_RESOURCES_UNSUBSCRIBE);
        free(b);
        if (!list_empty(&sub->subscribers))
                return;
        list_del(&sub->in_server);
        sub->server->n_subs--;
        tell_leg(sub->server->shared, sub, MCP_M_RESOURCES_UNSUBSCRIBE);
        free(sub->uri);
        free(sub);
}

void subs_leave_all(struct list *subscribers)
{
        while (!list_empty(subscribers))
                leave(list_first(subscribers, struct subscriber, in_owner));
}

void subs_session_free(struct session *s)
{
        subs_leave_all(&s->subs);
}

/* The sessions with it are gone already: nobody is told. */
void subs_server_free(struct server *s)
{
        while (!list_empty(&s->subs)) {
                struct sub *sub = list_first(&s->subs, struct sub, in_server);

                leave(list_first(&sub->subscribers, struct subscriber, in_sub));
        }
}

bool subs_subscribe(struct call *c)
{
        struct leg *l = c->leg;

        if (c->own ||
            (l->era == MCP_ERA_LEGACY && (l->owner || (has_room(c->server, c->m.uri, c->session) && !sub_find(c->server, c->m.uri)))))
                return false;
        c->finish = NULL;
        if (!subs_join(c->server, c->m.uri, c->session, NULL))
                call_error(c, MCP_INVALID_PARAMS, "too many subscriptions", (struct mcp_slice){0});
        else
                leg_answer_subscribed(l, c);
        return true;
}

/* The server took it. A session that is full is not told: it hears of no changes it could not count on either. */
void subs_subscribed(struct call *c)
{
        struct sub *sub = sub_find(c->server, c->m.uri);

        if (c->leg->owner || !c->session || !has_room(c->server, c->m.uri, c->session))
                return;
        sub_add(sub ? sub : sub_new(c->server, c->m.uri), c->session, NULL);
}

void subs_unsubscribe(struct call *c)
{
        struct subscriber *b;
        struct leg *own = c->server ? server_leg(c->server, c) : NULL;

        LIST_FOREACH (b, &c->session->subs, struct subscriber, in_owner)
                if (mcp_same(mcp_slice_of(b->sub->uri), c->m.uri)) {
                        leave(b);
                        break;
                }
        if (own && own->owner && own->era == MCP_ERA_LEGACY)
                call_dispatch(c);
        else
                call_answer(c, mcp_slice_of("{}"));
}

static bool is_wanted(const struct sub *sub, const struct leg *l)
{
        const struct subscriber *b;

        LIST_FOREACH (b, &sub->subscribers, struct subscriber, in_sub)
                if (is_of(b, l))
                        return true;
        return false;
}

void subs_uris(const struct leg *l, struct buf *out)
{
        const struct sub *sub;
        bool first = true;

        LIST_FOREACH (sub, &l->server->subs, struct sub, in_server) {
                if (!is_wanted(sub, l))
                        continue;
                buf_addf(out, "%s%s", first ? ",\"resourceSubscriptions\":[" : ",", sub->uri);
                first = false;
        }
        if (!first)
                buf_addc(out, ']');
}

void subs_leg_ready(struct leg *l)
{
        const struct sub *sub;

        if (l->owner && !l->of_instance)
                return;
        if (l->era == MCP_ERA_MODERN)
                leg_listen(l);
        else
                LIST_FOREACH (sub, &l->server->subs, struct sub, in_server)
                        if (is_wanted(sub, l))
                                tell_leg(l, sub, MCP_M_RESOURCES_SUBSCRIBE);
}

/* -- notifications -------------------------------------------------------------------------------------------------------------- */
/* Legacy clients know no subscription ids. */
static void legacy_text(struct buf *out, const struct mcp_message *m)
{
        struct buf meta = {0}, params = {0};

        if (!mcp_has(m->meta_subscription)) {
                buf_add(out, m->text, m->n);
                return;
        }
        mcp_object_set(&meta, m->meta, MCP_META_SUBSCRIPTION, (struct mcp_slice){0});
        mcp_object_set(&params, m->params, "_meta", slice_of_buf(&meta));
        buf_adds(out, "{\"jsonrpc\":\"2.0\",\"method\":\"");
        mcp_add_slice(out, m->method);
        buf_adds(out, "\",\"params\":");
        buf_add(out, params.data, params.len);
        buf_addc(out, '}');
        buf_deinit(&meta);
        buf_deinit(&params);
}

static void updated(struct leg *l, const struct mcp_message *m)
{
        _cleanup_buf_ struct buf text = {0};
        struct sub *sub = sub_find(l->server, m->uri);
        const struct gateway *g = l->server->g;
        struct subscriber *b;

        legacy_text(&text, m);
        if (l->owner && guard_sees(g, l->owner->who, POLICY_RESOURCE, l->server, m->uri))
                (void)session_event(l->owner, text.data, text.len);
        if (l->owner || !sub)
                return;
        LIST_FOREACH (b, &sub->subscribers, struct subscriber, in_sub) {
                if (!is_of(b, l) || !guard_sees(g, b->session ? b->session->who : b->listen->who, POLICY_RESOURCE, l->server, m->uri))
                        continue;
                if (b->session)
                        (void)session_event(b->session, text.data, text.len);
                else
                        listen_event(b->listen, m);
        }
}

/* Log lines, and the end of an elicitation: for the one whose call is under way, if there is one only. */
static void to_only_client(struct leg *l, const struct mcp_message *m, bool is_log)
{
        struct session *s;
        struct call *c = leg_only_client(l, &s);

        if (c && is_log && !call_wants_log(c, m->level))
                return;
        if (!c && is_log && s && s->level < LEVEL_NONE && level_find(m->level) < s->level)
                return;
        if (c && c->reply && c->reply->x)
                reply_event(c->reply, m->text, m->n);
        else if (s)
                (void)session_event(s, m->text, m->n);
}

void subs_notification(struct leg *l, const struct mcp_message *m)
{
        if (mcp_is(m->method, "notifications/message")) {
                to_only_client(l, m, true);
        } else if (mcp_is(m->method, "notifications/elicitation/complete")) {
                to_only_client(l, m, false);
        } else if (mcp_is(m->method, "notifications/resources/updated") && mcp_is_string(m->uri)) {
                updated(l, m);
        } else {
                changes_tell(l, m->method);
        }
}
