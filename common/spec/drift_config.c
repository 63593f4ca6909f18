/* Config: ours exactly; what the image brings, as the image brings it where its facts are known (the image id binds it in any case). */
#include "common/spec/internal.h"

#define DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

typedef void (*field_fn)(struct judge *j, const char *where, json_object *is, json_object *want);

static void judge_same(struct judge *j, const char *where, json_object *is, json_object *want)
{
        if (!value_same(is, want, true))
                judge_add_json(j, where, is, want);
}

/* The image's business, and without effect on what runs: build triggers, shell form, how arguments were escaped. */
static void judge_nothing(_unused_ struct judge *j, _unused_ const char *where, _unused_ json_object *is, _unused_ json_object *want)
{
}

static void judge_against_list(struct judge *j, const char *where, json_object *is, char *const *image)
{
        _cleanup_json_ json_object *want = json_from_strv(image);

        judge_same(j, where, is, want);
}

static void judge_entrypoint(struct judge *j, const char *where, json_object *is, json_object *want)
{
        if (want)
                judge_same(j, where, is, want);
        else if (j->host->image)
                judge_against_list(j, where, is, j->host->image->entrypoint);
}

/* An entrypoint of our own drops the image's command; else the image's stays where we name no arguments. */
static void judge_cmd(struct judge *j, const char *where, json_object *is, json_object *want)
{
        if (want || json_get(j->want, "Entrypoint"))
                judge_same(j, where, is, want);
        else if (j->host->image)
                judge_against_list(j, where, is, j->host->image->cmd);
}

static void judge_text_of_image(struct judge *j, const char *where, json_object *is, const char *image)
{
        const char *s = json_object_is_type(is, json_type_string) ? json_object_get_string(is) : "";

        if (j->host->image && strcmp(s, image ? image : "") != 0)
                judge_add(j, where, s, image ? image : "not set");
}

/* Engines write no directory as "" or as "/". */
static void judge_working_dir(struct judge *j, const char *where, json_object *is, _unused_ json_object *want)
{
        const char *s = json_object_is_type(is, json_type_string) ? json_object_get_string(is) : "";

        if (j->host->image && !j->host->image->working_dir && strcmp(s, "/") == 0)
                return;
        judge_text_of_image(j, where, is, j->host->image ? j->host->image->working_dir : NULL);
}

static void judge_stop_signal(struct judge *j, const char *where, json_object *is, _unused_ json_object *want)
{
        const char *s = json_object_is_type(is, json_type_string) ? json_object_get_string(is) : "";

        /* Some Engines write the default out. */
        if (j->host->image && !j->host->image->stop_signal && (strcmp(s, "SIGTERM") == 0 || strcmp(s, "15") == 0))
                return;
        judge_text_of_image(j, where, is, j->host->image ? j->host->image->stop_signal : NULL);
}

static void judge_keys(struct judge *j, const char *where, json_object *is, char *const *want)
{
        size_t n = 0;

        if (json_object_is_type(is, json_type_object)) {
                json_object_object_foreach (is, key, value) {
                        n++;
                        if (!strv_contains(want, key) || !value_is_default(value))
                                judge_add(j, where, key, "not in the image");
                }
        }
        if (n < strv_len(want))
                judge_add(j, where, "fewer", "all of the image's");
}

static void judge_ports(struct judge *j, const char *where, json_object *is, _unused_ json_object *want)
{
        if (j->host->image)
                judge_keys(j, where, is, j->host->image->exposed_ports);
}

/* Bound by the record, each one covered by a tmpfs. */
static void judge_volumes(struct judge *j, const char *where, json_object *is, _unused_ json_object *want)
{
        _cleanup_strv_ char **approved = NULL;
        json_object *volumes = json_get(json_get(j->spec->canonical, "image"), "volumes");

        if (json_object_array_length(volumes) > 0 && !json_to_strv(&approved, volumes))
                judge_add_json(j, where, is, volumes);
        else
                judge_keys(j, where, is, approved);
}

/* -- environment ---------------------------------------------------------------------------------------------------------- */

static bool name_is(const char *variable, const char *other)
{
        size_t n = strcspn(other, "=");

        return strncmp(variable, other, n) == 0 && (variable[n] == '=' || variable[n] == '\0');
}

/* How often does the name of `other` stand in the list, and is its whole text there? */
static size_t count_name(char *const *env, const char *other, bool *exact)
{
        size_t n = 0;

        *exact = false;
        for (; env && *env; env++) {
                if (!name_is(*env, other))
                        continue;
                n++;
                *exact |= strcmp(*env, other) == 0;
        }
        return n;
}

/* A value may be a secret: reasons carry names only. */
static void add_variable(struct judge *j, const char *where, const char *variable, const char *is, const char *want)
{
        _cleanup_free_ char *place = mem_printf("%s.%.*s", where, (int)strcspn(variable, "="), variable);

        judge_add(j, place, is, want);
}

