/* The canonical manifest, and the pins of its items: the same for the same definition however it is written, another one for any other. */
#include "common/manifest.h"
#include "tests/unit/test.h"

static json_object *parse(const char *text)
{
        _cleanup_err_ struct err *err = NULL;
        json_object *o = NULL;

        assert_ok(json_parse(&o, text, strlen(text), "test", NULL, &err));
        return o;
}

static void pin(char out[MANIFEST_PIN], enum manifest_part part, const char *text)
{
        _cleanup_json_ json_object *o = parse(text);

        manifest_pin(out, part, o);
}

#define TOOL "{\"name\":\"a\",\"description\":\"d\",\"inputSchema\":{\"type\":\"object\",\"x\":1}}"

static void test_one(_unused_ void **state)
{
        static const char *const others[] = {
                "{\"name\":\"a\",\"description\":\"e\",\"inputSchema\":{\"type\":\"object\",\"x\":1}}",
                "{\"name\":\"a\",\"description\":\"d\",\"inputSchema\":{\"type\":\"object\",\"x\":2}}",
                "{\"name\":\"a\",\"description\":\"d\",\"inputSchema\":{\"type\":\"object\",\"x\":1},\"annotations\":{}}",
                "{\"name\":\"b\",\"description\":\"d\",\"inputSchema\":{\"type\":\"object\",\"x\":1}}",
                "{\"name\":\"a\",\"inputSchema\":{\"type\":\"object\",\"x\":1}}",
        };
        char want[MANIFEST_PIN], got[MANIFEST_PIN];

        pin(want, MANIFEST_TOOLS, TOOL);
        assert_int_equal(strlen(want), MANIFEST_PIN - 1);
        pin(got, MANIFEST_TOOLS, " { \"inputSchema\": {\"x\":1.0, \"type\":\"\\u006fbject\"}, \"description\":\"d\", \"name\":\"a\" }");
        assert_string_equal(got, want);
        for (size_t i = 0; i < ELEMENTSOF(others); i++) {
                pin(got, MANIFEST_TOOLS, others[i]);
                assert_string_not_equal(got, want);
        }
        /* A hash of one kind is good for no other. */
        pin(got, MANIFEST_PROMPTS, TOOL);
        assert_string_not_equal(got, want);
        pin(want, MANIFEST_RESOURCES, "\"a\"");
        manifest_key_pin(got, MANIFEST_RESOURCES, "\"a\"");
        assert_string_not_equal(got, want);
}

static bool has(char **pins, enum manifest_part part, const char *text)
{
        char p[MANIFEST_PIN];

        pin(p, part, text);
        return manifest_has(pins, strv_len(pins), p);
}

static void test_whole(_unused_ void **state)
{
        json_object *lists[MANIFEST_LISTS] = {parse("[" TOOL "]"), parse("[{\"name\":\"p\"}]"), parse("[{\"uri\":\"x:y\",\"name\":\"r\"}]"),
                                              parse("[{\"uriTemplate\":\"x:{z}\",\"name\":\"t\"}]")};
        _cleanup_free_ char *text = manifest_text("do", lists), *bare = NULL;
        _cleanup_strv_ char **pins = NULL, **few = NULL;
        _cleanup_err_ struct err *err = NULL;
        char p[MANIFEST_PIN];

        assert_string_equal(
                text, "{\"instructions\":\"do\",\"prompts\":[{\"name\":\"p\"}],\"resourceTemplates\":[{\"name\":\"t\","
                      "\"uriTemplate\":\"x:{z}\"}],\"resources\":[{\"name\":\"r\",\"uri\":\"x:y\"}],\"tools\":[{\"description\":\"d\","
                      "\"inputSchema\":{\"type\":\"object\",\"x\":1},\"name\":\"a\"}]}");
        assert_ok(manifest_pins(&pins, text, strlen(text), &err));
        assert_int_equal(strv_len(pins), 7); /* four items, two keys, the instructions */
        for (size_t i = 1; pins[i]; i++)
                assert_true(strcmp(pins[i - 1], pins[i]) < 0);
        assert_true(has(pins, MANIFEST_TOOLS, TOOL));
        assert_true(has(pins, MANIFEST_PROMPTS, "{\"name\":\"p\"}"));
        assert_true(has(pins, MANIFEST_TEMPLATES, "{\"name\":\"t\",\"uriTemplate\":\"x:{z}\"}"));
        assert_true(has(pins, MANIFEST_INSTRUCTIONS, "\"do\""));
        assert_false(has(pins, MANIFEST_INSTRUCTIONS, "\"\""));
        manifest_key_pin(p, MANIFEST_RESOURCES, "x:y");
        assert_true(manifest_has(pins, strv_len(pins), p));
        manifest_key_pin(p, MANIFEST_PROMPTS, "x:y");
        assert_false(manifest_has(pins, strv_len(pins), p));
        assert_false(manifest_has(NULL, 0, p));
        for (unsigned i = 0; i < MANIFEST_LISTS; i++) {
                json_object_put(lists[i]);
                lists[i] = parse("[]");
        }
        bare = manifest_text(NULL, lists);
        assert_ok(manifest_pins(&few, bare, strlen(bare), &err));
        assert_int_equal(strv_len(few), 1);
        assert_true(has(few, MANIFEST_INSTRUCTIONS, "\"\""));
        for (unsigned i = 0; i < MANIFEST_LISTS; i++)
                json_object_put(lists[i]);
}

static void test_refused(_unused_ void **state)
{
        static const struct {
                const char *text, *why;
        } table[] = {
                {"", "manifest"},
                {"[]", "instructions"},
                {"{\"instructions\":1,\"prompts\":[],\"resourceTemplates\":[],\"resources\":[],\"tools\":[]}", "instructions"},
                {"{\"instructions\":\"\",\"prompts\":[],\"resourceTemplates\":[],\"resources\":[]}", "\"tools\" is no list"},
                {"{\"instructions\":\"\",\"prompts\":[],\"resourceTemplates\":[],\"resources\":[],\"tools\":[{}]}", "no \"name\""},
                {"{\"instructions\":\"\",\"prompts\":[7],\"resourceTemplates\":[],\"resources\":[],\"tools\":[]}", "no \"name\""},
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                struct err *err = NULL;
                char **pins = NULL;

                assert_fails(manifest_pins(&pins, table[i].text, strlen(table[i].text), &err), table[i].why);
                assert_null(pins);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(test_one), cmocka_unit_test(test_whole), cmocka_unit_test(test_refused)};

        return cmocka_run_group_tests(tests, NULL, NULL);
}
