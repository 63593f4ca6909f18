/* bulkhead tools: what there is for an agent, under its token. */
#include <stdio.h>

#include "cli/door.h"

static void print_hits(struct cli *c, json_object *answer)
{
        static const char *const headers[] = {"TOOL", "ACCESS", "ACTION", "DESCRIPTION"};
        _cleanup_table_ struct table *t = table_new(headers, ELEMENTSOF(headers));
        json_object *tools = json_get(answer, "tools");
        size_t n = json_object_is_type(tools, json_type_array) ? json_object_array_length(tools) : 0;

        for (size_t i = 0; i < n; i++) {
                json_object *hit = json_object_array_get_idx(tools, i);
                const char *access = json_str(hit, "access");

                table_cell(t, STYLE_BOLD, json_str(hit, "name"));
                bool stale = json_flag(hit, "stale", false);
                _cleanup_free_ char *shown = mem_printf("%s%s", access ? access : "?", stale ? ", away" : "");
                table_cell(t, str_eq(access, "allowed") && !stale ? STYLE_GREEN : STYLE_YELLOW, shown);
                table_cell(t, STYLE_PLAIN, json_str(hit, "action"));
                table_cell(t, STYLE_PLAIN, json_str(hit, "description"));
        }
        if (n)
                table_print(t, &c->out);
        else
                out_line(&c->out, STYLE_DIM, "no tool that this agent may use is like that");
}

static void print_description(struct cli *c, json_object *answer)
{
        json_object *tool = json_get(answer, "tool");

        out_field(&c->out, STYLE_BOLD, "Tool", json_str(tool, "name"));
        out_field(&c->out, STYLE_PLAIN, "Server", json_str(answer, "server"));
        out_field(&c->out, STYLE_PLAIN, "Access", json_str(answer, "access"));
        out_field_again(&c->out, STYLE_RED, "Why", json_str(answer, "why"));
        out_field(&c->out, STYLE_PLAIN, "Action", json_str(answer, "action"));
        out_field(&c->out, STYLE_PLAIN, "Does", json_str(tool, "description"));
        out_line(&c->out, STYLE_PLAIN, "  Arguments");
        out_value(&c->out, 2, json_get(tool, "inputSchema"));
}

/* Names that are unknown are an error, though the others were loaded. */
static int print_loaded(struct cli *c, json_object *answer, struct err **err)
{
        json_object *loaded = json_get(answer, "loaded"), *unknown = json_get(answer, "unknown");

        for (size_t i = 0; !c->json && json_object_is_type(loaded, json_type_array) && i < json_object_array_length(loaded); i++)
                out_text(&c->out, STYLE_GREEN, json_object_get_string(json_object_array_get_idx(loaded, i))), fputc('\n', c->out.f);
        if (json_object_is_type(unknown, json_type_array) && json_object_array_length(unknown) > 0)
                return err_set(err, ERR_NOT_FOUND, "unknown: %s", json_object_to_json_string_ext(unknown, JSON_C_TO_STRING_PLAIN));
        return CLI_OK;
}

static json_object *request_of(const char *what, char **rest, const char *limit)
{
        json_object *body = json_object_new_object();

        if (str_eq(what, "search")) {
                _cleanup_free_ char *query = strv_join(rest, " ");
                json_add_str(body, "query", query);
                if (limit)
                        json_add_int(body, "limit", strtol(limit, NULL, 10));
        } else if (str_eq(what, "describe")) {
                json_add_str(body, "name", rest[0]);
        } else {
                json_add(body, "names", json_from_strv(rest));
        }
        return body;
}

int cmd_tools(struct cli *c, int argc, char **argv, struct err **err)
{
        _cleanup_json_ json_object *answer = NULL;
        _cleanup_strv_ char **args = NULL;
        struct door_options door = {0};
        const char *limit = NULL;
        long status = 0;
        const struct opt opts[] = {{"limit", OPT_STRING, &limit, "N", "search: so many at most, 1 to 25 (default 8)"}, DOOR_OPTS(&door)};
        int r = opts_parse(c, opts, ELEMENTSOF(opts), argc, argv, 2, 32, &args, err);

        if (r != 0)
                return r < 0 ? -1 : CLI_OK;
        const char *what = args[0];
        if (!str_eq(what, "search") && !str_eq(what, "load") && !(str_eq(what, "describe") && !args[2]))
                return cli_usage(c, err, "tools wants search WORDS, describe TOOL or load TOOL …");
        if (door_ask(c, &door, what, request_of(what, args + 1, limit), &answer, &status, err) < 0)
                return -1;
        if (c->json)
                out_json(&c->out, answer);
        if (status != 200)
                return door_refused(c, answer, err);
        if (str_eq(what, "load"))
                return print_loaded(c, answer, err);
        if (!c->json && str_eq(what, "search"))
                print_hits(c, answer);
        else if (!c->json)
                print_description(c, answer);
        return CLI_OK;
}
