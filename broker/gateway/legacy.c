/*
 * The legacy era's HTTP rules. Source: MCP 2025-11-25, basic/transports, "Streamable HTTP"; batches: 2025-03-26, basic/index.
 */
#include "broker/gateway/internal.h"

#define NO_ID ((struct mcp_slice){0})

static void accepted(struct exchange *x)
{
        struct buf none = {0};

        exchange_answer(x, 202, NULL, &none);
}

/* The session a request names, checked for endpoint and version; NULL: x was answered. */
static struct session *session_of(struct gateway *g, struct server *endpoint, struct exchange *x, struct mcp_slice id)
{
        const char *name = exchange_header(x, "Mcp-Session-Id");
        const char *version = exchange_header(x, "MCP-Protocol-Version");
        struct principal *who;
        struct session *s;
        int r;

        if (!name || exchange_header_count(x, "Mcp-Session-Id") != 1) {
                reply_error(x, 400, id, MCP_INVALID_REQUEST, "Bad Request: one Mcp-Session-Id header is needed; begin with initialize");
                return NULL;
        }
        s = session_find(g, name);
        /* An id is good for nobody but the agent that was given it. */
        if (!s || s->server != endpoint || !guard_same(g, s->who, guard_who(g, x))) {
                reply_error(x, 404, id, MCP_INVALID_REQUEST, "Session not found: begin a new one with initialize");
                return NULL;
        }
        r = version ? mcp_revision_find(mcp_slice_of(version)) : MCP_2025_03_26;
        if (r < 0 || mcp_revision_era((enum mcp_revision)r) != MCP_ERA_LEGACY || exchange_header_count(x, "MCP-Protocol-Version") > 1) {
                reply_error(x, 400, id, MCP_INVALID_REQUEST, "Bad Request: unsupported MCP-Protocol-Version");
                return NULL;
        }
        /* It goes on with the newest token that was shown for it. */
        who = guard_ref(g, guard_who(g, x));
        guard_unref(g, s->who);
        s->who = who;
        session_used(s);
        return s;
}

static void cancelled(struct session *s, const struct mcp_message *m)
{
        struct call *c;

        LIST_FOREACH (c, &s->calls, struct call, in_session)
                if (mcp_has(m->request_id) && mcp_same(c->m.id, m->request_id) && !c->finish && c->method != MCP_M_INITIALIZE) {
                        call_cancel(c, "the client cancelled the request");
                        return;
                }
}

static void on_notification(struct session *s, const struct mcp_message *m)
{
        struct leg *l;

        if (mcp_is(m->method, "notifications/cancelled"))
                cancelled(s, m);
        else if (mcp_is(m->method, "notifications/roots/list_changed"))
                LIST_FOREACH (l, &s->legs, struct leg, in_session)
                        if (l->ready && l->era == MCP_ERA_LEGACY)
                                upstream_notify(l->u, "notifications/roots/list_changed", (struct mcp_slice){0});
}

static void start_request(struct session *s, struct reply *r, struct buf *text, const struct mcp_message *m)
{
        struct call *c;

        c = call_new(s->g, r, s, MCP_ERA_LEGACY);
        call_take(c, text, m);
        c->method = mcp_method_find(m->method);
        c->server = s->server;
        c->aggregate = !s->server;
        if (s->n_calls > MAX_CALLS_SESSION)
                call_error(c, MCP_INTERNAL_ERROR, "too many requests of this session are in flight", mcp_slice_of("{\"retryable\":true}"));
        else if (c->method == MCP_M_INITIALIZE)
                call_error(c, MCP_INVALID_REQUEST, "the session is initialized already", (struct mcp_slice){0});
        else
                route_call(c);
}

/* -- batches ------------------------------------------------------------------------------------------------------------------ */
static void batch_item(struct session *s, struct reply *r, struct mcp_slice item)
{
        _cleanup_err_ struct err *why = NULL;
        _cleanup_buf_ struct buf text = {0};
        struct mcp_message m;
        struct call *c;
        int fault;

        buf_add(&text, item.at, item.n);
        fault = mcp_message_scan(&m, text.data, text.len, &why);
        /* What says of itself that it is modern would be so for the server too; and there are no batches then. */
        if (!fault && m.kind == MCP_REQUEST && mcp_has(m.meta_version))
                fault = err_set(&why, ERR_INVALID, "a message of revision 2026-07-28 in a batch");
        if (fault) {
                c = call_new(s->g, r, s, MCP_ERA_LEGACY);
                c->m.id = m.id; /* absent, when it could not be read */
                call_error(c, MCP_INVALID_REQUEST, err_msg(why), (struct mcp_slice){0});
        } else if (m.kind == MCP_REQUEST) {
                start_request(s, r, &text, &m);
        } else if (m.kind == MCP_NOTIFICATION) {
                on_notification(s, &m);
        } else {
                ask_answered(s, &m);
        }
}

