#include "common/forge/view.h"

#include "common/forge/state.h"

/* -- which record decides -------------------------------------------------------------------------------------------------- */

static bool can_decide(const struct forge_item *item)
{
        if (!item->record || item->record->kind != RECORD_APPROVAL)
                return false;
        return !item->refused || (item->accepted_at && item->refusal == FORGE_REFUSAL_SIGNATURE);
}

const struct forge_item *view_deciding(const struct forge_view *view, const char *server)
{
        const struct forge_item *best = NULL;

        for (size_t i = 0; i < view->n_items; i++) {
                const struct forge_item *item = &view->items[i];
                if (can_decide(item) && str_eq(item->record->server, server) && (!best || item->record->serial > best->record->serial))
                        best = item;
        }
        return best;
}

/* By server; approvals that can decide first, highest serial first. */
static int compare_deciding(const void *a, const void *b)
{
        const struct record *x = (*(const struct forge_item *const *)a)->record, *y = (*(const struct forge_item *const *)b)->record;
        int c = strcmp(x->server, y->server);

        return c ? c : (x->serial < y->serial) - (x->serial > y->serial);
}

static int compare_pointers(const void *a, const void *b)
{
        const char *const *x = a, *const *y = b;

        return strcmp(*x, *y);
}

/*
 * Marks what decides nothing any more: proposals that have their answer, and approvals under a higher serial, but for the one just before
 * it, by which the instance that is being replaced runs.
 */
static bool *superseded_items(const struct forge_view *view)
{
        bool *out = mem_alloc(view->n_items * sizeof(*out) + 1);
        _cleanup_free_ const struct forge_item **approvals = NEW_N(const struct forge_item *, view->n_items + 1);
        _cleanup_free_ const char **answered = NEW_N(const char *, view->n_items + 1);
        size_t n = 0, n_answered = 0;

        for (size_t i = 0; i < view->n_items; i++) {
                const struct forge_item *item = &view->items[i];
                if (can_decide(item))
                        approvals[n++] = item;
                if (item->record && !item->refused && item->record->proposal && item->record->kind != RECORD_REVOCATION)
                        answered[n_answered++] = item->record->proposal;
        }
        qsort(approvals, n, sizeof(*approvals), compare_deciding);
        qsort(answered, n_answered, sizeof(*answered), compare_pointers);
        for (size_t i = 2; i < n; i++)
                if (str_eq(approvals[i]->record->server, approvals[i - 2]->record->server))
                        out[approvals[i] - view->items] = true;
        for (size_t i = 0; i < view->n_items; i++) {
                const struct record *r = view->items[i].record;
                if (r && r->kind == RECORD_PROPOSAL && n_answered &&
                    bsearch(&r->id, answered, n_answered, sizeof(*answered), compare_pointers))
                        out[i] = true;
        }
        return out;
}

/* -- request --------------------------------------------------------------------------------------------------------------- */

static json_object *verified_to_json(const struct forge_state *s)
{
        json_object *o = json_object_new_object();

        for (size_t i = 0; i < s->n_verified; i++)
                json_add_str(o, s->verified[i].key, s->verified[i].signer);
        return o;
}

static int verified_from_json(struct forge_state *s, json_object *o, struct err **err)
{
        if (!json_object_is_type(o, json_type_object))
                return err_set(err, ERR_INVALID, "verified: must be an object");
        json_object_object_foreach (o, key, value) {
                if (!str_is_hex(key, 64) || !json_object_is_type(value, json_type_string))
                        return err_set(err, ERR_INVALID, "verified: must map hashes to names");
                state_add_verified(s, key, json_object_get_string(value));
        }
        return 0;
}

json_object *request_to_json(const struct conf *conf, const struct forge_state *state, time_t now)
{
        json_object *o = json_object_new_object();

        json_add_str(o, "audience", conf->audience);
        json_add_str(o, "repository", conf->approvals_repository);
        json_add_str(o, "ref", conf->approvals_ref);
        json_add_bool(o, "signatures_required", conf->signatures_required);
        json_add_str(o, "allowed_signers", conf->allowed_signers);
        json_add_str(o, "revoked_keys", conf->revoked_keys);
        json_add_str(o, "service_user", conf->service_user);
        json_add_int(o, "now", now);
        if (state) {
                json_add(o, "state", forge_state_to_json(state));
                json_add(o, "verified", verified_to_json(state));
        }
        return o;
}

