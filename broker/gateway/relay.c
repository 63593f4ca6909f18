#include "broker/gateway/internal.h"
#include "common/text.h"

struct call *call_new(struct gateway *g, struct reply *r, struct session *session, enum mcp_era era)
{
        struct call *c = NEW(struct call);

        c->g = g;
        c->era = era;
        c->session = session;
        c->reply = r;
        c->who = r ? guard_ref(g, guard_who(g, r->x)) : NULL;
        list_init(&c->asks);
        list_add(&g->calls, &c->in_gateway);
        if (r)
                list_add(&r->calls, &c->in_reply);
        if (session) {
                list_add(&session->calls, &c->in_session);
                session->n_calls++;
        }
        g->n_calls++;
        g->counts.calls += !!r;
        return c;
}

bool gateway_has_room(const struct gateway *g, size_t n)
{
        return n <= SMALL_TEXT || g->charged + n <= MAX_TEXTS * g->config.upstream.max_message;
}

bool call_charge(struct call *c, size_t n)
{
        if (!gateway_has_room(c->g, n))
                return false;
        c->charged += n;
        c->g->charged += n;
        return true;
}

void call_take(struct call *c, struct buf *text, const struct mcp_message *m)
{
        c->text = *text;
        *text = (struct buf){0};
        c->m = *m;
        c->charged += c->text.len;
        c->g->charged += c->text.len;
}

/* It is no longer at the server: what the server asked on its behalf is moot. */
static void call_left_server(struct call *c)
{
        if (list_linked(&c->in_leg)) {
                list_del(&c->in_leg);
                c->server->in_flight--;
                server_used(c->server);
                if (c->leg->of_instance)
                        instance_used(c->leg->of_instance);
        }
        while (!list_empty(&c->asks))
                ask_free(list_first(&c->asks, struct ask, in_call));
}

static void call_abandon(struct call *c, struct upstream_call *up, const char *reason)
{
        upstream_call_cancel(up, reason);
        leg_abandoned(c);
}

struct call *call_free(struct call *c)
{
        struct upstream_call *up = TAKE_PTR(c->up);

        if (up)
                call_abandon(c, up, "the client left");
        call_left_server(c);
        if (list_linked(&c->in_queue)) {
                list_del(&c->in_queue);
                if (c->server && c->deadline_ms)
                        c->server->n_waiting--;
        }
        if (c->late)
                late_over(c);
        guard_settle(c);
        merge_free(c);
        down_free(c);
        held_free(c);
        list_del(&c->in_reply);
        if (list_linked(&c->in_session)) {
                list_del(&c->in_session);
                c->session->n_calls -= !c->part;
                session_used(c->session);
        }
        list_del(&c->in_gateway);
        c->g->n_calls--;
        guard_unref(c->g, c->who);
        free(c->finish_user);
        c->g->charged -= c->charged;
        buf_deinit(&c->text);
        buf_deinit(&c->params);
        strv_free(c->headers);
        free(c->name);
        free(c->tried);
        free(c);
        return NULL;
}

/* -- to the server ------------------------------------------------------------------------------------------------------------- */
static void add_member(struct buf *out, struct mcp_slice key, struct mcp_slice value)
{
        if (out->len > 1)
                buf_addc(out, ',');
        buf_addc(out, '"');
        mcp_add_slice(out, key);
        buf_adds(out, "\":");
        mcp_add_slice(out, value);
}

/* _meta without what only the modern era has: a legacy session that saw it might take the request for a modern one. */
static void meta_plain(struct buf *out, struct mcp_slice meta)
{
        struct mcp_slice key, value;
        size_t pos = 0;

        buf_addc(out, '{');
        while (mcp_has(meta) && mcp_object_next(meta, &pos, &key, &value) == 1)
                if (!mcp_key_begins(key, "io.modelcontextprotocol/"))
                        add_member(out, key, value);
}

static void meta_legacy(struct buf *out, const struct call *c)
{
        meta_plain(out, c->m.meta);
        buf_addc(out, '}');
}

/* What a legacy client said once, at the beginning of its session, a modern server is told with every request. */
static void meta_modern(struct buf *out, const struct call *c)
{
        const struct session *s = c->session;

        buf_reserve(out, c->m.meta.n + 512U); /* what follows fits: this runs for every call */
        meta_plain(out, c->m.meta);
        if (out->len > 1)
                buf_addc(out, ',');
        buf_adds(out, "\"" MCP_META_VERSION "\":\"");
        buf_adds(out, mcp_revision_name(MCP_NEWEST));
        buf_adds(out, "\",\"" MCP_META_CLIENT "\":");
        buf_adds(out, gateway_client_info);
        buf_adds(out, ",\"" MCP_META_CAPABILITIES "\":");
        buf_adds(out, capability_text(s ? s->capabilities : 0));
        if (s && s->level < LEVEL_NONE)
                buf_addf(out, ",\"" MCP_META_LOG_LEVEL "\":\"%s\"", level_name(s->level));
        buf_addc(out, '}');
}

