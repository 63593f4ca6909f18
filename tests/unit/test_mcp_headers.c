#include "common/mcp/headers.h"
#include "tests/unit/test.h"

static void assert_coded(const char *value, const char *header)
{
        _cleanup_free_ char *encoded = mcp_header_encode(value, strlen(value)), *decoded = mcp_header_decode(header);

        assert_string_equal(encoded, header);
        assert_string_equal(decoded, value);
}

static void values_are_encoded_as_the_specification_shows(_unused_ void **state)
{
        assert_coded("us-west1", "us-west1");
        assert_coded("Hello, \xe4\xb8\x96\xe7\x95\x8c", "=?base64?SGVsbG8sIOS4lueVjA==?=");
        assert_coded(" padded ", "=?base64?IHBhZGRlZCA=?=");
        assert_coded("line1\nline2", "=?base64?bGluZTEKbGluZTI=?=");
        assert_coded("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=");
        assert_coded("=?base64?=", "=?base64?PT9iYXNlNjQ/PQ==?=");
        assert_coded("", "=?base64?"
                         "?=");
        assert_coded("a b", "a b");
        assert_coded("a\tb", "=?base64?YQli?=");
        assert_coded("a\x7f", "=?base64?YX8=?=");
        assert_coded("=?base64?x", "=?base64?x");
        assert_coded("x?=", "x?=");
}

static void what_cannot_be_decoded_is_nothing(_unused_ void **state)
{
        static const char *const bad[] = {
                "=?base64?SGVsbG8?=",   /* no padding */
                "=?base64?SGVsbG9=?=",  /* bits left over */
                "=?base64?SGVs bG8=?=", /* white space */
                "=?base64?SGVs-_8=?=",  /* the other alphabet */
                "=?base64?/w==?=",      /* no UTF-8 */
                "=?base64?YQBi?=",      /* NUL */
                "=?base64?=",           "a\nb", "a\x7f", "\xc3\xa9",
        };
        _cleanup_free_ char *trimmed = mcp_header_decode(" \t x y\t "), *other = mcp_header_decode("=?BASE64?SGVsbG8=?=");

        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_null(mcp_header_decode(bad[i]));
        assert_string_equal(trimmed, "x y");
        assert_string_equal(other, "=?BASE64?SGVsbG8=?=");
}

#define ROOT(properties) "{\"type\":\"object\",\"properties\":{" properties "}}"
#define REGION           "\"region\":{\"type\":\"string\",\"x-mcp-header\":\"Region\"}"

static void annotations_are_found(_unused_ void **state)
{
        static const char schema[] =
                ROOT(REGION ",\"x-mcp-header\":{\"type\":\"string\"},\"properties\":{\"type\":\"object\",\"properties\":{"
                            "\"n\\u006f\":{\"x\\u002dmcp-header\":\"No_1\",\"type\":\"integer\"}}},"
                            "\"plain\":{\"default\":{\"x-mcp-header\":1},\"enum\":[{\"x-mcp-header\":1}]}");
        _cleanup_(mcp_params_deinit) struct mcp_params p = {0};
        _cleanup_err_ struct err *err = NULL;

        assert_ok(mcp_params_from_schema(&p, mcp_slice_of(schema), &err));
        assert_int_equal(p.n, 2);
        assert_string_equal(p.items[0].header, "Mcp-Param-Region");
        assert_string_equal(p.items[0].path[0], "region");
        assert_null(p.items[0].path[1]);
        assert_string_equal(p.items[1].header, "Mcp-Param-No_1");
        assert_string_equal(p.items[1].path[0], "properties");
        assert_string_equal(p.items[1].path[1], "no");
        assert_null(p.items[1].path[2]);
}

static void schemas_without_annotations_have_no_parameters(_unused_ void **state)
{
        static const char *const schemas[] = {"{}", "true", ROOT(""), "{\"properties\":7,\"d\":\"\\u00e9\"}", NULL};
        struct mcp_params p = {.n = 5};

        for (size_t i = 0; i < ELEMENTSOF(schemas); i++) {
                _cleanup_err_ struct err *err = NULL;
                assert_ok(mcp_params_from_schema(&p, mcp_slice_of(schemas[i]), &err));
                assert_int_equal(p.n, 0);
                assert_null(p.items);
        }
}

