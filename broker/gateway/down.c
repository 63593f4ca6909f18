/*
 * A modern server answers "input required"; a legacy client knows only requests on its streams. The questions go out as such requests, and
 * when all answers are there, the call is made again with them.
 * Source: MCP 2026-07-28, basic/patterns/mrtr; 2025-11-25, client/sampling, client/elicitation, client/roots.
 */
#include "broker/gateway/internal.h"

#define MAX_QUESTIONS 32U

struct down {
        struct list in_gateway;
        struct call *call;
        uint64_t expires_ms;
        struct buf responses; /* members of inputResponses */
        unsigned open;
        char *state; /* JSON string, or NULL */
};

void down_free(struct call *c)
{
        if (!c->down)
                return;
        list_del(&c->down->in_gateway);
        buf_deinit(&c->down->responses);
        free(c->down->state);
        free(c->down);
        c->down = NULL;
}

static void set_param(struct call *c, const char *key, struct mcp_slice value)
{
        struct mcp_slice params = c->params.len ? slice_of_buf(&c->params) : c->m.params;
        struct buf out = {0};

        mcp_object_set(&out, params, key, value);
        buf_deinit(&c->params);
        c->params = out;
}

static void send_again(struct call *c)
{
        struct down *d = c->down;

        buf_addc(&d->responses, '}');
        if (d->responses.len > 2)
                set_param(c, "inputResponses", slice_of_buf(&d->responses));
        set_param(c, "requestState", mcp_slice_of(d->state));
        down_free(c);
        if (c->leg->era == MCP_ERA_MODERN)
                call_request(c, slice_of_buf(&c->params));
        else
                call_error(c, MCP_INTERNAL_ERROR, "the server changed while it waited for the client", (struct mcp_slice){0});
}

static bool question(struct call *c, struct mcp_slice key, struct mcp_slice request)
{
        struct mcp_slice method = mcp_is_object(request) ? mcp_object_get(request, "method") : (struct mcp_slice){0};
        struct mcp_message m = {0};
        unsigned needed;
        struct ask *a;

        if (!mcp_is_string(method))
                return false;
        m.method = (struct mcp_slice){method.at + 1, method.n - 2};
        m.params = mcp_object_get(request, "params");
        needed = capability_needed(&m);
        if (!needed || !(c->session->capabilities & needed) || c->session->n_asks >= MAX_ASKS_SESSION ||
            !guard_may_ask(c->g, c->who, c->server, needed))
                return false;
        a = ask_new(c->g, c, c->session, NULL, key);
        if (ask_send(a, m.method, m.params))
                return true;
        ask_free(a);
        return false;
}

static void give_up(struct call *c, const char *why)
{
        while (!list_empty(&c->asks))
                ask_free(list_first(&c->asks, struct ask, in_call));
        down_free(c);
        call_error(c, MCP_INTERNAL_ERROR, why, (struct mcp_slice){0});
}

static int on_expired(_unused_ sd_event_source *source, _unused_ uint64_t now, void *user)
{
        struct gateway *g = user;
        struct down *d;

        while ((d = list_first(&g->downs, struct down, in_gateway))) {
                uint64_t ms = now_ms(g->loop);

                if (d->expires_ms > ms) {
                        timer_arm(&g->down_timer, g->loop, d->expires_ms - ms, on_expired, g);
                        break;
                }
                give_up(d->call, "the client did not answer the server's question in time");
        }
        return 0;
}

static void down_new(struct call *c)
{
        struct gateway *g = c->g;
        struct down *d = c->down = NEW(struct down);

        d->call = c;
        d->expires_ms = now_ms(g->loop) + HELD_MS;
        if (list_empty(&g->downs))
                timer_arm(&g->down_timer, g->loop, HELD_MS, on_expired, g);
        list_add(&g->downs, &d->in_gateway);
}

void down_begin(struct call *c, const struct mcp_message *answer)
{
        struct mcp_slice requests = mcp_object_get(answer->result, "inputRequests"), key, value;
        struct mcp_slice state = mcp_object_get(answer->result, "requestState");
        size_t pos = 0;

        if (!c->session || !mcp_method_may_ask(c->method) || ++c->rounds > MAX_ROUNDS) {
                give_up(c, "the server asks where it may not, or without end");
                return;
        }
        down_new(c);
        buf_addc(&c->down->responses, '{');
        if (mcp_is_string(state))
                c->down->state = mem_strndup(state.at, state.n);
        while (mcp_is_object(requests) && mcp_object_next(requests, &pos, &key, &value) == 1) {
                if (c->down->open >= MAX_QUESTIONS || !question(c, key, value)) {
                        give_up(c, "the server needs input that this client cannot give");
                        return;
                }
                c->down->open++;
        }
        if (c->down->open == 0)
                server_want(c->server, c, send_again);
}

void down_answered(struct ask *a, const struct mcp_message *m)
{
        struct call *c = a->call;
        struct down *d = c->down;

        if (m->kind == MCP_ERROR) {
                give_up(c, "the client answered the server's question with an error");
                return;
        }
        if (!call_charge(c, m->result.n)) {
                give_up(c, "the client's answers are too long");
                return;
        }
        if (d->responses.len > 1)
                buf_addc(&d->responses, ',');
        buf_addc(&d->responses, '"');
        buf_adds(&d->responses, a->id_text);
        buf_adds(&d->responses, "\":");
        mcp_add_slice(&d->responses, m->result);
        ask_free(a);
        if (--d->open == 0)
                server_want(c->server, c, send_again);
}
