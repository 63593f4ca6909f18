/* Reading: what counts, what is refused, and that history only moves forward. The verdict's own tests are in test_forge_judge.c. */
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/file.h"
#include "common/forge/view.h"
#include "tests/unit/forge_rig.h"
#include "tests/unit/test.h"

#define _cleanup_view_ _cleanup_(forge_view_freep)

static int setup(void **state)
{
        struct rig *rig = NEW(struct rig);

        rig_init(rig);
        *state = rig;
        return 0;
}

static int teardown(void **state)
{
        rig_deinit(*state);
        free(*state);
        return 0;
}

static void assert_refused(const struct forge_view *view, const char *id, enum forge_refusal refusal, const char *says)
{
        const struct forge_item *item = rig_item(view, id);

        assert_non_null(item);
        assert_non_null(item->refused);
        if (!strstr(item->refused, says))
                print_error("%s: %s\n", item->path, item->refused);
        assert_non_null(strstr(item->refused, says));
        assert_int_equal(item->refusal, refusal);
}

static void assert_counts(const struct forge_view *view, const char *id)
{
        const struct forge_item *item = rig_item(view, id);

        assert_non_null(item);
        if (item->refused)
                print_error("%s: %s\n", item->path, item->refused);
        assert_null(item->refused);
        assert_int_not_equal(item->accepted_at, 0);
}

static void a_signed_approval_is_accepted(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 7), rig->key);
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);
        _cleanup_free_ char *tip = rig_tip(rig);

        assert_null(view->refused);
        assert_string_equal(view->commit, tip);
        assert_counts(view, id);
        assert_string_equal(rig_item(view, id)->signer, "alice@example.org");
        assert_string_equal(view->next->commit, tip);
        assert_int_equal(view->next->n_accepted, 1);
        assert_int_equal(view->next->serials[0].serial, 7);
        assert_int_equal(view->next->time_floor, RIG_NOW);
}

static void wrong_signatures_do_not_count(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *unsigned_id = rig_commit_record(rig, rig_approval(rig, 1), NULL);
        _cleanup_free_ char *foreign = rig_commit_record(rig, rig_approval(rig, 2), rig->mallory);
        json_object *claims_bob = rig_approval(rig, 3);

        json_object_object_del(claims_bob, "approved_by");
        json_add_str(claims_bob, "approved_by", "bob@example.org");
        _cleanup_free_ char *bob = rig_commit_record(rig, claims_bob, rig->key);
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);
        assert_null(view->refused);
        assert_refused(view, unsigned_id, FORGE_REFUSAL_SIGNATURE, "is not signed");
        assert_refused(view, foreign, FORGE_REFUSAL_SIGNATURE, "does not list");
        assert_null(rig_item(view, foreign)->record); /* not parsed */
        assert_refused(view, bob, FORGE_REFUSAL_SIGNATURE, "signed by alice@example.org, but approved_by says bob@example.org");
        assert_int_equal(view->next->n_accepted, 0);
        assert_int_equal(view->next->n_serials, 0);
}

static void another_namespace_does_not_count(void **state)
{
        struct rig *rig = *state;
        _cleanup_json_ json_object *record = rig_approval(rig, 1);
        _cleanup_free_ char *id = NULL, *text = record_write(record, &id), *sig = rig_sign(rig->key, "git", text);
        _cleanup_free_ char *path = mem_printf("github/%s.yaml", id), *sig_path = mem_printf("%s.sig", path);
        struct repo_file files[] = {{path, text, strlen(text)}, {sig_path, sig, strlen(sig)}};
        _cleanup_err_ struct err *err = NULL;

        assert_ok(repo_commit(&rig->conf, files, 2, "alice", "test", NULL, &err));
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);
        assert_refused(view, id, FORGE_REFUSAL_SIGNATURE, "does not verify");
}

