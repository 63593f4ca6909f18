#include <stdio.h>

#include "cli/junit.h"
#include "cli/review.h"
#include "cli/smoke_ci.h"
#include "cli/vet.h"
#include "common/file.h"
#include "common/link/facts.h"

#define SILENCE_S 900 /* pulling one large layer may say nothing for long */

struct options {
        bool ci;
        const char *junit, *engine, *registry;
};

/* One server's test. */
struct outcome {
        char *server;
        struct image_facts *image;
        struct smoke_result *smoke; /* NULL: could not be made, see err */
        struct err *err;
};

static void outcome_deinit(struct outcome *o)
{
        free(o->server);
        image_facts_free(o->image);
        smoke_result_free(o->smoke);
        err_free(o->err);
}

/* The daemon computes the same hashes from its side; where they differ, its version is not ours and no approval of ours would fit. */
static int check_daemon(const struct registry_entry *entry, const struct outcome *o, json_object *answer, struct err **err)
{
        _cleanup_(spec_freep) struct spec *spec = NULL;
        const char *theirs = json_str(answer, "spec_sha256");

        if (!str_eq(json_str(answer, "entry_sha256"), entry->entry_sha256))
                return err_set(err, ERR_CONFLICT,
                               "the controller gives the entry another hash: are bulkhead and bulkhead-controller of one version?");
        if (spec_build(&spec, entry, o->image, err) < 0)
                return -1;
        if (!str_eq(theirs, spec->hex))
                return err_set(err, ERR_CONFLICT,
                               "the controller builds another container (%s) than this program (%s): are they of one version?",
                               theirs ? theirs : "none", spec->hex);
        return 0;
}

static int ask_daemon(struct cli *c, const struct registry_entry *entry, struct outcome *o, struct err **err)
{
        _cleanup_json_ json_object *request = cli_request("smoke"), *answer = NULL;

        json_add_str(request, "server", entry->name);
        json_add(request, "entry", json_object_get(entry->json));
        if (cli_call(c, request, SILENCE_S, &answer, err) < 0)
                return -1;
        if ((entry->source != SOURCE_URL && link_facts_from_json(&o->image, json_get(answer, "image"), err) < 0) ||
            smoke_result_from_json(&o->smoke, json_get(answer, "smoke"), err) < 0)
                return err_wrap(err, "the controller's answer");
        return check_daemon(entry, o, answer, err);
}

static int test_entry(struct cli *c, const struct options *opt, const struct registry_entry *entry, struct outcome *o, struct err **err)
{
        o->server = mem_strdup(entry->name);
        return opt->ci ? smoke_ci_run(c, opt->engine, entry, &o->image, &o->smoke, err) : ask_daemon(c, entry, o, err);
}

/* -- what people and programs see ------------------------------------------------------------------------------------------- */
static json_object *outcome_to_json(const struct outcome *o)
{
        json_object *j = json_object_new_object();

        json_add_str(j, "server", o->server);
        if (o->image)
                json_add(j, "image", link_facts_to_json(o->image));
        if (o->smoke)
                json_add(j, "smoke", smoke_result_to_json(o->smoke));
        if (o->err)
                json_add_str(j, "error", err_msg(o->err));
        return j;
}

static void print(const struct outcome *o, struct out *out)
{
        _cleanup_json_ json_object *manifest = NULL, *findings = NULL;
        const struct smoke_result *s = o->smoke;
        _cleanup_free_ char *tools = strv_join(s->tools, ", ");
        _cleanup_free_ char *took = mem_printf("%llu ms", (unsigned long long)s->duration_ms);
        const struct json_limits limits = {.max_bytes = 8U << 20, .max_depth = 64};

        out_text(out, STYLE_BOLD, o->server);
        fputc('\n', out->f);
        if (o->image)
                review_print_image(o->image, out);
        out_field(out, s->passed ? STYLE_GREEN : STYLE_RED, "Smoke test", s->passed ? "pass" : "FAIL");
        out_field_again(out, STYLE_RED, "Why", s->passed ? NULL : s->why);
        out_field(out, STYLE_PLAIN, "Protocol", s->protocol);
        out_field(out, STYLE_PLAIN, "Took", took);
        out_field(out, STYLE_PLAIN, "Tools", tools);
        if (!s->passed)
                out_field_again(out, STYLE_DIM, "Its last words", s->stderr_tail);
        if (s->manifest && json_parse(&manifest, s->manifest, strlen(s->manifest), "manifest", &limits, NULL) == 0) {
                findings = vet_manifest(manifest);
                review_print_findings(findings, out);
        }
}

static int write_junit(const char *path, const struct outcome *outcomes, size_t n, struct err **err)
{
        _cleanup_free_ struct junit_case *cases = NEW_N(struct junit_case, n);

        for (size_t i = 0; i < n; i++) {
                const struct outcome *o = &outcomes[i];
                cases[i] = (struct junit_case){.server = o->server, .error = o->err ? err_msg(o->err) : NULL};
                if (!o->smoke)
                        continue;
                cases[i].duration_ms = o->smoke->duration_ms;
                cases[i].output = o->smoke->passed ? NULL : o->smoke->stderr_tail;
                if (!o->smoke->passed)
                        cases[i].failure = o->smoke->why ? o->smoke->why : "failed";
        }
        _cleanup_free_ char *xml = junit_write(cases, n);
        return file_write_atomic(path, xml, strlen(xml), 0644, err);
}

