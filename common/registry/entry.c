/* One server's entry: the table of its keys, what they mean together, and what this version cannot do yet. */
#include "common/registry/reader.h"

#include <ctype.h>

#include "common/text.h"

#define DEFAULT_MEMORY    (UINT64_C(256) << 20)
#define DEFAULT_NANO_CPUS UINT64_C(500000000)
#define DEFAULT_PIDS      128
#define DEFAULT_TMPFS     (UINT64_C(64) << 20)
#define DEFAULT_IDLE_MS   UINT64_C(600000)
#define DEFAULT_USER      "65532:65532"
#define DEFAULT_PATH      "/mcp"

/* -- small keys ----------------------------------------------------------------------------------------------------------- */

static int parse_description(const struct reader *r, const struct place *at, json_object *value, _unused_ void *entry, struct err **err)
{
        const char *s = NULL;

        return read_string(r, at, value, 1024, &s, err);
}

static int parse_enabled(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        return read_bool(r, at, value, &((struct registry_entry *)entry)->enabled, err);
}

static int parse_source(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        static const char *const words[] = {"docker_image", "git_repo", "npm_package", "pypi_package", NULL};
        unsigned i = 0;

        if (read_word(r, at, value, words, &i, err) < 0)
                return -1;
        ((struct registry_entry *)entry)->source = (enum source_type)i;
        return 0;
}

static int parse_image(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        const char *s = NULL;

        if (read_string(r, at, value, 512, &s, err) < 0 || image_check(r, at, s, err) < 0)
                return -1;
        ((struct registry_entry *)entry)->image = mem_strdup(s);
        return 0;
}

/* Keys of the sources that are not built yet: only their shape is looked at. */
static int parse_source_text(const struct reader *r, const struct place *at, json_object *value, _unused_ void *entry, struct err **err)
{
        const char *s = NULL;

        return read_string(r, at, value, 1024, &s, err);
}

static int parse_transport(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        static const char *const words[] = {"stdio", "streamable-http", "sse", NULL};
        unsigned i = 0;

        if (read_word(r, at, value, words, &i, err) < 0)
                return -1;
        ((struct registry_entry *)entry)->transport = (enum transport)i;
        return 0;
}

static int parse_port(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        int64_t port = 0;

        if (read_integer(r, at, value, 1, 65535, &port, err) < 0)
                return -1;
        ((struct registry_entry *)entry)->port = (uint16_t)port;
        return 0;
}

bool url_path_valid(const char *path)
{
        static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._~-";

        return path[0] == '/' && strlen(path) <= 256 && str_in_charset(path, set) && !strstr(path, "/.") && !strstr(path, "//");
}

static int parse_path(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        const char *s = NULL;

        if (read_string(r, at, value, 256, &s, err) < 0)
                return -1;
        if (!url_path_valid(s))
                return reader_fail(r, at, err, "is not a plain URL path; write it from / with letters, digits and . _ ~ -, such as /mcp");
        mem_replace(&((struct registry_entry *)entry)->path, mem_strdup(s));
        return 0;
}

static int parse_entrypoint(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        return read_strings(r, at, value, 64, 4096, NULL, &((struct registry_entry *)entry)->entrypoint, err);
}

static int parse_args(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        return read_strings(r, at, value, 256, 4096, NULL, &((struct registry_entry *)entry)->args, err);
}

/* Numbers only: a name would be looked up in the image, which the server's author wrote. */
static int parse_user(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        const char *s = NULL;
        unsigned parts = 0;

        if (read_string(r, at, value, 32, &s, err) < 0)
                return -1;
        for (const char *p = s; parts < 2; p++, parts++) {
                size_t n = strspn(p, "0123456789");

                if (n == 0 || n > 9 || (n > 1 && *p == '0') || p[n] != (parts ? '\0' : ':'))
                        return reader_fail(r, at, err, "is not \"uid:gid\" in numbers; write it so, such as \"65532:65532\"");
                p += n;
        }
        mem_replace(&((struct registry_entry *)entry)->user, mem_strdup(s));
        return 0;
}

static int parse_runtime(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        const char *s = NULL;

        if (read_string(r, at, value, 64, &s, err) < 0)
                return -1;
        _cleanup_free_ char *shown = text_escape(s);
        if (!strv_contains(r->conf->runtimes, s))
                return reader_fail(r, at, err,
                                   "the runtime \"%s\" is not allowed on this host; an administrator can add it to runtimes in %s", shown,
                                   r->conf->path ? r->conf->path : CONF_DEFAULT_PATH);
        ((struct registry_entry *)entry)->runtime = mem_strdup(s);
        return 0;
}

