#include <stdio.h>
#include <time.h>

#include "cli/records.h"

/* The approval meant by the id of an approval or of its proposal. */
static int find_approval(const struct forge_view *view, const char *id, const struct record **ret, struct err **err)
{
        const struct forge_item *item;

        if (records_find(view, id, &item, err) < 0)
                return -1;
        const struct record *r = item->record;
        if (r->kind == RECORD_PROPOSAL) {
                r = records_decision(view, r->id);
                if (!r)
                        return err_set(err, ERR_DENIED, "%s is not approved yet: run bulkhead approve %s", item->record->id,
                                       item->record->id);
        } else if (item->refused) {
                return err_set(err, ERR_DENIED, "%s does not count: %s", r->id, item->refused);
        }
        if (r->kind != RECORD_APPROVAL)
                return err_set(err, ERR_DENIED, "%s is a %s, not an Approval", r->id, record_kind_name(r->kind));
        *ret = r;
        return 0;
}

/* The entry that was signed, from the approval or from its proposal. */
static int approved_entry(const struct forge_view *view, const struct record *approval, json_object **ret, struct err **err)
{
        const struct forge_item *proposal;
        json_object *entry = approval->entry;

        if (!entry) {
                if (!approval->proposal)
                        return err_set(err, ERR_NOT_FOUND, "approval %s carries no entry and names no proposal", approval->id);
                if (records_find(view, approval->proposal, &proposal, err) < 0)
                        return -1;
                entry = proposal->record->entry;
        }
        if (!json_object_is_type(entry, json_type_object))
                return err_set(err, ERR_INVALID, "approval %s: no registry entry", approval->id);
        json_object *copy = NULL;
        if (json_object_deep_copy(entry, &copy, NULL) < 0)
                return err_set(err, ERR_INTERNAL, "copying the entry");
        json_object_object_del(copy, "enabled");
        json_add_bool(copy, "enabled", true);
        *ret = copy;
        return 0;
}

/* Would the controller run this entry under this approval? Promoting anything else only makes a refusal. */
static int judge(const struct forge_view *view, const struct conf *conf, const struct record *approval, json_object *entry_json,
                 struct err **err)
{
        _cleanup_(registry_entry_freep) struct registry_entry *entry = NULL;
        _cleanup_(spec_freep) struct spec *spec = NULL;
        _cleanup_free_ char *why = NULL;
        const struct record *by = NULL;

        if (registry_entry_parse(&entry, approval->server, entry_json, approval->id, conf, err) < 0)
                return -1;
        enum forge_verdict v = forge_judge(view, entry, conf, time(NULL), &by, &spec, &why);
        if (v != FORGE_APPROVED)
                return err_set(err, ERR_DENIED, "%s does not let %s run (%s): %s", approval->id, approval->server, forge_verdict_name(v),
                               why ? why : "");
        if (!str_eq(by->id, approval->id))
                return err_set(err, ERR_CONFLICT, "%s was superseded by %s: promote that one", approval->id, by->id);
        return 0;
}

/* Is the entry in the registry as it is? A registry that does not exist yet has nothing. */
static int is_there(const struct conf *conf, const char *server, json_object *entry, bool *ret, struct err **err)
{
        _cleanup_(registry_freep) struct registry *registry = NULL;

        *ret = false;
        if (access(conf->registry_path, F_OK) < 0)
                return 0;
        if (registry_load(&registry, conf->registry_path, conf, err) < 0)
                return err_wrap(err, "the registry must be sound before it is changed");
        const struct registry_entry *now = registry_find(registry, server);
        *ret = now && now->enabled && json_object_equal(now->json, entry);
        return 0;
}

int cmd_promote(struct cli *c, int argc, char **argv, struct err **err)
{
        _cleanup_(forge_view_freep) struct forge_view *view = NULL;
        _cleanup_json_ json_object *entry = NULL;
        _cleanup_strv_ char **args = NULL;
        const struct record *approval = NULL;
        bool there;
        int r = opts_parse(c, NULL, 0, argc, argv, 1, 1, &args, err);

        if (r != 0)
                return r < 0 ? -1 : CLI_OK;
        if (records_read(c, &view, err) < 0 || find_approval(view, args[0], &approval, err) < 0 ||
            approved_entry(view, approval, &entry, err) < 0 || judge(view, c->conf, approval, entry, err) < 0 ||
            is_there(c->conf, approval->server, entry, &there, err) < 0)
                return -1;
        if (!there && registry_write_entry(c->conf->registry_path, approval->server, entry, c->conf, err) < 0)
                return -1;
        cli_poke(c);
        if (c->json) {
                _cleanup_json_ json_object *o = json_object_new_object();
                json_add_str(o, "server", approval->server);
                json_add_str(o, "approval", approval->id);
                json_add_bool(o, "changed", !there);
                out_json(&c->out, o);
        } else if (there) {
                out_line(&c->out, STYLE_PLAIN, "%s has this entry already", c->conf->registry_path);
        } else {
                out_line(&c->out, STYLE_GREEN, "%s is in %s", approval->server, c->conf->registry_path);
        }
        return CLI_OK;
}
