/*
 * The four tools that every agent has, instead of a list of all there are: search, describe, load; harness_call_tool is unwrapped by the
 * gateway. The same answers go out over MCP and over /v1.
 */
#include "broker/agents/internal.h"
#include "common/text.h"

#define SEARCH_MAX     25U
#define SEARCH_DEFAULT 8U
#define SHORT_TEXT     300U /* bytes of a description in a list of hits */
#define LOAD_MAX       32U
#define NO_SLICE       ((struct mcp_slice){0})

#define ELEMENT(name, about, properties, required, hints)                                                                                  \
        "{\"name\":\"" name "\",\"description\":\"" about "\",\"inputSchema\":{\"type\":\"object\",\"properties\":{" properties            \
        "},\"required\":[" required "],\"additionalProperties\":false},\"annotations\":{" hints "}}"
#define LOOKS "\"readOnlyHint\":true,\"openWorldHint\":false"

static const struct {
        const char *name, *element;
} own[] = {
        {"harness_search_tools",
         ELEMENT("harness_search_tools",
                 "Finds tools that you may use, by what they do. Answers with their names; harness_describe_tool says how to call one.",
                 "\"query\":{\"type\":\"string\",\"description\":\"What the tool should do, in a few words\"},"
                 "\"limit\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":25,\"description\":\"How many hits at most (default 8)\"}",
                 "\"query\"", LOOKS)},
        {"harness_describe_tool",
         ELEMENT("harness_describe_tool", "Says what a tool does and which arguments it takes.",
                 "\"name\":{\"type\":\"string\",\"description\":\"The tool's name, as harness_search_tools gives it\"}", "\"name\"",
                 LOOKS)},
        {GATEWAY_CALL_TOOL, ELEMENT(GATEWAY_CALL_TOOL, "Calls a tool by its name. The answer is the tool's own.",
                                    "\"name\":{\"type\":\"string\",\"description\":\"The tool's name, as harness_search_tools gives it\"},"
                                    "\"arguments\":{\"type\":\"object\",\"description\":\"As its inputSchema wants them\"}",
                                    "\"name\"", "")},
        {"harness_load_tools", ELEMENT("harness_load_tools", "Adds tools to your list of tools, so that you can call them directly.",
                                       "\"names\":{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"minItems\":1,\"maxItems\":32,"
                                       "\"description\":\"Names of tools, as harness_search_tools gives them\"}",
                                       "\"names\"", "\"readOnlyHint\":true,\"idempotentHint\":true,\"openWorldHint\":false")},
};

bool harness_is(const char *name)
{
        for (size_t i = 0; i < ELEMENTSOF(own); i++)
                if (str_eq(own[i].name, name))
                        return true;
        return false;
}

void harness_list(struct buf *out)
{
        for (size_t i = 0; i < ELEMENTSOF(own); i++) {
                if (i)
                        buf_addc(out, ',');
                buf_adds(out, own[i].element);
        }
}

void tool_result(struct buf *out, struct mcp_slice object, bool structured, bool is_error)
{
        buf_adds(out, "{\"content\":[{\"type\":\"text\",\"text\":");
        mcp_add_string(out, object.at, object.n);
        buf_adds(out, "}]");
        if (structured) {
                buf_adds(out, ",\"structuredContent\":");
                mcp_add_slice(out, object);
        }
        buf_adds(out, is_error ? ",\"isError\":true}" : "}");
}

/* -- arguments ----------------------------------------------------------------------------------------------------------------- */
static int bad(char **why, const char *text)
{
        *why = mem_strdup(text);
        return -1;
}

static char *text_argument(struct mcp_slice arguments, const char *key)
{
        return mcp_is_object(arguments) ? mcp_string(mcp_object_get(arguments, key)) : NULL;
}

/* A whole number from 1 to max, or the fallback; 0: neither. */
static unsigned count_argument(struct mcp_slice arguments, const char *key, unsigned fallback, unsigned max)
{
        struct mcp_slice s = mcp_object_get(arguments, key);
        unsigned n = 0;

        if (!mcp_has(s))
                return fallback;
        if (!mcp_is_integer(s) || s.n > 4)
                return 0;
        for (size_t i = 0; i < s.n; i++) {
                if (s.at[i] < '0' || s.at[i] > '9')
                        return 0;
                n = 10 * n + (unsigned)(s.at[i] - '0');
        }
        return n <= max ? n : 0;
}

/* -- searching ----------------------------------------------------------------------------------------------------------------- */
static void add_short(struct buf *out, const char *text)
{
        size_t n = MIN(strlen(text), (size_t)SHORT_TEXT);

        while (n && ((unsigned char)text[n] & 0xc0) == 0x80) /* not in the middle of a character */
                n--;
        mcp_add_string(out, text, n);
}