static int parse_lifecycle(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        static const char *const words[] = {"always-on", "on-demand", NULL};
        unsigned i = 0;

        if (read_word(r, at, value, words, &i, err) < 0)
                return -1;
        ((struct registry_entry *)entry)->lifecycle = (enum lifecycle)i;
        return 0;
}

static int parse_idle_timeout(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        return read_duration(r, at, value, 1000, UINT64_C(7) * 86400000, &((struct registry_entry *)entry)->idle_timeout_ms, err);
}

/* Empty is a value of its own: the tools' names as the server has them. */
static int parse_prefix(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        const char *s = "";

        if (!(json_object_is_type(value, json_type_string) && json_object_get_string_len(value) == 0) &&
            read_string(r, at, value, 40, &s, err) < 0)
                return -1;
        if (!registry_prefix_valid(s))
                return reader_fail(r, at, err, "is not a prefix for tool names; use letters, digits and _ . -");
        ((struct registry_entry *)entry)->prefix = mem_strdup(s);
        return 0;
}

static int parse_sharing(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        static const char *const words[] = {"shared", "per-session", NULL};
        unsigned i = 0;

        if (read_word(r, at, value, words, &i, err) < 0)
                return -1;
        ((struct registry_entry *)entry)->sharing = (enum sharing)i;
        return 0;
}

/* -- the table ------------------------------------------------------------------------------------------------------------ */

#define NEVER(what) .refused = what " is never given to a server, whatever an approval says; remove the key"

/* Order matters twice: `secrets` before `tools`, and the keys people look at first give the first error. */
static const struct key entry_keys[] = {
        {.name = "description", .parse = parse_description},
        {.name = "enabled", .parse = parse_enabled},
        {.name = "source", .parse = parse_source},
        {.name = "image", .parse = parse_image},
        {.name = "url", .parse = parse_source_text},
        {.name = "address", .parse = parse_address},
        {.name = "tls_pins", .parse = parse_tls_pins},
        {.name = "commit", .parse = parse_source_text},
        {.name = "dockerfile", .parse = parse_source_text},
        {.name = "package", .parse = parse_source_text},
        {.name = "version", .parse = parse_source_text},
        {.name = "transport", .parse = parse_transport, .required = true},
        {.name = "port", .parse = parse_port},
        {.name = "path", .parse = parse_path},
        {.name = "headers", .parse = parse_headers},
        {.name = "entrypoint", .parse = parse_entrypoint},
        {.name = "args", .parse = parse_args},
        {.name = "env", .parse = parse_env},
        {.name = "secrets", .parse = parse_secrets},
        {.name = "tools", .parse = parse_tools},
        {.name = "egress", .parse = parse_egress},
        {.name = "mounts", .parse = parse_mounts},
        {.name = "user", .parse = parse_user},
        {.name = "runtime", .parse = parse_runtime},
        {.name = "sysctls", .parse = parse_sysctls},
        {.name = "resources", .parse = parse_resources},
        {.name = "lifecycle", .parse = parse_lifecycle},
        {.name = "idle_timeout", .parse = parse_idle_timeout},
        {.name = "prefix", .parse = parse_prefix},
        {.name = "sharing", .parse = parse_sharing},
        {.name = "smoke_test", .parse = parse_smoke_test},
        /* Wishes that other tools' files express; named, so that the answer is not just "unknown key". */
        {.name = "privileged", NEVER("privileged mode")},
        {.name = "cap_add", NEVER("a capability")},
        {.name = "capabilities", NEVER("a capability")},
        {.name = "security_opt", NEVER("a weaker confinement")},
        {.name = "devices", NEVER("a device of the host")},
        {.name = "network_mode", NEVER("another network than its own")},
        {.name = "networks", NEVER("another network than its own")},
        {.name = "pid", NEVER("a namespace of the host")},
        {.name = "ipc", NEVER("a namespace of the host")},
        {.name = "userns_mode", NEVER("a namespace of the host")},
        {.name = "uts", NEVER("a namespace of the host")},
        {.name = "cgroup_parent", NEVER("another place in the control groups")},
        {.name = "dns", NEVER("another resolver")},
        {.name = "extra_hosts", NEVER("another resolver")},
        {.name = "ports", .refused = "a server's ports are never published; write \"port\" for the one it listens on inside"},
        {.name = "volumes", .refused = "is not a key here; write \"mounts\" with source and target"},
        {.name = "binds", .refused = "is not a key here; write \"mounts\" with source and target"},
        {.name = "command", .refused = "is not a key here; write \"entrypoint\" and \"args\", or bring the file in with bulkhead import"},
        {.name = "restart", .refused = "is not a key here; the controller restarts servers, the Engine must not"},
};

