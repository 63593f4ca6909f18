#include "common/forge/collect.h"

#include "common/forge/state.h"
#include "common/text.h"

void found_list_deinit(struct found_list *l)
{
        for (size_t i = 0; i < l->n; i++) {
                free(l->v[i].path);
                free(l->v[i].server);
                free(l->v[i].id);
                free(l->v[i].refused);
        }
        free(l->v);
}

static struct found *add(struct found_list *l, const char *server, const char *directory, const char *file)
{
        _cleanup_free_ char *dir = text_escape(directory), *name = file ? text_escape(file) : NULL;

        l->v = mem_realloc(l->v, l->n + 1, sizeof(*l->v));
        l->v[l->n] = (struct found){.path = mem_printf("%s%s%s", dir, name ? "/" : "", name ? name : ""), .server = mem_strdup(server)};
        return &l->v[l->n++];
}

static void add_refused(struct found_list *l, const char *server, const char *directory, const char *file, const char *why)
{
        add(l, server, directory, file)->refused = mem_strdup(why);
}

/* "f-….yaml" or "f-….yaml.sig" -> the id, owned; NULL for other names. */
static char *id_of(const char *file, bool *is_signature)
{
        *is_signature = str_has_suffix(file, ".yaml.sig");
        if (!*is_signature && !str_has_suffix(file, ".yaml"))
                return NULL;
        _cleanup_free_ char *id = mem_strndup(file, strlen(file) - (*is_signature ? strlen(".yaml.sig") : strlen(".yaml")));
        return record_id_valid(id) ? TAKE_PTR(id) : NULL;
}

static const char *what_is(const git_tree_entry *e)
{
        switch (git_tree_entry_filemode_raw(e)) {
        case GIT_FILEMODE_LINK:
                return "a symbolic link is not read: commit the file itself";
        case GIT_FILEMODE_COMMIT:
                return "a submodule is not read: commit the files themselves";
        case GIT_FILEMODE_TREE:
                return "a directory below a server's is not read: records are SERVER/ID.yaml";
        default:
                return "not a regular file";
        }
}

/* The entry of this id in the server's directory, whose entries begin at `from`; made when there is none. */
static struct found *of_id(struct found_list *l, size_t from, const char *server, char *id)
{
        for (size_t i = l->n; i > from; i--)
                if (str_eq(l->v[i - 1].id, id)) {
                        free(id);
                        return &l->v[i - 1];
                }
        _cleanup_free_ char *file = mem_printf("%s.yaml", id);
        struct found *f = add(l, server, server, file);
        f->id = id;
        return f;
}

static void collect_file(struct found_list *l, size_t from, const char *server, const git_tree_entry *e)
{
        const char *file = git_tree_entry_name(e);
        bool is_signature;
        char *id = id_of(file, &is_signature);

        if (!git_is_file(e)) {
                add_refused(l, server, server, file, what_is(e));
                free(id);
        } else if (id) {
                struct found *f = of_id(l, from, server, id);
                bool *has = is_signature ? &f->has_signature : &f->has_record;
                if (*has && !f->refused)
                        f->refused = mem_strdup("the tree names this file twice: rewrite the commit with git");
                *has = true;
                git_oid_cpy(is_signature ? &f->signature : &f->record, git_tree_entry_id(e));
        } else if (str_has_suffix(file, ".yaml") || str_has_suffix(file, ".yaml.sig") || str_has_suffix(file, ".yml")) {
                add_refused(l, server, server, file, "not a record's name: it must be f- and 16 hex digits, then .yaml");
        }
        /* Notes (.md) and the evidence of smoke tests (.smoke.json) lie beside records and decide nothing. */
}