static void another_audience_does_not_count(void **state)
{
        struct rig *rig = *state;
        json_object *record = rig_approval(rig, 1);

        json_object_object_del(record, "audience");
        json_add_str(record, "audience", "vps2.example.org");
        _cleanup_free_ char *id = rig_commit_record(rig, record, rig->key);
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);
        assert_refused(view, id, FORGE_REFUSAL_AUDIENCE, "is for vps2.example.org");
        assert_int_equal(view->next->n_accepted, 0);
}

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
        assert_counts(view, id); /* as the last accepted commit has it */
        /* The same on a host that sees it for the first time: nothing counts. */
        _cleanup_view_ struct forge_view *fresh = rig_read(rig, NULL, RIG_NOW);
        assert_refused(fresh, id, FORGE_REFUSAL_SIGNATURE, "does not verify");
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
        assert_counts(view, id);
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
        assert_counts(view, id); /* what was accepted stays known */
        assert_counts(view, old);
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
        assert_counts(view, id);
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
        assert_counts(view, id);
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
                assert_refused(view, link, FORGE_REFUSAL_FILE, says[i]);
                assert_counts(view, id);
        }
        /* A directory of a server as a link or submodule. */
        rig_rewrite(rig, "gitlab", "github", GIT_FILEMODE_LINK, true);
        rig_rewrite(rig, "jira", "x", GIT_FILEMODE_COMMIT, true);
        _cleanup_view_ struct forge_view *view = rig_read(rig, first->next, RIG_NOW);
        assert_refused(view, "gitlab", FORGE_REFUSAL_FILE, "symbolic link");
        assert_refused(view, "jira", FORGE_REFUSAL_FILE, "submodule");
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
        assert_refused(view, "github/deep", FORGE_REFUSAL_FILE, "directory below");
        assert_refused(view, "github/approval.yaml", FORGE_REFUSAL_FILE, "not a record's name");
        assert_refused(view, "f-1123456789abcdef", FORGE_REFUSAL_FILE, "signature without its record");
        assert_refused(view, "Upper", FORGE_REFUSAL_FILE, "not a server's name");
        assert_refused(view, "f-2123456789abcdef", FORGE_REFUSAL_FILE, "not in a server's directory");
        assert_counts(view, id);
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
        assert_counts(view, id);
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
        assert_refused(view, "f-0000000000000001", FORGE_REFUSAL_FILE, "more than the 65536 allowed");
        assert_refused(view, "f-0000000000000002", FORGE_REFUSAL_FILE, "f-0000000000000002.yaml:2:");
        assert_refused(view, "f-0000000000000003", FORGE_REFUSAL_FILE, "under the name of another");
        assert_refused(view, "f-0000000000000004", FORGE_REFUSAL_FILE, "UTF-8");
        assert_refused(view, moved, FORGE_REFUSAL_FILE, "but lies in gitlab/");
}

static void serials_are_never_replayed(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *seven = rig_commit_record(rig, rig_approval(rig, 7), rig->key);
        _cleanup_view_ struct forge_view *first = rig_read(rig, NULL, RIG_NOW);
        _cleanup_free_ char *six = rig_commit_record(rig, rig_approval(rig, 6), rig->key);
        json_object *again = rig_approval(rig, 7);

        json_add_str(again, "reason", "the same serial, other content");
        _cleanup_free_ char *seven_again = rig_commit_record(rig, again, rig->key),
                            *eight = rig_commit_record(rig, rig_approval(rig, 8), rig->key);
        _cleanup_view_ struct forge_view *view = rig_read(rig, first->next, RIG_NOW);
        assert_null(view->refused);
        assert_counts(view, seven);
        assert_refused(view, six, FORGE_REFUSAL_SERIAL, "replayed or out of order");
        assert_refused(view, seven_again, FORGE_REFUSAL_SERIAL, "replayed or out of order");
        assert_counts(view, eight);
        assert_int_equal(view->next->serials[0].serial, 8);
}

static void two_of_one_serial_both_fall(void **state)
{
        struct rig *rig = *state;
        json_object *other = rig_approval(rig, 3);

        json_add_str(other, "reason", "another");
        _cleanup_free_ char *a = rig_commit_record(rig, rig_approval(rig, 3), rig->key), *b = rig_commit_record(rig, other, rig->key);
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);
        assert_refused(view, a, FORGE_REFUSAL_SERIAL, "neither counts");
        assert_refused(view, b, FORGE_REFUSAL_SERIAL, "neither counts");
        assert_int_equal(view->next->n_accepted, 0);
}

