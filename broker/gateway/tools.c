/*
 * What the gateway knows of a server's tools: their names as listed and the arguments that headers mirror. Asked of the server when it is
 * first needed, and again after it said that they changed.
 */
#include "broker/gateway/internal.h"
#include "common/log.h"

#define RELOAD_MS 1000U /* a server that says "changed" all the time is not asked all the time */
#define MAX_PAGES 64U
#define MAX_TOOLS 4096U
#define MAX_TEXT  (1U << 20)
#define MAX_NAME  256U /* bytes; the specification wants 128 at most */

struct tool {
        char *name;
        struct mcp_params params;
        bool broken;   /* its annotations break the rules */
        bool approved; /* it is what the approval binds */
};

struct tools {
        struct server *server;
        struct tool *items;
        size_t n;
        bool valid, changed; /* changed: while it was being read */
        bool recalled;       /* from before: nobody has asked the server yet */
        bool missed;
        unsigned pages;
        uint64_t since_ms; /* the loader is at work; 0: it is not */
        uint64_t done_ms;
        size_t annotated; /* bytes of tools that have annotations */
        struct call *loader;
        struct list waiting;
        struct buf text; /* all elements, for lists while the server sleeps */
};

static void tools_clear(struct tools *t)
{
        for (size_t i = 0; i < t->n; i++) {
                free(t->items[i].name);
                mcp_params_deinit(&t->items[i].params);
        }
        free(t->items);
        t->items = NULL;
        t->n = 0;
        t->pages = 0;
        t->annotated = 0;
        t->changed = false;
        buf_deinit(&t->text);
}

void tools_free(struct server *s)
{
        struct tools *t = TAKE_PTR(s->tools);

        if (!t)
                return;
        tools_clear(t);
        if (t->loader)
                call_free(t->loader);
        free(t);
}

bool tools_read(const struct server *s)
{
        return s->tools && s->tools->done_ms && !s->tools->loader;
}

void tools_begin(struct server *s)
{
        if (s->tools)
                s->tools->done_ms = 0;
        tools_changed(s);
}

void tools_changed(struct server *s)
{
        if (s->tools && s->tools->loader && s->tools->loader->leg) /* else it has not even been asked for */
                s->tools->changed = true;
        if (s->tools)
                s->tools->valid = false;
        /* Agents search among what is known; and what is not as it was approved is to be known before somebody calls it. */
        if ((s->g->guard || s->entry.pinned) && s->shared && s->shared->ready &&
            (!s->tools || now_ms(s->g->loop) - s->tools->done_ms >= RELOAD_MS))
                tools_load(s);
}

void tools_tell(struct server *s)
{
        const struct gateway_guard *guard = s->g->guard;
        _cleanup_buf_ struct buf items = {0}, array = {0};

        if (!guard)
                return;
        s->told = true;
        items_add(&items, s, MCP_M_TOOLS_LIST, tools_text(s), s->prefix, NULL);
        buf_addc(&array, '[');
        if (items.len)
                buf_add(&array, items.data, items.len);
        buf_addc(&array, ']');
        guard->tools(&s->entry, s->prefix, slice_of_buf(&array), guard->user);
}

void tools_judge_stale(struct server *s)
{
        const struct gateway_guard *guard = s->g->guard;
        bool stale = s->told && ((s->tools && s->tools->recalled) || server_is_hopeless(s));

        if (!guard || !guard->stale || stale == s->stale)
                return;
        s->stale = stale;
        guard->stale(s->entry.name, stale, guard->user);
}

static int by_name(const void *a, const void *b)
{
        return strcmp(((const struct tool *)a)->name, ((const struct tool *)b)->name);
}

static const struct tool *tool_find(const struct tools *t, struct mcp_slice name)
{
        _cleanup_free_ char *text = t && t->n && !t->loader ? mcp_string(name) : NULL; /* not in order while it is read */
        struct tool key = {.name = text};

        return text ? bsearch(&key, t->items, t->n, sizeof(key), by_name) : NULL;
}

