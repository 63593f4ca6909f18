#include "broker/policy/schema.h"
#include "common/file.h"
#include "tests/unit/test.h"

/* 0: fits, 1: does not (why in *fault), -1: the schema is refused (why in err). */
static int check(const char *schema, const char *value, struct schema_fault *fault, struct err **err)
{
        _cleanup_(schema_freep) struct schema *s = NULL;
        struct value_tree t = {0};
        int r = schema_new(&s, schema, strlen(schema), err);

        if (r == 0) {
                assert_int_equal(mcp_value_check(value, strlen(value), NULL), 0);
                assert_int_equal(value_parse(&t, mcp_slice_of(value), NULL), 0);
                r = schema_check(s, &t, fault);
        }
        value_tree_deinit(&t);
        return r;
}

static void assert_verdict(const char *schema, const char *value, int verdict)
{
        _cleanup_err_ struct err *err = NULL;
        struct schema_fault fault = {0};
        int r = check(schema, value, &fault, &err);

        if (r != verdict)
                print_error("%s with %s: %d %s%s %s\n", schema, value, r, fault.where, fault.why, err ? err_msg(err) : "");
        assert_int_equal(r, verdict);
}
#define assert_fits(schema, value)    assert_verdict(schema, value, 0)
#define assert_misfits(schema, value) assert_verdict(schema, value, 1)

static void assert_not_understood(const char *schema, const char *part)
{
        _cleanup_err_ struct err *err = NULL;
        struct schema_fault fault;

        assert_fails(check(schema, "1", &fault, &err), part);
}

static void types_and_values(_unused_ void **state)
{
        assert_fits("true", "1");
        assert_misfits("false", "1");
        assert_fits("{}", "null");
        assert_fits("{\"type\":\"integer\"}", "1.0");
        assert_fits("{\"type\":\"integer\"}", "1e3");
        assert_misfits("{\"type\":\"integer\"}", "1.5");
        assert_fits("{\"type\":\"number\"}", "1");
        assert_misfits("{\"type\":\"number\"}", "\"1\"");
        assert_fits("{\"type\":[\"string\",\"null\"]}", "null");
        assert_fits("{\"enum\":[1,\"a\",{\"b\":[1,2]}]}", "{\"b\":[1.0,2]}");
        assert_misfits("{\"enum\":[1,\"a\"]}", "\"1\"");
        assert_misfits("{\"enum\":[]}", "1");
        assert_fits("{\"const\":{\"a\":1,\"b\":2}}", "{\"b\":2,\"a\":1}");
        assert_misfits("{\"const\":{\"a\":1,\"b\":2}}", "{\"b\":2,\"c\":1}");
        assert_misfits("{\"const\":[1,2]}", "[2,1]");
        assert_misfits("{\"const\":false}", "0");
}

static void numbers_and_strings(_unused_ void **state)
{
        assert_fits("{\"minimum\":1,\"maximum\":2}", "2");
        assert_misfits("{\"minimum\":1}", "0.999");
        assert_misfits("{\"exclusiveMinimum\":1}", "1");
        assert_misfits("{\"exclusiveMaximum\":2}", "2.0");
        assert_fits("{\"minimum\":5}", "\"x\"");
        assert_fits("{\"multipleOf\":0.5}", "2.5");
        assert_misfits("{\"multipleOf\":2}", "3");
        assert_fits("{\"maxLength\":2}", "\"\\ud83d\\ude00\xc3\xa9\"");
        assert_misfits("{\"maxLength\":2}", "\"abc\"");
        assert_misfits("{\"minLength\":1}", "\"\"");
        assert_fits("{\"format\":\"email\"}", "\"no\"");
}