int request_from_json(struct conf **conf, struct forge_state **state, time_t *now, json_object *o, struct err **err)
{
        _cleanup_(conf_freep) struct conf *c = NEW(struct conf);
        _cleanup_(forge_state_freep) struct forge_state *s = NULL;

        c->audience = mem_strdup(json_str(o, "audience"));
        c->approvals_repository = mem_strdup(json_str(o, "repository"));
        c->approvals_ref = mem_strdup(json_str(o, "ref"));
        c->signatures_required = json_flag(o, "signatures_required", true);
        c->allowed_signers = mem_strdup(json_str(o, "allowed_signers"));
        c->revoked_keys = mem_strdup(json_str(o, "revoked_keys"));
        c->service_user = mem_strdup(json_str(o, "service_user"));
        *now = (time_t)json_int(o, "now", 0);
        if (!c->audience || !c->approvals_repository || !c->approvals_ref || (c->signatures_required && !c->allowed_signers) || *now <= 0)
                return err_set(err, ERR_INVALID, "request: a key is missing");
        json_object *state_json = json_get(o, "state");
        if (state_json && (forge_state_from_json(&s, state_json, err) < 0 || verified_from_json(s, json_get(o, "verified"), err) < 0))
                return -1;
        *conf = TAKE_PTR(c);
        *state = TAKE_PTR(s);
        return 0;
}

/* -- view ------------------------------------------------------------------------------------------------------------------ */

/* The entry is what makes a record long; only a proposal's is needed again, for its smoke test. */
static json_object *record_slim(const struct record *r)
{
        json_object *o = json_object_new_object();

        json_object_object_foreach (r->json, key, value) {
                if (r->kind == RECORD_PROPOSAL || !str_eq(key, "entry"))
                        json_add(o, key, json_object_get(value));
        }
        return o;
}

static json_object *item_to_json(const struct forge_item *item)
{
        json_object *o = json_object_new_object();

        json_add_str(o, "path", item->path);
        json_add_str(o, "sha256", item->sha256);
        json_add_str(o, "signer", item->signer);
        json_add_int(o, "accepted_at", item->accepted_at);
        json_add_str(o, "refused", item->refused);
        json_add_int(o, "refusal", item->refusal);
        if (item->record)
                json_add(o, "record", record_slim(item->record));
        return o;
}

json_object *view_to_json(const struct forge_view *view)
{
        json_object *o = json_object_new_object(), *items = json_object_new_array();
        _cleanup_free_ bool *superseded = superseded_items(view);

        json_add_str(o, "commit", view->commit);
        json_add_str(o, "refused", view->refused);
        for (size_t i = 0; i < view->n_items; i++)
                if (!superseded[i])
                        json_object_array_add(items, item_to_json(&view->items[i]));
        json_add(o, "items", items);
        json_add(o, "state", forge_state_to_json(view->next));
        json_add(o, "verified", verified_to_json(view->next));
        return o;
}

static int item_from_json(struct forge_item *item, json_object *o, struct err **err)
{
        int64_t refusal = json_int(o, "refusal", -1);
        json_object *record = json_get(o, "record");

        item->path = mem_strdup(json_str(o, "path"));
        item->sha256 = mem_strdup(json_str(o, "sha256"));
        item->signer = mem_strdup(json_str(o, "signer"));
        item->accepted_at = (time_t)json_int(o, "accepted_at", 0);
        item->refused = mem_strdup(json_str(o, "refused"));
        if (!item->path || refusal < FORGE_REFUSAL_NONE || refusal > FORGE_REFUSAL_SERIAL ||
            (refusal == FORGE_REFUSAL_NONE) != !item->refused || (!record && !item->refused))
                return err_set(err, ERR_INVALID, "an item is not whole");
        item->refusal = (enum forge_refusal)refusal;
        return record ? record_from_json(&item->record, record, item->path, true, err) : 0;
}

int view_from_json(struct forge_view **ret, json_object *o, struct err **err)
{
        _cleanup_(forge_view_freep) struct forge_view *v = NEW(struct forge_view);
        json_object *items = json_get(o, "items");

        v->commit = mem_strdup(json_str(o, "commit"));
        v->refused = mem_strdup(json_str(o, "refused"));
        if (v->commit && !str_is_hex(v->commit, 40))
                return err_set(err, ERR_INVALID, "commit is no object id");
        if (!json_object_is_type(items, json_type_array) || json_object_array_length(items) > FORGE_MAX_RECORDS)
                return err_set(err, ERR_INVALID, "no list of items, or too many");
        v->items = mem_alloc(json_object_array_length(items) * sizeof(*v->items) + 1);
        for (size_t i = 0; i < json_object_array_length(items); i++) {
                v->n_items = i + 1;
                if (item_from_json(&v->items[i], json_object_array_get_idx(items, i), err) < 0)
                        return -1;
        }
        if (forge_state_from_json(&v->next, json_get(o, "state"), err) < 0 || verified_from_json(v->next, json_get(o, "verified"), err) < 0)
                return -1;
        *ret = TAKE_PTR(v);
        return 0;
}
