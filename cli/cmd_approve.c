#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "cli/review.h"
#include "common/text.h"

#define EXPIRES_DEFAULT "180d"
#define EXPIRES_YES     "1d" /* nobody looked: soon somebody must */

struct options {
        const char *key, *expires, *as, *reason;
        bool yes;
};

static json_object *source_of(const struct review *r)
{
        const struct image_facts *f = r->evidence->image;
        json_object *o = json_object_new_object();

        if (r->entry->source == SOURCE_URL) {
                json_add_str(o, "type", "url");
                json_add_str(o, "url", r->entry->url);
                return o;
        }
        json_add_str(o, "type", "docker_image");
        json_add_str(o, "reference", r->proposal->image->reference);
        json_add_str(o, "digest", f->digest);
        json_add_str(o, "platform", f->platform);
        json_add_str(o, "platform_digest", f->platform_digest);
        json_add_str(o, "image_id", f->image_id);
        if (f->volumes)
                json_add(o, "volumes", json_from_strv(f->volumes));
        return o;
}

static json_object *smoke_of(const struct smoke_result *s)
{
        json_object *o = json_object_new_object();

        json_add_str(o, "result", "pass");
        records_add_time(o, "at", s->at);
        if (s->protocol && *s->protocol)
                json_add_str(o, "protocol", s->protocol);
        json_add_int(o, "duration_ms", (int64_t)s->duration_ms);
        return o;
}

static void add_list(json_object *record, const char *key, char *const *list)
{
        if (list && *list)
                json_add(record, key, json_from_strv(list));
}

/* Everything below is taken from what was recomputed, nothing from what the proposal claims. */
static json_object *build(const struct review *r, const struct conf *conf, uint64_t serial, const struct options *o, const char *signer,
                          time_t now, time_t expires)
{
        json_object *record = records_new(conf, RECORD_APPROVAL, r->proposal->server, serial, o->reason ? o->reason : r->proposal->reason);
        char **egress = NULL;

        json_add_str(record, "proposal", r->proposal->id);
        json_add(record, "source", source_of(r));
        json_add_str(record, "entry_sha256", r->entry->entry_sha256);
        json_add_str(record, "spec_sha256", r->spec->hex);
        json_add_str(record, "manifest_sha256", r->manifest_sha256);
        add_list(record, "tools", r->evidence->smoke->tools);
        add_list(record, "secrets", r->entry->secrets);
        for (size_t i = 0; i < r->entry->n_egress; i++) {
                _cleanup_free_ char *text = egress_rule_text(&r->entry->egress[i]);
                egress = strv_append(egress, text);
        }
        add_list(record, "egress", egress);
        strv_free(egress);
        json_add(record, "smoke_test", smoke_of(r->evidence->smoke));
        json_add_str(record, "proposed_by", r->proposal->proposed_by);
        records_add_time(record, "proposed_at", r->proposal->proposed_at);
        json_add_str(record, "approved_by", signer);
        records_add_time(record, "approved_at", now);
        records_add_time(record, "expires_at", expires);
        json_add(record, "entry", json_object_get(r->proposal->entry));
        return record;
}

/* The full text may be many screens above by now. Told from the entry that is signed for, not from what the proposal says of it. */
static void recall(struct cli *c, const struct review *r)
{
        _cleanup_strv_ char **rules = NULL;

        for (size_t i = 0; i < r->entry->n_egress; i++) {
                _cleanup_free_ char *rule = egress_rule_text(&r->entry->egress[i]);
                rules = strv_append(rules, rule);
        }
        _cleanup_free_ char *egress = strv_join(rules, ", "), *secrets = strv_join(r->entry->secrets, ", ");
        _cleanup_free_ char *reach = text_escape(*egress ? egress : "nothing"), *names = text_escape(*secrets ? secrets : "none");
        bool external = r->entry->source == SOURCE_URL;
        _cleanup_free_ char *what = text_escape(external ? r->entry->url : r->entry->image);

        if (external) {
                out_line(&c->errors, STYLE_PLAIN,
                         "\nIn short: %s, %zu tools; it runs elsewhere: what it does with what it is told, nothing here can limit", what,
                         strv_len(r->evidence->smoke->tools));
                return;
        }
        out_line(&c->errors, STYLE_PLAIN, "\nIn short: %s, %zu tools, may reach: %s; secrets: %s", what,
                 strv_len(r->evidence->smoke->tools), reach, names);
}

