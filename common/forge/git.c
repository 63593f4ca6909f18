#include "common/forge/git.h"

#include <errno.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/forge/forge.h"
#include "common/mem.h"
#include "common/text.h"

#define MAX_COMMITS 200000U

int git_fault(struct err **err, enum err_code code, const char *fmt, ...)
{
        const git_error *e = git_error_last();
        _cleanup_free_ char *why = text_escape(e && e->message ? e->message : "unknown reason");
        char *what = NULL;
        va_list ap;

        va_start(ap, fmt);
        int n = vasprintf(&what, fmt, ap);
        va_end(ap);
        if (n < 0)
                abort();
        _cleanup_free_ char *owned = what;
        return err_set(err, code, "%s: %s", owned, why);
}

int git_setup(struct err **err)
{
        static const int levels[] = {GIT_CONFIG_LEVEL_SYSTEM, GIT_CONFIG_LEVEL_GLOBAL, GIT_CONFIG_LEVEL_XDG, GIT_CONFIG_LEVEL_PROGRAMDATA};
        int r = git_libgit2_init();

        /* Ownership is judged in check_owner(), which knows the service user; libgit2 knows only the caller. Nobody's ~/.gitconfig matters
         * here. */
        if (r >= 0)
                r = git_libgit2_opts(GIT_OPT_SET_OWNER_VALIDATION, 0);
        if (r >= 0)
                r = git_libgit2_opts(GIT_OPT_ENABLE_STRICT_HASH_VERIFICATION, 1);
        if (r >= 0)
                r = git_libgit2_opts(GIT_OPT_ENABLE_STRICT_OBJECT_CREATION, 1);
        if (r >= 0)
                r = git_libgit2_opts(GIT_OPT_ENABLE_FSYNC_GITDIR, 1);
        for (size_t i = 0; i < ELEMENTSOF(levels) && r >= 0; i++)
                r = git_libgit2_opts(GIT_OPT_SET_SEARCH_PATH, levels[i], "");
        return r < 0 ? git_fault(err, ERR_INTERNAL, "libgit2 does not start") : 0;
}

int forge_directory(char **ret, const struct conf *conf, struct err **err)
{
        _cleanup_free_ char *path = realpath(conf->approvals_repository, NULL);

        if (!path && errno == ENOENT)
                return err_set(err, ERR_NOT_FOUND, "there is no approvals repository %s yet: bulkhead propose makes it",
                               conf->approvals_repository);
        if (!path)
                return err_sys(err, errno, "approvals repository %s", conf->approvals_repository);
        _cleanup_free_ char *bare = mem_printf("%s/objects", path), *inner = mem_printf("%s/.git", path),
                            *deep = mem_printf("%s/objects", inner);
        struct stat st;
        if (stat(bare, &st) == 0 && S_ISDIR(st.st_mode))
                *ret = TAKE_PTR(path);
        else if (lstat(inner, &st) == 0 && S_ISDIR(st.st_mode) && stat(deep, &st) == 0 && S_ISDIR(st.st_mode))
                *ret = TAKE_PTR(inner);
        else
                return err_set(err, ERR_NOT_FOUND,
                               "%s holds no git repository: bulkhead propose makes it, or name another in approvals.repository",
                               conf->approvals_repository);
        return 0;
}

/* Root, us or the service user; nobody else may write. A sticky directory above (such as /tmp) is accepted, as in common/file.h. */
static int check_owner(const char *path, bool above, uid_t service, struct err **err)
{
        struct stat st;

        if (lstat(path, &st) < 0)
                return errno == ENOENT ? 0 : err_sys(err, errno, "cannot look at %s", path);
        if (S_ISLNK(st.st_mode))
                return err_set(err, ERR_DENIED, "%s is a symbolic link: approvals are only read from the repository itself", path);
        if (st.st_uid != 0 && st.st_uid != geteuid() && st.st_uid != service)
                return err_set(err, ERR_DENIED, "%s belongs to uid %u: make root or the service user its owner", path, (unsigned)st.st_uid);
        if ((st.st_mode & (S_IWGRP | S_IWOTH)) && !(above && (st.st_mode & S_ISVTX)))
                return err_set(err, ERR_DENIED, "%s may be written by others (mode %04o): run chmod go-w on it", path, st.st_mode & 07777U);
        return 0;
}

