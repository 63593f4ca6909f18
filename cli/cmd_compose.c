/* bulkhead compose: the approved servers as a Compose file, for review and for hosts without a controller. */
#include <stdio.h>
#include <time.h>

#include "cli/compose.h"
#include "cli/records.h"
#include "common/address.h"
#include "common/text.h"
#include "common/yaml.h"

#define DEFAULT_PROFILE "./seccomp.json"

struct export
{
        struct cli *c;
        const struct conf *conf;
        const struct forge_view *view;
        const char *profile;
        bool open;
        struct address_pool *pool;
        json_object *file;
        struct buf notes; /* lines of comment */
        size_t n;
};

static const char head[] = "# Written by bulkhead compose export: the approved servers, as their signed records have them.\n"
                           "#\n"
                           "# What this file cannot say, and so does not do: nothing here looks at approvals, repairs drift, or speaks "
                           "MCP. The kernel's rules are\n"
                           "# not in it either. The seccomp profile it names is what bulkhead compose seccomp prints. Labels and names of "
                           "containers are left out,\n"
                           "# so that a controller takes nothing of it for its own. Where the host has control groups of version 1, add "
                           "\"cgroup: private\" to every\n"
                           "# service: Compose v2 knows it, docker-compose 1.29 does not.\n";
static const char closed[] = "# No network has a way out, also where an allow-list is approved (--open gives them one).\n";
static const char opened[] = "# WITHOUT THE KERNEL'S RULES A NETWORK THAT IS NOT INTERNAL REACHES WHATEVER THE HOST CAN ROUTE.\n";

/* A sentence may have foreign text in it. */
static void note(struct export *x, const char *server, const char *text)
{
        _cleanup_free_ char *safe = text_escape(text);

        buf_addf(&x->notes, "# %s: %s\n", server, safe);
}

static void note_rules(struct export *x, const struct registry_entry *entry)
{
        for (size_t i = 0; i < entry->n_egress; i++) {
                _cleanup_free_ char *rule = egress_rule_text(&entry->egress[i]), *text = mem_printf("approved way out: %s", rule);

                note(x, entry->name, text);
        }
        for (size_t i = 0; entry->secrets && entry->secrets[i]; i++) {
                _cleanup_free_ char *text = mem_printf("takes %s from the environment of whoever runs this file", entry->secrets[i]);

                note(x, entry->name, text);
        }
        if (registry_entry_has_instances(entry))
                note(x, entry->name,
                     "ONE CONTAINER FOR ALL HERE, though its entry wants one for every session (\"sharing\": \"per-session\")");
}

/* 1: it may not run, and *why (owned) says why. */
static int add_server(struct export *x, const struct registry_entry *entry, time_t now, char **why, struct err **err)
{
        char subnet[SUBNET_MAX], gateway[ADDRESS_MAX], address[ADDRESS_MAX];
        _cleanup_(spec_freep) struct spec *spec = NULL;
        const struct record *record = NULL;

        if (!entry->enabled) {
                *why = mem_strdup("it is not enabled");
                return 1;
        }
        if (entry->source == SOURCE_URL) {
                *why = mem_strdup("it is an external server, which runs elsewhere");
                return 1;
        }
        _cleanup_free_ char *reason = NULL;
        enum forge_verdict verdict = forge_judge(x->view, entry, x->conf, now, &record, &spec, &reason);
        if (verdict != FORGE_APPROVED || !spec) {
                *why = mem_printf("%s%s%s", forge_verdict_name(verdict), reason ? ": " : "", reason ? reason : "");
                return 1;
        }
        if (address_pool_take(x->pool, subnet, err) < 0)
                return -1;
        address_of_gateway(gateway, subnet);
        address_of_container(address, subnet);
        const struct compose_host host = {.seccomp = x->profile,
                                          .subnet = subnet,
                                          .gateway = gateway,
                                          .address = address,
                                          .owner = x->conf->audience,
                                          .open = x->open,
                                          .secrets = entry->secrets};
        if (compose_add(x->file, entry->name, spec, entry, &host, err) < 0)
                return -1;
        _cleanup_free_ char *approval =
                mem_printf("approved by %s, record %s", record->approved_by ? record->approved_by : "nobody", record->id);
        note(x, entry->name, approval);
        note_rules(x, entry);
        x->n++;
        return 0;
}

