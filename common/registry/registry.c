#include "common/registry/registry.h"

#include "common/file.h"
#include "common/registry/reader.h"

#define REGISTRY_FORMAT "1.0"

bool registry_name_valid(const char *name)
{
        size_t n = strlen(name);

        return n >= 1 && n <= 40 && str_in_charset(name, "abcdefghijklmnopqrstuvwxyz0123456789-");
}

bool registry_prefix_valid(const char *prefix)
{
        return strlen(prefix) <= 40 && str_in_charset(prefix, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-");
}

static int parse_schema(const struct reader *r, const struct place *at, json_object *value, _unused_ void *dst, struct err **err)
{
        const char *s = NULL;

        return read_string(r, at, value, 1024, &s, err);
}

static int parse_version(const struct reader *r, const struct place *at, json_object *value, _unused_ void *dst, struct err **err)
{
        static const char *const words[] = {REGISTRY_FORMAT, NULL};
        unsigned i = 0;

        return read_word(r, at, value, words, &i, err);
}

const char *const discovery_names[] = {
        [DISCOVERY_TOOLHIVE] = "toolhive_gateway",
        [DISCOVERY_REGISTRY] = "mcp.servers.json",
        [DISCOVERY_CURSOR] = "cursor_config",
        [DISCOVERY_CACHE] = "tool_registry_cache",
        [DISCOVERY_SOURCES] = NULL,
};

static int parse_discovery_order(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        struct registry *reg = dst;
        unsigned seen = 0, word = 0;
        size_t n = 0;

        if (read_array(r, at, value, DISCOVERY_SOURCES, &n, err) < 0)
                return -1;
        reg->n_order = 0;
        for (size_t i = 0; i < n; i++) {
                if (read_word(r, PLACE_ITEM(at, i), json_object_array_get_idx(value, i), discovery_names, &word, err) < 0)
                        return -1;
                if (seen & 1U << word)
                        return reader_fail(r, PLACE_ITEM(at, i), err, "\"%s\" stands here twice; write it once", discovery_names[word]);
                seen |= 1U << word;
                reg->order[reg->n_order++] = (enum discovery)word;
        }
        return 0;
}

static int compare_entries(const void *a, const void *b)
{
        return strcmp((*(struct registry_entry *const *)a)->name, (*(struct registry_entry *const *)b)->name);
}

static char *prefix_of(const struct registry_entry *e)
{
        return e->prefix ? mem_strdup(e->prefix) : mem_printf("%s__", e->name);
}

struct prefixed {
        char *prefix;
        const struct registry_entry *entry;
};

static int compare_prefixed(const void *a, const void *b)
{
        const struct prefixed *x = a, *y = b;
        int order = strcmp(x->prefix, y->prefix);

        /* Of two with the same prefix the one that may give way comes last: it wrote it, and it stands further down. */
        if (order == 0)
                order = (x->entry->prefix != NULL) - (y->entry->prefix != NULL);
        return order ? order : (x->entry->line > y->entry->line) - (x->entry->line < y->entry->line);
}

/* Where several servers are behind one endpoint, a tool's name says whose it is. */
static int check_prefixes_differ(const struct reader *r, const struct place *at, const struct registry *reg, struct err **err)
{
        struct prefixed *list = NEW_N(struct prefixed, reg->n_entries + 1);
        int result = 0;

        for (size_t i = 0; i < reg->n_entries; i++) {
                const struct registry_entry *e = reg->entries[i];
                list[i] = (struct prefixed){prefix_of(e), e};
        }
        qsort(list, reg->n_entries, sizeof(*list), compare_prefixed);
        for (size_t i = 1; i < reg->n_entries && result == 0; i++)
                if (str_eq(list[i - 1].prefix, list[i].prefix))
                        result = reader_fail(r, PLACE_KEY(PLACE_KEY(at, list[i].entry->name), "prefix"), err,
                                             "\"%s\" is also the prefix of the server \"%s\"; write another one", list[i].prefix,
                                             list[i - 1].entry->name);
        for (size_t i = 0; i < reg->n_entries; i++)
                free(list[i].prefix);
        free(list);
        return result;
}

/*
 * What an external server calls its tools is its own affair: where the prefix of one of its neighbours begins with its own, or the other
 * way round, it could choose a name that is the neighbour's.
 */
static int check_no_shadow(const struct reader *r, const struct place *at, const struct registry *reg, struct err **err)
{
        for (size_t i = 0; i < reg->n_entries; i++) {
                const struct registry_entry *e = reg->entries[i];
                _cleanup_free_ char *own = e->source == SOURCE_URL ? prefix_of(e) : NULL;

                for (size_t k = 0; own && k < reg->n_entries; k++) {
                        _cleanup_free_ char *other = prefix_of(reg->entries[k]);
                        if (k != i && (str_has_prefix(own, other) || str_has_prefix(other, own)))
                                return reader_fail(
                                        r, PLACE_KEY(PLACE_KEY(at, e->name), "prefix"), err,
                                        "\"%s\" and \"%s\", the prefix of \"%s\", begin alike: an external server could take the "
                                        "other one's names; write another one",
                                        own, other, reg->entries[k]->name);
                }
        }
        return 0;
}

static int parse_servers(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        struct registry *reg = dst;

        if (!json_object_is_type(value, json_type_object))
                return reader_fail(r, at, err, "is not an object; write {\"name\": {…}}");
        if ((size_t)json_object_object_length(value) > r->conf->max_servers)
                return reader_fail(r, at, err, "has %d servers; this host allows %u (controller.max_servers)",
                                   json_object_object_length(value), r->conf->max_servers);
        reg->entries = mem_alloc((size_t)json_object_object_length(value) * sizeof(struct registry_entry *));
        json_object_object_foreach (value, name, entry) {
                if (entry_read(&reg->entries[reg->n_entries], r, PLACE_KEY(at, name), name, entry, err) < 0)
                        return -1;
                reg->n_entries++;
        }
        qsort(reg->entries, reg->n_entries, sizeof(struct registry_entry *), compare_entries);
        if (check_prefixes_differ(r, at, reg, err) < 0 || check_no_shadow(r, at, reg, err) < 0)
                return -1;
        return check_mounts_apart(r, at, reg, err);
}

static const struct key registry_keys[] = {
        {.name = "$schema", .parse = parse_schema},
        {.name = "version", .parse = parse_version, .required = true},
        {.name = "discovery_order", .parse = parse_discovery_order},
        {.name = "servers", .parse = parse_servers, .required = true},
        {.name = "mcpServers", .refused = "is another tool's format; bring the file in with bulkhead import"},
};

int registry_parse(struct registry **ret, const char *text, size_t n, const char *name, const struct conf *conf, struct err **err)
{
        _cleanup_(json_locations_freep) struct json_locations *loc = NULL;
        _cleanup_(registry_freep) struct registry *reg = NEW(struct registry);
        const struct json_limits limits = {.max_bytes = REGISTRY_MAX_BYTES};

        reg->path = mem_strdup(name);
        for (; reg->n_order < DISCOVERY_SOURCES; reg->n_order++)
                reg->order[reg->n_order] = (enum discovery)reg->n_order;
        if (json_parse_located(&reg->json, &loc, text, n, name, &limits, err) < 0)
                return -1;
        const struct reader r = {name, loc, conf};
        if (READ_OBJECT(&r, NULL, reg->json, registry_keys, reg, err) < 0)
                return -1;
        *ret = TAKE_PTR(reg);
        return 0;
}

int registry_load(struct registry **ret, const char *path, const struct conf *conf, struct err **err)
{
        _cleanup_free_ char *text = NULL;
        size_t n = 0;

        if (file_read(&text, &n, path, REGISTRY_MAX_BYTES, FILE_TRUSTED, err) < 0)
                return err_wrap(err, "registry");
        return registry_parse(ret, text, n, path, conf, err);
}

int registry_entry_parse(struct registry_entry **ret, const char *name, json_object *json, const char *where, const struct conf *conf,
                         struct err **err)
{
        const struct reader r = {where, NULL, conf};

        return entry_read(ret, &r, PLACE_KEY(PLACE_KEY(NULL, "servers"), name), name, json, err);
}

const struct registry_entry *registry_find(const struct registry *r, const char *name)
{
        size_t low = 0, high = r->n_entries;

        while (low < high) {
                size_t middle = low + (high - low) / 2;
                int order = strcmp(name, r->entries[middle]->name);

                if (order == 0)
                        return r->entries[middle];
                if (order < 0)
                        high = middle;
                else
                        low = middle + 1;
        }
        return NULL;
}

struct registry *registry_free(struct registry *r)
{
        if (!r)
                return NULL;
        for (size_t i = 0; i < r->n_entries; i++)
                registry_entry_free(r->entries[i]);
        free(r->entries);
        json_freep(&r->json);
        free(r->path);
        free(r);
        return NULL;
}
