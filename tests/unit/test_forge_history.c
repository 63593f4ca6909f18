/* What a tip of the approvals may look like: history only moves forward, and of a tree only honest files are read. */
#include "common/file.h"
#include "tests/unit/forge_rig.h"
#include "tests/unit/test.h"

#define _cleanup_view_ _cleanup_(forge_view_freep)

/* The signed bytes are what counts: an edit in a later commit breaks signature and history, an edit in a work tree is never seen. */
static void an_edited_record_refuses_the_tip(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key), *path = mem_printf("github/%s.yaml", id);
        _cleanup_view_ struct forge_view *first = rig_read(rig, NULL, RIG_NOW);

        rig_rewrite(rig, path, "kind: Approval\n", GIT_FILEMODE_BLOB, true);
        _cleanup_view_ struct forge_view *view = rig_read(rig, first->next, RIG_NOW);
        assert_non_null(view->refused);
        assert_non_null(strstr(view->refused, "changed"));
        assert_string_equal(view->next->commit, first->next->commit);
        rig_assert_counts(view, id); /* as the last accepted commit has it */
        /* The same on a host that sees it for the first time: nothing counts. */
        _cleanup_view_ struct forge_view *fresh = rig_read(rig, NULL, RIG_NOW);
        rig_assert_refused(fresh, id, FORGE_REFUSAL_SIGNATURE, "does not verify");
}

static void a_swapped_signature_refuses_the_tip(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key), *path = mem_printf("github/%s.yaml.sig", id);
        _cleanup_view_ struct forge_view *first = rig_read(rig, NULL, RIG_NOW);

        rig_rewrite(rig, path, "-----BEGIN SSH SIGNATURE-----\n", GIT_FILEMODE_BLOB, true);
        _cleanup_view_ struct forge_view *view = rig_read(rig, first->next, RIG_NOW);
        assert_non_null(view->refused);
}

static void a_work_tree_is_never_read(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key);
        _cleanup_free_ char *work = mem_printf("%s/work", rig->dir), *inner = mem_printf("%s/.git", work),
                            *server = mem_printf("%s/github", work);
        _cleanup_err_ struct err *err = NULL;

        /* An ordinary clone: objects in .git, files beside it. */
        assert_ok(dir_make(server, 0755, &err));
        assert_int_equal(rename(rig->conf.approvals_repository, inner), 0);
        mem_replace(&rig->conf.approvals_repository, mem_strdup(work));
        _cleanup_free_ char *edited = mem_printf("work/github/%s.yaml", id), *added = mem_printf("work/github/f-%016d.yaml", 1);
        free(rig_write(rig, edited, "kind: Approval\n"));
        free(rig_write(rig, added, "kind: Approval\n"));
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);
        assert_int_equal(view->n_items, 1);
        rig_assert_counts(view, id);
}

static void a_rolled_back_tip_is_refused(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *old = rig_commit_record(rig, rig_approval(rig, 1), rig->key), *before = rig_tip(rig);
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 2), rig->key);
        _cleanup_view_ struct forge_view *first = rig_read(rig, NULL, RIG_NOW);

        rig_move_ref(rig, before);
        _cleanup_view_ struct forge_view *view = rig_read(rig, first->next, RIG_NOW);
        assert_non_null(view->refused);
        assert_non_null(strstr(view->refused, "rolled back"));
        rig_assert_counts(view, id); /* what was accepted stays known */
        rig_assert_counts(view, old);
}

static void an_unrelated_tip_is_refused(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key);
        _cleanup_view_ struct forge_view *first = rig_read(rig, NULL, RIG_NOW);

        /* The same files and more, but a history of its own. */
        rig_rewrite(rig, "README.md", "hello", GIT_FILEMODE_BLOB, false);
        _cleanup_view_ struct forge_view *view = rig_read(rig, first->next, RIG_NOW);
        assert_non_null(view->refused);
        assert_non_null(strstr(view->refused, "does not descend"));
        rig_assert_counts(view, id);
}

