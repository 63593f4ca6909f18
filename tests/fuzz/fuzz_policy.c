/* The loader of the security policy: any bytes are either refused with a message or give a policy that keeps what rules.h promises. */
#include "common/policy/rules.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
        if (!holds)
                abort();
}

static void check_agent(const struct policy *p, const struct policy_agent *a)
{
        const char *rule = NULL;

        check(policy_agent_find(p, a->name) == a && a->n_limits <= POLICY_MAX_LIMITS && a->budget.rule);
        for (size_t i = 0; i < a->n_limits; i++)
                check(a->limits[i]->window_ms >= 1000 && a->limits[i]->rule);
        for (unsigned kind = 0; kind < POLICY_KINDS; kind++) {
                enum policy_access access = policy_access(a, (enum policy_kind)kind, "server", "name", ACTION_READ, &rule);

                check(rule &&
                      (access == POLICY_NONE || a->allow[kind].n_globs || a->allow[kind].actions || a->ask.n_globs || a->ask.actions));
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(policy_unrefp) struct policy *p = NULL;
        _cleanup_err_ struct err *err = NULL;

        if (policy_parse(&p, (const char *)data, size, "fuzz", &err) < 0) {
                check(err && err_msg(err)[0]);
                return 0;
        }
        check(p->n_limits <= POLICY_MAX_LIMITS && p->n_blocked <= POLICY_MAX_RULES && (p->blocked_set != NULL) == (p->n_blocked > 0));
        for (size_t i = 0; i < p->n_agents; i++)
                check_agent(p, p->agents[i]);
        return 0;
}
