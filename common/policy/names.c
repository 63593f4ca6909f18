#include "common/policy/rules.h"

struct walk {
        policy_name_fn fn;
        void *user;
};

static void of_selector(const struct walk *w, const struct selector *s, unsigned kind)
{
        for (size_t i = 0; i < s->n_globs; i++)
                if (s->globs[i].line > 0) /* what is built in is none of the file's */
                        w->fn(s->globs[i].server, s->globs[i].tool, kind, s->globs[i].line, s->globs[i].column, w->user);
}

static void of_limits(const struct walk *w, const struct rate_limit *limits, size_t n)
{
        for (size_t i = 0; i < n; i++)
                of_selector(w, &limits[i].tools, POLICY_TOOL);
}

static void of_rules(const struct walk *w, const struct argument_rule *rules, size_t n)
{
        for (size_t i = 0; i < n; i++)
                of_selector(w, &rules[i].tools, POLICY_TOOL);
}

static void of_agent(const struct walk *w, const struct policy_agent *a)
{
        for (unsigned kind = 0; kind < POLICY_KINDS; kind++)
                of_selector(w, &a->allow[kind], kind);
        of_selector(w, &a->ask, POLICY_TOOL);
        of_selector(w, &a->deny, POLICY_KINDS);
        of_selector(w, &a->preload, POLICY_TOOL);
        of_limits(w, a->own_limits, a->n_own_limits);
}

void policy_names(const struct policy *p, policy_name_fn fn, void *user)
{
        const struct walk w = {fn, user};

        of_limits(&w, p->limits, p->n_limits);
        for (size_t i = 0; i < p->n_prices; i++)
                of_selector(&w, &p->prices[i].tools, POLICY_TOOL);
        of_rules(&w, p->arguments, p->n_arguments);
        of_rules(&w, p->paths, p->n_paths);
        for (size_t i = 0; i < p->n_blocked; i++)
                of_selector(&w, &p->blocked[i].tools, POLICY_TOOL);
        of_selector(&w, &p->approval, POLICY_TOOL);
        for (size_t i = 0; i < p->n_agents; i++)
                of_agent(&w, p->agents[i]);
}