static void annotations_that_break_the_rules_are_refused(_unused_ void **state)
{
#define ONE(type, header) ROOT("\"v\":{\"type\":" type ",\"x-mcp-header\":" header "}")
        static const char *const bad[][2] = {
                {ONE("\"string\"", "\"\""), "empty"},
                {ONE("\"string\"", "\"a b\""), "characters"},
                {ONE("\"string\"", "\"a:b\""), "characters"},
                {ONE("\"string\"", "\"R\xc3\xa9gion\""), "characters"},
                {ONE("\"string\"", "\"a\\tb\""), "characters"},
                {ONE("\"string\"", "\"a\\r\\nb\""), "characters"},
                {ONE("\"string\"", "7"), "no string"},
                {ONE("\"object\"", "\"a\""), "type"},
                {ONE("\"array\"", "\"a\""), "type"},
                {ONE("\"null\"", "\"a\""), "type"},
                {ONE("\"number\"", "\"a\""), "type"},
                {ONE("[\"string\",\"null\"]", "\"a\""), "type"},
                {ROOT("\"v\":{\"x-mcp-header\":\"a\"}"), "type"},
                {ROOT(REGION ",\"other\":{\"type\":\"string\",\"x-mcp-header\":\"region\"}"), "twice"},
                {"{\"type\":\"string\",\"x-mcp-header\":\"a\"}", "alone"},
                {ROOT("\"list\":{\"items\":{\"properties\":{" REGION "}}}"), "alone"},
                {ROOT("\"list\":{\"prefixItems\":[{\"type\":\"string\",\"x-mcp-header\":\"a\"}]}"), "alone"},
                {"{\"oneOf\":[{\"properties\":{" REGION "}}]}", "alone"},
                {"{\"allOf\":[{\"properties\":{" REGION "}}]}", "alone"},
                {"{\"not\":{\"properties\":{" REGION "}}}", "alone"},
                {"{\"if\":{\"properties\":{" REGION "}}}", "alone"},
                {"{\"$defs\":{\"x\":{\"properties\":{" REGION "}}}}", "alone"},
                {"{\"$defs\":{\"default\":{\"type\":\"string\",\"x-mcp-header\":\"a\"}}}", "alone"},
                {"{\"additionalProperties\":{\"type\":\"string\",\"x-mcp-header\":\"a\"}}", "alone"},
                {"{\"patternProperties\":{\"^a\":{\"type\":\"string\",\"x-mcp-header\":\"a\"}}}", "alone"},
                {"{\"properties\":[{\"type\":\"string\",\"x-mcp-header\":\"a\"}]}", "alone"},
        };
        _cleanup_buf_ struct buf many = {0}, deep = {0};
        struct mcp_params p = {0};

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                _cleanup_err_ struct err *err = NULL;
                assert_fails(mcp_params_from_schema(&p, mcp_slice_of(bad[i][0]), &err), bad[i][1]);
        }
        buf_adds(&many, "{\"properties\":{");
        for (unsigned i = 0; i < MCP_MAX_PARAMS + 1; i++)
                buf_addf(&many, "%s\"p%u\":{\"type\":\"string\",\"x-mcp-header\":\"p%u\"}", i ? "," : "", i, i);
        buf_adds(&many, "}}");
        buf_addf(&deep, "{\"properties\":{\"%05000d\":{\"properties\":{" REGION "}}}}", 0);
        _cleanup_err_ struct err *err = NULL;
        assert_fails(mcp_params_from_schema(&p, (struct mcp_slice){many.data, many.len}, &err), "more than 64");
        assert_fails(mcp_params_from_schema(&p, (struct mcp_slice){deep.data, deep.len}, &err), "more than 4096");
}

static void values_and_headers_agree(_unused_ void **state)
{
        char *path[] = {(char *)"a", (char *)"b", NULL}, name[] = "Mcp-Param-B";
        const struct mcp_param p = {name, path};
        static const struct {
                const char *arguments, *value, *also, *never;
        } table[] = {
                {"{\"a\":{\"b\":\"x\"}}", "x", "=?base64?eA==?=", "y"},
                {"{\"\\u0061\":{\"b\":\"\\u00e9\"}}", "=?base64?w6k=?=", NULL, "\xc3\xa9"},
                {"{\"a\":{\"b\":42}}", "42", "42.0", "43"},
                {"{\"a\":{\"b\":42.0}}", "42", "4.2e1", "42x"},
                {"{\"a\":{\"b\":-9007199254740991}}", "-9007199254740991", NULL, "-9007199254740992"},
                {"{\"a\":{\"b\":-0}}", "0", "0.0", ""},
                {"{\"a\":{\"b\":1.5}}", "1.5", "15e-1", "1.50.0"},
                {"{\"a\":{\"b\":true}}", "true", "=?base64?dHJ1ZQ==?=", "True"},
                {"{\"a\":{\"b\":false}}", "false", NULL, NULL},
                {"{\"a\":{\"b\":\"42\"}}", "42", NULL, "42.0"},
                {"{\"a\":{\"b\":\"\"}}",
                 "=?base64?"
                 "?=",
                 "", NULL},
                {"{\"a\":{\"b\":null}}", NULL, NULL, "null"},
                {"{\"a\":{\"b\":{}}}", NULL, NULL, "{}"},
                {"{\"a\":7}", NULL, NULL, "7"},
                {"{}", NULL, NULL, ""},
                {NULL, NULL, NULL, "x"},
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                struct mcp_slice arguments = mcp_slice_of(table[i].arguments);
                _cleanup_free_ char *value = mcp_param_value(&p, arguments);

                assert_true(str_eq(value, table[i].value));
                assert_true(mcp_param_matches(&p, arguments, value));
                assert_true(!table[i].also || mcp_param_matches(&p, arguments, table[i].also));
                assert_true(!value || !mcp_param_matches(&p, arguments, NULL));
                assert_false(table[i].never && mcp_param_matches(&p, arguments, table[i].never));
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(values_are_encoded_as_the_specification_shows),
                cmocka_unit_test(what_cannot_be_decoded_is_nothing),
                cmocka_unit_test(annotations_are_found),
                cmocka_unit_test(schemas_without_annotations_have_no_parameters),
                cmocka_unit_test(annotations_that_break_the_rules_are_refused),
                cmocka_unit_test(values_and_headers_agree),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
