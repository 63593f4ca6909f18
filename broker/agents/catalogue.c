#include "broker/agents/catalogue.h"

#include "common/log.h"

#define MAX_LISTED (256U << 10) /* bytes of one tool's element: a longer one does not exist */

struct shelf {
        char *server, *prefix;
        struct tool *tools; /* sorted by name */
        size_t n;
        bool stale;
};

struct catalogue {
        struct shelf **shelves; /* sorted by server */
        size_t n, n_tools;
};

struct catalogue *catalogue_new(void)
{
        return NEW(struct catalogue);
}

static void tool_deinit(struct tool *t)
{
        policy_tool_free(t->policy);
        words_deinit(&t->words);
        free(t->name);
        free(t->full);
        free(t->description);
        free(t->listed);
}

static void shelf_clear(struct catalogue *c, struct shelf *s)
{
        for (size_t i = 0; i < s->n; i++)
                tool_deinit(&s->tools[i]);
        c->n_tools -= s->n;
        free(s->tools);
        s->tools = NULL;
        s->n = 0;
}

static void shelf_free(struct catalogue *c, struct shelf *s)
{
        shelf_clear(c, s);
        free(s->server);
        free(s->prefix);
        free(s);
}

struct catalogue *catalogue_free(struct catalogue *c)
{
        if (!c)
                return NULL;
        for (size_t i = 0; i < c->n; i++)
                shelf_free(c, c->shelves[i]);
        free(c->shelves);
        free(c);
        return NULL;
}

/* The place of a server's shelf, or where it belongs. */
static bool shelf_find(const struct catalogue *c, const char *server, size_t *ret)
{
        size_t low = 0, high = c->n;

        while (low < high) {
                size_t mid = low + (high - low) / 2;
                int order = strcmp(c->shelves[mid]->server, server);

                if (order == 0) {
                        *ret = mid;
                        return true;
                }
                if (order < 0)
                        low = mid + 1;
                else
                        high = mid;
        }
        *ret = low;
        return false;
}

static struct shelf *shelf_make(struct catalogue *c, const char *server)
{
        size_t at;

        if (shelf_find(c, server, &at))
                return c->shelves[at];
        c->shelves = mem_realloc(c->shelves, c->n + 1, sizeof(*c->shelves));
        memmove(&c->shelves[at + 1], &c->shelves[at], (c->n - at) * sizeof(*c->shelves));
        c->n++;
        c->shelves[at] = NEW(struct shelf);
        c->shelves[at]->server = mem_strdup(server);
        return c->shelves[at];
}

static void shelf_remove(struct catalogue *c, const char *server)
{
        size_t at;

        if (!shelf_find(c, server, &at))
                return;
        shelf_free(c, c->shelves[at]);
        memmove(&c->shelves[at], &c->shelves[at + 1], (c->n - at - 1) * sizeof(*c->shelves));
        c->n--;
}

/* As the approved entry has it: "read TOOL". What it does not tell is not guessed. */
static enum action_class action_of(const struct channel_entry *server, const char *tool)
{
        for (char **a = server->actions; a && *a; a++) {
                const char *space = strchr(*a, ' ');
                _cleanup_free_ char *word = space && str_eq(space + 1, tool) ? mem_strndup(*a, (size_t)(space - *a)) : NULL;
                int action = word ? action_class_parse(word) : -1;

                if (action >= 0)
                        return (enum action_class)action;
        }
        return ACTION_UNKNOWN;
}

