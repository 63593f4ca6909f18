#include "common/forge/repo.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <sys/stat.h>

#include "common/file.h"
#include "common/forge/git.h"
#include "common/forge/record.h"
#include "common/text.h"

#define COMMIT_TRIES 20

/* What we write must be readable by the service user, whatever the operator's umask; put back on leaving. */
static void umask_restore(const mode_t *old)
{
        umask(*old);
}

/* "SERVER/FILE": nothing else is ever written, so no path can climb. */
static int check_path(const char *path, struct err **err)
{
        const char *slash = strchr(path, '/');
        _cleanup_free_ char *server = slash ? mem_strndup(path, (size_t)(slash - path)) : NULL;

        if (!server || !registry_name_valid(server) || !slash[1] || slash[1] == '.' ||
            !str_in_charset(slash + 1, "abcdefghijklmnopqrstuvwxyz0123456789.-")) {
                _cleanup_free_ char *safe = text_escape(path);
                return err_set(err, ERR_INVALID, "%s is no place for a record: it must be SERVER/FILE", safe);
        }
        return 0;
}

static int create_repository(git_repository **ret, const struct conf *conf, struct err **err)
{
        git_repository_init_options o = GIT_REPOSITORY_INIT_OPTIONS_INIT;

        if (git_setup(err) < 0)
                return -1;
        o.flags = GIT_REPOSITORY_INIT_BARE | GIT_REPOSITORY_INIT_MKPATH | GIT_REPOSITORY_INIT_NO_REINIT;
        o.initial_head = conf->approvals_ref;
        if (git_repository_init_ext(ret, conf->approvals_repository, &o) < 0)
                return git_fault(err, ERR_SYSTEM, "cannot create the approvals repository %s", conf->approvals_repository);
        git_config *config = NULL;
        /* A bare repository keeps no reflog unless told to; ours must be able to show who moved the reference when. */
        int r = git_repository_config(&config, *ret);
        if (r >= 0)
                r = git_config_set_bool(config, "core.logAllRefUpdates", 1);
        git_config_free(config);
        git_repository_free(*ret);
        *ret = NULL;
        if (r < 0)
                return git_fault(err, ERR_SYSTEM, "cannot configure the approvals repository %s", conf->approvals_repository);
        return git_open(ret, conf, err); /* with the ownership rules that every reader applies */
}

/* Nothing there, or an empty directory such as a mount point: anything else is foreign, and we do not build in it. */
static bool may_create(const char *path)
{
        struct dirent **list = NULL;
        int n = scandir(path, &list, NULL, NULL);
        int reason = errno;

        for (int i = 0; i < n; i++)
                free(list[i]);
        free(list);
        return n < 0 ? reason == ENOENT : n == 2; /* "." and ".." */
}

static int open_or_create(git_repository **ret, const struct conf *conf, struct err **err)
{
        _cleanup_err_ struct err *why = NULL;

        if (git_open(ret, conf, &why) == 0)
                return 0;
        if (err_code(why) != ERR_NOT_FOUND || !may_create(conf->approvals_repository))
                return err_move(err, TAKE_PTR(why));
        return create_repository(ret, conf, err);
}

/* The tree of base (NULL = empty) with the files added. */
static int build_tree(git_oid *ret, git_repository *repo, git_tree *base, const struct repo_file *files, size_t n, struct err **err)
{
        _cleanup_free_ git_tree_update *updates = mem_alloc(n * sizeof(*updates) + 1);

        for (size_t i = 0; i < n; i++) {
                git_tree_entry *existing = NULL;
                if (base && git_tree_entry_bypath(&existing, base, files[i].path) == 0) {
                        git_tree_entry_free(existing);
                        return err_set(err, ERR_CONFLICT, "%s is in the repository already: records are never replaced", files[i].path);
                }
                updates[i].action = GIT_TREE_UPDATE_UPSERT;
                updates[i].filemode = GIT_FILEMODE_BLOB;
                updates[i].path = files[i].path;
                if (git_blob_create_from_buffer(&updates[i].id, repo, files[i].data, files[i].len) < 0)
                        return git_fault(err, ERR_SYSTEM, "cannot store %s", files[i].path);
        }
        if (git_tree_create_updated(ret, repo, base, n, updates) < 0)
                return git_fault(err, ERR_SYSTEM, "cannot build the tree");
        return 0;
}

/* Compare and swap. 1: somebody was faster. */
static int move_ref(git_repository *repo, const struct conf *conf, const git_oid *old, const git_oid *id, const char *message,
                    struct err **err)
{
        _cleanup_(git_reference_freep) git_reference *ref = NULL;
        int r;