static void judge_ours(struct judge *j, const char *where, char *const *env, char *const *approved)
{
        for (char *const *v = approved; v && *v; v++) {
                bool exact, secret = strv_contains(j->host->extra_env, *v);
                size_t n = count_name(env, *v, &exact);

                if (n != 1)
                        add_variable(j, where, *v, n ? "set more than once" : "not set", "set once");
                else if (!exact && !secret)
                        add_variable(j, where, *v, "another value", "the entry's");
        }
}

static void judge_foreign(struct judge *j, const char *where, char *const *env, char *const *approved)
{
        const struct image_facts *image = j->host->image;
        bool exact;

        for (char *const *v = env; v && *v; v++) {
                if (count_name(approved, *v, &exact) > 0 || count_name(image->env, *v, &exact) == 1 || strcmp(*v, DEFAULT_PATH) == 0) {
                        if (count_name(approved, *v, &exact) == 0 && count_name(image->env, *v, &exact) == 1 && !exact)
                                add_variable(j, where, *v, "another value", "the image's");
                        continue;
                }
                add_variable(j, where, *v, "set", "not set");
        }
        for (char *const *v = image->env; v && *v; v++)
                if (count_name(env, *v, &exact) == 0)
                        add_variable(j, where, *v, "not set", "the image's");
}

static void judge_env(struct judge *j, const char *where, json_object *is, json_object *want)
{
        _cleanup_strv_ char **env = NULL, **approved = NULL;

        if (!value_is_default(is) && !json_to_strv(&env, is)) {
                judge_add(j, where, "not a list of strings", "a list of strings");
                return;
        }
        if (!value_is_default(want) && !json_to_strv(&approved, want))
                return;
        judge_ours(j, where, env, approved);
        if (j->host->image)
                judge_foreign(j, where, env, approved);
}

/* -- labels --------------------------------------------------------------------------------------------------------------- */

/* Only ours: an image brings labels of its own, and they say nothing to us. */
static void judge_labels(struct judge *j, const char *where, json_object *is, json_object *want)
{
        if (json_object_is_type(is, json_type_object)) {
                json_object_object_foreach (is, key, value) {
                        bool judged = j->host->approval || strcmp(key, LABEL_APPROVAL) != 0;

                        if (str_has_prefix(key, LABEL_PREFIX) && judged && !value_same(value, json_get(want, key), true)) {
                                _cleanup_free_ char *place = mem_printf("%s.%s", where, key);
                                judge_add_json(j, place, value, json_get(want, key));
                        }
                }
        }
        json_object_object_foreach (want, name, approved) {
                if (!json_get(is, name)) {
                        _cleanup_free_ char *place = mem_printf("%s.%s", where, name);
                        judge_add_json(j, place, NULL, approved);
                }
        }
}

/* -- the table ------------------------------------------------------------------------------------------------------------ */

static const struct {
        const char *name;
        field_fn judge;
} fields[] = {
        {"Entrypoint", judge_entrypoint},
        {"Cmd", judge_cmd},
        {"Env", judge_env},
        {"Labels", judge_labels},
        {"Volumes", judge_volumes},
        {"WorkingDir", judge_working_dir},
        {"ExposedPorts", judge_ports},
        {"StopSignal", judge_stop_signal},
        {"OnBuild", judge_nothing},
        {"Shell", judge_nothing},
        {"ArgsEscaped", judge_nothing},
        {"HostConfig", judge_nothing},
        {"NetworkingConfig", judge_nothing},
};

static void judge_field(struct judge *j, const char *name, json_object *is, json_object *want)
{
        _cleanup_free_ char *where = mem_printf("Config.%s", name);

        for (size_t i = 0; i < ELEMENTSOF(fields); i++) {
                if (strcmp(fields[i].name, name) == 0) {
                        fields[i].judge(j, where, is, want);
                        return;
                }
        }
        judge_same(j, where, is, want);
}

void judge_config(struct judge *j)
{
        json_object *is = json_get(j->inspect, "Config");

        if (!json_object_is_type(is, json_type_object)) {
                judge_add(j, "Config", "not an object", "an object");
                return;
        }
        json_object_object_foreach (is, key, value) {
                judge_field(j, key, value, json_get(j->want, key));
        }
        json_object_object_foreach (j->want, name, approved) {
                if (!json_object_object_get_ex(is, name, NULL))
                        judge_field(j, name, NULL, approved);
        }
        /* Absent lists are judged too: a missing Env is no reason to skip what must be in it. */
        for (size_t i = 0; i < ELEMENTSOF(fields); i++)
                if (!json_object_object_get_ex(is, fields[i].name, NULL) && !json_object_object_get_ex(j->want, fields[i].name, NULL))
                        judge_field(j, fields[i].name, NULL, NULL);
}
