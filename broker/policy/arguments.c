#include "broker/policy/arguments.h"

#include <stdio.h>

#include "broker/policy/paths.h"
#include "broker/policy/spot.h"

struct walk {
        const struct policy *policy;
        const struct value_tree *t;
        struct normal *normal;
        uint64_t blocked; /* which of the policy's patterns are for this tool */
        struct schema_fault *fault;
        const char **rule;
};

/* Rules by arguments' names: those for this tool whose name was not met, and those that are in force below it. */
struct named_rules {
        uint64_t waiting, active;
};

static int refuse(struct walk *w, const struct spot *at, const char *rule, const char *why)
{
        spot_write(w->fault->where, sizeof(w->fault->where), at);
        snprintf(w->fault->why, sizeof(w->fault->why), "%s", why);
        *w->rule = rule;
        return 1;
}

static int lowest(uint64_t bits)
{
        return __builtin_ctzll(bits);
}

/* The forms of the string are in w->normal. */
static int check_blocked(struct walk *w, const struct spot *at)
{
        uint64_t hits = 0;

        for (size_t i = 0; w->blocked && i < w->normal->n_forms; i++) {
                const struct normal_form *form = &w->normal->forms[i];

                if (pattern_set_search(w->policy->blocked_set, form->s, form->n, &hits) < 0)
                        return refuse(w, at, "blocked_patterns: out of memory", "is too complicated to be looked at");
                if (!(hits & w->blocked))
                        continue;
                const struct blocked_pattern *b = &w->policy->blocked[lowest(hits & w->blocked)];
                char why[128];
                snprintf(why, sizeof(why), "holds what the policy blocks%s%s", b->name ? ": " : "", b->name ? b->name : "");
                return refuse(w, at, b->rule, why);
        }
        return 0;
}

static int check_patterns(struct walk *w, uint64_t active, bool number, const struct spot *at)
{
        for (; active; active &= active - 1) {
                const struct argument_rule *rule = &w->policy->arguments[lowest(active)];

                for (size_t i = 0; i < w->normal->n_forms; i++) {
                        const struct normal_form *form = &w->normal->forms[i];
                        /* Of a number its value counts, not how it was written; of a string all but what it would be as a number. */
                        bool exact = form->kinds & (number ? NORMAL_NUMBER : NORMAL_RAW);
                        bool folded = !number && (form->kinds & (NORMAL_PLAIN | NORMAL_PATH));

                        if ((exact && !pattern_search(rule->exact, form->s, form->n)) ||
                            (folded && !pattern_search(rule->folded, form->s, form->n)))
                                return refuse(w, at, rule->rule, "does not have the form that the policy wants of this argument");
                }
        }
        return 0;
}

static int check_paths(struct walk *w, uint64_t active, const struct spot *at)
{
        for (; active; active &= active - 1) {
                const struct argument_rule *rule = &w->policy->paths[lowest(active)];
                const char *why = path_rule_check(rule, w->normal);

                if (why)
                        return refuse(w, at, rule->rule, why);
        }
        return 0;
}

static int make_forms(struct walk *w, struct mcp_slice text, const struct spot *at)
{
        const char *why = NULL;

        if (normal_forms(w->normal, text.n ? text.at : "", text.n, &why) < 0)
                return refuse(w, at, "normal form", why);
        return 0;
}

static uint64_t meets(const struct argument_rule *rules, uint64_t waiting, struct mcp_slice name)
{
        uint64_t met = 0;

        for (; waiting; waiting &= waiting - 1) {
                int i = lowest(waiting);

                for (char **glob = rules[i].arguments; *glob; glob++)
                        if (glob_match_folded(*glob, name.at, name.n))
                                met |= UINT64_C(1) << i;
        }
        return met;
}

static void meet_name(const struct argument_rule *rules, struct named_rules *named, struct mcp_slice name)
{
        uint64_t met = meets(rules, named->waiting, name);

        named->waiting &= ~met;
        named->active |= met;
}

static struct mcp_slice text_of(const struct value *v)
{
        if (v->type == VALUE_NULL)
                return mcp_slice_of("null");
        if (v->type == VALUE_BOOLEAN)
                return mcp_slice_of(v->truth ? "true" : "false");
        return v->text;
}

static int check_leaf(struct walk *w, const struct value *v, const struct spot *at, uint64_t patterns, uint64_t paths)
{
        bool number = v->type & (VALUE_INTEGER | VALUE_NUMBER), plain = v->type & (VALUE_NULL | VALUE_BOOLEAN);

        if (plain && !patterns)
                return 0;
        return make_forms(w, text_of(v), at) || (!plain && check_blocked(w, at)) || check_patterns(w, patterns, number, at) ||
               (!plain && check_paths(w, paths, at));
}

static int check_value(struct walk *w, const struct value *v, const struct spot *at, struct named_rules patterns, struct named_rules paths)
{
        size_t i = 0;

        if (v->key.at) {
                if (make_forms(w, v->key, at) || check_blocked(w, at))
                        return 1;
                meet_name(w->policy->arguments, &patterns, v->key);
                meet_name(w->policy->paths, &paths, v->key);
        }
        if (!(v->type & (VALUE_ARRAY | VALUE_OBJECT)))
                return check_leaf(w, v, at, patterns.active, paths.active);
        for (const struct value *child = value_child(w->t, v); child; child = value_next(w->t, child), i++) {
                const struct spot here = {at, child, i};

                if (check_value(w, child, &here, patterns, paths))
                        return 1;
        }
        return 0;
}

static uint64_t rules_for(const struct argument_rule *rules, size_t n, const struct arguments_call *call)
{
        uint64_t bits = 0;

        for (size_t i = 0; i < n; i++)
                if (selector_match(&rules[i].tools, call->server, call->tool, call->action_bits))
                        bits |= UINT64_C(1) << i;
        return bits;
}

static struct walk walk_for(const struct arguments_call *call, const struct value_tree *t, struct normal *normal,
                            struct schema_fault *fault, const char **rule)
{
        struct walk w = {call->policy, t, normal, 0, fault, rule};

        normal_begin(normal);
        for (size_t i = 0; i < call->policy->n_blocked; i++)
                if (selector_match(&call->policy->blocked[i].tools, call->server, call->tool, call->action_bits))
                        w.blocked |= UINT64_C(1) << i;
        return w;
}

int arguments_check(const struct arguments_call *call, const struct value_tree *t, struct normal *normal, struct schema_fault *fault,
                    const char **rule)
{
        struct walk w = walk_for(call, t, normal, fault, rule);
        const struct spot root = {0};
        const struct named_rules patterns = {rules_for(call->policy->arguments, call->policy->n_arguments, call), 0};
        const struct named_rules paths = {rules_for(call->policy->paths, call->policy->n_paths, call), 0};

        return check_value(&w, t->nodes, &root, patterns, paths);
}

int arguments_check_text(const struct arguments_call *call, const char *text, struct normal *normal, struct schema_fault *fault,
                         const char **rule)
{
        struct walk w = walk_for(call, NULL, normal, fault, rule);
        const struct spot root = {0};

        return make_forms(&w, mcp_slice_of(text), &root) || check_blocked(&w, &root);
}
