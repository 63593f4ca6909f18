/*
 * The parts of a loaded policy, as the deciding functions read them. Only for this folder and broker/policy. Every rule carries its own
 * text for logs: "rate_limits[0] (line 12)".
 */
#pragma once

#include "common/policy/pattern.h"
#include "common/policy/policy.h"
#include "common/reader.h"

#define POLICY_MAX_LIMITS   16U /* that apply to one agent, shared ones and its own: they are what its memory is spent on */
#define POLICY_MAX_RULES    64U /* of each other list */
#define POLICY_UNLIMITED    UINT64_MAX
#define POLICY_MAX_WINDOW_S (31U * 86400)

struct rate_limit {
        char *rule;
        struct selector tools;
        uint32_t max_calls;
        uint64_t window_ms;
        uint64_t key; /* of tools and window: counts survive a change of max_calls, a restart and a reordering of the file */
};

enum budget_period { PERIOD_HOUR, PERIOD_DAY, PERIOD_MONTH, PERIOD_FOREVER };

struct budget {
        char *rule;
        enum budget_period period;                /* as UTC has it */
        uint64_t max_tokens, max_calls, max_cost; /* POLICY_UNLIMITED; cost in millionths of a dollar */
        uint32_t reserve_tokens;                  /* set aside for a call whose use is not known yet */
};

struct price {
        char *rule;
        struct selector tools;
        uint64_t per_call, per_1000_tokens; /* millionths of a dollar */
};

/* A rule about arguments whose name, or that of something around them, matches one of the globs. */
struct argument_rule {
        char *rule;
        struct selector tools;
        char **arguments;
        /* argument_patterns: the value as written, and in its normal form, must match. NULL in a path rule. */
        struct pattern *exact, *folded;
        /* path_rules: absolute, normalised directories; in normal form as well, for comparing without case. */
        char **allow, **deny, **allow_folded, **deny_folded;
        bool relative; /* paths without a leading slash that do not climb out are fine */
};

struct blocked_pattern {
        char *rule;
        char *name; /* NULL: none */
        char *expression;
        struct selector tools;
};

struct policy_agent {
        char *name;
        size_t index; /* among the policy's agents */
        struct selector allow[POLICY_KINDS], ask, deny, preload;
        struct rate_limit **limits; /* borrowed: the shared ones, then its own */
        size_t n_limits;
        struct rate_limit *own_limits;
        size_t n_own_limits;
        struct budget budget; /* its own, or the shared one */
        bool has_budget;
        char *zone;
        char *rules[POLICY_KINDS], *ask_rule, *deny_rule, *no_rule; /* texts; NULL where the list is not in the file */
};

struct policy {
        unsigned refs;
        char *name;
        struct rate_limit *limits;
        size_t n_limits;
        struct budget budget;
        struct price *prices;
        size_t n_prices;
        struct argument_rule *arguments, *paths;
        size_t n_arguments, n_paths;
        struct blocked_pattern *blocked;
        size_t n_blocked;
        struct pattern_set *blocked_set; /* bit i: blocked[i]; NULL when there are none */
        struct selector approval;        /* tool_approval_required */
        char *approval_rule;
        char **redacted; /* globs */
        unsigned retention_days, audit_files;
        uint64_t artifact_max_bytes, audit_max_bytes;
        struct policy_agent **agents; /* sorted by name */
        size_t n_agents;
};

/* -- the loader's pieces ------------------------------------------------------------------------------------------------------ */
/* Parsers of keys (key_parse_fn); dst is what the comment says. */
int parse_rate_limits(const struct reader *r, const struct place *at, json_object *value, void *policy, struct err **err);
int parse_budgets(const struct reader *r, const struct place *at, json_object *value, void *budget, struct err **err);
int parse_prices(const struct reader *r, const struct place *at, json_object *value, void *policy, struct err **err);
int parse_argument_patterns(const struct reader *r, const struct place *at, json_object *value, void *policy, struct err **err);
int parse_blocked_patterns(const struct reader *r, const struct place *at, json_object *value, void *policy, struct err **err);
int parse_patterns_off(const struct reader *r, const struct place *at, json_object *value, void *policy, struct err **err);
int parse_path_rules(const struct reader *r, const struct place *at, json_object *value, void *policy, struct err **err);
int parse_agents(const struct reader *r, const struct place *at, json_object *value, void *policy, struct err **err);
int parse_selector(const struct reader *r, const struct place *at, json_object *value, void *selector, struct err **err);
/* Adds one class or glob, and keeps where it stands. */
_must_check_ int read_selector_item(const struct reader *r, const struct place *at, const char *text, struct selector *s, struct err **err);
/* Compiles the blocked patterns, when all of them are read. */
_must_check_ int patterns_finish(const struct reader *r, struct policy *p, struct err **err);
/* Gives every agent its limits and its budget, when all else is read. */
_must_check_ int agents_finish(const struct reader *r, struct policy *p, struct err **err);
/* *limits grows as the items are read, so that whoever owns it can free what was made before an error. */
_must_check_ int read_rate_limits(const struct reader *r, const struct place *at, json_object *value, struct rate_limit **limits,
                                  size_t *n_limits, struct err **err);
/* "agents.alice.allow (line 12)"; owned. */
char *rule_text(const struct reader *r, const struct place *at);
/* JSON of the keys that are in force where a file leaves them out; its blocked patterns and the file's are in force together. */
extern const char policy_builtin[];

void rate_limit_deinit(struct rate_limit *l);
void blocked_pattern_deinit(struct blocked_pattern *b);
void argument_rule_deinit(struct argument_rule *a);
struct policy_agent *policy_agent_free(struct policy_agent *a);
