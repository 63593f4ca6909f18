#include <stdio.h>
#include <time.h>

#include "cli/view.h"

static void print_head(struct out *o, json_object *status)
{
        json_object *engine = json_get(status, "engine"), *approvals = json_get(status, "approvals");
        const char *commit = json_str(approvals, "commit");

        out_field(o, STYLE_PLAIN, "Host", json_str(status, "audience"));
        if (json_str(engine, "version")) {
                const char *api = json_str(engine, "api");
                _cleanup_free_ char *text = mem_printf("%s%s%s", json_str(engine, "version"), api ? ", API " : "", api ? api : "");
                out_field(o, STYLE_PLAIN, "Engine", text);
        }
        out_field(o, STYLE_PLAIN, "Registry", json_str(json_get(status, "registry"), "path"));
        if (commit) {
                _cleanup_free_ char *text = mem_printf("commit %.12s", commit);
                out_field(o, STYLE_PLAIN, "Approvals", text);
        }
        if (json_get(status, "egress"))
                out_field(o, STYLE_PLAIN, "Network rules",
                          json_flag(json_get(status, "egress"), "ok", false) ? "in force"
                          : json_str(json_get(status, "egress"), "error")    ? "NOT in force"
                                                                             : "being loaded");
        view_gateway(o, json_get(status, "gateway"));
}

int cmd_status(struct cli *c, int argc, char **argv, struct err **err)
{
        _cleanup_json_ json_object *request = cli_request("status"), *status = NULL;
        _cleanup_strv_ char **args = NULL;
        bool metrics = false;
        const struct opt opts[] = {{"metrics", OPT_FLAG, &metrics, NULL, "print counts for Prometheus"}};
        int r = opts_parse(c, opts, ELEMENTSOF(opts), argc, argv, 0, 1, &args, err);

        if (r != 0)
                return r < 0 ? -1 : CLI_OK;
        if (args && metrics)
                return cli_usage(c, err, "--metrics is about all servers together");
        json_add_str(request, "server", args ? args[0] : NULL);
        if (cli_call(c, request, 0, &status, err) < 0)
                return -1;
        json_object *servers = json_get(status, "servers");
        if (args && (!json_object_is_type(servers, json_type_array) || json_object_array_length(servers) == 0))
                return err_set(err, ERR_NOT_FOUND, "no server is called \"%s\"", args[0]);
        if (c->json || metrics) {
                if (metrics)
                        view_metrics(&c->out, status);
                else
                        out_json(&c->out, status);
                return CLI_OK;
        }
        view_alarms(&c->out, status);
        if (args) {
                view_server(&c->out, json_object_array_get_idx(servers, 0), time(NULL));
                return CLI_OK;
        }
        print_head(&c->out, status);
        fputc('\n', c->out.f);
        view_servers(&c->out, servers, time(NULL));
        return CLI_OK;
}
