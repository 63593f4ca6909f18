#include "common/forge/record.h"
#include "common/yaml.h"
#include "tests/unit/test.h"

#define HEX64  "00000000000000000000000000000000000000000000000000000000000000aa"
#define DIGEST "sha256:" HEX64

static json_object *value(const char *json)
{
        _cleanup_err_ struct err *err = NULL;
        json_object *o = NULL;

        assert_ok(json_parse(&o, json, strlen(json), "test", NULL, &err));
        return o;
}

#define COMMON(kind)                                                                                                                       \
        "\"apiVersion\":\"bulkhead/v1\",\"kind\":\"" kind "\",\"serial\":7,\"audience\":\"vps1.example.org\",\"server\":\"github\""
#define SIGNED "\"approved_by\":\"alice@example.org\",\"approved_at\":\"2026-11-20T10:05:00Z\""
#define SOURCE                                                                                                                             \
        "\"source\":{\"type\":\"docker_image\",\"reference\":\"registry.example/mcp/github:1.4\",\"digest\":\"" DIGEST                     \
        "\",\"platform\":\"linux/amd64\",\"platform_digest\":\"" DIGEST "\",\"image_id\":\"" DIGEST "\",\"volumes\":[\"/data\"]}"
#define HASHES "\"entry_sha256\":\"" HEX64 "\",\"spec_sha256\":\"" HEX64 "\",\"manifest_sha256\":\"" HEX64 "\""
#define SMOKE  "\"smoke_test\":{\"result\":\"pass\",\"at\":\"2026-11-20T10:00:00Z\",\"protocol\":\"2025-11-25\",\"duration_ms\":812}"

static const char approval[] = "{" COMMON(
        "Approval") "," SOURCE "," HASHES "," SMOKE "," SIGNED
                    ",\"proposal\":\"f-0123456789abcdef\",\"tools\":[\"create_issue\",\"get_me\"],\"secrets\":[\"GITHUB_TOKEN\"],"
                    "\"egress\":[\"tcp api.github.com:443\"],\"proposed_by\":\"agent-1\",\"proposed_at\":\"2026-11-20T09:58:00Z\","
                    "\"expires_at\":\"2027-05-20T00:00:00Z\",\"reason\":\"needed for release "
                    "notes\",\"entry\":{\"cpus\":0.5,\"args\":[\"b\",\"a\"]}}";

static int parse_value(struct record **ret, json_object *o, struct err **err)
{
        _cleanup_free_ char *text = record_write(o, NULL);

        return record_parse(ret, text, strlen(text), "r.yaml", err);
}

static void written_record_reads_back(_unused_ void **state)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_json_ json_object *o = value(approval);
        _cleanup_(record_freep) struct record *r = NULL;
        _cleanup_free_ char *id = NULL, *text = record_write(o, &id);

        assert_string_equal(json_str(o, "id"), id);
        assert_ok(record_parse(&r, text, strlen(text), "r.yaml", &err));
        assert_string_equal(r->id, id);
        assert_int_equal(r->kind, RECORD_APPROVAL);
        assert_int_equal(r->serial, 7);
        assert_string_equal(r->image->reference, "registry.example/mcp/github:1.4");
        assert_string_equal(r->image->volumes[0], "/data");
        assert_string_equal(r->proposal, "f-0123456789abcdef");
        assert_string_equal(r->tools[1], "get_me");
        assert_string_equal(r->egress[0], "tcp api.github.com:443");
        assert_string_equal(r->reason, "needed for release notes");
        assert_int_equal(r->expires_at, 1810771200); /* date -u -d 2027-05-20 +%s */
        _cleanup_free_ char *before = json_canonical(o), *after = json_canonical(r->json);
        assert_string_equal(before, after);
}

/* Two ways of writing the same value give the same bytes: else a signature would depend on who assembled the record. */
static void order_of_members_does_not_matter(_unused_ void **state)
{
        _cleanup_json_ json_object *a = value(approval), *b = json_object_new_object();
        _cleanup_free_ char *canonical = json_canonical(a);
        _cleanup_json_ json_object *sorted = value(canonical);

        /* reversed */
        for (size_t left = (size_t)json_object_object_length(sorted); left; left--) {
                size_t i = 0;
                json_object_object_foreach (sorted, key, v) {
                        if (++i == left)
                                json_add(b, key, json_object_get(v));
                }
        }
        _cleanup_free_ char *x = record_write(a, NULL), *y = record_write(b, NULL);
        assert_string_equal(x, y);
}

