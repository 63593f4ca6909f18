#include <stdio.h>
#include <time.h>

#include "cli/records.h"
#include "common/file.h"
#include "common/text.h"

/* Errors are collected: one run names them all. */
struct findings {
        struct cli *c;
        json_object *list; /* of texts */
};

static void add(struct findings *f, const char *text)
{
        json_object_array_add(f->list, json_object_new_string(text));
        if (!f->c->json) {
                _cleanup_free_ char *safe = out_escape_again(text);
                out_line(&f->c->errors, STYLE_RED, "%s", safe);
        }
}

static void add_err(struct findings *f, struct err *err)
{
        add(f, err_msg(err));
        err_free(err);
}

static void check_registry(struct findings *f, const char *path, const struct conf *conf)
{
        _cleanup_(registry_freep) struct registry *registry = NULL;
        struct err *err = NULL;

        if (registry_load(&registry, path, conf, &err) < 0)
                add_err(f, err);
}

static void check_record_file(struct findings *f, const char *path, const struct conf *conf)
{
        _cleanup_(record_freep) struct record *record = NULL;
        _cleanup_(registry_entry_freep) struct registry_entry *entry = NULL;
        _cleanup_free_ char *text = NULL;
        struct err *err = NULL;
        size_t n;

        if (file_read(&text, &n, path, RECORD_MAX_BYTES, FILE_ANY, &err) < 0 || record_parse(&record, text, n, path, &err) < 0 ||
            (record->entry && registry_entry_parse(&entry, record->server, record->entry, path, conf, &err) < 0))
                add_err(f, err);
}

static void check_approvals(struct findings *f)
{
        _cleanup_(forge_view_freep) struct forge_view *view = NULL;
        const struct conf *conf = f->c->conf;
        struct err *err = NULL;

        if (conf->signatures_required && allowed_signers_check(conf->allowed_signers, &err) < 0) {
                add_err(f, TAKE_PTR(err));
                return; /* without a trust root every record would be refused for the same reason */
        }
        if (records_read(f->c, &view, &err) < 0) {
                add_err(f, err);
                return;
        }
        if (view->refused)
                add(f, view->refused);
        for (size_t i = 0; i < view->n_items; i++) {
                if (!view->items[i].refused)
                        continue;
                _cleanup_free_ char *text = mem_printf("%s: %s", view->items[i].path, view->items[i].refused);
                add(f, text);
        }
}

/* A file may be checked where bulkhead is not set up: then with the strictest configuration, which allows no mount and no runtime. */
static int conf_or_strict(struct cli *c, bool file_given, struct conf **strict, const struct conf **ret, struct err **err)
{
        if (file_given && strcmp(c->conf_path, CONF_DEFAULT_PATH) == 0 && access(c->conf_path, F_OK) < 0) {
                *ret = *strict = NEW(struct conf);
                return 0;
        }
        return cli_conf(c, ret, err);
}

static int check_file(struct findings *f, const char *path, const struct conf *conf, struct err **err)
{
        if (str_has_suffix(path, ".json"))
                check_registry(f, path, conf);
        else if (str_has_suffix(path, ".yaml"))
                check_record_file(f, path, conf);
        else if (!str_has_suffix(path, ".conf"))
                return cli_usage(f->c, err, "%s: validate knows .json (registry), .yaml (records) and .conf (configuration) files", path);
        return 0;
}

int cmd_validate(struct cli *c, int argc, char **argv, struct err **err)
{
        _cleanup_strv_ char **args = NULL;
        _cleanup_json_ json_object *list = json_object_new_array(), *answer = NULL;
        _cleanup_(conf_freep) struct conf *strict = NULL;
        struct findings f = {.c = c, .list = list};
        const struct conf *conf;
        int r = opts_parse(c, NULL, 0, argc, argv, 0, 1, &args, err);

        if (r != 0)
                return r < 0 ? -1 : CLI_OK;
        if (args && str_has_suffix(args[0], ".conf"))
                c->conf_path = args[0];
        if (conf_or_strict(c, args != NULL, &strict, &conf, err) < 0) {
                c->exit_code = CLI_FAILED; /* a configuration that is refused is what this verb looks for, not a lack of permission */
                return -1;
        }
        if (args) {
                if (check_file(&f, args[0], conf, err) < 0)
                        return -1;
        } else {
                check_registry(&f, conf->registry_path, conf);
                check_approvals(&f);
        }
        bool ok = json_object_array_length(list) == 0;
        if (c->json) {
                answer = json_object_new_object();
                json_add_bool(answer, "ok", ok);
                json_add(answer, "errors", json_object_get(list));
                out_json(&c->out, answer);
        } else if (ok) {
                out_line(&c->out, STYLE_GREEN, "no errors");
        }
        return ok ? CLI_OK : CLI_FAILED;
}