static void batch_start(struct gateway *g, struct server *endpoint, struct exchange *x, const struct buf *text)
{
        _cleanup_err_ struct err *why = NULL;
        struct mcp_slice item;
        struct session *s;
        struct reply *r;
        size_t pos = 0, n = 0;

        if (mcp_value_check(text->data, text->len, &why)) {
                reply_error(x, 400, NO_ID, MCP_PARSE_ERROR, err_msg(why));
                return;
        }
        s = session_of(g, endpoint, x, NO_ID);
        if (!s)
                return;
        while (mcp_batch_next(&item, text->data, text->len, &pos) == 1)
                n++;
        if (!mcp_revision_has_batches(s->revision) || n == 0 || n > MAX_BATCH) {
                reply_error(x, 400, NO_ID, MCP_INVALID_REQUEST,
                            n > MAX_BATCH ? "a batch has at most 64 messages" : "no batches in this session's protocol version");
                return;
        }
        r = reply_new(x, MCP_ERA_LEGACY);
        r->batch = r->starting = true;
        pos = 0;
        while (mcp_batch_next(&item, text->data, text->len, &pos) == 1)
                batch_item(s, r, item);
        reply_started(r);
}

/* -- methods of HTTP ------------------------------------------------------------------------------------------------------------ */
static void begin(struct gateway *g, struct server *endpoint, struct exchange *x, struct buf *text, const struct mcp_message *m)
{
        struct call *c = call_new(g, reply_new(x, MCP_ERA_LEGACY), NULL, MCP_ERA_LEGACY);

        call_take(c, text, m);
        c->method = MCP_M_INITIALIZE;
        c->server = endpoint;
        c->aggregate = !endpoint;
        initialize_start(c);
}

void legacy_post(struct gateway *g, struct server *endpoint, struct exchange *x, struct buf *text, const struct mcp_message *m, int fault,
                 const struct err *why)
{
        struct session *s;

        if (fault == MCP_FAULT_BATCH) {
                batch_start(g, endpoint, x, text);
                return;
        }
        if (fault) {
                reply_error(x, 400, fault == MCP_FAULT_INVALID ? m->id : NO_ID,
                            fault == MCP_FAULT_INVALID ? MCP_INVALID_REQUEST : MCP_PARSE_ERROR, err_msg(why));
                return;
        }
        if (m->kind == MCP_REQUEST && mcp_is(m->method, "initialize")) {
                begin(g, endpoint, x, text, m);
                return;
        }
        s = session_of(g, endpoint, x, m->kind == MCP_REQUEST ? m->id : NO_ID);
        if (!s)
                return;
        if (m->kind == MCP_REQUEST) {
                start_request(s, reply_new(x, MCP_ERA_LEGACY), text, m);
                return;
        }
        if (m->kind == MCP_NOTIFICATION)
                on_notification(s, m);
        else
                ask_answered(s, m);
        accepted(x);
}

static void on_stream_left(_unused_ struct exchange *x, void *user)
{
        struct session *s = user;

        s->stream = NULL;
        session_used(s);
}

void legacy_get(struct gateway *g, struct server *endpoint, struct exchange *x)
{
        struct session *s = session_of(g, endpoint, x, NO_ID);

        if (!s)
                return;
        /* A client that comes again has lost the stream it had. */
        if (s->stream) {
                exchange_on_left(s->stream, NULL, NULL);
                exchange_end(TAKE_PTR(s->stream));
        }
        s->stream = x;
        exchange_on_left(x, on_stream_left, s);
        exchange_stream(x);
}

void legacy_delete(struct gateway *g, struct server *endpoint, struct exchange *x)
{
        struct session *s = session_of(g, endpoint, x, NO_ID);
        struct buf none = {0};

        if (!s)
                return;
        session_free(s);
        exchange_answer(x, 200, NULL, &none);
}
