/*
 * Arguments against tests/unit/data/arguments: what must be refused, what must pass; and the normal forms themselves.
 */
#include <unicase.h>
#include <uninorm.h>
#include <unistr.h>

#include "broker/policy/decide.h"
#include "common/file.h"
#include "common/policy/fold.h"
#include "common/policy/normal.h"
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

/* Without the built-in patterns, which refuse some of these as well. */
static void path_rules_stand_alone(_unused_ void **state)
{
        static const char text[] =
                "{\"version\":\"1.0\",\"builtin_patterns_off\":[\"path-traversal\",\"system-accounts\"],\"agents\":{\"tester\":"
                "{\"allow\":[\"*:*\"]}},\"path_rules\":[{\"tools\":[\"in:*\"],\"arguments\":[\"path\"],\"allow\":[\"/srv/Data\",\".\"],"
                "\"deny\":[\"/srv/Data/x\"]},{\"tools\":[\"out:*\"],\"arguments\":[\"path\"],\"deny\":[\"/etc\",\"/proc\"]}]}";
        static const struct {
                const char *call;
                bool passes;
        } calls[] = {{"in:t\t{\"path\":\"a/../../b\"}", false},    {"in:t\t{\"path\":\"..\"}", false},
                     {"in:t\t{\"path\":\"%2e%2e/b\"}", false},     {"in:t\t{\"path\":\"a/../b\"}", true},
                     {"in:t\t{\"path\":\"/srv/Data/b\"}", true},   {"in:t\t{\"path\":\"/srv/data/b\"}", false},
                     {"in:t\t{\"path\":\"/srv/Data/x\"}", false},  {"in:t\t{\"path\":\"/srv/Data/X/y\"}", false},
                     {"in:t\t{\"path\":\"/srv/Data/xy\"}", true},  {"out:t\t{\"path\":\"/etc/x\"}", false},
                     {"out:t\t{\"path\":\"etc/x\"}", false},       {"out:t\t{\"path\":\"../x\"}", false},
                     {"out:t\t{\"path\":\"/usr/../ETC\"}", false}, {"out:t\t{\"path\":\"/srv/x\"}", true},
                     {"out:t\t{\"path\":\"/etcetera\"}", true},    {"out:t\t{\"other\":\"/etc/x\"}", true}};
        _cleanup_(policy_unrefp) struct policy *p = NULL;
        _cleanup_err_ struct err *err = NULL;
        struct policy_decision decision;
        struct corpus c = {0};

        assert_ok(policy_parse(&p, text, strlen(text), "p.json", &err));
        assert_ok(ledger_open(&c.ledger, NULL, &err));
        assert_ok(decider_new(&c.decider, p, c.ledger, &err));
        for (size_t i = 0; i < ELEMENTSOF(calls); i++) {
                bool passed = passes(&c, calls[i].call, &decision);

                if (passed != calls[i].passes)
                        print_error("%s: %s\n", calls[i].call, decision.why);
                assert_int_equal(passed, calls[i].passes);
        }
        unload(&c);
}

static const char *form(struct normal *n, const char *s, enum normal_kind kind)
{
        static char copy[256];
        const char *why = "";

        normal_begin(n);
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

/* Folding by segments is folding of the whole. */
static void folding_by_parts_changes_nothing(_unused_ void **state)
{
        static const ucs4_t interesting[] = {'a',     'A',     '.',     ' ',     0xe9,   0xc9,   0x301, 0x323,  0x327,
                                             0x1100,  0x1161,  0x11a8,  0xac00,  0x3042, 0x3099, 0x9be, 0x9c7,  0xdf,
                                             0x1e9b,  0xfdfa,  0xff21,  0xff0c,  0x4e2d, 0x43a,  0x41a, 0x345,  0x3b1,
                                             0x1f600, 0x1d49c, 0x2fa1d, 0x20000, 0x212b, 0x130,  0x131, 0xfb01, 0x2126};
        _cleanup_buf_ struct buf text = {0}, work = {0};

        srand(3);
        for (int round = 0; round < 20000; round++) {
                size_t budget = FOLD_BUDGET, n = 0;
                uint8_t bytes[6];

                text.len = 0;
                for (int i = rand() % 9; i >= 0; i--)
                        buf_add(&text, bytes, (size_t)u8_uctomb(bytes, interesting[(size_t)rand() % ELEMENTSOF(interesting)], 6));
                uint8_t *whole = u8_casefold((const uint8_t *)text.data, text.len, NULL, UNINORM_NFKC, NULL, &n);
                assert_true(fold_text(&text, &work, &budget));
                assert_int_equal(text.len, n);
                assert_memory_equal(text.data, whole, n);
                free(whole);
        }
}

/* What is cheap to send must not be dear to look at. */
static void much_that_needs_folding_is_refused(_unused_ void **state)
{
        struct policy_decision decision;
        _cleanup_buf_ struct buf b = {0};
        struct corpus c = {0};

        load(&c, "honest.txt");
        buf_adds(&b, "fs:any\t{\"text\":\"");
        for (int i = 0; i < 30000; i++)
                buf_adds(&b, "\xef\xb7\xba");
        buf_adds(&b, "\"}");
        assert_false(passes(&c, b.data, &decision));
        assert_string_equal(decision.why, "holds more text than can be folded to one case");
        b.len = 0;
        buf_adds(&b, "fs:any\t{\"text\":\"");
        for (int i = 0; i < 100000; i++)
                buf_adds(&b, i % 20 ? "\xe4\xb8\xad" : "\xef\xbc\x8c");
        buf_adds(&b, "\"}");
        assert_true(passes(&c, b.data, &decision));
        unload(&c);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(normal_forms_are_what_tools_may_see),
                cmocka_unit_test(folding_by_parts_changes_nothing),
                cmocka_unit_test(much_that_needs_folding_is_refused),
                cmocka_unit_test(evasions_are_refused),
                cmocka_unit_test(honest_lookalikes_pass),
                cmocka_unit_test(refusals_say_where_and_why),
                cmocka_unit_test(path_rules_stand_alone),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
