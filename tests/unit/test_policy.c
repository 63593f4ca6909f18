#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"
#include "common/policy/policy.h"
#include "common/policy/rules.h"
#include "tests/unit/test.h"

static int parse(struct policy **p, const char *text, struct err **err)
{
        return policy_parse(p, text, strlen(text), "p.json", err);
}

static void assert_refused(const char *text, const char *part)
{
        _cleanup_err_ struct err *err = NULL;
        struct policy *none = NULL;

        assert_fails(parse(&none, text, &err), part);
        assert_null(none);
}

#define V "{\"version\": \"1.0\",\n "

static void empty_file_gives_nothing_to_anybody(_unused_ void **state)
{
        _cleanup_(policy_unrefp) struct policy *p = NULL;
        _cleanup_err_ struct err *err = NULL;

        assert_ok(parse(&p, "{\"version\": \"1.0\"}", &err));
        assert_int_equal(policy_n_agents(p), 0);
        assert_null(policy_agent_find(p, "alice"));
        assert_int_equal(policy_access(NULL, POLICY_TOOL, "s", "t", ACTION_READ, NULL), POLICY_NONE);
        /* what the man page promises where a key is left out */
        assert_int_equal(p->n_limits, 1);
        assert_int_equal(p->limits[0].max_calls, 120);
        assert_int_equal(p->budget.max_calls, 10000);
        assert_true(p->budget.max_cost == POLICY_UNLIMITED);
        assert_true(p->n_blocked >= 5);
        assert_true(selector_match(&p->approval, "s", "t", action_bits_restricting(ACTION_EXEC)));
        assert_true(selector_match(&p->approval, "s", "t", action_bits_restricting(ACTION_UNKNOWN)));
        assert_false(selector_match(&p->approval, "s", "t", action_bits_restricting(ACTION_READ)));
        assert_true(policy_redacts(p, "GitHub_Token"));
        assert_false(policy_redacts(p, "path"));
        assert_int_equal(policy_artifact_retention_days(p), 7);
        assert_true(policy_artifact_max_bytes(p) == 100ULL << 20);
        assert_true(policy_audit_max_bytes(p) == 64ULL << 20);
        assert_int_equal(policy_audit_files(p), 16);
}

static void access_is_what_the_lists_say(_unused_ void **state)
{
        _cleanup_(policy_unrefp) struct policy *p = NULL;
        _cleanup_err_ struct err *err = NULL;
        const char *rule = NULL;

        assert_ok(parse(&p,
                        V "\"agents\": {\"bob\": {},\n\"alice\": {\"allow\": [\"git*:get_?\", \"read\"], \"ask\": [\"github:*\"],\n"
                          "\"deny\": [\"*:drop_*\"], \"prompts\": [\"github:*\"], \"sampling\": [\"github\"], \"zone\": \"lab\"}}}",
                        &err));
        const struct policy_agent *a = policy_agent_find(p, "alice"), *b = policy_agent_find(p, "bob");
        assert_non_null(a);
        assert_string_equal(policy_agent_zone(a), "lab");
        assert_int_equal(policy_access(a, POLICY_TOOL, "github", "get_x", ACTION_UNKNOWN, &rule), POLICY_ALLOW);
        assert_string_equal(rule, "agents.alice.allow (line 3)");
        assert_int_equal(policy_access(a, POLICY_TOOL, "github", "get_xy", ACTION_UNKNOWN, &rule), POLICY_ASK);
        assert_string_equal(rule, "agents.alice.ask (line 3)");
        assert_int_equal(policy_access(a, POLICY_TOOL, "other", "get", ACTION_READ, NULL), POLICY_ALLOW);
        /* what has no known class is not granted by a class */
        assert_int_equal(policy_access(a, POLICY_TOOL, "other", "get", ACTION_UNKNOWN, NULL), POLICY_NONE);
        assert_int_equal(policy_access(a, POLICY_TOOL, "github", "drop_x", ACTION_READ, &rule), POLICY_NONE);
        assert_string_equal(rule, "agents.alice.deny (line 4)");
        assert_int_equal(policy_access(a, POLICY_TOOL, "GITHUB", "get_x", ACTION_UNKNOWN, NULL), POLICY_NONE);
        assert_int_equal(policy_access(a, POLICY_PROMPT, "github", "x", ACTION_UNKNOWN, NULL), POLICY_ALLOW);
        assert_int_equal(policy_access(a, POLICY_RESOURCE, "github", "x", ACTION_READ, NULL), POLICY_NONE);
        assert_int_equal(policy_access(a, POLICY_SAMPLING, "github", "", ACTION_UNKNOWN, NULL), POLICY_ALLOW);
        assert_int_equal(policy_access(a, POLICY_ROOTS, "github", "", ACTION_UNKNOWN, NULL), POLICY_NONE);
        assert_int_equal(policy_access(b, POLICY_TOOL, "github", "get_x", ACTION_READ, NULL), POLICY_NONE);
}

