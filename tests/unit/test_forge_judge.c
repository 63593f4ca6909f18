/* The verdict, and the way of a view through the helper program. */
#include <signal.h>
#include <unistd.h>

#include "common/file.h"
#include "common/forge/view.h"
#include "common/spawn.h"
#include "tests/unit/forge_rig.h"
#include "tests/unit/test.h"

#define _cleanup_view_ _cleanup_(forge_view_freep)

/* Judges rig_entry() with `extra`; the sentence must hold `says`. */
static void assert_verdict(struct rig *rig, const struct forge_view *view, const char *extra, time_t now, enum forge_verdict wanted,
                           const char *says)
{
        _cleanup_(registry_entry_freep) struct registry_entry *entry = rig_entry(rig, extra);
        const struct record *record = NULL;
        _cleanup_(spec_freep) struct spec *spec = NULL;
        _cleanup_free_ char *why = NULL;
        enum forge_verdict v = forge_judge(view, entry, &rig->conf, now, &record, &spec, &why);

        if (v != wanted || !why || !strstr(why, says))
                print_error("%s: %s\n", forge_verdict_name(v), why);
        assert_int_equal(v, wanted);
        assert_non_null(strstr(why, says));
        if (v == FORGE_APPROVED) {
                assert_non_null(record);
                assert_non_null(spec);
                assert_string_equal(spec->hex, record->spec_sha256);
        } else if (v != FORGE_HISTORY_REFUSED) {
                assert_null(spec);
        }
}

static void set(json_object *o, const char *key, const char *value)
{
        json_object_object_del(o, key);
        json_add_str(o, key, value);
}

static void the_approved_entry_runs(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key);
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);

        assert_verdict(rig, view, NULL, RIG_NOW, FORGE_APPROVED, id);
        assert_verdict(rig, view, "{\"enabled\":false}", RIG_NOW, FORGE_APPROVED, id); /* no new thing to approve */
}

static void nothing_else_runs(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key);
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);
        static const char digest[] =
                "{\"image\":\"registry.example/mcp/github:1.4@sha256:2222222222222222222222222222222222222222222222222222222222222222\"}";
        static const char name[] =
                "{\"image\":\"registry.example/mcp/other:1.4@sha256:1111111111111111111111111111111111111111111111111111111111111111\"}";

        assert_verdict(rig, view, digest, RIG_NOW, FORGE_DIGEST_MISMATCH, "propose");
        assert_verdict(rig, view, name, RIG_NOW, FORGE_DIGEST_MISMATCH, "mcp/other");
        assert_verdict(rig, view, "{\"args\":[\"--all\"]}", RIG_NOW, FORGE_ENTRY_MISMATCH, id);
        assert_verdict(rig, view, "{\"secrets\":[\"OTHER_TOKEN\"]}", RIG_NOW, FORGE_ENTRY_MISMATCH, "propose");
        assert_verdict(rig, view, "{\"egress\":[{\"cidr\":\"0.0.0.0/0\",\"ports\":[443]}]}", RIG_NOW, FORGE_ENTRY_MISMATCH, "propose");
        assert_verdict(rig, view, "{\"resources\":{\"memory\":\"1g\"}}", RIG_NOW, FORGE_ENTRY_MISMATCH, "propose");
}

/* One record each that is signed, but binds something else than what is declared and built. */
static void a_record_binds_all_it_says(void **state)
{
        struct rig *rig = *state;
        static const struct {
                const char *key, *value, *says;
                enum forge_verdict verdict;
        } cases[] = {
                {"entry_sha256", "2222222222222222222222222222222222222222222222222222222222222222", "not the one", FORGE_ENTRY_MISMATCH},
                {"spec_sha256", "2222222222222222222222222222222222222222222222222222222222222222", "container that would be made",
                 FORGE_SPEC_MISMATCH},
                {"source.digest", "sha256:2222222222222222222222222222222222222222222222222222222222222222", "image digest",
                 FORGE_DIGEST_MISMATCH},
                {"source.platform", "linux/riscv64", "platform linux/riscv64", FORGE_DIGEST_MISMATCH},
                {"source.image_id", "sha256:2222222222222222222222222222222222222222222222222222222222222222",
                 "container that would be made", FORGE_SPEC_MISMATCH},
                {"secrets", NULL, "other secrets", FORGE_ENTRY_MISMATCH},
                {"egress", NULL, "other egress", FORGE_ENTRY_MISMATCH},
        };

        _cleanup_view_ struct forge_view *last = NULL;
        for (unsigned i = 0; i < ELEMENTSOF(cases); i++) {
                json_object *record = rig_approval(rig, i + 1);
                const char *dot = strchr(cases[i].key, '.');

                if (cases[i].value)
                        set(dot ? json_get(record, "source") : record, dot ? dot + 1 : cases[i].key, cases[i].value);
                else
                        json_object_object_del(record, cases[i].key);
                free(rig_commit_record(rig, record, rig->key));
                struct forge_view *view = rig_read(rig, last ? last->next : NULL, RIG_NOW);
                forge_view_free(last);
                last = view;
                assert_verdict(rig, view, NULL, RIG_NOW, cases[i].verdict, cases[i].says);
        }
}

