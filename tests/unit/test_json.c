#include "tests/unit/test.h"

#include "common/json.h"
#include "common/text.h"

static void refused(const char *text, const char *part)
{
        struct err *err = NULL;
        json_object *o = NULL;

        assert_fails(json_parse(&o, text, strlen(text), "f", NULL, &err), part);
}

static void test_refuses_what_readers_disagree_on(_unused_ void **state)
{
        refused("{\"a\":1,\"a\":2}", "f:1:8: key \"a\" stands twice");
        refused("{\"a\":1,\n \"\\u0061\":2}", "f:2:2: key \"a\" stands twice");
        refused("{\"a\\u0000b\":1}", "\\u0000");
        refused("18446744073709551616", "beyond 2^53");
        refused("9007199254740993", "beyond 2^53");
        refused("-9007199254740993", "beyond 2^53");
        refused("1e999", "too large");
        refused("\"\xff\"", "UTF-8");
        refused("\"\xed\xa0\x80\"", "UTF-8");
        refused("\"\\ud800\"", "high surrogate");
        refused("\"\\udc00x\"", "low surrogate");
        refused("\"a\nb\"", "control character");
        refused("{\"a\":1} x", "more text");
        refused("{\"a\":1,}", "key in double quotes");
        refused("[1,]", "not a JSON value");
        refused("[01]", "not a JSON value");
        refused("[1.]", "digits behind");
        refused("", "text ends");
        refused("{'a':1}", "key in double quotes");
        refused("[NaN]", "not a JSON value");
        refused("[1 /* c */]", "missing here");
        refused("\"abc", "not closed");
        refused("[[", "text ends");
}

static void test_depth_and_size(_unused_ void **state)
{
        struct err *err = NULL;
        json_object *o = NULL;
        char deep[200];

        memset(deep, '[', 100);
        memset(deep + 100, ']', 100);
        assert_fails(json_parse(&o, deep, 200, "f", NULL, &err), "nested too deeply");
        assert_ok(json_parse(&o, deep, 200, "f", &(struct json_limits){.max_depth = 100}, &err));
        json_object_put(o);
        assert_fails(json_parse(&o, "[1,2,3]", 7, "f", &(struct json_limits){.max_bytes = 6}, &err), "more than the 6 allowed");
}

static void test_scalars(_unused_ void **state)
{
        static const char *const good[] = {"0", "-1", "9007199254740992", "true", "null", "\"x\"", " [] ", "1.5e3", "\"\\ud83d\\ude00\""};
        struct err *err = NULL;

        for (size_t i = 0; i < ELEMENTSOF(good); i++) {
                json_object *o = NULL;
                assert_ok(json_parse(&o, good[i], strlen(good[i]), "f", NULL, &err));
                json_object_put(o);
        }
}

static void test_locations(_unused_ void **state)
{
        static const char text[] = "{\n  \"servers\": {\n    \"a/b\": [1,\n      {\"k\": 2}]\n  }\n}";
        _cleanup_(json_locations_freep) struct json_locations *loc = NULL;
        _cleanup_json_ json_object *o = NULL;
        struct err *err = NULL;
        unsigned line = 0, column = 0;

        assert_ok(json_parse_located(&o, &loc, text, strlen(text), "f", NULL, &err));
        assert_true(json_locate(loc, "/servers/a~1b/1/k", &line, &column));
        assert_int_equal(line, 4);
        assert_int_equal(column, 8);
        assert_true(json_locate(loc, "/servers", &line, &column));
        assert_int_equal(line, 2);
        assert_int_equal(column, 3);
        assert_false(json_locate(loc, "/nothing", &line, &column));
}

static void canonical(const char *text, const char *want)
{
        _cleanup_json_ json_object *o = NULL;
        struct err *err = NULL;

        assert_ok(json_parse(&o, text, strlen(text), "f", NULL, &err));
        _cleanup_free_ char *got = json_canonical(o);
        assert_string_equal(got, want);
}

/* Sections 3.2.2 and 3.2.3 and appendix B of RFC 8785. */
static void test_canonical(_unused_ void **state)
{
        canonical("{\"b\":1,\"a\":[true,null,{}]}", "{\"a\":[true,null,{}],\"b\":1}");
        canonical("\"\\u000F\\nA'\\u0042\\u0022\\u005c\\\\\\\"\\/\"", "\"\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"");
        canonical("[1.0,0.5,1e21,1e20,333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001,-0.0,5e-324]",
                  "[1,0.5,1e+21,100000000000000000000,333333333.3333333,1e+30,4.5,0.002,1e-27,0,5e-324]");
        canonical("{\"\\u20ac\":1,\"\\r\":2,\"\\ufb33\":3,\"1\":4,\"\\ud83d\\ude00\":5,\"\\u0080\":6,\"\\u00f6\":7}",
                  "{\"\\r\":2,\"1\":4,\"\xc2\x80\":6,\"\xc3\xb6\":7,\"\xe2\x82\xac\":1,\"\xf0\x9f\x98\x80\":5,\"\xef\xac\xb3\":3}");
}

static void test_accessors(_unused_ void **state)
{
        static const char text[] = "{\"s\":\"x\",\"i\":3,\"b\":true,\"v\":[\"p\",\"q\"],\"o\":{\"i\":\"no\"}}";
        _cleanup_json_ json_object *o = NULL;
        _cleanup_strv_ char **v = NULL;
        struct err *err = NULL;
        char hex[SHA256_HEX];

        assert_ok(json_parse(&o, text, strlen(text), "f", NULL, &err));
        assert_string_equal(json_str(o, "s"), "x");
        assert_null(json_str(o, "i"));
        assert_int_equal(json_int(o, "i", 0), 3);
        assert_int_equal(json_int(json_get(o, "o"), "i", 7), 7);
        assert_true(json_flag(o, "b", false));
        assert_null(json_get(NULL, "x"));
        assert_string_equal(json_object_get_string(json_path(o, "o", "i", NULL)), "no");
        assert_true(json_to_strv(&v, json_get(o, "v")));
        assert_int_equal(strv_len(v), 2);
        assert_false(json_to_strv(&v, json_get(o, "o")));
        sha256_hex(hex, "abc", 3);
        assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_refuses_what_readers_disagree_on),
                cmocka_unit_test(test_depth_and_size),
                cmocka_unit_test(test_scalars),
                cmocka_unit_test(test_locations),
                cmocka_unit_test(test_canonical),
                cmocka_unit_test(test_accessors),
        };
        return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