/* 1: yes. 0: no. */
static int ask(struct cli *c, const struct review *r, const char *signer, time_t expires, struct err **err)
{
        char line[16] = "", until[TEXT_TIME_MAX];
        _cleanup_free_ char *safe = text_escape(signer);

        if (!isatty(STDIN_FILENO))
                return cli_usage(c, err, "standard input is no terminal, so nobody can answer: use --yes if that is meant");
        recall(c, r);
        out_line(&c->errors, STYLE_BOLD, "Sign this for %s on %s as %s, until %s?", r->proposal->server, c->conf->audience, safe,
                 text_format_time(until, expires));
        fputs("Type yes to sign, anything else to leave: ", stderr);
        fflush(stderr);
        return fgets(line, sizeof(line), stdin) && strcmp(line, "yes\n") == 0;
}

static int check_ready(const struct review *r, const struct forge_view *view, struct err **err)
{
        const struct record *decided = records_decision(view, r->proposal->id);

        if (decided)
                return err_set(err, ERR_CONFLICT, "%s was decided already, by %s %s: propose again to change that", r->proposal->id,
                               decided->kind == RECORD_APPROVAL ? "approval" : "rejection", decided->id);
        if (!r->evidence)
                return err_set(err, ERR_NOT_FOUND, "%s has no smoke test yet: run bulkhead smoke %s", r->proposal->id, r->proposal->id);
        if (!r->evidence->smoke->passed)
                return err_set(err, ERR_DENIED, "the smoke test of %s failed: %s", r->proposal->id,
                               r->evidence->smoke->why ? r->evidence->smoke->why : "no reason is given");
        return 0;
}

static int approve(struct cli *c, const char *id, const struct options *o, struct err **err)
{
        _cleanup_(forge_view_freep) struct forge_view *view = NULL;
        _cleanup_(review_freep) struct review *r = NULL;
        _cleanup_json_ json_object *record = NULL;
        _cleanup_free_ char *signer = NULL, *new_id = NULL;
        const struct forge_item *item;
        uint64_t serial, valid_ms;
        time_t now = time(NULL), expires;

        if (text_parse_duration(&valid_ms, o->expires ? o->expires : o->yes ? EXPIRES_YES : EXPIRES_DEFAULT, err) < 0)
                return err_wrap(err, "--expires");
        if (valid_ms < 60000)
                return cli_usage(c, err, "--expires: at least one minute");
        expires = now + (time_t)(valid_ms / 1000);
        if (records_signer(c, o->key, o->as, &signer, err) < 0 || records_read(c, &view, err) < 0 ||
            records_find(view, id, &item, err) < 0 || review_new(&r, c->conf, view, item, err) < 0 || check_ready(r, view, err) < 0 ||
            records_next_serial(view, r->proposal->server, &serial, err) < 0)
                return -1;
        if (!c->json)
                review_print(r, c->conf, &c->out);
        fflush(stdout);
        int yes = o->yes ? 1 : ask(c, r, signer, expires, err);
        if (yes <= 0)
                return yes < 0 ? -1 : (out_line(&c->errors, STYLE_PLAIN, "not signed"), CLI_FAILED);
        record = build(r, c->conf, serial, o, signer, now, expires);
        if (records_publish(c, record, o->key, signer, &new_id, err) < 0)
                return -1;
        cli_poke(c);
        if (c->json)
                out_json(&c->out, record);
        else
                out_line(&c->out, STYLE_GREEN, "approved: %s. Next, if the registry does not have this entry: bulkhead promote %s", new_id,
                         new_id);
        return CLI_OK;
}

int cmd_approve(struct cli *c, int argc, char **argv, struct err **err)
{
        _cleanup_strv_ char **args = NULL;
        struct options o = {0};
        const struct opt opts[] = {
                {"key", OPT_STRING, &o.key, "FILE", "private key, or public key whose private half ssh-agent holds"},
                {"expires", OPT_STRING, &o.expires, "DURATION",
                 "how long it is valid (default " EXPIRES_DEFAULT ", with --yes " EXPIRES_YES "; a call: once)"},
                {"as", OPT_STRING, &o.as, "PRINCIPAL", "who signs, where allowed_signers gives the key several names"},
                {"reason", OPT_STRING, &o.reason, "TEXT", "why (default: the proposal's)"},
                {"yes", OPT_FLAG, &o.yes, NULL, "do not ask; the approval then expires within a day unless --expires says otherwise"},
        };
        int r = opts_parse(c, opts, ELEMENTSOF(opts), argc, argv, 1, 1, &args, err);

        if (r != 0)
                return r < 0 ? -1 : CLI_OK;
        if (cli_is_call(args[0]))
                return cli_decide_call(c, args[0], true, o.expires, err);
        return approve(c, args[0], &o, err);
}