static void time_runs_one_way(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key);
        const time_t expiry = 1779235200; /* 2026-05-20T00:00:00Z */
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);

        assert_verdict(rig, view, NULL, expiry - 1, FORGE_APPROVED, id);
        assert_verdict(rig, view, NULL, expiry, FORGE_EXPIRED, "expired at 2026-05-20T00:00:00Z");
        _cleanup_view_ struct forge_view *later = rig_read(rig, view->next, expiry + 5);
        assert_verdict(rig, later, NULL, RIG_NOW, FORGE_EXPIRED, "expired"); /* the clock was set back */
}

static void revocation_ends_an_approval_for_ever(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key), *before = rig_tip(rig);
        json_object *revocation = rig_record(rig, "Revocation", 2);

        json_add_str(revocation, "proposal", id);
        free(rig_commit_record(rig, revocation, rig->key));
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);
        assert_verdict(rig, view, NULL, RIG_NOW, FORGE_REVOKED, id);
        rig_move_ref(rig, before);
        _cleanup_view_ struct forge_view *back = rig_read(rig, view->next, RIG_NOW);
        assert_verdict(rig, back, NULL, RIG_NOW, FORGE_REVOKED, "history is refused");
        rig_move_ref(rig, view->commit);
        free(rig_commit_record(rig, rig_approval(rig, 3), rig->key)); /* a new one may run */
        _cleanup_view_ struct forge_view *anew = rig_read(rig, view->next, RIG_NOW);
        assert_verdict(rig, anew, NULL, RIG_NOW, FORGE_APPROVED, "approved");
}

static void only_the_highest_serial_decides(void **state)
{
        struct rig *rig = *state;
        json_object *other = rig_approval(rig, 2);

        set(other, "entry_sha256", "2222222222222222222222222222222222222222222222222222222222222222");
        free(rig_commit_record(rig, rig_approval(rig, 1), rig->key));
        _cleanup_free_ char *two = rig_commit_record(rig, other, rig->key);
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);
        assert_verdict(rig, view, NULL, RIG_NOW, FORGE_ENTRY_MISMATCH, two);
        json_object *end = rig_record(rig, "Revocation", 3); /* the second ends; the first stays superseded */
        json_add_str(end, "proposal", two);
        free(rig_commit_record(rig, end, rig->key));
        _cleanup_view_ struct forge_view *after = rig_read(rig, view->next, RIG_NOW);
        assert_verdict(rig, after, NULL, RIG_NOW, FORGE_REVOKED, two);
}

static void a_revoked_key_does_not_bring_back_what_it_superseded(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *bob = rig_make_key(rig, "bob"), *pub = NULL, *pub_path = mem_printf("%s.pub", bob);
        json_object *by_bob = rig_approval(rig, 2);
        _cleanup_err_ struct err *err = NULL;

        rig_trust_add(rig, "bob@example.org", NULL, bob);
        set(by_bob, "approved_by", "bob@example.org");
        free(rig_commit_record(rig, rig_approval(rig, 1), rig->key));
        _cleanup_free_ char *two = rig_commit_record(rig, by_bob, bob);
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);
        assert_verdict(rig, view, NULL, RIG_NOW, FORGE_APPROVED, two);
        assert_ok(file_read(&pub, NULL, pub_path, 65536, FILE_ANY, &err));
        rig->conf.revoked_keys = rig_write(rig, "revoked", pub);
        _cleanup_view_ struct forge_view *after = rig_read(rig, view->next, RIG_NOW);
        assert_verdict(rig, after, NULL, RIG_NOW, FORGE_BAD_SIGNATURE, two);
}

