/*
 * bulkhead call: one tool of one server, under an agent's token; or one of the four harness tools. For agents that may run one command and
 * no other, and for scripts.
 */
#include <stdio.h>

#include "cli/door.h"
#include "common/file.h"

static void print_lines(struct cli *c, const char *text)
{
        while (text) {
                size_t n = strcspn(text, "\n");
                _cleanup_free_ char *line = mem_strndup(text, n);

                out_text(&c->out, STYLE_PLAIN, line);
                fputc('\n', c->out.f);
                text = text[n] && text[n + 1] ? text + n + 1 : NULL;
        }
}

/* A tool's own words, safe on a terminal; what is no text is shown as the value it is. */
static void print_content(struct cli *c, json_object *content)
{
        size_t n = json_object_is_type(content, json_type_array) ? json_object_array_length(content) : 0;

        for (size_t i = 0; i < n; i++) {
                json_object *item = json_object_array_get_idx(content, i);
                const char *text = json_str(item, "text"), *type = json_str(item, "type");

                if (text && str_eq(type, "text"))
                        print_lines(c, text);
                else
                        out_value(&c->out, 0, item);
        }
}

static int print_result(struct cli *c, json_object *answer)
{
        json_object *result = json_get(answer, "result");

        if (c->json)
                out_json(&c->out, answer);
        else
                print_content(c, json_get(result, "content"));
        return json_flag(result, "isError", false) ? CLI_FAILED : CLI_OK;
}

/* What agents have over MCP has the same names and arguments here. */
static const char *verb_of(const char *tool)
{
        static const struct {
                const char *tool, *verb;
        } own[] = {
                {"harness_search_tools", "search"},
                {"harness_describe_tool", "describe"},
                {"harness_call_tool", "call"},
                {"harness_load_tools", "load"},
        };

        for (size_t i = 0; i < ELEMENTSOF(own); i++)
                if (str_eq(own[i].tool, tool))
                        return own[i].verb;
        return NULL;
}

static json_object *named_call(const char *tool, json_object *arguments)
{
        json_object *body = json_object_new_object();

        json_add_str(body, "name", tool);
        json_add(body, "arguments", json_object_get(arguments));
        return body;
}

static int ask(struct cli *c, const struct door_options *door, const char *tool, json_object *arguments, struct err **err)
{
        _cleanup_json_ json_object *answer = NULL;
        const char *verb = verb_of(tool);
        long status = 0;

        if (door_ask(c, door, verb ? verb : "call", verb ? json_object_get(arguments) : named_call(tool, arguments), &answer, &status,
                     err) < 0)
                return -1;
        if (status == 200 && (!verb || str_eq(verb, "call")))
                return print_result(c, answer);
        if (status == 200 || c->json)
                out_json(&c->out, answer);
        return status == 200 ? CLI_OK : door_refused(c, answer, err);
}

int cmd_call(struct cli *c, int argc, char **argv, struct err **err)
{
        _cleanup_json_ json_object *arguments = NULL;
        _cleanup_strv_ char **args = NULL;
        struct door_options door = {0};
        const char *tool = NULL, *json = NULL;
        const struct opt opts[] = {
                {"tool", OPT_STRING, &tool, "NAME", "server:tool, the name that tools search gives, or one of the harness tools"},
                {"json", OPT_STRING, &json, "ARGS", "its arguments, a JSON object (default {}); - reads them from standard input"},
                DOOR_OPTS(&door)};
        int r = opts_parse(c, opts, ELEMENTSOF(opts), argc, argv, 0, 0, &args, err);

        if (r != 0)
                return r < 0 ? -1 : CLI_OK;
        if (!tool)
                return cli_usage(c, err, "--tool is needed");
        _cleanup_free_ char *input = NULL;
        size_t n = json ? strlen(json) : 2;
        if (str_eq(json, "-") && fd_read_all(&input, &n, STDIN_FILENO, 16U << 20, err) < 0)
                return err_wrap(err, "arguments");
        const struct json_limits limits = {.max_bytes = 16U << 20, .max_depth = 60};
        if (json_parse(&arguments, input ? input : json ? json : "{}", n, "--json", &limits, err) < 0) {
                c->exit_code = CLI_USAGE;
                return -1;
        }
        if (!json_object_is_type(arguments, json_type_object))
                return cli_usage(c, err, "--json wants an object, such as '{\"path\": \"/tmp\"}'");
        return ask(c, &door, tool, arguments, err);
}
