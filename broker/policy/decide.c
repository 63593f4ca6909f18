#include "broker/policy/decide.h"

#include <assert.h>
#include <stdio.h>

#include "broker/policy/arguments.h"

static_assert((int)PERIOD_FOREVER == (int)LEDGER_FOREVER && (int)PERIOD_MONTH == (int)LEDGER_MONTH,
              "the ledger counts in the same periods");
static_assert(POLICY_MAX_LIMITS <= LEDGER_MAX_LIMITS, "the ledger counts every limit");

struct decider {
        struct policy *policy;
        struct ledger *ledger;
        struct value_tree tree;
        struct normal normal;
};

/* -- tools --------------------------------------------------------------------------------------------------------------------- */
struct policy_tool {
        char *server, *name, *manifest, *fault;
        enum action_class action;
        struct schema *schema; /* NULL: not understood */
};

struct policy_tool *policy_tool_new(const char *server, const char *name, enum action_class action, const char *schema, size_t n,
                                    const char *manifest_sha256)
{
        struct policy_tool *t = NEW(struct policy_tool);
        _cleanup_err_ struct err *err = NULL;

        t->server = mem_strdup(server);
        t->name = mem_strdup(name);
        t->manifest = mem_strdup(manifest_sha256);
        t->action = action;
        if (schema_new(&t->schema, schema, n, &err) < 0)
                t->fault = mem_strdup(err_msg(err));
        return t;
}

struct policy_tool *policy_tool_free(struct policy_tool *t)
{
        if (!t)
                return NULL;
        schema_free(t->schema);
        free(t->server);
        free(t->name);
        free(t->manifest);
        free(t->fault);
        free(t);
        return NULL;
}

const char *policy_tool_fault(const struct policy_tool *t)
{
        return t->fault;
}

const char *policy_tool_manifest(const struct policy_tool *t)
{
        return t->manifest;
}

/* -- the decision -------------------------------------------------------------------------------------------------------------- */
const char *policy_outcome_name(enum policy_outcome outcome)
{
        static const char *const names[] = {
                [POLICY_ALLOWED] = "allow",
                [POLICY_DOES_NOT_EXIST] = "does-not-exist",
                [POLICY_APPROVAL_REQUIRED] = "approval_required",
                [POLICY_RATE_LIMITED] = "rate_limited",
                [POLICY_BUDGET_EXHAUSTED] = "budget_exhausted",
                [POLICY_BAD_ARGUMENTS] = "bad_arguments",
                [POLICY_FAILED] = "failed",
        };

        return names[outcome];
}

/* What is known of the request on the way to the decision. */
struct deciding {
        const struct policy *policy;
        const struct policy_agent *agent;
        const struct policy_request *request;
        struct policy_decision *decision;
        unsigned action_bits; /* restricting */
        enum policy_access access;
        struct ledger_ask ask;
};

/* false, so that a caller can return it: the decision is made. */
_printf_(4, 5) static bool conclude(struct deciding *d, enum policy_outcome outcome, const char *rule, const char *why, ...)
{
        va_list ap;

        d->decision->outcome = outcome;
        d->decision->rule = rule;
        va_start(ap, why);
        vsnprintf(d->decision->why, sizeof(d->decision->why), why, ap);
        va_end(ap);
        return false;
}

/* The same steps for what is denied and for what is not there. */
static bool may_exist(struct deciding *d)
{
        const struct policy_request *r = d->request;
        bool tool = r->kind == POLICY_TOOL, exists = tool ? r->tool != NULL : r->exists;
        enum action_class action = tool && r->tool ? r->tool->action : ACTION_UNKNOWN;
        const char *rule = NULL;

        d->access = policy_access(d->agent, r->kind, r->server, r->name, action, &rule);
        d->action_bits = tool ? action_bits_restricting(action) : 0;
        d->decision->rule = rule;
        if (!exists || d->access == POLICY_NONE)
                return conclude(d, POLICY_DOES_NOT_EXIST, d->access == POLICY_NONE ? rule : "the catalogue does not have it",
                                "there is no such %s", policy_kind_name(r->kind));
        if (tool && (!str_eq(r->tool->server, r->server) || !str_eq(r->tool->name, r->name)))
                return conclude(d, POLICY_FAILED, "the catalogue's tool has another name", "the broker failed; its log says more");
        return true;
}

