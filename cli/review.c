#include "cli/review.h"

#include "cli/diff.h"
#include "cli/vet.h"
#include "common/text.h"

#define MAX_MANIFEST (8U << 20)

static const struct json_limits manifest_limits = {.max_bytes = MAX_MANIFEST, .max_depth = 64};

/* The manifest is hashed as it is parsed, not as somebody says it was. */
static int read_manifest(struct review *r, struct err **err)
{
        const struct smoke_result *s = r->evidence->smoke;

        if (!s->manifest)
                return err_set(err, ERR_INVALID, "%s has no manifest although the test passed", r->evidence->path);
        if (json_parse(&r->manifest, s->manifest, strlen(s->manifest), "manifest", &manifest_limits, err) < 0)
                return err_wrap(err, "%s", r->evidence->path);
        json_sha256(r->manifest_sha256, r->manifest);
        if (!str_eq(r->manifest_sha256, s->manifest_sha256))
                return err_set(err, ERR_DENIED, "%s: the manifest has the hash %s, the test says %s: somebody edited it; run smoke again",
                               r->evidence->path, r->manifest_sha256, s->manifest_sha256);
        r->findings = vet_manifest(r->manifest);
        return 0;
}

static int read_evidence(struct review *r, const struct conf *conf, struct err **err)
{
        int n = evidence_read(conf, r->proposal->server, r->proposal->id, &r->evidence, err);

        if (n != 0)
                return n < 0 ? -1 : 0;
        const struct image_facts *tested = r->evidence->image, *proposed = r->proposal->image;
        if (!str_eq(tested ? tested->digest : NULL, proposed ? proposed->digest : NULL))
                return err_set(err, ERR_DENIED, "%s is about the image %s, the proposal about %s: run smoke again", r->evidence->path,
                               tested ? tested->digest : "of no container", proposed ? proposed->digest : "no image");
        if (spec_build(&r->spec, r->entry, tested, err) < 0)
                return -1;
        return r->evidence->smoke->passed ? read_manifest(r, err) : 0;
}

static bool is_from_source(const struct registry_entry *entry, const struct record *p)
{
        const char *digest = entry->image ? strchr(entry->image, '@') : NULL;

        if (entry->source != p->source)
                return false;
        return p->source == SOURCE_URL ? str_eq(entry->url, p->url) : digest && str_eq(digest + 1, p->image->digest);
}

int review_new(struct review **ret, const struct conf *conf, const struct forge_view *view, const struct forge_item *item, struct err **err)
{
        _cleanup_(review_freep) struct review *r = NEW(struct review);
        const struct record *p = item->record;

        if (p->kind != RECORD_PROPOSAL)
                return err_set(err, ERR_INVALID, "%s is a %s, not a Proposal", p->id, record_kind_name(p->kind));
        if (item->refused)
                return err_set(err, ERR_DENIED, "proposal %s does not count: %s", p->id, item->refused);
        r->proposal = p;
        r->previous = records_last_approval(view, p->server);
        r->previous_revoked = r->previous && records_is_revoked(view, r->previous);
        if (registry_entry_parse(&r->entry, p->server, p->entry, p->id, conf, err) < 0)
                return -1;
        if (!str_eq(r->entry->entry_sha256, p->entry_sha256))
                return err_set(err, ERR_DENIED, "proposal %s: its entry has the hash %s, it claims %s", p->id, r->entry->entry_sha256,
                               p->entry_sha256);
        if (!is_from_source(r->entry, p))
                return err_set(err, ERR_DENIED, "proposal %s: its entry is of another source than it says", p->id);
        if (read_evidence(r, conf, err) < 0)
                return -1;
        *ret = TAKE_PTR(r);
        return 0;
}

struct review *review_free(struct review *r)
{
        if (!r)
                return NULL;
        registry_entry_free(r->entry);
        evidence_free(r->evidence);
        spec_free(r->spec);
        json_object_put(r->manifest);
        json_object_put(r->findings);
        free(r);
        return NULL;
}

json_object *review_to_json(const struct review *r)
{
        json_object *o = json_object_new_object();

        json_add_str(o, "proposal", r->proposal->id);
        json_add_str(o, "server", r->proposal->server);
        json_add_str(o, "entry_sha256", r->entry->entry_sha256);
        if (r->previous)
                json_add_str(o, "previous", r->previous->id);
        if (!r->evidence)
                return o;
        json_add_str(o, "spec_sha256", r->spec->hex);
        json_add(o, "image", json_object_get(json_get(r->evidence->json, "image")));
        json_add(o, "smoke", json_object_get(json_get(r->evidence->json, "smoke")));
        if (r->manifest)
                json_add_str(o, "manifest_sha256", r->manifest_sha256);
        if (r->findings)
                json_add(o, "findings", json_object_get(r->findings));
        return o;
}

/* -- for people ----------------------------------------------------------------------------------------------------------- */
static void heading(struct out *o, const char *text)
{
        out_line(o, STYLE_BOLD, "\n%s", text);
}

static void join_field(struct out *o, const char *label, char *const *list)
{
        _cleanup_free_ char *text = strv_join(list, " ");

        out_field(o, STYLE_PLAIN, label, text);
}

