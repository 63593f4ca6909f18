#include <time.h>

#include "broker/policy/decide.h"
#include "tests/unit/test.h"

#define NOW UINT64_C(1764111600000)
static const char policy_text[] =
        "{\"version\": \"1.0\",\n"
        "\"rate_limits\": [{\"tools\": [\"*:*\"], \"max_calls\": 20, \"window_seconds\": 60},\n"
        " {\"tools\": [\"write\"], \"max_calls\": 2, \"window_seconds\": 60}],\n"
        "\"budgets\": {\"max_tokens\": 50000, \"max_cost_usd\": 1, \"reserve_tokens\": 100},\n"
        "\"prices\": [{\"tools\": [\"paid:*\"], \"usd_per_call\": 0.25, \"usd_per_1000_tokens\": 0.5}],\n"
        "\"agents\": {\"alice\": {\"allow\": [\"fs:*\", \"paid:*\"], \"ask\": [\"git:*\"], \"deny\": [\"fs:wipe\"],\n"
        "  \"prompts\": [\"fs:*\"], \"resources\": [\"fs:file:///*\"]},\n"
        " \"bob\": {\"allow\": [\"fs:*\"], \"budgets\": {\"max_api_calls\": 3, \"period\": \"forever\"}}}}";
static const char schema[] =
        "{\"type\":\"object\",\"properties\":{\"path\":{\"type\":\"string\"}},\"required\":[\"path\"],\"additionalProperties\":false}";

struct world {
        struct ledger *ledger;
        struct decider *decider;
        struct policy_tool *read, *write, *wipe, *exec, *push, *paid, *odd, *blank;
};

static struct policy_tool *tool(const char *server, const char *name, enum action_class action, const char *text)
{
        return policy_tool_new(server, name, action, text, strlen(text), "m");
}

static int begin(void **state)
{
        _cleanup_(policy_unrefp) struct policy *p = NULL;
        _cleanup_err_ struct err *err = NULL;
        struct world *w = NEW(struct world);

        assert_ok(policy_parse(&p, policy_text, strlen(policy_text), "p.json", &err));
        assert_ok(ledger_open(&w->ledger, NULL, &err));
        assert_ok(decider_new(&w->decider, p, w->ledger, &err));
        w->read = tool("fs", "read", ACTION_READ, schema);
        w->write = tool("fs", "write", ACTION_WRITE, schema);
        w->wipe = tool("fs", "wipe", ACTION_WRITE, schema);
        w->exec = tool("fs", "exec", ACTION_EXEC, schema);
        w->push = tool("git", "push", ACTION_WRITE, schema);
        w->paid = tool("paid", "search", ACTION_NETWORK, "{}");
        w->odd = tool("fs", "odd", ACTION_READ, "{\"unheard\":1}");
        w->blank = tool("fs", "blank", ACTION_UNKNOWN, schema);
        *state = w;
        return 0;
}

static int end(void **state)
{
        struct world *w = *state;

        decider_free(w->decider);
        ledger_free(w->ledger);
        policy_tool_free(w->read);
        policy_tool_free(w->write);
        policy_tool_free(w->wipe);
        policy_tool_free(w->exec);
        policy_tool_free(w->push);
        policy_tool_free(w->paid);
        policy_tool_free(w->odd);
        policy_tool_free(w->blank);
        free(w);
        return 0;
}

static struct policy_request request_for(const char *agent, const struct policy_tool *t, const char *server, const char *name)
{
        return (struct policy_request){.agent = agent,
                                       .server = server,
                                       .name = name,
                                       .tool = t,
                                       .arguments = mcp_slice_of("{\"path\":\"notes.txt\"}"),
                                       .now_ms = NOW};
}

static enum policy_outcome ask(struct world *w, const struct policy_request *r, struct policy_decision *d)
{
        decide(w->decider, r, d);
        assert_non_null(d->rule ? d->rule : "");
        return d->outcome;
}