static uint64_t cost_of(const struct policy_decision *decision, uint64_t tokens)
{
        uint64_t per_tokens;

        if (__builtin_mul_overflow(tokens, decision->price_per_1000_tokens, &per_tokens) || per_tokens > UINT64_MAX / 2)
                return UINT64_MAX / 2;
        return decision->price_per_call + per_tokens / 1000 + (per_tokens % 1000 > 0);
}

static void prepare_ask(struct deciding *d)
{
        const struct policy_request *r = d->request;

        d->ask = (struct ledger_ask){.agent = d->agent->index, .now_ms = r->now_ms};
        for (size_t i = 0; i < d->agent->n_limits; i++)
                if (selector_match(&d->agent->limits[i]->tools, r->server, r->name, d->action_bits))
                        d->ask.limits |= 1U << i;
        for (size_t i = 0; i < d->policy->n_prices; i++) {
                const struct price *price = &d->policy->prices[i];

                if (!selector_match(&price->tools, r->server, r->name, d->action_bits))
                        continue;
                d->decision->price_per_call = price->per_call;
                d->decision->price_per_1000_tokens = price->per_1000_tokens;
                break;
        }
        d->ask.tokens = policy_estimate_tokens(r->arguments.n, 0) + d->agent->budget.reserve_tokens;
        d->ask.cost = cost_of(d->decision, d->ask.tokens);
}

static bool admitted(struct deciding *d, const struct ledger_answer *answer)
{
        static const char *const what[] = {[LEDGER_CALLS] = "calls", [LEDGER_TOKENS] = "tokens", [LEDGER_COST] = "cost"};

        if (answer->outcome == LEDGER_ADMITTED)
                return true;
        d->decision->retry_after_ms = answer->retry_after_ms;
        if (answer->outcome == LEDGER_RATE) {
                const struct rate_limit *limit = d->agent->limits[answer->limit];

                return conclude(d, POLICY_RATE_LIMITED, limit->rule, "more than %u calls in %llu seconds", limit->max_calls,
                                (unsigned long long)limit->window_ms / 1000);
        }
        return conclude(d, POLICY_BUDGET_EXHAUSTED, d->agent->budget.rule, "the budget of %s is used up", what[answer->outcome]);
}

static bool refuse_arguments(struct deciding *d, const char *rule, const struct schema_fault *fault)
{
        memcpy(d->decision->where, fault->where, sizeof(d->decision->where));
        return conclude(d, POLICY_BAD_ARGUMENTS, rule, "%s", fault->why);
}

static bool arguments_are_good(struct deciding *d, struct decider *decider)
{
        const struct policy_request *r = d->request;
        const struct arguments_call call = {d->policy, r->server, r->name, d->action_bits};
        struct mcp_slice arguments = mcp_has(r->arguments) ? r->arguments : mcp_slice_of("{}");
        struct schema_fault fault = {0};
        _cleanup_err_ struct err *err = NULL;
        const char *rule = NULL;

        if (r->kind == POLICY_TOOL && !r->tool->schema)
                return conclude(d, POLICY_BAD_ARGUMENTS, "inputSchema", "the tool's schema is not understood: %s", r->tool->fault);
        if (r->kind == POLICY_RESOURCE && arguments_check_text(&call, r->name, &decider->normal, &fault, &rule))
                return refuse_arguments(d, rule, &fault);
        if (value_parse(&decider->tree, arguments, &err) < 0)
                return conclude(d, POLICY_BAD_ARGUMENTS, "arguments", "%s", err_msg(err));
        if (decider->tree.nodes->type != VALUE_OBJECT)
                return conclude(d, POLICY_BAD_ARGUMENTS, "arguments", "is not an object");
        if (r->kind == POLICY_TOOL && schema_check(r->tool->schema, &decider->tree, &fault))
                return refuse_arguments(d, "inputSchema", &fault);
        if (arguments_check(&call, &decider->tree, &decider->normal, &fault, &rule))
                return refuse_arguments(d, rule, &fault);
        return true;
}

static bool is_approved(struct deciding *d)
{
        const struct policy_request *r = d->request;
        bool class_asks = r->kind == POLICY_TOOL && selector_match(&d->policy->approval, r->server, r->name, d->action_bits);

        if (r->approved || (d->access == POLICY_ALLOW && !class_asks))
                return true;
        return conclude(d, POLICY_APPROVAL_REQUIRED, d->access == POLICY_ASK ? d->agent->ask_rule : d->policy->approval_rule,
                        "a human has to approve this call");
}

