#include <inttypes.h>
#include <stdio.h>

#include "cli/cli.h"

/* In force is what the kernel showed: both layers as they must be, and every rule of every instance in them. */
static bool in_force(json_object *show)
{
        json_object *instances = json_get(show, "instances");

        if (json_str(show, "error") || !json_flag(show, "ok", true) || !json_flag(json_get(show, "guard"), "right", false) ||
            !json_flag(json_get(show, "policy"), "right", false))
                return false;
        for (size_t i = 0; json_object_is_type(instances, json_type_array) && i < json_object_array_length(instances); i++) {
                json_object *o = json_object_array_get_idx(instances, i), *rules = json_get(o, "rules");
                if (!json_flag(o, "in_force", false))
                        return false;
                for (size_t k = 0; json_object_is_type(rules, json_type_array) && k < json_object_array_length(rules); k++)
                        if (!json_flag(json_object_array_get_idx(rules, k), "in_kernel", false))
                                return false;
        }
        return true;
}

static void count_cell(struct table *t, json_object *count, enum style style)
{
        char bytes[32];
        int64_t packets = json_int(count, "packets", 0), n = json_int(count, "bytes", 0);
        _cleanup_free_ char *text = mem_printf("%" PRId64 " packets, %s", packets, out_bytes(bytes, n > 0 ? (uint64_t)n : 0));

        table_cell(t, packets ? style : STYLE_PLAIN, packets ? text : NULL);
}

static char *rules_text(json_object *rules)
{
        struct buf b = {0};

        for (size_t i = 0; json_object_is_type(rules, json_type_array) && i < json_object_array_length(rules); i++) {
                json_object *r = json_object_array_get_idx(rules, i);
                const char *rule = json_str(r, "rule");
                buf_addf(&b, "%s%s%s", b.len ? "; " : "", rule ? rule : "?",
                         json_flag(r, "in_kernel", false) ? "" : " (NOT in the kernel)");
        }
        return buf_take(&b);
}

static void print_instances(struct out *o, json_object *instances, const char *server)
{
        static const char *const headers[] = {"SERVER", "ADDRESS", "BRIDGE", "IN FORCE", "SENT", "DENIED", "ALLOWED"};
        _cleanup_table_ struct table *t = table_new(headers, ELEMENTSOF(headers));

        for (size_t i = 0; json_object_is_type(instances, json_type_array) && i < json_object_array_length(instances); i++) {
                json_object *s = json_object_array_get_idx(instances, i);
                bool right = json_flag(s, "in_force", false);
                _cleanup_free_ char *rules = rules_text(json_get(s, "rules"));

                table_cell(t, STYLE_BOLD, json_str(s, "server"));
                table_cell(t, STYLE_PLAIN, json_str(s, "address"));
                table_cell(t, STYLE_PLAIN, json_str(s, "bridge"));
                table_cell(t, right ? STYLE_GREEN : STYLE_RED, right ? "yes" : "NO");
                count_cell(t, json_get(s, "sent"), STYLE_PLAIN);
                count_cell(t, json_get(s, "denied"), STYLE_YELLOW);
                table_cell(t, *rules ? STYLE_PLAIN : STYLE_DIM, *rules ? rules : "nothing");
        }
        if (table_rows(t))
                table_print(t, o);
        else if (server)
                out_line(o, STYLE_DIM, "%s has no network (bulkhead status says why)", server);
        else
                out_line(o, STYLE_DIM, "no server has a network");
}

static void print_dropped(struct out *o, json_object *dropped)
{
        if (!json_object_is_type(dropped, json_type_object))
                return;
        json_object_object_foreach (dropped, kind, count) {
                char bytes[32];
                int64_t n = json_int(count, "bytes", 0);
                _cleanup_free_ char *label = mem_printf("Dropped %s", kind);
                _cleanup_free_ char *text =
                        mem_printf("%" PRId64 " packets, %s", json_int(count, "packets", 0), out_bytes(bytes, n > 0 ? (uint64_t)n : 0));
                if (json_int(count, "packets", 0))
                        out_field(o, STYLE_PLAIN, label, text);
        }
}

static void print(struct out *o, json_object *show, const char *server)
{
        json_object *guard = json_get(show, "guard"), *policy = json_get(show, "policy");
        bool guard_right = json_flag(guard, "right", false), policy_right = json_flag(policy, "right", false);
        const char *backend = json_str(policy, "backend"), *hook = json_str(policy, "hook");
        _cleanup_free_ char *how = mem_printf("%s%s%s%s%s", policy_right ? "in force" : "NOT as it must be", backend ? ", " : "",
                                              backend ? backend : "", hook ? ", from " : "", hook ? hook : "");

        out_field(o, guard_right ? STYLE_GREEN : STYLE_RED, "Guard", guard_right ? "in force" : "NOT as it must be");
        out_field(o, policy_right ? STYLE_GREEN : STYLE_RED, "Policy", how);
        print_dropped(o, json_get(guard, "dropped"));
        out_field_again(o, STYLE_RED, "Error", json_str(show, "error"));
        fputc('\n', o->f);
        print_instances(o, json_get(show, "instances"), server);
}

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
        bool ok = in_force(result);
        if (c->json)
                out_json(&c->out, result);
        else
                print(&c->out, result, args[1]);
        if (verify && !c->json)
                out_line(&c->out, ok ? STYLE_GREEN : STYLE_RED, "\n%s", ok ? "in force, as read back from the kernel" : "NOT in force");
        return ok || !verify ? CLI_OK : CLI_FAILED;
}
