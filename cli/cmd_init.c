#include <errno.h>
#include <git2.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "common/file.h"

static const char signers_text[] =
        "# Who may approve. One line per key: NAME namespaces=\"bulkhead-approval@v1\" KEYTYPE KEY\n"
        "# alice@example.org namespaces=\"bulkhead-approval@v1\" ssh-ed25519 AAAA...\n"
        "# No \"*\", no cert-authority, no ssh-rsa. Owner root, writable by nobody else. See bulkhead.conf(5).\n";

static const char registry_text[] = "{\n"
                                    "  \"version\": \"1.0\",\n"
                                    "  \"servers\": {}\n"
                                    "}\n";

static void tell(struct cli *c, const char *what, const char *path, bool made)
{
        if (!c->json)
                out_line(&c->out, made ? STYLE_GREEN : STYLE_DIM, "%-8s %s %s", made ? "made" : "is there", what, path);
}

static bool exists(const char *path)
{
        struct stat st;

        return lstat(path, &st) == 0;
}

static int make_parent(const char *path, mode_t mode, struct err **err)
{
        _cleanup_free_ char *dir = mem_strndup(path, (size_t)(strrchr(path, '/') - path));

        return *dir ? dir_make(dir, mode, err) : 0;
}

static int make_file(struct cli *c, const char *what, const char *path, const char *text, mode_t mode, struct err **err)
{
        bool there = exists(path);

        if (!there && (make_parent(path, 0755, err) < 0 || file_write_atomic(path, text, strlen(text), mode, err) < 0))
                return -1;
        tell(c, what, path, !there);
        return 0;
}

static int make_conf(struct cli *c, const char *audience, const char *var, struct err **err)
{
        char host[65] = "";
        char *slash;

        if (!strchr(c->conf_path, '/'))
                return cli_usage(c, err, "--config must be a path with a directory");
        if (!audience) {
                gethostname(host, sizeof(host) - 1);
                audience = host;
        }
        slash = strrchr(c->conf_path, '/');
        _cleanup_free_ char *text =
                mem_printf("# What root decides about this host; bulkhead.conf(5) explains every key.\n"
                           "# audience: who approvals are for. Records signed for another name do not count here.\n"
                           "audience: \"%s\"\n"
                           "registry: \"%.*s/registry/mcp.servers.json\"\n"
                           "approvals:\n"
                           "  repository: \"%s/approvals.git\"\n"
                           "  allowed_signers: \"%.*s/allowed_signers\"\n"
                           "controller:\n"
                           "  state: \"%s/state\"\n"
                           "# images:\n"
                           "#   registries: [docker.io, ghcr.io]\n",
                           audience, (int)(slash - c->conf_path), c->conf_path, var, (int)(slash - c->conf_path), c->conf_path, var);
        return make_file(c, "configuration", c->conf_path, text, 0644, err);
}

/* Bare, empty, owned by whoever runs this; the controller only reads it. */
static int make_repository(struct cli *c, const struct conf *conf, struct err **err)
{
        git_repository_init_options o;
        git_repository *repo = NULL;
        const char *path = conf->approvals_repository;
        bool there = exists(path);

        if (!there) {
                mode_t old = umask(022);
                if (make_parent(path, 0755, err) < 0)
                        return -1;
                git_libgit2_init();
                git_repository_init_options_init(&o, GIT_REPOSITORY_INIT_OPTIONS_VERSION);
                o.flags = GIT_REPOSITORY_INIT_BARE | GIT_REPOSITORY_INIT_NO_REINIT | GIT_REPOSITORY_INIT_MKDIR;
                o.initial_head = conf->approvals_ref;
                int r = git_repository_init_ext(&repo, path, &o);
                umask(old);
                if (r < 0)
                        return err_set(err, ERR_SYSTEM, "making the approvals repository %s: %s", path,
                                       git_error_last() ? git_error_last()->message : "unknown error");
                git_repository_free(repo);
        }
        tell(c, "approvals", path, !there);
        return 0;
}

/* The controller writes here and nobody else reads: state decides which history counts. */
static int make_state(struct cli *c, const struct conf *conf, struct err **err)
{
        const struct passwd *pw = getpwnam(conf->service_user);
        bool there = exists(conf->state_dir);

        if (!there) {
                if (dir_make(conf->state_dir, 0700, err) < 0)
                        return -1;
                if (pw && geteuid() == 0 && chown(conf->state_dir, pw->pw_uid, pw->pw_gid) < 0)
                        return err_sys(err, errno, "giving %s to %s", conf->state_dir, conf->service_user);
        }
        tell(c, "state", conf->state_dir, !there);
        if (!pw)
                out_line(&c->errors, STYLE_YELLOW, "there is no user %s yet: bulkhead doctor says what to do", conf->service_user);
        return 0;
}

int cmd_init(struct cli *c, int argc, char **argv, struct err **err)
{
        _cleanup_strv_ char **args = NULL;
        const struct conf *conf;
        const char *audience = NULL, *var = "/var/lib/bulkhead";
        const struct opt opts[] = {{"audience", OPT_STRING, &audience, "NAME", "who approvals are for (default: this host's name)"},
                                   {"var", OPT_STRING, &var, "DIR", "where approvals and state go (default /var/lib/bulkhead)"}};
        int r = opts_parse(c, opts, ELEMENTSOF(opts), argc, argv, 0, 0, &args, err);

        if (r != 0)
                return r < 0 ? -1 : CLI_OK;
        if (make_conf(c, audience, var, err) < 0 || cli_conf(c, &conf, err) < 0)
                return -1;
        if (make_file(c, "registry", conf->registry_path, registry_text, 0644, err) < 0 ||
            make_file(c, "allowed signers", conf->allowed_signers, signers_text, 0644, err) < 0 || make_repository(c, conf, err) < 0 ||
            make_state(c, conf, err) < 0)
                return -1;
        _cleanup_free_ char *state_file = mem_printf("%s/forge.json", conf->state_dir);
        if (!exists(state_file))
                out_line(&c->errors, STYLE_DIM, "next, once on a new host: bulkhead-controller --init-state");
        if (c->json) {
                _cleanup_json_ json_object *o = json_object_new_object();
                json_add_str(o, "config", c->conf_path);
                json_add_str(o, "registry", conf->registry_path);
                json_add_str(o, "allowed_signers", conf->allowed_signers);
                json_add_str(o, "approvals", conf->approvals_repository);
                json_add_str(o, "state", conf->state_dir);
                out_json(&c->out, o);
        }
        return CLI_OK;
}