static void a_missing_ref_is_refused(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key);
        _cleanup_view_ struct forge_view *first = rig_read(rig, NULL, RIG_NOW);

        mem_replace(&rig->conf.approvals_ref, mem_strdup("refs/heads/other"));
        _cleanup_view_ struct forge_view *view = rig_read(rig, first->next, RIG_NOW);
        assert_null(view->commit);
        assert_non_null(strstr(view->refused, "is gone"));
        rig_assert_counts(view, id);
}

static void a_deleted_record_refuses_the_tip(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ _unused_ char *kept = rig_commit_record(rig, rig_approval(rig, 1), rig->key);
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 2), rig->key), *path = mem_printf("github/%s.yaml", id);
        _cleanup_view_ struct forge_view *first = rig_read(rig, NULL, RIG_NOW);

        rig_rewrite(rig, path, NULL, GIT_FILEMODE_BLOB, true);
        _cleanup_view_ struct forge_view *view = rig_read(rig, first->next, RIG_NOW);
        assert_non_null(view->refused);
        assert_non_null(strstr(view->refused, "gone"));
        assert_non_null(strstr(view->refused, id));
        assert_int_equal(view->next->n_accepted, 2);
}

static void links_and_submodules_are_refused(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key), *path = mem_printf("github/%s.yaml", id);
        static const git_filemode_t modes[] = {GIT_FILEMODE_LINK, GIT_FILEMODE_COMMIT};
        static const char *const says[] = {"symbolic link", "submodule"};

        _cleanup_view_ struct forge_view *first = rig_read(rig, NULL, RIG_NOW);
        for (size_t i = 0; i < ELEMENTSOF(modes); i++) {
                _cleanup_free_ char *link = mem_printf("github/f-%016zu.yaml", i);
                rig_rewrite(rig, link, "/etc/passwd", modes[i], true);
                _cleanup_view_ struct forge_view *view = rig_read(rig, first->next, RIG_NOW);
                assert_null(view->refused); /* a new bad file is named, but refuses nothing else */
                rig_assert_refused(view, link, FORGE_REFUSAL_FILE, says[i]);
                rig_assert_counts(view, id);
        }
        /* A directory of a server as a link or submodule. */
        rig_rewrite(rig, "gitlab", "github", GIT_FILEMODE_LINK, true);
        rig_rewrite(rig, "jira", "x", GIT_FILEMODE_COMMIT, true);
        _cleanup_view_ struct forge_view *view = rig_read(rig, first->next, RIG_NOW);
        rig_assert_refused(view, "gitlab", FORGE_REFUSAL_FILE, "symbolic link");
        rig_assert_refused(view, "jira", FORGE_REFUSAL_FILE, "submodule");
        /* An accepted record that becomes a link is a changed record. */
        rig_rewrite(rig, path, NULL, GIT_FILEMODE_BLOB, true);
        rig_rewrite(rig, path, "elsewhere", GIT_FILEMODE_LINK, true);
        _cleanup_view_ struct forge_view *changed = rig_read(rig, first->next, RIG_NOW);
        assert_non_null(changed->refused);
}

static void odd_names_are_refused_and_notes_ignored(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key);
        static const struct {
                const char *path, *says; /* NULL: ignored */
        } cases[] = {
                {"github/README.md", NULL},
                {"github/f-0123456789abcdef.smoke.json", NULL},
                {"README.md", NULL},
                {".github/workflows/smoke.yaml", NULL},
                {"github/approval.yaml", "not a record's name"},
                {"github/F-0123456789ABCDEF.yaml", "not a record's name"},
                {"github/f-0123456789abcdef.yml", "not a record's name"},
                {"github/f-1123456789abcdef.yaml.sig", "signature without its record"},
                {"github/deep/f-0123456789abcdef.yaml", "directory below"},
                {"Upper/f-0123456789abcdef.yaml", "not a server's name"},
                {"a b/f-0123456789abcdef.yaml", "not a server's name"},
                {"f-2123456789abcdef.yaml", "not in a server's directory"},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                rig_rewrite(rig, cases[i].path, "text\n", GIT_FILEMODE_BLOB, true);
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);
        size_t refused = 0;
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                refused += cases[i].says != NULL;
                for (size_t k = 0; k < view->n_items && !cases[i].says; k++)
                        assert_string_not_equal(view->items[k].path, cases[i].path);
        }
        assert_int_equal(view->n_items, refused + 1);
        rig_assert_refused(view, "github/deep", FORGE_REFUSAL_FILE, "directory below");
        rig_assert_refused(view, "github/approval.yaml", FORGE_REFUSAL_FILE, "not a record's name");
        rig_assert_refused(view, "f-1123456789abcdef", FORGE_REFUSAL_FILE, "signature without its record");
        rig_assert_refused(view, "Upper", FORGE_REFUSAL_FILE, "not a server's name");
        rig_assert_refused(view, "f-2123456789abcdef", FORGE_REFUSAL_FILE, "not in a server's directory");
        rig_assert_counts(view, id);
}

