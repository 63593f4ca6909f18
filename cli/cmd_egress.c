#include <stdio.h>

#include "cli/cli.h"

int cmd_egress(struct cli *c, int argc, char **argv, struct err **err)
{
        _cleanup_json_ json_object *request = cli_request("egress"), *result = NULL;
        _cleanup_strv_ char **args = NULL;
        int r = opts_parse(c, NULL, 0, argc, argv, 1, 2, &args, err);

        if (r != 0)
                return r < 0 ? -1 : CLI_OK;
        bool verify = strcmp(args[0], "verify") == 0;
        if (!verify && strcmp(args[0], "show") != 0)
                return cli_usage(c, err, "egress show or egress verify");
        if (args[1])
                json_add_str(request, "server", args[1]);
        else
                json_add(request, "server", NULL);
        json_add_bool(request, "verify", verify);
        if (cli_call(c, request, 60, &result, err) < 0)
                return -1;
        bool ok = json_flag(result, "ok", !json_str(result, "error"));
        if (c->json)
                out_json(&c->out, result);
        else
                out_value(&c->out, 0, result);
        if (verify && !c->json)
                out_line(&c->out, ok ? STYLE_GREEN : STYLE_RED,
                         ok ? "in force as read back from the kernel" : "NOT in force: see error above");
        return ok ? CLI_OK : CLI_FAILED;
}
