/*
 * The verdict: may this entry run, by which approval, and if not, why not and what to do. Pure: values in, a value out.
 */
#include "common/forge/view.h"
#include "common/text.h"

#if defined(__x86_64__)
#define HOST_PLATFORM "linux/amd64"
#elif defined(__aarch64__)
#define HOST_PLATFORM "linux/arm64"
#else
#error "no platform name for this architecture: add it here as image indexes write it"
#endif

struct judging {
        const struct forge_view *view;
        const struct registry_entry *entry;
        const struct conf *conf;
        time_t now;
        const struct record *record;
        struct spec *spec;
        char *why;
};

const char *forge_verdict_name(enum forge_verdict v)
{
        static const char *const names[] = {
                [FORGE_APPROVED] = "approved",
                [FORGE_UNAPPROVED] = "unapproved",
                [FORGE_EXPIRED] = "expired",
                [FORGE_REVOKED] = "revoked",
                [FORGE_REJECTED] = "rejected",
                [FORGE_BAD_SIGNATURE] = "bad-signature",
                [FORGE_ENTRY_MISMATCH] = "entry-mismatch",
                [FORGE_DIGEST_MISMATCH] = "digest-mismatch",
                [FORGE_SPEC_MISMATCH] = "spec-mismatch",
                [FORGE_AUDIENCE_MISMATCH] = "audience-mismatch",
                [FORGE_HISTORY_REFUSED] = "history-refused",
        };

        return (size_t)v < ELEMENTSOF(names) ? names[v] : "unknown";
}

static enum forge_verdict verdict(struct judging *j, enum forge_verdict v, char *why)
{
        mem_replace(&j->why, why);
        return v;
}

/* Does the file lie in this server's directory? Refused ones may have no record that says so. */
static bool is_of_server(const struct forge_item *item, const char *server)
{
        size_t n = strlen(server);

        return strncmp(item->path, server, n) == 0 && (item->path[n] == '/' || item->path[n] == '\0');
}

/* -- there is no approval that counts -------------------------------------------------------------------------------------- */

static const struct forge_item *first_refused(const struct judging *j, enum forge_refusal refusal)
{
        const struct forge_item *best = NULL;

        for (size_t i = 0; i < j->view->n_items; i++) {
                const struct forge_item *item = &j->view->items[i];
                if (item->refusal != refusal || !is_of_server(item, j->entry->name))
                        continue;
                if (item->record && item->record->kind == RECORD_PROPOSAL)
                        continue;
                if (!best || (item->record && best->record && item->record->serial > best->record->serial))
                        best = item;
        }
        return best;
}

/* The newest word on this server that is not an approval. */
static const struct record *newest_other(const struct judging *j)
{
        const struct record *best = NULL;

        for (size_t i = 0; i < j->view->n_items; i++) {
                const struct forge_item *item = &j->view->items[i];
                const struct record *r = item->record;
                if (!r || item->refused || !str_eq(r->server, j->entry->name) ||
                    (r->kind != RECORD_PROPOSAL && r->kind != RECORD_REJECTION))
                        continue;
                if (!best || r->serial > best->serial || (r->serial == best->serial && r->kind == RECORD_REJECTION))
                        best = r;
        }
        return best;
}

static char *rejection_text(const struct record *r)
{
        _cleanup_free_ char *who = text_escape(r->approved_by), *reason = text_escape(r->reason ? r->reason : "");

        return mem_printf("proposal %s was rejected by %s%s%s; propose it anew when that is settled", r->proposal, who, *reason ? ": " : "",
                          reason);
}

static enum forge_verdict judge_absent(struct judging *j)
{
        const struct forge_item *item = first_refused(j, FORGE_REFUSAL_SIGNATURE);

        if (item)
                return verdict(j, FORGE_BAD_SIGNATURE,
                               mem_printf("%s does not count: %s; have it signed by a key in %s", item->path, item->refused,
                                          j->conf->allowed_signers ? j->conf->allowed_signers : "allowed_signers"));
        item = first_refused(j, FORGE_REFUSAL_AUDIENCE);
        if (item)
                return verdict(j, FORGE_AUDIENCE_MISMATCH, mem_printf("%s %s; approve it for this host", item->path, item->refused));
        item = first_refused(j, FORGE_REFUSAL_SERIAL);
        if (item)
                return verdict(j, FORGE_UNAPPROVED, mem_printf("%s does not count: %s", item->path, item->refused));
        const struct record *r = newest_other(j);
        if (r && r->kind == RECORD_REJECTION)
                return verdict(j, FORGE_REJECTED, rejection_text(r));
        if (r)
                return verdict(j, FORGE_UNAPPROVED,
                               mem_printf("proposal %s waits for a decision: run bulkhead smoke %s, then bulkhead approve %s", r->id, r->id,
                                          r->id));
        item = first_refused(j, FORGE_REFUSAL_FILE);
        if (item)
                return verdict(j, FORGE_UNAPPROVED, mem_printf("%s does not count: %s", item->path, item->refused));
        return verdict(j, FORGE_UNAPPROVED, mem_printf("nobody has approved it: run bulkhead propose %s", j->entry->name));
}

