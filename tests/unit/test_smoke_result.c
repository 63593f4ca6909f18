/*
 * The smoke test's result as JSON, there and back: what the daemon tells the CLI, and what evidence files hold.
 */
#include "common/smoke/smoke.h"
#include "tests/unit/test.h"

#define MANIFEST "{\"instructions\":\"\",\"prompts\":[],\"resourceTemplates\":[],\"resources\":[],\"tools\":[]}"

static struct smoke_result *make(void)
{
        struct smoke_result *r = NEW(struct smoke_result);

        r->passed = true;
        r->protocol = mem_strdup("2025-11-25");
        r->duration_ms = 812;
        r->at = 1763632800;
        r->manifest = mem_strdup(MANIFEST);
        r->manifest_len = strlen(MANIFEST);
        sha256_hex(r->manifest_sha256, MANIFEST, strlen(MANIFEST));
        r->tools = strv_append(r->tools, "a");
        r->stderr_tail = mem_strdup("\\x1b");
        return r;
}

static void test_round_trip(_unused_ void **state)
{
        _cleanup_(smoke_result_freep) struct smoke_result *r = make(), *back = NULL;
        _cleanup_json_ json_object *o = smoke_result_to_json(r);
        _cleanup_err_ struct err *err = NULL;

        assert_ok(smoke_result_from_json(&back, o, &err));
        assert_true(back->passed);
        assert_string_equal(back->protocol, "2025-11-25");
        assert_int_equal(back->duration_ms, 812);
        assert_int_equal(back->at, 1763632800);
        assert_string_equal(back->manifest, MANIFEST);
        assert_int_equal(back->manifest_len, strlen(MANIFEST));
        assert_string_equal(back->manifest_sha256, r->manifest_sha256);
        assert_string_equal(back->tools[0], "a");
        assert_null(back->tools[1]);
        assert_string_equal(back->stderr_tail, "\\x1b");
}

static void test_refuses(_unused_ void **state)
{
        static const struct {
                const char *remove, *set, *value, *why;
        } table[] = {
                {"passed", NULL, NULL, "\"passed\""},
                {"passed", "passed", "yes", "\"passed\""},
                {"at", NULL, NULL, "\"at\""},
                {"at", "at", "yesterday", "yesterday"},
                {"duration_ms", NULL, NULL, "\"duration_ms\""},
                {"tools", "tools", "a", "\"tools\""},
                {"manifest", NULL, NULL, "without \"manifest\""},
                {"manifest", "manifest", "{}", "not the hash"},
                {"manifest_sha256", NULL, NULL, "not the hash"},
                {"protocol", NULL, NULL, "\"protocol\""},
        };
        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                _cleanup_(smoke_result_freep) struct smoke_result *r = make(), *back = NULL;
                _cleanup_json_ json_object *o = smoke_result_to_json(r);
                _cleanup_err_ struct err *err = NULL;

                json_object_object_del(o, table[i].remove);
                if (table[i].set)
                        json_add_str(o, table[i].set, table[i].value);
                assert_fails(smoke_result_from_json(&back, o, &err), table[i].why);
        }
}

static void test_failed(_unused_ void **state)
{
        _cleanup_(smoke_result_freep) struct smoke_result *back = NULL, *r = NEW(struct smoke_result);
        _cleanup_err_ struct err *err = NULL;

        r->why = mem_strdup("the server ended");
        r->at = 1;
        _cleanup_json_ json_object *o = smoke_result_to_json(r);
        assert_ok(smoke_result_from_json(&back, o, &err));
        assert_false(back->passed);
        assert_string_equal(back->why, "the server ended");
        json_object_object_del(o, "why");
        back = smoke_result_free(back);
        assert_fails(smoke_result_from_json(&back, o, &err), "\"why\"");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_round_trip),
                cmocka_unit_test(test_refuses),
                cmocka_unit_test(test_failed),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
