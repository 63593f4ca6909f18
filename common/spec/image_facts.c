/* What an Engine says of an image, read as the word of a stranger: bounded, typed, and refused where it claims labels of ours. */
#include "common/spec/internal.h"

#include "common/text.h"

#define MAX_ITEMS 256
#define MAX_TEXT  4096

struct image_facts *image_facts_free(struct image_facts *f)
{
        if (!f)
                return NULL;
        free(f->reference);
        free(f->digest);
        free(f->platform);
        free(f->platform_digest);
        free(f->image_id);
        strv_free(f->volumes);
        free(f->user);
        strv_free(f->exposed_ports);
        strv_free(f->entrypoint);
        strv_free(f->cmd);
        strv_free(f->env);
        free(f->working_dir);
        free(f->stop_signal);
        free(f);
        return NULL;
}

/* Members of an object as a sorted list: {"/data": {}} is how images write sets. */
static int read_set(char ***ret, json_object *o, const char *what, struct err **err)
{
        _cleanup_strv_ char **list = NULL;

        if (o && !json_object_is_type(o, json_type_object))
                return err_set(err, ERR_INVALID, "%s is not an object", what);
        if (o && json_object_object_length(o) > MAX_ITEMS)
                return err_set(err, ERR_LIMIT, "%s has %d members; at most %d are accepted", what, json_object_object_length(o), MAX_ITEMS);
        if (o) {
                json_object_object_foreach (o, key, ignored) {
                        (void)ignored;
                        list = strv_append(list, key);
                }
        }
        strv_sort(list);
        *ret = TAKE_PTR(list);
        return 0;
}

static int read_list(char ***ret, json_object *o, const char *what, struct err **err)
{
        if (!o)
                return 0;
        if (!json_object_is_type(o, json_type_array) || json_object_array_length(o) > MAX_ITEMS)
                return err_set(err, ERR_INVALID, "%s is not a list of at most %d strings", what, MAX_ITEMS);
        if (json_object_array_length(o) > 0 && !json_to_strv(ret, o))
                return err_set(err, ERR_INVALID, "%s is not a list of strings", what);
        return 0;
}

static int read_text(char **ret, json_object *config, const char *key, struct err **err)
{
        const char *s = json_str(config, key);

        if (s && strlen(s) > MAX_TEXT)
                return err_set(err, ERR_LIMIT, "Config.%s is longer than %d bytes", key, MAX_TEXT);
        *ret = mem_strdup(s && s[0] ? s : NULL);
        return 0;
}

/* "linux/arm64", "linux/arm/v7"; the variants that are the architecture's only meaning are left out. */
static char *read_platform(json_object *o, const char *os_key, const char *architecture_key, const char *variant_key)
{
        const char *os = json_str(o, os_key), *architecture = json_str(o, architecture_key), *variant = json_str(o, variant_key);
        static const char set[] = "abcdefghijklmnopqrstuvwxyz0123456789_.-";

        if (!os || !architecture || !os[0] || !architecture[0] || strlen(os) > 32 || strlen(architecture) > 32)
                return NULL;
        if (!variant || (str_eq(architecture, "arm64") && str_eq(variant, "v8")) ||
            (str_eq(architecture, "amd64") && str_eq(variant, "v1")))
                variant = "";
        if (strlen(variant) > 32 || !str_in_charset(os, set) || !str_in_charset(architecture, set) || !str_in_charset(variant, set))
                return NULL;
        return mem_printf("%s/%s%s%s", os, architecture, variant[0] ? "/" : "", variant);
}

/* Labels of ours are how the controller knows its objects: an image that brings some wants to be taken for one. */
static int check_labels(json_object *labels, struct err **err)
{
        if (!json_object_is_type(labels, json_type_object))
                return 0;
        json_object_object_foreach (labels, key, ignored) {
                (void)ignored;
                if (!str_has_prefix(key, "io.bulkhead"))
                        continue;
                _cleanup_free_ char *shown = text_escape(key);
                return err_set(err, ERR_DENIED,
                               "carries the label \"%.100s\", which is reserved for this program's own objects; rebuild it without", shown);
        }
        return 0;
}

/* An Engine keeps by which digests it pulled an image; with the containerd store the id itself is that digest. */
static int check_digest(json_object *inspect, const struct image_facts *f, struct err **err)
{
        json_object *digests = json_get(inspect, "RepoDigests");
        _cleanup_free_ char *end = mem_printf("@%s", f->digest);

        if (strcmp(f->digest, f->image_id) == 0)
                return 0;
        for (size_t i = 0; json_object_is_type(digests, json_type_array) && i < json_object_array_length(digests); i++) {
                const char *s = json_object_get_string(json_object_array_get_idx(digests, i));
                if (s && str_has_suffix(s, end))
                        return 0;
        }
        return err_set(err, ERR_CONFLICT, "the Engine's image %.24s… was not pulled by that digest; pull it again", f->image_id);
}

static bool is_single_manifest(const char *media_type)
{
        return str_eq(media_type, "application/vnd.oci.image.manifest.v1+json") ||
               str_eq(media_type, "application/vnd.docker.distribution.manifest.v2+json");
}