/* -- what keys mean together ---------------------------------------------------------------------------------------------- */

static const char *const source_keys[] = {"image", "url", "commit", "dockerfile", "package", "version"};
static const struct source_shape {
        const char *name, *required, *optional; /* space-separated, with a space at both ends */
} shapes[] = {
        [SOURCE_DOCKER_IMAGE] = {"docker_image", " image ", " "},
        [SOURCE_GIT_REPO] = {"git_repo", " url commit ", " dockerfile "},
        [SOURCE_NPM_PACKAGE] = {"npm_package", " package version ", " "},
        [SOURCE_PYPI_PACKAGE] = {"pypi_package", " package version ", " "},
        [SOURCE_URL] = {"url", " url ", " "},
};

static int check_source(const struct reader *r, const struct place *at, struct registry_entry *e, json_object *o, struct err **err)
{
        if (!json_get(o, "source")) {
                if (!json_get(o, "url"))
                        return reader_fail(
                                r, at, err,
                                "the key \"source\" is missing; write \"docker_image\" (or \"url\" alone for an external server)");
                e->source = SOURCE_URL;
        }
        const struct source_shape *shape = &shapes[e->source];
        for (size_t i = 0; i < ELEMENTSOF(source_keys); i++) {
                _cleanup_free_ char *word = mem_printf(" %s ", source_keys[i]);
                bool there = json_get(o, source_keys[i]), required = strstr(shape->required, word);

                if (required && !there)
                        return reader_fail(r, at, err, "the key \"%s\" is missing; source %s needs it", source_keys[i], shape->name);
                if (there && !required && !strstr(shape->optional, word))
                        return reader_fail(r, PLACE_KEY(at, source_keys[i]), err, "does not go with source %s; remove it", shape->name);
        }
        return 0;
}

/* Of keys that say where an external server is, one of our own has none. */
static int check_place(const struct reader *r, const struct place *at, const struct registry_entry *e, json_object *o, struct err **err)
{
        static const char *const keys[] = {"address", "tls_pins"};

        for (size_t i = 0; i < ELEMENTSOF(keys) && e->source != SOURCE_URL; i++)
                if (json_get(o, keys[i]))
                        return reader_fail(r, PLACE_KEY(at, keys[i]), err, "goes with an external server (\"url\") only; remove it");
        return 0;
}

static int check_transport(const struct reader *r, const struct place *at, struct registry_entry *e, json_object *o, struct err **err)
{
        static const char *const http_keys[] = {"port", "path", "headers"};

        if (e->transport == TRANSPORT_STDIO) {
                if (e->source == SOURCE_URL)
                        return reader_fail(r, PLACE_KEY(at, "transport"), err,
                                           "an external server cannot be reached by stdio; write \"streamable-http\"");
                for (size_t i = 0; i < ELEMENTSOF(http_keys); i++)
                        if (json_get(o, http_keys[i]))
                                return reader_fail(r, PLACE_KEY(at, http_keys[i]), err, "goes with an HTTP transport only; remove it");
                return 0;
        }
        if (e->source == SOURCE_URL) {
                if (external_read(r, at, e, o, err) < 0)
                        return -1;
        } else if (!e->port) {
                return reader_fail(r, at, err, "the key \"port\" is missing; say on which port the server listens inside its container");
        }
        if (!e->path)
                e->path = mem_strdup(DEFAULT_PATH);
        if (!json_get(o, "sharing"))
                e->sharing = SHARING_PER_SESSION;
        return 0;
}

static int check_together(const struct reader *r, const struct place *at, struct registry_entry *e, json_object *o, struct err **err)
{
        if (check_source(r, at, e, o, err) < 0 || check_place(r, at, e, o, err) < 0 || check_transport(r, at, e, o, err) < 0)
                return -1;
        for (size_t i = 0; i < e->n_env; i++)
                if (strv_contains(e->secrets, e->env[i].name))
                        return reader_fail(r, PLACE_KEY(PLACE_KEY(at, "env"), e->env[i].name), err,
                                           "is also the name of a secret; a secret's value does not belong in this file, remove it here");
        if (e->lifecycle == LIFECYCLE_ALWAYS_ON && !registry_entry_has_instances(e) && json_get(o, "idle_timeout"))
                return reader_fail(r, PLACE_KEY(at, "idle_timeout"), err,
                                   "goes with lifecycle \"on-demand\" only, and with a stdio server's sharing \"per-session\"; remove it");
        if (!e->idle_timeout_ms)
                e->idle_timeout_ms = DEFAULT_IDLE_MS;
        if (e->tmpfs > e->memory)
                return reader_fail(r,
                                   PLACE_KEY(PLACE_KEY(at, "resources"), json_get(json_get(o, "resources"), "tmpfs") ? "tmpfs" : "memory"),
                                   err, "tmpfs is larger than memory, which it counts against; raise memory or lower tmpfs");
        return 0;
}

