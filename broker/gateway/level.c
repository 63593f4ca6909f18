/*
 * Log levels. A legacy server has one level for all: it is told the most verbose one that any of its clients wants, and lines are sifted
 * for each client.
 * Source: MCP 2025-11-25, server/utilities/logging; 2026-07-28, the same page.
 */
#include "broker/gateway/internal.h"

static const char *const names[] = {"debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"};

const char *level_name(enum level l)
{
        return l < LEVEL_NONE ? names[l] : "emergency";
}

enum level level_find(struct mcp_slice s)
{
        if (mcp_is_string(s))
                for (size_t i = 0; i < ELEMENTSOF(names); i++)
                        if (s.n == strlen(names[i]) + 2 && memcmp(s.at + 1, names[i], s.n - 2) == 0)
                                return (enum level)i;
        return LEVEL_NONE;
}

static enum level most_verbose(const struct leg *l)
{
        const struct gateway *g = l->server->g;
        enum level least = LEVEL_NONE;
        struct session *s;

        if (l->owner)
                return l->owner->level;
        if (l->of_instance)
                return LEVEL_NONE;
        LIST_FOREACH (s, &g->idle, struct session, in_idle)
                if (!s->server || s->server == l->server)
                        least = MIN(least, (enum level)s->level);
        return least;
}

static bool has_level(const struct leg *l)
{
        return l->era == MCP_ERA_LEGACY && mcp_has(leg_capability(l, "logging"));
}

static char *level_params(struct leg *l, enum level level)
{
        l->level = level;
        return mem_printf("{\"level\":\"%s\"}", level_name(level));
}

void level_at_least(struct leg *l, enum level level)
{
        _cleanup_free_ char *params = NULL;

        if (level >= l->level || !has_level(l))
                return;
        params = level_params(l, level);
        own_request(l, MCP_M_SET_LEVEL, params);
}

void level_leg_ready(struct leg *l)
{
        level_at_least(l, most_verbose(l));
}

static void level_ready(struct call *c)
{
        enum level level = most_verbose(c->leg);

        if (!mcp_has(leg_capability(c->leg, "logging"))) {
                call_error(c, MCP_METHOD_NOT_FOUND, "Method not found", (struct mcp_slice){0});
        } else if (c->leg->era == MCP_ERA_MODERN || level == c->leg->level) {
                call_answer(c, mcp_slice_of("{}"));
        } else {
                _cleanup_free_ char *params = level_params(c->leg, level);

                buf_deinit(&c->params);
                buf_adds(&c->params, params);
                call_request(c, slice_of_buf(&c->params));
        }
}

void level_request(struct call *c)
{
        enum level level = level_find(c->m.level);
        struct leg *l;

        if (level == LEVEL_NONE || !c->session) {
                call_error(c, MCP_INVALID_PARAMS, "Invalid params: unknown log level", (struct mcp_slice){0});
                return;
        }
        c->session->level = (uint8_t)level;
        if (c->server) {
                server_want(c->server, c, level_ready);
                return;
        }
        LIST_FOREACH (l, &c->session->legs, struct leg, in_session)
                if (l->ready)
                        level_at_least(l, level);
        for (size_t i = 0; i < c->g->n_servers; i++)
                if (c->g->servers[i]->shared && c->g->servers[i]->shared->ready &&
                    guard_sees(c->g, c->who, POLICY_TOOL, c->g->servers[i], (struct mcp_slice){0}))
                        level_at_least(c->g->servers[i]->shared, level);
        call_answer(c, mcp_slice_of("{}"));
}
