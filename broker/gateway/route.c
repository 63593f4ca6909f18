/*
 * From a request's method and names to the server it is for. One server: itself. All servers: by prefix; resources by what lists have
 * shown, or by asking one after the other.
 */
#include "broker/gateway/internal.h"
#include "common/text.h"

#define NO_DATA ((struct mcp_slice){0})

/* -- what lists have shown ------------------------------------------------------------------------------------------------------ */
static uint64_t route_hash(struct gateway *g, struct mcp_slice key)
{
        _cleanup_free_ char *text = memchr(key.at, '\\', key.n) ? mcp_string(key) : NULL;
        uint64_t hash;

        /* A string can be written in several ways. */
        if (text)
                crypto_shorthash((unsigned char *)&hash, (const unsigned char *)text, strlen(text), g->hash_key);
        else
                crypto_shorthash((unsigned char *)&hash, (const unsigned char *)key.at + 1, key.n - 2, g->hash_key);
        return hash;
}

void route_learn(struct gateway *g, struct mcp_slice key, struct server *s)
{
        struct route *r;
        uint64_t hash;

        if (!mcp_is_string(key))
                return;
        if (!g->routes)
                g->routes = mem_alloc(ROUTE_SLOTS * sizeof(struct route));
        hash = route_hash(g, key);
        r = &g->routes[hash % ROUTE_SLOTS];
        /*
         * The first server, in the order of names, keeps what two of them claim. It keeps the slot too: else one that lists enough to
         * push everything out could claim it then.
         */
        if (r->server && strcmp(r->server->entry.name, s->entry.name) < 0)
                return;
        *r = (struct route){.hash = hash, .server = s};
}

struct server *route_find(struct gateway *g, struct mcp_slice key)
{
        const struct route *r;
        uint64_t hash;

        if (!g->routes || !mcp_is_string(key))
                return NULL;
        hash = route_hash(g, key);
        r = &g->routes[hash % ROUTE_SLOTS];
        return r->hash == hash ? r->server : NULL;
}

void route_forget(struct gateway *g, const struct server *s)
{
        for (size_t i = 0; g->routes && i < ROUTE_SLOTS; i++)
                if (g->routes[i].server == s)
                        g->routes[i] = (struct route){0};
}

/* -- names with prefixes ---------------------------------------------------------------------------------------------------------- */
static struct server *by_prefix(struct gateway *g, struct mcp_slice name, size_t *ret_n)
{
        struct server *best = NULL;

        *ret_n = 0;
        for (size_t i = 0; i < g->n_servers; i++) {
                const char *prefix = g->servers[i]->prefix;
                size_t n = strlen(prefix);

                if (n > *ret_n && name.n - 2 >= n && memcmp(name.at + 1, prefix, n) == 0) {
                        best = g->servers[i];
                        *ret_n = n;
                }
        }
        return best;
}

static bool is_bare(const struct server *s)
{
        return !*s->prefix;
}

bool route_leads_to(const struct server *s, struct mcp_slice name)
{
        _cleanup_free_ char *text = mcp_string(name);
        _cleanup_free_ char *full = mem_printf("\"%s%s\"", s->prefix, text ? text : "");
        const struct server *found;
        size_t n;

        found = by_prefix(s->g, mcp_slice_of(full), &n);
        return text && (found ? found == s : is_bare(s));
}

/* The server whose names have no prefix. The registry's loader lets only one be so; *several: the link named more of them. */
static struct server *without_prefix(struct gateway *g, bool *several)
{
        struct server *found = NULL;

        *several = false;
        for (size_t i = 0; i < g->n_servers; i++) {
                if (!is_bare(g->servers[i]))
                        continue;
                if (found) {
                        *several = true;
                        break;
                }
                found = g->servers[i];
        }
        return found;
}

/* Also of what somebody may not know of: by the same work, in the same words. */
static void unknown_name(struct call *c)
{
        _cleanup_free_ char *name = mcp_string(c->m.name);
        _cleanup_free_ char *safe = text_escape(name ? name : "");
        _cleanup_free_ char *message = mem_printf("Unknown %s: %s", c->method == MCP_M_TOOLS_CALL ? "tool" : "prompt", safe);

        call_error(c, MCP_INVALID_PARAMS, message, NO_DATA);
}

static void nobody_knows(struct call *c);

void route_unknown(struct call *c)
{
        c->server = NULL;
        if (mcp_has(c->m.uri) || mcp_has(c->m.ref_uri))
                nobody_knows(c);
        else
                unknown_name(c);
}

static void decided(struct call *c, struct server *s);

static void tools_seen(struct call *c)
{
        struct server *s = c->server;
        _cleanup_free_ char *why = NULL;

        if (s->told) {
                decided(c, s);
                return;
        }
        why = mem_printf("server %s: its tools are not known yet: try again", s->entry.name);
        call_error(c, MCP_INTERNAL_ERROR, why, mcp_slice_of("{\"retryable\":true}"));
}