static void globs_match_whole_names(_unused_ void **state)
{
        assert_true(glob_match("*", ""));
        assert_true(glob_match("a*b*c", "aXbYbZc"));
        assert_false(glob_match("a*b", "aXbc"));
        assert_false(glob_match("?", ""));
        assert_true(glob_match("a?c", "abc"));
        assert_false(glob_match("", "a"));
        assert_false(glob_match("[ab]", "a"));
        assert_false(glob_match("A", "a"));
        assert_true(glob_match_folded("*KEY*", "api_key_1", 9));
}

/* The i-th text over the letters, up to a length of 4. */
static const char *text_number(char text[5], size_t i, const char *letters)
{
        size_t n = 0, k = strlen(letters);

        for (; i > 0; i = (i - 1) / k)
                text[n++] = letters[(i - 1) % k];
        text[n] = '\0';
        return text;
}

/* All short ones, against the plain matcher. */
static void selectors_match_as_globs_do(_unused_ void **state)
{
        enum { GLOBS = 4 + 16 + 64 + 256, NAMES = 1 + 2 + 4 + 8 + 16 };
        _cleanup_err_ struct err *err = NULL;
        char glob[5], name[5];

        for (size_t g = 1; g <= GLOBS; g++) {
                _cleanup_(selector_deinit) struct selector of_tool = {0}, of_server = {0};
                _cleanup_free_ char *tool = mem_printf("s:%s", text_number(glob, g, "ab*?")), *server = mem_printf("%s:t", glob);

                assert_ok(selector_add(&of_tool, tool, &err));
                assert_ok(selector_add(&of_server, server, &err));
                for (size_t i = 0; i < NAMES; i++) {
                        bool matches = glob_match(glob, text_number(name, i, "ab"));

                        assert_int_equal(selector_match(&of_tool, "s", name, 0), matches);
                        assert_int_equal(selector_match(&of_server, name, "t", 0), matches);
                        assert_int_equal(selector_reaches(&of_server, name), matches);
                        assert_false(selector_match(&of_tool, "S", name, 0));
                        assert_false(selector_match(&of_server, name, "tt", 0));
                }
        }
}

static void mistakes_are_named_with_their_place(_unused_ void **state)
{
        assert_refused("[]", "p.json:1:1: is not an object");
        assert_refused("{}", "the key \"version\" is missing");
        assert_refused(V "\"agent\": {}}", "p.json:2:2: agent: unknown key");
        assert_refused(V "\"agents\": {\"a\": {\"alow\": []}}}", "agents.a.alow: unknown key");
        assert_refused(V "\"agents\": {\"A\": {}}}", "p.json:2:13: agents.A: is not an agent's name");
        assert_refused(V "\"agents\": {\"a\": {\"allow\": [\"github\"]}}}", "agents.a.allow[0]: \"github\" is no action class");
        assert_refused(V "\"agents\": {\"a\": {\"prompts\": [\"read\"]}}}", "is an action class");
        assert_refused(V "\"agents\": {\"a\": {\"roots\": [\"a:b\"]}}}", "has a colon");
        assert_refused(V "\"agents\": {\"a\": {}, \"a\": {}}}", "p.json:2");
        assert_refused(V "\"rate_limits\": [{\"tools\": [\"*:*\"], \"max_calls\": -1, \"window_seconds\": 1}]}",
                       "rate_limits[0].max_calls");
        assert_refused(V "\"rate_limits\": [{\"tools\": [\"*:*\"], \"max_calls\": 1, \"window_seconds\": 0}]}", "out of range");
        assert_refused(V "\"rate_limits\": [{\"max_calls\": 1, \"window_seconds\": 1}]}", "\"tools\" is missing");
        assert_refused(V "\"budgets\": {\"max_cost_usd\": 0.0000001}}", "millionth");
        assert_refused(V "\"budgets\": {\"period\": \"week\"}}", "not known here");
        assert_refused(V "\"blocked_patterns\": [{\"pattern\": \"(a)\\\\1\"}]}", "blocked_patterns[0].pattern: not a regular expression");
        assert_refused(V "\"blocked_patterns\": [{\"pattern\": \"((a{100}){100}){100}\"}]}", "not a regular expression");
        assert_refused(V "\"path_rules\": [{\"tools\": [\"*:*\"], \"arguments\": [\"path\"], \"allow\": [\"srv\"]}]}", "not an absolute");
        assert_refused(V "\"path_rules\": [{\"tools\": [\"*:*\"], \"arguments\": [\"path\"], \"allow\": [\"/srv/../etc\"]}]}",
                       "not an absolute");
        assert_refused(V "\"path_rules\": [{\"tools\": [\"*:*\"], \"arguments\": [\"path\"]}]}", "neither allows nor denies");
        assert_refused(V "\"artifact_retention_days\": 0}", "out of range");
        assert_refused(V "\"log_redaction\": [\"a\\u0007\"]}", "control characters");
        assert_refused("{\"version\": \"2.0\"}", "write one of \"1.0\"");
}