const struct mcp_params *tools_params(struct server *s, struct mcp_slice name)
{
        const struct tool *t = tool_find(s->tools, name);

        return t && t->params.n ? &t->params : NULL;
}

bool tools_broken(struct server *s, struct mcp_slice name)
{
        const struct tool *t = tool_find(s->tools, name);

        return t && t->broken;
}

bool tools_know(struct server *s, struct mcp_slice name)
{
        return tool_find(s->tools, name) != NULL;
}

bool tools_approved(struct server *s, struct mcp_slice name, bool *unsure)
{
        const struct tool *t = tool_find(s->tools, name);

        *unsure = !s->tools || s->tools->loader || !s->tools->text.len;
        return t && t->approved;
}

struct mcp_slice tools_text(const struct server *s)
{
        return s->tools && s->tools->text.len ? slice_of_buf(&s->tools->text) : (struct mcp_slice){0};
}

static void text_end(struct tools *t)
{
        if (t->n)
                qsort(t->items, t->n, sizeof(struct tool), by_name);
        buf_addc(&t->text, t->text.len ? ']' : '[');
        if (t->text.len == 1)
                buf_addc(&t->text, ']');
}

/* What was not approved of it need not be remembered: after a restart it would not be shown either. */
static void keep(const struct server *s)
{
        struct mcp_slice list = tools_text(s), item;
        _cleanup_buf_ struct buf array = {0};
        size_t pos = 0;

        if (!s->g->config.cache || !s->entry.manifest)
                return;
        while (mcp_array_next(list, &pos, &item) == 1) {
                const struct tool *t = tool_find(s->tools, mcp_object_get(item, "name"));

                if (!t || !t->approved || !server_has_tool(s, mcp_object_get(item, "name")))
                        continue;
                buf_addc(&array, array.len ? ',' : '[');
                mcp_add_slice(&array, item);
        }
        buf_adds(&array, array.len ? "]" : "[]");
        tool_cache_put(s->g->config.cache, s->entry.name, s->entry.manifest, slice_of_buf(&array));
}

static void tools_done(struct tools *t, bool ok)
{
        struct call *loader = TAKE_PTR(t->loader), *c;
        struct gateway *g = t->server->g;
        struct list ready;

        t->valid = ok && !t->changed;
        if (ok) {
                text_end(t);
        } else {
                tools_clear(t);
        }
        call_free(loader);
        t->since_ms = 0;
        t->done_ms = now_ms(t->server->g->loop);
        if (ok) {
                t->recalled = false;
                keep(t->server);
                tools_tell(t->server);
        }
        if (ok && t->missed)
                changes_list(t->server, MCP_M_TOOLS_LIST);
        t->missed &= !ok;
        tools_judge_stale(t->server);
        list_init(&ready);
        LIST_FOREACH (c, &t->waiting, struct call, in_queue) {
                list_del(&c->in_queue);
                list_add(&ready, &c->in_queue);
        }
        while ((c = list_first(&ready, struct call, in_queue))) {
                list_del(&c->in_queue);
                c->then(c);
        }
        learn_more(g);
}

static void tool_add(struct tools *t, struct mcp_slice item)
{
        _cleanup_err_ struct err *err = NULL;
        struct mcp_slice name = mcp_object_get(item, "name");
        struct tool tool = {0};

        if (!mcp_is_string(name) || name.n > MAX_NAME || t->n >= MAX_TOOLS)
                return;
        tool.name = mcp_string(name);
        tool.approved = pins_tool(t->server, item);
        /* What is kept of annotations is up to some thirty times as long as they are. */
        if (memmem(item.at, item.n, "x-mcp-header", sizeof("x-mcp-header") - 1) && (t->annotated += item.n) <= MAX_TEXT &&
            mcp_params_from_schema(&tool.params, mcp_object_get(item, "inputSchema"), &err) < 0) {
                log_debug("tool with wrong annotations", "server", t->server->entry.name, "why", err_msg(err));
                tool.broken = true;
        }
        if ((t->n & (t->n + 1)) == 0)
                t->items = mem_realloc(t->items, 2 * (t->n + 1), sizeof(struct tool));
        t->items[t->n++] = tool;
        if (t->text.len + item.n < MAX_TEXT) {
                buf_addc(&t->text, t->text.len ? ',' : '[');
                mcp_add_slice(&t->text, item);
        }
}