/* An agent's call, before anybody has asked for the server's tools, and it may be that it has this one. */
static bool must_look(const struct call *c, const struct server *s)
{
        return c->who && c->method == MCP_M_TOOLS_CALL && !s->told && !c->tools_seen &&
               guard_sees(c->g, c->who, POLICY_TOOL, s, guard_target(c));
}

static void decided(struct call *c, struct server *s)
{
        c->server = s;
        if (must_look(c, s)) {
                tools_ensure(s, c, tools_seen);
                return;
        }
        if (!guard_admits(c, s, route_unknown))
                return;
        if (c->era == MCP_ERA_MODERN && c->method == MCP_M_TOOLS_CALL)
                modern_tool_call(c);
        else
                call_dispatch(c);
}

/* The first server behind the one that c tried last. By name, since servers come and go meanwhile. */
static struct server *next_server(const struct call *c)
{
        for (size_t i = 0; i < c->g->n_servers; i++) {
                struct server *s = c->g->servers[i];

                if (!server_is_hopeless(s) && (!c->tried || strcmp(s->entry.name, c->tried) > 0) &&
                    (!c->who || guard_sees(c->g, c->who, guard_kind(c), s, guard_target(c))))
                        return s;
        }
        return NULL;
}

/* Asks for the tools of one server after the other: to call would be the other way to find out, and it would be an act. */
static void search_tool(struct call *c)
{
        struct server *s;

        while ((s = next_server(c))) {
                if (is_bare(s) && tools_know(s, c->m.name)) {
                        decided(c, s);
                        return;
                }
                if (is_bare(s) && !c->tools_seen) {
                        tools_ensure(s, c, search_tool);
                        return;
                }
                c->tools_seen = false;
                mem_replace(&c->tried, mem_strdup(s->entry.name));
        }
        unknown_name(c);
}

/* As people and policies write it: server:tool. No tool's name has a colon. */
static struct server *by_colon(struct gateway *g, struct mcp_slice name, size_t *ret_n)
{
        const char *colon = memchr(name.at + 1, ':', name.n - 2);

        *ret_n = colon ? (size_t)(colon - name.at) : 0;
        return colon ? server_find(g, name.at + 1, (size_t)(colon - name.at - 1)) : NULL;
}

/* No server has it. An agent's question is decided all the same: it takes as long, and is logged. */
static void nobody(struct call *c)
{
        if (guard_admits(c, NULL, route_unknown))
                route_unknown(c);
}

static void route_named(struct call *c, struct mcp_slice name)
{
        _cleanup_buf_ struct buf plain = {0};
        bool several = false;
        struct server *s;
        size_t n;

        if (!mcp_is_string(name)) {
                call_error(c, MCP_INVALID_PARAMS, "Invalid params: a name is needed", NO_DATA);
                return;
        }
        /* A prefix may be written with escapes. */
        if (memchr(name.at, '\\', name.n)) {
                _cleanup_free_ char *text = mcp_string(name);

                mcp_add_string(&plain, text, strlen(text));
                name = slice_of_buf(&plain);
        }
        s = by_prefix(c->g, name, &n);
        if (!s && c->who)
                s = by_colon(c->g, name, &n);
        if (s) {
                struct buf own = {0};

                buf_addc(&own, '"');
                buf_add(&own, name.at + 1 + n, name.n - 1 - n);
                c->name = buf_take(&own);
        } else {
                s = without_prefix(c->g, &several);
        }
        if (!s || (several && c->who))
                nobody(c);
        else if (!several)
                decided(c, s);
        else if (c->method == MCP_M_TOOLS_CALL)
                search_tool(c);
        else
                route_try(c);
}

/* -- one after the other ---------------------------------------------------------------------------------------------------------- */
/* Neither an answer nor a reason: the server has nothing of the kind, and was not asked. */
static void on_tried(struct call *c, const struct mcp_message *answer, const struct err *why)
{
        bool unknown = !answer || (answer->kind == MCP_ERROR &&
                                   (answer->error_code == MCP_INVALID_PARAMS || answer->error_code == MCP_RESOURCE_NOT_FOUND ||
                                    answer->error_code == MCP_METHOD_NOT_FOUND));

        c->finish = NULL;
        if (unknown) {
                route_try(c);
                return;
        }
        if (mcp_has(c->m.uri))
                route_learn(c->g, c->m.uri, c->server);
        call_relay(c, answer, why);
}

static const char *needed_capability(enum mcp_method m)
{
        if (m == MCP_M_PROMPTS_GET)
                return "prompts";
        return m == MCP_M_COMPLETE ? "completions" : "resources";
}

static void try_ready(struct call *c)
{
        if (mcp_has(leg_capability(c->leg, needed_capability(c->method))))
                call_send(c);
        else
                on_tried(c, NULL, NULL);
}

