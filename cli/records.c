#include "cli/records.h"

#include <errno.h>
#include <inttypes.h>
#include <time.h>
#include <unistd.h>

#include "common/file.h"
#include "common/text.h"

#define MIN_PREFIX 6
#define MAX_SERIAL (UINT64_C(1) << 53)
#define MAX_AHEAD  (UINT64_C(1) << 20) /* a proposal is anybody's word: one with a serial far away does not use them up */

int records_may_write(const struct conf *conf, struct err **err)
{
        static const char *const places[] = {"objects", ".git/objects"};

        for (size_t i = 0; i < ELEMENTSOF(places); i++) {
                _cleanup_free_ char *path = mem_printf("%s/%s", conf->approvals_repository, places[i]);
                if (access(path, W_OK) < 0 && errno == EACCES)
                        return err_set(err, ERR_DENIED, "you may not write to the approvals repository %s: run this as its owner",
                                       conf->approvals_repository);
        }
        return 0;
}

int records_read(struct cli *c, struct forge_view **ret, struct err **err)
{
        const struct forge_state empty = {0};
        const struct conf *conf;

        if (cli_conf(c, &conf, err) < 0)
                return -1;
        if (access(conf->approvals_repository, F_OK) < 0 && errno == ENOENT) {
                *ret = NEW(struct forge_view);
                (*ret)->next = NEW(struct forge_state);
                return 0;
        }
        return forge_read(ret, conf, &empty, time(NULL), err);
}

/* One pass over the records that count, or over those that do not. 1: none found. */
static int find_among(const struct forge_view *view, const char *id, bool refused, const struct forge_item **ret, struct err **err)
{
        const struct forge_item *found = NULL;

        for (size_t i = 0; i < view->n_items; i++) {
                const struct forge_item *item = &view->items[i];
                if (!item->record || !item->refused == refused)
                        continue;
                if (str_eq(item->record->id, id)) {
                        *ret = item;
                        return 0;
                }
                if (strlen(id) < MIN_PREFIX || !str_has_prefix(item->record->id, id))
                        continue;
                if (found)
                        return err_set(err, ERR_CONFLICT, "several records begin with %s: give the whole id", id);
                found = item;
        }
        *ret = found;
        return found == NULL;
}

int records_find(const struct forge_view *view, const char *id, const struct forge_item **ret, struct err **err)
{
        /* Nobody hides a record behind one of the same name that does not count. */
        int r = find_among(view, id, false, ret, err);

        if (r > 0)
                r = find_among(view, id, true, ret, err);
        if (r > 0)
                return err_set(err, ERR_NOT_FOUND, "no record %s in the approvals repository (bulkhead pending lists what waits)", id);
        return r;
}

const struct record *records_decision(const struct forge_view *view, const char *proposal)
{
        const struct record *best = NULL;

        for (size_t i = 0; i < view->n_items; i++) {
                const struct record *r = view->items[i].record;
                if (r && !view->items[i].refused && (r->kind == RECORD_APPROVAL || r->kind == RECORD_REJECTION) &&
                    str_eq(r->proposal, proposal) && (!best || r->serial > best->serial))
                        best = r;
        }
        return best;
}

const struct record *records_last_approval(const struct forge_view *view, const char *server)
{
        const struct record *best = NULL;

        for (size_t i = 0; i < view->n_items; i++) {
                const struct record *r = view->items[i].record;
                if (r && !view->items[i].refused && r->kind == RECORD_APPROVAL && str_eq(r->server, server) &&
                    (!best || r->serial > best->serial))
                        best = r;
        }
        return best;
}

bool records_is_revoked(const struct forge_view *view, const struct record *approval)
{
        for (size_t i = 0; i < view->n_items; i++) {
                const struct record *r = view->items[i].record;
                if (!r || view->items[i].refused || r->kind != RECORD_REVOCATION || !str_eq(r->server, approval->server))
                        continue;
                if (r->proposal ? str_eq(r->proposal, approval->id) : r->serial > approval->serial)
                        return true;
        }
        return view->next && forge_state_revokes(view->next, approval);
}

