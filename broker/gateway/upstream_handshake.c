#include "broker/gateway/upstream_internal.h"
#include "common/text.h"
#include "config.h"

/*
 * The era is found out with server/discover: a result or a recognised modern error is a modern server, anything else, or silence, a legacy
 * one. A probe without an answer stays open beside initialize, so that a modern server that was only slow to start is not taken for a
 * legacy one: the first of the two to succeed decides. Source: MCP 2026-07-28, basic/versioning and "Backward Compatibility" of each
 * transport.
 */
#define INFO_MAX (256U << 10)

static void send_discover(struct upstream *u);
static void send_initialize(struct upstream *u);

/* `"text"` without its quotes. */
static struct mcp_slice inside(struct mcp_slice s)
{
        return mcp_is_string(s) ? (struct mcp_slice){s.at + 1, s.n - 2} : (struct mcp_slice){0};
}

static void fail(struct upstream *u, struct err *why)
{
        upstream_end(u, why);
}

/* The session ends because of what an answer says; its error message, if it has one, is quoted. */
static void fail_answer(struct upstream *u, const struct mcp_message *m, const char *what)
{
        _cleanup_free_ char *text = mcp_string(m->error_message);
        _cleanup_free_ char *safe = text_escape(text ? text : "");
        struct err *err = NULL;

        if (m->kind == MCP_ERROR)
                err_set(&err, ERR_INVALID, "%s: %.200s (code %lld)", what, safe, (long long)m->error_code);
        else
                err_set(&err, ERR_INVALID, "%s", what);
        fail(u, err);
}

static bool take_info(struct upstream *u, const struct mcp_message *m)
{
        struct err *err = NULL;

        if (m->n > INFO_MAX) {
                err_set(&err, ERR_LIMIT, "the server's answer to the handshake is over %u bytes", INFO_MAX);
        } else {
                u->info_text.len = 0;
                buf_add(&u->info_text, m->text, m->n);
                if (mcp_message_scan(&u->info, u->info_text.data, u->info_text.len, &err) == 0)
                        return true;
        }
        fail(u, err);
        return false;
}

static void forget_call(struct upstream *u, struct upstream_call **c)
{
        if (!*c)
                return;
        u->abandoned++;
        call_discard(TAKE_PTR(*c));
}

/* -- modern ------------------------------------------------------------------------------------------------------------------ */

struct versions {
        bool any, modern, legacy;
};

static struct versions read_versions(struct mcp_slice list)
{
        struct versions v = {0};
        struct mcp_slice item;
        size_t pos = 0;

        while (mcp_is_array(list) && mcp_array_next(list, &pos, &item)) {
                int r = mcp_revision_find(inside(item));
                v.any = true;
                v.modern |= r == MCP_NEWEST;
                v.legacy |= r >= 0 && mcp_revision_era((enum mcp_revision)r) == MCP_ERA_LEGACY;
        }
        return v;
}

static void settle_modern(struct upstream *u, const struct mcp_message *m)
{
        if (!take_info(u, m))
                return;
        forget_call(u, &u->initialize);
        u->era = MCP_ERA_MODERN;
        u->revision = MCP_NEWEST;
        upstream_settled(u);
}

static void take_discover_result(struct upstream *u, const struct mcp_message *m)
{
        struct versions v = read_versions(mcp_object_get(m->result, "supportedVersions"));

        if (v.modern)
                settle_modern(u, m);
        else if (v.legacy || !v.any)
                send_initialize(u);
        else
                fail_answer(u, m, "the server speaks no revision of MCP that we do");
}

static void take_discover_error(struct upstream *u, const struct mcp_message *m)
{
        struct versions v = {0};

        if (m->error_code == MCP_HEADER_MISMATCH || m->error_code == MCP_MISSING_CAPABILITY) {
                fail_answer(u, m, "the server refuses server/discover");
                return;
        }
        if (m->error_code == MCP_UNSUPPORTED_VERSION)
                v = read_versions(mcp_is_object(m->error_data) ? mcp_object_get(m->error_data, "supported") : (struct mcp_slice){0});
        if (v.modern && !u->retried) {
                u->retried = true;
                send_discover(u);
        } else if (v.any && !v.legacy) {
                fail_answer(u, m, "the server speaks no revision of MCP that we do");
        } else {
                send_initialize(u);
        }
}

static void on_discover(struct upstream_call *c, const struct mcp_message *m, const struct err *why, void *user)
{
        struct upstream *u = user;

        u->discover = NULL;
        if (u->state != UPSTREAM_STARTING || u->dead)
                return;
        if (m && m->kind == MCP_RESULT)
                take_discover_result(u, m);
        else if (m)
                take_discover_error(u, m);
        else if (c->http_status > 0)
                send_initialize(u); /* an HTTP server without such a method need not say so in JSON */
        else
                fail(u, err_dup(why));
}

