/* The `mounts` key: host directories inside a server. Only below roots that root allows on this host. */
#include "common/registry/reader.h"

#include "common/text.h"

#define MAX_MOUNTS 32

/* Absolute, no empty, "." or ".." component, no slash at the end: what is compared must be what is opened. */
static bool path_normal(const char *s)
{
        if (s[0] != '/' || !s[1])
                return false;
        while (*s) {
                const char *component = s + 1, *end = strchrnul(component, '/');
                size_t n = (size_t)(end - component);

                if (n == 0 || n > 255 || (n == 1 && component[0] == '.') || (n == 2 && component[0] == '.' && component[1] == '.'))
                        return false;
                s = end;
        }
        return true;
}

/* Is path the directory dir or below it? */
static bool path_within(const char *path, const char *dir)
{
        size_t n = strlen(dir);

        while (n > 1 && dir[n - 1] == '/')
                n--;
        if (n == 1)
                return true;
        return strncmp(path, dir, n) == 0 && (path[n] == '\0' || path[n] == '/');
}

/* Whoever reaches the Engine's socket owns the host; a directory that holds it is as bad. */
static bool reaches_socket(const char *path, const struct conf *conf)
{
        static const char *const sockets[] = {
                "/run/docker.sock", "/var/run/docker.sock", "/run/docker",       "/var/run/docker",
                "/run/containerd",  "/var/run/containerd",  "/run/podman",       "/var/run/podman",
                "/var/lib/docker",  "/var/lib/containerd",  "/run/crio",         "/var/run/crio",
                "/run/bulkhead",    "/var/run/bulkhead",    "/var/lib/bulkhead", "/etc/bulkhead",
        };

        for (size_t i = 0; i < ELEMENTSOF(sockets); i++)
                if (path_within(path, sockets[i]) || path_within(sockets[i], path))
                        return true;
        if (conf->engine_socket && (path_within(path, conf->engine_socket) || path_within(conf->engine_socket, path)))
                return true;
        return str_has_suffix(path, "/docker.sock") || str_has_suffix(path, "/containerd.sock") || str_has_suffix(path, "/podman.sock");
}

static int read_path(const struct reader *r, const struct place *at, json_object *value, const char **ret, struct err **err)
{
        if (read_string(r, at, value, 1024, ret, err) < 0)
                return -1;
        if (path_normal(*ret))
                return 0;
        _cleanup_free_ char *shown = text_escape(*ret);
        return reader_fail(r, at, err, "\"%.100s\" is not a plain absolute path; write it from / without . , .. , // or a slash at the end",
                           shown);
}

static int parse_source(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        struct mount *m = dst;
        const char *s = NULL;

        if (read_path(r, at, value, &s, err) < 0)
                return -1;
        _cleanup_free_ char *shown = text_escape(s);
        if (reaches_socket(s, r->conf))
                return reader_fail(
                        r, at, err,
                        "\"%.100s\" gives access to a container engine or to our own files; no approval allows that, remove the mount",
                        shown);
        for (char **root = r->conf->mount_roots; root && *root; root++) {
                if (path_within(s, *root)) {
                        m->source = mem_strdup(s);
                        return 0;
                }
        }
        return reader_fail(r, at, err,
                           "\"%.100s\" lies under no directory that this host allows; an administrator can add one to mounts.roots in %s",
                           shown, r->conf->path ? r->conf->path : CONF_DEFAULT_PATH);
}

static int parse_target(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        /* What the Engine or the kernel provides there, and our scratch space. */
        static const char *const taken[] = {
                "/proc", "/sys", "/dev", "/tmp", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/sbin/docker-init", "/.dockerenv"};
        struct mount *m = dst;
        const char *s = NULL;

        if (read_path(r, at, value, &s, err) < 0)
                return -1;
        for (size_t i = 0; i < ELEMENTSOF(taken); i++)
                if (path_within(s, taken[i]) || path_within(taken[i], s))
                        return reader_fail(r, at, err,
                                           "would cover %s, which the container needs; choose a directory of its own, such as /data",
                                           taken[i]);
        m->target = mem_strdup(s);
        return 0;
}

static int parse_writable(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        return read_bool(r, at, value, &((struct mount *)dst)->writable, err);
}

static const struct key mount_keys[] = {
        {.name = "source", .parse = parse_source, .required = true},
        {.name = "target", .parse = parse_target, .required = true},
        {.name = "writable", .parse = parse_writable},
};

int parse_mounts(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        struct registry_entry *e = entry;
        size_t n = 0;

        if (read_array(r, at, value, MAX_MOUNTS, &n, err) < 0)
                return -1;
        e->mounts = mem_alloc(n * sizeof(struct mount));
        for (size_t i = 0; i < n; i++) {
                const struct place *item = PLACE_ITEM(at, i);

                e->n_mounts++;
                if (READ_OBJECT(r, item, json_object_array_get_idx(value, i), mount_keys, &e->mounts[i], err) < 0)
                        return -1;
                for (size_t j = 0; j < i; j++)
                        if (path_within(e->mounts[i].target, e->mounts[j].target) || path_within(e->mounts[j].target, e->mounts[i].target))
                                return reader_fail(
                                        r, item, err,
                                        "its target lies in another mount's target or is the same; give each a directory of its own");
        }
        return 0;
}

/* -- over all servers ----------------------------------------------------------------------------------------------------- */

static int compare_sources(const void *a, const void *b)
{
        return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sources that some server may write, sorted; borrowed strings, owned list. */
static const char **writable_sources(const struct registry *reg, size_t *ret_n)
{
        const char **list = NULL;
        size_t n = 0;

        for (size_t i = 0; i < reg->n_entries; i++) {
                const struct registry_entry *e = reg->entries[i];

                for (size_t k = 0; k < e->n_mounts; k++) {
                        if (!e->mounts[k].writable)
                                continue;
                        if ((n & (n - 1)) == 0)
                                list = mem_realloc(list, n ? 2 * n : 1, sizeof(*list));
                        list[n++] = e->mounts[k].source;
                }
        }
        if (n > 1)
                qsort(list, n, sizeof(*list), compare_sources);
        *ret_n = n;
        return list;
}

/* The nearest directory above path that is in the list; owned, NULL = none. */
static char *writable_above(const char *path, const char **list, size_t n)
{
        _cleanup_free_ char *dir = mem_strdup(path);
        const char *key = dir;

        for (char *slash = strrchr(dir, '/'); n && slash && slash != dir; slash = strrchr(dir, '/')) {
                *slash = '\0';
                if (bsearch(&key, list, n, sizeof(*list), compare_sources))
                        return TAKE_PTR(dir);
        }
        return NULL;
}

int check_mounts_apart(const struct reader *r, const struct place *servers, const struct registry *reg, struct err **err)
{
        size_t n = 0;
        _cleanup_free_ const char **writable = writable_sources(reg, &n);

        for (size_t i = 0; i < reg->n_entries; i++) {
                const struct registry_entry *e = reg->entries[i];

                for (size_t k = 0; k < e->n_mounts; k++) {
                        _cleanup_free_ char *above = writable_above(e->mounts[k].source, writable, n);

                        if (above)
                                return reader_fail(r, PLACE_KEY(PLACE_ITEM(PLACE_KEY(PLACE_KEY(servers, e->name), "mounts"), k), "source"),
                                                   err,
                                                   "lies below %s, which a server may write and so put a link to anywhere here; choose "
                                                   "directories apart",
                                                   above);
                }
        }
        return 0;
}
