/* The repository itself: whose it is, where its objects come from, writing to it, and noticing that it changed. */
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/file.h"
#include "tests/unit/forge_rig.h"
#include "tests/unit/test.h"

#define _cleanup_view_ _cleanup_(forge_view_freep)

static void repositories_others_may_write_are_refused(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key);
        static const char *const parts[] = {"", "/refs", "/refs/heads", "/refs/heads/main", "/HEAD", "/config", "/objects"};

        for (size_t i = 0; i < ELEMENTSOF(parts); i++) {
                static const struct forge_state empty;
                _cleanup_err_ struct err *err = NULL;
                _cleanup_free_ char *path = mem_printf("%s%s", rig->conf.approvals_repository, parts[i]);
                struct forge_view *view = NULL;
                struct stat st;

                assert_int_equal(stat(path, &st), 0);
                assert_int_equal(chmod(path, st.st_mode | S_IWOTH), 0);
                assert_fails(forge_read(&view, &rig->conf, &empty, RIG_NOW, &err), "may be written by others");
                assert_int_equal(chmod(path, st.st_mode & 07777U), 0);
                if (geteuid() == 0) {
                        assert_int_equal(chown(path, 12345, 12345), 0);
                        assert_fails(forge_read(&view, &rig->conf, &empty, RIG_NOW, &err), "belongs to uid 12345");
                        assert_int_equal(chown(path, 0, 0), 0);
                }
        }
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);
        rig_assert_counts(view, id);
}

static void borrowed_objects_and_symbolic_refs_are_refused(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ _unused_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key);
        static const struct forge_state empty;
        _cleanup_err_ struct err *err = NULL;
        struct forge_view *view = NULL;

        free(rig_write(rig, "approvals.git/refs/heads/alias", "ref: refs/heads/main\n"));
        mem_replace(&rig->conf.approvals_ref, mem_strdup("refs/heads/alias"));
        assert_fails(forge_read(&view, &rig->conf, &empty, RIG_NOW, &err), "symbolic reference");
        mem_replace(&rig->conf.approvals_ref, mem_strdup("refs/heads/main"));
        _cleanup_free_ char *info = mem_printf("%s/objects/info", rig->conf.approvals_repository);
        assert_ok(dir_make(info, 0755, &err));
        free(rig_write(rig, "approvals.git/objects/info/alternates", "/tmp/elsewhere\n"));
        assert_fails(forge_read(&view, &rig->conf, &empty, RIG_NOW, &err), "borrows from another");
        mem_replace(&rig->conf.approvals_repository, mem_printf("%s/none", rig->dir));
        assert_fails(forge_read(&view, &rig->conf, &empty, RIG_NOW, &err), "none");
}

static void fingerprint_tells_every_change(void **state)
{
        struct rig *rig = *state;
        char seen[6][SHA256_HEX];
        _cleanup_err_ struct err *err = NULL;
        _cleanup_free_ _unused_ char *a = rig_commit_record(rig, rig_approval(rig, 1), rig->key);

        assert_ok(forge_fingerprint(seen[0], &rig->conf, &err));
        assert_ok(forge_fingerprint(seen[1], &rig->conf, &err));
        assert_string_equal(seen[0], seen[1]);
        _cleanup_free_ _unused_ char *b = rig_commit_record(rig, rig_approval(rig, 2), rig->key);
        assert_ok(forge_fingerprint(seen[1], &rig->conf, &err));
        rig_trust_add(rig, "carol@example.org", NULL, rig->mallory);
        assert_ok(forge_fingerprint(seen[2], &rig->conf, &err));
        rig->conf.revoked_keys = rig_write(rig, "revoked", "");
        assert_ok(forge_fingerprint(seen[3], &rig->conf, &err));
        assert_int_equal(chmod(rig->conf.approvals_repository, 0777), 0);
        assert_ok(forge_fingerprint(seen[4], &rig->conf, &err));
        mem_replace(&rig->conf.audience, mem_strdup("other"));
        assert_ok(forge_fingerprint(seen[5], &rig->conf, &err));
        for (size_t i = 0; i < ELEMENTSOF(seen); i++)
                for (size_t k = 0; k < i; k++)
                        assert_string_not_equal(seen[i], seen[k]);
        mem_replace(&rig->conf.approvals_repository, mem_strdup("/nonexistent"));
        assert_int_equal(forge_fingerprint(seen[0], &rig->conf, &err), -1);
}

