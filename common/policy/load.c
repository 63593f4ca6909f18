#include <stdio.h>

#include "common/file.h"
#include "common/policy/rules.h"

#define POLICY_FORMAT "1.0"

static int parse_schema(const struct reader *r, const struct place *at, json_object *value, _unused_ void *dst, struct err **err)
{
        const char *s = NULL;

        return read_string(r, at, value, 1024, &s, err);
}

static int parse_version(const struct reader *r, const struct place *at, json_object *value, _unused_ void *dst, struct err **err)
{
        static const char *const words[] = {POLICY_FORMAT, NULL};
        unsigned i = 0;

        return read_word(r, at, value, words, &i, err);
}

/* The gate is weakened by root in bulkhead.conf or not at all. */
static int parse_must_be_true(const struct reader *r, const struct place *at, json_object *value, _unused_ void *dst, struct err **err)
{
        bool b = false;

        if (read_bool(r, at, value, &b, err) < 0)
                return -1;
        return b ? 0 : reader_fail(r, at, err, "false would open the gate, and is not accepted here; write true or leave the key out");
}

static int parse_approval(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        struct policy *p = dst;

        mem_replace(&p->approval_rule, rule_text(r, at));
        return parse_selector(r, at, value, &p->approval, err);
}

static int parse_redaction(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        struct policy *p = dst;

        return read_strings(r, at, value, POLICY_MAX_RULES, SELECTOR_MAX_GLOB, NULL, &p->redacted, err);
}

static int parse_retention(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        struct policy *p = dst;
        int64_t days = 0;

        if (read_integer(r, at, value, 1, 3650, &days, err) < 0)
                return -1;
        p->retention_days = (unsigned)days;
        return 0;
}

static int read_mib(const struct reader *r, const struct place *at, json_object *value, uint64_t *ret, struct err **err)
{
        int64_t mib = 0;

        if (read_integer(r, at, value, 1, 1 << 20, &mib, err) < 0)
                return -1;
        *ret = (uint64_t)mib << 20;
        return 0;
}

static int parse_artifact_size(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        return read_mib(r, at, value, &((struct policy *)dst)->artifact_max_bytes, err);
}

static int parse_audit_size(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        return read_mib(r, at, value, &((struct policy *)dst)->audit_max_bytes, err);
}

static int parse_audit_files(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        struct policy *p = dst;
        int64_t files = 0;

        if (read_integer(r, at, value, 2, 1000, &files, err) < 0)
                return -1;
        p->audit_files = (unsigned)files;
        return 0;
}

static int parse_audit_log(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        static const struct key keys[] = {
                {.name = "max_file_mb", .parse = parse_audit_size},
                {.name = "max_files", .parse = parse_audit_files},
                {.name = "enabled", .refused = "every decision is logged; there is no switch for it"},
        };

        return READ_OBJECT(r, at, value, keys, dst, err);
}

static int parse_shared_budget(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        return parse_budgets(r, at, value, &((struct policy *)dst)->budget, err);
}

static const struct key policy_keys[] = {
        {.name = "$schema", .parse = parse_schema},
        {.name = "version", .parse = parse_version, .required = true},
        {.name = "rate_limits", .parse = parse_rate_limits},
        {.name = "budgets", .parse = parse_shared_budget},
        {.name = "prices", .parse = parse_prices},
        {.name = "argument_patterns", .parse = parse_argument_patterns},
        {.name = "builtin_patterns_off", .parse = parse_patterns_off}, /* before the file's own ones come */
        {.name = "blocked_patterns", .parse = parse_blocked_patterns},
        {.name = "path_rules", .parse = parse_path_rules},
        {.name = "forge_approval_required", .parse = parse_must_be_true},
        {.name = "secret_attach_approval_required", .parse = parse_must_be_true},
        {.name = "tool_approval_required", .parse = parse_approval},
        {.name = "log_redaction", .parse = parse_redaction},
        {.name = "artifact_retention_days", .parse = parse_retention},
        {.name = "max_artifact_size_mb", .parse = parse_artifact_size},
        {.name = "audit_log", .parse = parse_audit_log},
        {.name = "agents", .parse = parse_agents},
};

/* The built-in text with the file's own keys taken out of it. */
static int read_builtin(struct policy *p, json_object *file, struct err **err)
{
        static char *added[] = {"version", "audit_log", "blocked_patterns", NULL}; /* to these, or to their members, a file adds */
        const struct reader r = {"built-in policy", NULL, NULL};
        _cleanup_json_ json_object *builtin = NULL;

        if (json_parse(&builtin, policy_builtin, strlen(policy_builtin), r.name, NULL, err) < 0)
                return -1;
        json_object_object_foreach (file, key, ignored) {
                (void)ignored;
                if (!strv_contains(added, key))
                        json_object_object_del(builtin, key);
        }
        return READ_OBJECT(&r, NULL, builtin, policy_keys, p, err);
}

int policy_parse(struct policy **ret, const char *text, size_t n, const char *name, struct err **err)
{
        _cleanup_(json_locations_freep) struct json_locations *loc = NULL;
        _cleanup_(policy_unrefp) struct policy *p = NEW(struct policy);
        _cleanup_json_ json_object *json = NULL;
        const struct json_limits limits = {.max_bytes = POLICY_MAX_BYTES};

        p->refs = 1;
        p->name = mem_strdup(name);
        if (json_parse_located(&json, &loc, text, n, name, &limits, err) < 0)
                return -1;
        const struct reader r = {name, loc, NULL};
        if (!json_object_is_type(json, json_type_object))
                return reader_fail(&r, NULL, err, "is not an object; write {\"version\": \"%s\", …}", POLICY_FORMAT);
        if (read_clean(&r, NULL, json, err) < 0 || read_builtin(p, json, err) < 0 || READ_OBJECT(&r, NULL, json, policy_keys, p, err) < 0 ||
            patterns_finish(&r, p, err) < 0 || agents_finish(&r, p, err) < 0)
                return -1;
        *ret = TAKE_PTR(p);
        return 0;
}

int policy_load(struct policy **ret, const char *path, struct err **err)
{
        _cleanup_free_ char *text = NULL;
        size_t n = 0;

        if (file_read(&text, &n, path, POLICY_MAX_BYTES, FILE_TRUSTED, err) < 0)
                return err_wrap(err, "security policy");
        return policy_parse(ret, text, n, path, err);
}