/* The server's own name of what is asked for, in place of the one with our prefix. */
static void params_rename(struct buf *out, const struct call *c, struct mcp_slice params)
{
        struct mcp_slice old = mcp_has(c->m.ref) ? c->m.ref_name : c->m.name;
        struct mcp_edit edit = {.old = old, .by = mcp_slice_of(c->name)};

        mcp_edit_add(out, params, &edit, 1);
}

static struct mcp_slice params_build(struct call *c)
{
        struct mcp_slice params = c->m.params;
        bool same = c->era == c->leg->era;
        struct buf meta = {0}, out = {0};

        if (same && !c->name)
                return params;
        if (c->name) {
                params_rename(&out, c, params);
                buf_deinit(&c->params);
                c->params = out;
                out = (struct buf){0};
                params = slice_of_buf(&c->params);
        }
        if (same)
                return params;
        if (c->leg->era == MCP_ERA_MODERN)
                meta_modern(&meta, c);
        else if (mcp_has(c->m.meta))
                meta_legacy(&meta, c);
        if (meta.len) {
                mcp_object_set(&out, params, "_meta", slice_of_buf(&meta));
                buf_deinit(&c->params);
                c->params = out;
        }
        buf_deinit(&meta);
        return meta.len || c->params.len ? slice_of_buf(&c->params) : params;
}

static void on_notification(struct upstream_call *up, const struct mcp_message *m, void *user);

static void on_done(_unused_ struct upstream_call *up, const struct mcp_message *answer, const struct err *why, void *user)
{
        struct call *c = user;
        _cleanup_err_ struct err *gone = NULL;

        c->up = NULL;
        call_left_server(c);
        if (answer)
                guard_count(c, answer);
        if (answer)
                c->server->answered_ms = now_ms(c->g->loop);
        else if (err_code(why) == ERR_TIMEOUT)
                hung_look(c->server);
        if (why && c->server->gone) {
                (void)err_set(&gone, ERR_NOT_FOUND, "server %s: %s", c->server->entry.name, SERVER_GONE);
                why = gone;
        }
        if (why) {
                c->failed = true;
                c->server->failed++;
                c->server->timeouts += err_code(why) == ERR_TIMEOUT;
                c->g->counts.failed++;
                c->g->counts.timeouts += err_code(why) == ERR_TIMEOUT;
                leg_abandoned(c);
        }
        if (c->finish)
                c->finish(c, answer, why);
        else
                call_relay(c, answer, why);
}

/* Mirrors annotated arguments into headers, for a modern server behind HTTP. */
static void call_headers(struct call *c, struct mcp_slice params)
{
        const struct mcp_params *p = tools_params(c->server, c->name ? mcp_slice_of(c->name) : c->m.name);
        struct mcp_slice arguments = mcp_object_get(params, "arguments");

        for (size_t i = 0; p && i < p->n; i++) {
                _cleanup_free_ char *value = mcp_param_value(&p->items[i], arguments);
                _cleanup_free_ char *header = value ? mem_printf("%s: %s", p->items[i].header, value) : NULL;

                if (header)
                        c->headers = strv_append(c->headers, header);
        }
}

void call_request(struct call *c, struct mcp_slice params)
{
        const char *key = mcp_method_name_key(c->method);
        struct upstream_request request = {.method = c->method,
                                           .params = params,
                                           .progress_token = c->m.progress_token,
                                           .headers = c->headers,
                                           .timeout_ms = c->timeout_ms ? c->timeout_ms : c->g->config.call_timeout_ms,
                                           .cap_ms = c->g->config.call_cap_ms,
                                           .notification = on_notification,
                                           .done = on_done,
                                           .user = c};

        if (params.at != c->m.params.at && mcp_has(c->m.progress_token))
                request.progress_token = mcp_object_get(mcp_object_get(params, "_meta"), "progressToken");
        if (c->leg->era == MCP_ERA_MODERN && key)
                request.name = c->name ? mcp_object_get(params, key) : str_eq(key, "uri") ? c->m.uri : c->m.name;
        list_add(&c->leg->calls, &c->in_leg);
        c->server->in_flight++;
        c->server->calls++;
        c->up = upstream_request(c->leg->u, &request);
}