static void expressions_mean_what_ecmascript_says(_unused_ void **state)
{
        assert_fits("{\"pattern\":\"b\"}", "\"abc\"");
        assert_misfits("{\"pattern\":\"^b$\"}", "\"b\\n\"");
        assert_fits("{\"pattern\":\"^\\\\s$\"}", "\"\\u00a0\"");
        assert_misfits("{\"pattern\":\"^.$\"}", "\"\\u2028\"");
        assert_fits("{\"pattern\":\"^[\\\\s\\\\d]+$\"}", "\"1\\u20282\"");
        assert_fits("{\"pattern\":\"^\\\\u00e9$\"}", "\"\xc3\xa9\"");
        assert_fits("{\"pattern\":\"^\\\\p{L}+$\"}", "\"\xc3\xa9\"");
        assert_misfits("{\"pattern\":\"[]\"}", "\"]\"");
        assert_fits("{\"pattern\":\"^[^]$\"}", "\"\\n\"");
        assert_fits("{\"pattern\":\"^(?<year>[0-9]{4})$\"}", "\"2026\"");
        assert_not_understood("{\"pattern\":\"^[[:alpha:]]$\"}", "closes nothing");
        assert_not_understood("{\"pattern\":\"(?=a)\"}", "look-around");
        assert_not_understood("{\"pattern\":\"(?<!a)\"}", "look-around");
        assert_not_understood("{\"pattern\":\"(?i)a\"}", "look-around or a group");
        assert_not_understood("{\"pattern\":\"(a)\\\\1\"}", "backreference");
        assert_not_understood("{\"pattern\":\"\\\\Qa\"}", "escape");
        assert_not_understood("{\"pattern\":\"[a\"}", "not closed");
        assert_not_understood("{\"pattern\":\"(\"}", "not a regular expression");
}

static void objects(_unused_ void **state)
{
        static const char strict[] =
                "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\"},\"b\":true},\"required\":[\"a\",\"z\"],"
                "\"additionalProperties\":false,\"patternProperties\":{\"^x\":{\"type\":\"integer\"}}}";

        assert_misfits(strict, "{\"a\":\"\"}");
        assert_misfits(strict, "{\"a\":\"\",\"z\":1}");
        assert_misfits(strict, "{\"a\":\"\",\"x\":\"1\"}");
        assert_fits("{\"properties\":{\"a\":{\"type\":\"string\"}}}", "{\"b\":1}");
        assert_fits("{\"properties\":{\"a\":{\"type\":\"string\"}}}", "[1]");
        assert_misfits("{\"properties\":{\"a\":{\"type\":\"string\"}}}", "{\"\\u0061\":1}");
        assert_fits("{\"required\":[\"a\",\"a\"]}", "{\"a\":1}");
        assert_misfits("{\"additionalProperties\":{\"type\":\"string\"},\"properties\":{\"n\":{}}}", "{\"n\":1,\"m\":1}");
        assert_misfits("{\"propertyNames\":{\"maxLength\":2}}", "{\"abc\":1}");
        assert_misfits("{\"minProperties\":1}", "{}");
        assert_misfits("{\"maxProperties\":0}", "{\"a\":1}");
        assert_misfits("{\"dependentRequired\":{\"a\":[\"b\"]}}", "{\"a\":1}");
        assert_fits("{\"dependentRequired\":{\"a\":[\"b\"]}}", "{\"c\":1}");
        assert_misfits("{\"dependentSchemas\":{\"a\":{\"minProperties\":2}}}", "{\"a\":1}");
}

static void arrays(_unused_ void **state)
{
        assert_misfits("{\"items\":{\"type\":\"integer\"}}", "[1,\"2\"]");
        assert_fits("{\"prefixItems\":[{\"type\":\"string\"}],\"items\":{\"type\":\"integer\"}}", "[\"a\",1]");
        assert_misfits("{\"prefixItems\":[{\"type\":\"string\"}],\"items\":false}", "[\"a\",1]");
        assert_misfits("{\"uniqueItems\":true}", "[1,{\"a\":1},1.0]");
        assert_fits("{\"uniqueItems\":true}", "[1,true,\"1\",[1],{}]");
        assert_misfits("{\"contains\":{\"const\":1}}", "[2,3]");
        assert_fits("{\"contains\":{\"const\":1},\"minContains\":0}", "[]");
        assert_misfits("{\"contains\":{\"const\":1},\"maxContains\":1}", "[1,1]");
        assert_misfits("{\"minItems\":1}", "[]");
        assert_misfits("{\"maxItems\":1}", "[1,2]");
        assert_fits("{\"$schema\":\"http://json-schema.org/draft-07/schema#\",\"items\":[{\"type\":\"string\"}],\"additionalItems\":false}",
                    "[\"a\"]");
        assert_misfits(
                "{\"$schema\":\"http://json-schema.org/draft-07/schema#\",\"items\":[{\"type\":\"string\"}],\"additionalItems\":false}",
                "[\"a\",1]");
}

