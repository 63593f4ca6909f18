/*
 * The modern era's HTTP rules: every request says for itself who asks, and its headers mirror its body.
 * Source: MCP 2026-07-28, basic/index "_meta", basic/versioning, basic/transports/streamable-http "Request Metadata", "Server Validation".
 */
#include "broker/gateway/internal.h"
#include "common/text.h"

#define NO_DATA ((struct mcp_slice){0})

struct refusal {
        unsigned status;
        int code;
        const char *message;
};

/* The only header of that name, or NULL. */
static const char *single_header(struct exchange *x, const char *name)
{
        return exchange_header_count(x, name) == 1 ? exchange_header(x, name) : NULL;
}

static bool header_is(struct exchange *x, const char *name, struct mcp_slice value)
{
        const char *header = single_header(x, name);

        return header && strlen(header) == value.n && memcmp(header, value.at, value.n) == 0;
}

static struct mcp_slice unquoted(struct mcp_slice s)
{
        return (struct mcp_slice){s.at + 1, s.n - 2};
}

static bool name_matches(struct exchange *x, const struct mcp_message *m, enum mcp_method method)
{
        const char *key = mcp_method_name_key(method);
        struct mcp_slice value = key && str_eq(key, "uri") ? m->uri : m->name;
        const char *header = single_header(x, "Mcp-Name");
        _cleanup_free_ char *decoded = NULL, *wanted = NULL;

        if (!key || !mcp_is_string(value))
                return true;
        if (!header)
                return false;
        decoded = mcp_header_decode(header);
        wanted = mcp_string(value);
        return decoded && wanted && str_eq(decoded, wanted);
}

/* NULL: the request keeps the rules so far. */
static const struct refusal *check(struct exchange *x, const struct mcp_message *m, enum mcp_method method)
{
        static const struct refusal no_version = {400, MCP_INVALID_PARAMS, "Invalid params: _meta lacks " MCP_META_VERSION},
                                    no_capabilities = {400, MCP_INVALID_PARAMS, "Invalid params: _meta lacks " MCP_META_CAPABILITIES},
                                    version_header = {400, MCP_HEADER_MISMATCH,
                                                      "Header mismatch: MCP-Protocol-Version is not what _meta says"},
                                    unsupported = {400, MCP_UNSUPPORTED_VERSION, "Unsupported protocol version"},
                                    method_header = {400, MCP_HEADER_MISMATCH, "Header mismatch: Mcp-Method is not the body's method"},
                                    name_header = {400, MCP_HEADER_MISMATCH, "Header mismatch: Mcp-Name is not what the body says"},
                                    unknown = {404, MCP_METHOD_NOT_FOUND, "Method not found"},
                                    bad_level = {200, MCP_INVALID_PARAMS, "Invalid params: unknown log level"};
        int revision;

        if (!mcp_is_string(m->meta_version))
                return &no_version;
        if (!mcp_is_object(m->meta_capabilities))
                return &no_capabilities;
        if (!header_is(x, "MCP-Protocol-Version", unquoted(m->meta_version)))
                return &version_header;
        revision = mcp_revision_find(unquoted(m->meta_version));
        if (revision < 0 || mcp_revision_era((enum mcp_revision)revision) != MCP_ERA_MODERN)
                return &unsupported;
        if (!header_is(x, "Mcp-Method", m->method))
                return &method_header;
        if (method == MCP_M_UNKNOWN || !mcp_method_in_era(method, MCP_ERA_MODERN))
                return &unknown;
        if (!name_matches(x, m, method))
                return &name_header;
        if (mcp_has(m->meta_log_level) && level_find(m->meta_log_level) == LEVEL_NONE)
                return &bad_level;
        return NULL;
}

static void refuse(struct exchange *x, const struct mcp_message *m, const struct refusal *r)
{
        _cleanup_buf_ struct buf data = {0};
        struct buf b = {0};

        if (r->code == MCP_UNSUPPORTED_VERSION) {
                buf_addf(&data, "{\"supported\":[\"%s\"],\"requested\":", mcp_revision_name(MCP_NEWEST));
                mcp_add_slice(&data, m->meta_version);
                buf_addc(&data, '}');
        }
        message_error(&b, m->id, r->code, r->message, data.len ? slice_of_buf(&data) : NO_DATA);
        exchange_answer(x, r->status, "application/json", &b);
}

/* The tools are known now: do the headers say what the arguments say? */
static void params_checked(struct call *c)
{
        const struct mcp_params *p = tools_params(c->server, c->name ? mcp_slice_of(c->name) : c->m.name);
        struct exchange *x = c->reply ? c->reply->x : NULL;

        for (size_t i = 0; x && p && i < p->n; i++) {
                const char *header = exchange_header(x, p->items[i].header);
                _cleanup_free_ char *message = NULL;

                if (exchange_header_count(x, p->items[i].header) <= 1 && mcp_param_matches(&p->items[i], c->m.arguments, header))
                        continue;
                message = mem_printf("Header mismatch: %s is not what the arguments say", p->items[i].header);
                call_error(c, MCP_HEADER_MISMATCH, message, NO_DATA);
                return;
        }
        call_dispatch(c);
}

void modern_tool_call(struct call *c)
{
        /* What was not approved needs no look at the server. */
        if (!c->unwrapped && server_has_tool(c->server, c->name ? mcp_slice_of(c->name) : c->m.name))
                tools_ensure(c->server, c, params_checked);
        else
                call_dispatch(c);
}

uint64_t principal_hash(const struct gateway *g, const char *text)
{
        uint64_t hash = 0;

        if (text)
                crypto_shorthash((unsigned char *)&hash, (const unsigned char *)text, strlen(text), g->hash_key);
        return hash;
}

static uint64_t principal_of(struct gateway *g, struct exchange *x)
{
        struct principal *who = guard_who(g, x);
        /* Tokens are short-lived: an agent is the same under its next one. */
        return principal_hash(g, who ? guard_name(g, who) : exchange_header(x, "Authorization"));
}

void modern_post(struct gateway *g, struct server *endpoint, struct exchange *x, struct buf *text, const struct mcp_message *m)
{
        enum mcp_method method = mcp_method_find(m->method);
        const struct refusal *r;
        struct call *c;

        if (m->kind != MCP_REQUEST) {
                struct buf none = {0};

                /* No notification means anything here: leaving is how a client cancels. Answers have nothing that they could answer. */
                if (m->kind == MCP_NOTIFICATION)
                        exchange_answer(x, 202, NULL, &none);
                else
                        reply_error(x, 400, NO_DATA, MCP_INVALID_REQUEST, "a request or a notification is expected");
                return;
        }
        r = check(x, m, method);
        if (r) {
                refuse(x, m, r);
                return;
        }
        c = call_new(g, reply_new(x, MCP_ERA_MODERN), NULL, MCP_ERA_MODERN);
        c->principal = principal_of(g, x);
        call_take(c, text, m);
        c->method = method;
        c->server = endpoint;
        c->aggregate = !endpoint;
        route_call(c);
}
