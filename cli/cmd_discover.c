/* bulkhead discover: which servers other programs of this host know. Shows them, and makes proposals of those that are named; runs none. */
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>

#include "cli/candidates.h"
#include "cli/records.h"
#include "common/file.h"
#include "common/text.h"

#define LIST_PATH  "/api/v1beta/workloads"
#define MAX_ANSWER (1U << 20)
#define TIMEOUT_MS 5000L

static const struct json_limits limits = {.max_bytes = MAX_ANSWER, .max_depth = 32};

struct options {
        const char *cursor, *reason;
        bool propose;
};

struct search {
        struct cli *c;
        const struct conf *conf;
        const struct options *options;
        struct registry *registry; /* NULL: there is no file */
        struct candidates found;
        char *notes[DISCOVERY_SOURCES]; /* what there is to say of a source; NULL = nothing */
};

static void note(struct search *s, enum discovery source, char *text)
{
        char *old = s->notes[source];

        s->notes[source] = old ? mem_printf("%s; %s", old, text) : mem_strdup(text);
        free(old);
        free(text);
}

/* -- ToolHive ----------------------------------------------------------------------------------------------------------------- */

static size_t on_data(char *data, size_t size, size_t n, void *user)
{
        struct buf *b = user;

        if (b->len + size * n > MAX_ANSWER)
                return 0;
        buf_add(b, data, size * n);
        return size * n;
}

/* No name is looked up, no proxy asked, no redirection followed: url was read as an external server's, so it is an address. */
static int get(const char *url, const char *ca_file, struct buf *answer, struct err **err)
{
        CURL *curl = curl_easy_init();
        CURLcode r = CURLE_FAILED_INIT;
        long status = 0;

        if (curl) {
                curl_easy_setopt(curl, CURLOPT_URL, url);
                curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
                curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
                curl_easy_setopt(curl, CURLOPT_PROXY, "");
                curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
                curl_easy_setopt(curl, CURLOPT_CAINFO, ca_file);
                curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
                curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
                curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, TIMEOUT_MS);
                curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
                r = curl_easy_perform(curl);
                curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
                curl_easy_cleanup(curl);
        }
        if (r != CURLE_OK)
                return err_set(err, ERR_UNAVAILABLE, "no list of workloads at %s: %s", url, curl_easy_strerror(r));
        if (status != 200)
                return err_set(err, ERR_UNAVAILABLE, "no list of workloads at %s: HTTP status %ld", url, status);
        return 0;
}

static int ask_toolhive(struct search *s, const char *url, struct err **err)
{
        _cleanup_(registry_entry_freep) struct registry_entry *e = NULL;
        _cleanup_json_ json_object *entry = json_object_new_object(), *list = NULL;
        _cleanup_buf_ struct buf answer = {0};

        json_add_str(entry, "url", url);
        json_add_str(entry, "transport", "streamable-http");
        if (registry_entry_parse(&e, "toolhive", entry, "TOOLHIVE_GATEWAY_URL", s->conf, err) < 0)
                return -1;
        candidates_add_gateway(&s->found, url);
        _cleanup_free_ char *where = mem_printf("%s://%s:%u" LIST_PATH, e->tls_host ? "https" : "http",
                                                e->tls_host ? e->tls_host : e->address, (unsigned)e->port);
        if (get(where, s->conf->ca_file, &answer, err) < 0 ||
            json_parse(&list, answer.data ? answer.data : "", answer.len, where, &limits, err) < 0)
                return -1;
        return candidates_add_workloads(&s->found, list, err);
}

static void look_at_toolhive(struct search *s)
{
        const char *variable = getenv("TOOLHIVE_GATEWAY_URL"), *url = variable && *variable ? variable : s->conf->toolhive_url;
        _cleanup_err_ struct err *err = NULL;

        if (!url)
                note(s, DISCOVERY_TOOLHIVE, mem_strdup("not configured (discovery.toolhive, or TOOLHIVE_GATEWAY_URL)"));
        else if (ask_toolhive(s, url, &err) < 0)
                note(s, DISCOVERY_TOOLHIVE, mem_strdup(err_msg(err)));
}

/* -- Cursor ------------------------------------------------------------------------------------------------------------------- */

/* A file that is not there is no news, unless it was asked for. */
static void read_editor(struct search *s, const char *path, bool asked)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_json_ json_object *file = NULL;
        _cleanup_free_ char *text = NULL;
        size_t n = 0;

        if (!asked && access(path, F_OK) < 0 && errno == ENOENT)
                return;
        if (file_read(&text, &n, path, MAX_ANSWER, FILE_ANY, &err) < 0 || json_parse(&file, text, n, path, &limits, &err) < 0 ||
            candidates_add_editor(&s->found, file, &err) < 0)
                note(s, DISCOVERY_CURSOR, mem_printf("%s: %s", path, err_msg(err)));
}