static void send_discover(struct upstream *u)
{
        _cleanup_buf_ struct buf params = {0};
        struct upstream_request request = {.method = MCP_M_DISCOVER, .done = on_discover, .user = u};

        buf_adds(&params, "{\"_meta\":{\"" MCP_META_VERSION "\":\"");
        buf_adds(&params, mcp_revision_name(MCP_NEWEST));
        buf_adds(&params, "\",\"" MCP_META_CLIENT "\":" UPSTREAM_CLIENT ",\"" MCP_META_CAPABILITIES "\":");
        buf_adds(&params, u->capabilities);
        buf_adds(&params, "}}");
        request.params = (struct mcp_slice){params.data, params.len};
        u->probed = true;
        u->discover = call_start(u, &request);
}

/* -- legacy ------------------------------------------------------------------------------------------------------------------ */

static void on_initialize(_unused_ struct upstream_call *c, const struct mcp_message *m, const struct err *why, void *user)
{
        struct upstream *u = user;
        int revision;

        u->initialize = NULL;
        if (u->state != UPSTREAM_STARTING || u->dead)
                return;
        /* Refused while the probe is still open: a modern server, perhaps. The handshake's deadline watches. */
        if (u->discover && (!m || m->kind != MCP_RESULT))
                return;
        if (!m) {
                fail(u, err_dup(why));
                return;
        }
        revision = m->kind == MCP_RESULT ? mcp_revision_find(inside(m->protocol_version)) : -1;
        if (revision < 0 || mcp_revision_era((enum mcp_revision)revision) != MCP_ERA_LEGACY) {
                fail_answer(u, m,
                            m->kind == MCP_RESULT ? "the server answered initialize with a revision of MCP that we do not speak"
                                                  : "the server refuses initialize");
                return;
        }
        if (!take_info(u, m))
                return;
        forget_call(u, &u->discover);
        u->era = MCP_ERA_LEGACY;
        u->revision = (enum mcp_revision)revision;
        u->ops->settle(u);
}

static void send_initialize(struct upstream *u)
{
        _cleanup_buf_ struct buf params = {0};
        struct upstream_request request = {.method = MCP_M_INITIALIZE, .done = on_initialize, .user = u};

        if (u->initialize)
                return;
        buf_adds(&params, "{\"protocolVersion\":\"");
        buf_adds(&params, mcp_revision_name(MCP_NEWEST_LEGACY));
        buf_adds(&params, "\",\"capabilities\":");
        buf_adds(&params, u->capabilities);
        buf_adds(&params, ",\"clientInfo\":" UPSTREAM_CLIENT "}");
        request.params = (struct mcp_slice){params.data, params.len};
        u->initialize = call_start(u, &request);
}

/* -- both -------------------------------------------------------------------------------------------------------------------- */

bool handshake_take_error(struct upstream *u, const struct mcp_message *m)
{
        struct upstream_call *c = u->initialize ? u->initialize : u->discover;

        if (u->state != UPSTREAM_STARTING || !c)
                return false;
        call_finish(c, m, NULL);
        return true;
}

void upstream_settled(struct upstream *u)
{
        if (u->state != UPSTREAM_STARTING)
                return;
        u->state = UPSTREAM_READY;
        u->handshake_timer = sd_event_source_disable_unref(u->handshake_timer);
        u->events.ready(u, u->user);
}

static int on_timer(_unused_ sd_event_source *s, _unused_ uint64_t usec, void *user)
{
        struct upstream *u = user;
        struct err *err = NULL;

        upstream_hold(u);
        if (upstream_now(u) < u->handshake_until) {
                /* Silence: it may be one that ignores what it does not know before initialize. */
                int r = sd_event_source_set_time(u->handshake_timer, u->handshake_until);
                if (r >= 0)
                        r = sd_event_source_set_enabled(u->handshake_timer, SD_EVENT_ONESHOT);
                if (r < 0) {
                        err_sys(&err, r, "event loop for a server's handshake");
                        fail(u, err);
                } else {
                        send_initialize(u);
                }
        } else {
                const char *trouble = u->ops->trouble ? u->ops->trouble(u) : NULL;
                err_set(&err, ERR_TIMEOUT, "the server did not finish the handshake within %llu ms%s%s",
                        (unsigned long long)u->limits.handshake_ms, trouble ? ": " : "", trouble ? trouble : "");
                fail(u, err);
        }
        (void)upstream_release(u);
        return 0;
}

int handshake_start(struct upstream *u, struct err **err)
{
        uint64_t first =
                u->legacy_only || !u->ops->may_be_silent ? u->limits.handshake_ms : MIN(u->limits.probe_ms, u->limits.handshake_ms);
        int r;

        u->handshake_until = upstream_now(u) + u->limits.handshake_ms * 1000;
        r = sd_event_add_time_relative(u->loop, &u->handshake_timer, CLOCK_MONOTONIC, first * 1000, 1000, on_timer, u);
        if (r < 0)
                return err_sys(err, r, "event loop for a server's handshake");
        return 0;
}

void handshake_go(struct upstream *u)
{
        if (u->legacy_only)
                send_initialize(u);
        else
                send_discover(u);
}

void handshake_deinit(struct upstream *u)
{
        u->handshake_timer = sd_event_source_disable_unref(u->handshake_timer);
        u->discover = u->initialize = NULL;
}
