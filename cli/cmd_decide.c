/* reject and revoke: signed records against something. */
#include <stdio.h>
#include <time.h>

#include "cli/records.h"

struct options {
        const char *key, *as, *reason, *server;
};

static int parse(struct cli *c, struct options *o, bool may_name_server, int argc, char **argv, char ***args, struct err **err)
{
        const struct opt opts[] = {
                {"key", OPT_STRING, &o->key, "FILE", "private key, or public key whose private half ssh-agent holds"},
                {"reason", OPT_STRING, &o->reason, "TEXT", "why; needed"},
                {"as", OPT_STRING, &o->as, "PRINCIPAL", "who signs, where allowed_signers gives the key several names"},
                {"server", OPT_STRING, &o->server, "NAME", "every approval of this server up to now, instead of an id"},
        };
        int r = opts_parse(c, opts, ELEMENTSOF(opts) - !may_name_server, argc, argv, !may_name_server, 1, args, err);

        if (r != 0)
                return r;
        if ((!o->reason || !*o->reason) && !(!may_name_server && *args && cli_is_call((*args)[0])))
                return cli_usage(c, err, "--reason is needed: whoever reads this later will want it");
        return 0;
}

/* about: id of the proposal or approval; NULL = every approval of the server. */
static int publish(struct cli *c, const struct forge_view *view, enum record_kind kind, const char *server, const char *about,
                   const struct options *o, struct err **err)
{
        _cleanup_json_ json_object *record = NULL;
        _cleanup_free_ char *signer = NULL, *id = NULL;
        uint64_t serial;

        if (records_signer(c, o->key, o->as, &signer, err) < 0 || records_next_serial(view, server, &serial, err) < 0)
                return -1;
        record = records_new(c->conf, kind, server, serial, o->reason);
        json_add_str(record, "proposal", about);
        json_add_str(record, "approved_by", signer);
        records_add_time(record, "approved_at", time(NULL));
        if (records_publish(c, record, o->key, signer, &id, err) < 0)
                return -1;
        cli_poke(c);
        if (c->json)
                out_json(&c->out, record);
        else
                out_line(&c->out, STYLE_PLAIN, "%s: %s", kind == RECORD_REJECTION ? "rejected" : "revoked", id);
        return CLI_OK;
}

int cmd_reject(struct cli *c, int argc, char **argv, struct err **err)
{
        _cleanup_(forge_view_freep) struct forge_view *view = NULL;
        _cleanup_strv_ char **args = NULL;
        const struct forge_item *item;
        struct options o = {0};
        int r = parse(c, &o, false, argc, argv, &args, err);

        if (r != 0)
                return r < 0 ? -1 : CLI_OK;
        if (cli_is_call(args[0]))
                return cli_decide_call(c, args[0], false, NULL, err);
        if (records_read(c, &view, err) < 0 || records_find(view, args[0], &item, err) < 0)
                return -1;
        if (item->record->kind != RECORD_PROPOSAL)
                return err_set(err, ERR_INVALID, "%s is a %s: reject ends proposals, revoke ends approvals", item->record->id,
                               record_kind_name(item->record->kind));
        const struct record *decided = records_decision(view, item->record->id);
        if (decided && decided->kind == RECORD_APPROVAL)
                return err_set(err, ERR_CONFLICT, "%s was approved: revoke %s instead", item->record->id, decided->id);
        if (decided)
                return err_set(err, ERR_CONFLICT, "%s was rejected already, by %s", item->record->id, decided->id);
        return publish(c, view, RECORD_REJECTION, item->record->server, item->record->id, &o, err);
}

int cmd_revoke(struct cli *c, int argc, char **argv, struct err **err)
{
        _cleanup_(forge_view_freep) struct forge_view *view = NULL;
        _cleanup_strv_ char **args = NULL;
        const struct forge_item *item = NULL;
        struct options o = {0};
        int r = parse(c, &o, true, argc, argv, &args, err);

        if (r != 0)
                return r < 0 ? -1 : CLI_OK;
        if (!args == !o.server)
                return cli_usage(c, err, "give either an approval's id or --server NAME");
        if (records_read(c, &view, err) < 0 || (args && records_find(view, args[0], &item, err) < 0))
                return -1;
        if (!item) {
                if (!records_last_approval(view, o.server))
                        return err_set(err, ERR_NOT_FOUND, "server \"%s\" has no approval to revoke", o.server);
                return publish(c, view, RECORD_REVOCATION, o.server, NULL, &o, err);
        }
        const struct record *about = item->record;
        if (about->kind == RECORD_PROPOSAL) {
                about = records_decision(view, about->id);
                if (!about || about->kind != RECORD_APPROVAL)
                        return err_set(err, ERR_NOT_FOUND, "%s was not approved: there is nothing to revoke (reject decides against it)",
                                       item->record->id);
        } else if (about->kind != RECORD_APPROVAL) {
                return err_set(err, ERR_INVALID, "%s is a %s: only approvals are revoked", about->id, record_kind_name(about->kind));
        }
        return publish(c, view, RECORD_REVOCATION, about->server, about->id, &o, err);
}