/* A proposal is anybody's text: it can neither block a serial nor be asked for a signature. */
static void proposals_are_inert(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *proposal = rig_commit_record(rig, rig_record(rig, "Proposal", 900), NULL);
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 2), rig->key), *path = mem_printf("github/%s.yaml", proposal);
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);

        assert_counts(view, id);
        assert_null(rig_item(view, proposal)->refused);
        assert_int_equal(view->next->n_accepted, 1);
        assert_int_equal(view->next->serials[0].serial, 2);
        rig_rewrite(rig, path, NULL, GIT_FILEMODE_BLOB, true); /* and it may go */
        _cleanup_view_ struct forge_view *after = rig_read(rig, view->next, RIG_NOW);
        assert_null(after->refused);
}

static void a_revoked_key_ends_its_records(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key), *pub_path = mem_printf("%s.pub", rig->key),
                            *pub = NULL;
        _cleanup_view_ struct forge_view *first = rig_read(rig, NULL, RIG_NOW);
        _cleanup_err_ struct err *err = NULL;

        assert_ok(file_read(&pub, NULL, pub_path, 65536, FILE_ANY, &err));
        rig->conf.revoked_keys = rig_write(rig, "revoked", pub);
        _cleanup_view_ struct forge_view *view = rig_read(rig, first->next, RIG_NOW);
        assert_null(view->refused);
        assert_refused(view, id, FORGE_REFUSAL_SIGNATURE, "revoked");
}

/* A key that ran out does not take along what it signed while it was valid and was accepted then. */
static void first_acceptance_is_the_verify_time(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key);

        rig_trust(rig, "alice@example.org", "valid-before=\"20251125000000Z\"", rig->key);
        _cleanup_view_ struct forge_view *first = rig_read(rig, NULL, RIG_NOW);
        assert_counts(first, id);
        _cleanup_json_ json_object *saved = forge_state_to_json(first->next);
        _cleanup_(forge_state_freep) struct forge_state *restored = NULL; /* without the signatures known to be good */
        _cleanup_err_ struct err *err = NULL;
        assert_ok(forge_state_from_json(&restored, saved, &err));
        _cleanup_free_ char *late = rig_commit_record(rig, rig_approval(rig, 2), rig->key);
        _cleanup_view_ struct forge_view *view = rig_read(rig, restored, RIG_NOW + 5 * 86400);
        assert_counts(view, id);
        assert_refused(view, late, FORGE_REFUSAL_SIGNATURE, "not for that time");
        /* The clock set back does not bring the key back. */
        _cleanup_view_ struct forge_view *back = rig_read(rig, view->next, RIG_NOW);
        assert_refused(back, late, FORGE_REFUSAL_SIGNATURE, "not for that time");
}

static void a_revocation_in_a_refused_tip_counts(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key), *path = mem_printf("github/%s.yaml", id),
                            *good = rig_tip(rig);
        _cleanup_view_ struct forge_view *first = rig_read(rig, NULL, RIG_NOW);
        json_object *revocation = rig_record(rig, "Revocation", 2), *fake = rig_record(rig, "Revocation", 3);

        json_add_str(revocation, "proposal", id);
        _cleanup_free_ char *ended = rig_commit_record(rig, revocation, rig->key);
        _cleanup_free_ char *forged = rig_commit_record(rig, fake, rig->mallory);
        rig_rewrite(rig, path, NULL, GIT_FILEMODE_BLOB, true);
        _cleanup_view_ struct forge_view *view = rig_read(rig, first->next, RIG_NOW);
        assert_non_null(view->refused);
        assert_true(strv_contains(view->next->revoked, id));
        assert_int_equal(strv_len(view->next->revoked), 1); /* the forged one revokes nothing */
        assert_non_null(rig_item(view, ended));
        assert_null(rig_item(view, forged));
        assert_true(forge_state_revokes(view->next, rig_item(view, id)->record));
        /* It persists when the repository is put back to before it. */
        rig_move_ref(rig, good);
        _cleanup_view_ struct forge_view *after = rig_read(rig, view->next, RIG_NOW);
        assert_null(after->refused);
        assert_true(forge_state_revokes(after->next, rig_item(after, id)->record));
}