static void an_edited_record_is_refused(_unused_ void **state)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_json_ json_object *o = value(approval);
        _cleanup_(record_freep) struct record *r = NULL;
        _cleanup_free_ char *text = record_write(o, NULL);
        char *serial = strstr(text, "serial: 7");

        assert_non_null(serial);
        serial[8] = '9';
        assert_fails(record_parse(&r, text, strlen(text), "r.yaml", &err), "the record was edited");
}

static void id_covers_the_nested_entry(_unused_ void **state)
{
        _cleanup_json_ json_object *o = value(approval);
        _cleanup_free_ char *before = record_compute_id(o);

        json_add(json_get(o, "entry"), "image", json_object_new_string("evil"));
        _cleanup_free_ char *after = record_compute_id(o);
        assert_string_not_equal(before, after);
        assert_true(record_id_valid(after));
}

/* change: a JSON object whose members replace (null: remove) members of the approval; dotted into `source` and `smoke_test` by nesting. */
static void merge(json_object *into, json_object *change)
{
        json_object_object_foreach (change, key, v) {
                json_object *old = json_get(into, key);
                if (json_object_is_type(v, json_type_object) && json_object_is_type(old, json_type_object) && strcmp(key, "entry") != 0) {
                        merge(old, v);
                        continue;
                }
                json_object_object_del(into, key);
                if (v)
                        json_add(into, key, json_object_get(v));
        }
}

static void bad_records_are_refused_by_name(_unused_ void **state)
{
        static const struct {
                const char *change, *says;
        } cases[] = {
                {"{\"apiVersion\":\"bulkhead/v2\"}", "bulkhead/v1"},
                {"{\"kind\":\"Approvals\"}", "must be Proposal"},
                {"{\"kind\":null}", "kind"},
                {"{\"server\":\"../etc\"}", "server: must be a server name"},
                {"{\"server\":\"Github\"}", "server: must be a server name"},
                {"{\"server\":7}", "server: must be a server name"},
                {"{\"serial\":0}", "serial: must be an integer"},
                {"{\"serial\":-3}", "serial: must be an integer"},
                {"{\"serial\":1.5}", "serial: must be an integer"},
                {"{\"serial\":\"7\"}", "serial: must be an integer"},
                {"{\"serial\":null}", "needs the key serial"},
                {"{\"audience\":\"a b\"}", "audience: must match"},
                {"{\"audience\":\"\"}", "audience: must match"},
                {"{\"proposal\":\"f-0123\"}", "proposal: must be f-"},
                {"{\"entry_sha256\":\"AA\"}", "entry_sha256: must be 64"},
                {"{\"manifest_sha256\":null}", "needs the key manifest_sha256"},
                {"{\"spec_sha256\":null}", "needs the key spec_sha256"},
                {"{\"tools\":\"all\"}", "tools: must be a list"},
                {"{\"tools\":[\"a\",\"a\"]}", "twice"},
                {"{\"tools\":[1]}", "must be a string"},
                {"{\"tools\":[\"a\\u0007\"]}", "control character"},
                {"{\"reason\":\"two\\nlines\"}", "control character"},
                {"{\"reason\":\"\\u009b2J\"}", "control character"},
                {"{\"approved_by\":\"\"}", "must be 1 to"},
                {"{\"approved_by\":null}", "needs the key approved_by"},
                {"{\"approved_at\":\"yesterday\"}", "approved_at: must be a time"},
                {"{\"approved_at\":\"2026-11-20T10:05:00+01:00\"}", "approved_at: must be a time"},
                {"{\"expires_at\":\"2026-11-20T10:05:00Z\"}", "later than approved_at"},
                {"{\"smoke_test\":null}", "needs the key smoke_test"},
                {"{\"smoke_test\":{\"result\":\"fail\"}}", "smoke test that passed"},
                {"{\"smoke_test\":{\"result\":\"maybe\"}}", "pass or fail"},
                {"{\"smoke_test\":{\"extra\":1}}", "unknown key"},
                {"{\"smoke_test\":{\"duration_ms\":-1}}", "milliseconds"},
                {"{\"source\":{\"type\":\"git_repo\"}}", "docker_image"},
                {"{\"source\":{\"digest\":\"sha256:00\"}}", "digest: must be sha256:"},
                {"{\"source\":{\"digest\":null}}", "needs the key source.digest"},
                {"{\"source\":{\"image_id\":null}}", "needs the key source.image_id"},
                {"{\"source\":{\"extra\":1}}", "unknown key"},
                {"{\"source\":null}", "needs the key source"},
                {"{\"entry\":[]}", "entry: must be a registry entry"},
                {"{\"extra\":1}", "extra: unknown key"},
                {"{\"kind\":\"Revocation\"}", "does not belong into a Revocation"},
                {"{\"kind\":\"Rejection\"}", "does not belong into a Rejection"},
                {"{\"kind\":\"Proposal\"}", "does not belong into a Proposal"},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_err_ struct err *err = NULL;
                _cleanup_json_ json_object *o = value(approval), *change = value(cases[i].change);
                _cleanup_(record_freep) struct record *r = NULL;

                merge(o, change);
                if (parse_value(&r, o, &err) == 0)
                        print_error("accepted: %s\n", cases[i].change);
                assert_null(r);
                assert_non_null(err);
                if (!strstr(err_msg(err), cases[i].says))
                        print_error("%s gave: %s\n", cases[i].change, err_msg(err));
                assert_non_null(strstr(err_msg(err), cases[i].says));
        }
}