static void names_cannot_climb(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key), *good = rig_tip(rig);
        static const char *const names[] = {"..", ".", "github/..", "gi\x1b[2Jthub", "\xff", "github"};
        static const char *const twice[] = {"github", "other", "github"};
        static const struct forge_state empty;
        _cleanup_err_ struct err *err = NULL;
        struct forge_view *none = NULL;

        rig_raw_root(rig, names, ELEMENTSOF(names));
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);
        rig_assert_counts(view, id);
        assert_int_equal(view->n_items, ELEMENTSOF(names));
        assert_int_equal(view->next->n_accepted, 1);
        for (size_t i = 0; i < view->n_items; i++) {
                assert_null(strchr(view->items[i].path, 0x1b)); /* escaped: paths are shown and sent as JSON */
                assert_null(strchr(view->items[i].path, 0xff));
                if (view->items[i].refused)
                        assert_non_null(strstr(view->items[i].refused, "not a server's name"));
        }
        rig_move_ref(rig, good);
        rig_raw_root(rig, twice, ELEMENTSOF(twice));
        assert_fails(forge_read(&none, &rig->conf, &empty, RIG_NOW, &err), "twice");
}

static void bad_content_is_refused_by_name(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *good = rig_commit_record(rig, rig_approval(rig, 1), rig->key), *path = mem_printf("github/%s.yaml", good);
        _cleanup_free_ char *moved = mem_printf("gitlab/%s.yaml", good), *big = mem_alloc(RECORD_MAX_BYTES + 2);
        _cleanup_err_ struct err *err = NULL;
        _cleanup_free_ char *text = NULL;

        assert_ok(repo_read(&rig->conf, path, RECORD_MAX_BYTES, &text, NULL, &err));
        memset(big, '#', RECORD_MAX_BYTES + 1);
        rig_rewrite(rig, "github/f-0000000000000001.yaml", big, GIT_FILEMODE_BLOB, true);
        rig_rewrite(rig, "github/f-0000000000000002.yaml", "a: 1\na: 2\n", GIT_FILEMODE_BLOB, true);
        rig_rewrite(rig, "github/f-0000000000000003.yaml", text, GIT_FILEMODE_BLOB, true);
        rig_rewrite(rig, "github/f-0000000000000004.yaml", "a: \xff\n", GIT_FILEMODE_BLOB, true);
        rig_rewrite(rig, moved, text, GIT_FILEMODE_BLOB, true);
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);
        assert_null(view->refused);
        rig_assert_refused(view, "f-0000000000000001", FORGE_REFUSAL_FILE, "more than the 65536 allowed");
        rig_assert_refused(view, "f-0000000000000002", FORGE_REFUSAL_FILE, "f-0000000000000002.yaml:2:");
        rig_assert_refused(view, "f-0000000000000003", FORGE_REFUSAL_FILE, "under the name of another");
        rig_assert_refused(view, "f-0000000000000004", FORGE_REFUSAL_FILE, "UTF-8");
        rig_assert_refused(view, moved, FORGE_REFUSAL_FILE, "but lies in gitlab/");
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(an_edited_record_refuses_the_tip),
                CASE(a_swapped_signature_refuses_the_tip),
                CASE(a_work_tree_is_never_read),
                CASE(a_rolled_back_tip_is_refused),
                CASE(an_unrelated_tip_is_refused),
                CASE(a_missing_ref_is_refused),
                CASE(a_deleted_record_refuses_the_tip),
                CASE(links_and_submodules_are_refused),
                CASE(odd_names_are_refused_and_notes_ignored),
                CASE(names_cannot_climb),
                CASE(bad_content_is_refused_by_name),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
