/*
 * bulkhead agent: who may have tokens. Adding one prints no secret; `bulkhead token` signs. Both files are root's: the public one is read
 * by the broker, the key by nobody else.
 */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/identity_files.h"
#include "common/text.h"

static int save(struct cli *c, const struct identities *ids, struct err **err)
{
        _cleanup_json_ json_object *o = identities_to_json(ids);
        _cleanup_free_ char *text =
                mem_printf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));

        if (file_write_atomic(c->conf->agents_file, text, strlen(text), 0644, err) < 0)
                return -1;
        cli_poke(c);
        return 0;
}

static int tell(struct cli *c, const char *agent, const char *what)
{
        if (c->json) {
                _cleanup_json_ json_object *o = json_object_new_object();
                json_add_str(o, "agent", agent);
                json_add_str(o, "done", what);
                out_json(&c->out, o);
        } else {
                out_line(&c->out, STYLE_GREEN, "%s%s%s", agent ? agent : "", agent ? ": " : "", what);
        }
        return CLI_OK;
}

static int no_such(const char *agent, struct err **err)
{
        return err_set(err, ERR_NOT_FOUND, "there is no agent \"%s\": bulkhead agent list shows who there is", agent);
}

static int check_name(struct cli *c, const char *name, struct err **err)
{
        return identity_name_valid(name) ? 0 : cli_usage(c, err, "an agent's name is made of a-z, 0-9 and -, at most 40 characters");
}

static int agent_add(struct cli *c, struct identities *ids, const char *agent, struct err **err)
{
        uint8_t secret[IDENTITY_SECRET];

        if (check_name(c, agent, err) < 0)
                return -1;
        if (identities_find(ids, agent))
                return err_set(err, ERR_CONFLICT, "there is an agent \"%s\" already", agent);
        /* One that was removed and comes back must not bring its old tokens to life. */
        identities_set_agent(ids, agent, time(NULL));
        if (ids->n_keys == 0) {
                identities_new_key(ids, secret, time(NULL), 0);
                int r = identity_key_write(c->conf, secret, err);
                sodium_memzero(secret, sizeof(secret));
                if (r < 0)
                        return -1;
        }
        return save(c, ids, err) < 0 ? -1 : tell(c, agent, "added; what it may call stands in security_policy.json");
}

/* Of one agent: its tokens end now. Of all: a new key signs from now on, and nothing signed before counts. */
static int agent_rotate(struct cli *c, struct identities *ids, const char *agent, struct err **err)
{
        uint8_t secret[IDENTITY_SECRET];
        time_t now = time(NULL);

        if (agent && !identities_find(ids, agent))
                return no_such(agent, err);
        if (agent) {
                /* Those of this very second are among the ones that end. */
                identities_set_agent(ids, agent, now + 1);
                return save(c, ids, err) < 0 ? -1 : tell(c, agent, "tokens made until now do not count any more");
        }
        identities_new_key(ids, secret, now, now);
        /* The new public key first: a token is never signed by a key that nobody knows. */
        int r = save(c, ids, err) < 0 ? -1 : identity_key_write(c->conf, secret, err);
        sodium_memzero(secret, sizeof(secret));
        return r < 0 ? -1 : tell(c, NULL, "a new key signs from now on; tokens made until now do not count any more");
}

static int agent_remove(struct cli *c, struct identities *ids, const char *agent, struct err **err)
{
        if (!identities_remove_agent(ids, agent))
                return no_such(agent, err);
        return save(c, ids, err) < 0 ? -1 : tell(c, agent, "removed; its tokens do not count any more");
}

static int agent_list(struct cli *c, const struct identities *ids)
{
        static const char *const headers[] = {"AGENT", "TOKENS COUNT SINCE"};
        char text[TEXT_TIME_MAX];

        if (c->json) {
                _cleanup_json_ json_object *o = identities_to_json(ids);
                out_json(&c->out, o);
                return CLI_OK;
        }
        _cleanup_table_ struct table *t = table_new(headers, ELEMENTSOF(headers));
        for (size_t i = 0; i < ids->n_agents; i++) {
                table_cell(t, STYLE_BOLD, ids->agents[i].name);
                table_cell(t, STYLE_PLAIN, ids->agents[i].not_before ? text_format_time(text, ids->agents[i].not_before) : NULL);
        }
        if (table_rows(t))
                table_print(t, &c->out);
        else
                out_line(&c->out, STYLE_DIM, "there is no agent yet: bulkhead agent add NAME");
        return CLI_OK;
}

int cmd_agent(struct cli *c, int argc, char **argv, struct err **err)
{
        _cleanup_(identities_freep) struct identities *ids = NULL;
        _cleanup_strv_ char **args = NULL;
        const struct conf *conf;
        int r = opts_parse(c, NULL, 0, argc, argv, 1, 2, &args, err);

        if (r != 0)
                return r < 0 ? -1 : CLI_OK;
        if (cli_conf(c, &conf, err) < 0 || identity_files_load(&ids, conf, err) < 0)
                return -1;
        const char *what = args[0], *agent = args[1];
        if (str_eq(what, "list") && !agent)
                return agent_list(c, ids);
        if (str_eq(what, "rotate"))
                return agent_rotate(c, ids, agent, err);
        if (str_eq(what, "add") && agent)
                return agent_add(c, ids, agent, err);
        if (str_eq(what, "remove") && agent)
                return agent_remove(c, ids, agent, err);
        return cli_usage(c, err, "agent wants add NAME, rotate [NAME], remove NAME or list");
}
