/*
 * Lists: of one server, without what was not approved; of all servers, merged in the order of their names, asked at once. The cursor of a
 * merged list says how far it came: the server's name and that server's own cursor.
 */
#include "broker/gateway/internal.h"
#include "common/log.h"

#define NO_DATA ((struct mcp_slice){0})

struct part {
        char *server;
        struct call *sub; /* until it is answered */
        struct buf items;
        char *next; /* JSON string */
        uint64_t ttl_ms;
        bool shared; /* cacheScope public */
        bool answered;
        bool begun; /* the client has seen the server's first page: what follows is waited for */
};

struct merge {
        struct call *call;
        struct part *parts;
        size_t n;
        unsigned open;
        bool bad_cursor;
        sd_event_source *timer; /* until it goes out without those that are slow */
};

const char *list_member(enum mcp_method m)
{
        switch (m) {
        case MCP_M_TOOLS_LIST:
                return "tools";
        case MCP_M_PROMPTS_LIST:
                return "prompts";
        case MCP_M_RESOURCES_LIST:
                return "resources";
        case MCP_M_RESOURCES_TEMPLATES_LIST:
                return "resourceTemplates";
        default:
                return NULL;
        }
}

static const char *list_capability(enum mcp_method m)
{
        return m == MCP_M_RESOURCES_TEMPLATES_LIST ? "resources" : list_member(m);
}

static bool has_annotations(struct mcp_slice tool)
{
        return memmem(tool.at, tool.n, "x-mcp-header", sizeof("x-mcp-header") - 1) != NULL;
}

/* A tool whose annotations break the rules cannot be called over HTTP: it is left out. */
static bool annotations_are_bad(const struct server *s, struct mcp_slice tool)
{
        _cleanup_err_ struct err *err = NULL;
        struct mcp_params params = {0};
        int r;

        if (!has_annotations(tool))
                return false;
        r = mcp_params_from_schema(&params, mcp_object_get(tool, "inputSchema"), &err);
        if (r < 0)
                log_debug("tool left out", "server", s->entry.name, "why", err_msg(err));
        else
                mcp_params_deinit(&params);
        return r < 0;
}

static bool is_seen(const struct server *s, enum mcp_method method, struct mcp_slice item, struct principal *who)
{
        if (!who)
                return true;
        switch (method) {
        case MCP_M_PROMPTS_LIST:
                return guard_sees(s->g, who, POLICY_PROMPT, s, mcp_object_get(item, "name"));
        case MCP_M_RESOURCES_LIST:
                return guard_sees(s->g, who, POLICY_RESOURCE, s, mcp_object_get(item, "uri"));
        case MCP_M_RESOURCES_TEMPLATES_LIST:
                return guard_sees(s->g, who, POLICY_RESOURCE, s, mcp_object_get(item, "uriTemplate"));
        default:
                return false; /* agents' lists of tools are the guard's */
        }
}

/*
 * Appends the elements of array, as clients may see them. prefix: put in front of names, among those of other servers: what would lead to
 * another one is left out, or a server could describe its neighbour's tools. NULL: the server stands alone.
 */
void items_add(struct buf *out, struct server *s, enum mcp_method method, struct mcp_slice array, const char *prefix, struct principal *who)
{
        struct mcp_slice item;
        size_t pos = 0;

        while (mcp_is_array(array) && mcp_array_next(array, &pos, &item) == 1) {
                struct mcp_slice name = mcp_is_object(item) ? mcp_object_get(item, "name") : NO_DATA;
                bool named = method == MCP_M_TOOLS_LIST || method == MCP_M_PROMPTS_LIST;
                struct mcp_edit edit = {.by = mcp_slice_of(prefix)};

                if (!mcp_is_object(item))
                        continue;
                if (prefix && named && !route_leads_to(s, name))
                        continue;
                if ((method == MCP_M_TOOLS_LIST && (!server_has_tool(s, name) || annotations_are_bad(s, item))) ||
                    !is_seen(s, method, item, who) || !pins_admit(s, method, item))
                        continue;
                if (out->len)
                        buf_addc(out, ',');
                if (prefix && *prefix && named) {
                        edit.old = (struct mcp_slice){name.at + 1, 0};
                        mcp_edit_add(out, item, &edit, 1);
                } else {
                        mcp_add_slice(out, item);
                }
        }
}

