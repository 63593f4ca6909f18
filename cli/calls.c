/* Calls of agents that wait for a human: decided through the daemon, which asks the broker. */
#include <inttypes.h>

#include "cli/cli.h"
#include "common/text.h"

int cli_decide_call(struct cli *c, const char *id, bool approve, const char *valid, struct err **err)
{
        _cleanup_json_ json_object *request = cli_request("decide"), *result = NULL;
        uint64_t ms = 0;

        if (valid && text_parse_duration(&ms, valid, err) < 0)
                return err_wrap(err, "--expires");
        json_add_str(request, "id", id);
        json_add_bool(request, "approve", approve);
        json_add_int(request, "valid_ms", (int64_t)ms);
        if (cli_call(c, request, 0, &result, err) < 0)
                return -1;
        if (c->json) {
                _cleanup_json_ json_object *o = json_object_new_object();
                json_add_str(o, "id", id);
                json_add_str(o, "decision", approve ? "approved" : "rejected");
                out_json(&c->out, o);
        } else {
                out_line(&c->out, STYLE_GREEN, "%s: %s%s%s", approve ? "approved" : "rejected", id, approve ? ", " : "",
                         !approve ? ""
                         : valid  ? valid
                                  : "once, within ten minutes");
        }
        return CLI_OK;
}
