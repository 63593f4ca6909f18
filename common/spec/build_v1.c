/*
 * The hardened container, version 1. Once released, nothing here may change what it builds for the same input: containers and approvals
 * carry the hash. A change is a build_v2.c beside it. Field meanings: ContainerCreate of the Engine API 1.41.
 */
#include "common/spec/internal.h"

#include <inttypes.h>

#define STOP_TIMEOUT_S 10
#define SHM_BYTES      (16 << 20)
#define OOM_SCORE_ADJ  500 /* a server dies before anything the host needs */
#define MAX_VOLUMES    32

/* -- checks --------------------------------------------------------------------------------------------------------------- */

static bool below(const char *path, const char *dir)
{
        size_t n = strlen(dir);

        return strncmp(path, dir, n) == 0 && (path[n] == '\0' || path[n] == '/');
}

/* A VOLUME's path is the image's word: it must not cover what the Engine or the kernel provides. */
static int check_volume(const char *path, struct err **err)
{
        static const char *const taken[] = {"/proc", "/sys", "/dev"};
        size_t n = strlen(path);

        if (n < 2 || n > 255 || path[0] != '/' || path[n - 1] == '/' || strstr(path, "//") || strstr(path, "/./") || strstr(path, "/../") ||
            str_has_suffix(path, "/.") || str_has_suffix(path, "/.."))
                return err_set(err, ERR_INVALID, "the image's VOLUME \"%.100s\" is not a plain absolute path; use another image", path);
        for (const char *p = path; *p; p++)
                if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 0x7f || *p == ',' || *p == ':')
                        return err_set(err, ERR_INVALID,
                                       "the image's VOLUME has characters that a mount point may not have; use another image");
        for (size_t i = 0; i < ELEMENTSOF(taken); i++)
                if (below(path, taken[i]))
                        return err_set(err, ERR_DENIED, "the image's VOLUME \"%.100s\" would cover %s; use another image", path, taken[i]);
        if (strcmp(path, "/etc") == 0)
                return err_set(err, ERR_DENIED, "the image's VOLUME would cover /etc; use another image");
        return 0;
}

static int check_input(const struct registry_entry *e, const struct image_facts *f, struct err **err)
{
        if (e->source != SOURCE_DOCKER_IMAGE || !e->image)
                return err_set(err, ERR_INVALID, "has no image; only docker_image entries become containers");
        if (!f->reference || !f->digest || !f->image_id || !f->platform || !str_is_digest(f->digest) || !str_is_digest(f->image_id))
                return err_set(err, ERR_INVALID, "the image's facts are incomplete; inspect the image again");
        if (!str_has_prefix(f->platform, "linux/"))
                return err_set(err, ERR_INVALID, "the image is for \"%.40s\"; only Linux images run here", f->platform);
        _cleanup_free_ char *image = mem_printf("%s@%s", f->reference, f->digest);
        if (strcmp(image, e->image) != 0)
                return err_set(err, ERR_CONFLICT,
                               "the entry's image is %.300s, the known facts are of %.300s; smoke-test and approve the new image", e->image,
                               image);
        if (strv_len(f->volumes) > MAX_VOLUMES)
                return err_set(err, ERR_LIMIT, "the image declares %zu volumes; at most %d are allowed", strv_len(f->volumes), MAX_VOLUMES);
        for (size_t i = 0; f->volumes && f->volumes[i]; i++)
                if (check_volume(f->volumes[i], err) < 0)
                        return -1;
        return 0;
}

/* -- host config ---------------------------------------------------------------------------------------------------------- */

static json_object *make_strings(const char *const *list)
{
        json_object *a = json_object_new_array();

        for (; *list; list++)
                json_object_array_add(a, json_object_new_string(*list));
        return a;
}

static void add_ulimit(json_object *ulimits, const char *name, int soft, int hard)
{
        json_object *u = json_object_new_object();

        json_add_str(u, "Name", name);
        json_add_int(u, "Soft", soft);
        json_add_int(u, "Hard", hard);
        json_object_array_add(ulimits, u);
}

static json_object *make_ulimits(void)
{
        json_object *ulimits = json_object_new_array();

        add_ulimit(ulimits, "nofile", 1024, 4096);
        add_ulimit(ulimits, "core", 0, 0);
        return ulimits;
}

/*
 * runc gives the mount the mode that the image's directory has, whatever mode= says: the server's own user as owner makes it writable all
 * the same.
 */
static char *make_tmpfs_options(const struct registry_entry *e)
{
        size_t uid = strcspn(e->user, ":");

        return mem_printf("rw,noexec,nosuid,nodev,size=%" PRIu64 ",mode=1777,uid=%.*s,gid=%s", e->tmpfs, (int)uid, e->user,
                          e->user + uid + 1);
}

