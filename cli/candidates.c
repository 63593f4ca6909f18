#include "cli/candidates.h"

#include "common/text.h"

#define TOOLHIVE_NAME "toolhive"
#define LOCALHOST     "http://localhost"
#define MAX_PLACE     1024U

void candidates_deinit(struct candidates *c)
{
        for (size_t i = 0; i < c->n; i++) {
                free(c->items[i].name);
                free(c->items[i].place);
                free(c->items[i].why);
                json_freep(&c->items[i].entry);
        }
        free(c->items);
        *c = (struct candidates){0};
}

static struct candidate *add(struct candidates *c, const char *name, enum discovery source)
{
        if (c->n >= CANDIDATES_MAX)
                return NULL;
        c->items = mem_realloc(c->items, c->n + 1, sizeof(*c->items));
        struct candidate *item = &c->items[c->n++];
        *item = (struct candidate){.name = mem_strndup(name, 128), .source = source};
        return item;
}

/* Editors and ToolHive say localhost for this host, and mark servers by a fragment, which is never sent. */
static char *plain_url(const char *url)
{
        size_t n = strcspn(url, "#");

        if (str_has_prefix(url, LOCALHOST) && strchr(":/", url[strlen(LOCALHOST)]) && url[strlen(LOCALHOST)])
                return mem_printf("http://127.0.0.1%.*s", (int)MIN(n - strlen(LOCALHOST), (size_t)MAX_PLACE), url + strlen(LOCALHOST));
        return mem_strndup(url, MIN(n, (size_t)MAX_PLACE));
}

static json_object *entry_of(const char *url, const char *mode)
{
        json_object *entry = json_object_new_object();
        bool sse = mode ? str_eq(mode, "sse") : str_has_suffix(url, "/sse");

        json_add_str(entry, "url", url);
        json_add_str(entry, "transport", sse ? "sse" : "streamable-http");
        return entry;
}

static void add_url(struct candidates *c, const char *name, enum discovery source, const char *url, const char *mode)
{
        struct candidate *item = add(c, name, source);

        if (!item)
                return;
        item->place = plain_url(url);
        item->entry = entry_of(item->place, mode);
}

void candidates_add_gateway(struct candidates *c, const char *url)
{
        const char *host = strstr(url, "://"), *path = host ? strchr(host + 3, '/') : NULL;

        if (path && !str_eq(path, "/"))
                add_url(c, TOOLHIVE_NAME, DISCOVERY_TOOLHIVE, url, NULL);
}

int candidates_add_workloads(struct candidates *c, json_object *answer, struct err **err)
{
        json_object *list = json_get(answer, "workloads");

        /* An empty list of Go's is null. */
        if (json_object_is_type(answer, json_type_object) && json_object_object_get_ex(answer, "workloads", NULL) && !list)
                return 0;
        if (!json_object_is_type(list, json_type_array))
                return err_set(err, ERR_INVALID, "its answer has no list of \"workloads\"");
        for (size_t i = 0; i < json_object_array_length(list); i++) {
                json_object *w = json_object_array_get_idx(list, i);
                const char *name = json_str(w, "name"), *url = json_str(w, "url"), *status = json_str(w, "status");

                if (!name || !*name || !url || !*url || (status && !str_eq(status, "running")))
                        continue;
                const char *mode = json_str(w, "proxy_mode");
                add_url(c, name, DISCOVERY_TOOLHIVE, url, mode && *mode ? mode : NULL);
        }
        return 0;
}

static void add_program(struct candidates *c, const char *name, json_object *server)
{
        json_object *args = json_get(server, "args");
        _cleanup_buf_ struct buf place = {0};
        struct candidate *item = add(c, name, DISCOVERY_CURSOR);

        if (!item)
                return;
        buf_adds(&place, json_str(server, "command"));
        for (size_t i = 0; json_object_is_type(args, json_type_array) && i < json_object_array_length(args) && place.len < MAX_PLACE; i++) {
                const char *arg = json_object_get_string(json_object_array_get_idx(args, i));
                buf_addf(&place, " %.200s", arg ? arg : "");
        }
        item->place = mem_strndup(place.data, MAX_PLACE);
        item->why =
                mem_strdup("it is a program on this machine: make an image of it (deploy/examples/everything shows how) and propose that");
}

int candidates_add_editor(struct candidates *c, json_object *file, struct err **err)
{
        json_object *servers = json_get(file, "mcpServers");

        if (!json_object_is_type(servers, json_type_object))
                return err_set(err, ERR_INVALID, "there is no object \"mcpServers\" in it");
        json_object_object_foreach (servers, name, server) {
                const char *url = json_str(server, "url");

                if (!*name)
                        continue;
                if (url)
                        add_url(c, name, DISCOVERY_CURSOR, url, json_str(server, "transport"));
                else if (json_str(server, "command"))
                        add_program(c, name, server);
                if (url && c->n && json_get(server, "headers"))
                        mem_replace(&c->items[c->n - 1].why,
                                    mem_strdup("it wants headers: write those that are no credentials into its entry by hand"));
        }
        return 0;
}

void candidates_add_registry(struct candidates *c, const struct registry *registry)
{
        for (size_t i = 0; i < registry->n_entries; i++) {
                const struct registry_entry *e = registry->entries[i];
                struct candidate *item = add(c, e->name, DISCOVERY_REGISTRY);

                if (!item)
                        return;
                item->place = mem_strdup(e->url ? e->url : e->image);
                item->declared = true;
        }
}

/* The first word on a name counts: of the registry, wherever it stands in the order, else of the source that was asked first. */
static char *taken(const struct candidates *c, size_t at, const struct registry *registry)
{
        const struct candidate *item = &c->items[at];

        if (registry && registry_name_valid(item->name) && registry_find(registry, item->name))
                return mem_printf(
                        "the registry has a server of this name, whose place nothing that is found takes; propose it under another name");
        for (size_t i = 0; i < at; i++)
                if (!c->items[i].declared && str_eq(c->items[i].name, item->name))
                        return mem_printf("%s gave a server of this name before it; propose it under another name",
                                          discovery_names[c->items[i].source]);
        return NULL;
}

static char *refused(const struct candidate *item, const struct conf *conf)
{
        _cleanup_(registry_entry_freep) struct registry_entry *entry = NULL;
        _cleanup_err_ struct err *err = NULL;

        if (!registry_name_valid(item->name))
                return mem_strdup(
                        "its name is none that a server can have here; propose it under one of lower-case letters, digits and dashes");
        if (registry_entry_parse(&entry, item->name, item->entry, discovery_names[item->source], conf, &err) < 0)
                return mem_strdup(err_msg(err));
        return NULL;
}

void candidates_judge(struct candidates *c, const struct registry *registry, const struct conf *conf)
{
        for (size_t i = 0; i < c->n; i++) {
                struct candidate *item = &c->items[i];

                if (item->declared || item->why)
                        continue;
                item->why = taken(c, i, registry);
                if (!item->why)
                        item->why = refused(item, conf);
        }
}