void call_send(struct call *c)
{
        struct mcp_slice params;

        if (c->method == MCP_M_RESOURCES_SUBSCRIBE && subs_subscribe(c))
                return;
        if (c->era == MCP_ERA_MODERN && c->leg->era == MCP_ERA_LEGACY && mcp_has(c->m.meta_log_level))
                level_at_least(c->leg, level_find(c->m.meta_log_level));
        params = params_build(c);
        if (c->leg->era == MCP_ERA_MODERN && c->method == MCP_M_TOOLS_CALL)
                call_headers(c, params);
        call_request(c, params);
}

/* The server's own name of the tool that is called. */
static struct mcp_slice tool_name(const struct call *c)
{
        return c->name ? mcp_slice_of(c->name) : c->m.name;
}

static void dispatch_known(struct call *c)
{
        struct server *s = c->server;
        bool unsure = false, approved = !s->entry.pinned || tools_approved(s, tool_name(c), &unsure);

        if (unsure)
                wait_fail(c, ERR_UNAVAILABLE, "its tools are not known now: try again");
        else if (!approved || tools_broken(s, tool_name(c))) /* it is in no list either */
                route_unknown(c);
        else
                server_want(s, c, call_send);
}

/* What was approved, and the headers that a modern server behind HTTP wants, can be judged only when its tools are known. */
static void dispatch_ready(struct call *c)
{
        const struct channel_entry *e = &c->server->entry;

        /* What was known before there was this session says nothing. */
        c->tools_seen &= !e->pinned || tools_read(c->server);
        if (c->method == MCP_M_TOOLS_CALL && (e->pinned || (c->leg->era == MCP_ERA_MODERN && e->transport != TRANSPORT_STDIO)))
                tools_ensure(c->server, c, dispatch_known);
        else
                call_send(c);
}

void call_dispatch(struct call *c)
{
        bool unknown = c->method == MCP_M_TOOLS_CALL ? !server_has_tool(c->server, tool_name(c)) : pins_withhold(c->server, c);

        if (unknown)
                route_unknown(c);
        else
                server_want(c->server, c, dispatch_ready);
}

/* -- to the client ------------------------------------------------------------------------------------------------------------- */
bool call_wants_log(const struct call *c, struct mcp_slice level)
{
        enum level l = level_find(level), least = LEVEL_NONE;

        if (c->session)
                least = c->session->level < LEVEL_NONE ? c->session->level : LEVEL_DEBUG;
        else if (mcp_has(c->m.meta_log_level))
                least = level_find(c->m.meta_log_level);
        return l >= least && l != LEVEL_NONE;
}

/* A resumed call's client may have chosen another token than the one the server's call began with. */
static void send_progress(struct call *c, const struct mcp_message *m)
{
        struct mcp_edit edit = {.old = m->progress_token, .by = c->m.progress_token};
        _cleanup_buf_ struct buf out = {0};

        if (mcp_same(m->progress_token, c->m.progress_token)) {
                reply_event(c->reply, m->text, m->n);
        } else if (mcp_has(c->m.progress_token)) {
                mcp_edit_add(&out, (struct mcp_slice){m->text, m->n}, &edit, 1);
                reply_event(c->reply, out.data, out.len);
        }
}

static void on_notification(_unused_ struct upstream_call *up, const struct mcp_message *m, void *user)
{
        struct call *c = user;

        if (!c->reply)
                return;
        if (mcp_is(m->method, "notifications/progress"))
                send_progress(c, m);
        else if (mcp_is(m->method, "notifications/message") && call_wants_log(c, m->level))
                reply_event(c->reply, m->text, m->n);
}

static unsigned error_status(const struct call *c, int64_t code)
{
        if (c->era != MCP_ERA_MODERN)
                return 200;
        if (code == MCP_METHOD_NOT_FOUND)
                return 404;
        return code == MCP_HEADER_MISMATCH || code == MCP_MISSING_CAPABILITY || code == MCP_UNSUPPORTED_VERSION ? 400 : 200;
}

static void call_message(struct call *c, unsigned status, struct buf *message)
{
        if (!c->reply && held_keep(c, message))
                return;
        reply_final(c, status, message);
        call_free(c);
}

void call_answer(struct call *c, struct mcp_slice result)
{
        struct buf b = {0};

        if (c->finish) {
                struct mcp_message m = {.kind = MCP_RESULT, .result = result};

                c->finish(c, &m, NULL);
                return;
        }
        message_result(&b, c->m.id, result);
        call_message(c, 200, &b);
}

void call_error(struct call *c, int64_t code, const char *message, struct mcp_slice data)
{
        struct buf b = {0};

        if (c->finish) {
                struct err *why = NULL;

                (void)err_set(&why, ERR_INVALID, "%s", message);
                c->finish(c, NULL, why);
                err_free(why);
                return;
        }
        message_error(&b, c->m.id, code, message, data);
        call_message(c, error_status(c, code), &b);
}

