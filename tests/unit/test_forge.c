/* Reading records: which of them count, and which end others. Tips and history are in test_forge_history.c, verdicts in test_forge_judge.c.
 */
#include "common/file.h"
#include "common/forge/view.h"
#include "tests/unit/forge_rig.h"
#include "tests/unit/test.h"

#define _cleanup_view_ _cleanup_(forge_view_freep)

static void a_signed_approval_is_accepted(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 7), rig->key);
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);
        _cleanup_free_ char *tip = rig_tip(rig);

        assert_null(view->refused);
        assert_string_equal(view->commit, tip);
        rig_assert_counts(view, id);
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
        rig_assert_refused(view, unsigned_id, FORGE_REFUSAL_SIGNATURE, "is not signed");
        rig_assert_refused(view, foreign, FORGE_REFUSAL_SIGNATURE, "does not list");
        assert_null(rig_item(view, foreign)->record); /* not parsed */
        rig_assert_refused(view, bob, FORGE_REFUSAL_SIGNATURE, "signed by alice@example.org, but approved_by says bob@example.org");
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
        rig_assert_refused(view, id, FORGE_REFUSAL_SIGNATURE, "does not verify");
}

static void another_audience_does_not_count(void **state)
{
        struct rig *rig = *state;
        json_object *record = rig_approval(rig, 1);

        json_object_object_del(record, "audience");
        json_add_str(record, "audience", "vps2.example.org");
        _cleanup_free_ char *id = rig_commit_record(rig, record, rig->key);
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);
        rig_assert_refused(view, id, FORGE_REFUSAL_AUDIENCE, "is for vps2.example.org");
        assert_int_equal(view->next->n_accepted, 0);
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
        rig_assert_counts(view, seven);
        rig_assert_refused(view, six, FORGE_REFUSAL_SERIAL, "replayed or out of order");
        rig_assert_refused(view, seven_again, FORGE_REFUSAL_SERIAL, "replayed or out of order");
        rig_assert_counts(view, eight);
        assert_int_equal(view->next->serials[0].serial, 8);
}

static void two_of_one_serial_both_fall(void **state)
{
        struct rig *rig = *state;
        json_object *other = rig_approval(rig, 3);

        json_add_str(other, "reason", "another");
        _cleanup_free_ char *a = rig_commit_record(rig, rig_approval(rig, 3), rig->key), *b = rig_commit_record(rig, other, rig->key);
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);
        rig_assert_refused(view, a, FORGE_REFUSAL_SERIAL, "neither counts");
        rig_assert_refused(view, b, FORGE_REFUSAL_SERIAL, "neither counts");
        assert_int_equal(view->next->n_accepted, 0);
}

/* A proposal is anybody's text: it can neither block a serial nor be asked for a signature. */
static void proposals_are_inert(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *proposal = rig_commit_record(rig, rig_record(rig, "Proposal", 900), NULL);
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 2), rig->key), *path = mem_printf("github/%s.yaml", proposal);
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);

        rig_assert_counts(view, id);
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
        rig_assert_refused(view, id, FORGE_REFUSAL_SIGNATURE, "revoked");
}

/* A key that ran out does not take along what it signed while it was valid and was accepted then. */
static void first_acceptance_is_the_verify_time(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 1), rig->key);

        rig_trust(rig, "alice@example.org", "valid-before=\"20251125000000Z\"", rig->key);
        _cleanup_view_ struct forge_view *first = rig_read(rig, NULL, RIG_NOW);
        rig_assert_counts(first, id);
        _cleanup_json_ json_object *saved = forge_state_to_json(first->next);
        _cleanup_(forge_state_freep) struct forge_state *restored = NULL; /* without the signatures known to be good */
        _cleanup_err_ struct err *err = NULL;
        assert_ok(forge_state_from_json(&restored, saved, &err));
        _cleanup_free_ char *late = rig_commit_record(rig, rig_approval(rig, 2), rig->key);
        _cleanup_view_ struct forge_view *view = rig_read(rig, restored, RIG_NOW + 5 * 86400);
        rig_assert_counts(view, id);
        rig_assert_refused(view, late, FORGE_REFUSAL_SIGNATURE, "not for that time");
        /* The clock set back does not bring the key back. */
        _cleanup_view_ struct forge_view *back = rig_read(rig, view->next, RIG_NOW);
        rig_assert_refused(back, late, FORGE_REFUSAL_SIGNATURE, "not for that time");
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

        rig_assert_counts(view, all);
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
        rig_assert_refused(view, late_id, FORGE_REFUSAL_SERIAL, "out of order");
        assert_true(forge_state_revokes(view->next, rig_item(view, id)->record));
}

static void unsigned_counts_only_where_configured(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *id = rig_commit_record(rig, rig_approval(rig, 1), NULL);

        rig->conf.signatures_required = false;
        unlink(rig->conf.allowed_signers); /* not needed then */
        _cleanup_view_ struct forge_view *view = rig_read(rig, NULL, RIG_NOW);
        rig_assert_counts(view, id);
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

#define CASE(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(a_signed_approval_is_accepted),
                CASE(wrong_signatures_do_not_count),
                CASE(another_namespace_does_not_count),
                CASE(another_audience_does_not_count),
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
                CASE(good_signatures_are_remembered),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
