#include "common/spec/internal.h"

static const struct {
        const char *version;
        spec_builder_fn build;
} builders[] = {
        {"v1", spec_build_v1},
};

/* There is no container: what is approved is the place, and how it is spoken to. */
static json_object *spec_of_external(const char *version, const struct registry_entry *e)
{
        json_object *o = json_object_new_object();

        json_add_str(o, "version", version);
        json_add_str(o, "server", e->name);
        json_add_str(o, "url", e->url);
        json_add_str(o, "transport", e->transport == TRANSPORT_SSE ? "sse" : "streamable-http");
        if (e->tls_host)
                json_add_str(o, "address", e->address);
        if (e->tls_pins)
                json_add(o, "tls_pins", json_from_strv(e->tls_pins));
        if (e->headers)
                json_add(o, "headers", json_from_strv(e->headers));
        return o;
}

int spec_build_version(struct spec **ret, const char *version, const struct registry_entry *entry, const struct image_facts *image,
                       struct err **err)
{
        _cleanup_(spec_freep) struct spec *s = NEW(struct spec);
        char hex[SHA256_HEX];

        for (size_t i = 0; i < ELEMENTSOF(builders); i++) {
                if (strcmp(builders[i].version, version) != 0)
                        continue;
                if (entry->source == SOURCE_URL)
                        s->canonical = spec_of_external(version, entry);
                else if (builders[i].build(&s->body, &s->canonical, entry, image, err) < 0)
                        return err_wrap(err, "container spec of server \"%s\"", entry->name);
                json_sha256(hex, s->canonical);
                memcpy(s->hash, version, 2);
                s->hash[2] = ':';
                memcpy(s->hash + 3, hex, sizeof(hex));
                s->hex = s->hash + 3;
                *ret = TAKE_PTR(s);
                return 0;
        }
        return err_set(err, ERR_NOT_FOUND, "there is no builder for container specs of version \"%.16s\"", version);
}

int spec_build(struct spec **ret, const struct registry_entry *entry, const struct image_facts *image, struct err **err)
{
        return spec_build_version(ret, SPEC_VERSION, entry, image, err);
}

struct spec *spec_free(struct spec *s)
{
        if (s) {
                json_freep(&s->body);
                json_freep(&s->canonical);
                free(s);
        }
        return NULL;
}

/* A copy one can add to, whose members are shared with the original. */
static json_object *shallow_copy(json_object *o)
{
        json_object *copy = json_object_new_object();

        json_object_object_foreach (o, key, value) {
                json_add(copy, key, json_object_get(value));
        }
        return copy;
}

/* The hash of the profile becomes the profile. A spec of another profile than ours keeps the hash, which no Engine accepts: deny. */
static json_object *security_options(json_object *options)
{
        json_object *full = json_object_new_array();
        _cleanup_free_ char *ours = mem_printf(SECCOMP_OPTION "sha256:%s", spec_seccomp_sha256());

        for (size_t i = 0; i < json_object_array_length(options); i++) {
                const char *option = json_object_get_string(json_object_array_get_idx(options, i));

                if (strcmp(option, ours) == 0) {
                        _cleanup_free_ char *text = mem_printf(SECCOMP_OPTION "%s", spec_seccomp_profile());
                        json_object_array_add(full, json_object_new_string(text));
                } else {
                        json_object_array_add(full, json_object_new_string(option));
                }
        }
        return full;
}

static json_object *make_labels(const struct spec *spec, const struct spec_host *host)
{
        json_object *labels = json_object_new_object();

        json_add_str(labels, LABEL_OWNER, host->owner);
        json_add_str(labels, LABEL_SERVER, host->server);
        json_add_str(labels, LABEL_SCOPE, host->scope);
        json_add_str(labels, LABEL_SPEC, spec->hash);
        json_add_str(labels, LABEL_APPROVAL, host->approval);
        json_add_str(labels, LABEL_ROLE, host->role);
        json_add_str(labels, LABEL_INSTANCE, host->instance);
        return labels;
}

static json_object *networking(const struct spec_host *host)
{
        json_object *config = json_object_new_object(), *endpoints = json_object_new_object(), *endpoint = json_object_new_object(),
                    *ipam = json_object_new_object();

        json_add_str(ipam, "IPv4Address", host->address);
        json_add(endpoint, "IPAMConfig", ipam);
        json_add(endpoints, host->network, endpoint);
        json_add(config, "EndpointsConfig", endpoints);
        return config;
}

/*
 * A smoke test comes before anybody's approval, so of the host's directories it gets none, not even to read: what a server reads there
 * could come back in its manifest. Empty memory stands in their places.
 */
static void hide_mounts(json_object *host_config)
{
        json_object *mounts = json_get(host_config, "Mounts"), *tmpfs = shallow_copy(json_get(host_config, "Tmpfs"));
        _cleanup_free_ char *options = mem_strdup(json_str(tmpfs, "/tmp"));

        for (size_t i = 0; i < json_object_array_length(mounts); i++)
                json_add_str(tmpfs, json_str(json_object_array_get_idx(mounts, i), "Target"), options);
        json_add(host_config, "Tmpfs", tmpfs);
        json_add(host_config, "Mounts", json_object_new_array());
}

json_object *spec_create_body(const struct spec *spec, const struct spec_host *host)
{
        json_object *body = shallow_copy(spec->body), *host_config = shallow_copy(json_get(body, "HostConfig"));
        json_object *env = json_object_new_array(), *dns = json_object_new_array(), *approved = json_get(body, "Env");

        for (size_t i = 0; i < json_object_array_length(approved); i++)
                json_object_array_add(env, json_object_get(json_object_array_get_idx(approved, i)));
        for (char *const *v = host->extra_env; v && *v; v++)
                json_object_array_add(env, json_object_new_string(*v));
        if (host->dns)
                json_object_array_add(dns, json_object_new_string(host->dns));

        json_add(host_config, "SecurityOpt", security_options(json_get(host_config, "SecurityOpt")));
        json_add_str(host_config, "NetworkMode", host->network);
        json_add(host_config, "Dns", dns);
        if (str_eq(host->role, ROLE_SMOKE))
                hide_mounts(host_config);
        json_add(body, "HostConfig", host_config);
        json_add(body, "Env", env);
        json_add(body, "Labels", make_labels(spec, host));
        json_add(body, "NetworkingConfig", networking(host));
        return body;
}

/* A smoke test runs beside the server it is the successor of: another name, and no dash-and-hex ending that could be a server's. */
char *spec_container_name(const char *server, const struct spec *spec, const char *role)
{
        if (str_eq(role, "server"))
                return mem_printf("%s-%.8s", server, spec->hex);
        return mem_printf("%s-%.8s-%s", server, spec->hex, role);
}

char *spec_network_name(const char *server, const struct spec *spec, const char *role)
{
        _cleanup_free_ char *container = spec_container_name(server, spec, role);

        return mem_printf("bh-%s", container);
}

/* An interface name has 15 characters: 32 bits of a hash over everything that makes the instance, NUL between so that no two sets read
 * alike. */
void spec_bridge_name(char out[16], const char *owner, const char *server, const struct spec *spec, const char *role)
{
        const char *const parts[] = {owner, server, spec->hash, role};
        _cleanup_buf_ struct buf b = {0};
        char hex[SHA256_HEX];

        for (size_t i = 0; i < ELEMENTSOF(parts); i++)
                buf_add(&b, parts[i], strlen(parts[i]) + 1);
        sha256_hex(hex, b.data, b.len);
        memcpy(out, "bh", 2);
        memcpy(out + 2, hex, 8);
        out[10] = '\0';
}
