#include <stdarg.h>
#include <stdio.h>

#include "cli/cli.h"

int cli_usage(struct cli *c, struct err **err, const char *fmt, ...)
{
        char text[512];
        va_list ap;

        va_start(ap, fmt);
        vsnprintf(text, sizeof(text), fmt, ap);
        va_end(ap);
        c->exit_code = CLI_USAGE;
        return err_set(err, ERR_INVALID, "%s (see bulkhead %s --help)", text, c->verb ? c->verb->name : "");
}

static void print_help(struct cli *c, const struct opt *opts, size_t n_opts, size_t n_global)
{
        FILE *f = c->out.f;

        fprintf(f, "Usage: bulkhead %s %s\n%s\n", c->verb->name, c->verb->arguments, c->verb->summary);
        for (size_t i = 0; i < n_opts + n_global; i++) {
                if (i == 0 && n_opts)
                        fputs("\nOptions:\n", f);
                if (i == n_opts)
                        fputs("\nOptions of every verb:\n", f);
                _cleanup_free_ char *name =
                        opts[i].argument ? mem_printf("--%s %s", opts[i].name, opts[i].argument) : mem_printf("--%s", opts[i].name);
                fprintf(f, "  %-24s %s\n", name, opts[i].help);
        }
}

static const struct opt *find(const struct opt *opts, size_t n, const char *name, size_t len)
{
        for (size_t i = 0; i < n; i++)
                if (strlen(opts[i].name) == len && strncmp(opts[i].name, name, len) == 0)
                        return &opts[i];
        return NULL;
}

static int set(struct cli *c, const struct opt *o, const char *value, struct err **err)
{
        switch (o->kind) {
        case OPT_FLAG:
                if (value)
                        return cli_usage(c, err, "--%s takes no value", o->name);
                *(bool *)o->dest = true;
                return 0;
        case OPT_STRING:
                *(const char **)o->dest = value;
                return 0;
        case OPT_LIST:
                *(char ***)o->dest = strv_append(*(char ***)o->dest, value);
                return 0;
        }
        return 0;
}

/* One option at argv[*i]; moves *i over its value. */
static int parse_one(struct cli *c, const struct opt *opts, size_t n, int argc, char **argv, int *i, struct err **err)
{
        const char *name = argv[*i] + 2, *equals = strchr(name, '='), *value = equals ? equals + 1 : NULL;
        const struct opt *o = find(opts, n, name, equals ? (size_t)(equals - name) : strlen(name));

        if (!o)
                return cli_usage(c, err, "unknown option %s", argv[*i]);
        if (o->kind != OPT_FLAG && !value) {
                if (*i + 1 >= argc)
                        return cli_usage(c, err, "--%s needs a value", o->name);
                value = argv[++*i];
        }
        return set(c, o, value, err);
}

int opts_parse(struct cli *c, const struct opt *opts, size_t n_opts, int argc, char **argv, size_t min, size_t max, char ***args,
               struct err **err)
{
        const struct opt global[] = {
                {"config", OPT_STRING, &c->conf_path, "FILE", "configuration (default " CONF_DEFAULT_PATH ")"},
                {"socket", OPT_STRING, &c->socket_path, "FILE", "the controller's control socket"},
                {"json", OPT_FLAG, &c->json, NULL, "print JSON for programs"},
                {"no-color", OPT_FLAG, &c->no_color, NULL, "no colours, also on a terminal"},
                {"help", OPT_FLAG, &c->help, NULL, "print this"},
        };
        _cleanup_free_ struct opt *all = NEW_N(struct opt, n_opts + ELEMENTSOF(global));
        _cleanup_strv_ char **rest = NULL;
        bool only_args = false;

        if (n_opts)
                memcpy(all, opts, n_opts * sizeof(*opts));
        memcpy(all + n_opts, global, sizeof(global));
        for (int i = 1; i < argc; i++) {
                const char *a = argv[i];
                if (!only_args && strcmp(a, "--") == 0)
                        only_args = true;
                else if (!only_args && strcmp(a, "-h") == 0)
                        c->help = true;
                else if (!only_args && str_has_prefix(a, "--")) {
                        if (parse_one(c, all, n_opts + ELEMENTSOF(global), argc, argv, &i, err) < 0)
                                return -1;
                } else if (!only_args && a[0] == '-' && a[1] != '\0')
                        return cli_usage(c, err, "unknown option %s", a);
                else
                        rest = strv_append(rest, a);
        }
        if (c->no_color)
                c->out.color = c->errors.color = false;
        if (c->help) {
                print_help(c, all, n_opts, ELEMENTSOF(global));
                return 1;
        }
        if (strv_len(rest) < min)
                return cli_usage(c, err, "too few arguments: bulkhead %s %s", c->verb->name, c->verb->arguments);
        if (strv_len(rest) > max)
                return cli_usage(c, err, "unexpected argument \"%s\"", rest[max]);
        *args = TAKE_PTR(rest);
        return 0;
}
