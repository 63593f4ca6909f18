#include <stdio.h>

#include "common/forge/read.h"
#include "common/forge/repo.h"
#include "common/text.h"

void forge_item_deinit(struct forge_item *item)
{
        record_free(item->record);
        free(item->path);
        free(item->sha256);
        free(item->signer);
        free(item->refused);
}

void item_list_deinit(struct item_list *l)
{
        for (size_t i = 0; i < l->n; i++)
                forge_item_deinit(&l->v[i]);
        free(l->v);
        *l = (struct item_list){0};
}

void item_refuse(struct forge_item *item, enum forge_refusal refusal, char *reason)
{
        if (item->refused) {
                free(reason);
                return;
        }
        item->refused = reason;
        item->refusal = refusal;
}

bool item_is_genuine(const struct forge_item *item)
{
        return item->record && item->record->kind != RECORD_PROPOSAL &&
               (item->refusal == FORGE_REFUSAL_NONE || item->refusal == FORGE_REFUSAL_SERIAL);
}

bool item_counts(const struct forge_item *item)
{
        return item_is_genuine(item) && !item->refused;
}

static int compare_accepted(const void *a, const void *b)
{
        const struct forge_accepted *x = *(const struct forge_accepted *const *)a, *y = *(const struct forge_accepted *const *)b;
        int c = strcmp(x->server, y->server);

        return c ? c : strcmp(x->id, y->id);
}

static int compare_verified(const void *a, const void *b)
{
        const struct forge_verified *x = *(const struct forge_verified *const *)a, *y = *(const struct forge_verified *const *)b;

        return strcmp(x->key, y->key);
}

const struct forge_accepted *reading_accepted(const struct reading *r, const char *server, const char *id)
{
        struct forge_accepted key = {.id = (char *)id, .server = (char *)server};
        const struct forge_accepted *p = &key, **hit = NULL;

        if (r->state->n_accepted)
                hit = bsearch(&p, r->accepted, r->state->n_accepted, sizeof(*r->accepted), compare_accepted);
        return hit ? *hit : NULL;
}

static const char *cached_signer(const struct reading *r, const char *key)
{
        struct forge_verified wanted = {.key = (char *)key};
        const struct forge_verified *p = &wanted, **hit = NULL;

        if (r->state->n_verified)
                hit = bsearch(&p, r->verified, r->state->n_verified, sizeof(*r->verified), compare_verified);
        return hit ? (*hit)->signer : NULL;
}

/*
 * Checks the signature over the bytes, before anything parses them. Verify-time is when this host first accepted the record, so that a key
 * that ran out since does not take its approvals along; the list of revoked keys applies always.
 */
static void check_signature(struct forge_item *item, struct reading *r, const char *data, size_t n, const char *sig, size_t sig_len)
{
        time_t at = item->accepted_at ? item->accepted_at : r->now;
        _cleanup_free_ char *bound = mem_printf("%s %s %lld", item->sha256, r->trust->sha256, (long long)at);
        _cleanup_err_ struct err *err = NULL;
        char key[SHA256_HEX];

        sha256_hex(key, bound, strlen(bound));
        const char *known = cached_signer(r, key);
        if (known)
                item->signer = mem_strdup(known);
        else if (sshsig_trust_verify(&item->signer, r->trust, data, n, sig, sig_len, at, &err) < 0) {
                item_refuse(item, FORGE_REFUSAL_SIGNATURE, mem_strdup(err_msg(err)));
                return;
        }
        state_add_verified(r->next, key, item->signer);
}

/* What the record says of itself against what we know of it. */
static void check_record(struct forge_item *item, const struct reading *r, const struct found *f)
{
        const struct record *rec = item->record;

        if (!str_eq(rec->server, f->server))
                item_refuse(item, FORGE_REFUSAL_FILE, mem_printf("is a record of server %s, but lies in %s/", rec->server, f->server));
        if (!str_eq(rec->id, f->id))
                item_refuse(item, FORGE_REFUSAL_FILE, mem_printf("holds record %s under the name of another", rec->id));
        if (rec->kind != RECORD_PROPOSAL && r->conf->signatures_required) {
                if (!item->signer)
                        item_refuse(item, FORGE_REFUSAL_SIGNATURE, mem_printf("the %s is not signed", record_kind_name(rec->kind)));
                else if (!str_eq(item->signer, rec->approved_by)) {
                        _cleanup_free_ char *claimed = text_escape(rec->approved_by);
                        item_refuse(item, FORGE_REFUSAL_SIGNATURE,
                                    mem_printf("signed by %s, but approved_by says %s", item->signer, claimed));
                }
        }
        if (!str_eq(rec->audience, r->conf->audience))
                item_refuse(item, FORGE_REFUSAL_AUDIENCE, mem_printf("is for %s; this host is %s", rec->audience, r->conf->audience));
}

