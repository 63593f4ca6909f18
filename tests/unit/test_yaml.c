#include "tests/unit/test.h"

#include "common/json_scan.h"
#include "common/yaml.h"

static void refused(const char *text, const char *part)
{
        struct err *err = NULL;
        json_object *o = NULL;

        assert_fails(yaml_parse(&o, NULL, text, strlen(text), "f", NULL, &err), part);
}

static void test_refuses(_unused_ void **state)
{
        refused("a: 1\na: 2\n", "f:2:1: this key stands twice");
        refused("a: &x 1\n", "anchors");
        refused("a: &x {b: 1}\n", "anchors");
        refused("a: 1\nb: *a\n", "aliases");
        refused("a: !!int 1\n", "tags");
        refused("<<: {a: 1}\n", "merge keys");
        refused("? [a]\n: 1\n", "a key must be");
        refused("a: 1\n---\nb: 2\n", "only one document");
        refused("%YAML 1.1\n---\na: 1\n", "directives");
        refused("", "empty");
        refused("a: \"\\0\"\n", "NUL");
        refused("a: \xff\n", "UTF-8");
        refused("a: 18446744073709551616\n", "beyond 2^53");
        refused("a: [1\n", "f:");
        refused("a: \"\\ud800\"\n", "f:");
}

static void test_depth(_unused_ void **state)
{
        _cleanup_buf_ struct buf b = {0};

        for (int i = 0; i < 40; i++)
                buf_addc(&b, '[');
        for (int i = 0; i < 40; i++)
                buf_addc(&b, ']');
        refused(b.data, "nested too deeply");
}

/* A long key above many values would be remembered with each of them: half a gigabyte for one record of 64 KiB. */
static void test_long_keys(_unused_ void **state)
{
        _cleanup_buf_ struct buf b = {0}, deep = {0};
        struct json_locations *loc = NULL;
        struct err *err = NULL;
        json_object *o = NULL;
        size_t kept = 0;

        buf_adds(&b, "? ");
        for (int i = 0; i < 513; i++)
                buf_addc(&b, 'k');
        buf_adds(&b, "\n: 1\n");
        refused(b.data, "f:1:3: a key is longer");
        for (int depth = 0; depth < 10; depth++) {
                buf_adds(&deep, "{? ");
                for (int i = 0; i < 500; i++)
                        buf_addc(&deep, 'k');
                buf_adds(&deep, " : ");
        }
        buf_adds(&deep, "[");
        for (int i = 0; i < 20000; i++)
                buf_adds(&deep, "0,");
        buf_adds(&deep, "0]}}}}}}}}}}\n");
        assert_ok(yaml_parse(&o, &loc, deep.data, deep.len, "f", NULL, &err));
        for (size_t i = 0; i < loc->n; i++)
                kept += strlen(loc->items[i].pointer);
        assert_true(kept < 10000);
        json_locations_free(loc);
        json_object_put(o);
}

static void same(const char *yaml, const char *json)
{
        _cleanup_json_ json_object *o = NULL;
        struct err *err = NULL;

        assert_ok(yaml_parse(&o, NULL, yaml, strlen(yaml), "f", NULL, &err));
        _cleanup_free_ char *got = json_canonical(o);
        assert_string_equal(got, json);
}

static void test_types(_unused_ void **state)
{
        same("a: 1\nb: true\nc: \"1\"\nd: x y\ne: null\nf: 0.5\ng: 010\nh: yes\ni: 1.2.3\nj: -3\nk: 2026-11-20T10:00:00Z\n",
             "{\"a\":1,\"b\":true,\"c\":\"1\",\"d\":\"x "
             "y\",\"e\":null,\"f\":0.5,\"g\":\"010\",\"h\":\"yes\",\"i\":\"1.2.3\",\"j\":-3,\"k\":\"2026-11-20T10:00:00Z\"}");
        same("- a: {b: [1, 2]}\n- []\n- {}\n", "[{\"a\":{\"b\":[1,2]}},[],{}]");
}

/* Whatever JSON says must come back from our own YAML unchanged: signatures depend on it. */
static void test_round_trip(_unused_ void **state)
{
        static const char text[] = "{\"plain\":\"two words\",\"n\":\"1\",\"t\":\"true\",\"e\":\"\",\"colon\":\"a: b\",\"hash\":\"a "
                                   "#b\",\"c\":\"a:b\",\"end\":\"a:\",\"nl\":\"a\\nb\",\"q\":\"\\\"\\\\\","
                                   "\"u\":\"\\u0085\\u2028\\ufeff\\ud83d\\ude00\\u0007\\uffff\",\"a\":[1,-2,0.5,true,null,[],{},[[1],{"
                                   "\"x\":[{}]}]],\"o\":{\"a b\":{\"1\":null}},\"sp\":\" x \",\"dash\":\"- x\",\"no\":\"No\",\"y\":\"~\"}";
        _cleanup_json_ json_object *o = NULL, *again = NULL;
        struct err *err = NULL;

        assert_ok(json_parse(&o, text, strlen(text), "f", NULL, &err));
        _cleanup_free_ char *yaml = yaml_write(o);
        assert_ok(yaml_parse(&again, NULL, yaml, strlen(yaml), "f", NULL, &err));
        _cleanup_free_ char *want = json_canonical(o);
        _cleanup_free_ char *got = json_canonical(again);
        assert_string_equal(got, want);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_refuses), cmocka_unit_test(test_depth),      cmocka_unit_test(test_long_keys),
                cmocka_unit_test(test_types),   cmocka_unit_test(test_round_trip),
        };
        return cmocka_run_group_tests_name("yaml", tests, NULL, NULL);
}