/* -- one approval against what is declared ----------------------------------------------------------------------------------- */

static const struct record *rejection_of(const struct judging *j, const struct record *approval)
{
        for (size_t i = 0; i < j->view->n_items; i++) {
                const struct forge_item *item = &j->view->items[i];
                if (item->record && !item->refused && item->record->kind == RECORD_REJECTION &&
                    (str_eq(item->record->proposal, approval->id) ||
                     (approval->proposal && str_eq(item->record->proposal, approval->proposal))))
                        return item->record;
        }
        return NULL;
}

static enum forge_verdict judge_standing(struct judging *j, const struct forge_item *item)
{
        const struct record *r = item->record, *rejection = rejection_of(j, r);
        char at[TEXT_TIME_MAX];

        if (forge_state_revokes(j->view->next, r))
                return verdict(j, FORGE_REVOKED, mem_printf("approval %s was revoked; propose and approve it anew if it shall run", r->id));
        if (item->refused)
                return verdict(j, FORGE_BAD_SIGNATURE,
                               mem_printf("approval %s does not count any more: %s; approve it anew", r->id, item->refused));
        if (rejection)
                return verdict(j, FORGE_REJECTED, rejection_text(rejection));
        if (!str_eq(r->audience, j->conf->audience))
                return verdict(j, FORGE_AUDIENCE_MISMATCH,
                               mem_printf("approval %s is for %s, this host is %s; approve it for this host", r->id, r->audience,
                                          j->conf->audience));
        if (r->expires_at && j->now >= r->expires_at)
                return verdict(j, FORGE_EXPIRED,
                               mem_printf("approval %s expired at %s; run bulkhead propose %s and approve it anew", r->id,
                                          text_format_time(at, r->expires_at), r->server));
        return FORGE_APPROVED;
}

static enum forge_verdict judge_url(struct judging *j, const struct record *r)
{
        if (str_eq(j->entry->url, r->url))
                return FORGE_APPROVED;
        _cleanup_free_ char *safe = text_escape(r->url);
        return verdict(j, FORGE_ENTRY_MISMATCH,
                       mem_printf("the registry declares %s, approval %s is for %s; run bulkhead propose %s", j->entry->url, r->id, safe,
                                  r->server));
}

static enum forge_verdict judge_source(struct judging *j, const struct record *r)
{
        const char *image = j->entry->image, *mark = image ? strrchr(image, '@') : NULL;
        _cleanup_free_ char *reference = mark ? mem_strndup(image, (size_t)(mark - image)) : NULL;

        if (j->entry->source != r->source || (r->source != SOURCE_URL && !mark))
                return verdict(j, FORGE_ENTRY_MISMATCH,
                               mem_printf("approval %s is for %s, the registry declares another source; propose %s anew", r->id,
                                          r->source == SOURCE_URL ? "an external server" : "a container image", r->server));
        if (r->source == SOURCE_URL)
                return judge_url(j, r);
        if (!str_eq(mark + 1, r->image->digest))
                return verdict(j, FORGE_DIGEST_MISMATCH,
                               mem_printf("the registry declares image digest %.19s…, approval %s is for %.19s…; run bulkhead propose %s, "
                                          "or bulkhead promote %s to "
                                          "return to what was approved",
                                          mark + 1, r->id, r->image->digest, r->server, r->id));
        if (!str_eq(reference, r->image->reference)) {
                _cleanup_free_ char *safe = text_escape(r->image->reference);
                return verdict(j, FORGE_DIGEST_MISMATCH,
                               mem_printf("the registry declares image %s, approval %s is for %s; run bulkhead propose %s", reference,
                                          r->id, safe, r->server));
        }
        if (!str_eq(r->image->platform, HOST_PLATFORM)) {
                _cleanup_free_ char *safe = text_escape(r->image->platform);
                return verdict(j, FORGE_DIGEST_MISMATCH,
                               mem_printf("approval %s is for platform %s, this host is " HOST_PLATFORM "; smoke-test and approve it here",
                                          r->id, safe));
        }
        return FORGE_APPROVED;
}