static void look_at_cursor(struct search *s)
{
        const char *home = getenv("HOME");

        if (!s->conf->discovery_development) {
                note(s, DISCOVERY_CURSOR, mem_strdup("not looked at: only where discovery.mode is \"development\""));
                return;
        }
        if (s->options->cursor) {
                read_editor(s, s->options->cursor, true);
                return;
        }
        if (home && home[0] == '/') {
                _cleanup_free_ char *path = mem_printf("%s/.cursor/mcp.json", home);
                read_editor(s, path, false);
        }
        read_editor(s, ".cursor/mcp.json", false);
}

/* -- the registry, and the order ---------------------------------------------------------------------------------------------- */

static int load_registry(struct search *s, struct err **err)
{
        if (access(s->conf->registry_path, F_OK) < 0 && errno == ENOENT)
                return 0;
        return registry_load(&s->registry, s->conf->registry_path, s->conf, err);
}

static void look_at(struct search *s, enum discovery source)
{
        switch (source) {
        case DISCOVERY_TOOLHIVE:
                look_at_toolhive(s);
                break;
        case DISCOVERY_REGISTRY:
                if (s->registry)
                        candidates_add_registry(&s->found, s->registry);
                else
                        note(s, source, mem_printf("%s does not exist yet", s->conf->registry_path));
                break;
        case DISCOVERY_CURSOR:
                look_at_cursor(s);
                break;
        case DISCOVERY_CACHE:
                note(s, source, mem_strdup("knows tools of servers, and no servers: the broker uses it while a server is away"));
                break;
        case DISCOVERY_SOURCES:
                break;
        }
}

static size_t order_of(const struct search *s, const enum discovery **ret)
{
        static const enum discovery all[] = {DISCOVERY_TOOLHIVE, DISCOVERY_REGISTRY, DISCOVERY_CURSOR, DISCOVERY_CACHE};

        *ret = s->registry ? s->registry->order : all;
        return s->registry ? s->registry->n_order : ELEMENTSOF(all);
}

static int search(struct search *s, struct err **err)
{
        const enum discovery *order;

        if (load_registry(s, err) < 0)
                return -1;
        size_t n = order_of(s, &order);
        for (size_t i = 0; i < n; i++)
                look_at(s, order[i]);
        if (s->found.n >= CANDIDATES_MAX)
                out_line(&s->c->errors, STYLE_YELLOW, "there are more than %u: the rest is not shown", CANDIDATES_MAX);
        candidates_judge(&s->found, s->registry, s->conf);
        return 0;
}

static void search_deinit(struct search *s)
{
        registry_free(s->registry);
        candidates_deinit(&s->found);
        for (size_t i = 0; i < DISCOVERY_SOURCES; i++)
                free(s->notes[i]);
}

/* -- what people and programs see --------------------------------------------------------------------------------------------- */

static const char *state_of(const struct candidate *item)
{
        return item->declared ? "declared" : item->why ? "refused" : "found";
}

static json_object *to_json(const struct search *s)
{
        json_object *o = json_object_new_object(), *sources = json_object_new_array(), *list = json_object_new_array();
        const enum discovery *order;
        size_t n = order_of(s, &order);

        for (size_t i = 0; i < n; i++) {
                json_object *source = json_object_new_object();
                json_add_str(source, "source", discovery_names[order[i]]);
                json_add_str(source, "note", s->notes[order[i]]);
                json_object_array_add(sources, source);
        }
        for (size_t i = 0; i < s->found.n; i++) {
                const struct candidate *item = &s->found.items[i];
                json_object *candidate = json_object_new_object();

                json_add_str(candidate, "name", item->name);
                json_add_str(candidate, "source", discovery_names[item->source]);
                json_add_str(candidate, "state", state_of(item));
                json_add_str(candidate, "place", item->place);
                json_add_str(candidate, "why", item->why);
                if (item->entry)
                        json_add(candidate, "entry", json_object_get(item->entry));
                json_object_array_add(list, candidate);
        }
        json_add(o, "sources", sources);
        json_add(o, "servers", list);
        return o;
}

