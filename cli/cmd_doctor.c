#include <stdio.h>

#include "cli/doctor.h"

static const char *const level_names[] = {[DOCTOR_OK] = "ok", [DOCTOR_WARNING] = "warning", [DOCTOR_ERROR] = "error"};

void doctor_add(struct doctor *d, const char *name, enum doctor_level level, const char *detail, const char *remedy)
{
        json_object *o = json_object_new_object();

        json_add_str(o, "name", name);
        json_add_bool(o, "ok", level != DOCTOR_ERROR);
        json_add_str(o, "level", level_names[level]);
        json_add_str(o, "detail", detail);
        json_add_str(o, "remedy", remedy);
        json_object_array_add(d->checks, o);
}

/* What the daemon sees from its place: capabilities, rules in force, the pool. */
static void check_daemon(struct doctor *d)
{
        _cleanup_json_ json_object *request = cli_request("doctor"), *answer = NULL;
        _cleanup_err_ struct err *err = NULL;

        if (cli_call(d->c, request, 30, &answer, &err) < 0) {
                bool denied = d->c->exit_code == CLI_DENIED;

                d->c->exit_code = 0;
                doctor_add(d, "controller", DOCTOR_ERROR, err_msg(err),
                           denied ? "run doctor as root or as a member of that group"
                                  : "systemctl start bulkhead-controller, and see its journal");
                return;
        }
        doctor_add(d, "controller", DOCTOR_OK, "answers", NULL);
        json_object *checks = json_get(answer, "checks");
        for (size_t i = 0; json_object_is_type(checks, json_type_array) && i < json_object_array_length(checks); i++)
                json_object_array_add(d->checks, json_object_get(json_object_array_get_idx(checks, i)));
}

/* Both sides look at some things, such as the registry: from @theirs on it is what the controller says. */
static void print(struct out *o, json_object *checks, size_t theirs)
{
        static const char *const headers[] = {"CHECK", "RESULT", "FOUND", "WHAT TO DO"};
        _cleanup_table_ struct table *t = table_new(headers, ELEMENTSOF(headers));

        for (size_t i = 0; i < json_object_array_length(checks); i++) {
                json_object *k = json_object_array_get_idx(checks, i);
                bool ok = json_flag(k, "ok", false);
                const char *level = json_str(k, "level");
                bool warning = ok && str_eq(level, "warning");
                const char *name = json_str(k, "name");
                _cleanup_free_ char *label = mem_printf("%s%s", i >= theirs ? "controller: " : "", name ? name : "?");

                table_cell(t, STYLE_PLAIN, label);
                table_cell(t, !ok ? STYLE_RED : warning ? STYLE_YELLOW : STYLE_GREEN, !ok ? "error" : warning ? "warning" : "ok");
                table_cell(t, STYLE_PLAIN, json_str(k, "detail"));
                table_cell(t, STYLE_PLAIN, json_str(k, "remedy"));
        }
        table_print(t, o);
}

int cmd_doctor(struct cli *c, int argc, char **argv, struct err **err)
{
        _cleanup_json_ json_object *checks = json_object_new_array(), *answer = NULL;
        struct doctor d = {.c = c, .checks = checks};
        _cleanup_strv_ char **args = NULL;
        int r = opts_parse(c, NULL, 0, argc, argv, 0, 0, &args, err);
        bool ok = true;

        if (r != 0)
                return r < 0 ? -1 : CLI_OK;
        doctor_check_files(&d);
        doctor_check_host(&d);
        size_t ours = json_object_array_length(checks) + 1; /* the next is whether it answers */
        if (d.conf || c->socket_path)
                check_daemon(&d);
        for (size_t i = 0; i < json_object_array_length(checks); i++)
                ok &= json_flag(json_object_array_get_idx(checks, i), "ok", false);
        if (c->json) {
                answer = json_object_new_object();
                json_add(answer, "checks", json_object_get(checks));
                out_json(&c->out, answer);
        } else {
                print(&c->out, checks, ours);
        }
        return ok ? CLI_OK : CLI_FAILED;
}