/* Every directory from / down to path. */
static int check_above(const char *path, uid_t service, struct err **err)
{
        for (const char *slash = path; slash; slash = strchr(slash + 1, '/')) {
                _cleanup_free_ char *dir = mem_strndup(path, slash == path ? 1 : (size_t)(slash - path));
                if (check_owner(dir, true, service, err) < 0)
                        return -1;
        }
        return 0;
}

/* What decides which commit is the tip and where objects come from. Objects themselves are named by their hash. */
static int check_repository(const char *dir, const struct conf *conf, struct err **err)
{
        static const char *const parts[] = {"", "/objects", "/refs", "/HEAD", "/config", "/packed-refs"};
        const struct passwd *pw = conf->service_user ? getpwnam(conf->service_user) : NULL;
        uid_t service = pw ? pw->pw_uid : 0;
        _cleanup_free_ char *alternates = mem_printf("%s/objects/info/alternates", dir);
        _cleanup_free_ char *commondir = mem_printf("%s/commondir", dir);

        if (check_above(dir, service, err) < 0)
                return -1;
        for (size_t i = 0; i < ELEMENTSOF(parts); i++) {
                _cleanup_free_ char *path = mem_printf("%s%s", dir, parts[i]);
                if (check_owner(path, false, service, err) < 0)
                        return -1;
        }
        for (const char *slash = strchr(conf->approvals_ref, '/'); slash; slash = strchr(slash + 1, '/')) {
                _cleanup_free_ char *path = mem_printf("%s/%.*s", dir, (int)(slash - conf->approvals_ref), conf->approvals_ref);
                if (check_owner(path, false, service, err) < 0)
                        return -1;
        }
        _cleanup_free_ char *ref = mem_printf("%s/%s", dir, conf->approvals_ref);
        if (check_owner(ref, false, service, err) < 0)
                return -1;
        if (access(alternates, F_OK) == 0 || access(commondir, F_OK) == 0)
                return err_set(err, ERR_DENIED,
                               "%s borrows from another repository: make it complete (git repack -a -d, remove objects/info/alternates)",
                               dir);
        return 0;
}

int git_open(git_repository **ret, const struct conf *conf, struct err **err)
{
        const unsigned flags = GIT_REPOSITORY_OPEN_NO_SEARCH | GIT_REPOSITORY_OPEN_BARE | GIT_REPOSITORY_OPEN_NO_DOTGIT;
        _cleanup_free_ char *dir = NULL;

        if (git_setup(err) < 0 || forge_directory(&dir, conf, err) < 0 || check_repository(dir, conf, err) < 0)
                return -1;
        if (git_repository_open_ext(ret, dir, flags, NULL) < 0)
                return git_fault(err, ERR_INVALID, "cannot open the approvals repository %s", dir);
        return 0;
}

int git_tip(git_oid *ret, git_repository *repo, const struct conf *conf, struct err **err)
{
        _cleanup_(git_reference_freep) git_reference *ref = NULL;
        int r = git_reference_lookup(&ref, repo, conf->approvals_ref);

        if (r == GIT_ENOTFOUND)
                return 1;
        if (r < 0)
                return git_fault(err, ERR_INVALID, "cannot read %s of %s", conf->approvals_ref, conf->approvals_repository);
        if (git_reference_type(ref) != GIT_REFERENCE_DIRECT)
                return err_set(err, ERR_DENIED, "%s of %s is a symbolic reference: name the branch itself in approvals.ref",
                               conf->approvals_ref, conf->approvals_repository);
        git_oid_cpy(ret, git_reference_target(ref));
        return 0;
}

/* The header tells type and size before anything is inflated. */
static int check_size(git_repository *repo, const git_oid *id, git_object_t type, size_t max, struct err **err)
{
        _cleanup_(git_odb_freep) git_odb *odb = NULL;
        git_object_t seen;
        size_t size;

        if (git_repository_odb(&odb, repo) < 0 || git_odb_read_header(&size, &seen, odb, id) < 0)
                return git_fault(err, ERR_INVALID, "git object %.12s", git_oid_tostr_s(id));
        if (seen != type)
                return err_set(err, ERR_INVALID, "git object %.12s is a %s, not a %s", git_oid_tostr_s(id), git_object_type2string(seen),
                               git_object_type2string(type));
        if (size > max)
                return err_set(err, ERR_LIMIT, "has %zu bytes, more than the %zu allowed", size, max);
        return 0;
}

