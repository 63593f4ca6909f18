#include "common/policy/rules.h"

static int parse_list(const struct reader *r, const struct place *at, json_object *value, struct selector *list, char **rule,
                      struct err **err)
{
        if (parse_selector(r, at, value, list, err) < 0)
                return -1;
        *rule = rule_text(r, at);
        return 0;
}

#define PARSE_LIST(name, list, rule)                                                                                                       \
        static int parse_##name(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)           \
        {                                                                                                                                  \
                struct policy_agent *a = dst;                                                                                              \
                                                                                                                                           \
                return parse_list(r, at, value, &a->list, &a->rule, err);                                                                  \
        }
PARSE_LIST(allow, allow[POLICY_TOOL], rules[POLICY_TOOL])
PARSE_LIST(ask, ask, ask_rule)
PARSE_LIST(deny, deny, deny_rule)

static int parse_preload(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        struct policy_agent *a = dst;

        return parse_selector(r, at, value, &a->preload, err);
}

/* Lists of what has no action class. servers: the names of servers alone, which match whatever they ask. */
static int parse_plain(const struct reader *r, const struct place *at, json_object *value, struct policy_agent *a, enum policy_kind kind,
                       bool servers, struct err **err)
{
        struct selector *list = &a->allow[kind];
        size_t n = 0;

        if (read_array(r, at, value, SELECTOR_MAX_ITEMS, &n, err) < 0)
                return -1;
        for (size_t i = 0; i < n; i++) {
                const char *s = NULL;

                if (read_string(r, PLACE_ITEM(at, i), json_object_array_get_idx(value, i), SELECTOR_MAX_GLOB, &s, err) < 0)
                        return -1;
                if (servers && strchr(s, ':'))
                        return reader_fail(r, PLACE_ITEM(at, i), err, "has a colon; write the name of a server, or a glob of names");
                _cleanup_free_ char *glob = servers ? mem_printf("%s:*", s) : mem_strdup(s);
                if (action_class_parse(glob) >= 0)
                        return reader_fail(r, PLACE_ITEM(at, i), err, "is an action class, which only tools have; write a glob");
                if (read_selector_item(r, PLACE_ITEM(at, i), glob, list, err) < 0)
                        return -1;
        }
        a->rules[kind] = rule_text(r, at);
        return 0;
}

#define PARSE_PLAIN(name, kind, servers)                                                                                                   \
        static int parse_##name(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)           \
        {                                                                                                                                  \
                return parse_plain(r, at, value, dst, kind, servers, err);                                                                 \
        }
PARSE_PLAIN(prompts, POLICY_PROMPT, false)
PARSE_PLAIN(resources, POLICY_RESOURCE, false)
PARSE_PLAIN(sampling, POLICY_SAMPLING, true)
PARSE_PLAIN(elicitation, POLICY_ELICITATION, true)
PARSE_PLAIN(roots, POLICY_ROOTS, true)

static int parse_agent_limits(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        struct policy_agent *a = dst;

        return read_rate_limits(r, at, value, &a->own_limits, &a->n_own_limits, err);
}

static int parse_agent_budgets(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        struct policy_agent *a = dst;

        a->has_budget = true;
        return parse_budgets(r, at, value, &a->budget, err);
}

static bool name_valid(const char *name, size_t max)
{
        size_t n = strlen(name);

        return n >= 1 && n <= max && name[0] != '.' && str_in_charset(name, "abcdefghijklmnopqrstuvwxyz0123456789._-");
}

static int parse_zone(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        const char *s = NULL;

        if (read_string(r, at, value, 64, &s, err) < 0)
                return -1;
        if (!name_valid(s, 40))
                return reader_fail(r, at, err, "is not a zone's name; use 1 to 40 lower-case letters, digits and . _ -");
        ((struct policy_agent *)dst)->zone = mem_strdup(s);
        return 0;
}

static const struct key agent_keys[] = {
        {.name = "allow", .parse = parse_allow},
        {.name = "ask", .parse = parse_ask},
        {.name = "deny", .parse = parse_deny},
        {.name = "preload", .parse = parse_preload},
        {.name = "prompts", .parse = parse_prompts},
        {.name = "resources", .parse = parse_resources},
        {.name = "sampling", .parse = parse_sampling},
        {.name = "elicitation", .parse = parse_elicitation},
        {.name = "roots", .parse = parse_roots},
        {.name = "rate_limits", .parse = parse_agent_limits},
        {.name = "budgets", .parse = parse_agent_budgets},
        {.name = "zone", .parse = parse_zone},
};

