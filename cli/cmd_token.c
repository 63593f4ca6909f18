#include <sodium.h>
#include <stdio.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/identity_files.h"
#include "common/text.h"

#define DEFAULT_TTL "1h"

/* What an agent's run is called when nobody says it. */
static char *new_run(void)
{
        uint8_t random[6];
        char hex[2 * sizeof(random) + 1];

        randombytes_buf(random, sizeof(random));
        hex_encode(hex, random, sizeof(random));
        return mem_printf("r-%s", hex);
}

static int lifetime(struct cli *c, const char *text, time_t *ret, struct err **err)
{
        uint64_t ms = 0;

        if (text_parse_duration(&ms, text, NULL) < 0 || ms < 1000 || ms > TOKEN_MAX_TTL * UINT64_C(1000))
                return cli_usage(c, err, "--ttl wants 1s to 24h");
        *ret = (time_t)(ms / 1000);
        return 0;
}

static int sign(struct cli *c, const struct identities *ids, struct token *t, char **text, struct err **err)
{
        uint8_t secret[IDENTITY_SECRET];

        if (!identities_find(ids, t->agent))
                return err_set(err, ERR_NOT_FOUND, "there is no agent \"%s\": bulkhead agent add %s", t->agent, t->agent);
        if (identity_key_read(c->conf, secret, err) < 0)
                return -1;
        int r = token_sign(text, t, c->conf->audience, secret, err);
        sodium_memzero(secret, sizeof(secret));
        return r;
}

/* A token that the broker would refuse is none: one is told here, and not the agent there. */
static int prove(struct cli *c, const struct identities *ids, const char *text, time_t now, struct err **err)
{
        _cleanup_token_ struct token t = {0};

        if (token_verify(&t, ids, c->conf->audience, text, strlen(text), now, err) < 0)
                return err_wrap(err, "the token would not count (does %s belong to %s?)", c->conf->agents_key, c->conf->agents_file);
        return 0;
}

int cmd_token(struct cli *c, int argc, char **argv, struct err **err)
{
        _cleanup_(identities_freep) struct identities *ids = NULL;
        _cleanup_token_ struct token t = {0};
        _cleanup_strv_ char **args = NULL;
        _cleanup_free_ char *text = NULL;
        const struct conf *conf;
        const char *ttl = DEFAULT_TTL, *run = NULL;
        time_t seconds = 0;
        const struct opt opts[] = {{"ttl", OPT_STRING, &ttl, "DURATION", "how long it counts: 1s to 24h (default " DEFAULT_TTL ")"},
                                   {"run", OPT_STRING, &run, "ID", "what the agent is doing; stands in every log line (default: random)"}};
        int r = opts_parse(c, opts, ELEMENTSOF(opts), argc, argv, 1, 1, &args, err);

        if (r != 0)
                return r < 0 ? -1 : CLI_OK;
        if (lifetime(c, ttl, &seconds, err) < 0 || cli_conf(c, &conf, err) < 0 || identity_files_load(&ids, conf, err) < 0)
                return -1;
        const struct identity_agent *agent = identities_find(ids, args[0]);
        /* Right after a rotation the clock still shows the second whose tokens were ended. */
        time_t now = time(NULL), from = agent && agent->not_before > now ? agent->not_before : now;
        t = (struct token){
                .agent = mem_strdup(args[0]), .run = run ? mem_strdup(run) : new_run(), .issued_at = from, .expires_at = from + seconds};
        if (sign(c, ids, &t, &text, err) < 0 || prove(c, ids, text, from, err) < 0)
                return -1;
        if (c->json) {
                _cleanup_json_ json_object *o = json_object_new_object();
                char at[TEXT_TIME_MAX];
                json_add_str(o, "token", text);
                json_add_str(o, "agent", t.agent);
                json_add_str(o, "run", t.run);
                json_add_str(o, "expires_at", text_format_time(at, t.expires_at));
                out_json(&c->out, o);
        } else {
                fprintf(c->out.f, "%s\n", text);
        }
        return CLI_OK;
}
