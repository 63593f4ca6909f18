#include "broker/policy/paths.h"

static bool is_below(struct normal_form path, const char *directory)
{
        size_t n = strlen(directory);

        if (n == 1) /* "/" */
                return path.n > 0 && path.s[0] == '/';
        return path.n >= n && memcmp(path.s, directory, n) == 0 && (path.n == n || path.s[n] == '/');
}

static bool is_below_any(struct normal_form path, char *const *directories)
{
        for (; directories && *directories; directories++)
                if (is_below(path, *directories))
                        return true;
        return false;
}

/* Without blanks around it, which some tools cut off, and without "file:" and the authority of such a URL. */
static struct normal_form bare(struct normal_form path)
{
        static const char scheme[] = "file:";

        while (path.n > 0 && path.s[0] == ' ')
                path.s++, path.n--;
        while (path.n > 0 && path.s[path.n - 1] == ' ')
                path.n--;
        if (path.n < 5 || strncasecmp(path.s, scheme, 5) != 0)
                return path;
        path.s += 5;
        path.n -= 5;
        if (path.n < 2 || memcmp(path.s, "//", 2) != 0)
                return path;
        const char *slash = memchr(path.s + 2, '/', path.n - 2);
        if (!slash)
                return (struct normal_form){"", 0, 0};
        return (struct normal_form){slash, path.n - (size_t)(slash - path.s), 0};
}

static bool climbs(struct normal_form path)
{
        return path.n >= 2 && memcmp(path.s, "..", 2) == 0 && (path.n == 2 || path.s[2] == '/');
}

/* Starts where the tool stands, whatever tool: no home directory, variable, drive or URL in front. */
static bool is_relative(struct normal_form path)
{
        size_t n = 0;

        if (path.n == 0 || strchr("/~$", path.s[0]))
                return path.n == 0;
        while (n < path.n && path.s[n] != '/')
                if (path.s[n++] == ':')
                        return false;
        return true;
}

static bool is_denied(const struct argument_rule *rule, struct normal_form path)
{
        _cleanup_buf_ struct buf rooted = {0};

        if (!rule->deny)
                return false;
        if (path.n > 0 && path.s[0] == '/')
                return is_below_any(path, rule->deny_folded);
        buf_addc(&rooted, '/');
        buf_add(&rooted, path.s, path.n);
        return is_below_any((struct normal_form){rooted.data, rooted.len, 0}, rule->deny_folded);
}

static bool is_allowed(const struct argument_rule *rule, struct normal_form path, char *const *allow)
{
        if (!rule->allow && !rule->relative)
                return true;
        return is_below_any(path, allow) || (rule->relative && is_relative(path));
}

const char *path_rule_check(const struct argument_rule *rule, const struct normal *normal)
{
        static const char outside[] = "leads to where the policy does not allow it";
        _cleanup_buf_ struct buf resolved = {0};

        for (size_t i = 0; i < normal->n_forms; i++) {
                const struct normal_form *form = &normal->forms[i];
                struct normal_form path = bare(*form);

                if (form->kinds & NORMAL_RAW) {
                        /* As it is written: upper and lower case differ where it is allowed. */
                        struct normal_form raw = bare(*form);
                        resolved.len = 0;
                        normal_resolve(&resolved, raw.s, raw.n);
                        if (!is_allowed(rule, (struct normal_form){resolved.data, resolved.len, 0}, rule->allow))
                                return outside;
                }
                if (!(form->kinds & NORMAL_PATH))
                        continue;
                if (climbs(path))
                        return "climbs out of the directory that it starts in";
                if (is_denied(rule, path) || !is_allowed(rule, path, rule->allow_folded))
                        return outside;
        }
        return NULL;
}
