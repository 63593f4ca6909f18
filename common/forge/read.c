#include "common/forge/read.h"

#include "common/forge/forge.h"

static void reading_deinit(struct reading *r)
{
        git_repository_free(r->repo);
        sshsig_trust_free(r->trust);
        forge_state_free(r->next);
        free(r->accepted);
        free(r->verified);
}

struct forge_view *forge_view_free(struct forge_view *v)
{
        if (!v)
                return NULL;
        for (size_t i = 0; i < v->n_items; i++)
                forge_item_deinit(&v->items[i]);
        free(v->items);
        free(v->commit);
        free(v->refused);
        forge_state_free(v->next);
        free(v);
        return NULL;
}

static const struct forge_item *find_item(const struct item_list *items, const char *path)
{
        for (size_t i = 0; i < items->n; i++)
                if (str_eq(items->v[i].path, path))
                        return &items->v[i];
        return NULL;
}

/* Every record accepted before must be there, byte by byte. NULL: it is; else why the tip is refused. Owned. */
static char *missing_record(const struct reading *r, const struct item_list *items)
{
        size_t present = 0;

        for (size_t i = 0; i < items->n; i++)
                present += items->v[i].accepted_at != 0;
        if (present == r->state->n_accepted)
                return NULL;
        for (size_t i = 0; i < r->state->n_accepted; i++) {
                const struct forge_accepted *a = &r->state->accepted[i];
                _cleanup_free_ char *path = mem_printf("%s/%s.yaml", a->server, a->id);
                const struct forge_item *item = find_item(items, path);
                if (!item || !item->accepted_at)
                        return mem_printf("%s was accepted before and is %s now: put it back (git revert), or end it with bulkhead revoke",
                                          path, item && item->sha256 ? "changed" : "gone");
        }
        return mem_strdup("a record that was accepted before is there twice");
}

/* *why owned; NULL: history moved forward. */
static int judge_history(char **why, const struct reading *r, const git_oid *tip, const struct item_list *items, struct err **err)
{
        git_oid old;
        bool descends;

        if (!r->state->commit)
                return 0;
        if (git_oid_fromstr(&old, r->state->commit) < 0)
                return git_fault(err, ERR_INTERNAL, "last accepted commit %s", r->state->commit);
        if (!tip) {
                *why = mem_printf("%s is gone: commit %.12s was accepted before; restore the repository", r->conf->approvals_ref,
                                  r->state->commit);
                return 0;
        }
        if (git_descends(&descends, r->repo, tip, &old, err) < 0)
                return -1;
        if (!descends)
                *why = mem_printf("rolled back: commit %.12s does not descend from %.12s, which was accepted before; move %s forward again",
                                  git_oid_tostr_s(tip), r->state->commit, r->conf->approvals_ref);
        else
                *why = missing_record(r, items);
        return 0;
}

/* A revocation counts wherever its signature is good: in a refused tip, and with a serial out of order. */
static void apply_revocations(struct forge_state *next, const struct item_list *items)
{
        for (size_t i = 0; i < items->n; i++) {
                const struct forge_item *item = &items->v[i];
                if (!item_is_genuine(item) || item->record->kind != RECORD_REVOCATION)
                        continue;
                if (item->record->proposal) {
                        state_add_revoked(next, item->record->proposal);
                        continue;
                }
                _cleanup_free_ char *all = mem_printf("%s<%llu", item->record->server, (unsigned long long)item->record->serial);
                state_add_revoked(next, all);
        }
}

static void accept_items(struct reading *r, struct item_list *items)
{
        for (size_t i = 0; i < items->n; i++) {
                struct forge_item *item = &items->v[i];
                if (!item_counts(item) || item->accepted_at)
                        continue;
                item->accepted_at = r->now;
                state_add_accepted(r->next, item->record->id, item->record->server, item->sha256, r->now);
                state_raise_serial(r->next, item->record->server, item->record->serial);
        }
}

/* Hands the wanted items of src over to dst. */
static void take_items(struct item_list *dst, struct item_list *src, bool (*wanted)(const struct forge_item *))
{
        for (size_t i = 0; i < src->n; i++) {
                struct forge_item *item = &src->v[i];
                if (!wanted(item) || find_item(dst, item->path))
                        continue;
                dst->v = mem_realloc(dst->v, dst->n + 1, sizeof(*dst->v));
                dst->v[dst->n++] = *item;
                *item = (struct forge_item){0};
        }
}

static bool was_accepted(const struct forge_item *item)
{
        return item->accepted_at != 0;
}

static bool is_revocation(const struct forge_item *item)
{
        return item_is_genuine(item) && item->record->kind == RECORD_REVOCATION;
}

/*
 * What stands when a tip is refused: the records of the last accepted commit, when it is still there, and revocations of the refused one.
 * Records of the refused tip that were accepted before fill in where that commit is lost.
 */
static void fall_back(struct item_list *items, struct reading *r)
{
        _cleanup_(item_list_deinit) struct item_list old = {0}, kept = {0};
        _cleanup_err_ struct err *err = NULL;
        git_oid id;

        if (git_oid_fromstr(&id, r->state->commit) == 0 && read_items(&old, r, &id, &err) < 0)
                item_list_deinit(&old);
        take_items(&kept, &old, was_accepted);
        take_items(&kept, items, was_accepted);
        take_items(&kept, items, is_revocation);
        item_list_deinit(items);
        *items = kept;
        kept = (struct item_list){0};
}

static int prepare(struct reading *r, struct err **err)
{
        if (!r->state)
                return err_set(err, ERR_DENIED,
                               "this host's approvals state is lost: nothing is trusted without it. Restore it from a backup, or start it "
                               "anew after "
                               "checking the approvals repository by hand");
        r->now = MAX(r->now, r->state->time_floor);
        if (r->conf->signatures_required && sshsig_trust_load(&r->trust, r->conf, err) < 0)
                return -1;
        if (git_open(&r->repo, r->conf, err) < 0)
                return -1;
        reading_index(r);
        r->next = state_copy(r->state);
        r->next->time_floor = r->now;
        return 0;
}

int forge_read(struct forge_view **ret, const struct conf *conf, const struct forge_state *state, time_t now, struct err **err)
{
        _cleanup_(reading_deinit) struct reading r = {.conf = conf, .state = state, .now = now};
        _cleanup_(item_list_deinit) struct item_list items = {0};
        _cleanup_(forge_view_freep) struct forge_view *view = NEW(struct forge_view);
        git_oid tip;

        if (prepare(&r, err) < 0)
                return -1;
        int missing = git_tip(&tip, r.repo, conf, err);
        if (missing < 0 || (!missing && read_items(&items, &r, &tip, err) < 0))
                return -1;
        judge_serials(&items, &r);
        if (judge_history(&view->refused, &r, missing ? NULL : &tip, &items, err) < 0)
                return -1;
        apply_revocations(r.next, &items);
        if (view->refused) {
                fall_back(&items, &r);
        } else if (!missing) {
                accept_items(&r, &items);
                mem_replace(&r.next->commit, mem_strdup(git_oid_tostr_s(&tip)));
        }
        if (!missing)
                view->commit = mem_strdup(git_oid_tostr_s(&tip));
        view->items = TAKE_PTR(items.v);
        view->n_items = items.n;
        items.n = 0;
        view->next = TAKE_PTR(r.next);
        *ret = TAKE_PTR(view);
        return 0;
}
