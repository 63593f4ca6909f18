#include <stdio.h>
#include <time.h>

#include "cli/view.h"

#define SILENCE_S 300 /* pulling one large layer may say nothing for a while */

static size_t count_state(json_object *servers, const char *state)
{
        size_t n = 0;

        for (size_t i = 0; json_object_is_type(servers, json_type_array) && i < json_object_array_length(servers); i++)
                n += str_eq(json_str(json_object_array_get_idx(servers, i), "state"), state);
        return n;
}

int cmd_apply(struct cli *c, int argc, char **argv, struct err **err)
{
        _cleanup_json_ json_object *request = cli_request("apply"), *result = NULL;
        _cleanup_strv_ char **args = NULL;
        bool once = false;
        const struct opt opts[] = {{"once", OPT_FLAG, &once, NULL, "one pass only; without it, passes until nothing is left to do"}};
        int r = opts_parse(c, opts, ELEMENTSOF(opts), argc, argv, 0, 0, &args, err);

        if (r != 0)
                return r < 0 ? -1 : CLI_OK;
        json_add_bool(request, "once", once);
        if (cli_call(c, request, SILENCE_S, &result, err) < 0)
                return -1;
        json_object *actions = json_get(result, "actions"), *servers = json_get(result, "servers");
        size_t left = json_object_is_type(actions, json_type_array) ? json_object_array_length(actions) : 0;
        if (c->json) {
                out_json(&c->out, result);
        } else {
                view_alarms(&c->out, result);
                view_servers(&c->out, servers, time(NULL));
                if (left) {
                        out_line(&c->out, STYLE_YELLOW, "\nstill to do:");
                        view_actions(&c->out, actions);
                }
        }
        if (count_state(servers, "error"))
                return CLI_FAILED;
        return left || count_state(servers, "refused") || count_state(servers, "quarantined") ? CLI_DIFFERENT : CLI_OK;
}
