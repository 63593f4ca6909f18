/*
 * Schema and arguments, both hostile. Input: a schema, a NUL, arguments. Whatever they are: bounded work, no fault of memory, a reason for
 * every refusal; and no string that is ".." is ever let through.
 */
#include "broker/policy/decide.h"
#include "broker/policy/schema.h"
#include "common/policy/normal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
        if (!holds)
                abort();
}

static struct decider *the_decider(void)
{
        static const char text[] =
                "{\"version\":\"1.0\",\"rate_limits\":[],\"budgets\":{},\"agents\":{\"a\":{\"allow\":[\"*:*\"]}},"
                "\"path_rules\":[{\"tools\":[\"*:*\"],\"arguments\":[\"*path\"],\"allow\":[\"/srv\",\".\"],\"deny\":[\"/srv/x\"]}],"
                "\"argument_patterns\":[{\"tools\":[\"*:*\"],\"arguments\":[\"url\"],\"pattern\":\"^https://h/\"}]}";
        static struct decider *decider;
        static struct ledger *ledger;
        struct policy *p = NULL;

        if (!decider) {
                check(policy_parse(&p, text, strlen(text), "fuzz", NULL) == 0 && ledger_open(&ledger, NULL, NULL) == 0);
                check(decider_new(&decider, p, ledger, NULL) == 0);
                policy_unref(p);
        }
        return decider;
}

static void check_string(struct mcp_slice s)
{
        static struct normal normal;
        const char *why = NULL;

        normal_begin(&normal);
        if (normal_forms(&normal, s.n ? s.at : "", s.n, &why) < 0) {
                check(why != NULL);
                return;
        }
        check(normal.n_forms >= 1 && normal.n_forms <= NORMAL_FORMS);
        for (size_t i = 0; i < normal.n_forms; i++) {
                const struct normal_form *f = &normal.forms[i];
                check(f->kinds && (f->n == 0 || !memchr(f->s, '\0', f->n)));
                if (f->kinds & NORMAL_PATH)
                        check(f->n < 4 || f->s[0] != '/' || !memmem(f->s, f->n, "/../", 4));
        }
}

static void check_allowed(struct mcp_slice arguments)
{
        static struct value_tree tree;

        check(value_parse(&tree, arguments, NULL) == 0);
        for (uint32_t i = 0; i < tree.n; i++)
                check(tree.nodes[i].type != VALUE_STRING || !mcp_is(tree.nodes[i].text, ".."));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        const char *text = (const char *)data, *nul = size ? memchr(text, '\0', size) : NULL;
        size_t n = nul ? (size_t)(nul - text) : size;
        struct mcp_slice arguments = nul ? (struct mcp_slice){nul + 1, size - n - 1} : (struct mcp_slice){0};
        _cleanup_(policy_tool_freep) struct policy_tool *tool = policy_tool_new("s", "t", ACTION_READ, text, n, "");
        const struct policy_request request = {.agent = "a", .server = "s", .name = "t", .tool = tool, .arguments = arguments, .now_ms = 1};
        struct policy_decision decision;

        if (mcp_value_check(text, n, NULL) == 0 && text[0] == '"')
                check_string((struct mcp_slice){text + 1, n - 2});
        if (arguments.at && mcp_value_check(arguments.at, arguments.n, NULL) != 0)
                return 0;
        decide(the_decider(), &request, &decision);
        check(decision.outcome == POLICY_ALLOWED || (decision.outcome == POLICY_BAD_ARGUMENTS && decision.why[0] && decision.rule));
        if (decision.outcome == POLICY_ALLOWED && arguments.at)
                check_allowed(arguments);
        return 0;
}
