/* Does the Engine still have exactly the approved container? Frame, comparing of values, and the parts that are neither Config nor
 * HostConfig. */
#include "common/spec/internal.h"

#include "common/text.h"

#define SHOWN 120 /* characters of a foreign value in a reason */

/* -- reasons -------------------------------------------------------------------------------------------------------------- */

void judge_add(struct judge *j, const char *where, const char *is, const char *want)
{
        _cleanup_free_ char *w = text_escape(where), *a = text_escape(is), *b = text_escape(want);
        _cleanup_free_ char *reason = mem_printf("%.*s: is %.*s%s, approved %.*s%s", SHOWN, w, SHOWN, a, strlen(a) > SHOWN ? "…" : "",
                                                 SHOWN, b, strlen(b) > SHOWN ? "…" : "");

        j->reasons = strv_append(j->reasons, reason);
}

static char *show(json_object *o)
{
        return mem_strdup(o ? json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE) : "not set");
}

void judge_add_json(struct judge *j, const char *where, json_object *is, json_object *want)
{
        _cleanup_free_ char *a = show(is), *b = show(want);

        judge_add(j, where, a, b);
}

/* -- values --------------------------------------------------------------------------------------------------------------- */

bool value_is_default(json_object *o)
{
        switch (json_object_get_type(o)) {
        case json_type_null:
                return true;
        case json_type_boolean:
                return !json_object_get_boolean(o);
        case json_type_int:
                return json_object_get_int64(o) == 0;
        case json_type_double:
                return json_object_get_double(o) == 0;
        case json_type_string:
                return json_object_get_string_len(o) == 0;
        case json_type_array:
                return json_object_array_length(o) == 0;
        case json_type_object:
                return json_object_object_length(o) == 0;
        }
        return false;
}

/* Every member of a is in b; what only b has must be default. Called both ways round. */
static bool members_within(json_object *a, json_object *b, bool ordered)
{
        json_object_object_foreach (a, key, value) {
                if (!value_same(value, json_get(b, key), ordered))
                        return false;
        }
        return true;
}

static bool items_same(json_object *a, json_object *b, bool ordered)
{
        size_t n = json_object_array_length(a);
        _cleanup_free_ bool *used = mem_alloc(n * sizeof(bool));

        if (n != json_object_array_length(b))
                return false;
        for (size_t i = 0; i < n; i++) {
                json_object *item = json_object_array_get_idx(a, i);
                size_t k = ordered ? i : 0, end = ordered ? i + 1 : n;

                while (k < end && (used[k] || !value_same(item, json_object_array_get_idx(b, k), ordered)))
                        k++;
                if (k == end)
                        return false;
                used[k] = true;
        }
        return true;
}

bool value_same(json_object *a, json_object *b, bool ordered)
{
        if (value_is_default(a) || value_is_default(b))
                return value_is_default(a) && value_is_default(b);
        if (json_object_get_type(a) != json_object_get_type(b))
                return false;
        if (json_object_is_type(a, json_type_object))
                return members_within(a, b, ordered) && members_within(b, a, ordered);
        if (json_object_is_type(a, json_type_array))
                return items_same(a, b, ordered);
        return json_object_equal(a, b);
}

/* -- container ------------------------------------------------------------------------------------------------------------ */

static void judge_identity(struct judge *j)
{
        json_object *image = json_get(j->spec->canonical, "image");
        const char *id = json_str(j->inspect, "Image"), *name = json_str(j->inspect, "Name"), *approved_id = json_str(image, "image_id");
        const char *platform_digest = json_str(image, "platform_digest");
        const char *seen_digest = json_str(json_get(j->inspect, "ImageManifestDescriptor"), "digest");
        const char *confinement = json_str(j->inspect, "AppArmorProfile");
        _cleanup_free_ char *prefixed = id && str_is_hex(id, 64) ? mem_printf("sha256:%s", id) : NULL;
        _cleanup_free_ char *container =
                spec_container_name(j->host->server, j->spec, j->host->instance ? j->host->instance : j->host->role);

        id = prefixed ? prefixed : id;
        if (!str_eq(id, approved_id))
                judge_add(j, "Image", id ? id : "not set", approved_id);
        if (platform_digest && seen_digest && !str_eq(platform_digest, seen_digest))
                judge_add(j, "ImageManifestDescriptor.digest", seen_digest, platform_digest);
        if (!name || strcmp(name[0] == '/' ? name + 1 : name, container) != 0)
                judge_add(j, "Name", name ? name : "not set", container);
        /* Where the kernel has AppArmor the Engine sets its own profile; only the lack of one that was asked for is drift. */
        if (str_eq(confinement, "unconfined"))
                judge_add(j, "AppArmorProfile", confinement, "the Engine's default");
}