int git_load_commit(git_commit **ret, git_repository *repo, const git_oid *id, struct err **err)
{
        if (check_size(repo, id, GIT_OBJECT_COMMIT, GIT_MAX_COMMIT_BYTES, err) < 0)
                return -1;
        return git_commit_lookup(ret, repo, id) < 0 ? git_fault(err, ERR_INVALID, "commit %.12s", git_oid_tostr_s(id)) : 0;
}

int git_load_tree(git_tree **ret, git_repository *repo, const git_oid *id, struct err **err)
{
        if (check_size(repo, id, GIT_OBJECT_TREE, GIT_MAX_TREE_BYTES, err) < 0)
                return -1;
        return git_tree_lookup(ret, repo, id) < 0 ? git_fault(err, ERR_INVALID, "tree %.12s", git_oid_tostr_s(id)) : 0;
}

int git_load_blob(char **ret, size_t *len, git_repository *repo, const git_oid *id, size_t max, struct err **err)
{
        _cleanup_(git_odb_freep) git_odb *odb = NULL;
        _cleanup_(git_odb_object_freep) git_odb_object *object = NULL;

        if (check_size(repo, id, GIT_OBJECT_BLOB, max, err) < 0)
                return -1;
        if (git_repository_odb(&odb, repo) < 0 || git_odb_read(&object, odb, id) < 0)
                return git_fault(err, ERR_INVALID, "git object %.12s", git_oid_tostr_s(id));
        if (git_odb_object_size(object) > max)
                return err_set(err, ERR_LIMIT, "has more than the %zu bytes allowed", max);
        *len = git_odb_object_size(object);
        *ret = mem_realloc(NULL, *len + 1, 1);
        memcpy(*ret, git_odb_object_data(object), *len);
        (*ret)[*len] = '\0';
        return 0;
}

bool git_is_file(const git_tree_entry *e)
{
        git_filemode_t mode = git_tree_entry_filemode_raw(e);

        return mode == GIT_FILEMODE_BLOB || mode == GIT_FILEMODE_BLOB_EXECUTABLE;
}

/* -- ancestry -------------------------------------------------------------------------------------------------------------- */

/* Commits seen so far: a queue in order of discovery, and an open-addressed table over it. */
struct walk {
        git_oid *queue;
        size_t n, room;
        uint32_t *slots; /* index + 1 into queue; 0 = free */
        size_t n_slots;  /* a power of two */
};

static void walk_deinit(struct walk *w)
{
        free(w->queue);
        free(w->slots);
}

static uint32_t *walk_slot(const struct walk *w, const git_oid *id)
{
        size_t at;

        memcpy(&at, id->id, sizeof(at)); /* a hash already */
        for (at &= w->n_slots - 1; w->slots[at]; at = (at + 1) & (w->n_slots - 1))
                if (git_oid_equal(&w->queue[w->slots[at] - 1], id))
                        break;
        return &w->slots[at];
}

static void walk_grow(struct walk *w)
{
        w->room = w->room ? w->room * 2 : 64;
        w->queue = mem_realloc(w->queue, w->room, sizeof(*w->queue));
        w->n_slots = w->room * 4;
        free(w->slots);
        w->slots = mem_alloc(w->n_slots * sizeof(*w->slots));
        for (size_t i = 0; i < w->n; i++)
                *walk_slot(w, &w->queue[i]) = (uint32_t)i + 1;
}

static void walk_add(struct walk *w, const git_oid *id)
{
        if (w->n == w->room)
                walk_grow(w);
        uint32_t *slot = walk_slot(w, id);
        if (*slot)
                return;
        git_oid_cpy(&w->queue[w->n++], id);
        *slot = (uint32_t)w->n;
}

int git_descends(bool *ret, git_repository *repo, const git_oid *tip, const git_oid *old, struct err **err)
{
        _cleanup_(walk_deinit) struct walk w = {0};

        *ret = false;
        walk_add(&w, tip);
        for (size_t i = 0; i < w.n; i++) {
                _cleanup_(git_commit_freep) git_commit *commit = NULL;
                git_oid id = w.queue[i]; /* the queue moves when it grows */

                if (git_oid_equal(&id, old)) {
                        *ret = true;
                        return 0;
                }
                if (w.n > MAX_COMMITS)
                        return err_set(err, ERR_LIMIT, "more than %u commits since the last accepted one", MAX_COMMITS);
                if (git_load_commit(&commit, repo, &id, err) < 0)
                        return -1;
                for (unsigned p = 0; p < git_commit_parentcount(commit); p++)
                        walk_add(&w, git_commit_parent_id(commit, p));
        }
        return 0;
}
