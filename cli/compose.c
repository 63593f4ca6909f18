#include "cli/compose.h"

#include <inttypes.h>
#include <stdio.h>

#define SECCOMP_OPTION "seccomp="

/* What is being written, and for whom. */
struct service {
        json_object *out;
        const struct compose_host *host;
};

typedef int (*field_fn)(struct service *s, const char *name, json_object *value, struct err **err);
/* A field of a create body. */
struct field {
        const char *name; /* ContainerCreate of the Engine API */
        const char *key;  /* of a service; NULL: its default is all there can be */
        field_fn write;
};

/* A dollar is Compose's sign for variables; two are one of the text's own. */
static json_object *text_value(const char *s)
{
        _cleanup_buf_ struct buf b = {0};

        for (; *s; s++) {
                if (*s == '$')
                        buf_addc(&b, '$');
                buf_addc(&b, *s);
        }
        return json_object_new_string(b.data ? b.data : "");
}

/* A copy in which every text is Compose's. */
static json_object *value_of(json_object *o)
{
        json_object *copy;

        if (json_object_is_type(o, json_type_string))
                return text_value(json_object_get_string(o));
        if (json_object_is_type(o, json_type_array)) {
                copy = json_object_new_array();
                for (size_t i = 0; i < json_object_array_length(o); i++)
                        json_object_array_add(copy, value_of(json_object_array_get_idx(o, i)));
                return copy;
        }
        if (json_object_is_type(o, json_type_object)) {
                copy = json_object_new_object();
                json_object_object_foreach (o, key, member)
                        json_add(copy, key, value_of(member));
                return copy;
        }
        return json_object_get(o);
}

static bool is_unset(json_object *o)
{
        switch (json_object_get_type(o)) {
        case json_type_null:
                return true;
        case json_type_boolean:
                return !json_object_get_boolean(o);
        case json_type_int:
                return json_object_get_int64(o) == 0;
        case json_type_double:
                return false;
        case json_type_string:
                return *json_object_get_string(o) == '\0';
        case json_type_array:
                return json_object_array_length(o) == 0;
        case json_type_object:
                return json_object_object_length(o) == 0;
        }
        return false;
}

/* -- fields -------------------------------------------------------------------------------------------------------------------- */
static int write_as_it_is(struct service *s, const char *key, json_object *value, _unused_ struct err **err)
{
        if (!is_unset(value))
                json_add(s->out, key, value_of(value));
        return 0;
}

/* Also when it is the default: a reader looks for it. */
static int write_always(struct service *s, const char *key, json_object *value, _unused_ struct err **err)
{
        json_add(s->out, key, value_of(value));
        return 0;
}

/* How a client holds the streams is the client's to say. */
static int write_nothing(_unused_ struct service *s, _unused_ const char *key, _unused_ json_object *value, _unused_ struct err **err)
{
        return 0;
}

static int write_environment(struct service *s, const char *key, json_object *value, _unused_ struct err **err)
{
        json_object *list = value_of(value);

        for (char *const *name = s->host->secrets; name && *name; name++)
                json_object_array_add(list, json_object_new_string(*name));
        if (json_object_array_length(list) > 0)
                json_add(s->out, key, list);
        else
                json_object_put(list);
        return 0;
}

static int write_seconds(struct service *s, const char *key, json_object *value, _unused_ struct err **err)
{
        _cleanup_free_ char *text = mem_printf("%" PRId64 "s", json_object_get_int64(value));

        json_add_str(s->out, key, text);
        return 0;
}

static int write_health(struct service *s, const char *key, json_object *value, struct err **err)
{
        const char *test = json_object_get_string(json_object_array_get_idx(json_get(value, "Test"), 0));
        json_object *health = json_object_new_object();

        if (!str_eq(test, "NONE")) {
                json_object_put(health);
                return err_set(err, ERR_INTERNAL, "a health check that runs something cannot be written as a Compose file");
        }
        json_add_bool(health, "disable", true);
        json_add(s->out, key, health);
        return 0;
}

/* The profile has a file of its own. */
static int write_security(struct service *s, const char *key, json_object *value, _unused_ struct err **err)
{
        json_object *list = json_object_new_array();

        for (size_t i = 0; i < json_object_array_length(value); i++) {
                const char *option = json_object_get_string(json_object_array_get_idx(value, i));
                _cleanup_free_ char *profile = mem_printf("seccomp:%s", s->host->seccomp);

                json_object_array_add(list, text_value(str_has_prefix(option, SECCOMP_OPTION) ? profile : option));
        }
        json_add(s->out, key, list);
        return 0;
}