static void judge_endpoint(struct judge *j, const char *name, json_object *endpoint)
{
        const char *assigned = json_str(json_get(endpoint, "IPAMConfig"), "IPv4Address"), *address = json_str(endpoint, "IPAddress");
        json_object *options = json_get(endpoint, "DriverOpts"), *links = json_get(endpoint, "Links");

        if (strcmp(name, j->host->network) != 0) {
                judge_add(j, "NetworkSettings.Networks", name, j->host->network);
                return;
        }
        if (!str_eq(assigned, j->host->address))
                judge_add(j, "NetworkSettings.Networks.IPAMConfig.IPv4Address", assigned ? assigned : "not set", j->host->address);
        /* Empty until it runs. */
        if (address && address[0] && !str_eq(address, j->host->address))
                judge_add(j, "NetworkSettings.Networks.IPAddress", address, j->host->address);
        if (!value_is_default(json_get(endpoint, "GlobalIPv6Address")))
                judge_add_json(j, "NetworkSettings.Networks.GlobalIPv6Address", json_get(endpoint, "GlobalIPv6Address"), NULL);
        if (!value_is_default(json_get(json_get(endpoint, "IPAMConfig"), "IPv6Address")) ||
            !value_is_default(json_get(json_get(endpoint, "IPAMConfig"), "LinkLocalIPs")))
                judge_add_json(j, "NetworkSettings.Networks.IPAMConfig", json_get(endpoint, "IPAMConfig"), NULL);
        if (!value_is_default(options))
                judge_add_json(j, "NetworkSettings.Networks.DriverOpts", options, NULL);
        if (!value_is_default(links))
                judge_add_json(j, "NetworkSettings.Networks.Links", links, NULL);
}

void judge_network(struct judge *j)
{
        json_object *networks = json_get(json_get(j->inspect, "NetworkSettings"), "Networks");

        if (!json_object_is_type(networks, json_type_object) || json_object_object_length(networks) == 0) {
                judge_add(j, "NetworkSettings.Networks", "none", j->host->network);
                return;
        }
        json_object_object_foreach (networks, name, endpoint) {
                judge_endpoint(j, name, endpoint);
        }
        if (!json_object_object_get_ex(networks, j->host->network, NULL))
                judge_add(j, "NetworkSettings.Networks", "without it", j->host->network);
}

/* What is really mounted, beside what HostConfig asked for: a volume here was put there by a foreign hand. */
static bool mount_approved(struct judge *j, json_object *m)
{
        json_object *wanted = json_get(json_get(j->want, "HostConfig"), "Mounts");

        for (size_t i = 0; i < json_object_array_length(wanted); i++) {
                json_object *w = json_object_array_get_idx(wanted, i);

                if (str_eq(json_str(m, "Type"), "bind") && str_eq(json_str(m, "Source"), json_str(w, "Source")) &&
                    str_eq(json_str(m, "Destination"), json_str(w, "Target")) &&
                    json_flag(m, "RW", true) == !json_flag(w, "ReadOnly", false) && str_eq(json_str(m, "Propagation"), "rprivate"))
                        return true;
        }
        /* Newer Engines and Podman list the tmpfs mounts too. */
        return str_eq(json_str(m, "Type"), "tmpfs") && json_str(m, "Destination") &&
               json_str(json_get(json_get(j->want, "HostConfig"), "Tmpfs"), json_str(m, "Destination"));
}

void judge_mounts(struct judge *j)
{
        json_object *mounts = json_get(j->inspect, "Mounts");
        size_t binds = 0, n = json_object_is_type(mounts, json_type_array) ? json_object_array_length(mounts) : 0;

        for (size_t i = 0; i < n; i++) {
                json_object *m = json_object_array_get_idx(mounts, i);

                binds += str_eq(json_str(m, "Type"), "bind");
                if (!mount_approved(j, m))
                        judge_add_json(j, "Mounts", m, NULL);
        }
        if (binds != json_object_array_length(json_get(json_get(j->want, "HostConfig"), "Mounts")))
                judge_add_json(j, "Mounts", mounts, json_get(json_get(j->want, "HostConfig"), "Mounts"));
}

char **spec_drift(const struct spec *spec, const struct spec_host *host, json_object *inspect)
{
        _cleanup_json_ json_object *want = spec_create_body(spec, host);
        struct judge j = {.spec = spec, .host = host, .want = want, .inspect = inspect};

        if (!json_object_is_type(inspect, json_type_object)) {
                judge_add(&j, "inspect", "not an object", "a container");
                return j.reasons;
        }
        judge_identity(&j);
        judge_config(&j);
        judge_host_config(&j);
        judge_network(&j);
        judge_mounts(&j);
        return j.reasons;
}
