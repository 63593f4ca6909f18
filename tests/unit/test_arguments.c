/*
 * Arguments against tests/unit/data/arguments: what must be refused, what must pass; and the normal forms themselves.
 */
#include "broker/policy/decide.h"
#include "broker/policy/normal.h"
#include "common/file.h"
#include "tests/unit/test.h"

#define DATA TEST_DATA "/unit/data/arguments/"

struct corpus {
        struct ledger *ledger;
        struct decider *decider;
        char *text;
};

static void load(struct corpus *c, const char *file)
{
        _cleanup_(policy_unrefp) struct policy *p = NULL;
        _cleanup_free_ char *policy = NULL;
        _cleanup_err_ struct err *err = NULL;
        size_t n = 0;

        assert_ok(file_read(&policy, &n, DATA "policy.json", 1 << 20, FILE_ANY, &err));
        assert_ok(policy_parse(&p, policy, n, "policy.json", &err));
        assert_ok(ledger_open(&c->ledger, NULL, &err));
        assert_ok(decider_new(&c->decider, p, c->ledger, &err));
        _cleanup_free_ char *path = mem_printf(DATA "%s", file);
        assert_ok(file_read(&c->text, &n, path, 1 << 20, FILE_ANY, &err));
}

static void unload(struct corpus *c)
{
        decider_free(c->decider);
        ledger_free(c->ledger);
        free(c->text);
}

/* "server:tool<tab>JSON". true: the call would be let through. */
static bool passes(struct corpus *c, const char *line, struct policy_decision *decision)
{
        const char *colon = strchr(line, ':'), *tab = strchr(line, '\t');
        _cleanup_free_ char *server = mem_strndup(line, (size_t)(colon - line)), *name = mem_strndup(colon + 1, (size_t)(tab - colon) - 1);
        static const char schema[] = "{\"type\":\"object\",\"propertyNames\":{\"maxLength\":2500}}";
        _cleanup_(policy_tool_freep) struct policy_tool *tool = policy_tool_new(server, name, ACTION_READ, schema, strlen(schema), "");
        const struct policy_request request = {
                .agent = "tester", .server = server, .name = name, .tool = tool, .arguments = mcp_slice_of(tab + 1), .now_ms = 1};

        *decision = (struct policy_decision){.rule = "not checked JSON"};
        if (mcp_value_check(tab + 1, strlen(tab + 1), NULL) != 0)
                return false;
        decide(c->decider, &request, decision);
        assert_true(decision->outcome == POLICY_ALLOWED || decision->outcome == POLICY_BAD_ARGUMENTS);
        if (decision->outcome == POLICY_BAD_ARGUMENTS)
                assert_true(decision->rule && decision->why[0]);
        return decision->outcome == POLICY_ALLOWED;
}

static void check_corpus(const char *file, bool want, size_t at_least)
{
        struct corpus c = {0};
        size_t n = 0, wrong = 0;
        char *save = NULL;

        load(&c, file);
        for (char *line = strtok_r(c.text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
                struct policy_decision decision;

                if (line[0] == '#')
                        continue;
                n++;
                if (passes(&c, line, &decision) == want)
                        continue;
                print_error("%s: %.200s: %s %s %s\n", file, line, decision.rule, decision.where, decision.why);
                wrong++;
        }
        unload(&c);
        assert_int_equal(wrong, 0);
        assert_true(n >= at_least);
}

static void evasions_are_refused(_unused_ void **state)
{
        check_corpus("evasions.txt", false, 200);
}

static void honest_lookalikes_pass(_unused_ void **state)
{
        check_corpus("honest.txt", true, 200);
}

static void refusals_say_where_and_why(_unused_ void **state)
{
        struct policy_decision decision;
        struct corpus c = {0};

        load(&c, "honest.txt");
        assert_false(passes(&c, "fs:any\t{\"a\":[1,{\"b/c\":\"x/../../../y\"}]}", &decision));
        assert_string_equal(decision.where, "/a/1/b~1c");
        assert_string_equal(decision.why, "holds what the policy blocks: path-traversal");
        assert_non_null(strstr(decision.rule, "blocked_patterns[0] (built in)"));
        assert_false(passes(&c, "fs:read\t{\"path\":\"/root\"}", &decision));
        assert_string_equal(decision.where, "/path");
        assert_string_equal(decision.rule, "path_rules[0] (line 3)");
        unload(&c);
}

static const char *form(struct normal *n, const char *s, enum normal_kind kind)
{
        static char copy[256];
        const char *why = "";

        if (normal_forms(n, s, strlen(s), &why) < 0)
                return why;
        for (size_t i = n->n_forms; i-- > 0;) {
                if (!(n->forms[i].kinds & kind))
                        continue;
                snprintf(copy, sizeof(copy), "%.*s", (int)n->forms[i].n, n->forms[i].s);
                return copy;
        }
        return "none";
}

static void normal_forms_are_what_tools_may_see(_unused_ void **state)
{
        struct normal n = {0};

        assert_string_equal(form(&n, "abc", NORMAL_PATH), "abc");
        assert_string_equal(form(&n, "ABC", NORMAL_PLAIN), "abc");
        assert_string_equal(form(&n, "ABC", NORMAL_RAW), "ABC");
        assert_string_equal(form(&n, "%25%32%65", NORMAL_PLAIN), ".");
        assert_string_equal(form(&n, "%c0%ae", NORMAL_PLAIN), ".");
        assert_string_equal(form(&n,
                                 "\xef\xbc\x85"
                                 "2e",
                                 NORMAL_PLAIN),
                            ".");
        assert_string_equal(form(&n, "\xe2\x80\xa5", NORMAL_PLAIN), "..");
        assert_string_equal(form(&n,
                                 "Stra\xc3\x9f"
                                 "e",
                                 NORMAL_PLAIN),
                            "strasse");
        assert_string_equal(form(&n, "a\\b\\..\\c/", NORMAL_PATH), "a/c/");
        assert_string_equal(form(&n, "/a/./b//../../../c", NORMAL_PATH), "/c");
        assert_string_equal(form(&n, "../a/../..", NORMAL_PATH), "../..");
        assert_string_equal(form(&n, "https://h/../../a", NORMAL_PATH), "https://h/a");
        assert_string_equal(form(&n, "/..", NORMAL_PATH), "/");
        assert_string_equal(form(&n, "a/..", NORMAL_PATH), "");
        assert_string_equal(form(&n, "a\tb", NORMAL_PATH), "ab");
        assert_string_equal(form(&n, "a\tb", NORMAL_PLAIN), "a\tb");
        assert_string_equal(form(&n, "1.50e1", NORMAL_NUMBER), "15");
        assert_string_equal(form(&n, "-0", NORMAL_NUMBER), "0");
        assert_string_equal(form(&n, "0.1", NORMAL_NUMBER), "0.1");
        assert_string_equal(form(&n, "1e400", NORMAL_NUMBER), "none");
        assert_string_equal(form(&n, "", NORMAL_RAW), "");
        assert_string_equal(form(&n, "%", NORMAL_PLAIN), "%");
        assert_string_equal(form(&n, "%00", NORMAL_PLAIN), "holds an encoded NUL");
        assert_string_equal(form(&n, "%2525252525252525252541", NORMAL_PLAIN), "is encoded too many times over");
        normal_deinit(&n);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(normal_forms_are_what_tools_may_see),
                cmocka_unit_test(evasions_are_refused),
                cmocka_unit_test(honest_lookalikes_pass),
                cmocka_unit_test(refusals_say_where_and_why),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