static int report(struct cli *c, const struct options *opt, const struct outcome *outcomes, size_t n, struct err **err)
{
        _cleanup_json_ json_object *list = json_object_new_array();
        int code = CLI_OK;

        for (size_t i = 0; i < n; i++) {
                const struct outcome *o = &outcomes[i];
                json_object_array_add(list, outcome_to_json(o));
                if (!c->json && o->smoke)
                        print(o, &c->out);
                if (!o->smoke || !o->smoke->passed)
                        code = CLI_FAILED;
        }
        if (c->json)
                out_json(&c->out, list);
        if (opt->junit && write_junit(opt->junit, outcomes, n, err) < 0)
                return -1;
        return code;
}

/* -- of a proposal ------------------------------------------------------------------------------------------------------------- */
static int smoke_proposal(struct cli *c, const struct options *opt, const char *id, struct err **err)
{
        _cleanup_(forge_view_freep) struct forge_view *view = NULL;
        _cleanup_(outcome_deinit) struct outcome o = {0};
        _cleanup_(review_freep) struct review *r = NULL;
        _cleanup_free_ char *user = cli_user();
        const struct forge_item *item;

        if (records_read(c, &view, err) < 0 || records_may_write(c->conf, err) < 0 || records_find(view, id, &item, err) < 0 ||
            review_new(&r, c->conf, view, item, err) < 0)
                return -1;
        if (test_entry(c, opt, r->entry, &o, err) < 0) {
                o.err = err_dup(*err);
                if (opt->junit)
                        (void)!write_junit(opt->junit, &o, 1, NULL);
                return -1;
        }
        int code = report(c, opt, &o, 1, err);
        if (code < 0)
                return -1;
        _cleanup_json_ json_object *image = o.image ? link_facts_to_json(o.image) : NULL, *smoke = smoke_result_to_json(o.smoke);
        if (evidence_write(c->conf, r->proposal->server, r->proposal->id, image, smoke, user, err) < 0)
                return err_wrap(err, "keeping what the test saw");
        if (code == CLI_OK && !c->json)
                out_line(&c->errors, STYLE_DIM, "next: bulkhead approve %s --key FILE", r->proposal->id);
        return code;
}

/* -- of a registry file: CI for people who keep theirs in git; nothing is written but the report ------------------------------------- */
static int smoke_registry(struct cli *c, const struct options *opt, char *const *names, struct err **err)
{
        _cleanup_(registry_freep) struct registry *registry = NULL;
        const struct conf *conf;

        if (cli_conf(c, &conf, err) < 0 || registry_load(&registry, opt->registry, conf, err) < 0)
                return -1;
        for (char *const *name = names; name && *name; name++)
                if (!registry_find(registry, *name))
                        return err_set(err, ERR_NOT_FOUND, "%s has no server \"%s\"", opt->registry, *name);
        struct outcome *outcomes = mem_alloc((registry->n_entries + 1) * sizeof(*outcomes));
        size_t n = 0;
        for (size_t i = 0; i < registry->n_entries; i++) {
                const struct registry_entry *e = registry->entries[i];
                if (names ? !strv_contains(names, e->name) : !e->enabled)
                        continue;
                if (test_entry(c, opt, e, &outcomes[n], &outcomes[n].err) < 0) {
                        _cleanup_free_ char *safe = out_escape_again(err_msg(outcomes[n].err));
                        out_line(&c->errors, STYLE_RED, "%s: %s", e->name, safe);
                }
                n++;
        }
        int code = report(c, opt, outcomes, n, err);
        for (size_t i = 0; i < n; i++)
                outcome_deinit(&outcomes[i]);
        free(outcomes);
        if (n == 0)
                return err_set(err, ERR_NOT_FOUND, "%s has no enabled server to test", opt->registry);
        return code;
}

int cmd_smoke(struct cli *c, int argc, char **argv, struct err **err)
{
        _cleanup_strv_ char **args = NULL;
        struct options o = {0};
        const struct opt opts[] = {
                {"ci", OPT_FLAG, &o.ci, NULL,
                 "without the controller: open the Engine's socket, or the connection to an external server, here"},
                {"junit", OPT_STRING, &o.junit, "FILE", "write a JUnit report"},
                {"engine", OPT_STRING, &o.engine, "SOCKET", "the Engine's socket, with --ci (default: the configuration's)"},
                {"registry", OPT_STRING, &o.registry, "FILE", "with --ci: test servers of this file (arguments: names; none: all enabled)"},
        };
        int r = opts_parse(c, opts, ELEMENTSOF(opts), argc, argv, 0, 1000, &args, err);

        if (r != 0)
                return r < 0 ? -1 : CLI_OK;
        if ((o.registry || o.engine) && !o.ci)
                return cli_usage(c, err, "--registry and --engine need --ci");
        if (o.registry)
                return smoke_registry(c, &o, args, err);
        if (strv_len(args) != 1)
                return cli_usage(c, err, "give one proposal's id");
        return smoke_proposal(c, &o, args[0], err);
}