static void repositories_are_made_in_empty_places_only(void **state)
{
        struct rig *rig = *state;
        _cleanup_err_ struct err *err = NULL;
        struct repo_file file = {"github/f-0123456789abcdef.yaml", "a", 1};

        assert_ok(dir_make(rig->conf.approvals_repository, 0755, &err)); /* a mount point */
        _cleanup_free_ char *foreign = rig_write(rig, "approvals.git/notes", "mine");
        assert_fails(repo_commit(&rig->conf, &file, 1, "alice", "first", NULL, &err), "holds no git repository");
        assert_int_equal(unlink(foreign), 0);
        assert_ok(repo_commit(&rig->conf, &file, 1, "alice", "first", NULL, &err));
}

#define WRITERS 3
#define COMMITS 4

/* Several operators at once: nobody's commit is lost. */
static void concurrent_commits_all_arrive(void **state)
{
        struct rig *rig = *state;
        _cleanup_err_ struct err *err = NULL;
        pid_t pids[WRITERS];
        struct repo_file first = {"github/f-0000000000000000.yaml", "a", 1};

        assert_ok(repo_commit(&rig->conf, &first, 1, "alice", "first", NULL, &err));
        for (unsigned w = 0; w < WRITERS; w++) {
                pids[w] = fork();
                if (pids[w])
                        continue;
                for (unsigned i = 0; i < COMMITS; i++) {
                        _cleanup_free_ char *path = mem_printf("server-%u/f-%016u.yaml", w, i);
                        struct repo_file file = {path, "a", 1};
                        if (repo_commit(&rig->conf, &file, 1, "alice", "one of many", NULL, NULL) < 0)
                                _exit(1);
                }
                _exit(0);
        }
        for (unsigned w = 0; w < WRITERS; w++) {
                int status = -1;
                assert_int_equal(waitpid(pids[w], &status, 0), pids[w]);
                assert_int_equal(status, 0);
        }
        for (unsigned w = 0; w < WRITERS; w++)
                for (unsigned i = 0; i < COMMITS; i++) {
                        _cleanup_free_ char *path = mem_printf("server-%u/f-%016u.yaml", w, i), *text = NULL;
                        assert_ok(repo_read(&rig->conf, path, 10, &text, NULL, &err));
                }
}

static void commits_never_replace_and_stay_in_place(void **state)
{
        struct rig *rig = *state;
        _cleanup_err_ struct err *err = NULL;
        char first[41], second[41];
        struct repo_file file = {"github/f-0123456789abcdef.yaml", "a", 1};
        mode_t before = umask(0077);

        assert_ok(repo_commit(&rig->conf, &file, 1, "alice@example.org", "first", first, &err));
        assert_int_equal(umask(before), 0077); /* put back */
        struct stat st;
        assert_int_equal(stat(rig->conf.approvals_repository, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0755);
        assert_fails(repo_commit(&rig->conf, &file, 1, "alice@example.org", "again", NULL, &err), "never replaced");
        static const char *const paths[] = {"../f.yaml", "github/../f.yaml", "/etc/f.yaml", "f.yaml",
                                            "github/",   "github/.git",      "github/a/b",  "GitHub/f.yaml"};
        for (size_t i = 0; i < ELEMENTSOF(paths); i++) {
                struct repo_file bad = {paths[i], "a", 1};
                assert_fails(repo_commit(&rig->conf, &bad, 1, "alice", "bad", NULL, &err), "no place for a record");
        }
        struct repo_file next = {"gitlab/f-0123456789abcdef.yaml", "b", 1};
        assert_ok(repo_commit(&rig->conf, &next, 1, "alice", "second", second, &err));
        _cleanup_free_ char *tip = rig_tip(rig), *log = NULL, *a = NULL,
                            *log_path = mem_printf("%s/logs/refs/heads/main", rig->conf.approvals_repository);
        assert_string_equal(tip, second);
        assert_string_not_equal(first, second);
        assert_ok(file_read(&log, NULL, log_path, 65536, FILE_ANY, &err)); /* the reflog keeps both */
        assert_non_null(strstr(log, first));
        assert_non_null(strstr(log, second));
        assert_ok(repo_read(&rig->conf, file.path, 10, &a, NULL, &err));
        assert_string_equal(a, "a");
        assert_fails(repo_read(&rig->conf, "github/none.yaml", 10, &a, NULL, &err), "no github/none.yaml");
}

static char *object_path(struct rig *rig, const git_oid *id)
{
        const char *hex = git_oid_tostr_s(id);

        return mem_printf("%s/objects/%.2s/%s", rig->conf.approvals_repository, hex, hex + 2);
}

/* Objects are named by their hash: a file that holds something else than its name says is refused, not believed. */
static void swapped_objects_are_refused(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key), *path = mem_printf("github/%s.yaml", id),
                            *text = NULL;
        _cleanup_free_ char *other_id = rig_commit_record(rig, rig_approval(rig, 2), rig->key);
        _cleanup_free_ char *other_path = mem_printf("github/%s.yaml", other_id), *other = NULL;
        _cleanup_err_ struct err *err = NULL;
        git_oid a, b;

        assert_ok(repo_read(&rig->conf, path, RECORD_MAX_BYTES, &text, NULL, &err));
        assert_ok(repo_read(&rig->conf, other_path, RECORD_MAX_BYTES, &other, NULL, &err));
        git_odb_hash(&a, text, strlen(text), GIT_OBJECT_BLOB);
        git_odb_hash(&b, other, strlen(other), GIT_OBJECT_BLOB);
        _cleanup_free_ char *from = object_path(rig, &b), *to = object_path(rig, &a), *bytes = NULL;
        size_t n;
        assert_ok(file_read(&bytes, &n, from, 1U << 20, FILE_ANY, &err));
        assert_ok(file_write_atomic(to, bytes, n, 0444, &err));
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);
        rig_assert_refused(view, id, FORGE_REFUSAL_FILE, "git object");
        rig_assert_counts(view, other_id);
}