bool list_filter(struct buf *out, struct call *c, const struct mcp_message *answer)
{
        const struct server *s = c->server;
        const char *member = list_member(c->method);
        struct buf items = {0}, array = {0};

        if (!member || !(s->entry.pinned || (c->method == MCP_M_TOOLS_LIST && (s->entry.tools || has_annotations(answer->result)))))
                return false;
        items_add(&items, c->server, c->method, mcp_object_get(answer->result, member), NULL, NULL);
        buf_addc(&array, '[');
        if (items.len)
                buf_add(&array, items.data, items.len);
        buf_addc(&array, ']');
        mcp_object_set(out, answer->result, member, slice_of_buf(&array));
        buf_deinit(&items);
        buf_deinit(&array);
        pins_listed(c->server);
        return true;
}

/* -- cursors --------------------------------------------------------------------------------------------------------------- */
/* A name of a server is nothing for those who may not know of it: cursors are sealed. cursor: the server's own, as JSON. Ours, as JSON. */
static char *cursor_make(struct call *c, const char *server, const char *cursor)
{
        size_t name_n = strlen(server) + 1;
        _cleanup_free_ char *plain = mem_printf("%s%c%s", server, 0, cursor);

        return seal_make(c, SEAL_CURSOR, plain, name_n + strlen(cursor));
}

/* The server's name, NUL, and its cursor as JSON, NUL-terminated; owned. NULL: not one of ours. */
static char *cursor_read(struct call *c)
{
        return c->m.cursor.n > 65536 ? NULL : seal_open(c, SEAL_CURSOR, c->m.cursor);
}

/* -- merging --------------------------------------------------------------------------------------------------------------------- */
void merge_free(struct call *c)
{
        struct merge *m = TAKE_PTR(c->merge);

        if (!m)
                return;
        for (size_t i = 0; i < m->n; i++) {
                if (m->parts[i].sub)
                        call_free(m->parts[i].sub);
                buf_deinit(&m->parts[i].items);
                free(m->parts[i].next);
                free(m->parts[i].server);
        }
        sd_event_source_disable_unref(m->timer);
        if (c->session)
                c->session->n_merges--;
        free(m->parts);
        free(m);
}

static void merge_finish(struct merge *m)
{
        struct call *c = m->call;
        _cleanup_buf_ struct buf out = {0};
        uint64_t ttl = UINT64_MAX;
        bool shared = true, first = true;
        size_t i;

        if (m->bad_cursor) {
                call_error(c, MCP_INVALID_PARAMS, "Invalid params: cursor", NO_DATA);
                return;
        }
        buf_addf(&out, "{\"%s\":[", list_member(c->method));
        for (i = 0; i < m->n; i++) {
                struct part *p = &m->parts[i];

                if (!p->answered)
                        continue;
                ttl = MIN(ttl, p->ttl_ms);
                shared &= p->shared;
                if (p->items.len) {
                        if (!first)
                                buf_addc(&out, ',');
                        buf_add(&out, p->items.data, p->items.len);
                        first = false;
                }
                if (p->next)
                        break;
        }
        buf_addc(&out, ']');
        if (i < m->n) {
                _cleanup_free_ char *cursor = cursor_make(c, m->parts[i].server, m->parts[i].next);

                buf_addf(&out, ",\"nextCursor\":%s", cursor);
        }
        if (c->era == MCP_ERA_MODERN)
                buf_addf(&out, ",\"resultType\":\"complete\",\"ttlMs\":%llu,\"cacheScope\":\"%s\"",
                         (unsigned long long)(ttl == UINT64_MAX ? 0 : ttl), shared && ttl != UINT64_MAX ? "public" : "private");
        buf_addc(&out, '}');
        call_answer(c, slice_of_buf(&out));
}

