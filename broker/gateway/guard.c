/*
 * What the gateway asks the guard, in the gateway's words. One place, so that no way to a server leads past it.
 */
#include "broker/gateway/internal.h"
#include "common/text.h"

void gateway_set_guard(struct gateway *g, const struct gateway_guard *guard)
{
        g->guard = guard;
}

struct principal *guard_who(const struct gateway *g, const struct exchange *x)
{
        return g->guard ? exchange_identity(x) : NULL;
}

struct principal *guard_ref(const struct gateway *g, struct principal *who)
{
        return who ? g->guard->ref(who) : NULL;
}

void guard_unref(const struct gateway *g, struct principal *who)
{
        if (who)
                g->guard->unref(who);
}

const char *guard_name(const struct gateway *g, const struct principal *who)
{
        return who ? g->guard->name(who) : "";
}

bool guard_same(const struct gateway *g, const struct principal *a, const struct principal *b)
{
        return !a == !b && str_eq(guard_name(g, a), guard_name(g, b));
}

bool guard_sees(const struct gateway *g, const struct principal *who, enum policy_kind kind, const struct server *s, struct mcp_slice name)
{
        _cleanup_free_ char *text = NULL;

        if (!who)
                return true;
        if (mcp_has(name) && !(text = mcp_string(name)))
                return false;
        return g->guard->visible(who, kind, s->entry.name, text, g->guard->user);
}

bool guard_may_ask(const struct gateway *g, const struct principal *who, const struct server *s, unsigned needed)
{
        enum policy_kind kind = needed & CAP_SAMPLING ? POLICY_SAMPLING : needed & CAP_ROOTS ? POLICY_ROOTS : POLICY_ELICITATION;

        return !who || g->guard->visible(who, kind, s->entry.name, "", g->guard->user);
}

bool guard_cares(const struct gateway *g, const struct principal *who, const char *scope, const struct server *s, enum server_kind kind)
{
        if (!who)
                return true;
        if (kind == KIND_TOOLS)
                return g->guard->lists(who, scope, s->entry.name, g->guard->user);
        return g->guard->visible(who, kind == KIND_PROMPTS ? POLICY_PROMPT : POLICY_RESOURCE, s->entry.name, NULL, g->guard->user);
}

bool guard_may_be_asked(const struct call *c, struct mcp_slice result)
{
        struct mcp_slice requests = mcp_object_get(result, "inputRequests"), key, request;
        size_t pos = 0;

        if (!c->who)
                return true;
        while (mcp_is_object(requests) && mcp_object_next(requests, &pos, &key, &request) == 1) {
                struct mcp_slice method = mcp_is_object(request) ? mcp_object_get(request, "method") : (struct mcp_slice){0};
                struct mcp_message m = {0};

                if (!mcp_is_string(method))
                        return false;
                m.method = (struct mcp_slice){method.at + 1, method.n - 2};
                m.params = mcp_object_get(request, "params");
                if (!capability_needed(&m) || !guard_may_ask(c->g, c->who, c->server, capability_needed(&m)))
                        return false;
        }
        return true;
}

enum policy_kind guard_kind(const struct call *c)
{
        if (c->method == MCP_M_TOOLS_CALL)
                return POLICY_TOOL;
        if (c->method == MCP_M_PROMPTS_GET || (c->method == MCP_M_COMPLETE && mcp_has(c->m.ref_name)))
                return POLICY_PROMPT;
        return POLICY_RESOURCE;
}

struct mcp_slice guard_target(const struct call *c)
{
        if (c->name)
                return mcp_slice_of(c->name);
        if (c->method == MCP_M_COMPLETE)
                return mcp_has(c->m.ref_name) ? c->m.ref_name : c->m.ref_uri;
        /* Not what else may be there: the server looks at this one. */
        return c->method == MCP_M_TOOLS_CALL || c->method == MCP_M_PROMPTS_GET ? c->m.name : c->m.uri;
}

void guard_answer(struct call *c, enum gateway_verdict verdict, const struct buf *text)
{
        _cleanup_buf_ struct buf modern = {0};

        if (verdict != GATEWAY_RESULT) {
                call_error(c, verdict == GATEWAY_UNKNOWN ? MCP_INVALID_PARAMS : MCP_INTERNAL_ERROR, text->data ? text->data : "refused",
                           (struct mcp_slice){0});
        } else if (c->era == MCP_ERA_MODERN) {
                mcp_object_set(&modern, slice_of_buf(text), "resultType", mcp_slice_of("\"complete\""));
                call_answer(c, slice_of_buf(&modern));
        } else {
                call_answer(c, slice_of_buf(text));
        }
}

bool guard_admits(struct call *c, const struct server *s, void (*unknown)(struct call *c))
{
        const struct gateway_guard *guard = c->g->guard;
        _cleanup_free_ char *name = NULL;
        _cleanup_buf_ struct buf text = {0};

        if (!c->who || c->decided)
                return true;
        name = mcp_string(guard_target(c));
        const struct gateway_question q = {.who = c->who,
                                           .kind = guard_kind(c),
                                           .server = s ? s->entry.name : "",
                                           .name = name ? name : "",
                                           .arguments = c->m.arguments,
                                           .request = c->user};
        enum gateway_verdict verdict = guard->decide(&q, &c->ticket, &text, guard->user);

        c->decided = true;
        if (verdict == GATEWAY_PASS)
                return true;
        if (verdict == GATEWAY_UNKNOWN)
                unknown(c);
        else
                guard_answer(c, verdict, &text);
        return false;
}

void guard_again(struct call *c)
{
        guard_settle(c);
        c->decided = c->failed = false;
        c->answered = 0;
        c->tokens = 0;
}

void guard_count(struct call *c, const struct mcp_message *answer)
{
        struct mcp_slice meta, tokens;
        uint64_t n = 0;

        c->answered += answer->n;
        /* Results can be long, and few say it. */
        if (!c->ticket || answer->kind != MCP_RESULT || !mcp_is_object(answer->result) ||
            !memmem(answer->result.at, answer->result.n, GATEWAY_META_TOKENS, sizeof(GATEWAY_META_TOKENS) - 1))
                return;
        meta = mcp_object_get(answer->result, "_meta");
        tokens = mcp_is_object(meta) ? mcp_object_get(meta, GATEWAY_META_TOKENS) : (struct mcp_slice){0};
        if (!mcp_is_integer(tokens) || tokens.n > 15)
                return;
        for (size_t i = 0; i < tokens.n; i++) {
                if (tokens.at[i] < '0' || tokens.at[i] > '9')
                        return;
                n = 10 * n + (uint64_t)(tokens.at[i] - '0');
        }
        c->tokens += n;
}

void guard_settle(struct call *c)
{
        void *ticket = TAKE_PTR(c->ticket);

        if (ticket)
                c->g->guard->settle(ticket, c->answered, c->tokens, c->failed || !c->answered, c->g->guard->user);
}
