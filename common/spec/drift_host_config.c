/* HostConfig: what we asked for must be there, and nothing else may be set, whether we know the field or not. */
#include "common/spec/internal.h"

typedef void (*field_fn)(struct judge *j, const char *where, json_object *is, json_object *want);

static void judge_same(struct judge *j, const char *where, json_object *is, json_object *want)
{
        if (!value_same(is, want, false))
                judge_add_json(j, where, is, want);
}

static void judge_ordered(struct judge *j, const char *where, json_object *is, json_object *want)
{
        if (!value_same(is, want, true))
                judge_add_json(j, where, is, want);
}

/* When the entry names none, the Engine writes the name of its default. */
static void judge_runtime(struct judge *j, const char *where, json_object *is, json_object *want)
{
        static const char *const usual[] = {"runc", "io.containerd.runc.v2", "io.containerd.runtime.v1.linux", "crun", "oci"};
        const char *name = json_object_is_type(is, json_type_string) ? json_object_get_string(is) : NULL;

        if (want) {
                judge_same(j, where, is, want);
                return;
        }
        if (!is)
                return;
        for (size_t i = 0; !j->host->default_runtime && i < ELEMENTSOF(usual); i++)
                if (str_eq(name, usual[i]))
                        return;
        if (j->host->default_runtime && str_eq(name, j->host->default_runtime))
                return;
        judge_add(j, where, name ? name : "not a string", j->host->default_runtime ? j->host->default_runtime : "the Engine's default");
}

/* -1 where the kernel cannot limit swap: the Engine says so itself (GET /info), else it is somebody's doing. */
static void judge_swap(struct judge *j, const char *where, json_object *is, json_object *want)
{
        if (j->host->no_swap_limit && json_object_is_type(is, json_type_int) && json_object_get_int64(is) == -1)
                return;
        judge_same(j, where, is, want);
}

/* The daemon writes its defaults here, which grow from version to version: more is fine, less is drift. */
static void judge_covers(struct judge *j, const char *where, json_object *is, const char *const *least)
{
        _cleanup_strv_ char **paths = NULL;

        if (!is)
                return;
        if (!json_object_is_type(is, json_type_array) || (json_object_array_length(is) > 0 && !json_to_strv(&paths, is))) {
                judge_add(j, where, "not a list of paths", "the Engine's default");
                return;
        }
        for (; *least; least++)
                if (!strv_contains(paths, *least))
                        judge_add(j, where, "without it", *least);
}

/* The list every Engine since 20.10 masks. */
static void judge_masked(struct judge *j, const char *where, json_object *is, _unused_ json_object *want)
{
        static const char *const least[] = {"/proc/acpi",          "/proc/kcore",      "/proc/keys",
                                            "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug",
                                            "/proc/scsi",          "/sys/firmware",    NULL};

        judge_covers(j, where, is, least);
}

static void judge_readonly(struct judge *j, const char *where, json_object *is, _unused_ json_object *want)
{
        static const char *const least[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", NULL};

        judge_covers(j, where, is, least);
}

/* [height, width] of a terminal that does not exist. */
static void judge_console(struct judge *j, const char *where, json_object *is, _unused_ json_object *want)
{
        for (size_t i = 0; json_object_is_type(is, json_type_array) && i < json_object_array_length(is); i++)
                if (!value_is_default(json_object_array_get_idx(is, i)))
                        judge_add_json(j, where, is, NULL);
        if (!value_is_default(is) && !json_object_is_type(is, json_type_array))
                judge_add_json(j, where, is, NULL);
}

/* Options of the daemon's own for its default driver are added to ours. */
static void judge_log(struct judge *j, const char *where, json_object *is, json_object *want)
{
        static const char *const harmless[] = {"compress", "mode", "max-buffer-size", "labels", "labels-regex", "env", "env-regex", "tag"};
        json_object *config = json_get(is, "Config"), *approved = json_get(want, "Config");
        bool same = str_eq(json_str(is, "Type"), json_str(want, "Type"));
        int members = (json_get(is, "Type") != NULL) + (config != NULL);

        json_object_object_foreach (approved, key, value) {
                same = same && value_same(json_get(config, key), value, false);
        }
        if (json_object_is_type(config, json_type_object)) {
                json_object_object_foreach (config, name, set) {
                        bool known = json_object_object_get_ex(approved, name, NULL) || value_is_default(set);

                        for (size_t i = 0; i < ELEMENTSOF(harmless); i++)
                                known |= strcmp(name, harmless[i]) == 0;
                        same = same && known;
                }
        }
        if (!same || json_object_object_length(is) != members)
                judge_add_json(j, where, is, want);
}

/* A kernel knob that older Engines write as -1 for "not set". */
static void judge_swappiness(struct judge *j, const char *where, json_object *is, json_object *want)
{
        if (json_object_is_type(is, json_type_int) && json_object_get_int64(is) == -1)
                return;
        judge_same(j, where, is, want);
}

static const struct {
        const char *name;
        field_fn judge;
} fields[] = {
        {"Runtime", judge_runtime},
        {"MemorySwap", judge_swap},
        {"MemorySwappiness", judge_swappiness},
        {"MaskedPaths", judge_masked},
        {"ReadonlyPaths", judge_readonly},
        {"ConsoleSize", judge_console},
        {"LogConfig", judge_log},
        {"Dns", judge_ordered},
        {"DnsSearch", judge_ordered},
};

static void judge_field(struct judge *j, const char *name, json_object *is, json_object *want)
{
        _cleanup_free_ char *where = mem_printf("HostConfig.%s", name);

        for (size_t i = 0; i < ELEMENTSOF(fields); i++) {
                if (strcmp(fields[i].name, name) == 0) {
                        fields[i].judge(j, where, is, want);
                        return;
                }
        }
        judge_same(j, where, is, want);
}

void judge_host_config(struct judge *j)
{
        json_object *is = json_get(j->inspect, "HostConfig"), *want = json_get(j->want, "HostConfig");

        if (!json_object_is_type(is, json_type_object)) {
                judge_add(j, "HostConfig", "not an object", "an object");
                return;
        }
        json_object_object_foreach (is, key, value) {
                judge_field(j, key, value, json_get(want, key));
        }
        json_object_object_foreach (want, name, approved) {
                if (!json_object_object_get_ex(is, name, NULL) && !value_is_default(approved))
                        judge_field(j, name, NULL, approved);
        }
}