static uint64_t ttl_of(struct mcp_slice result)
{
        struct mcp_slice ttl = mcp_object_get(result, "ttlMs");
        uint64_t ms = 0;

        for (size_t i = 0; i < ttl.n; i++) {
                if (ttl.at[i] < '0' || ttl.at[i] > '9' || ms > (1ULL << 53))
                        return 0;
                ms = 10 * ms + (uint64_t)(ttl.at[i] - '0');
        }
        return ms;
}

/* What is known of a server that has not answered. */
static bool part_recall(struct part *p, struct server *s, enum mcp_method method, struct principal *who)
{
        const char *next;
        struct mcp_slice known = late_list(s, method, &next);

        if (!mcp_is_array(known))
                return false;
        items_add(&p->items, s, method, known, s->prefix, who);
        p->next = mem_strdup(next);
        p->answered = true;
        return true;
}

static void part_fill(struct part *p, struct call *sub, const struct mcp_message *answer)
{
        struct mcp_slice array = mcp_object_get(answer->result, list_member(sub->method)), item;
        const char *key = sub->method == MCP_M_RESOURCES_LIST ? "uri" : "uriTemplate";
        size_t pos = 0;

        items_add(&p->items, sub->server, sub->method, array, sub->server->prefix, sub->who);
        if (sub->method == MCP_M_RESOURCES_LIST || sub->method == MCP_M_RESOURCES_TEMPLATES_LIST)
                while (mcp_is_array(array) && mcp_array_next(array, &pos, &item) == 1)
                        if (mcp_is_object(item))
                                route_learn(sub->g, mcp_object_get(item, key), sub->server);
        if (mcp_is_string(answer->next_cursor))
                p->next = mem_strndup(answer->next_cursor.at, answer->next_cursor.n);
        p->ttl_ms = ttl_of(answer->result);
        p->shared = mcp_is(mcp_object_get(answer->result, "cacheScope"), "\"public\"");
        p->answered = true;
        late_refresh(sub, answer);
        pins_listed(sub->server);
}

static void on_part(struct call *sub, const struct mcp_message *answer, const struct err *why)
{
        struct merge *m = sub->user;
        struct part *p = NULL;

        for (size_t i = 0; i < m->n; i++)
                if (m->parts[i].sub == sub)
                        p = &m->parts[i];
        if (why)
                log_debug("a list without one server", "server", sub->server->entry.name, "why", err_msg(why));
        if (answer && answer->kind == MCP_RESULT)
                part_fill(p, sub, answer);
        else if (answer && mcp_has(sub->m.cursor))
                m->bad_cursor = true;
        p->sub = NULL;
        call_free(sub);
        if (--m->open == 0)
                merge_finish(m);
}

static void part_ready(struct call *sub)
{
        if (mcp_has(leg_capability(sub->leg, list_capability(sub->method))))
                call_send(sub);
        else
                sub->finish(sub, NULL, NULL);
}

/* It goes out with what there is; the rest is announced when it comes. */
static int on_soon(_unused_ sd_event_source *source, _unused_ uint64_t now, void *user)
{
        struct merge *m = user;

        for (size_t i = 0; i < m->n; i++) {
                struct part *p = &m->parts[i];
                struct server *s = p->sub && !p->begun ? p->sub->server : NULL;

                if (!s)
                        continue;
                part_recall(p, s, m->call->method, m->call->who);
                late_await(TAKE_PTR(p->sub));
                m->open--;
        }
        if (m->open == 0)
                merge_finish(m);
        return 0;
}