void call_fail(struct call *c, const struct err *why)
{
        bool retryable = err_code(why) == ERR_UNAVAILABLE || err_code(why) == ERR_TIMEOUT || err_code(why) == ERR_LIMIT;
        _cleanup_free_ char *safe = text_escape(err_msg(why));

        if (c->finish)
                c->finish(c, NULL, why);
        else
                call_error(c, MCP_INTERNAL_ERROR, safe, mcp_slice_of(retryable ? "{\"retryable\":true}" : "{\"retryable\":false}"));
}

void call_cancel(struct call *c, const char *reason)
{
        struct upstream_call *up = TAKE_PTR(c->up);
        struct buf none = {0};

        if (up)
                call_abandon(c, up, reason);
        reply_final(c, 200, &none);
        call_free(c);
}

/* What the modern era wants in every result and a legacy server does not write. */
static void result_modern(struct buf *out, const struct call *c, struct mcp_slice result, bool has_type)
{
        const char *end = result.at + result.n;
        const char *rest = result.at + 1;

        buf_addc(out, '{');
        if (!has_type)
                buf_adds(out, "\"resultType\":\"complete\"");
        if (mcp_method_is_cacheable(c->method) && !mcp_has(mcp_object_get(result, "ttlMs"))) {
                if (!has_type)
                        buf_addc(out, ',');
                buf_adds(out, "\"ttlMs\":0,\"cacheScope\":\"private\"");
        }
        while (rest < end && strchr(" \t\r\n", *rest))
                rest++;
        if (out->len > 1 && rest < end && *rest != '}')
                buf_addc(out, ',');
        buf_add(out, rest, (size_t)(end - rest));
}

static void relay_result(struct call *c, const struct mcp_message *answer)
{
        _cleanup_buf_ struct buf filtered = {0}, modern = {0}, sealed = {0};
        struct mcp_slice result = answer->result;
        bool has_type = mcp_has(answer->result_type), asks = mcp_is(answer->result_type, "\"input_required\"");

        if (asks && !guard_may_be_asked(c, result)) {
                call_error(c, MCP_INTERNAL_ERROR, "the server needs input that this client cannot give", (struct mcp_slice){0});
                return;
        }
        if (c->method == MCP_M_RESOURCES_SUBSCRIBE)
                subs_subscribed(c);
        if (list_filter(&filtered, c, answer))
                result = slice_of_buf(&filtered);
        if (c->era == MCP_ERA_MODERN && (!has_type || (mcp_method_is_cacheable(c->method) && c->leg->era == MCP_ERA_LEGACY))) {
                result_modern(&modern, c, result, has_type);
                result = slice_of_buf(&modern);
        }
        if (asks && state_seal(&sealed, c, result))
                result = slice_of_buf(&sealed);
        call_answer(c, result);
}

/* Between the eras an unknown resource has two codes; modern clients also want to see which one it was. */
static void relay_error(struct call *c, const struct mcp_message *answer)
{
        _cleanup_free_ char *message = mcp_string(answer->error_message);
        _cleanup_buf_ struct buf data = {0};
        int64_t code = answer->error_code;
        struct buf b = {0};

        if (c->era == MCP_ERA_MODERN && c->lacked) {
                buf_addf(&data, "{\"requiredCapabilities\":%s}", capability_text(c->lacked));
                call_error(c, MCP_MISSING_CAPABILITY, message ? message : "the client lacks a capability", slice_of_buf(&data));
                return;
        }
        if (c->era != MCP_ERA_MODERN || (code != MCP_RESOURCE_NOT_FOUND && code != -32042)) {
                buf_adds(&b, "{\"jsonrpc\":\"2.0\",\"id\":");
                mcp_add_slice(&b, c->m.id);
                buf_adds(&b, ",\"error\":");
                mcp_add_slice(&b, answer->error);
                buf_addc(&b, '}');
                call_message(c, error_status(c, code), &b);
                return;
        }
        if (code == MCP_RESOURCE_NOT_FOUND && mcp_has(c->m.uri))
                mcp_object_set(&data, mcp_is_object(answer->error_data) ? answer->error_data : (struct mcp_slice){0}, "uri", c->m.uri);
        call_error(c, code == MCP_RESOURCE_NOT_FOUND ? MCP_INVALID_PARAMS : MCP_INTERNAL_ERROR, message ? message : "error",
                   data.len ? slice_of_buf(&data) : answer->error_data);
}

void call_relay(struct call *c, const struct mcp_message *answer, const struct err *why)
{
        if (why)
                call_fail(c, why);
        else if (answer->kind == MCP_ERROR)
                relay_error(c, answer);
        else if (c->era == MCP_ERA_LEGACY && mcp_is(answer->result_type, "\"input_required\""))
                down_begin(c, answer);
        else
                relay_result(c, answer);
}
