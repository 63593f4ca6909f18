#include <stdio.h>
#include <time.h>

#include "cli/records.h"
#include "common/text.h"

static const char *smoke_state(const struct conf *conf, const struct record *p, char **why)
{
        _cleanup_(evidence_freep) struct evidence *e = NULL;
        _cleanup_err_ struct err *err = NULL;
        int r = evidence_read(conf, p->server, p->id, &e, &err);

        if (r < 0) {
                *why = mem_strdup(err_msg(err));
                return "unreadable";
        }
        if (r > 0)
                return "none";
        if (!e->smoke->passed)
                *why = mem_strdup(e->smoke->why);
        return e->smoke->passed ? "pass" : "fail";
}

static json_object *describe(const struct conf *conf, const struct forge_item *item)
{
        json_object *o = json_object_new_object();
        _cleanup_free_ char *why = NULL;
        const struct record *p = item->record;

        json_add_str(o, "id", p->id);
        json_add_str(o, "server", p->server);
        json_add_str(o, "url", p->url);
        json_add_str(o, "image", p->image ? p->image->reference : NULL);
        json_add_str(o, "digest", p->image ? p->image->digest : NULL);
        json_add_str(o, "proposed_by", p->proposed_by);
        records_add_time(o, "proposed_at", p->proposed_at);
        json_add_str(o, "reason", p->reason);
        json_add_str(o, "smoke", item->refused ? "refused" : smoke_state(conf, p, &why));
        json_add_str(o, "why", item->refused ? item->refused : why);
        return o;
}

static void print(struct out *o, json_object *list)
{
        static const char *const headers[] = {"ID", "SERVER", "IMAGE OR URL", "BY", "SMOKE", "REASON"};
        _cleanup_table_ struct table *t = table_new(headers, ELEMENTSOF(headers));

        for (size_t i = 0; i < json_object_array_length(list); i++) {
                json_object *p = json_object_array_get_idx(list, i);
                const char *smoke = json_str(p, "smoke"), *why = json_str(p, "why");
                enum style style = str_eq(smoke, "pass") ? STYLE_GREEN : str_eq(smoke, "none") ? STYLE_YELLOW : STYLE_RED;
                _cleanup_free_ char *text = mem_printf("%s%s%s", smoke, why ? ": " : "", why ? why : "");

                table_cell(t, STYLE_PLAIN, json_str(p, "id"));
                table_cell(t, STYLE_BOLD, json_str(p, "server"));
                table_cell(t, STYLE_PLAIN, json_str(p, json_get(p, "url") ? "url" : "image"));
                table_cell(t, STYLE_PLAIN, json_str(p, "proposed_by"));
                table_cell(t, style, text);
                table_cell(t, STYLE_PLAIN, json_str(p, "reason"));
        }
        if (table_rows(t))
                table_print(t, o);
        else
                out_line(o, STYLE_DIM, "nothing waits for a decision");
}

/* Objects out of the texts that agents' calls come as. */
static json_object *calls_of(json_object *result)
{
        json_object *texts = json_get(result, "calls"), *list = json_object_new_array();
        size_t n = json_object_is_type(texts, json_type_array) ? json_object_array_length(texts) : 0;

        for (size_t i = 0; i < n; i++) {
                const char *text = json_object_get_string(json_object_array_get_idx(texts, i));
                json_object *o = NULL;

                if (json_parse(&o, text, strlen(text), "call", NULL, NULL) == 0)
                        json_object_array_add(list, o);
        }
        return list;
}

static void print_calls(struct out *o, json_object *list)
{
        static const char *const headers[] = {"CALL", "STATE", "AGENT", "RUN", "TOOL", "UNTIL", "ARGUMENTS"};
        _cleanup_table_ struct table *t = table_new(headers, ELEMENTSOF(headers));

        for (size_t i = 0; i < json_object_array_length(list); i++) {
                json_object *call = json_object_array_get_idx(list, i);
                const char *state = json_str(call, "state"), *server = json_str(call, "server"), *tool = json_str(call, "tool");
                _cleanup_free_ char *name = mem_printf("%s:%s", server ? server : "", tool ? tool : "");

                table_cell(t, STYLE_PLAIN, json_str(call, "id"));
                table_cell(t, str_eq(state, "waits") ? STYLE_YELLOW : STYLE_PLAIN, state);
                table_cell(t, STYLE_BOLD, json_str(call, "agent"));
                table_cell(t, STYLE_PLAIN, json_str(call, "run"));
                table_cell(t, STYLE_BOLD, name);
                table_cell(t, STYLE_PLAIN, json_str(call, "expires_at"));
                table_cell(t, STYLE_PLAIN, json_str(call, "arguments"));
        }
        if (table_rows(t))
                table_print(t, o);
}

/* A daemon that is down, or may not be asked by this user, has no say about proposals: those are shown all the same. */
static json_object *read_calls(struct cli *c)
{
        _cleanup_json_ json_object *request = cli_request("calls"), *result = NULL;
        int before = c->exit_code;

        if (cli_call(c, request, 0, &result, NULL) < 0)
                c->exit_code = before;
        return calls_of(result);
}

int cmd_pending(struct cli *c, int argc, char **argv, struct err **err)
{
        _cleanup_(forge_view_freep) struct forge_view *view = NULL;
        _cleanup_json_ json_object *list = json_object_new_array(), *calls = NULL;
        _cleanup_strv_ char **args = NULL;
        int r = opts_parse(c, NULL, 0, argc, argv, 0, 0, &args, err);

        if (r != 0)
                return r < 0 ? -1 : CLI_OK;
        if (records_read(c, &view, err) < 0)
                return -1;
        for (size_t i = 0; i < view->n_items; i++) {
                const struct record *p = view->items[i].record;
                if (p && p->kind == RECORD_PROPOSAL && !records_decision(view, p->id))
                        json_object_array_add(list, describe(c->conf, &view->items[i]));
        }
        calls = read_calls(c);
        for (size_t i = 0; c->json && i < json_object_array_length(calls); i++)
                json_object_array_add(list, json_object_get(json_object_array_get_idx(calls, i)));
        if (c->json)
                out_json(&c->out, list);
        else if (json_object_array_length(list) || !json_object_array_length(calls))
                print(&c->out, list);
        if (!c->json)
                print_calls(&c->out, calls);
        return CLI_OK;
}