static void outcomes_come_in_their_order(void **state)
{
        struct world *w = *state;
        struct policy_decision d;
        struct policy_request r = request_for("alice", w->read, "fs", "read");

        assert_int_equal(ask(w, &r, &d), POLICY_ALLOWED);
        assert_string_equal(d.rule, "agents.alice.allow (line 6)");
        assert_int_not_equal(d.ticket.agent, 0);
        r = request_for("nobody", w->read, "fs", "read");
        assert_int_equal(ask(w, &r, &d), POLICY_DOES_NOT_EXIST);
        r = request_for(NULL, w->read, "fs", "read");
        assert_int_equal(ask(w, &r, &d), POLICY_DOES_NOT_EXIST);
        r = request_for("alice", NULL, "fs", "nothing");
        assert_int_equal(ask(w, &r, &d), POLICY_DOES_NOT_EXIST);
        char why[256];
        strcpy(why, d.why);
        r = request_for("alice", w->wipe, "fs", "wipe");
        r.arguments = mcp_slice_of("{}");
        assert_int_equal(ask(w, &r, &d), POLICY_DOES_NOT_EXIST);
        assert_string_equal(d.why, why); /* the agent sees no difference; the log does */
        assert_string_equal(d.rule, "agents.alice.deny (line 6)");
        r = request_for("alice", w->exec, "fs", "exec");
        assert_int_equal(ask(w, &r, &d), POLICY_APPROVAL_REQUIRED);
        assert_string_equal(d.rule, "tool_approval_required (built in)");
        r.arguments = mcp_slice_of("{\"path\":1}");
        assert_int_equal(ask(w, &r, &d), POLICY_BAD_ARGUMENTS);
        r = request_for("alice", w->blank, "fs", "blank"); /* of no known class: could be any */
        assert_int_equal(ask(w, &r, &d), POLICY_APPROVAL_REQUIRED);
        r = request_for("alice", w->push, "git", "push");
        assert_int_equal(ask(w, &r, &d), POLICY_APPROVAL_REQUIRED);
        assert_string_equal(d.rule, "agents.alice.ask (line 6)");
        r.approved = true;
        assert_int_equal(ask(w, &r, &d), POLICY_ALLOWED);
        r = request_for("bob", w->push, "git", "push");
        r.approved = true; /* no approval makes a tool out of what does not exist for an agent */
        assert_int_equal(ask(w, &r, &d), POLICY_DOES_NOT_EXIST);
}

static void arguments_are_checked_before_anything_is_counted(void **state)
{
        struct world *w = *state;
        struct policy_request r = request_for("alice", w->read, "fs", "read");
        struct policy_decision d;

        static const char *const bad[] = {"{}", "[]", "1", "{\"path\":\"x\",\"more\":1}", "{\"path\":\"../x\"}", "{\"path\":"};
        for (int i = 0; i < 100; i++) {
                r.arguments = mcp_slice_of(bad[i % 6]);
                assert_int_equal(ask(w, &r, &d), POLICY_BAD_ARGUMENTS);
                assert_int_equal(d.ticket.agent, 0);
        }
        r.arguments = (struct mcp_slice){0};
        assert_int_equal(ask(w, &r, &d), POLICY_BAD_ARGUMENTS);
        assert_string_equal(d.rule, "inputSchema");
        assert_string_equal(d.why, "lacks the member \"path\"");
        r = request_for("alice", w->odd, "fs", "odd");
        assert_int_equal(ask(w, &r, &d), POLICY_BAD_ARGUMENTS);
        assert_non_null(strstr(d.why, "unheard: is a keyword that is not understood"));
        assert_non_null(policy_tool_fault(w->odd));
        r = request_for("alice", w->read, "fs", "read");
        for (int i = 0; i < 20; i++)
                assert_int_equal(ask(w, &r, &d), POLICY_ALLOWED);
        r.arguments = mcp_slice_of("{}"); /* who is over the limit is not worth a look at the arguments */
        assert_int_equal(ask(w, &r, &d), POLICY_RATE_LIMITED);
        assert_string_equal(d.rule, "rate_limits[0] (line 2)");
        assert_in_range(d.retry_after_ms, 58000, 62000);
        r.now_ms += d.retry_after_ms;
        r.arguments = mcp_slice_of("{\"path\":\"a\"}");
        assert_int_equal(ask(w, &r, &d), POLICY_ALLOWED);
}