static int compare_agents(const void *a, const void *b)
{
        return strcmp((*(struct policy_agent *const *)a)->name, (*(struct policy_agent *const *)b)->name);
}

int parse_agents(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        struct policy *p = dst;

        if (!json_object_is_type(value, json_type_object))
                return reader_fail(r, at, err, "is not an object; write {\"name\": {\"allow\": […]}}");
        if ((size_t)json_object_object_length(value) > POLICY_MAX_AGENTS)
                return reader_fail(r, at, err, "has %d agents; at most %u are allowed", json_object_object_length(value),
                                   POLICY_MAX_AGENTS);
        p->agents = mem_alloc((size_t)json_object_object_length(value) * sizeof(struct policy_agent *) + 1);
        json_object_object_foreach (value, name, item) {
                struct policy_agent *a = NEW(struct policy_agent);

                p->agents[p->n_agents++] = a;
                a->name = mem_strdup(name);
                a->no_rule = mem_printf("agents.%.64s: nothing allows it", name);
                if (!name_valid(name, 64))
                        return reader_fail(r, PLACE_KEY(at, name), err,
                                           "is not an agent's name; use 1 to 64 lower-case letters, digits and . _ -, no dot first");
                if (READ_OBJECT(r, PLACE_KEY(at, name), item, agent_keys, a, err) < 0)
                        return -1;
        }
        qsort(p->agents, p->n_agents, sizeof(*p->agents), compare_agents);
        for (size_t i = 0; i < p->n_agents; i++)
                p->agents[i]->index = i;
        return 0;
}

/* One after the other with the same counter would count each call twice. */
static int check_limits_differ(const struct reader *r, const struct place *at, const struct policy_agent *a, struct err **err)
{
        for (size_t i = 0; i < a->n_limits; i++)
                for (size_t j = 0; j < i; j++)
                        if (a->limits[i]->key == a->limits[j]->key)
                                return reader_fail(r, at, err, "%s limits the same tools in the same window as %s; keep one of them",
                                                   a->limits[i]->rule, a->limits[j]->rule);
        return 0;
}

int agents_finish(const struct reader *r, struct policy *p, struct err **err)
{
        for (size_t i = 0; i < p->n_agents; i++) {
                struct policy_agent *a = p->agents[i];
                const struct place *at = PLACE_KEY(PLACE_KEY(NULL, "agents"), a->name);
                size_t n = p->n_limits + a->n_own_limits;

                if (n > POLICY_MAX_LIMITS)
                        return reader_fail(r, at, err, "has %zu rate limits with the shared ones; at most %u can be counted", n,
                                           POLICY_MAX_LIMITS);
                a->limits = mem_alloc(n * sizeof(struct rate_limit *) + 1);
                for (size_t l = 0; l < n; l++)
                        a->limits[l] = l < p->n_limits ? &p->limits[l] : &a->own_limits[l - p->n_limits];
                a->n_limits = n;
                if (check_limits_differ(r, at, a, err) < 0)
                        return -1;
                if (!a->has_budget) {
                        a->budget = p->budget;
                        a->budget.rule = mem_strdup(p->budget.rule);
                }
        }
        return 0;
}

struct policy_agent *policy_agent_free(struct policy_agent *a)
{
        if (!a)
                return NULL;
        for (size_t i = 0; i < POLICY_KINDS; i++) {
                selector_deinit(&a->allow[i]);
                free(a->rules[i]);
        }
        selector_deinit(&a->ask);
        selector_deinit(&a->deny);
        selector_deinit(&a->preload);
        for (size_t i = 0; i < a->n_own_limits; i++)
                rate_limit_deinit(&a->own_limits[i]);
        free(a->own_limits);
        free(a->limits);
        free(a->budget.rule);
        free(a->ask_rule);
        free(a->deny_rule);
        free(a->no_rule);
        free(a->zone);
        free(a->name);
        free(a);
        return NULL;
}