static void reserve(struct deciding *d, struct ledger *ledger)
{
        _cleanup_err_ struct err *err = NULL;
        struct ledger_answer answer;

        if (ledger_take(ledger, &d->ask, &answer, &d->decision->ticket, &err) < 0)
                conclude(d, POLICY_FAILED, "counters cannot be written", "%s", err_msg(err));
        else if (admitted(d, &answer))
                d->decision->outcome = POLICY_ALLOWED;
}

void decide(struct decider *decider, const struct policy_request *request, struct policy_decision *decision)
{
        struct deciding d = {.policy = decider->policy, .request = request, .decision = decision};
        struct ledger_answer answer;

        /* Not the texts, which are written when there is something to say. */
        *decision->where = *decision->why = '\0';
        decision->outcome = POLICY_FAILED;
        decision->retry_after_ms = decision->price_per_call = decision->price_per_1000_tokens = 0;
        decision->ticket = (struct ledger_ticket){0};
        d.agent = request->agent ? policy_agent_find(decider->policy, request->agent) : NULL;
        if (!may_exist(&d))
                return;
        prepare_ask(&d);
        ledger_probe(decider->ledger, &d.ask, &answer);
        if (admitted(&d, &answer) && arguments_are_good(&d, decider) && is_approved(&d))
                reserve(&d, decider->ledger);
}

int decider_settle(struct decider *d, struct policy_decision *decision, uint64_t tokens, struct err **err)
{
        return ledger_settle(d->ledger, &decision->ticket, tokens, cost_of(decision, tokens), err);
}

static bool has_used(uint64_t used, uint64_t max, unsigned percent)
{
        return max != POLICY_UNLIMITED && (double)used * 100 >= (double)max * percent;
}

void decider_use(const struct decider *d, uint64_t now_ms, struct decider_use *ret)
{
        static const unsigned percents[DECIDER_SHARES] = {50, 80, 100};
        struct ledger_usage usage;

        *ret = (struct decider_use){.agents = d->policy->n_agents};
        for (size_t i = 0; i < d->policy->n_agents; i++) {
                const struct budget *b = &d->policy->agents[i]->budget;

                ledger_usage(d->ledger, i, now_ms, &usage);
                ret->calls += usage.calls;
                ret->tokens += usage.tokens;
                ret->cost += usage.cost;
                for (size_t k = 0; k < DECIDER_SHARES; k++)
                        ret->above[k] += has_used(usage.calls, b->max_calls, percents[k]) ||
                                         has_used(usage.tokens, b->max_tokens, percents[k]) ||
                                         has_used(usage.cost, b->max_cost, percents[k]);
        }
}

/* -- life ---------------------------------------------------------------------------------------------------------------------- */
static int declare(struct ledger *ledger, const struct policy *p, struct err **err)
{
        _cleanup_free_ struct ledger_agent *agents = mem_alloc((p->n_agents + 1) * sizeof(*agents));
        _cleanup_free_ struct ledger_limit *limits = mem_alloc((p->n_agents * POLICY_MAX_LIMITS + 1) * sizeof(*limits));

        for (size_t i = 0; i < p->n_agents; i++) {
                const struct policy_agent *a = p->agents[i];
                struct ledger_limit *of_agent = limits + i * POLICY_MAX_LIMITS;

                for (size_t l = 0; l < a->n_limits; l++)
                        of_agent[l] = (struct ledger_limit){a->limits[l]->key, a->limits[l]->window_ms, a->limits[l]->max_calls};
                agents[i] = (struct ledger_agent){a->name,
                                                  of_agent,
                                                  a->n_limits,
                                                  (enum ledger_period)a->budget.period,
                                                  a->budget.max_tokens,
                                                  a->budget.max_calls,
                                                  a->budget.max_cost};
        }
        return ledger_declare(ledger, agents, p->n_agents, err);
}

int decider_new(struct decider **ret, struct policy *policy, struct ledger *ledger, struct err **err)
{
        struct decider *d;

        if (declare(ledger, policy, err) < 0)
                return -1;
        d = NEW(struct decider);
        d->policy = policy_ref(policy);
        d->ledger = ledger;
        *ret = d;
        return 0;
}

struct decider *decider_free(struct decider *d)
{
        if (!d)
                return NULL;
        policy_unref(d->policy);
        value_tree_deinit(&d->tree);
        normal_deinit(&d->normal);
        free(d);
        return NULL;
}

int decider_swap(struct decider *d, struct policy *policy, struct err **err)
{
        if (declare(d->ledger, policy, err) < 0)
                return -1;
        policy_unref(d->policy);
        d->policy = policy_ref(policy);
        return 0;
}

const struct policy *decider_policy(const struct decider *d)
{
        return d->policy;
}