static void combinations_and_references(_unused_ void **state)
{
        static const char tree[] =
                "{\"$defs\":{\"a/b~c%\":{\"type\":\"object\",\"properties\":{\"left\":{\"$ref\":\"#/$defs/a~1b~0c%25\"}},"
                "\"additionalProperties\":false}},\"$ref\":\"#/$defs/a~1b~0c%25\"}";

        assert_fits("{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}", "null");
        assert_misfits("{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}", "1");
        assert_misfits("{\"oneOf\":[{\"minimum\":1},{\"minimum\":2}]}", "3");
        assert_fits("{\"oneOf\":[{\"minimum\":1},{\"minimum\":2}]}", "1");
        assert_misfits("{\"allOf\":[{\"minimum\":1},{\"maximum\":2}]}", "3");
        assert_misfits("{\"not\":{\"type\":\"string\"}}", "\"\"");
        assert_misfits("{\"if\":{\"type\":\"string\"},\"then\":{\"minLength\":2},\"else\":{\"minimum\":5}}", "\"a\"");
        assert_misfits("{\"if\":{\"type\":\"string\"},\"then\":{\"minLength\":2},\"else\":{\"minimum\":5}}", "4");
        assert_fits(tree, "{\"left\":{\"left\":{}}}");
        assert_misfits(tree, "{\"left\":{\"right\":{}}}");
        assert_fits("{\"properties\":{\"a\":{\"$ref\":\"#\"}},\"additionalProperties\":false}", "{\"a\":{\"a\":{}}}");
        assert_misfits("{\"properties\":{\"a\":{\"$ref\":\"#\"}},\"additionalProperties\":false}", "{\"a\":{\"b\":{}}}");
        assert_fits("{\"prefixItems\":[{\"type\":\"string\"},{\"$ref\":\"#/prefixItems/0\"}]}", "[\"a\",\"b\"]");
        assert_misfits("{\"prefixItems\":[{\"type\":\"string\"},{\"$ref\":\"#/prefixItems/0\"}]}", "[\"a\",1]");
}

static void what_is_not_understood_is_refused(_unused_ void **state)
{
        assert_not_understood("1", "is no schema");
        assert_not_understood("{\"a\"", "the schema");
        assert_not_understood("{\"properties\":{\"p\":{\"typo\":1}}}", "p: typo: is a keyword that is not understood");
        assert_not_understood("{\"unevaluatedProperties\":false}", "not understood");
        assert_not_understood("{\"$dynamicRef\":\"#a\"}", "not understood");
        assert_not_understood("{\"$ref\":\"other.json\"}", "refers to another place");
        assert_not_understood("{\"$ref\":\"#anchor\"}", "refers to another place");
        assert_not_understood("{\"$ref\":\"#/$defs/none\"}", "not there");
        assert_not_understood("{\"type\":\"any\"}", "not the name of a type");
        assert_not_understood("{\"items\":[{}]}", "prefixItems");
        assert_not_understood("{\"exclusiveMinimum\":true}", "not a number");
        assert_not_understood("{\"required\":true}", "required");
        assert_not_understood("{\"multipleOf\":0}", "above 0");
        assert_fits("{\"x-vendor\":1,\"title\":\"t\",\"default\":{\"$ref\":1},\"$defs\":{\"unused\":{\"strange\":1}}}", "1");
}