        if (old)
                r = git_reference_create_matching(&ref, repo, conf->approvals_ref, id, 1, old, message);
        else
                r = git_reference_create(&ref, repo, conf->approvals_ref, id, 0, message);
        if (r == GIT_EMODIFIED || r == GIT_EEXISTS || r == GIT_ELOCKED || r == GIT_ENOTFOUND)
                return 1;
        return r < 0 ? git_fault(err, ERR_SYSTEM, "cannot move %s", conf->approvals_ref) : 0;
}

static int commit_once(git_repository *repo, const struct conf *conf, const struct repo_file *files, size_t n, const git_signature *who,
                       const char *message, git_oid *id, struct err **err)
{
        _cleanup_(git_commit_freep) git_commit *parent = NULL;
        _cleanup_(git_tree_freep) git_tree *base = NULL, *tree = NULL;
        git_oid tip, tree_id;
        int missing = git_tip(&tip, repo, conf, err);

        if (missing < 0)
                return -1;
        if (!missing && (git_load_commit(&parent, repo, &tip, err) < 0 || git_load_tree(&base, repo, git_commit_tree_id(parent), err) < 0))
                return -1;
        if (build_tree(&tree_id, repo, base, files, n, err) < 0 || git_load_tree(&tree, repo, &tree_id, err) < 0)
                return -1;
        const git_commit *parents[] = {parent};
        if (git_commit_create(id, repo, NULL, who, who, "UTF-8", message, tree, parent ? 1 : 0, parents) < 0)
                return git_fault(err, ERR_SYSTEM, "cannot store the commit");
        return move_ref(repo, conf, missing ? NULL : &tip, id, message, err);
}

int repo_commit(const struct conf *conf, const struct repo_file *files, size_t n, const char *author, const char *message, char *commit,
                struct err **err)
{
        _cleanup_(umask_restore) _unused_ mode_t old_mask = umask(022);
        _cleanup_(git_repo_freep) git_repository *repo = NULL;
        _cleanup_(git_signature_freep) git_signature *who = NULL;
        git_oid id;

        for (size_t i = 0; i < n; i++)
                if (check_path(files[i].path, err) < 0)
                        return -1;
        if (open_or_create(&repo, conf, err) < 0)
                return -1;
        _cleanup_free_ char *mail = mem_printf("%s%s", author, strchr(author, '@') ? "" : "@localhost");
        if (git_signature_now(&who, author, mail) < 0 || git_repository_set_ident(repo, author, mail) < 0)
                return git_fault(err, ERR_INVALID, "not a name that a commit can carry");
        for (unsigned try = 0; try < COMMIT_TRIES; try++) {
                int r = commit_once(repo, conf, files, n, who, message, &id, err);
                if (r < 0)
                        return err_wrap(err, "committing to %s", conf->approvals_repository);
                if (r == 0) {
                        if (commit)
                                git_oid_tostr(commit, GIT_OID_HEXSZ + 1, &id);
                        return 0;
                }
                poll(NULL, 0, (int)(5 * (try + 1)));
        }
        return err_set(err, ERR_CONFLICT, "others keep moving %s of %s, or left a lock file beside it: try again", conf->approvals_ref,
                       conf->approvals_repository);
}

int repo_read(const struct conf *conf, const char *path, size_t max, char **ret, size_t *len, struct err **err)
{
        _cleanup_(git_repo_freep) git_repository *repo = NULL;
        _cleanup_(git_commit_freep) git_commit *commit = NULL;
        _cleanup_(git_tree_freep) git_tree *tree = NULL;
        git_tree_entry *entry = NULL;
        git_oid tip;
        size_t n;

        if (check_path(path, err) < 0 || git_open(&repo, conf, err) < 0)
                return -1;
        int missing = git_tip(&tip, repo, conf, err);
        if (missing < 0)
                return -1;
        if (missing)
                return err_set(err, ERR_NOT_FOUND, "%s has no %s yet", conf->approvals_repository, conf->approvals_ref);
        if (git_load_commit(&commit, repo, &tip, err) < 0 || git_load_tree(&tree, repo, git_commit_tree_id(commit), err) < 0)
                return -1;
        int r = git_tree_entry_bypath(&entry, tree, path);
        if (r < 0)
                return r == GIT_ENOTFOUND ? err_set(err, ERR_NOT_FOUND, "no %s in %s", path, conf->approvals_repository)
                                          : git_fault(err, ERR_INVALID, "%s", path);
        bool is_file = git_is_file(entry);
        git_oid id = *git_tree_entry_id(entry);
        git_tree_entry_free(entry);
        if (!is_file)
                return err_set(err, ERR_DENIED, "%s is not a regular file", path);
        if (git_load_blob(ret, &n, repo, &id, max, err) < 0)
                return err_wrap(err, "%s", path);
        if (len)
                *len = n;
        return 0;
}
