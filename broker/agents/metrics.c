/* What the door has done, in numbers. By outcome and not by agent: a thousand agents would be a thousand series of everything. */
#include "common/metrics.h"
#include <time.h>

#include "broker/agents/internal.h"
#include "broker/http/front.h"

void count_decision(struct door *d, const struct policy_decision *decision, uint64_t took_us)
{
        d->counts.outcomes[decision->outcome]++;
        histogram_add(&d->counts.decisions, took_us);
}

void count_end(struct door *d, uint64_t took_us, uint64_t tokens, bool failed)
{
        d->counts.tokens += tokens;
        d->counts.failed += failed;
        histogram_add(&d->counts.calls, took_us);
}

static void add_fronts(const struct door *d, struct buf *out)
{
        struct front_counts sum = {0};

        for (size_t i = 0; i < d->n_fronts; i++) {
                struct front_counts c;

                front_counts(d->fronts[i], &c);
                sum.requests += c.requests;
                sum.refused += c.refused;
                sum.open_connections += c.open_connections;
        }
        metric_one(out, "bulkhead_agents_requests_total", "counter", "Requests of agents.", sum.requests);
        metric_one(out, "bulkhead_agents_refused_total", "counter", "Requests that were no good, or without a token that counts.",
                   sum.refused);
        metric_one(out, "bulkhead_agents_connections", "gauge", "Connections of agents.", sum.open_connections);
}

static void add_decisions(const struct door *d, struct buf *out)
{
        metric_head(out, "bulkhead_decisions_total", "counter", "Decisions about calls of agents.");
        for (unsigned i = 0; i < POLICY_OUTCOMES; i++) {
                _cleanup_free_ char *label = mem_printf("outcome=\"%s\"", policy_outcome_name((enum policy_outcome)i));

                metric_add(out, "bulkhead_decisions_total", label, d->counts.outcomes[i]);
        }
        histogram_write(out, "bulkhead_decision_seconds", "What decisions took, with their line in the log.", &d->counts.decisions);
        histogram_write(out, "bulkhead_agents_call_seconds", "What calls took that were let through, with their servers.",
                        &d->counts.calls);
        metric_one(out, "bulkhead_agents_calls_failed_total", "counter", "Calls that were let through and got no answer.",
                   d->counts.failed);
        metric_one(out, "bulkhead_agents_tokens_total", "counter", "Tokens that calls of agents came to, as estimated.", d->counts.tokens);
}

static void add_budgets(const struct door *d, struct buf *out)
{
        static const char *const shares[DECIDER_SHARES] = {"share=\"0.5\"", "share=\"0.8\"", "share=\"1\""};
        struct decider_use use;

        decider_use(d->decider, (uint64_t)time(NULL) * 1000, &use);
        metric_one(out, "bulkhead_agents", "gauge", "Agents that the policy names.", use.agents);
        metric_head(out, "bulkhead_agents_budget", "gauge", "Agents that have used at least this share of a budget.");
        for (unsigned i = 0; i < DECIDER_SHARES; i++)
                metric_add(out, "bulkhead_agents_budget", shares[i], use.above[i]);
        metric_one(out, "bulkhead_budget_calls", "gauge", "Calls of all agents in their running periods.", use.calls);
        metric_one(out, "bulkhead_budget_tokens", "gauge", "Tokens of all agents in their running periods.", use.tokens);
        metric_head(out, "bulkhead_budget_dollars", "gauge", "Cost for all agents in their running periods.");
        metric_add_millionths(out, "bulkhead_budget_dollars", NULL, use.cost);
}

void door_metrics(const struct door *d, struct buf *out)
{
        add_fronts(d, out);
        add_decisions(d, out);
        add_budgets(d, out);
        metric_one(out, "bulkhead_tools", "gauge", "Tools that are known.", catalogue_n_tools(d->catalogue));
        metric_one(out, "bulkhead_calls_pending", "gauge", "Calls that wait for a human.", pending_waiting(d->pending, door_now_ms(d)));
        metric_head(out, "bulkhead_file_bad", "gauge", "A file could not be read again: what it said before counts on.");
        metric_add(out, "bulkhead_file_bad", "file=\"agents\"", d->agents_bad);
        metric_add(out, "bulkhead_file_bad", "file=\"policy\"", d->policy_bad);
}
