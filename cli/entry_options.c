#include "cli/entry_options.h"

#include <arpa/inet.h>

static int add_ports(json_object *rule, const char *text, const char *whole, struct err **err)
{
        json_object *ports = json_object_new_array();

        json_add(rule, "ports", ports);
        for (bool more = true; more;) {
                size_t n = strspn(text, "0123456789");
                long port = n && n <= 5 ? strtol(text, NULL, 10) : 0;
                more = text[n] == ',';
                if (port < 1 || port > 65535 || (text[n] && !more))
                        return err_set(err, ERR_INVALID, "egress \"%s\": ports are numbers 1 to 65535 with commas between them", whole);
                json_object_array_add(ports, json_object_new_int64(port));
                text += n + more;
        }
        return 0;
}

int entry_egress_parse(const char *text, json_object **ret, struct err **err)
{
        _cleanup_json_ json_object *rule = json_object_new_object();
        const char *rest = text, *protocol = NULL, *colon;
        struct in_addr address;

        if (str_has_prefix(text, "tcp ") || str_has_prefix(text, "udp ")) {
                protocol = text[0] == 't' ? "tcp" : "udp";
                rest = text + 4;
        }
        colon = strrchr(rest, ':');
        if (!colon || colon == rest || colon[1] == '\0')
                return err_set(err, ERR_INVALID,
                               "egress \"%s\": write [tcp|udp] HOST-OR-CIDR:PORT[,PORT], such as \"tcp 192.0.2.0/24:443\"", text);
        _cleanup_free_ char *target = mem_strndup(rest, (size_t)(colon - rest));
        _cleanup_free_ char *network = inet_pton(AF_INET, target, &address) == 1 ? mem_printf("%s/32", target) : NULL;
        if (network)
                json_add_str(rule, "cidr", network);
        else
                json_add_str(rule, strchr(target, '/') ? "cidr" : "host", target);
        json_add_str(rule, "protocol", protocol);
        if (add_ports(rule, colon + 1, text, err) < 0)
                return -1;
        *ret = TAKE_PTR(rule);
        return 0;
}

static int add_number(json_object *o, const char *key, const char *text, struct err **err)
{
        json_object *v = NULL;

        if (!text)
                return 0;
        if (json_parse(&v, text, strlen(text), key, NULL, err) < 0)
                return -1;
        json_add(o, key, v);
        if (!json_object_is_type(v, json_type_int) && !json_object_is_type(v, json_type_double))
                return err_set(err, ERR_INVALID, "--%s \"%s\" is not a number", key, text);
        return 0;
}

static int add_env(json_object *entry, char *const *env, struct err **err)
{
        json_object *o = NULL;

        for (; env && *env; env++) {
                const char *equals = strchr(*env, '=');
                if (!equals || equals == *env)
                        return err_set(err, ERR_INVALID, "--env \"%s\": write NAME=VALUE", *env);
                if (!o)
                        json_add(entry, "env", o = json_object_new_object());
                _cleanup_free_ char *name = mem_strndup(*env, (size_t)(equals - *env));
                json_add_str(o, name, equals + 1);
        }
        return 0;
}

static int add_egress(json_object *entry, char *const *rules, struct err **err)
{
        json_object *list = NULL;

        for (; rules && *rules; rules++) {
                json_object *rule;
                if (entry_egress_parse(*rules, &rule, err) < 0)
                        return -1;
                if (!list)
                        json_add(entry, "egress", list = json_object_new_array());
                json_object_array_add(list, rule);
        }
        return 0;
}

static int add_resources(json_object *entry, const struct entry_options *o, struct err **err)
{
        _cleanup_json_ json_object *r = json_object_new_object();

        json_add_str(r, "memory", o->memory);
        json_add_str(r, "tmpfs", o->tmpfs);
        if (add_number(r, "cpus", o->cpus, err) < 0 || add_number(r, "pids", o->pids, err) < 0)
                return -1;
        if (json_object_object_length(r))
                json_add(entry, "resources", TAKE_PTR(r));
        return 0;
}

int entry_options_build(const struct entry_options *o, json_object **ret, struct err **err)
{
        _cleanup_json_ json_object *e = json_object_new_object();

        json_add_str(e, "description", o->description);
        json_add_bool(e, "enabled", true);
        json_add_str(e, "source", o->url ? NULL : "docker_image");
        json_add_str(e, "image", o->image);
        json_add_str(e, "url", o->url);
        json_add_str(e, "address", o->address);
        if (o->tls_pins)
                json_add(e, "tls_pins", json_from_strv(o->tls_pins));
        json_add_str(e, "transport", o->transport ? o->transport : o->url ? "streamable-http" : "stdio");
        json_add_str(e, "path", o->path);
        json_add_str(e, "user", o->user);
        json_add_str(e, "runtime", o->runtime);
        json_add_str(e, "lifecycle", o->lifecycle);
        json_add_str(e, "idle_timeout", o->idle_timeout);
        if (o->entrypoint)
                json_add(e, "entrypoint", json_from_strv(o->entrypoint));
        if (o->args)
                json_add(e, "args", json_from_strv(o->args));
        if (o->secrets)
                json_add(e, "secrets", json_from_strv(o->secrets));
        if (o->smoke_tool) {
                json_object *call = json_object_new_object(), *test = json_object_new_object();
                json_add_str(call, "tool", o->smoke_tool);
                json_add(call, "arguments", json_object_new_object());
                json_add(test, "call", call);
                json_add(e, "smoke_test", test);
        }
        if (add_number(e, "port", o->port, err) < 0 || add_env(e, o->env, err) < 0 || add_egress(e, o->egress, err) < 0 ||
            add_resources(e, o, err) < 0)
                return -1;
        *ret = TAKE_PTR(e);
        return 0;
}

void entry_options_deinit(struct entry_options *o)
{
        strv_free(o->args);
        strv_free(o->entrypoint);
        strv_free(o->env);
        strv_free(o->secrets);
        strv_free(o->egress);
        strv_free(o->tls_pins);
}