static int write_cpus(struct service *s, const char *key, json_object *value, _unused_ struct err **err)
{
        json_add(s->out, key, json_object_new_double((double)json_object_get_int64(value) / 1e9));
        return 0;
}

static int write_ulimits(struct service *s, const char *key, json_object *value, _unused_ struct err **err)
{
        json_object *all = json_object_new_object();

        for (size_t i = 0; i < json_object_array_length(value); i++) {
                json_object *u = json_object_array_get_idx(value, i), *limit = json_object_new_object();

                json_add_int(limit, "soft", json_int(u, "Soft", 0));
                json_add_int(limit, "hard", json_int(u, "Hard", 0));
                json_add(all, json_str(u, "Name"), limit);
        }
        json_add(s->out, key, all);
        return 0;
}

static int write_tmpfs(struct service *s, const char *key, json_object *value, _unused_ struct err **err)
{
        json_object *list = json_object_new_array();

        json_object_object_foreach (value, path, options) {
                _cleanup_free_ char *text = mem_printf("%s:%s", path, json_object_get_string(options));

                json_object_array_add(list, text_value(text));
        }
        json_add(s->out, key, list);
        return 0;
}

static int write_mounts(struct service *s, const char *key, json_object *value, _unused_ struct err **err)
{
        json_object *list = json_object_new_array();

        for (size_t i = 0; i < json_object_array_length(value); i++) {
                json_object *m = json_object_array_get_idx(value, i), *volume = json_object_new_object(), *bind = json_object_new_object();

                json_add_str(volume, "type", "bind");
                json_add(volume, "source", text_value(json_str(m, "Source")));
                json_add(volume, "target", text_value(json_str(m, "Target")));
                json_add_bool(volume, "read_only", json_flag(m, "ReadOnly", false));
                json_add_str(bind, "propagation", json_str(json_get(m, "BindOptions"), "Propagation"));
                json_add(volume, "bind", bind);
                json_object_array_add(list, volume);
        }
        if (json_object_array_length(list) > 0)
                json_add(s->out, key, list);
        else
                json_object_put(list);
        return 0;
}

static int write_logging(struct service *s, const char *key, json_object *value, _unused_ struct err **err)
{
        json_object *logging = json_object_new_object();

        json_add_str(logging, "driver", json_str(value, "Type"));
        if (!is_unset(json_get(value, "Config")))
                json_add(logging, "options", value_of(json_get(value, "Config")));
        json_add(s->out, key, logging);
        return 0;
}

static int write_restart(struct service *s, const char *key, json_object *value, _unused_ struct err **err)
{
        json_add_str(s->out, key, json_str(value, "Name"));
        return 0;
}

/* docker-compose 1.29 has no word for it, and the file says so. It is the Engine's own default where control groups are version 2. */
static int write_cgroup(_unused_ struct service *s, _unused_ const char *key, json_object *value, struct err **err)
{
        return str_eq(json_object_get_string(value), "private")
                       ? 0
                       : err_set(err, ERR_INTERNAL, "a control group that is not private cannot be written as a Compose file");
}

static int write_host_config(struct service *s, const char *key, json_object *value, struct err **err);

/* Those that people look for first stand first. */
static const struct field body_fields[] = {
        {"Image", "image", write_always},
        {"User", "user", write_always},
        {"Hostname", "hostname", write_always},
        {"Domainname", NULL, NULL},
        {"Entrypoint", "entrypoint", write_as_it_is},
        {"Cmd", "command", write_as_it_is},
        {"Env", "environment", write_environment},
        {"OpenStdin", "stdin_open", write_as_it_is},
        {"StdinOnce", "", write_nothing},
        {"AttachStdin", "", write_nothing},
        {"AttachStdout", "", write_nothing},
        {"AttachStderr", "", write_nothing},
        {"Tty", NULL, NULL},
        {"HostConfig", "", write_host_config},
        {"StopTimeout", "stop_grace_period", write_seconds},
        {"Healthcheck", "healthcheck", write_health},
};