static void errors_name_line_and_column(_unused_ void **state)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_(record_freep) struct record *r = NULL;
        static const char text[] = "apiVersion: bulkhead/v1\nkind: Revocation\n\nserial: many\n";

        assert_fails(record_parse(&r, text, strlen(text), "github/f-1.yaml", &err), "needs the key id");
        static const char bad[] = "apiVersion: bulkhead/v1\nkind: Revocation\n\nwhatever: many\n";
        assert_fails(record_parse(&r, bad, strlen(bad), "github/f-1.yaml", &err), "github/f-1.yaml:4:1: whatever: unknown key");
}

static void hostile_text_is_refused(_unused_ void **state)
{
        static const char *const texts[] = {
                "",
                "[]",
                "just text",
                "a: 1\na: 2\n",
                "a: &x 1\nb: *x\n",
                "a: !!binary aaaa\n",
                "---\na: 1\n---\nb: 2\n",
                "a: \"\\0\"\n",
                "a: \xff\xfe\n",
                "a: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]\n",
                "apiVersion: bulkhead/v1\nkind: Approval\nserial: 18446744073709551616\n",
        };

        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                _cleanup_err_ struct err *err = NULL;
                _cleanup_(record_freep) struct record *r = NULL;
                assert_int_equal(record_parse(&r, texts[i], strlen(texts[i]), "r.yaml", &err), -1);
                assert_non_null(err);
                assert_null(r);
        }
}

static void oversized_text_is_refused(_unused_ void **state)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_(record_freep) struct record *r = NULL;
        _cleanup_json_ json_object *o = value(approval);
        _cleanup_free_ char *text = record_write(o, NULL);
        _cleanup_buf_ struct buf b = {0};

        buf_adds(&b, text);
        while (b.len <= RECORD_MAX_BYTES)
                buf_adds(&b, "# nothing to see here, but a lot of it\n");
        assert_int_equal(record_parse(&r, b.data, b.len, "r.yaml", &err), -1);
        assert_null(r);
}

static void small_kinds_are_small(_unused_ void **state)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_json_ json_object *revocation = value("{" COMMON("Revocation") "," SIGNED "}");
        _cleanup_json_ json_object *rejection = value("{" COMMON("Rejection") "," SIGNED ",\"proposal\":\"f-0123456789abcdef\"}");
        _cleanup_json_ json_object *no_proposal = value("{" COMMON("Rejection") "," SIGNED "}");
        _cleanup_(record_freep) struct record *a = NULL, *b = NULL, *c = NULL;

        assert_ok(parse_value(&a, revocation, &err));
        assert_null(a->proposal);
        assert_null(a->image);
        assert_ok(parse_value(&b, rejection, &err));
        assert_string_equal(b->proposal, "f-0123456789abcdef");
        assert_fails(parse_value(&c, no_proposal, &err), "needs the key proposal");
}

static void slim_records_come_without_entry(_unused_ void **state)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_json_ json_object *o = value(approval);
        _cleanup_free_ _unused_ char *text = record_write(o, NULL);
        _cleanup_(record_freep) struct record *slim = NULL, *full = NULL;

        json_object_object_del(o, "entry");
        assert_ok(record_from_json(&slim, o, "r", true, &err));
        assert_null(slim->json);
        assert_null(slim->entry);
        assert_fails(record_from_json(&full, o, "r", false, &err), "the record was edited");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(written_record_reads_back),       cmocka_unit_test(order_of_members_does_not_matter),
                cmocka_unit_test(an_edited_record_is_refused),     cmocka_unit_test(id_covers_the_nested_entry),
                cmocka_unit_test(bad_records_are_refused_by_name), cmocka_unit_test(errors_name_line_and_column),
                cmocka_unit_test(hostile_text_is_refused),         cmocka_unit_test(oversized_text_is_refused),
                cmocka_unit_test(small_kinds_are_small),           cmocka_unit_test(slim_records_come_without_entry),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
