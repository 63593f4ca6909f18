/*
 * "The list changed": to everybody who uses the server and listens. A server may say it as often as it likes; clients hear it every so
 * often, and once more at the end, so that a flood of it costs nobody but its server.
 */
#include "broker/gateway/internal.h"

#define CHANGE_MS     50U
#define CHANGE_MAX_MS 5000U /* between two of a flood that goes on */
#define QUIET_MS      1000U

static bool wants_tools(const struct listen *l)
{
        return l->tools;
}

static bool wants_prompts(const struct listen *l)
{
        return l->prompts;
}

static bool wants_resources(const struct listen *l)
{
        return l->resources;
}

static const struct {
        const char *method;
        enum server_kind kind;
        bool (*wants)(const struct listen *l);
} lists[N_CHANGES] = {{"notifications/tools/list_changed", KIND_TOOLS, wants_tools},
                      {"notifications/prompts/list_changed", KIND_PROMPTS, wants_prompts},
                      {"notifications/resources/list_changed", KIND_RESOURCES, wants_resources}};

static char *change_text(size_t kind)
{
        return mem_printf("{\"jsonrpc\":\"2.0\",\"method\":\"%s\"}", lists[kind].method);
}

/* It is told now. The pause grows while changes come, and begins anew after a while without any. */
static void paced(struct change *c, uint64_t now)
{
        bool calm = !c->told_ms || now - c->told_ms >= 2 * c->pause_ms + QUIET_MS;

        *c = (struct change){.told_ms = now, .pause_ms = calm ? CHANGE_MS : MIN(2 * c->pause_ms, (uint64_t)CHANGE_MAX_MS)};
}

static void tell(struct server *s, size_t kind)
{
        struct gateway *g = s->g;
        _cleanup_free_ char *text = change_text(kind);
        struct mcp_message m = {.text = text, .n = strlen(text), .method = mcp_slice_of(lists[kind].method)};
        struct session *session;
        struct listen *listen;

        paced(&s->changes[kind], now_ms(g->loop));
        LIST_FOREACH (session, &g->idle, struct session, in_idle)
                if (session->stream && (!session->server || (session->server == s && s->announces & lists[kind].kind)) &&
                    guard_cares(g, session->who, session->id, s, lists[kind].kind))
                        (void)session_event(session, m.text, m.n);
        LIST_FOREACH (listen, &g->listens, struct listen, in_gateway)
                if (lists[kind].wants(listen) && (!listen->server || listen->server == s) &&
                    guard_cares(g, listen->who, NULL, s, lists[kind].kind))
                        listen_event(listen, &m);
}

static int on_timer(_unused_ sd_event_source *source, _unused_ uint64_t at, void *user)
{
        struct server *s = user;
        uint64_t now = now_ms(s->g->loop), next = UINT64_MAX;

        for (size_t kind = 0; kind < N_CHANGES; kind++) {
                struct change *c = &s->changes[kind];

                if (c->pending && now >= c->told_ms + c->pause_ms)
                        tell(s, kind);
                else if (c->pending)
                        next = MIN(next, c->told_ms + c->pause_ms - now);
        }
        if (next != UINT64_MAX)
                timer_arm(&s->change_timer, s->g->loop, next, on_timer, s);
        return 0;
}

static void changed(struct server *s, size_t kind)
{
        struct change *c = &s->changes[kind];

        if (!c->told_ms || now_ms(s->g->loop) - c->told_ms >= c->pause_ms) {
                tell(s, kind);
        } else if (!c->pending) {
                c->pending = true;
                on_timer(NULL, 0, s);
        }
}

void changes_all(struct server *s)
{
        for (size_t kind = 0; kind < N_CHANGES; kind++)
                changed(s, kind);
}

void changes_list(struct server *s, enum mcp_method list)
{
        changed(s, list == MCP_M_TOOLS_LIST ? 0 : list == MCP_M_PROMPTS_LIST ? 1 : 2);
}

/* Of an instance: to those whose it is. */
static void tell_its_own(const struct leg *l, size_t kind)
{
        const struct instance *i = l->of_instance;
        _cleanup_free_ char *text = change_text(kind);
        struct mcp_message m = {.text = text, .n = strlen(text), .method = mcp_slice_of(lists[kind].method)};
        struct listen *listen;

        if (i->own)
                return;
        LIST_FOREACH (listen, &l->server->g->listens, struct listen, in_gateway)
                if (lists[kind].wants(listen) && (!listen->server || listen->server == l->server) && listen->principal == i->principal &&
                    guard_cares(l->server->g, listen->who, NULL, l->server, lists[kind].kind))
                        listen_event(listen, &m);
}

void changes_tell(struct leg *l, struct mcp_slice method)
{
        size_t kind = 0;

        while (kind < N_CHANGES && !mcp_is(method, lists[kind].method))
                kind++;
        if (kind == N_CHANGES)
                return;
        if (l->owner) {
                _cleanup_free_ char *text = change_text(kind);

                if (guard_cares(l->server->g, l->owner->who, l->owner->id, l->server, lists[kind].kind))
                        (void)session_event(l->owner, text, strlen(text));
                return;
        }
        if (l->of_instance) {
                tell_its_own(l, kind);
                return;
        }
        if (kind == 0)
                tools_changed(l->server);
        changed(l->server, kind);
}