static void gate_cannot_be_opened_here(_unused_ void **state)
{
        _cleanup_(policy_unrefp) struct policy *p = NULL;
        _cleanup_err_ struct err *err = NULL;

        assert_refused(V "\"forge_approval_required\": false}", "p.json:2:2: forge_approval_required: false would open the gate");
        assert_refused(V "\"secret_attach_approval_required\": false}", "would open the gate");
        assert_refused(V "\"audit_log\": {\"enabled\": false}}", "every decision is logged");
        assert_ok(parse(&p, V "\"forge_approval_required\": true, \"secret_attach_approval_required\": true}", &err));
}

static void limits_of_one_agent_are_bounded_and_differ(_unused_ void **state)
{
        _cleanup_buf_ struct buf b = {0};

        buf_adds(&b, V "\"rate_limits\": [");
        for (int i = 0; i < 10; i++)
                buf_addf(&b, "%s{\"tools\": [\"s%d:*\"], \"max_calls\": 1, \"window_seconds\": 1}", i ? "," : "", i);
        buf_adds(&b, "],\n\"agents\": {\"a\": {\"rate_limits\": [");
        for (int i = 0; i < 10; i++)
                buf_addf(&b, "%s{\"tools\": [\"t%d:*\"], \"max_calls\": 1, \"window_seconds\": 1}", i ? "," : "", i);
        buf_adds(&b, "]}}}");
        assert_refused(b.data, "p.json:3:12: agents.a: has 20 rate limits");
        assert_refused(V "\"agents\": {\"a\": {\"rate_limits\": [{\"tools\": [\"*:*\"], \"max_calls\": 1, \"window_seconds\": 60}]}}}",
                       "limits the same tools in the same window as rate_limits[0] (built in)");
}

static void file_that_others_may_write_is_refused(_unused_ void **state)
{
        char dir[] = "/tmp/bulkhead-policy-XXXXXX";
        _cleanup_(policy_unrefp) struct policy *p = NULL;
        _cleanup_err_ struct err *err = NULL;
        static const char text[] = "{\"version\": \"1.0\"}";

        assert_non_null(mkdtemp(dir));
        _cleanup_free_ char *path = mem_printf("%s/security_policy.json", dir);
        assert_ok(file_write_atomic(path, text, strlen(text), 0644, &err));
        assert_ok(policy_load(&p, path, &err));
        struct policy *none = NULL;
        assert_int_equal(chmod(path, 0666), 0);
        assert_fails(policy_load(&none, path, &err), "may be written by others");
        assert_int_equal(unlink(path), 0);
        assert_fails(policy_load(&none, path, &err), "security policy");
        assert_null(none);
        rmdir(dir);
}

static void example_is_good(_unused_ void **state)
{
        _cleanup_(policy_unrefp) struct policy *p = NULL;
        _cleanup_free_ char *text = NULL;
        _cleanup_err_ struct err *err = NULL;
        size_t n = 0;

        assert_ok(file_read(&text, &n, TEST_DATA "/../registry/security_policy.json", POLICY_MAX_BYTES, FILE_ANY, &err));
        assert_ok(policy_parse(&p, text, n, "security_policy.json", &err));
}

static void policy_lives_as_long_as_somebody_holds_it(_unused_ void **state)
{
        _cleanup_err_ struct err *err = NULL;
        struct policy *p = NULL, *held;

        assert_ok(parse(&p, "{\"version\": \"1.0\"}", &err));
        held = policy_ref(p);
        policy_unref(p);
        assert_int_equal(policy_n_agents(held), 0);
        policy_unref(held);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(empty_file_gives_nothing_to_anybody),
                cmocka_unit_test(access_is_what_the_lists_say),
                cmocka_unit_test(globs_match_whole_names),
                cmocka_unit_test(selectors_match_as_globs_do),
                cmocka_unit_test(mistakes_are_named_with_their_place),
                cmocka_unit_test(gate_cannot_be_opened_here),
                cmocka_unit_test(limits_of_one_agent_are_bounded_and_differ),
                cmocka_unit_test(file_that_others_may_write_is_refused),
                cmocka_unit_test(example_is_good),
                cmocka_unit_test(policy_lives_as_long_as_somebody_holds_it),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
