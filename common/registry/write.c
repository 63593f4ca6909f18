/* Changing one entry of the registry file and nothing else of it. */
#include "common/registry/registry.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "common/file.h"

static const char empty_registry[] = "{\"$schema\": \"./mcp.servers.schema.json\", \"version\": \"1.0\", \"servers\": {}}";

/* *ret is the caller's to close, also after an error. Two writers at once would each keep the other's entry out: one lock for the
 * directory, dropped with the descriptor. */
static int lock_directory(int *ret, const char *path, struct err **err)
{
        _cleanup_free_ char *copy = mem_strdup(path);
        const char *dir = dirname(copy);

        *ret = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (*ret < 0)
                return err_sys(err, errno, "cannot open the registry's directory %s", dir);
        if (flock(*ret, LOCK_EX) < 0)
                return err_sys(err, errno, "cannot lock the registry's directory %s", dir);
        return 0;
}

/* The current text; that of an empty registry when there is no file yet. */
static int read_current(char **text, size_t *n, mode_t *mode, const char *path, struct err **err)
{
        struct stat st;

        if (lstat(path, &st) < 0 && errno == ENOENT) {
                *text = mem_strdup(empty_registry);
                *n = strlen(*text);
                *mode = 0644;
                return 0;
        }
        if (file_read(text, n, path, REGISTRY_MAX_BYTES, FILE_TRUSTED, err) < 0)
                return -1;
        if (stat(path, &st) < 0)
                return err_sys(err, errno, "cannot look at %s", path);
        *mode = st.st_mode & 0777;
        return 0;
}

/* json-c keeps the order of members, and a replaced member its place. */
static int change(json_object *root, const char *name, json_object *entry, const char *path, struct err **err)
{
        json_object *servers = json_get(root, "servers");

        if (entry) {
                json_add(servers, name, json_object_get(entry));
                return 0;
        }
        if (!json_object_object_get_ex(servers, name, NULL))
                return err_set(err, ERR_NOT_FOUND, "%s: there is no server \"%s\" to remove", path, name);
        json_object_object_del(servers, name);
        return 0;
}

int registry_write_entry(const char *path, const char *name, json_object *entry, const struct conf *conf, struct err **err)
{
        _cleanup_(registry_freep) struct registry *before = NULL, *after = NULL;
        _cleanup_free_ char *text = NULL;
        _cleanup_fd_ int lock = -1;
        size_t n = 0;
        mode_t mode = 0644;

        if (!registry_name_valid(name))
                return err_set(err, ERR_INVALID, "%s: not a server name; use 1 to 40 lower-case letters, digits and dashes", path);
        if (lock_directory(&lock, path, err) < 0 || read_current(&text, &n, &mode, path, err) < 0)
                return err_wrap(err, "changing the registry");
        if (registry_parse(&before, text, n, path, conf, err) < 0 || change(before->json, name, entry, path, err) < 0)
                return err_wrap(err, "changing the registry");

        const int flags = JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE;
        _cleanup_free_ char *out = mem_printf("%s\n", json_object_to_json_string_ext(before->json, flags));
        if (registry_parse(&after, out, strlen(out), path, conf, err) < 0)
                return err_wrap(err, "changing the registry: the result would not load, so the file stays as it was");
        if (file_write_atomic(path, out, strlen(out), mode, err) < 0)
                return err_wrap(err, "changing the registry");
        return 0;
}
