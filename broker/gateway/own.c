/*
 * The guard's own tools, which agents see instead of those of a hundred servers; and calls of doors that do not speak MCP.
 */
#include "broker/gateway/internal.h"

#define NO_DATA ((struct mcp_slice){0})

bool own_is(const struct call *c)
{
        _cleanup_free_ char *name = c->who && c->aggregate && c->method == MCP_M_TOOLS_CALL ? mcp_string(c->m.name) : NULL;

        return name && c->g->guard->is_own(name);
}

static const char *scope_of(const struct call *c)
{
        return c->session ? c->session->id : NULL;
}

/* To those who asked: the session, or the streams of this principal. */
static void announce(struct call *c)
{
        static const char text[] = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}";
        struct mcp_message m = {.method = mcp_slice_of("notifications/tools/list_changed")};
        struct listen *l;

        if (c->session) {
                if (!session_event(c->session, text, sizeof(text) - 1) && c->reply)
                        reply_event(c->reply, text, sizeof(text) - 1);
                return;
        }
        LIST_FOREACH (l, &c->g->listens, struct listen, in_gateway)
                if (l->tools && l->who && guard_same(c->g, l->who, c->who))
                        listen_event(l, &m);
}

static void own_ready(struct call *c)
{
        const struct gateway_guard *guard = c->g->guard;
        _cleanup_free_ char *name = mcp_string(c->m.name);
        _cleanup_buf_ struct buf out = {0};
        const struct gateway_question q = {
                .who = c->who, .kind = POLICY_TOOL, .server = "", .name = name, .arguments = c->m.arguments, .request = c->user};
        bool changed = false;
        enum gateway_verdict verdict = guard->own(&q, scope_of(c), &out, &changed, guard->user);

        if (changed)
                announce(c);
        guard_answer(c, verdict, &out);
}

static bool may_see_tools(const struct call *c, const struct server *s)
{
        return guard_sees(c->g, c->who, POLICY_TOOL, s, NO_DATA);
}

void own_call(struct call *c)
{
        learn(c, may_see_tools, own_ready);
}

static void list_ready(struct call *c)
{
        const struct gateway_guard *guard = c->g->guard;
        _cleanup_buf_ struct buf out = {0};

        buf_adds(&out, "{\"tools\":[");
        guard->list(c->who, scope_of(c), &out, guard->user);
        buf_adds(&out, c->era == MCP_ERA_MODERN ? "],\"resultType\":\"complete\",\"ttlMs\":0,\"cacheScope\":\"private\"}" : "]}");
        call_answer(c, slice_of_buf(&out));
}

static bool lists_tools(const struct call *c, const struct server *s)
{
        return c->g->guard->lists(c->who, scope_of(c), s->entry.name, c->g->guard->user);
}

/* All of them at once: an agent's list is short, or somebody wanted it long. */
void own_list(struct call *c)
{
        if (mcp_has(c->m.cursor))
                call_error(c, MCP_INVALID_PARAMS, "Invalid params: cursor", NO_DATA);
        else
                learn(c, lists_tools, list_ready);
}

static void add_member(struct buf *out, const char *key, struct mcp_slice value)
{
        if (!mcp_has(value))
                return;
        buf_addf(out, ",\"%s\":", key);
        mcp_add_slice(out, value);
}

/* c's text becomes a tools/call. What was checked stays what is sent: the message is written and read anew, whole. */
static bool become(struct call *c, struct mcp_slice id, struct mcp_slice name, struct mcp_slice arguments)
{
        struct buf text = {0};
        struct mcp_message m;

        buf_reserve(&text, name.n + arguments.n + c->m.meta.n + 256);
        buf_adds(&text, "{\"jsonrpc\":\"2.0\",\"id\":");
        mcp_add_slice(&text, id);
        buf_adds(&text, ",\"method\":\"tools/call\",\"params\":{\"name\":");
        mcp_add_slice(&text, name);
        add_member(&text, "arguments", arguments);
        add_member(&text, "_meta", c->m.meta);
        add_member(&text, "inputResponses", c->m.input_responses);
        add_member(&text, "requestState", c->m.request_state);
        buf_adds(&text, "}}");
        if (mcp_message_scan(&m, text.data, text.len, NULL)) {
                buf_deinit(&text);
                return false;
        }
        buf_deinit(&c->text);
        c->text = text;
        c->m = m;
        return true;
}