static void faults_say_where(_unused_ void **state)
{
        _cleanup_err_ struct err *err = NULL;
        struct schema_fault fault;

        assert_int_equal(check("{\"properties\":{\"a/b\":{\"items\":{\"type\":\"string\"}}}}", "{\"a/b\":[\"\",1]}", &fault, &err), 1);
        assert_string_equal(fault.where, "/a~1b/1");
        assert_string_equal(fault.why, "is a number, which is not the type wanted");
        assert_int_equal(check("{\"required\":[\"path\"]}", "{}", &fault, &err), 1);
        assert_string_equal(fault.where, "");
        assert_string_equal(fault.why, "lacks the member \"path\"");
}

/* Each of these would take for ever, or the whole stack, without its bound. */
static void work_is_bounded(_unused_ void **state)
{
        _cleanup_buf_ struct buf b = {0};

        assert_misfits("{\"$ref\":\"#\"}", "1");
        assert_misfits("{\"not\":{\"$ref\":\"#\"}}", "1");
        assert_misfits("{\"anyOf\":[{\"allOf\":[{\"$ref\":\"#\"},{\"$ref\":\"#\"}]},{\"not\":{\"$ref\":\"#\"}}]}", "1");
        buf_adds(&b, "[");
        for (int i = 0; i < 5000; i++)
                buf_addf(&b, "%s%d", i ? "," : "", i);
        buf_adds(&b, "]");
        assert_misfits("{\"uniqueItems\":true}", b.data);
        b.len = 0;
        buf_adds(&b, "{\"$defs\":{\"d0\":{}");
        for (int i = 1; i < 5000; i++)
                buf_addf(&b, ",\"d%d\":{\"$ref\":\"#/$defs/d%d\"}", i, i - 1);
        buf_adds(&b, "},\"$ref\":\"#/$defs/d4999\"}");
        assert_not_understood(b.data, "too many");
        _cleanup_buf_ struct buf text = {0};
        b.len = 0;
        buf_adds(&b, "{\"anyOf\":[");
        for (int i = 0; i < 1000; i++)
                buf_adds(&b, "{\"pattern\":\"x$\"},");
        buf_adds(&b, "{}]}");
        buf_addc(&text, '"');
        for (int i = 0; i < 1000000; i++)
                buf_addc(&text, 'y');
        buf_addc(&text, '"');
        assert_misfits(b.data, text.data);
}

/* What editors complete is what the loader takes: see test_policy and fuzz_policy for the same files there. */
static void schema_of_the_policy_fits_its_examples(_unused_ void **state)
{
        static const struct {
                const char *file;
                int verdict;
        } files[] = {{"../registry/security_policy.json", 0},
                     {"fuzz/corpus/policy/all.json", 0},
                     {"unit/data/arguments/policy.json", 0},
                     {"fuzz/corpus/policy/gate.json", 1}};
        _cleanup_free_ char *schema = NULL;
        _cleanup_err_ struct err *err = NULL;
        size_t n = 0;

        assert_ok(file_read(&schema, &n, TEST_DATA "/../registry/security_policy.schema.json", 1 << 20, FILE_ANY, &err));
        for (size_t i = 0; i < ELEMENTSOF(files); i++) {
                _cleanup_free_ char *path = mem_printf(TEST_DATA "/%s", files[i].file), *text = NULL;

                assert_ok(file_read(&text, &n, path, 1 << 20, FILE_ANY, &err));
                assert_verdict(schema, text, files[i].verdict);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(types_and_values),
                cmocka_unit_test(numbers_and_strings),
                cmocka_unit_test(expressions_mean_what_ecmascript_says),
                cmocka_unit_test(objects),
                cmocka_unit_test(arrays),
                cmocka_unit_test(combinations_and_references),
                cmocka_unit_test(what_is_not_understood_is_refused),
                cmocka_unit_test(faults_say_where),
                cmocka_unit_test(work_is_bounded),
                cmocka_unit_test(schema_of_the_policy_fits_its_examples),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