/* Engines from API 1.48 on describe what was pulled; with ?manifests=1 also what an index holds. */
static void read_platform_digest(struct image_facts *f, json_object *inspect)
{
        json_object *descriptor = json_get(inspect, "Descriptor"), *manifests = json_get(inspect, "Manifests");

        if (str_eq(json_str(descriptor, "digest"), f->digest) && is_single_manifest(json_str(descriptor, "mediaType"))) {
                f->platform_digest = mem_strdup(f->digest);
                return;
        }
        for (size_t i = 0; json_object_is_type(manifests, json_type_array) && i < json_object_array_length(manifests); i++) {
                json_object *m = json_object_array_get_idx(manifests, i), *platform = json_get(json_get(m, "ImageData"), "Platform");
                _cleanup_free_ char *name = read_platform(platform, "os", "architecture", "variant");
                const char *id = json_str(m, "ID");

                if (str_eq(json_str(m, "Kind"), "image") && name && str_eq(name, f->platform) && id && str_is_digest(id)) {
                        f->platform_digest = mem_strdup(id);
                        return;
                }
        }
}

static int read_config(struct image_facts *f, json_object *config, struct err **err)
{
        if (config && !json_object_is_type(config, json_type_object))
                return err_set(err, ERR_INVALID, "Config is not an object");
        if (check_labels(json_get(config, "Labels"), err) < 0 ||
            read_set(&f->volumes, json_get(config, "Volumes"), "Config.Volumes", err) < 0 ||
            read_set(&f->exposed_ports, json_get(config, "ExposedPorts"), "Config.ExposedPorts", err) < 0)
                return -1;
        if (read_list(&f->entrypoint, json_get(config, "Entrypoint"), "Config.Entrypoint", err) < 0 ||
            read_list(&f->cmd, json_get(config, "Cmd"), "Config.Cmd", err) < 0 ||
            read_list(&f->env, json_get(config, "Env"), "Config.Env", err) < 0)
                return -1;
        if (read_text(&f->user, config, "User", err) < 0 || read_text(&f->working_dir, config, "WorkingDir", err) < 0)
                return -1;
        return read_text(&f->stop_signal, config, "StopSignal", err);
}

static int read_inspect(struct image_facts *f, json_object *inspect, struct err **err)
{
        const char *id = json_str(inspect, "Id");
        _cleanup_free_ char *prefixed = id && str_is_hex(id, 64) ? mem_printf("sha256:%s", id) : NULL; /* Podman leaves the prefix out */
        json_object *layers = json_get(json_get(inspect, "RootFS"), "Layers");

        id = prefixed ? prefixed : id;
        if (!id || !str_is_digest(id))
                return err_set(err, ERR_INVALID, "the Engine's answer has no image id");
        f->image_id = mem_strdup(id);
        f->platform = read_platform(inspect, "Os", "Architecture", "Variant");
        if (!f->platform)
                return err_set(err, ERR_INVALID, "the Engine's answer has no valid platform (Os, Architecture)");
        if (check_digest(inspect, f, err) < 0)
                return -1;
        read_platform_digest(f, inspect);
        f->size = (uint64_t)MAX(json_int(inspect, "Size", 0), 0);
        f->n_layers = json_object_is_type(layers, json_type_array) ? json_object_array_length(layers) : 0;
        return read_config(f, json_get(inspect, "Config"), err);
}

int image_facts_from_inspect(struct image_facts **ret, json_object *inspect, const char *image, struct err **err)
{
        _cleanup_(image_facts_freep) struct image_facts *f = NEW(struct image_facts);
        const char *at = strchr(image, '@');

        if (!at || at == image || !str_is_digest(at + 1))
                return err_set(err, ERR_INVALID, "image \"%.300s\" is not named by digest; write host/name@sha256:…", image);
        f->reference = mem_strndup(image, (size_t)(at - image));
        f->digest = mem_strdup(at + 1);
        if (!json_object_is_type(inspect, json_type_object))
                return err_set(err, ERR_INVALID, "image %.300s: the Engine's answer is not an object", image);
        if (read_inspect(f, inspect, err) < 0)
                return err_wrap(err, "image %.300s", image);
        *ret = TAKE_PTR(f);
        return 0;
}

int image_facts_add_distribution(struct image_facts *f, json_object *distribution, struct err **err)
{
        json_object *descriptor = json_get(distribution, "Descriptor");
        const char *digest = json_str(descriptor, "digest");

        if (!digest || strcmp(digest, f->digest) != 0)
                return err_set(err, ERR_CONFLICT, "image %.300s: the registry describes %.80s, not %s; ask again by digest", f->reference,
                               digest ? digest : "nothing", f->digest);
        if (!f->platform_digest && is_single_manifest(json_str(descriptor, "mediaType")))
                f->platform_digest = mem_strdup(digest);
        return 0;
}

static int compare_text(const char *field, const char *approved, const char *seen, struct err **err)
{
        if (str_eq(approved, seen))
                return 0;
        _cleanup_free_ char *a = text_escape(approved ? approved : "none"), *s = text_escape(seen ? seen : "none");
        return err_set(err, ERR_CONFLICT,
                       "the image's %s is %.300s, approved is %.300s; smoke-test and approve the new image, or go back to the old one",
                       field, s, a);
}

int image_facts_compare(const struct image_facts *approved, const struct image_facts *seen, struct err **err)
{
        _cleanup_strv_ char **before = strv_dup(approved->volumes), **now = strv_dup(seen->volumes);

        if (compare_text("name", approved->reference, seen->reference, err) < 0 ||
            compare_text("digest", approved->digest, seen->digest, err) < 0 ||
            compare_text("platform", approved->platform, seen->platform, err) < 0)
                return -1;
        if (approved->platform_digest && seen->platform_digest &&
            compare_text("platform digest", approved->platform_digest, seen->platform_digest, err) < 0)
                return -1;
        if (compare_text("id", approved->image_id, seen->image_id, err) < 0)
                return -1;
        strv_sort(before);
        strv_sort(now);
        _cleanup_free_ char *a = before ? strv_join(before, " ") : NULL, *s = now ? strv_join(now, " ") : NULL;
        return compare_text("volumes", a, s, err);
}
