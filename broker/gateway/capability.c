/*
 * What we say of ourselves to clients: of one server what it says itself, of all of them what they have together; and what we say of a
 * client to a server.
 */
#include "broker/gateway/internal.h"
#include "config.h"

const char gateway_client_info[] = "{\"name\":\"bulkhead\",\"version\":\"" PACKAGE_VERSION "\"}";

/* Tasks and extensions are not among them: what the gateway does not know it does not pass on. */
static const char *const known[] = {"tools", "prompts", "resources", "completions", "logging"};

static const char all[] = "{\"tools\":{\"listChanged\":true},\"prompts\":{\"listChanged\":true},"
                          "\"resources\":{\"subscribe\":true,\"listChanged\":true},\"completions\":{},\"logging\":{}}";

#define SAMPLING    "\"sampling\":{}"
#define ELICIT_FORM "\"elicitation\":{\"form\":{}}"
#define ELICIT_URL  "\"elicitation\":{\"url\":{}}"
#define ELICIT_BOTH "\"elicitation\":{\"form\":{},\"url\":{}}"
#define ROOTS       "\"roots\":{\"listChanged\":true}"

const char *capability_text(unsigned bits)
{
        static const char *const texts[16] = {"{}",
                                              "{" SAMPLING "}",
                                              "{" ELICIT_FORM "}",
                                              "{" SAMPLING "," ELICIT_FORM "}",
                                              "{" ELICIT_URL "}",
                                              "{" SAMPLING "," ELICIT_URL "}",
                                              "{" ELICIT_BOTH "}",
                                              "{" SAMPLING "," ELICIT_BOTH "}",
                                              "{" ROOTS "}",
                                              "{" SAMPLING "," ROOTS "}",
                                              "{" ELICIT_FORM "," ROOTS "}",
                                              "{" SAMPLING "," ELICIT_FORM "," ROOTS "}",
                                              "{" ELICIT_URL "," ROOTS "}",
                                              "{" SAMPLING "," ELICIT_URL "," ROOTS "}",
                                              "{" ELICIT_BOTH "," ROOTS "}",
                                              "{" SAMPLING "," ELICIT_BOTH "," ROOTS "}"};

        return texts[bits & 15];
}

static void add_capabilities(struct buf *out, const struct leg *l)
{
        char sep = '{';

        if (!l) {
                buf_adds(out, all);
                return;
        }
        for (size_t i = 0; i < ELEMENTSOF(known); i++) {
                struct mcp_slice value = leg_capability(l, known[i]);

                if (!mcp_is_object(value))
                        continue;
                buf_addf(out, "%c\"%s\":", sep, known[i]);
                mcp_add_slice(out, value);
                sep = ',';
        }
        buf_adds(out, sep == '{' ? "{}" : "}");
}

static void add_server_info(struct buf *out, const struct leg *l)
{
        const struct mcp_message *m = l ? upstream_info(l->u) : NULL;
        struct mcp_slice info = m ? m->server_info : (struct mcp_slice){0};

        if (m && !mcp_is_object(info) && mcp_is_object(m->meta))
                info = mcp_object_get(m->meta, MCP_META_SERVER);
        if (mcp_is_object(info))
                mcp_add_slice(out, info);
        else
                buf_adds(out, gateway_client_info);
}

static void add_instructions(struct buf *out, const struct leg *l)
{
        const struct mcp_message *m = l ? upstream_info(l->u) : NULL;

        if (!m || !l->instructs || !mcp_is_string(m->instructions))
                return;
        buf_adds(out, ",\"instructions\":");
        mcp_add_slice(out, m->instructions);
}

/* NULL: c was answered. */
static struct session *initialize_session(struct call *c)
{
        struct session *s = session_new(c->g, c->server, c->who);
        int revision;

        if (!s) {
                call_error(c, MCP_INTERNAL_ERROR, "too many sessions: try again", mcp_slice_of("{\"retryable\":true}"));
                return NULL;
        }
        revision = mcp_revision_find((struct mcp_slice){c->m.protocol_version.at + 1, c->m.protocol_version.n - 2});
        if (revision < 0 || mcp_revision_era((enum mcp_revision)revision) != MCP_ERA_LEGACY)
                revision = MCP_NEWEST_LEGACY;
        s->revision = (uint8_t)revision;
        s->capabilities = (uint8_t)capability_bits(c->m.capabilities);
        return s;
}

/* The session that was there before its client knew of it. */
static void initialize_drop(struct call *c)
{
        struct session *s = c->session;

        if (!s)
                return;
        list_del(&c->in_session);
        s->n_calls--;
        c->session = NULL;
        session_free(s);
}

static void initialize_failed(struct call *c, _unused_ const struct mcp_message *answer, const struct err *why)
{
        c->finish = NULL;
        initialize_drop(c);
        call_fail(c, why);
}

static void initialize_ready(struct call *c)
{
        const struct leg *l = c->server ? c->leg : NULL;
        _cleanup_buf_ struct buf out = {0};
        struct session *s;

        c->finish = NULL;
        if (!c->reply || !c->reply->x) {
                initialize_drop(c);
                call_free(c);
                return;
        }
        s = c->session ? c->session : initialize_session(c);
        if (!s)
                return;
        buf_addf(&out, "{\"protocolVersion\":\"%s\",\"capabilities\":", mcp_revision_name((enum mcp_revision)s->revision));
        add_capabilities(&out, l);
        buf_adds(&out, ",\"serverInfo\":");
        add_server_info(&out, l);
        add_instructions(&out, l);
        buf_addc(&out, '}');
        exchange_add_header(c->reply->x, "Mcp-Session-Id", s->id);
        call_answer(c, slice_of_buf(&out));
}

/* What this client can do is told to its instance at its start, so that the session comes first. */
static void initialize_instance(struct call *c)
{
        struct session *s = initialize_session(c);

        if (!s)
                return;
        c->session = s;
        list_add(&s->calls, &c->in_session);
        s->n_calls++;
        c->finish = initialize_failed;
        server_want(c->server, c, initialize_ready);
}

void initialize_start(struct call *c)
{
        if (!mcp_is_string(c->m.protocol_version))
                call_error(c, MCP_INVALID_PARAMS, "Invalid params: protocolVersion is needed", (struct mcp_slice){0});
        else if (c->server && server_has_instances(c->server))
                initialize_instance(c);
        else if (c->server)
                server_want(c->server, c, initialize_ready);
        else
                initialize_ready(c);
}

static void discover_ready(struct call *c)
{
        const struct leg *l = c->server ? c->leg : NULL;
        _cleanup_buf_ struct buf out = {0};

        buf_addf(&out, "{\"resultType\":\"complete\",\"supportedVersions\":[\"%s\"],\"capabilities\":", mcp_revision_name(MCP_NEWEST));
        add_capabilities(&out, l);
        buf_adds(&out, ",\"_meta\":{\"" MCP_META_SERVER "\":");
        add_server_info(&out, l);
        buf_addc(&out, '}');
        add_instructions(&out, l);
        buf_adds(&out, ",\"ttlMs\":0,\"cacheScope\":\"private\"}");
        call_answer(c, slice_of_buf(&out));
}

void discover_start(struct call *c)
{
        if (c->server)
                server_want(c->server, c, discover_ready);
        else
                discover_ready(c);
}