static void every_refusal_says_what_to_do(void **state)
{
        struct rig *rig = *state;
        json_object *rejection = rig_record(rig, "Rejection", 20), *elsewhere = rig_approval(rig, 30),
                    *old_reject = rig_record(rig, "Rejection", 41);
        struct forge_view *views[6];

        free(rig_commit_record(rig, rig_record(rig, "Revocation", 1), rig->key));
        views[0] = rig_read(rig, NULL, RIG_NOW);
        assert_verdict(rig, views[0], NULL, RIG_NOW, FORGE_UNAPPROVED, "bulkhead propose github");
        _cleanup_free_ char *proposal = rig_commit_record(rig, rig_record(rig, "Proposal", 10), NULL);
        views[1] = rig_read(rig, NULL, RIG_NOW);
        assert_verdict(rig, views[1], NULL, RIG_NOW, FORGE_UNAPPROVED, "bulkhead approve f-");
        json_add_str(rejection, "proposal", proposal);
        json_add_str(rejection, "reason", "not \xe2\x80\xae this");
        free(rig_commit_record(rig, rejection, rig->key));
        views[2] = rig_read(rig, NULL, RIG_NOW);
        assert_verdict(rig, views[2], NULL, RIG_NOW, FORGE_REJECTED, "not \\u{202e} this");
        set(elsewhere, "audience", "vps2.example.org");
        free(rig_commit_record(rig, elsewhere, rig->key));
        views[3] = rig_read(rig, NULL, RIG_NOW);
        assert_verdict(rig, views[3], NULL, RIG_NOW, FORGE_AUDIENCE_MISMATCH, "vps2.example.org");
        _cleanup_free_ char *forged = rig_commit_record(rig, rig_approval(rig, 35), rig->mallory);
        views[4] = rig_read(rig, NULL, RIG_NOW);
        assert_verdict(rig, views[4], NULL, RIG_NOW, FORGE_BAD_SIGNATURE, forged);
        /* A rejection ends the approval of its proposal. */
        json_object *approval = rig_approval(rig, 40);
        json_add_str(approval, "proposal", "f-0123456789abcdef");
        free(rig_commit_record(rig, approval, rig->key));
        json_add_str(old_reject, "proposal", "f-0123456789abcdef");
        free(rig_commit_record(rig, old_reject, rig->key));
        views[5] = rig_read(rig, NULL, RIG_NOW);
        assert_verdict(rig, views[5], NULL, RIG_NOW, FORGE_REJECTED, "f-0123456789abcdef");
        for (size_t i = 0; i < ELEMENTSOF(views); i++)
                forge_view_free(views[i]);
}

static void a_refused_history_lets_stay_but_not_start(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key), *path = mem_printf("github/%s.yaml", id);
        _cleanup_view_ struct forge_view *first = rig_read(rig, NULL, RIG_NOW);

        rig_rewrite(rig, path, NULL, GIT_FILEMODE_BLOB, true);
        free(rig_commit_record(rig, rig_approval(rig, 2), rig->key));
        _cleanup_view_ struct forge_view *view = rig_read(rig, first->next, RIG_NOW);
        _cleanup_(registry_entry_freep) struct registry_entry *entry = rig_entry(rig, NULL);
        const struct record *record = NULL;
        _cleanup_(spec_freep) struct spec *spec = NULL;
        _cleanup_free_ char *why = NULL;
        assert_int_equal(forge_judge(view, entry, &rig->conf, RIG_NOW, &record, &spec, &why), FORGE_HISTORY_REFUSED);
        assert_string_equal(record->id, id); /* the accepted one, not the new one of the refused tip */
        assert_non_null(spec);
        assert_non_null(strstr(why, "gone"));
        assert_verdict(rig, view, NULL, 1779235200, FORGE_EXPIRED, "expired"); /* what runs must still end in time */
}

/* -- through the helper ------------------------------------------------------------------------------------------------------ */

struct answer {
        sd_event *loop;
        struct forge_view *view;
        struct err *err;
        unsigned calls;
};

static void on_view(struct forge_view *view, struct err *err, void *user)
{
        struct answer *a = user;

        a->view = view;
        a->err = err_dup(err);
        a->calls++;
        sd_event_exit(a->loop, 0);
}

static void helper_in_build_tree(struct rig *rig)
{
        const char *top = getenv("top_builddir");

        mem_replace(&rig->conf.helper_dir, realpath(top ? top : ".", NULL));
}

static void ask_helper(struct rig *rig, const struct forge_state *state, struct answer *a)
{
        _cleanup_err_ struct err *err = NULL;
        struct spawn *spawn = NULL;
        sigset_t mask;

        sigemptyset(&mask);
        sigaddset(&mask, SIGCHLD);
        sigprocmask(SIG_BLOCK, &mask, NULL);
        *a = (struct answer){0};
        assert_true(sd_event_new(&a->loop) >= 0);
        assert_ok(forge_read_start(&spawn, a->loop, &rig->conf, state, on_view, a, &err));
        assert_true(sd_event_loop(a->loop) >= 0);
        a->loop = sd_event_unref(a->loop);
        assert_int_equal(a->calls, 1);
}