static int add_servers(struct export *x, const struct registry *registry, char **names, struct err **err)
{
        time_t now = time(NULL);

        for (size_t i = 0; names && names[i]; i++)
                if (!registry_find(registry, names[i]))
                        return err_set(err, ERR_NOT_FOUND, "no server is called \"%s\" in %s", names[i], registry->path);
        for (size_t i = 0; i < registry->n_entries; i++) {
                const struct registry_entry *entry = registry->entries[i];
                _cleanup_free_ char *why = NULL;

                if (names && !strv_contains(names, entry->name))
                        continue;
                int r = add_server(x, entry, now, &why, err);
                if (r < 0)
                        return -1;
                if (r > 0 && names) {
                        x->c->exit_code = CLI_DIFFERENT;
                        return err_set(err, ERR_DENIED, "server \"%s\" may not run: %s", entry->name, why);
                }
                _cleanup_free_ char *left = r > 0 ? mem_printf("left out: %s", why) : NULL;
                if (left)
                        note(x, entry->name, left);
        }
        if (x->n == 0)
                return err_set(err, ERR_NOT_FOUND, "no server is approved and enabled: bulkhead status says why");
        return 0;
}

static void print_file(struct export *x)
{
        FILE *f = x->c->out.f;

        if (x->c->json) {
                out_json(&x->c->out, x->file);
                return;
        }
        _cleanup_free_ char *text = yaml_write(x->file);
        fprintf(f, "%s%s#\n%s%s", head, x->open ? opened : closed, x->notes.data ? x->notes.data : "", text);
}

static int export(struct export *x, char **names, const char *pool, struct err **err)
{
        _cleanup_(address_pool_freep) struct address_pool *addresses = NULL;
        _cleanup_(registry_freep) struct registry *registry = NULL;
        _cleanup_(forge_view_freep) struct forge_view *view = NULL;
        _cleanup_json_ json_object *file = json_object_new_object();

        if (cli_conf(x->c, &x->conf, err) < 0 || registry_load(&registry, x->conf->registry_path, x->conf, err) < 0 ||
            records_read(x->c, &view, err) < 0 || address_pool_new(&addresses, pool ? pool : x->conf->pool, err) < 0)
                return -1;
        json_add(file, "services", json_object_new_object());
        json_add(file, "networks", json_object_new_object());
        x->view = view;
        x->pool = addresses;
        x->file = file;
        if (add_servers(x, registry, names, err) < 0)
                return -1;
        print_file(x);
        return CLI_OK;
}

int cmd_compose(struct cli *c, int argc, char **argv, struct err **err)
{
        struct export x = {.c = c, .profile = DEFAULT_PROFILE};
        _cleanup_strv_ char **args = NULL;
        const char *pool = NULL;
        const struct opt opts[] = {
                {"seccomp", OPT_STRING, &x.profile, "FILE", "how the file is to name the seccomp profile (default " DEFAULT_PROFILE ")"},
                {"pool", OPT_STRING, &pool, "CIDR", "where networks are taken from (default: network.pool)"},
                {"open", OPT_FLAG, &x.open, NULL, "let servers with an approved way out reach everything: without the kernel's rules"},
        };
        int r = opts_parse(c, opts, ELEMENTSOF(opts), argc, argv, 1, 1024, &args, err);

        if (r != 0)
                return r < 0 ? -1 : CLI_OK;
        if (str_eq(args[0], "seccomp") && !args[1]) {
                fputs(spec_seccomp_profile(), c->out.f);
                return CLI_OK;
        }
        if (!str_eq(args[0], "export"))
                return cli_usage(c, err, "compose wants export [SERVER …] or seccomp");
        r = export(&x, args[1] ? args + 1 : NULL, pool, err);
        buf_deinit(&x.notes);
        return r;
}