int records_next_serial(const struct forge_view *view, const char *server, uint64_t *ret, struct err **err)
{
        uint64_t highest = 0, proposed = 0;

        for (size_t i = 0; i < view->n_items; i++) {
                const struct record *r = view->items[i].record;
                if (!r || view->items[i].refused || !str_eq(r->server, server))
                        continue;
                if (r->kind != RECORD_PROPOSAL)
                        highest = MAX(highest, r->serial);
        }
        for (size_t i = 0; i < view->n_items; i++) {
                const struct record *r = view->items[i].record;
                if (r && !view->items[i].refused && str_eq(r->server, server) && r->serial <= highest + MAX_AHEAD)
                        proposed = MAX(proposed, r->serial);
        }
        highest = MAX(highest, proposed);
        if (highest >= MAX_SERIAL)
                return err_set(err, ERR_LIMIT, "server %s has a signed record with the last possible serial: give the server another name",
                               server);
        *ret = highest + 1;
        return 0;
}

json_object *records_new(const struct conf *conf, enum record_kind kind, const char *server, uint64_t serial, const char *reason)
{
        json_object *o = json_object_new_object();

        json_add_str(o, "apiVersion", "bulkhead/v1");
        json_add_str(o, "kind", record_kind_name(kind));
        json_add_int(o, "serial", (int64_t)serial);
        json_add_str(o, "audience", conf->audience);
        json_add_str(o, "server", server);
        if (reason && *reason)
                json_add_str(o, "reason", reason);
        return o;
}

void records_add_time(json_object *o, const char *key, time_t t)
{
        char text[TEXT_TIME_MAX];

        json_add_str(o, key, text_format_time(text, t));
}

/* Signs and proves to ourselves that every reader will accept it, before anything is committed. */
static int sign(const struct conf *conf, const struct record *record, const char *key, const char *text, char **sig, struct err **err)
{
        _cleanup_free_ char *principal = NULL;
        const char *signer = record->approved_by;

        if (sshsig_sign(sig, key, text, strlen(text), err) < 0)
                return -1;
        if (sshsig_verify(&principal, conf, text, strlen(text), *sig, strlen(*sig), 0, err) < 0)
                return err_wrap(err, "the signature just made is not accepted: nothing was committed");
        if (!str_eq(principal, signer))
                return err_set(err, ERR_DENIED, "the key belongs to %s in %s, not to %s: nothing was committed", principal,
                               conf->allowed_signers, signer);
        return 0;
}

int records_publish(struct cli *c, json_object *value, const char *key, const char *author, char **ret_id, struct err **err)
{
        _cleanup_(record_freep) struct record *record = NULL;
        _cleanup_free_ char *id = NULL, *text = record_write(value, &id), *sig = NULL;
        const struct conf *conf;

        if (cli_conf(c, &conf, err) < 0 || records_may_write(conf, err) < 0)
                return -1;
        if (record_parse(&record, text, strlen(text), "record", err) < 0)
                return -1;
        if (key && sign(conf, record, key, text, &sig, err) < 0)
                return -1;
        _cleanup_free_ char *path = mem_printf("%s/%s.yaml", record->server, id);
        _cleanup_free_ char *sig_path = mem_printf("%s.sig", path);
        _cleanup_free_ char *message = mem_printf("%s of %s: %s", record_kind_name(record->kind), record->server, id);
        const struct repo_file files[] = {
                {.path = path, .data = text, .len = strlen(text)},
                {.path = sig_path, .data = sig, .len = sig ? strlen(sig) : 0},
        };
        if (repo_commit(conf, files, sig ? 2 : 1, author, message, NULL, err) < 0)
                return -1;
        *ret_id = TAKE_PTR(id);
        return 0;
}

int records_signer(struct cli *c, const char *key, const char *as, char **ret, struct err **err)
{
        const struct conf *conf;

        if (cli_conf(c, &conf, err) < 0 || records_may_write(conf, err) < 0)
                return -1;
        if (!key && conf->signatures_required)
                return cli_usage(c, err, "--key is needed: the file of the key to sign with");
        if (as)
                *ret = mem_strdup(as);
        else if (!key)
                *ret = cli_user();
        else
                return records_principal(conf, key, ret, err);
        return 0;
}