/* /tmp, and memory instead of a disk behind each VOLUME, so that nothing outlives the container. All count against its memory. */
static json_object *make_tmpfs(const struct registry_entry *e, const struct image_facts *f)
{
        json_object *tmpfs = json_object_new_object();
        _cleanup_free_ char *options = make_tmpfs_options(e);

        json_add_str(tmpfs, "/tmp", options);
        for (size_t i = 0; f->volumes && f->volumes[i]; i++) {
                bool mounted = false;

                for (size_t k = 0; k < e->n_mounts; k++)
                        mounted |= strcmp(e->mounts[k].target, f->volumes[i]) == 0;
                if (!mounted)
                        json_add_str(tmpfs, f->volumes[i], options);
        }
        return tmpfs;
}

/* Mounts, not Binds: a missing source is an error there, not a new directory of root's. Not recursive: what is mounted below stays out. */
static json_object *make_mounts(const struct registry_entry *e)
{
        json_object *mounts = json_object_new_array();

        for (size_t i = 0; i < e->n_mounts; i++) {
                json_object *m = json_object_new_object(), *options = json_object_new_object();

                json_add_str(m, "Type", "bind");
                json_add_str(m, "Source", e->mounts[i].source);
                json_add_str(m, "Target", e->mounts[i].target);
                json_add_bool(m, "ReadOnly", !e->mounts[i].writable);
                json_add_str(options, "Propagation", "rprivate");
                json_add_bool(options, "NonRecursive", true);
                json_add(m, "BindOptions", options);
                json_object_array_add(mounts, m);
        }
        return mounts;
}

static json_object *make_sysctls(const struct registry_entry *e)
{
        json_object *sysctls = json_object_new_object();

        json_add_str(sysctls, "net.ipv6.conf.all.disable_ipv6", "1");
        for (size_t i = 0; i < e->n_sysctls; i++)
                json_add_str(sysctls, e->sysctls[i].name, e->sysctls[i].value);
        return sysctls;
}

/* A stdio server's output is protocol traffic with secrets in it: the Engine keeps none of it. */
static json_object *make_log_config(const struct registry_entry *e)
{
        json_object *log = json_object_new_object(), *config = json_object_new_object();

        json_add_str(log, "Type", e->transport == TRANSPORT_STDIO ? "none" : "local");
        if (e->transport != TRANSPORT_STDIO) {
                json_add_str(config, "max-size", "8m");
                json_add_str(config, "max-file", "2");
        }
        json_add(log, "Config", config);
        return log;
}

static json_object *make_security_options(void)
{
        json_object *options = json_object_new_array();
        _cleanup_free_ char *seccomp = mem_printf(SECCOMP_OPTION "sha256:%s", spec_seccomp_sha256());

        json_object_array_add(options, json_object_new_string("no-new-privileges:true"));
        json_object_array_add(options, json_object_new_string(seccomp));
        return options;
}

static void add_limits(json_object *h, const struct registry_entry *e)
{
        json_add_int(h, "Memory", (int64_t)e->memory);
        json_add_int(h, "MemorySwap", (int64_t)e->memory); /* the same: no swap */
        json_add_int(h, "NanoCpus", (int64_t)e->nano_cpus);
        json_add_int(h, "PidsLimit", (int64_t)e->pids);
        json_add(h, "Ulimits", make_ulimits());
        json_add_int(h, "ShmSize", SHM_BYTES);
        json_add_int(h, "OomScoreAdj", OOM_SCORE_ADJ);
        json_add_bool(h, "OomKillDisable", false);
}

static json_object *make_host_config(const struct registry_entry *e, const struct image_facts *f)
{
        json_object *h = json_object_new_object(), *restart = json_object_new_object();

        json_add_bool(h, "ReadonlyRootfs", true);
        json_add_bool(h, "Privileged", false);
        json_add(h, "CapDrop", make_strings((const char *const[]){"ALL", NULL}));
        json_add(h, "CapAdd", json_object_new_array());
        json_add(h, "SecurityOpt", make_security_options());
        add_limits(h, e);
        json_add(h, "Tmpfs", make_tmpfs(e, f));
        json_add(h, "Binds", json_object_new_array());
        json_add(h, "Mounts", make_mounts(e));
        json_add(h, "Devices", json_object_new_array());
        json_add(h, "PortBindings", json_object_new_object());
        json_add_bool(h, "PublishAllPorts", false);
        json_add_str(h, "IpcMode", "private");
        json_add_str(h, "CgroupnsMode", "private");
        json_add_str(h, "PidMode", "");
        json_add_str(h, "UTSMode", "");
        /* ".": without it the host's own search domains would be copied in. */
        json_add(h, "DnsSearch", make_strings((const char *const[]){".", NULL}));
        json_add(h, "DnsOptions", json_object_new_array());
        json_add(h, "ExtraHosts", json_object_new_array());
        json_add(h, "Sysctls", make_sysctls(e));
        json_add(h, "LogConfig", make_log_config(e));
        /* Not the Engine's: at boot it would start the container before our rules exist. */
        json_add_str(restart, "Name", "no");
        json_add(h, "RestartPolicy", restart);
        json_add_bool(h, "AutoRemove", false);
        json_add_bool(h, "Init", true);
        json_add_str(h, "Runtime", e->runtime);
        return h;
}