static void the_helper_gives_the_same_view(void **state)
{
        struct rig *rig = *state;
        static const struct forge_state empty;
        json_object *lasting = rig_approval(rig, 3); /* the helper goes by the real clock */

        set(lasting, "expires_at", "2999-01-01T00:00:00Z");
        _cleanup_free_ char *superseded = rig_commit_record(rig, rig_approval(rig, 1), rig->key);
        _cleanup_free_ char *former = rig_commit_record(rig, rig_approval(rig, 2), rig->key),
                            *id = rig_commit_record(rig, lasting, rig->key);
        _cleanup_free_ char *open = rig_commit_record(rig, rig_record(rig, "Proposal", 4), NULL);
        _cleanup_free_ char *forged = rig_commit_record(rig, rig_approval(rig, 5), rig->mallory);
        struct answer a;

        helper_in_build_tree(rig);
        ask_helper(rig, &empty, &a);
        if (a.err)
                print_error("%s\n", err_msg(a.err));
        assert_non_null(a.view);
        _cleanup_view_ struct forge_view *view = a.view;
        assert_verdict(rig, view, NULL, RIG_NOW, FORGE_APPROVED, id);
        assert_null(rig_item(view, superseded)); /* slim */
        assert_non_null(rig_item(view, former));
        assert_null(rig_item(view, id)->record->json);
        assert_null(rig_item(view, id)->record->entry);
        assert_non_null(rig_item(view, open)->record->entry);
        assert_int_equal(rig_item(view, forged)->refusal, FORGE_REFUSAL_SIGNATURE);
        assert_int_equal(view->next->n_accepted, 3);
        assert_int_equal(view->next->n_verified, 3);
        ask_helper(rig, view->next, &a); /* and again from the state it gave */
        assert_non_null(a.view);
        assert_null(a.view->refused);
        assert_string_equal(a.view->next->commit, view->next->commit);
        forge_view_free(a.view);
}

static void the_helper_hands_on_errors(void **state)
{
        struct rig *rig = *state;
        static const struct forge_state empty;
        struct answer a;

        helper_in_build_tree(rig);
        ask_helper(rig, &empty, &a); /* no repository yet */
        assert_null(a.view);
        assert_int_equal(err_code(a.err), ERR_NOT_FOUND);
        assert_non_null(strstr(err_msg(a.err), rig->conf.approvals_repository));
        err_free(a.err);
        ask_helper(rig, NULL, &a);
        assert_null(a.view);
        assert_int_equal(err_code(a.err), ERR_DENIED);
        err_free(a.err);
}

/* A helper that is somebody else's program: what it says is not believed. */
static void a_wrong_answer_is_an_error(void **state)
{
        struct rig *rig = *state;
        static const struct forge_state empty;
        static const char *const scripts[] = {
                "#!/bin/sh\ncat >/dev/null\necho '{}'\n",
                "#!/bin/sh\ncat >/dev/null\necho 'not json'\n",
                "#!/bin/sh\ncat >/dev/null\nexit 3\n",
                "#!/bin/sh\ncat >/dev/null\necho "
                "'{\"items\":[{\"path\":\"a\",\"refusal\":0}],\"state\":{\"version\":1,\"accepted\":[],\"revoked\":[],\"serials\":{},"
                "\"time_floor\":0},\"verified\":{}}'\n",
        };

        for (size_t i = 0; i < ELEMENTSOF(scripts); i++) {
                _cleanup_free_ char *path = mem_printf("%s/bulkhead-forge-read", rig->dir);
                _cleanup_err_ struct err *err = NULL;
                struct answer a;
                assert_ok(file_write_atomic(path, scripts[i], strlen(scripts[i]), 0755, &err));
                mem_replace(&rig->conf.helper_dir, mem_strdup(rig->dir));
                ask_helper(rig, &empty, &a);
                assert_null(a.view);
                assert_non_null(a.err);
                err_free(a.err);
        }
}

static void a_cancelled_read_never_calls(void **state)
{
        struct rig *rig = *state;
        static const struct forge_state empty;
        _cleanup_err_ struct err *err = NULL;
        struct spawn *spawn = NULL;
        struct answer a = {0};

        free(rig_commit_record(rig, rig_approval(rig, 1), rig->key));
        helper_in_build_tree(rig);
        assert_true(sd_event_new(&a.loop) >= 0);
        assert_ok(forge_read_start(&spawn, a.loop, &rig->conf, &empty, on_view, &a, &err));
        spawn_cancel(spawn);
        assert_true(sd_event_run(a.loop, 200000) >= 0);
        sd_event_unref(a.loop);
        assert_int_equal(a.calls, 0);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(the_approved_entry_runs),
                CASE(nothing_else_runs),
                CASE(a_record_binds_all_it_says),
                CASE(time_runs_one_way),
                CASE(revocation_ends_an_approval_for_ever),
                CASE(only_the_highest_serial_decides),
                CASE(a_revoked_key_does_not_bring_back_what_it_superseded),
                CASE(every_refusal_says_what_to_do),
                CASE(a_refused_history_lets_stay_but_not_start),
                CASE(the_helper_gives_the_same_view),
                CASE(the_helper_hands_on_errors),
                CASE(a_wrong_answer_is_an_error),
                CASE(a_cancelled_read_never_calls),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