static void a_revocation_of_a_server_covers_what_is_below(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *one = rig_commit_record(rig, rig_approval(rig, 1), rig->key);
        _cleanup_free_ char *all = rig_commit_record(rig, rig_record(rig, "Revocation", 5), rig->key);
        _cleanup_free_ char *later = rig_commit_record(rig, rig_approval(rig, 6), rig->key);
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);

        assert_counts(view, all);
        assert_true(forge_state_revokes(view->next, rig_item(view, one)->record));
        assert_false(forge_state_revokes(view->next, rig_item(view, later)->record));
        struct record other = *rig_item(view, one)->record;
        other.server = (char *)"git";
        assert_false(forge_state_revokes(view->next, &other));
        struct forge_state longer_name = {.revoked = (char *[]){(char *)"git-5<9", NULL}};
        assert_false(forge_state_revokes(&longer_name, &other));
}

static void a_revocation_needs_a_signature_and_this_host(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key);
        json_object *elsewhere = rig_record(rig, "Revocation", 3);

        json_object_object_del(elsewhere, "audience");
        json_add_str(elsewhere, "audience", "vps2.example.org");
        free(rig_commit_record(rig, rig_record(rig, "Revocation", 2), NULL));
        free(rig_commit_record(rig, elsewhere, rig->key));
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);
        assert_int_equal(strv_len(view->next->revoked), 0);
        assert_false(forge_state_revokes(view->next, rig_item(view, id)->record));
}

/* A revocation that comes with a serial out of order is named as such, and still ends what it names: late is better than never. */
static void a_revocation_out_of_order_still_ends(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 5), rig->key);
        _cleanup_view_ struct forge_view *first = rig_read(rig, NULL, RIG_NOW);
        json_object *late = rig_record(rig, "Revocation", 4);

        json_add_str(late, "proposal", id);
        _cleanup_free_ char *late_id = rig_commit_record(rig, late, rig->key);
        _cleanup_view_ struct forge_view *view = rig_read(rig, first->next, RIG_NOW);
        assert_refused(view, late_id, FORGE_REFUSAL_SERIAL, "out of order");
        assert_true(forge_state_revokes(view->next, rig_item(view, id)->record));
}

static void unsigned_counts_only_where_configured(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 1), NULL);

        rig->conf.signatures_required = false;
        unlink(rig->conf.allowed_signers); /* not needed then */
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);
        assert_counts(view, id);
        assert_null(rig_item(view, id)->signer);
}

static void lost_state_refuses(void **state)
{
        struct rig *rig = *state;
        _cleanup_err_ struct err *err = NULL;
        _cleanup_view_ struct forge_view *view = NULL;
        _cleanup_free_ _unused_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key);

        assert_fails(forge_read(&view, &rig->conf, NULL, RIG_NOW, &err), "state is lost");
        static const char *const broken[] = {
                "{}",
                "[]",
                "{\"version\":2,\"accepted\":[],\"revoked\":[],\"serials\":{},\"time_floor\":0}",
                "{\"version\":1,\"revoked\":[],\"serials\":{},\"time_floor\":0}",
                "{\"version\":1,\"accepted\":[],\"serials\":{},\"time_floor\":0}",
                "{\"version\":1,\"accepted\":[],\"revoked\":[],\"time_floor\":0}",
                "{\"version\":1,\"accepted\":[],\"revoked\":[],\"serials\":{}}",
                "{\"version\":1,\"commit\":\"main\",\"accepted\":[],\"revoked\":[],\"serials\":{},\"time_floor\":0}",
                "{\"version\":1,\"commit\":7,\"accepted\":[],\"revoked\":[],\"serials\":{},\"time_floor\":0}",
                "{\"version\":1,\"accepted\":[],\"revoked\":[\"x\"],\"serials\":{},\"time_floor\":0}",
                "{\"version\":1,\"accepted\":[],\"revoked\":[],\"serials\":{\"github\":-1},\"time_floor\":0}",
                "{\"version\":1,\"accepted\":[{\"id\":\"f-0123456789abcdef\"}],\"revoked\":[],\"serials\":{},\"time_floor\":0}",
        };
        for (size_t i = 0; i < ELEMENTSOF(broken); i++) {
                _cleanup_json_ json_object *o = NULL;
                struct forge_state *s = NULL;
                assert_ok(json_parse(&o, broken[i], strlen(broken[i]), "state", NULL, &err));
                assert_fails(forge_state_from_json(&s, o, &err), "not whole");
                assert_null(s);
        }
}

