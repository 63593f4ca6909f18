#include "common/policy/normal.h"
#include "common/policy/rules.h"

static int read_expression(const struct reader *r, const struct place *at, json_object *value, const char **ret, struct err **err)
{
        _cleanup_(pattern_freep) struct pattern *tried = NULL;

        if (read_string(r, at, value, PATTERN_MAX_BYTES, ret, err) < 0)
                return -1;
        return pattern_new(&tried, *ret, 0, err) < 0 ? reader_wrap(r, at, err) : 0;
}

/* -- blocked patterns ---------------------------------------------------------------------------------------------------------- */
static int parse_blocked_name(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        const char *s = NULL;

        if (read_string(r, at, value, 64, &s, err) < 0)
                return -1;
        if (!str_in_charset(s, "abcdefghijklmnopqrstuvwxyz0123456789-_."))
                return reader_fail(r, at, err, "is not a name; use lower-case letters, digits and - _ .");
        ((struct blocked_pattern *)dst)->name = mem_strdup(s);
        return 0;
}

static int parse_blocked_tools(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        return parse_selector(r, at, value, &((struct blocked_pattern *)dst)->tools, err);
}

static int parse_blocked_expression(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        const char *expression = NULL;

        if (read_expression(r, at, value, &expression, err) < 0)
                return -1;
        ((struct blocked_pattern *)dst)->expression = mem_strdup(expression);
        return 0;
}

static const struct key blocked_keys[] = {
        {.name = "name", .parse = parse_blocked_name},
        {.name = "tools", .parse = parse_blocked_tools},
        {.name = "pattern", .parse = parse_blocked_expression, .required = true},
};

/* They come behind what is there already: the built-in ones stay in force. */
int parse_blocked_patterns(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        struct policy *p = dst;
        size_t n = 0;

        if (read_array(r, at, value, POLICY_MAX_RULES - p->n_blocked, &n, err) < 0)
                return -1;
        p->blocked = mem_realloc(p->blocked, p->n_blocked + n + 1, sizeof(*p->blocked));
        for (size_t i = 0; i < n; i++) {
                struct blocked_pattern *b = &p->blocked[p->n_blocked++];

                *b = (struct blocked_pattern){.rule = rule_text(r, PLACE_ITEM(at, i))};
                if (READ_OBJECT(r, PLACE_ITEM(at, i), json_object_array_get_idx(value, i), blocked_keys, b, err) < 0)
                        return -1;
                if (!json_get(json_object_array_get_idx(value, i), "tools") && selector_add(&b->tools, "*:*", err) < 0)
                        return -1;
        }
        return 0;
}

static bool drop_named(struct policy *p, const char *name)
{
        for (size_t i = 0; i < p->n_blocked; i++) {
                if (!str_eq(p->blocked[i].name, name))
                        continue;
                blocked_pattern_deinit(&p->blocked[i]);
                memmove(&p->blocked[i], &p->blocked[i + 1], (--p->n_blocked - i) * sizeof(*p->blocked));
                return true;
        }
        return false;
}

int parse_patterns_off(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        size_t n = 0;

        if (read_array(r, at, value, POLICY_MAX_RULES, &n, err) < 0)
                return -1;
        for (size_t i = 0; i < n; i++) {
                const char *s = NULL;

                if (read_string(r, PLACE_ITEM(at, i), json_object_array_get_idx(value, i), 64, &s, err) < 0)
                        return -1;
                if (!drop_named(dst, s))
                        return reader_fail(r, PLACE_ITEM(at, i), err,
                                           "is not the name of a built-in pattern; security_policy.json(5) lists them");
        }
        return 0;
}

int patterns_finish(const struct reader *r, struct policy *p, struct err **err)
{
        const char *expressions[POLICY_MAX_RULES];

        for (size_t i = 0; i < p->n_blocked; i++)
                expressions[i] = p->blocked[i].expression;
        if (p->n_blocked > 0 && pattern_set_new(&p->blocked_set, expressions, p->n_blocked, err) < 0)
                return reader_wrap(r, PLACE_KEY(NULL, "blocked_patterns"), err);
        return 0;
}

void blocked_pattern_deinit(struct blocked_pattern *b)
{
        free(b->rule);
        free(b->name);
        free(b->expression);
        selector_deinit(&b->tools);
}

/* -- rules for arguments of a name --------------------------------------------------------------------------------------------- */
static int parse_rule_tools(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        return parse_selector(r, at, value, &((struct argument_rule *)dst)->tools, err);
}