static void nobody_knows(struct call *c)
{
        _cleanup_buf_ struct buf data = {0};

        c->server = NULL;
        if (!guard_admits(c, NULL, nobody_knows))
                return;
        if (!mcp_has(c->m.uri)) {
                call_error(c, MCP_INVALID_PARAMS, "no server knows it", NO_DATA);
                return;
        }
        buf_adds(&data, "{\"uri\":");
        mcp_add_slice(&data, c->m.uri);
        buf_addc(&data, '}');
        call_error(c, c->era == MCP_ERA_MODERN ? MCP_INVALID_PARAMS : MCP_RESOURCE_NOT_FOUND, "Resource not found", slice_of_buf(&data));
}

void route_try(struct call *c)
{
        bool by_name = !mcp_has(c->m.uri) && !mcp_has(c->m.ref_uri);
        struct server *s;

        while ((s = next_server(c))) {
                mem_replace(&c->tried, mem_strdup(s->entry.name));
                if ((by_name && !is_bare(s)) || pins_withhold(s, c))
                        continue;
                guard_again(c); /* what was decided about the one before says nothing about this one */
                if (!guard_admits(c, s, route_unknown))
                        return;
                c->finish = on_tried;
                server_want(s, c, try_ready);
                return;
        }
        nobody_knows(c);
}

static void route_uri(struct call *c, struct mcp_slice uri)
{
        struct server *s;

        if (!mcp_is_string(uri)) {
                call_error(c, MCP_INVALID_PARAMS, "Invalid params: a uri is needed", NO_DATA);
                return;
        }
        s = route_find(c->g, uri);
        if (s && guard_sees(c->g, c->who, POLICY_RESOURCE, s, uri))
                decided(c, s);
        else
                route_try(c);
}

/* -- methods ----------------------------------------------------------------------------------------------------------------------- */
static void route_aggregate(struct call *c)
{
        switch (c->method) {
        case MCP_M_TOOLS_LIST:
                if (c->who)
                        own_list(c);
                else
                        merge_start(c);
                break;
        case MCP_M_PROMPTS_LIST:
        case MCP_M_RESOURCES_LIST:
        case MCP_M_RESOURCES_TEMPLATES_LIST:
                merge_start(c);
                break;
        case MCP_M_TOOLS_CALL:
                if (own_is(c))
                        own_call(c);
                else
                        route_named(c, c->m.name);
                break;
        case MCP_M_PROMPTS_GET:
                route_named(c, c->m.name);
                break;
        case MCP_M_COMPLETE:
                if (mcp_has(c->m.ref_name))
                        route_named(c, c->m.ref_name);
                else
                        route_uri(c, c->m.ref_uri);
                break;
        default:
                route_uri(c, c->m.uri);
        }
}

static void route_one(struct call *c)
{
        if (c->method == MCP_M_TOOLS_CALL && !mcp_is_string(c->m.name))
                call_error(c, MCP_INVALID_PARAMS, "Invalid params: a name is needed", NO_DATA);
        else
                decided(c, c->server);
}

void route_call(struct call *c)
{
        if (!mcp_method_in_era(c->method, c->era)) {
                call_error(c, MCP_METHOD_NOT_FOUND, "Method not found", NO_DATA);
                return;
        }
        if (!own_unwrap(c))
                return;
        if (held_is_ours(c->m.request_state) && mcp_method_may_ask(c->method) && c->era == MCP_ERA_MODERN) {
                held_resume(c);
                return;
        }
        if (!state_open(c)) {
                call_error(c, MCP_INVALID_PARAMS, STATE_IS_BAD, NO_DATA);
                return;
        }
        if ((c->method == MCP_M_RESOURCES_SUBSCRIBE || c->method == MCP_M_RESOURCES_UNSUBSCRIBE) &&
            (!mcp_is_string(c->m.uri) || c->m.uri.n > MAX_URI)) {
                call_error(c, MCP_INVALID_PARAMS, "Invalid params: a uri of at most 8192 bytes is needed", NO_DATA);
                return;
        }
        if (mcp_has(c->m.ref_name) && mcp_has(c->m.ref_uri)) {
                call_error(c, MCP_INVALID_PARAMS, "Invalid params: ref has either a name or a uri", NO_DATA);
                return;
        }
        switch (c->method) {
        case MCP_M_PING:
                call_answer(c, mcp_slice_of("{}"));
                break;
        case MCP_M_DISCOVER:
                discover_start(c);
                break;
        case MCP_M_LISTEN:
                listen_start(c);
                break;
        case MCP_M_SET_LEVEL:
                level_request(c);
                break;
        case MCP_M_RESOURCES_UNSUBSCRIBE:
                subs_unsubscribe(c);
                break;
        default:
                if (c->aggregate)
                        route_aggregate(c);
                else
                        route_one(c);
        }
}
