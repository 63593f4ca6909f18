/*
 * What the verbs of `bulkhead` share: the invocation, options, the daemon. One file per verb (cmd_VERB.c); main.c has their table.
 */
#pragma once

#include "cli/out.h"
#include "common/conf.h"
#include "common/err.h"
#include "common/json.h"

/* Exit codes of the program; public, see docs/formats.md. */
enum {
        CLI_OK = 0,
        CLI_FAILED = 1,
        CLI_DIFFERENT = 2, /* differences, or an approval is needed */
        CLI_USAGE = 64,
        CLI_UNREACHABLE = 69,
        CLI_DENIED = 77,
};

struct cli {
        const char *conf_path;   /* --config */
        const char *socket_path; /* --socket, NULL = the configuration's */
        bool json, no_color, help;
        struct out out;    /* standard output */
        struct out errors; /* standard error */
        struct conf *conf; /* cli_conf() */
        const struct verb *verb;
        int exit_code; /* the code of the error on its way up; 0 = by the error's kind */
};

struct verb {
        const char *name;
        const char *arguments; /* "SERVER [--entry FILE]" for the usage line */
        const char *summary;   /* one line */
        /* An exit code, or -1 with *err, which main() prints. */
        int (*run)(struct cli *c, int argc, char **argv, struct err **err);
};
extern const struct verb verbs[];

int cmd_validate(struct cli *c, int argc, char **argv, struct err **err);
int cmd_plan(struct cli *c, int argc, char **argv, struct err **err);
int cmd_apply(struct cli *c, int argc, char **argv, struct err **err);
int cmd_status(struct cli *c, int argc, char **argv, struct err **err);
int cmd_propose(struct cli *c, int argc, char **argv, struct err **err);
int cmd_discover(struct cli *c, int argc, char **argv, struct err **err);
int cmd_smoke(struct cli *c, int argc, char **argv, struct err **err);
int cmd_approve(struct cli *c, int argc, char **argv, struct err **err);
int cmd_promote(struct cli *c, int argc, char **argv, struct err **err);
int cmd_reject(struct cli *c, int argc, char **argv, struct err **err);
int cmd_revoke(struct cli *c, int argc, char **argv, struct err **err);
int cmd_pending(struct cli *c, int argc, char **argv, struct err **err);
int cmd_egress(struct cli *c, int argc, char **argv, struct err **err);
int cmd_doctor(struct cli *c, int argc, char **argv, struct err **err);
int cmd_agent(struct cli *c, int argc, char **argv, struct err **err);
int cmd_token(struct cli *c, int argc, char **argv, struct err **err);
int cmd_call(struct cli *c, int argc, char **argv, struct err **err);
int cmd_compose(struct cli *c, int argc, char **argv, struct err **err);
int cmd_tools(struct cli *c, int argc, char **argv, struct err **err);
int cmd_init(struct cli *c, int argc, char **argv, struct err **err);

/* -- options ------------------------------------------------------------------------------------------------------------------ */
enum opt_kind { OPT_FLAG, OPT_STRING, OPT_LIST };
struct opt {
        const char *name; /* "key": --key VALUE or --key=VALUE */
        enum opt_kind kind;
        void *dest;           /* bool *, const char ** (borrowed from argv) or char *** (owned list) */
        const char *argument; /* "FILE", for --help; NULL for a flag */
        const char *help;
};
/*
 * Parses a verb's options and positional arguments (between min and max; *args is owned, its strings too), and the global options wherever
 * they stand. 0: go on. 1: --help was printed. -1: a usage error (exit code 64).
 */
_must_check_ int opts_parse(struct cli *c, const struct opt *opts, size_t n_opts, int argc, char **argv, size_t min, size_t max,
                            char ***args, struct err **err);
/* A usage error; -1. */
int cli_usage(struct cli *c, struct err **err, const char *fmt, ...) _printf_(3, 4);

/* -- configuration and daemon ------------------------------------------------------------------------------------------------- */
/* Loads the configuration once; borrowed from c. */
_must_check_ int cli_conf(struct cli *c, const struct conf **ret, struct err **err);
/* {"verb": verb}; owned. */
json_object *cli_request(const char *verb);
/* Asks the daemon, showing its progress. timeout_s: longest silence, 0 = 30 s. *result is owned and never NULL. */
_must_check_ int cli_call(struct cli *c, json_object *request, unsigned timeout_s, json_object **result, struct err **err);
/* Tells a running daemon to look again. A daemon that is down will look when it starts. */
void cli_poke(struct cli *c);
/* Is it the id of a call that waits, and not of a record? */
static inline bool cli_is_call(const char *id)
{
        return str_has_prefix(id, "c-");
}
/* Decides about a call of an agent, through the daemon. valid: a duration, or NULL: once. An exit code, or -1. */
int cli_decide_call(struct cli *c, const char *id, bool approve, const char *valid, struct err **err);
/* The caller's user name, or "uid-N"; owned. */
char *cli_user(void);