/* What the format has and this version has not: one place, so that lifting a limit is deleting its lines. */
static int check_supported(const struct reader *r, const struct place *at, const struct registry_entry *e, struct err **err)
{
        if (e->source != SOURCE_DOCKER_IMAGE && e->source != SOURCE_URL)
                return reader_fail(
                        r, PLACE_KEY(at, "source"), err,
                        "source %s is not supported yet; build an image, push it to a registry and declare it as docker_image by digest",
                        shapes[e->source].name);
        for (size_t i = 0; i < e->n_egress; i++) {
                const struct place *rule = PLACE_ITEM(PLACE_KEY(at, "egress"), i);

                if (e->egress[i].host)
                        return reader_fail(
                                r, PLACE_KEY(rule, "host"), err,
                                "host names are not supported yet, they come with the resolver; write the addresses as \"cidr\"");
                if (strchr(e->egress[i].cidr, ':'))
                        return reader_fail(r, PLACE_KEY(rule, "cidr"), err, "IPv6 allow-lists are not supported yet; write IPv4 networks");
        }
        return 0;
}

/* -- one entry ------------------------------------------------------------------------------------------------------------ */

/* Switching a server off and describing it better are not new things to approve. */
static void hash_entry(struct registry_entry *e)
{
        _cleanup_json_ json_object *bare = json_object_new_object();

        json_object_object_foreach (e->json, key, value) {
                if (strcmp(key, "enabled") != 0 && strcmp(key, "description") != 0)
                        json_add(bare, key, json_object_get(value));
        }
        json_sha256(e->entry_sha256, bare);
}

static int check_name(const struct reader *r, const struct place *at, const char *name, struct err **err)
{
        if (registry_name_valid(name))
                return 0;
        return reader_fail(r, at, err, "is not a server name; use 1 to 40 lower-case letters, digits and dashes");
}

int entry_read(struct registry_entry **ret, const struct reader *r, const struct place *at, const char *name, json_object *value,
               struct err **err)
{
        _cleanup_(registry_entry_freep) struct registry_entry *e = NEW(struct registry_entry);

        if (check_name(r, at, name, err) < 0)
                return -1;
        e->name = mem_strdup(name);
        e->enabled = true;
        e->user = mem_strdup(DEFAULT_USER);
        e->memory = DEFAULT_MEMORY;
        e->nano_cpus = DEFAULT_NANO_CPUS;
        e->pids = DEFAULT_PIDS;
        e->tmpfs = DEFAULT_TMPFS;
        e->line = reader_line(r, at);
        if (read_clean(r, at, value, err) < 0 || READ_OBJECT(r, at, value, entry_keys, e, err) < 0)
                return -1;
        if (check_together(r, at, e, value, err) < 0 || check_supported(r, at, e, err) < 0)
                return -1;
        e->json = json_object_get(value);
        hash_entry(e);
        *ret = TAKE_PTR(e);
        return 0;
}

static void vars_free(struct env_var *v, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                free(v[i].name);
                free(v[i].value);
        }
        free(v);
}

struct registry_entry *registry_entry_free(struct registry_entry *e)
{
        if (!e)
                return NULL;
        for (size_t i = 0; i < e->n_egress; i++) {
                free(e->egress[i].host);
                free(e->egress[i].cidr);
                free(e->egress[i].ports);
        }
        for (size_t i = 0; i < e->n_mounts; i++) {
                free(e->mounts[i].source);
                free(e->mounts[i].target);
        }
        free(e->egress);
        free(e->mounts);
        vars_free(e->env, e->n_env);
        vars_free(e->sysctls, e->n_sysctls);
        strv_free(e->entrypoint);
        strv_free(e->args);
        strv_free(e->secrets);
        strv_free(e->headers);
        strv_free(e->actions);
        json_freep(&e->smoke_call);
        json_freep(&e->json);
        free(e->name);
        free(e->image);
        free(e->path);
        free(e->url);
        free(e->address);
        free(e->tls_host);
        strv_free(e->tls_pins);
        free(e->user);
        free(e->runtime);
        free(e->prefix);
        free(e);
        return NULL;
}
