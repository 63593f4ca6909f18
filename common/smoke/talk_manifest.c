#include "common/smoke/talk_manifest.h"

#include "common/manifest.h"
#include "common/text.h"

_Static_assert((unsigned)TALK_TOOLS == MANIFEST_TOOLS && (unsigned)TALK_PROMPTS == MANIFEST_PROMPTS &&
                       (unsigned)TALK_RESOURCES == MANIFEST_RESOURCES && (unsigned)TALK_TEMPLATES == MANIFEST_TEMPLATES &&
                       (unsigned)TALK_N_LISTS == MANIFEST_LISTS,
               "lists are in the manifest's order");

static const struct talk_listing listings[TALK_N_LISTS] = {
        [TALK_TOOLS] = {"tools/list", "tools", "name", "tools", "notifications/tools/list_changed"},
        [TALK_PROMPTS] = {"prompts/list", "prompts", "name", "prompts", "notifications/prompts/list_changed"},
        [TALK_RESOURCES] = {"resources/list", "resources", "uri", "resources", "notifications/resources/list_changed"},
        [TALK_TEMPLATES] = {"resources/templates/list", "resourceTemplates", "uriTemplate", "resources",
                            "notifications/resources/list_changed"},
};

const struct talk_listing *talk_listing(enum talk_list list)
{
        return &listings[list];
}

void talk_manifest_deinit(struct talk_manifest *m)
{
        for (size_t i = 0; i < TALK_N_LISTS; i++)
                json_freep(&m->items[i]);
        strv_freep(&m->cursors);
        mem_freep(&m->instructions);
        *m = (struct talk_manifest){0};
}

void talk_manifest_begin(struct talk_manifest *m, enum talk_list list)
{
        json_freep(&m->items[list]);
        m->items[list] = json_object_new_array();
        m->cursors = strv_free(m->cursors);
        m->pages = 0;
}

static int check_item(enum talk_list list, json_object *item, size_t index, struct err **err)
{
        const struct talk_listing *l = &listings[list];
        _cleanup_free_ char *safe = NULL;
        const char *key;

        if (!json_object_is_type(item, json_type_object))
                return err_set(err, ERR_INVALID, "%s: item %zu is not an object", l->method, index);
        key = json_str(item, l->key);
        if (!key || !*key || strlen(key) > 8192)
                return err_set(err, ERR_INVALID, "%s: item %zu has no usable \"%s\"", l->method, index, l->key);
        if (list != TALK_TOOLS)
                return 0;
        safe = text_escape(key);
        if (strlen(key) > TALK_MAX_NAME || !str_in_charset(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"))
                return err_set(err, ERR_INVALID, "%s: the tool name \"%.200s\" is not 1 to %u characters of A-Z a-z 0-9 _ . -", l->method,
                               safe, TALK_MAX_NAME);
        if (!json_object_is_type(json_get(item, "inputSchema"), json_type_object))
                return err_set(err, ERR_INVALID, "%s: tool \"%s\" has no \"inputSchema\" object", l->method, safe);
        return 0;
}

static int take_cursor(struct talk_manifest *m, const char *method, json_object *result, const char **cursor, struct err **err)
{
        json_object *next = json_get(result, "nextCursor");
        const char *text;

        *cursor = NULL;
        if (!next)
                return 0;
        if (!json_object_is_type(next, json_type_string))
                return err_set(err, ERR_INVALID, "%s: \"nextCursor\" is not a string", method);
        text = json_object_get_string(next);
        if (strv_contains(m->cursors, text))
                return err_set(err, ERR_INVALID, "%s: page %u has a cursor that was there before, so its pages never end", method,
                               m->pages);
        if (m->pages >= TALK_MAX_PAGES)
                return err_set(err, ERR_LIMIT, "%s: more than %u pages", method, TALK_MAX_PAGES);
        m->cursors = strv_append(m->cursors, text);
        *cursor = m->cursors[strv_len(m->cursors) - 1];
        return 0;
}

int talk_manifest_page(struct talk_manifest *m, enum talk_list list, json_object *result, const char **cursor, struct err **err)
{
        const struct talk_listing *l = &listings[list];
        json_object *page = json_get(result, l->member);
        size_t n;

        if (!json_object_is_type(page, json_type_array))
                return err_set(err, ERR_INVALID, "%s: the answer has no array \"%s\"", l->method, l->member);
        n = json_object_array_length(page);
        m->pages++;
        if (n + json_object_array_length(m->items[list]) > TALK_MAX_ITEMS)
                return err_set(err, ERR_LIMIT, "%s: more than %u items", l->method, TALK_MAX_ITEMS);
        for (size_t i = 0; i < n; i++) {
                json_object *item = json_object_array_get_idx(page, i);
                if (check_item(list, item, json_object_array_length(m->items[list]) + 1, err) < 0)
                        return -1;
                json_object_array_add(m->items[list], json_object_get(item));
        }
        return take_cursor(m, l->method, result, cursor, err);
}

/* qsort hands over no context, so the key is looked for: an item has been checked to have the one of its list. */
static int by_key(const void *a, const void *b, const char *key)
{
        const char *x = json_str(*(json_object *const *)a, key), *y = json_str(*(json_object *const *)b, key);
        return strcmp(x ? x : "", y ? y : "");
}

static int by_name(const void *a, const void *b)
{
        return by_key(a, b, "name");
}

static int by_uri(const void *a, const void *b)
{
        return by_key(a, b, "uri");
}

static int by_template(const void *a, const void *b)
{
        return by_key(a, b, "uriTemplate");
}

static int sort_list(struct talk_manifest *m, enum talk_list list, struct err **err)
{
        static int (*const order[TALK_N_LISTS])(const void *, const void *) = {by_name, by_name, by_uri, by_template};
        const struct talk_listing *l = &listings[list];
        json_object *items = m->items[list];

        if (!items)
                items = m->items[list] = json_object_new_array();
        json_object_array_sort(items, order[list]);
        for (size_t i = 1; i < json_object_array_length(items); i++) {
                const char *a = json_str(json_object_array_get_idx(items, i - 1), l->key);
                const char *b = json_str(json_object_array_get_idx(items, i), l->key);
                _cleanup_free_ char *safe = NULL;
                if (strcmp(a, b) != 0)
                        continue;
                safe = text_escape(a);
                return err_set(err, ERR_INVALID, "%s: \"%.200s\" is listed twice", l->method, safe);
        }
        return 0;
}

int talk_manifest_text(struct talk_manifest *m, char **ret, struct err **err)
{
        for (unsigned i = 0; i < TALK_N_LISTS; i++)
                if (sort_list(m, (enum talk_list)i, err) < 0)
                        return -1;
        *ret = manifest_text(m->instructions, m->items);
        return 0;
}

json_object *talk_manifest_tool(const struct talk_manifest *m, const char *name)
{
        json_object *tools = m->items[TALK_TOOLS];

        for (size_t i = 0; tools && i < json_object_array_length(tools); i++)
                if (str_eq(json_str(json_object_array_get_idx(tools, i), "name"), name))
                        return json_object_array_get_idx(tools, i);
        return NULL;
}

char **talk_manifest_tools(const struct talk_manifest *m)
{
        char **names = NULL;

        for (size_t i = 0; i < json_object_array_length(m->items[TALK_TOOLS]); i++)
                names = strv_append(names, json_str(json_object_array_get_idx(m->items[TALK_TOOLS], i), "name"));
        return names;
}