static void read_found(struct forge_item *item, struct reading *r, const struct found *f)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_free_ char *data = NULL, *sig = NULL;
        size_t n = 0, sig_len = 0;

        if (git_load_blob(&data, &n, r->repo, &f->record, RECORD_MAX_BYTES, &err) < 0 ||
            (f->has_signature && git_load_blob(&sig, &sig_len, r->repo, &f->signature, SSHSIG_MAX_BYTES, &err) < 0)) {
                item_refuse(item, FORGE_REFUSAL_FILE, mem_strdup(err_msg(err)));
                return;
        }
        _cleanup_buf_ struct buf both = {0};
        char hex[SHA256_HEX];
        buf_add(&both, data, n);
        buf_addc(&both, '\0');
        buf_add(&both, sig ? sig : "", sig_len);
        sha256_hex(hex, both.data, both.len);
        item->sha256 = mem_strdup(hex);
        const struct forge_accepted *known = reading_accepted(r, f->server, f->id);
        if (known && str_eq(known->sha256, hex))
                item->accepted_at = known->at;
        if (f->has_signature && r->trust)
                check_signature(item, r, data, n, sig, sig_len);
        /* Bytes that were accepted once may be parsed although their key was revoked since: what they superseded stays superseded. */
        if (item->refused && !item->accepted_at)
                return;
        if (record_parse(&item->record, data, n, item->path, &err) < 0) {
                item_refuse(item, FORGE_REFUSAL_FILE, mem_strdup(err_msg(err)));
                return;
        }
        check_record(item, r, f);
}

int read_items(struct item_list *ret, struct reading *r, const git_oid *commit, struct err **err)
{
        _cleanup_(found_list_deinit) struct found_list found = {0};

        if (collect(&found, r->repo, commit, err) < 0)
                return err_wrap(err, "commit %.12s of %s", git_oid_tostr_s(commit), r->conf->approvals_repository);
        ret->v = mem_alloc(found.n * sizeof(*ret->v) + 1);
        ret->n = found.n;
        for (size_t i = 0; i < found.n; i++) {
                ret->v[i].path = mem_strdup(found.v[i].path);
                if (found.v[i].refused)
                        item_refuse(&ret->v[i], FORGE_REFUSAL_FILE, mem_strdup(found.v[i].refused));
                else
                        read_found(&ret->v[i], r, &found.v[i]);
        }
        return 0;
}

/* By server, then serial: those that clash stand side by side. */
static int compare_serials(const void *a, const void *b)
{
        const struct record *x = (*(struct forge_item *const *)a)->record, *y = (*(struct forge_item *const *)b)->record;
        int c = strcmp(x->server, y->server);

        return c ? c : (x->serial > y->serial) - (x->serial < y->serial);
}

void judge_serials(struct item_list *items, const struct reading *r)
{
        _cleanup_free_ struct forge_item **fresh = NEW_N(struct forge_item *, items->n + 1);
        size_t n = 0;

        for (size_t i = 0; i < items->n; i++) {
                struct forge_item *item = &items->v[i];
                if (!item_counts(item) || item->accepted_at)
                        continue;
                uint64_t highest = state_serial(r->state, item->record->server);
                if (item->record->serial <= highest)
                        item_refuse(item, FORGE_REFUSAL_SERIAL,
                                    mem_printf("replayed or out of order: its serial is %llu, and %llu was accepted already; issue it anew "
                                               "with a higher serial",
                                               (unsigned long long)item->record->serial, (unsigned long long)highest));
                else
                        fresh[n++] = item;
        }
        qsort(fresh, n, sizeof(*fresh), compare_serials);
        for (size_t i = 1; i < n; i++)
                if (compare_serials(&fresh[i - 1], &fresh[i]) == 0)
                        for (size_t k = i - 1; k <= i; k++)
                                item_refuse(
                                        fresh[k], FORGE_REFUSAL_SERIAL,
                                        mem_printf(
                                                "another record has serial %llu too, so neither counts; issue it anew with a higher serial",
                                                (unsigned long long)fresh[k]->record->serial));
}

/* Kept here because the index and its comparison belong together. */
void reading_index(struct reading *r)
{
        r->accepted = NEW_N(const struct forge_accepted *, r->state->n_accepted + 1);
        r->verified = NEW_N(const struct forge_verified *, r->state->n_verified + 1);
        for (size_t i = 0; i < r->state->n_accepted; i++)
                r->accepted[i] = &r->state->accepted[i];
        for (size_t i = 0; i < r->state->n_verified; i++)
                r->verified[i] = &r->state->verified[i];
        qsort(r->accepted, r->state->n_accepted, sizeof(*r->accepted), compare_accepted);
        qsort(r->verified, r->state->n_verified, sizeof(*r->verified), compare_verified);
}