/* The client's parameters with this server's cursor, and no token: there is no progress of a list of lists. */
static void part_params(struct call *sub, const struct call *c, const char *cursor)
{
        struct buf meta = {0};

        if (mcp_has(c->m.meta)) {
                mcp_object_set(&meta, c->m.meta, "progressToken", NO_DATA);
                buf_addf(&sub->text, "{\"_meta\":%s", meta.data);
        } else {
                buf_addc(&sub->text, '{');
        }
        if (cursor)
                buf_addf(&sub->text, "%s\"cursor\":%s", meta.len ? "," : "", cursor);
        buf_addc(&sub->text, '}');
        buf_deinit(&meta);
        sub->m.params = slice_of_buf(&sub->text);
        sub->m.meta = mcp_object_get(sub->m.params, "_meta");
        sub->m.cursor = mcp_object_get(sub->m.params, "cursor");
}

static struct call *part_call(struct merge *m, struct server *s, const char *cursor)
{
        struct call *c = m->call;
        struct call *sub = call_new(c->g, NULL, c->session, c->era);

        sub->part = true;
        if (c->session)
                c->session->n_calls--;

        part_params(sub, c, cursor);
        sub->who = guard_ref(c->g, c->who);
        sub->method = c->method;
        sub->listing = true;
        sub->principal = c->principal;
        sub->server = s;
        sub->finish = on_part;
        sub->user = m;
        return sub;
}

/* A sleeping server is not woken for what is known of it, and one whose list is on its way is not asked for another. */
static bool part_known(struct part *p, struct server *s, const struct call *c)
{
        enum mcp_method method = c->method;

        if (late_pending(s, method)) {
                (void)part_recall(p, s, method, c->who);
                return true;
        }
        if (s->entry.readiness != READINESS_ASLEEP || instance_client_has_one(s, c))
                return false;
        return (s->known && s->lacks & server_kind(list_capability(method))) || part_recall(p, s, method, c->who);
}

void merge_start(struct call *c)
{
        _cleanup_free_ char *at = mcp_has(c->m.cursor) ? cursor_read(c) : NULL;
        enum policy_kind kind = c->method == MCP_M_PROMPTS_LIST ? POLICY_PROMPT : POLICY_RESOURCE;
        struct gateway *g = c->g;
        struct merge *m;

        if (mcp_has(c->m.cursor) && !at) {
                call_error(c, MCP_INVALID_PARAMS, "Invalid params: cursor", NO_DATA);
                return;
        }
        /* Every server gets a copy. */
        if (c->m.meta.n > SMALL_TEXT) {
                call_error(c, MCP_INVALID_PARAMS, "Invalid params: _meta of more than 16384 bytes", NO_DATA);
                return;
        }
        if (c->session && c->session->n_merges >= MAX_MERGES) {
                call_error(c, MCP_INTERNAL_ERROR, "too many lists of this session are in flight", mcp_slice_of("{\"retryable\":true}"));
                return;
        }
        m = c->merge = NEW(struct merge);
        m->call = c;
        if (c->session)
                c->session->n_merges++;
        m->parts = mem_alloc((g->n_servers + 1) * sizeof(struct part));
        for (size_t i = 0; i < g->n_servers; i++) {
                struct server *s = g->servers[i];
                int order = at ? strcmp(s->entry.name, at) : 1;
                struct part *p = &m->parts[m->n];

                if (order < 0 || (order > 0 && server_is_hopeless(s)) || !guard_sees(g, c->who, kind, s, NO_DATA))
                        continue;
                m->n++;
                p->server = mem_strdup(s->entry.name);
                p->begun = order == 0;
                if (order > 0 && part_known(p, s, c))
                        continue;
                p->sub = part_call(m, s, order == 0 ? at + strlen(at) + 1 : NULL);
        }
        m->open = 1;
        for (size_t i = 0; i < m->n; i++)
                m->open += !!m->parts[i].sub;
        for (size_t i = 0; i < m->n; i++)
                if (m->parts[i].sub)
                        server_want(m->parts[i].sub->server, m->parts[i].sub, part_ready);
        if (--m->open == 0)
                merge_finish(m);
        else
                timer_arm(&m->timer, g->loop, SOON_MS, on_soon, m);
}