static bool same_set(char *const *a, char **b /* handed over */)
{
        _cleanup_strv_ char **x = strv_dup(a), **y = b;
        size_t n = strv_len(x);

        if (n != strv_len(y))
                return false;
        strv_sort(x);
        strv_sort(y);
        for (size_t i = 0; i < n; i++)
                if (!str_eq(x[i], y[i]))
                        return false;
        return true;
}

/* The hash binds the whole entry. The lists are what the human was shown: they must say the same. */
static enum forge_verdict judge_entry(struct judging *j, const struct record *r)
{
        char **egress = NULL;

        for (size_t i = 0; i < j->entry->n_egress; i++) {
                _cleanup_free_ char *text = egress_rule_text(&j->entry->egress[i]);
                egress = strv_append(egress, text);
        }
        bool same_egress = same_set(r->egress, egress);
        if (!str_eq(j->entry->entry_sha256, r->entry_sha256))
                return verdict(j, FORGE_ENTRY_MISMATCH,
                               mem_printf("the registry entry is not the one that %s approved; run bulkhead propose %s, or bulkhead "
                                          "promote %s to return to it",
                                          r->id, r->server, r->id));
        if (!same_egress || !same_set(r->secrets, strv_dup(j->entry->secrets)))
                return verdict(j, FORGE_ENTRY_MISMATCH,
                               mem_printf("approval %s lists other %s than its entry has; propose and approve %s anew", r->id,
                                          same_egress ? "secrets" : "egress", r->server));
        return FORGE_APPROVED;
}

static enum forge_verdict judge_spec(struct judging *j, const struct record *r)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_(spec_freep) struct spec *spec = NULL;

        if (spec_build(&spec, j->entry, r->image, &err) < 0) {
                _cleanup_free_ char *safe = text_escape(err_msg(err));
                return verdict(j, FORGE_SPEC_MISMATCH, mem_printf("no container can be made from what %s approved: %s", r->id, safe));
        }
        if (!str_eq(spec->hex, r->spec_sha256))
                return verdict(j, FORGE_SPEC_MISMATCH,
                               mem_printf("the container that would be made is not the one that %s approved (spec %.12s…, approved "
                                          "%.12s…); run bulkhead propose %s",
                                          r->id, spec->hex, r->spec_sha256, r->server));
        j->spec = TAKE_PTR(spec);
        return FORGE_APPROVED;
}

static enum forge_verdict judge_items(struct judging *j)
{
        static enum forge_verdict (*const steps[])(struct judging *, const struct record *) = {judge_source, judge_entry, judge_spec};
        const struct forge_item *item = view_deciding(j->view, j->entry->name);

        if (!item)
                return judge_absent(j);
        j->record = item->record;
        enum forge_verdict v = judge_standing(j, item);
        for (size_t i = 0; i < ELEMENTSOF(steps) && v == FORGE_APPROVED; i++)
                v = steps[i](j, item->record);
        return v;
}

/* A refused file beside an older approval explains why the expected change did not come. */
static void mention_refused(struct judging *j)
{
        const struct forge_item *item = first_refused(j, FORGE_REFUSAL_SIGNATURE);

        if (!item)
                item = first_refused(j, FORGE_REFUSAL_SERIAL);
        if (item && item->record != j->record)
                mem_replace(&j->why, mem_printf("%s; %s does not count: %s", j->why, item->path, item->refused));
}

enum forge_verdict forge_judge(const struct forge_view *view, const struct registry_entry *entry, const struct conf *conf, time_t now,
                               const struct record **record, struct spec **spec, char **why)
{
        struct judging j = {.view = view, .entry = entry, .conf = conf, .now = MAX(now, view->next->time_floor)};
        enum forge_verdict v = judge_items(&j);
        bool changes = v == FORGE_APPROVED || v == FORGE_UNAPPROVED || v == FORGE_BAD_SIGNATURE || v == FORGE_AUDIENCE_MISMATCH;

        if (v == FORGE_APPROVED)
                j.why = mem_printf("approved by %s", j.record->id);
        else if (j.record)
                mention_refused(&j);
        if (view->refused) {
                _cleanup_free_ char *own = TAKE_PTR(j.why);
                j.why = mem_printf("the approvals' history is refused: %s%s%s", view->refused, v == FORGE_APPROVED ? "" : "; ",
                                   v == FORGE_APPROVED ? "" : own);
                if (changes)
                        v = FORGE_HISTORY_REFUSED;
        }
        *record = j.record;
        *spec = j.spec;
        *why = j.why;
        return v;
}
