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
        static const char *const headers[] = {"ID", "SERVER", "IMAGE", "BY", "SMOKE", "REASON"};
        _cleanup_table_ struct table *t = table_new(headers, ELEMENTSOF(headers));

        for (size_t i = 0; i < json_object_array_length(list); i++) {
                json_object *p = json_object_array_get_idx(list, i);
                const char *smoke = json_str(p, "smoke"), *why = json_str(p, "why");
                enum style style = str_eq(smoke, "pass") ? STYLE_GREEN : str_eq(smoke, "none") ? STYLE_YELLOW : STYLE_RED;
                _cleanup_free_ char *text = mem_printf("%s%s%s", smoke, why ? ": " : "", why ? why : "");

                table_cell(t, STYLE_PLAIN, json_str(p, "id"));
                table_cell(t, STYLE_BOLD, json_str(p, "server"));
                table_cell(t, STYLE_PLAIN, json_str(p, "image"));
                table_cell(t, STYLE_PLAIN, json_str(p, "proposed_by"));
                table_cell(t, style, text);
                table_cell(t, STYLE_PLAIN, json_str(p, "reason"));
        }
        if (table_rows(t))
                table_print(t, o);
        else
                out_line(o, STYLE_DIM, "nothing waits for a decision");
}

int cmd_pending(struct cli *c, int argc, char **argv, struct err **err)
{
        _cleanup_(forge_view_freep) struct forge_view *view = NULL;
        _cleanup_json_ json_object *list = json_object_new_array();
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
        if (c->json)
                out_json(&c->out, list);
        else
                print(&c->out, list);
        return CLI_OK;
}