static void add_hit(struct buf *out, const struct policy_agent *a, const struct tool *t)
{
        buf_adds(out, "{\"name\":");
        mcp_add_string(out, t->full, strlen(t->full));
        buf_adds(out, ",\"server\":");
        mcp_add_string(out, t->server, strlen(t->server));
        if (t->description) {
                buf_adds(out, ",\"description\":");
                add_short(out, t->description);
        }
        buf_addf(out, ",\"action\":\"%s\",\"access\":\"%s\"%s}", action_class_name(t->action),
                 tool_access(a, t) == POLICY_ASK ? "approval" : "allowed", t->stale ? ",\"stale\":true" : "");
}

int harness_search(struct door *d, struct principal *who, struct mcp_slice arguments, struct buf *out, char **why)
{
        size_t n = 0, n_hits, max = catalogue_n_tools(d->catalogue);
        _cleanup_free_ const struct tool **tools = mem_alloc((max + 1) * sizeof(*tools));
        _cleanup_free_ const struct words **words = mem_alloc((max + 1) * sizeof(*words));
        _cleanup_free_ char *query = text_argument(arguments, "query");
        const struct policy_agent *a = agent_rights(d, who);
        struct words_hit hits[SEARCH_MAX];
        struct catalogue_cursor at = {0};
        const struct tool *t;
        unsigned limit;

        if (!query)
                return bad(why, "query is needed, a text");
        limit = count_argument(arguments, "limit", SEARCH_DEFAULT, SEARCH_MAX);
        if (!limit)
                return bad(why, "limit is a number from 1 to 25");
        while ((t = catalogue_next(d->catalogue, &at)))
                if (tool_access(a, t) != POLICY_NONE && !policy_tool_fault(t->policy)) {
                        tools[n] = t;
                        words[n++] = &t->words;
                }
        n_hits = words_search(hits, limit, words, n, query);
        buf_adds(out, "{\"tools\":[");
        for (size_t i = 0; i < n_hits; i++) {
                if (i)
                        buf_addc(out, ',');
                add_hit(out, a, tools[hits[i].place]);
        }
        buf_adds(out, "]}");
        return 0;
}

/* -- describing and loading ---------------------------------------------------------------------------------------------------- */
static char *unknown(const char *name)
{
        _cleanup_free_ char *safe = text_escape(name);

        return mem_printf("Unknown tool: %s", safe);
}

int harness_describe(struct door *d, struct principal *who, struct mcp_slice arguments, struct buf *out, char **why)
{
        _cleanup_free_ char *name = text_argument(arguments, "name");
        const struct tool *t = name ? tool_seen(d, who, name) : NULL;
        const char *fault = t ? policy_tool_fault(t->policy) : NULL;

        if (!name)
                return bad(why, "name is needed, a text");
        if (!t) {
                *why = unknown(name);
                return 1;
        }
        buf_adds(out, "{\"server\":");
        mcp_add_string(out, t->server, strlen(t->server));
        buf_addf(out, ",\"action\":\"%s\",\"access\":\"%s\"", action_class_name(t->action),
                 fault                                                ? "none"
                 : tool_access(agent_rights(d, who), t) == POLICY_ASK ? "approval"
                                                                      : "allowed");
        if (fault) {
                buf_adds(out, ",\"why\":");
                mcp_add_string(out, fault, strlen(fault));
        }
        buf_addf(out, "%s,\"tool\":%s}", t->stale ? ",\"stale\":true" : "", t->listed);
        return 0;
}

static void add_name(struct buf *list, const char *name)
{
        if (list->len)
                buf_addc(list, ',');
        mcp_add_string(list, name, strlen(name));
}

int harness_load(struct door *d, struct principal *who, const char *scope, struct mcp_slice arguments, struct buf *out, bool *changed,
                 char **why)
{
        struct mcp_slice names = mcp_is_object(arguments) ? mcp_object_get(arguments, "names") : NO_SLICE, item;
        _cleanup_buf_ struct buf loaded = {0}, missing = {0};
        size_t pos = 0;

        if (!mcp_is_array(names))
                return bad(why, "names is needed, a list of texts");
        for (unsigned n = 0; mcp_array_next(names, &pos, &item) == 1; n++) {
                _cleanup_free_ char *name = mcp_string(item), *full = NULL;
                const struct tool *t = name ? tool_seen(d, who, name) : NULL;

                if (!name || n >= LOAD_MAX)
                        return bad(why, "names is a list of at most 32 texts");
                if (!t || policy_tool_fault(t->policy)) {
                        add_name(&missing, name);
                        continue;
                }
                full = mem_printf("%s:%s", t->server, t->name);
                *changed |= shown_add(d->shown, scope ? scope : who->scope, full);
                add_name(&loaded, t->full);
        }
        buf_addf(out, "{\"loaded\":[%s],\"unknown\":[%s]}", loaded.data ? loaded.data : "", missing.data ? missing.data : "");
        return 0;
}
