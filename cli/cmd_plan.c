#include <stdio.h>
#include <time.h>

#include "cli/view.h"

/* There is nothing to do for them until somebody calls. */
static void print_asleep(struct out *o, json_object *servers)
{
        _cleanup_buf_ struct buf names = {0};

        for (size_t i = 0; json_object_is_type(servers, json_type_array) && i < json_object_array_length(servers); i++) {
                json_object *s = json_object_array_get_idx(servers, i);
                if (json_flag(s, "asleep", false) && json_str(s, "name"))
                        buf_addf(&names, "%s%s", names.len ? ", " : "", json_str(s, "name"));
        }
        if (!names.len)
                return;
        _cleanup_free_ char *safe = out_escape_again(names.data);
        out_line(o, STYLE_DIM, "asleep until somebody calls: %s", safe);
}

int cmd_plan(struct cli *c, int argc, char **argv, struct err **err)
{
        _cleanup_json_ json_object *request = cli_request("plan"), *plan = NULL;
        _cleanup_strv_ char **args = NULL;
        int r = opts_parse(c, NULL, 0, argc, argv, 0, 0, &args, err);

        if (r != 0)
                return r < 0 ? -1 : CLI_OK;
        if (cli_call(c, request, 120, &plan, err) < 0)
                return -1;
        json_object *actions = json_get(plan, "actions");
        bool complete = json_flag(plan, "complete", false);
        if (!json_object_is_type(actions, json_type_array))
                return err_set(err, ERR_INVALID, "the controller sent a plan without actions");
        size_t n = json_object_array_length(actions);
        if (!c->json) {
                view_gateway_alarm(&c->out, json_get(plan, "gateway"));
                print_asleep(&c->out, json_get(plan, "servers"));
        }
        if (c->json)
                out_json(&c->out, plan);
        else if (n)
                view_actions(&c->out, actions);
        else if (complete)
                out_line(&c->out, STYLE_PLAIN, "nothing to do");
        /* "Nothing to do" from half a look would be a lie. */
        if (!complete && n == 0)
                return err_set(err, ERR_UNAVAILABLE,
                               "the controller could not see everything (status says why): this plan is not complete");
        if (!complete)
                out_line(&c->errors, STYLE_YELLOW, "the controller could not see everything: more may follow");
        return n ? CLI_DIFFERENT : CLI_OK;
}