static void print(const struct search *s)
{
        static const char *const headers[] = {"SERVER", "FOUND IN", "STATE", "PLACE", "WHY NOT"};
        _cleanup_table_ struct table *t = table_new(headers, ELEMENTSOF(headers));
        struct out *o = &s->c->out;
        bool any = false;

        for (size_t i = 0; i < s->found.n; i++) {
                const struct candidate *item = &s->found.items[i];

                any |= !item->declared && !item->why;
                table_cell(t, STYLE_BOLD, item->name);
                table_cell(t, STYLE_PLAIN, discovery_names[item->source]);
                table_cell(t, item->declared ? STYLE_DIM : item->why ? STYLE_YELLOW : STYLE_GREEN, state_of(item));
                table_cell(t, STYLE_PLAIN, item->place);
                table_cell(t, STYLE_PLAIN, item->why);
        }
        if (table_rows(t))
                table_print(t, o);
        for (size_t i = 0; i < DISCOVERY_SOURCES; i++) {
                _cleanup_free_ char *safe = s->notes[i] ? out_escape_again(s->notes[i]) : NULL;
                if (safe)
                        out_line(o, STYLE_DIM, "%s: %s", discovery_names[i], safe);
        }
        if (any)
                out_line(&s->c->errors, STYLE_DIM, "nothing of it runs or can be called. Next: bulkhead discover --propose NAME");
}

/* -- proposals ---------------------------------------------------------------------------------------------------------------- */

static const struct candidate *candidate_find(const struct search *s, const char *name)
{
        const struct candidate *found = NULL;

        for (size_t i = 0; i < s->found.n; i++) {
                const struct candidate *item = &s->found.items[i];
                if (str_eq(item->name, name) && (!found || (found->why && !item->why)))
                        found = item;
        }
        return found;
}

static int propose_one(const struct search *s, const char *name, json_object *ids, struct err **err)
{
        const struct candidate *item = candidate_find(s, name);
        _cleanup_free_ char *id = NULL, *reason = NULL;

        if (!item)
                return err_set(err, ERR_NOT_FOUND, "no source of discovery_order knows a server \"%s\"", name);
        if (item->declared)
                return err_set(err, ERR_CONFLICT, "%s stands in the registry: bulkhead propose %s --entry %s proposes what stands there",
                               name, name, s->conf->registry_path);
        if (item->why)
                return err_set(err, ERR_INVALID, "%s: %s", name, item->why);
        reason = mem_printf("found in %s", discovery_names[item->source]);
        if (records_propose(s->c, name, item->entry, discovery_names[item->source], NULL, s->options->reason ? s->options->reason : reason,
                            &id, err) < 0)
                return err_wrap(err, "%s", name);
        json_object *o = json_object_new_object();
        json_add_str(o, "id", id);
        json_add_str(o, "server", name);
        json_object_array_add(ids, o);
        if (!s->c->json)
                printf("%s\n", id);
        return 0;
}

static int propose_all(const struct search *s, char *const *names, struct err **err)
{
        _cleanup_json_ json_object *ids = json_object_new_array();

        for (; *names; names++)
                if (propose_one(s, *names, ids, err) < 0)
                        return -1;
        if (s->c->json)
                out_json(&s->c->out, ids);
        else
                out_line(&s->c->errors, STYLE_DIM, "proposed; nothing runs or is called yet. Next: bulkhead smoke ID");
        return CLI_OK;
}

int cmd_discover(struct cli *c, int argc, char **argv, struct err **err)
{
        _cleanup_(search_deinit) struct search s = {.c = c};
        _cleanup_strv_ char **args = NULL;
        struct options o = {0};
        const struct opt opts[] = {
                {"propose", OPT_FLAG, &o.propose, NULL, "write a proposal for each server named"},
                {"cursor", OPT_STRING, &o.cursor, "FILE", "Cursor's file (default: ~/.cursor/mcp.json and ./.cursor/mcp.json)"},
                {"reason", OPT_STRING, &o.reason, "TEXT", "why (default: where it was found)"},
        };
        int r = opts_parse(c, opts, ELEMENTSOF(opts), argc, argv, 0, CANDIDATES_MAX, &args, err);

        if (r != 0)
                return r < 0 ? -1 : CLI_OK;
        if (o.propose != (strv_len(args) > 0))
                return cli_usage(c, err, "names go with --propose, and --propose with names");
        s.options = &o;
        if (cli_conf(c, &s.conf, err) < 0 || search(&s, err) < 0)
                return -1;
        if (o.propose)
                return propose_all(&s, args, err);
        if (c->json) {
                _cleanup_json_ json_object *all = to_json(&s);
                out_json(&c->out, all);
        } else {
                print(&s);
        }
        return CLI_OK;
}