static int collect_server(struct found_list *l, git_repository *repo, const char *server, const git_oid *id, struct err **err)
{
        _cleanup_(git_tree_freep) git_tree *tree = NULL;
        size_t from = l->n;

        if (git_load_tree(&tree, repo, id, err) < 0)
                return -1;
        size_t n = git_tree_entrycount(tree);
        if (n > FORGE_MAX_PER_SERVER || l->n + n > FORGE_MAX_RECORDS * 2)
                return err_set(err, ERR_LIMIT, "too many files (%zu; at most %u for a server, %u records in all)", n, FORGE_MAX_PER_SERVER,
                               FORGE_MAX_RECORDS);
        for (size_t i = 0; i < n; i++)
                collect_file(l, from, server, git_tree_entry_byindex(tree, i));
        for (size_t i = from; i < l->n; i++)
                if (l->v[i].id && !l->v[i].has_record && !l->v[i].refused)
                        l->v[i].refused = mem_strdup("a signature without its record");
        return 0;
}

static int collect_entry(struct found_list *l, git_repository *repo, const git_tree_entry *e, struct err **err)
{
        const char *name = git_tree_entry_name(e);
        bool is_directory = git_tree_entry_filemode_raw(e) == GIT_FILEMODE_TREE;

        if (!is_directory && git_is_file(e)) { /* README, LICENSE, .gitmodules … */
                if (str_has_suffix(name, ".yaml") || str_has_suffix(name, ".yaml.sig"))
                        add_refused(l, NULL, name, NULL, "not in a server's directory: records are SERVER/ID.yaml");
                return 0;
        }
        if (is_directory && registry_name_valid(name)) {
                if (collect_server(l, repo, name, git_tree_entry_id(e), err) < 0)
                        return err_wrap(err, "%s/", name);
                return 0;
        }
        if (is_directory && name[0] == '.' && name[1] != '.' && name[1]) /* .github and its like */
                return 0;
        add_refused(l, registry_name_valid(name) ? name : NULL, name, NULL,
                    is_directory ? "not a server's name: it must match [a-z0-9-]{1,40}" : what_is(e));
        return 0;
}

static int compare_names(const void *a, const void *b)
{
        const char *const *x = a, *const *y = b;

        return strcmp(*x, *y);
}

/* git sorts its trees, but a hand-made one need not be sorted. */
static int check_unique(const git_tree *root, struct err **err)
{
        size_t n = git_tree_entrycount(root);
        _cleanup_free_ const char **names = NEW_N(const char *, n + 1);

        for (size_t i = 0; i < n; i++)
                names[i] = git_tree_entry_name(git_tree_entry_byindex(root, i));
        qsort(names, n, sizeof(*names), compare_names);
        for (size_t i = 1; i < n; i++)
                if (str_eq(names[i], names[i - 1])) {
                        _cleanup_free_ char *safe = text_escape(names[i]);
                        return err_set(err, ERR_INVALID, "the approvals tree names %s twice: rewrite the commit with git", safe);
                }
        return 0;
}

int collect(struct found_list *l, git_repository *repo, const git_oid *commit_id, struct err **err)
{
        _cleanup_(git_commit_freep) git_commit *commit = NULL;
        _cleanup_(git_tree_freep) git_tree *root = NULL;

        if (git_load_commit(&commit, repo, commit_id, err) < 0 || git_load_tree(&root, repo, git_commit_tree_id(commit), err) < 0)
                return -1;
        size_t n = git_tree_entrycount(root);
        if (n > 2 * FORGE_MAX_SERVERS)
                return err_set(err, ERR_LIMIT, "%zu entries in the root of the approvals tree, at most %u are read", n,
                               2 * FORGE_MAX_SERVERS);
        if (check_unique(root, err) < 0)
                return -1;
        for (size_t i = 0; i < n; i++)
                if (collect_entry(l, repo, git_tree_entry_byindex(root, i), err) < 0)
                        return -1;
        return l->n > FORGE_MAX_RECORDS ? err_set(err, ERR_LIMIT, "more than %u records", FORGE_MAX_RECORDS) : 0;
}
