#include <locale.h>
#include <signal.h>
#include <stdio.h>

#include "cli/cli.h"
#include "common/text.h"

#include "config.h"

const struct verb verbs[] = {
        {"init", "", "Make directories, an empty approvals repository and skeletons of the files people write.", cmd_init},
        {"validate", "[FILE...]", "Check configuration, registry, policy and records; names file, line and column of every error.",
         cmd_validate},
        {"plan", "", "Show what apply would do. Exit 0: nothing, 2: something.", cmd_plan},
        {"apply", "[--once]", "Make servers equal to what is declared and approved, and wait for it.", cmd_apply},
        {"status", "[SERVER] [--metrics]", "What is declared, approved, running, and why not.", cmd_status},
        {"propose", "SERVER (--entry FILE | --image REF@DIGEST [OPTIONS] | --url URL)",
         "Write a proposal. Nothing is pulled or run for it.", cmd_propose},
        {"discover", "[--propose NAME …]", "Which servers ToolHive and editors of this host know. Runs none of them.", cmd_discover},
        {"smoke", "ID [--ci [--junit FILE] [--engine SOCKET]]", "Pull a proposal's image and test it in quarantine.", cmd_smoke},
        {"approve", "ID --key FILE [--expires DURATION] [--yes] | CALL [--expires DURATION]",
         "Show everything a proposal asks for; after a yes, sign it. Or let an agent's call pass.", cmd_approve},
        {"promote", "ID", "Write an approved entry into the registry file.", cmd_promote},
        {"reject", "ID --key FILE --reason TEXT | CALL", "Decide against a proposal, or a call of an agent.", cmd_reject},
        {"revoke", "(ID | --server NAME) --key FILE --reason TEXT", "End approvals; what runs under them stops.", cmd_revoke},
        {"pending", "", "Proposals, and calls of agents, that wait for a decision.", cmd_pending},
        {"agent", "add NAME | rotate [NAME] | remove NAME | list", "Who may have tokens for the broker.", cmd_agent},
        {"token", "AGENT [--ttl DURATION] [--run ID]", "Print a token for an agent. Who has it is that agent.", cmd_token},
        {"tools", "search WORDS | describe TOOL | load TOOL …", "What there is for an agent, under its token.", cmd_tools},
        {"call", "--tool NAME [--json ARGS]", "Call a tool under an agent's token.", cmd_call},
        {"egress", "show|verify [SERVER]", "The kernel's rules in force; verify reads them back and compares.", cmd_egress},
        {"compose", "export [SERVER ...] | seccomp", "The approved servers as a Compose file, and the seccomp profile that it names.",
         cmd_compose},
        {"doctor", "", "Check host, Engine, kernel and permissions, and say what to mend.", cmd_doctor},
        {NULL, NULL, NULL, NULL},
};

static void print_usage(FILE *f)
{
        fputs("Usage: bulkhead [--config FILE] [--socket FILE] [--json] [--no-color] VERB [ARGUMENTS]\n\nVerbs:\n", f);
        for (const struct verb *v = verbs; v->name; v++)
                fprintf(f, "  %-10s %s\n", v->name, v->summary);
        fputs("\nbulkhead VERB --help tells a verb's options; bulkhead(1) is the manual.\n", f);
}

static const struct verb *find_verb(const char *name)
{
        for (const struct verb *v = verbs; v->name; v++)
                if (strcmp(v->name, name) == 0)
                        return v;
        return NULL;
}

static int exit_code_of(const struct cli *c, const struct err *err)
{
        if (c->exit_code)
                return c->exit_code;
        return err_code(err) == ERR_DENIED ? CLI_DENIED : CLI_FAILED;
}

static int fail(struct cli *c, const struct err *err)
{
        int code = exit_code_of(c, err);
        _cleanup_free_ char *safe = out_escape_again(err_msg(err));

        if (c->json) {
                _cleanup_json_ json_object *o = json_object_new_object();
                json_add_str(o, "error", err_msg(err));
                json_add_int(o, "exit", code);
                out_json(&c->out, o);
        }
        out_line(&c->errors, STYLE_RED, "bulkhead%s%s: %s", c->verb ? " " : "", c->verb ? c->verb->name : "", safe);
        return code;
}

/* The options before the verb, which may also stand behind it. Returns the verb's place in argv, 0 when there is none. */
static int global_options(struct cli *c, int argc, char **argv)
{
        int i = 1;

        for (; i < argc && argv[i][0] == '-'; i++) {
                if (strcmp(argv[i], "--json") == 0)
                        c->json = true;
                else if (strcmp(argv[i], "--no-color") == 0)
                        c->no_color = true;
                else if (strcmp(argv[i], "--config") == 0 && i + 1 < argc)
                        c->conf_path = argv[++i];
                else if (str_has_prefix(argv[i], "--config="))
                        c->conf_path = argv[i] + strlen("--config=");
                else if (strcmp(argv[i], "--socket") == 0 && i + 1 < argc)
                        c->socket_path = argv[++i];
                else if (str_has_prefix(argv[i], "--socket="))
                        c->socket_path = argv[i] + strlen("--socket=");
                else
                        return 0;
        }
        return i < argc ? i : 0;
}

static int run(struct cli *c, int argc, char **argv)
{
        _cleanup_err_ struct err *err = NULL;
        int at = global_options(c, argc, argv);

        out_init(&c->out, stdout, c->no_color);
        out_init(&c->errors, stderr, c->no_color);
        if (at == 0) {
                print_usage(stderr);
                return CLI_USAGE;
        }
        c->verb = find_verb(argv[at]);
        if (!c->verb) {
                _cleanup_free_ char *safe = text_escape(argv[at]);
                fprintf(stderr, "bulkhead: unknown verb \"%s\" (see bulkhead --help)\n", safe);
                return CLI_USAGE;
        }
        int r = c->verb->run(c, argc - at, argv + at, &err);
        return r < 0 ? fail(c, err) : r;
}

int main(int argc, char **argv)
{
        struct cli c = {.conf_path = CONF_DEFAULT_PATH};

        setlocale(LC_CTYPE, "C.UTF-8");
        signal(SIGPIPE, SIG_IGN);
        if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
                print_usage(stdout);
                return CLI_OK;
        }
        if (argc == 2 && strcmp(argv[1], "--version") == 0) {
                puts("bulkhead " PACKAGE_VERSION);
                return CLI_OK;
        }
        int code = run(&c, argc, argv);
        conf_free(c.conf);
        /* Half an answer is none: a full disk or a closed pipe must not look like success. */
        if (fflush(stdout) != 0 && code == CLI_OK)
                code = CLI_FAILED;
        return code;
}