/* -- one tool ------------------------------------------------------------------------------------------------------------------ */
static void tool_add(struct catalogue *c, struct shelf *s, const struct channel_entry *server, struct mcp_slice item)
{
        struct mcp_slice schema = mcp_is_object(item) ? mcp_object_get(item, "inputSchema") : (struct mcp_slice){0};
        struct tool t = {.server = s->server, .stale = s->stale};

        t.full = mcp_is_object(item) ? mcp_string(mcp_object_get(item, "name")) : NULL;
        if (!t.full || !str_has_prefix(t.full, s->prefix) || !t.full[strlen(s->prefix)] || item.n > MAX_LISTED) {
                free(t.full);
                return;
        }
        t.name = mem_strdup(t.full + strlen(s->prefix));
        t.description = mcp_string(mcp_object_get(item, "description"));
        t.listed = mem_strndup(item.at, item.n);
        t.action = action_of(server, t.name);
        t.policy = policy_tool_new(s->server, t.name, t.action, schema.at ? schema.at : "{}", schema.at ? schema.n : 2,
                                   server->manifest ? server->manifest : "");
        if (policy_tool_fault(t.policy))
                log_warning("a tool that agents cannot call: its schema is not understood", "server", server->name, "tool", t.name, "why",
                            policy_tool_fault(t.policy));
        words_init(&t.words, s->server, t.name, t.description, schema);
        if ((s->n & (s->n + 1)) == 0)
                s->tools = mem_realloc(s->tools, 2 * (s->n + 1), sizeof(struct tool));
        s->tools[s->n++] = t;
        c->n_tools++;
}

static int by_name(const void *a, const void *b)
{
        return strcmp(((const struct tool *)a)->name, ((const struct tool *)b)->name);
}

/* Whom would a call of a name reach that stands twice? Nobody knows: neither exists. */
static void drop_doubles(struct catalogue *c, struct shelf *s)
{
        size_t kept = 0;

        for (size_t i = 0; i < s->n;) {
                size_t same = i + 1;

                while (same < s->n && str_eq(s->tools[same].name, s->tools[i].name))
                        same++;
                if (same == i + 1)
                        s->tools[kept++] = s->tools[i];
                else
                        for (size_t k = i; k < same; k++)
                                tool_deinit(&s->tools[k]);
                i = same;
        }
        c->n_tools -= s->n - kept;
        s->n = kept;
}

void catalogue_set(struct catalogue *c, const struct channel_entry *server, const char *prefix, struct mcp_slice array)
{
        struct mcp_slice item;
        struct shelf *s;
        size_t pos = 0;

        if (!mcp_is_array(array)) {
                shelf_remove(c, server->name);
                return;
        }
        s = shelf_make(c, server->name);
        shelf_clear(c, s);
        mem_replace(&s->prefix, mem_strdup(prefix));
        while (mcp_array_next(array, &pos, &item) == 1)
                tool_add(c, s, server, item);
        if (s->n)
                qsort(s->tools, s->n, sizeof(struct tool), by_name);
        drop_doubles(c, s);
}

void catalogue_mark(struct catalogue *c, const char *server, bool stale)
{
        size_t at;

        if (!shelf_find(c, server, &at))
                return;
        c->shelves[at]->stale = stale;
        for (size_t i = 0; i < c->shelves[at]->n; i++)
                c->shelves[at]->tools[i].stale = stale;
}

/* -- finding ------------------------------------------------------------------------------------------------------------------- */
static const struct tool *on_shelf(const struct shelf *s, const char *name)
{
        struct tool key = {.name = (char *)(uintptr_t)name};

        return s->n ? bsearch(&key, s->tools, s->n, sizeof(key), by_name) : NULL;
}

const struct tool *catalogue_find(const struct catalogue *c, const char *server, const char *name)
{
        size_t at;

        return shelf_find(c, server, &at) ? on_shelf(c->shelves[at], name) : NULL;
}

const struct tool *catalogue_named(const struct catalogue *c, const char *text)
{
        const char *colon = strchr(text, ':');
        _cleanup_free_ char *server = colon ? mem_strndup(text, (size_t)(colon - text)) : NULL;
        const struct tool *found = server ? catalogue_find(c, server, colon + 1) : NULL;

        for (size_t i = 0; !found && !colon && i < c->n; i++)
                if (str_has_prefix(text, c->shelves[i]->prefix))
                        found = on_shelf(c->shelves[i], text + strlen(c->shelves[i]->prefix));
        return found;
}

const struct tool *catalogue_next(const struct catalogue *c, struct catalogue_cursor *pos)
{
        while (pos->server < c->n && pos->tool >= c->shelves[pos->server]->n) {
                pos->server++;
                pos->tool = 0;
        }
        return pos->server < c->n ? &c->shelves[pos->server]->tools[pos->tool++] : NULL;
}

size_t catalogue_n_tools(const struct catalogue *c)
{
        return c->n_tools;
}