static void classes_have_limits_of_their_own(void **state)
{
        struct world *w = *state;
        struct policy_request r = request_for("alice", w->write, "fs", "write"), read = request_for("alice", w->read, "fs", "read");
        struct policy_decision d;

        assert_int_equal(ask(w, &r, &d), POLICY_ALLOWED);
        assert_int_equal(ask(w, &r, &d), POLICY_ALLOWED);
        assert_int_equal(ask(w, &r, &d), POLICY_RATE_LIMITED);
        assert_string_equal(d.rule, "rate_limits[1] (line 3)");
        assert_int_equal(ask(w, &read, &d), POLICY_ALLOWED);
        r.agent = "bob";
        assert_int_equal(ask(w, &r, &d), POLICY_ALLOWED);
}

static void budgets_of_calls_tokens_and_cost(void **state)
{
        struct world *w = *state;
        struct policy_request r = request_for("bob", w->read, "fs", "read");
        _cleanup_err_ struct err *err = NULL;
        struct policy_decision d;

        for (int i = 0; i < 3; i++)
                assert_int_equal(ask(w, &r, &d), POLICY_ALLOWED);
        assert_int_equal(ask(w, &r, &d), POLICY_BUDGET_EXHAUSTED);
        assert_string_equal(d.why, "the budget of calls is used up");
        assert_string_equal(d.rule, "agents.bob.budgets (line 8)");
        assert_int_equal(d.retry_after_ms, 0);
        r = request_for("alice", w->paid, "paid", "search");
        assert_int_equal(ask(w, &r, &d), POLICY_ALLOWED);
        /* 0.25 and 100 + 5 tokens at 0.5 a thousand: 0.3025, until it is settled as 0.25 and 200 tokens: 0.35 */
        assert_ok(decider_settle(w->decider, &d, 200, &err));
        struct ledger_usage usage;
        ledger_usage(w->ledger, 0, NOW, &usage);
        assert_int_equal(usage.cost, 350000);
        assert_int_equal(usage.tokens, 200);
        assert_ok(decider_settle(w->decider, &d, 999, &err)); /* only once */
        ledger_usage(w->ledger, 0, NOW, &usage);
        assert_int_equal(usage.tokens, 200);
        assert_int_equal(ask(w, &r, &d), POLICY_ALLOWED);
        assert_int_equal(ask(w, &r, &d), POLICY_ALLOWED);
        assert_int_equal(ask(w, &r, &d), POLICY_BUDGET_EXHAUSTED);
        assert_string_equal(d.why, "the budget of cost is used up");
        r = request_for("alice", w->read, "fs", "read");
        assert_int_equal(ask(w, &r, &d), POLICY_ALLOWED); /* it is free */
        assert_ok(decider_settle(w->decider, &d, 60000, &err));
        assert_int_equal(ask(w, &r, &d), POLICY_BUDGET_EXHAUSTED);
        assert_string_equal(d.why, "the budget of tokens is used up");
}

static void prompts_and_resources_pass_too(void **state)
{
        struct world *w = *state;
        struct policy_request r = request_for("alice", NULL, "fs", "greet");
        struct policy_decision d;

        r.kind = POLICY_PROMPT;
        assert_int_equal(ask(w, &r, &d), POLICY_DOES_NOT_EXIST);
        r.exists = true;
        assert_int_equal(ask(w, &r, &d), POLICY_ALLOWED);
        r.arguments = mcp_slice_of("{\"name\":\"..%2fx\"}");
        assert_int_equal(ask(w, &r, &d), POLICY_BAD_ARGUMENTS);
        r = request_for("alice", NULL, "fs", "file:///data/a");
        r.kind = POLICY_RESOURCE;
        r.exists = true;
        r.arguments = (struct mcp_slice){0};
        assert_int_equal(ask(w, &r, &d), POLICY_ALLOWED);
        r.name = "file:///%65tc/passwd";
        assert_int_equal(ask(w, &r, &d), POLICY_BAD_ARGUMENTS);
        r.name = "ftp:///data/a";
        assert_int_equal(ask(w, &r, &d), POLICY_DOES_NOT_EXIST);
        r.kind = POLICY_SAMPLING;
        r.name = "";
        assert_int_equal(ask(w, &r, &d), POLICY_DOES_NOT_EXIST);
}