static void on_page(struct call *c, const struct mcp_message *answer, const struct err *why)
{
        struct tools *t = c->user;
        struct mcp_slice array, item;
        size_t pos = 0;

        if (why || answer->kind != MCP_RESULT) {
                tools_done(t, false);
                return;
        }
        array = mcp_object_get(answer->result, "tools");
        while (mcp_is_array(array) && mcp_array_next(array, &pos, &item) == 1)
                if (mcp_is_object(item))
                        tool_add(t, item);
        if (!mcp_is_string(answer->next_cursor) || ++t->pages >= MAX_PAGES) {
                tools_done(t, true);
                return;
        }
        buf_deinit(&c->text);
        buf_adds(&c->text, "{\"cursor\":");
        mcp_add_slice(&c->text, answer->next_cursor);
        buf_addc(&c->text, '}');
        c->m.params = slice_of_buf(&c->text);
        server_want(t->server, c, call_send);
}

static void loader_ready(struct call *c)
{
        if (mcp_has(leg_capability(c->leg, "tools")))
                call_send(c);
        else
                tools_done(c->user, true);
}

static struct tools *tools_of(struct server *s)
{
        if (!s->tools) {
                s->tools = NEW(struct tools);
                s->tools->server = s;
                list_init(&s->tools->waiting);
        }
        return s->tools;
}

static void tools_start(struct tools *t)
{
        struct server *s = t->server;

        if (t->loader)
                return;
        tools_clear(t);
        pins_forget_tools(s);
        t->since_ms = MAX(now_ms(s->g->loop), (uint64_t)1);
        t->loader = call_new(s->g, NULL, NULL, MCP_ERA_LEGACY);
        t->loader->own = true;
        t->loader->method = MCP_M_TOOLS_LIST;
        t->loader->finish = on_page;
        t->loader->user = t;
        server_want(s, t->loader, loader_ready);
}

void tools_recall(struct server *s)
{
        struct mcp_slice list, item;
        struct tools *t;
        size_t pos = 0;

        if (!s->g->config.cache || s->told || (s->tools && (s->tools->loader || s->tools->text.len)))
                return;
        /* Without anything to compare it with, all of it would be another than was approved. */
        if (s->entry.pinned && s->n_pins == 0)
                return;
        list = tool_cache_get(s->g->config.cache, s->entry.name, s->entry.manifest);
        if (!mcp_has(list))
                return;
        t = tools_of(s);
        tools_clear(t);
        while (mcp_array_next(list, &pos, &item) == 1)
                if (mcp_is_object(item))
                        tool_add(t, item);
        text_end(t);
        t->recalled = true;
        tools_tell(s);
}

void tools_load(struct server *s)
{
        struct tools *t = tools_of(s);

        if (!t->valid)
                tools_start(t);
}

uint64_t tools_loading(const struct server *s)
{
        return s->tools ? s->tools->since_ms : 0;
}

bool tools_are_known(const struct server *s)
{
        return s->tools && s->tools->valid;
}

void tools_missed(struct server *s)
{
        s->tools->missed = true;
}

void tools_ensure(struct server *s, struct call *c, void (*then)(struct call *c))
{
        struct tools *t = tools_of(s);

        c->server = s;
        /* Once a call: a server that says "changed" all the time would keep it here for ever. */
        if (t->valid || c->tools_seen) {
                c->tools_seen = true;
                then(c);
                return;
        }
        c->tools_seen = true;
        c->then = then;
        list_add(&t->waiting, &c->in_queue);
        tools_start(t);
}