static const struct field host_fields[] = {
        {"ReadonlyRootfs", "read_only", write_always},
        {"Privileged", NULL, NULL},
        {"CapDrop", "cap_drop", write_always},
        {"CapAdd", NULL, NULL},
        {"SecurityOpt", "security_opt", write_security},
        {"Memory", "mem_limit", write_always},
        {"MemorySwap", "memswap_limit", write_always},
        {"NanoCpus", "cpus", write_cpus},
        {"PidsLimit", "pids_limit", write_always},
        {"Ulimits", "ulimits", write_ulimits},
        {"ShmSize", "shm_size", write_always},
        {"OomScoreAdj", "oom_score_adj", write_always},
        {"OomKillDisable", NULL, NULL},
        {"Tmpfs", "tmpfs", write_tmpfs},
        {"Binds", NULL, NULL},
        {"Mounts", "volumes", write_mounts},
        {"Devices", NULL, NULL},
        {"PortBindings", NULL, NULL},
        {"PublishAllPorts", NULL, NULL},
        {"IpcMode", "ipc", write_always},
        {"CgroupnsMode", "", write_cgroup},
        {"PidMode", NULL, NULL},
        {"UTSMode", NULL, NULL},
        {"DnsSearch", "dns_search", write_always},
        {"DnsOptions", NULL, NULL},
        {"ExtraHosts", NULL, NULL},
        {"Sysctls", "sysctls", write_always},
        {"LogConfig", "logging", write_logging},
        {"RestartPolicy", "restart", write_restart},
        {"AutoRemove", NULL, NULL},
        {"Init", "init", write_always},
        {"Runtime", "runtime", write_as_it_is},
};

static bool is_known(const struct field *fields, size_t n, const char *name)
{
        for (size_t i = 0; i < n; i++)
                if (str_eq(fields[i].name, name))
                        return true;
        return false;
}

static int write_fields(struct service *s, const struct field *fields, size_t n, json_object *from, struct err **err)
{
        json_object_object_foreach (from, name, ignored) {
                (void)ignored;
                if (!is_known(fields, n, name))
                        return err_set(err, ERR_INTERNAL, "the container's field %s is not known here: it would be lost in a Compose file",
                                       name);
        }
        for (size_t i = 0; i < n; i++) {
                json_object *value = json_get(from, fields[i].name);

                if (!json_object_object_get_ex(from, fields[i].name, NULL))
                        continue;
                if (!fields[i].key && !is_unset(value))
                        return err_set(err, ERR_INTERNAL, "the container's field %s cannot be written as a Compose file", fields[i].name);
                if (fields[i].key && fields[i].write(s, fields[i].key, value, err) < 0)
                        return -1;
        }
        return 0;
}

static int write_host_config(struct service *s, _unused_ const char *key, json_object *value, struct err **err)
{
        return write_fields(s, host_fields, ELEMENTSOF(host_fields), value, err);
}

/* -- networks ------------------------------------------------------------------------------------------------------------------ */
static json_object *list_of(const char *text)
{
        json_object *list = json_object_new_array();

        json_object_array_add(list, json_object_new_string(text));
        return list;
}

static json_object *make_network(const struct spec_network *n)
{
        _cleanup_json_ json_object *body = spec_network_body(n);
        json_object *network = json_object_new_object(), *ipam = json_object_new_object(), *pools = json_object_new_array();
        json_object *pool = json_object_new_object(), *options = value_of(json_get(body, "Options"));

        /* Its bridge's name tells a controller's networks; this one is none. */
        json_object_object_del(options, "com.docker.network.bridge.name");
        json_add_str(network, "driver", json_str(body, "Driver"));
        json_add_bool(network, "internal", json_flag(body, "Internal", false));
        json_add(network, "driver_opts", options);
        json_add_str(pool, "subnet", n->subnet);
        json_add_str(pool, "gateway", n->gateway);
        json_object_array_add(pools, pool);
        json_add(ipam, "config", pools);
        json_add(network, "ipam", ipam);
        return network;
}

static void join_network(json_object *service, const char *name, const struct compose_host *host)
{
        json_object *networks = json_object_new_object(), *endpoint = json_object_new_object();

        json_add_str(endpoint, "ipv4_address", host->address);
        json_add(networks, name, endpoint);
        json_add(service, "networks", networks);
        json_add(service, "dns", list_of(host->gateway));
}

int compose_add(json_object *file, const char *name, const struct spec *spec, const struct registry_entry *entry,
                const struct compose_host *host, struct err **err)
{
        _cleanup_json_ json_object *service = json_object_new_object();
        struct service s = {service, host};
        const struct spec_network network = {.name = name,
                                             .bridge = "",
                                             .subnet = host->subnet,
                                             .gateway = host->gateway,
                                             .internal = !host->open || entry->n_egress == 0,
                                             .owner = host->owner,
                                             .server = name,
                                             .spec = spec->hash,
                                             .role = ROLE_SERVER};

        if (write_fields(&s, body_fields, ELEMENTSOF(body_fields), spec->body, err) < 0)
                return err_wrap(err, "server \"%s\"", name);
        join_network(service, name, host);
        json_add(json_get(file, "services"), name, TAKE_PTR(service));
        json_add(json_get(file, "networks"), name, make_network(&network));
        return 0;
}