static void a_new_policy_takes_over_what_was_counted(void **state)
{
        static const char stricter[] =
                "{\"version\": \"1.0\", \"rate_limits\": [{\"tools\": [\"*:*\"], \"max_calls\": 5, \"window_seconds\": 60}],"
                " \"agents\": {\"alice\": {\"allow\": [\"fs:read\"]}}}";
        _cleanup_(policy_unrefp) struct policy *p = NULL;
        _cleanup_err_ struct err *err = NULL;
        struct world *w = *state;
        struct policy_request r = request_for("alice", w->read, "fs", "read");
        struct policy_decision d, last;

        for (int i = 0; i < 4; i++)
                assert_int_equal(ask(w, &r, &last), POLICY_ALLOWED);
        assert_ok(policy_parse(&p, stricter, strlen(stricter), "q.json", &err));
        assert_ok(decider_swap(w->decider, p, &err));
        assert_ok(decider_settle(w->decider, &last, 7, &err));
        assert_int_equal(ask(w, &r, &d), POLICY_ALLOWED);
        assert_int_equal(ask(w, &r, &d), POLICY_RATE_LIMITED);
        r = request_for("bob", w->read, "fs", "read");
        assert_int_equal(ask(w, &r, &d), POLICY_DOES_NOT_EXIST);
}

static uint64_t nanoseconds(void)
{
        struct timespec ts;

        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
        return (uint64_t)ts.tv_sec * 1000000000U + (uint64_t)ts.tv_nsec;
}

static int compare_times(const void *a, const void *b)
{
        return (*(const uint64_t *)a > *(const uint64_t *)b) - (*(const uint64_t *)a < *(const uint64_t *)b);
}

/* 1,000 samples of each, taken in turn. The lower quartiles are compared: what other processes add is above them. */
static double ratio_of_times(struct world *w, const struct policy_request *a, const struct policy_request *b)
{
        static uint64_t samples[2][1000];
        struct policy_decision d;

        for (int i = 0; i < 1000; i++) {
                for (int which = 0; which < 2; which++) {
                        uint64_t start = nanoseconds();

                        for (int n = 0; n < 20; n++)
                                decide(w->decider, which ? b : a, &d);
                        samples[which][i] = nanoseconds() - start;
                        assert_int_equal(d.outcome, POLICY_DOES_NOT_EXIST);
                }
        }
        for (int which = 0; which < 2; which++)
                qsort(samples[which], 1000, sizeof(uint64_t), compare_times);
        return (double)samples[1][250] / (double)samples[0][250];
}

/* Also with arguments whose check would take long: nobody looks at them. Several tries, because other processes share the processor. */
static void denied_takes_as_long_as_not_there(void **state)
{
        struct world *w = *state;
        struct policy_request denied = request_for("alice", w->wipe, "fs", "wipe"), missing = request_for("alice", NULL, "fs", "wape");
        _cleanup_buf_ struct buf b = {0};
        double ratio = 0;

        buf_adds(&b, "{\"path\":\"");
        for (int i = 0; i < 5000; i++)
                buf_adds(&b, "%2e");
        buf_adds(&b, "\"}");
        denied.arguments = missing.arguments = (struct mcp_slice){b.data, b.len};
        for (int attempt = 0; attempt < 5; attempt++) {
                ratio = ratio_of_times(w, &denied, &missing);
                if (ratio > 0.9 && ratio < 1.1)
                        break;
        }
        print_message("not there / denied: %.3f\n", ratio);
        assert_true(ratio > 0.9 && ratio < 1.1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(outcomes_come_in_their_order, begin, end),
                cmocka_unit_test_setup_teardown(arguments_are_checked_before_anything_is_counted, begin, end),
                cmocka_unit_test_setup_teardown(classes_have_limits_of_their_own, begin, end),
                cmocka_unit_test_setup_teardown(budgets_of_calls_tokens_and_cost, begin, end),
                cmocka_unit_test_setup_teardown(prompts_and_resources_pass_too, begin, end),
                cmocka_unit_test_setup_teardown(a_new_policy_takes_over_what_was_counted, begin, end),
                cmocka_unit_test_setup_teardown(denied_takes_as_long_as_not_there, begin, end),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
