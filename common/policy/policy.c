#include "common/policy/rules.h"

static const char *const kind_names[POLICY_KINDS] = {"tool", "prompt", "resource", "sampling", "elicitation", "roots"};

const char *policy_kind_name(enum policy_kind kind)
{
        return kind_names[kind];
}

struct policy *policy_ref(struct policy *p)
{
        p->refs++;
        return p;
}

struct policy *policy_unref(struct policy *p)
{
        if (!p || --p->refs > 0)
                return NULL;
        for (size_t i = 0; i < p->n_agents; i++)
                policy_agent_free(p->agents[i]);
        for (size_t i = 0; i < p->n_limits; i++)
                rate_limit_deinit(&p->limits[i]);
        for (size_t i = 0; i < p->n_prices; i++) {
                free(p->prices[i].rule);
                selector_deinit(&p->prices[i].tools);
        }
        for (size_t i = 0; i < p->n_arguments; i++)
                argument_rule_deinit(&p->arguments[i]);
        for (size_t i = 0; i < p->n_paths; i++)
                argument_rule_deinit(&p->paths[i]);
        for (size_t i = 0; i < p->n_blocked; i++)
                blocked_pattern_deinit(&p->blocked[i]);
        pattern_set_free(p->blocked_set);
        selector_deinit(&p->approval);
        strv_free(p->redacted);
        free(p->agents);
        free(p->limits);
        free(p->prices);
        free(p->arguments);
        free(p->paths);
        free(p->blocked);
        free(p->budget.rule);
        free(p->approval_rule);
        free(p->name);
        free(p);
        return NULL;
}

const struct policy_agent *policy_agent_find(const struct policy *p, const char *name)
{
        size_t low = 0, high = p->n_agents;

        while (low < high) {
                size_t middle = low + (high - low) / 2;
                int order = strcmp(name, p->agents[middle]->name);

                if (order == 0)
                        return p->agents[middle];
                if (order < 0)
                        high = middle;
                else
                        low = middle + 1;
        }
        return NULL;
}

size_t policy_n_agents(const struct policy *p)
{
        return p->n_agents;
}

const struct policy_agent *policy_agent_at(const struct policy *p, size_t index)
{
        return p->agents[index];
}

const char *policy_agent_name(const struct policy_agent *a)
{
        return a->name;
}

const char *policy_agent_zone(const struct policy_agent *a)
{
        return a->zone;
}

enum policy_access policy_access(const struct policy_agent *a, enum policy_kind kind, const char *server, const char *name,
                                 enum action_class action, const char **rule)
{
        const char *unused;
        bool tool = kind == POLICY_TOOL;

        if (!rule)
                rule = &unused;
        if (!a) {
                *rule = "agents: no such agent";
                return POLICY_NONE;
        }
        /* All lists, whatever the first of them says: a name that is denied takes as long as one that nothing allows. */
        unsigned granting = tool ? action_bits_granting(action) : 0, restricting = tool ? action_bits_restricting(action) : 0;
        bool denied = selector_match(&a->deny, server, name, restricting);
        bool allowed = selector_match(&a->allow[kind], server, name, granting);
        bool asked = selector_match(&a->ask, server, name, granting) & tool;
        enum policy_access access = (allowed ? POLICY_ALLOW : asked ? POLICY_ASK : POLICY_NONE) * !denied;

        *rule = denied ? a->deny_rule : allowed ? a->rules[kind] : asked ? a->ask_rule : a->no_rule;
        return access;
}

bool policy_reaches(const struct policy_agent *a, enum policy_kind kind, const char *server)
{
        if (!a)
                return false;
        /* Both are looked at, whatever the first one says: the time tells nothing. */
        unsigned allowed = selector_reaches(&a->allow[kind], server), asked = selector_reaches(&a->ask, server);
        return (allowed | (asked & (unsigned)(kind == POLICY_TOOL))) != 0;
}

bool policy_preloads(const struct policy_agent *a, const char *server, const char *tool, enum action_class action)
{
        return a && selector_match(&a->preload, server, tool, action_bits_granting(action));
}

bool policy_preloads_server(const struct policy_agent *a, const char *server)
{
        return a && selector_reaches(&a->preload, server);
}

bool policy_redacts(const struct policy *p, const char *argument)
{
        for (size_t i = 0; p->redacted && p->redacted[i]; i++)
                if (glob_match_folded(p->redacted[i], argument, strlen(argument)))
                        return true;
        return false;
}

unsigned policy_artifact_retention_days(const struct policy *p)
{
        return p->retention_days;
}

uint64_t policy_artifact_max_bytes(const struct policy *p)
{
        return p->artifact_max_bytes;
}

uint64_t policy_audit_max_bytes(const struct policy *p)
{
        return p->audit_max_bytes;
}

unsigned policy_audit_files(const struct policy *p)
{
        return p->audit_files;
}