void review_print_image(const struct image_facts *f, struct out *o)
{
        char size[32];
        _cleanup_free_ char *layers = mem_printf("%s in %zu layers", out_bytes(size, f->size), f->n_layers);
        bool root = !f->user || !*f->user || str_eq(f->user, "0") || str_eq(f->user, "root") || str_has_prefix(f->user, "0:") ||
                    str_has_prefix(f->user, "root:");

        out_field(o, STYLE_PLAIN, "Reference", f->reference);
        out_field(o, STYLE_PLAIN, "Digest", f->digest);
        out_field(o, STYLE_PLAIN, "Platform", f->platform);
        out_field(o, STYLE_PLAIN, "Platform digest", f->platform_digest);
        out_field(o, STYLE_PLAIN, "Image id", f->image_id);
        out_field(o, root ? STYLE_YELLOW : STYLE_PLAIN, "Image's user", root ? "root (runs as the entry's user all the same)" : f->user);
        join_field(o, "Entrypoint", f->entrypoint);
        join_field(o, "Command", f->cmd);
        join_field(o, "Exposed ports", f->exposed_ports);
        join_field(o, "Volumes", f->volumes);
        out_field(o, STYLE_PLAIN, "Size", layers);
}

void review_print_findings(json_object *findings, struct out *o)
{
        static const char *const headers[] = {"WHERE", "SIGNAL", "TEXT"};
        size_t n = findings ? json_object_array_length(findings) : 0;

        if (n == 0)
                return;
        _cleanup_table_ struct table *t = table_new(headers, ELEMENTSOF(headers));
        for (size_t i = 0; i < n; i++) {
                json_object *f = json_object_array_get_idx(findings, i);
                table_cell(t, STYLE_PLAIN, json_str(f, "where"));
                table_cell(t, STYLE_YELLOW, json_str(f, "signal"));
                table_cell(t, STYLE_PLAIN, json_str(f, "excerpt"));
        }
        heading(o, "Read these twice: what the server says of itself may be written to steer a model");
        table_print(t, o);
}

static void print_smoke(const struct smoke_result *s, struct out *o)
{
        char at[TEXT_TIME_MAX];
        _cleanup_free_ char *took = mem_printf("%llu ms", (unsigned long long)s->duration_ms);

        heading(o, "Smoke test");
        out_field(o, s->passed ? STYLE_GREEN : STYLE_RED, "Result", s->passed ? "pass" : "FAIL");
        out_field_again(o, STYLE_RED, "Why", s->passed ? NULL : s->why);
        out_field(o, STYLE_PLAIN, "At", text_format_time(at, s->at));
        out_field(o, STYLE_PLAIN, "Protocol", s->protocol);
        out_field(o, STYLE_PLAIN, "Took", took);
}

static void print_changes(const struct review *r, const struct conf *conf, struct out *o)
{
        _cleanup_differences_ struct differences d = {0}, m = {0};
        _cleanup_json_ json_object *old_manifest = NULL, *before = NULL, *after = NULL;
        _cleanup_(evidence_freep) struct evidence *old = NULL;
        const struct record *p = r->previous;

        if (!p) {
                heading(o, "First approval of this server: there is nothing to compare with");
                return;
        }
        _cleanup_free_ char *title = mem_printf("Changes since %s (serial %llu)%s", p->id, (unsigned long long)p->serial,
                                                r->previous_revoked ? ", which was revoked" : "");
        heading(o, title);
        diff_values(&d, p->entry, r->proposal->entry);
        size_t n = diff_print(o, &d);
        if (r->manifest && !str_eq(p->manifest_sha256, r->manifest_sha256)) {
                n++;
                if (p->proposal && evidence_read(conf, p->server, p->proposal, &old, NULL) == 0 && old->smoke->manifest &&
                    json_parse(&old_manifest, old->smoke->manifest, strlen(old->smoke->manifest), "manifest", &manifest_limits, NULL) ==
                            0) {
                        before = diff_by_name(old_manifest);
                        after = diff_by_name(r->manifest);
                        diff_values(&m, before, after);
                        diff_print(o, &m);
                } else {
                        out_line(o, STYLE_YELLOW, "  tools, prompts, resources or instructions differ; the old ones are not kept");
                }
        }
        if (n == 0)
                out_line(o, STYLE_DIM, "  none");
}

void review_print(const struct review *r, const struct conf *conf, struct out *o)
{
        char at[TEXT_TIME_MAX];
        const struct record *p = r->proposal;

        heading(o, "Proposal");
        out_field(o, STYLE_PLAIN, "Id", p->id);
        out_field(o, STYLE_BOLD, "Server", p->server);
        out_field(o, STYLE_PLAIN, "For host", conf->audience);
        out_field(o, STYLE_PLAIN, "Proposed by", p->proposed_by);
        out_field(o, STYLE_PLAIN, "Proposed at", text_format_time(at, p->proposed_at));
        out_field(o, STYLE_PLAIN, "Reason", p->reason);
        if (r->entry->source == SOURCE_URL) {
                heading(o, "External server");
                out_field(o, STYLE_YELLOW, "URL", r->entry->url);
                out_line(o, STYLE_YELLOW,
                         "  Bulkhead does not run it: it is not sealed, not pinned to a code, and may reach whatever its host lets it");
        }
        heading(o, "Registry entry");
        out_value(o, 2, p->entry);
        if (r->evidence) {
                if (r->evidence->image) {
                        heading(o, "Image");
                        review_print_image(r->evidence->image, o);
                }
                print_smoke(r->evidence->smoke, o);
        }
        if (r->manifest) {
                heading(o, "What the server offers (its own words)");
                out_value(o, 2, r->manifest);
                review_print_findings(r->findings, o);
        }
        print_changes(r, conf, o);
        heading(o, "Hashes, computed now");
        out_field(o, STYLE_PLAIN, "Entry", r->entry->entry_sha256);
        out_field(o, STYLE_PLAIN, r->entry->source == SOURCE_URL ? "Place" : "Container", r->spec ? r->spec->hex : NULL);
        out_field(o, STYLE_PLAIN, "Manifest", r->manifest ? r->manifest_sha256 : NULL);
        fputc('\n', o->f);
}