static int parse_rule_arguments(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        return read_strings(r, at, value, SELECTOR_MAX_ITEMS, SELECTOR_MAX_GLOB, NULL, &((struct argument_rule *)dst)->arguments, err);
}

static int parse_rule_pattern(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        struct argument_rule *rule = dst;
        const char *expression = NULL;

        if (read_expression(r, at, value, &expression, err) < 0)
                return -1;
        if (pattern_new(&rule->exact, expression, 0, err) < 0 || pattern_new(&rule->folded, expression, PATTERN_FOLD, err) < 0)
                return reader_wrap(r, at, err);
        return 0;
}

static int read_directories(const struct reader *r, const struct place *at, json_object *value, struct argument_rule *rule, char ***plain,
                            char ***folded, struct err **err)
{
        _cleanup_strv_ char **list = NULL;

        if (read_strings(r, at, value, SELECTOR_MAX_ITEMS, 4096, NULL, &list, err) < 0)
                return -1;
        for (size_t i = 0; list[i]; i++) {
                _cleanup_free_ char *plain_path = normal_path(list[i]), *folded_path = normal_path_folded(list[i]);

                if (str_eq(list[i], ".") && plain == &rule->allow) {
                        rule->relative = true;
                        continue;
                }
                bool trailing = list[i][0] && list[i][1] && list[i][strlen(list[i]) - 1] == '/';
                if (list[i][0] != '/' || trailing || !folded_path || !str_eq(plain_path, list[i]))
                        return reader_fail(r, PLACE_ITEM(at, i), err,
                                           "is not an absolute directory without \"..\", doubled or trailing slashes%s",
                                           plain == &rule->allow ? "; \".\" stands for paths without a leading slash" : "");
                *plain = strv_append(*plain, plain_path);
                *folded = strv_append(*folded, folded_path);
        }
        return 0;
}

static int parse_rule_allow(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        struct argument_rule *rule = dst;

        return read_directories(r, at, value, rule, &rule->allow, &rule->allow_folded, err);
}

static int parse_rule_deny(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        struct argument_rule *rule = dst;

        return read_directories(r, at, value, rule, &rule->deny, &rule->deny_folded, err);
}

static const struct key argument_keys[] = {
        {.name = "tools", .parse = parse_rule_tools, .required = true},
        {.name = "arguments", .parse = parse_rule_arguments, .required = true},
        {.name = "pattern", .parse = parse_rule_pattern, .required = true},
};

static const struct key path_keys[] = {
        {.name = "tools", .parse = parse_rule_tools, .required = true},
        {.name = "arguments", .parse = parse_rule_arguments, .required = true},
        {.name = "allow", .parse = parse_rule_allow},
        {.name = "deny", .parse = parse_rule_deny},
};

static int read_rules(const struct reader *r, const struct place *at, json_object *value, const struct key *keys, size_t n_keys,
                      struct argument_rule **rules, size_t *n_rules, struct err **err)
{
        size_t n = 0;

        if (read_array(r, at, value, POLICY_MAX_RULES, &n, err) < 0)
                return -1;
        *rules = mem_alloc(n * sizeof(**rules) + 1);
        for (size_t i = 0; i < n; i++) {
                *n_rules = i + 1;
                if (read_object(r, PLACE_ITEM(at, i), json_object_array_get_idx(value, i), keys, n_keys, &(*rules)[i], err) < 0)
                        return -1;
                (*rules)[i].rule = rule_text(r, PLACE_ITEM(at, i));
        }
        return 0;
}

int parse_argument_patterns(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        struct policy *p = dst;

        return read_rules(r, at, value, argument_keys, ELEMENTSOF(argument_keys), &p->arguments, &p->n_arguments, err);
}

int parse_path_rules(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        struct policy *p = dst;

        if (read_rules(r, at, value, path_keys, ELEMENTSOF(path_keys), &p->paths, &p->n_paths, err) < 0)
                return -1;
        for (size_t i = 0; i < p->n_paths; i++)
                if (!p->paths[i].allow && !p->paths[i].relative && !p->paths[i].deny)
                        return reader_fail(r, PLACE_ITEM(at, i), err, "neither allows nor denies anything; add \"allow\" or \"deny\"");
        return 0;
}

void argument_rule_deinit(struct argument_rule *a)
{
        free(a->rule);
        selector_deinit(&a->tools);
        strv_free(a->arguments);
        pattern_free(a->exact);
        pattern_free(a->folded);
        strv_free(a->allow);
        strv_free(a->deny);
        strv_free(a->allow_folded);
        strv_free(a->deny_folded);
}