static void state_survives_json(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ _unused_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key),
                                     *all = rig_commit_record(rig, rig_record(rig, "Revocation", 5), rig->key);
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);
        _cleanup_json_ json_object *o = forge_state_to_json(view->next);
        _cleanup_(forge_state_freep) struct forge_state *s = NULL;
        _cleanup_err_ struct err *err = NULL;

        assert_ok(forge_state_from_json(&s, o, &err));
        _cleanup_json_ json_object *again = forge_state_to_json(s);
        _cleanup_free_ char *a = json_canonical(o), *b = json_canonical(again);
        assert_string_equal(a, b);
        assert_int_equal(s->n_accepted, 2);
        assert_true(strv_contains(s->revoked, "github<5"));
}

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
        assert_counts(view, id);
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

/* A good signature is asked for once: afterwards the answer is carried along, as long as nothing it rests on changed. */
static void good_signatures_are_remembered(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key);
        _cleanup_view_ struct forge_view *first = rig_read(rig, NULL, RIG_NOW);

        assert_int_equal(first->next->n_verified, 1);
        /* Seen from outside: a false memory is believed, so the memory was used … */
        mem_replace(&first->next->verified[0].signer, mem_strdup("bob@example.org"));
        _cleanup_view_ struct forge_view *second = rig_read(rig, first->next, RIG_NOW + 60);
        assert_string_equal(rig_item(second, id)->signer, "bob@example.org");
        /* … and it is not used any more when the trust root changed. */
        rig_trust_add(rig, "carol@example.org", NULL, rig->mallory);
        _cleanup_view_ struct forge_view *third = rig_read(rig, first->next, RIG_NOW + 60);
        assert_string_equal(rig_item(third, id)->signer, "alice@example.org");
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
        assert_refused(view, id, FORGE_REFUSAL_FILE, "git object");
        assert_counts(view, other_id);
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
        assert_counts(view, id);
        assert_string_equal(view->commit, first->commit);
        _cleanup_free_ char *next = rig_commit_record(rig, rig_approval(rig, 2), rig->key); /* and goes on */
        _cleanup_view_ struct forge_view *after = rig_read(rig, view->next, RIG_NOW);
        assert_null(after->refused);
        assert_counts(after, next);
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

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(a_signed_approval_is_accepted),
                CASE(wrong_signatures_do_not_count),
                CASE(another_namespace_does_not_count),
                CASE(another_audience_does_not_count),
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
                CASE(serials_are_never_replayed),
                CASE(two_of_one_serial_both_fall),
                CASE(proposals_are_inert),
                CASE(a_revoked_key_ends_its_records),
                CASE(first_acceptance_is_the_verify_time),
                CASE(a_revocation_in_a_refused_tip_counts),
                CASE(a_revocation_of_a_server_covers_what_is_below),
                CASE(a_revocation_needs_a_signature_and_this_host),
                CASE(a_revocation_out_of_order_still_ends),
                CASE(unsigned_counts_only_where_configured),
                CASE(lost_state_refuses),
                CASE(state_survives_json),
                CASE(repositories_others_may_write_are_refused),
                CASE(borrowed_objects_and_symbolic_refs_are_refused),
                CASE(good_signatures_are_remembered),
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