/* -- the body ------------------------------------------------------------------------------------------------------------- */

static json_object *make_env(const struct registry_entry *e)
{
        json_object *env = json_object_new_array();

        for (size_t i = 0; i < e->n_env; i++) {
                _cleanup_free_ char *v = mem_printf("%s=%s", e->env[i].name, e->env[i].value);
                json_object_array_add(env, json_object_new_string(v));
        }
        return env;
}

static json_object *make_body(const struct registry_entry *e, const struct image_facts *f)
{
        json_object *b = json_object_new_object(), *health = json_object_new_object();
        bool stdio = e->transport == TRANSPORT_STDIO;

        json_add_str(b, "Hostname", e->name);
        json_add_str(b, "Domainname", "");
        json_add_str(b, "User", e->user);
        json_add_str(b, "Image", e->image);
        json_add_bool(b, "AttachStdin", stdio);
        json_add_bool(b, "AttachStdout", stdio);
        json_add_bool(b, "AttachStderr", stdio);
        json_add_bool(b, "OpenStdin", stdio);
        json_add_bool(b, "StdinOnce", stdio);
        json_add_bool(b, "Tty", false);
        json_add(b, "Env", make_env(e));
        if (e->entrypoint)
                json_add(b, "Entrypoint", json_from_strv(e->entrypoint));
        if (e->args)
                json_add(b, "Cmd", json_from_strv(e->args));
        json_add_int(b, "StopTimeout", STOP_TIMEOUT_S);
        /* A health check of the image's runs commands on a timer and its output lands in inspect. */
        json_add(health, "Test", make_strings((const char *const[]){"NONE", NULL}));
        json_add(b, "Healthcheck", health);
        json_add(b, "HostConfig", make_host_config(e, f));
        return b;
}

static json_object *make_image(const struct image_facts *f)
{
        json_object *i = json_object_new_object();
        _cleanup_strv_ char **volumes = strv_dup(f->volumes);

        strv_sort(volumes);
        json_add_str(i, "digest", f->digest);
        json_add_str(i, "platform", f->platform);
        json_add_str(i, "platform_digest", f->platform_digest);
        json_add_str(i, "image_id", f->image_id);
        json_add(i, "volumes", json_from_strv(volumes));
        return i;
}

static json_object *make_egress(const struct registry_entry *e)
{
        _cleanup_strv_ char **rules = NULL;

        for (size_t i = 0; i < e->n_egress; i++) {
                _cleanup_free_ char *text = egress_rule_text(&e->egress[i]);
                rules = strv_append(rules, text);
        }
        strv_sort(rules);
        return json_from_strv(rules);
}

static json_object *make_transport(const struct registry_entry *e)
{
        static const char *const names[] = {
                [TRANSPORT_STDIO] = "stdio", [TRANSPORT_STREAMABLE_HTTP] = "streamable-http", [TRANSPORT_SSE] = "sse"};
        json_object *t = json_object_new_object();

        json_add_str(t, "type", names[e->transport]);
        if (e->transport != TRANSPORT_STDIO) {
                json_add_int(t, "port", e->port);
                json_add_str(t, "path", e->path);
        }
        return t;
}

int spec_build_v1(json_object **body, json_object **canonical, const struct registry_entry *entry, const struct image_facts *image,
                  struct err **err)
{
        if (check_input(entry, image, err) < 0)
                return -1;
        json_object *b = make_body(entry, image), *c = json_object_new_object();

        json_add_str(c, "version", "v1");
        json_add(c, "body", json_object_get(b));
        json_add(c, "secrets", json_from_strv(entry->secrets));
        json_add(c, "egress", make_egress(entry));
        json_add(c, "transport", make_transport(entry));
        json_add(c, "image", make_image(image));
        *body = b;
        *canonical = c;
        return 0;
}