static int pack_one(const git_oid *id, void *user)
{
        git_packbuilder_insert(user, id, NULL);
        return 0;
}

static void loose_object_goes(struct rig *rig, const char *path)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_free_ char *text = NULL;
        git_oid id;

        assert_ok(repo_read(&rig->conf, path, RECORD_MAX_BYTES, &text, NULL, &err));
        git_odb_hash(&id, text, strlen(text), GIT_OBJECT_BLOB);
        _cleanup_free_ char *file = object_path(rig, &id);
        assert_int_equal(unlink(file), 0);
}

/* What `git gc` does: objects in a pack, references in packed-refs. */
static void a_packed_repository_reads_the_same(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key), *path = mem_printf("github/%s.yaml", id);
        _cleanup_view_ struct forge_view *first = rig_read(rig, NULL, RIG_NOW);
        git_repository *repo = NULL;
        git_packbuilder *pack = NULL;
        git_refdb *refdb = NULL;
        git_odb *odb = NULL;

        assert_int_equal(git_repository_open_bare(&repo, rig->conf.approvals_repository), 0);
        assert_int_equal(git_repository_odb(&odb, repo), 0);
        assert_int_equal(git_packbuilder_new(&pack, repo), 0);
        assert_int_equal(git_odb_foreach(odb, pack_one, pack), 0);
        assert_int_equal(git_packbuilder_write(pack, NULL, 0, NULL, NULL), 0);
        assert_int_equal(git_repository_refdb(&refdb, repo), 0);
        assert_int_equal(git_refdb_compress(refdb), 0);
        git_refdb_free(refdb);
        git_packbuilder_free(pack);
        git_odb_free(odb);
        git_repository_free(repo);
        loose_object_goes(rig, path);
        _cleanup_free_ char *loose = mem_printf("%s/refs/heads/main", rig->conf.approvals_repository);
        assert_int_equal(access(loose, F_OK), -1);
        _cleanup_view_ struct forge_view *view = rig_read(rig, first->next, RIG_NOW);
        assert_null(view->refused);
        rig_assert_counts(view, id);
        assert_string_equal(view->commit, first->commit);
        _cleanup_free_ char *next = rig_commit_record(rig, rig_approval(rig, 2), rig->key); /* and goes on */
        _cleanup_view_ struct forge_view *after = rig_read(rig, view->next, RIG_NOW);
        assert_null(after->refused);
        rig_assert_counts(after, next);
}

static void an_empty_repository_is_empty(void **state)
{
        struct rig *rig = *state;
        git_repository *repo = NULL;

        git_libgit2_init();
        assert_int_equal(git_repository_init(&repo, rig->conf.approvals_repository, 1), 0);
        git_repository_free(repo);
        chmod(rig->conf.approvals_repository, 0755);
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);
        assert_null(view->refused);
        assert_null(view->commit);
        assert_int_equal(view->n_items, 0);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(repositories_others_may_write_are_refused),
                CASE(borrowed_objects_and_symbolic_refs_are_refused),
                CASE(fingerprint_tells_every_change),
                CASE(repositories_are_made_in_empty_places_only),
                CASE(concurrent_commits_all_arrive),
                CASE(commits_never_replace_and_stay_in_place),
                CASE(swapped_objects_are_refused),
                CASE(a_packed_repository_reads_the_same),
                CASE(an_empty_repository_is_empty),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
