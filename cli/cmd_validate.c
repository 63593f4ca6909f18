#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "cli/names.h"
#include "common/file.h"
#include "common/text.h"

#define MAX_FILES 16

/* Errors are collected: one run names them all. */
struct findings {
        struct cli *c;
        json_object *errors, *warnings; /* of texts */
        /* What was sound, to be compared at the end; NULL: not looked at, or not sound. */
        struct registry *registry;
        struct policy *policy;
        struct forge_view *view;
        char *policy_path;
};

static void findings_deinit(struct findings *f)
{
        json_freep(&f->errors);
        json_freep(&f->warnings);
        registry_free(f->registry);
        policy_unref(f->policy);
        forge_view_free(f->view);
        free(f->policy_path);
}

static void add_to(struct findings *f, json_object *list, enum style style, const char *text)
{
        json_object_array_add(list, json_object_new_string(text));
        if (!f->c->json) {
                _cleanup_free_ char *safe = out_escape_again(text);
                out_line(&f->c->errors, style, "%s%s", list == f->warnings ? "warning: " : "", safe);
        }
}

static void add(struct findings *f, const char *text)
{
        add_to(f, f->errors, STYLE_RED, text);
}

static void warn(struct findings *f, const char *text)
{
        add_to(f, f->warnings, STYLE_YELLOW, text);
}

static void add_err(struct findings *f, struct err *err)
{
        add(f, err_msg(err));
        err_free(err);
}

static void check_registry(struct findings *f, const char *path, const struct conf *conf)
{
        struct err *err = NULL;

        f->registry = registry_free(f->registry);
        if (registry_load(&f->registry, path, conf, &err) < 0)
                add_err(f, err);
}

static void check_policy(struct findings *f, const char *path)
{
        struct err *err = NULL;

        f->policy = policy_unref(f->policy);
        mem_replace(&f->policy_path, mem_strdup(path));
        if (policy_load(&f->policy, path, &err) < 0)
                add_err(f, err);
}

static void check_own_policy(struct findings *f, const char *path)
{
        if (access(path, F_OK) == 0 || errno != ENOENT) {
                check_policy(f, path);
                return;
        }
        _cleanup_free_ char *text =
                mem_printf("%s: there is no security policy, so no agent may do anything: see security_policy.json(5)", path);
        warn(f, text);
}

/* agents_file NULL: not looked at. What is wrong with it is no matter here: whoever may not read it, or never added an agent, is not told.
 */
static void compare_names(struct findings *f, const char *agents_file)
{
        _cleanup_(identities_freep) struct identities *ids = NULL;
        _cleanup_json_ json_object *unknown = NULL;

        if (!f->policy || !f->registry)
                return;
        unknown = names_unknown(f->policy, f->policy_path, f->registry, f->view);
        if (agents_file && identities_load(&ids, agents_file, NULL) == 0)
                names_without_token(unknown, f->policy, f->policy_path, ids);
        for (size_t i = 0; i < json_object_array_length(unknown); i++)
                warn(f, json_object_get_string(json_object_array_get_idx(unknown, i)));
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
        const struct conf *conf = f->c->conf;
        struct err *err = NULL;

        if (conf->signatures_required && allowed_signers_check(conf->allowed_signers, &err) < 0) {
                add_err(f, TAKE_PTR(err));
                return; /* without a trust root every record would be refused for the same reason */
        }
        if (records_read(f->c, &f->view, &err) < 0) {
                add_err(f, err);
                return;
        }
        const struct forge_view *view = f->view;
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

/* Registry and policy are told apart by name, so that a file that is no JSON at all is still called what it should be. */
static bool is_policy(const char *path)
{
        const char *slash = strrchr(path, '/');

        return strstr(slash ? slash + 1 : path, "policy") != NULL;
}

static int check_file(struct findings *f, const char *path, const struct conf *conf, struct err **err)
{
        if (str_has_suffix(path, ".json") && is_policy(path))
                check_policy(f, path);
        else if (str_has_suffix(path, ".json"))
                check_registry(f, path, conf);
        else if (str_has_suffix(path, ".yaml"))
                check_record_file(f, path, conf);
        else if (!str_has_suffix(path, ".conf"))
                return cli_usage(f->c, err,
                                 "%s: validate knows .json (registry, and policy with that word in its name), .yaml (records) and "
                                 ".conf (configuration) files",
                                 path);
        return 0;
}

static int check_all(struct findings *f, char **files, const struct conf *conf, struct err **err)
{
        if (files) {
                for (size_t i = 0; files[i]; i++)
                        if (check_file(f, files[i], conf, err) < 0)
                                return -1;
        } else {
                check_registry(f, conf->registry_path, conf);
                check_approvals(f);
                check_own_policy(f, conf->policy_path);
        }
        compare_names(f, files ? NULL : conf->agents_file);
        return 0;
}

static bool show(struct findings *f)
{
        bool ok = json_object_array_length(f->errors) == 0;
        struct cli *c = f->c;

        if (c->json) {
                _cleanup_json_ json_object *answer = json_object_new_object();
                json_add_bool(answer, "ok", ok);
                json_add(answer, "errors", json_object_get(f->errors));
                json_add(answer, "warnings", json_object_get(f->warnings));
                out_json(&c->out, answer);
        } else if (ok) {
                out_line(&c->out, STYLE_GREEN, "no errors");
        }
        return ok;
}

int cmd_validate(struct cli *c, int argc, char **argv, struct err **err)
{
        _cleanup_(findings_deinit) struct findings f = {.c = c, .errors = json_object_new_array(), .warnings = json_object_new_array()};
        _cleanup_(conf_freep) struct conf *strict = NULL;
        _cleanup_strv_ char **args = NULL;
        const struct conf *conf;
        int r = opts_parse(c, NULL, 0, argc, argv, 0, MAX_FILES, &args, err);

        if (r != 0)
                return r < 0 ? -1 : CLI_OK;
        for (size_t i = 0; args && args[i]; i++)
                if (str_has_suffix(args[i], ".conf"))
                        c->conf_path = args[i];
        if (conf_or_strict(c, args != NULL, &strict, &conf, err) < 0) {
                c->exit_code = CLI_FAILED; /* a configuration that is refused is what this verb looks for, not a lack of permission */
                return -1;
        }
        if (check_all(&f, args, conf, err) < 0)
                return -1;
        return show(&f) ? CLI_OK : CLI_FAILED;
}