bool own_unwrap(struct call *c)
{
        struct mcp_slice arguments = c->m.arguments, name;

        if (!own_is(c) || !mcp_is(c->m.name, "\"" GATEWAY_CALL_TOOL "\""))
                return true;
        name = mcp_is_object(arguments) ? mcp_object_get(arguments, "name") : NO_DATA;
        c->unwrapped = true;
        if (mcp_is_string(name) && become(c, c->m.id, name, mcp_object_get(arguments, "arguments")))
                return true;
        call_error(c, MCP_INVALID_PARAMS, "Invalid params: " GATEWAY_CALL_TOOL " wants name, a text, and arguments, an object", NO_DATA);
        return false;
}

/* -- other doors --------------------------------------------------------------------------------------------------------------- */
struct outside {
        struct gateway_request request; /* of a call */
        void (*then)(void *user);       /* of one that only wants to know */
        bool starting, over;
};

static void outside_done(struct call *c, const struct mcp_message *m, const struct err *why)
{
        struct outside *o = c->finish_user;
        struct gateway_request r = o->request;

        c->finish_user = NULL;
        if (o->starting)
                o->over = true;
        else
                free(o);
        if (why) {
                r.done(r.user, NO_DATA, 0, err_msg(why));
        } else if (m->kind == MCP_ERROR) {
                _cleanup_free_ char *message = mcp_string(m->error_message);

                r.done(r.user, NO_DATA, m->error_code, message ? message : "error");
        } else {
                r.done(r.user, m->result, 0, NULL);
        }
        call_free(c);
}

static struct call *outside_new(struct gateway *g, struct principal *who, struct outside **o)
{
        struct call *c = call_new(g, NULL, NULL, MCP_ERA_LEGACY);

        c->who = guard_ref(g, who);
        c->aggregate = true;
        c->method = MCP_M_TOOLS_CALL;
        c->finish = outside_done;
        c->finish_user = *o = NEW(struct outside);
        return c;
}

struct call *gateway_call(struct gateway *g, const struct gateway_request *request)
{
        struct outside *o;
        struct call *c = outside_new(g, request->who, &o);

        o->request = *request;
        o->starting = true;
        c->user = request->user;
        if (!call_charge(c, request->name.n + request->arguments.n))
                call_error(c, MCP_INTERNAL_ERROR, "too many large requests are under way: try again", NO_DATA);
        else if (become(c, mcp_slice_of("1"), request->name, request->arguments))
                route_call(c);
        else
                call_error(c, MCP_INVALID_PARAMS, "the name or the arguments are not JSON as it must be", NO_DATA);
        o->starting = false;
        if (!o->over)
                return c;
        free(o);
        return NULL;
}

static void learned(struct call *c)
{
        struct outside *o = c->finish_user;

        c->finish_user = NULL;
        call_free(c);
        o->over = true;
        o->then(o->request.user);
        if (!o->starting)
                free(o);
}

struct call *gateway_learn(struct gateway *g, struct principal *who, void (*then)(void *user), void *user)
{
        struct outside *o;
        struct call *c = outside_new(g, who, &o);

        *o = (struct outside){.then = then, .request.user = user, .starting = true};
        learn(c, may_see_tools, learned);
        o->starting = false;
        if (!o->over)
                return c;
        free(o);
        return NULL;
}

void gateway_call_cancel(struct call *c)
{
        call_cancel(c, "the caller left");
}
