#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "cli/entry_options.h"
#include "cli/records.h"
#include "common/file.h"

#define MAX_ENTRY (64U << 10)

/* An entry, or a registry file that has the server. */
static int entry_from_file(const char *path, const char *server, json_object **ret, struct err **err)
{
        _cleanup_free_ char *text = NULL;
        _cleanup_json_ json_object *o = NULL;
        json_object *servers;
        size_t n;
        bool standard_input = strcmp(path, "-") == 0;
        int r = standard_input ? fd_read_all(&text, &n, STDIN_FILENO, MAX_ENTRY, err)
                               : file_read(&text, &n, path, REGISTRY_MAX_BYTES, FILE_ANY, err);

        if (r < 0 || json_parse(&o, text, n, standard_input ? "standard input" : path, NULL, err) < 0)
                return -1;
        servers = json_get(o, "servers");
        if (servers) {
                if (!json_get(servers, server))
                        return err_set(err, ERR_NOT_FOUND, "%s has no server \"%s\"", path, server);
                *ret = json_object_get(json_get(servers, server));
                return 0;
        }
        *ret = TAKE_PTR(o);
        return 0;
}

static json_object *source_of(const struct registry_entry *entry)
{
        json_object *o = json_object_new_object();

        if (entry->source == SOURCE_URL) {
                json_add_str(o, "type", "url");
                json_add_str(o, "url", entry->url);
                return o;
        }
        const char *at = strchr(entry->image, '@');
        _cleanup_free_ char *reference = mem_strndup(entry->image, (size_t)(at - entry->image));

        json_add_str(o, "type", "docker_image");
        json_add_str(o, "reference", reference);
        json_add_str(o, "digest", at + 1);
        return o;
}

static json_object *egress_of(const struct registry_entry *entry)
{
        json_object *list = json_object_new_array();

        for (size_t i = 0; i < entry->n_egress; i++) {
                _cleanup_free_ char *text = egress_rule_text(&entry->egress[i]);
                json_object_array_add(list, json_object_new_string(text));
        }
        return list;
}

int records_propose(struct cli *c, const char *server, json_object *entry_json, const char *from, const char *by, const char *reason,
                    char **id, struct err **err)
{
        _cleanup_(registry_entry_freep) struct registry_entry *entry = NULL;
        _cleanup_(forge_view_freep) struct forge_view *view = NULL;
        _cleanup_json_ json_object *record = NULL;
        _cleanup_free_ char *user = cli_user();
        const struct conf *conf;
        uint64_t serial;

        if (cli_conf(c, &conf, err) < 0 || registry_entry_parse(&entry, server, entry_json, from, conf, err) < 0)
                return -1;
        if (entry->source != SOURCE_URL && (!entry->image || !strchr(entry->image, '@')))
                return err_set(err, ERR_INVALID,
                               "only \"docker_image\" sources with a digest, and external servers (\"url\"), can be proposed: write "
                               "NAME@sha256:…");
        if (records_read(c, &view, err) < 0 || records_next_serial(view, server, &serial, err) < 0)
                return -1;
        record = records_new(conf, RECORD_PROPOSAL, server, serial, reason);
        json_add(record, "source", source_of(entry));
        json_add_str(record, "entry_sha256", entry->entry_sha256);
        if (entry->secrets)
                json_add(record, "secrets", json_from_strv(entry->secrets));
        if (entry->n_egress)
                json_add(record, "egress", egress_of(entry));
        json_add_str(record, "proposed_by", by ? by : user);
        records_add_time(record, "proposed_at", time(NULL));
        json_add(record, "entry", json_object_get(entry_json));
        return records_publish(c, record, NULL, user, id, err);
}

int cmd_propose(struct cli *c, int argc, char **argv, struct err **err)
{
        _cleanup_(entry_options_deinit) struct entry_options e = {0};
        _cleanup_json_ json_object *entry = NULL;
        _cleanup_strv_ char **args = NULL;
        _cleanup_free_ char *id = NULL;
        const char *file = NULL, *by = NULL, *reason = NULL;
        const struct opt opts[] = {
                {"entry", OPT_STRING, &file, "FILE", "the complete registry entry as JSON, or a registry file; - is standard input"},
                {"image", OPT_STRING, &e.image, "REF@DIGEST", "the image, pinned by digest; the options below complete the entry"},
                {"url", OPT_STRING, &e.url, "URL",
                 "an external MCP server or gateway instead of an image, such as http://127.0.0.1:4483/mcp"},
                {"address", OPT_STRING, &e.address, "ADDRESS", "with a name in --url: the IPv4 address at which it is"},
                {"tls-pin", OPT_LIST, &e.tls_pins, "PIN", "with https: a public key that is trusted, sha256//BASE64; again for each"},
                {"description", OPT_STRING, &e.description, "TEXT", "what it is"},
                {"transport", OPT_STRING, &e.transport, "NAME", "stdio (default), streamable-http (default with --url) or sse"},
                {"port", OPT_STRING, &e.port, "N", "port of an HTTP transport"},
                {"path", OPT_STRING, &e.path, "PATH", "path of an HTTP transport"},
                {"entrypoint", OPT_LIST, &e.entrypoint, "WORD", "program instead of the image's; again for each word"},
                {"arg", OPT_LIST, &e.args, "WORD", "argument; again for each"},
                {"env", OPT_LIST, &e.env, "NAME=VALUE", "environment, no secrets; again for each"},
                {"secret", OPT_LIST, &e.secrets, "NAME", "name of a secret it gets; again for each"},
                {"egress", OPT_LIST, &e.egress, "RULE", "\"tcp 192.0.2.0/24:443\": what it may reach; again for each"},
                {"memory", OPT_STRING, &e.memory, "SIZE", "memory limit, such as 256m"},
                {"cpus", OPT_STRING, &e.cpus, "N", "processors, such as 0.5"},
                {"pids", OPT_STRING, &e.pids, "N", "processes and threads"},
                {"tmpfs", OPT_STRING, &e.tmpfs, "SIZE", "size of /tmp"},
                {"user", OPT_STRING, &e.user, "UID:GID", "who it runs as"},
                {"runtime", OPT_STRING, &e.runtime, "NAME", "container runtime"},
                {"lifecycle", OPT_STRING, &e.lifecycle, "NAME", "always-on or on-demand"},
                {"idle-timeout", OPT_STRING, &e.idle_timeout, "DURATION", "when an on-demand server is stopped"},
                {"smoke-tool", OPT_STRING, &e.smoke_tool, "TOOL", "harmless tool the smoke test calls without arguments"},
                {"by", OPT_STRING, &by, "NAME", "who proposes (default: the user)"},
                {"reason", OPT_STRING, &reason, "TEXT", "why"},
        };
        int r = opts_parse(c, opts, ELEMENTSOF(opts), argc, argv, 1, 1, &args, err);

        if (r != 0)
                return r < 0 ? -1 : CLI_OK;
        if (!!file + !!e.image + !!e.url != 1)
                return cli_usage(c, err, "give one of --entry FILE, --image REF@DIGEST and --url URL");
        r = file ? entry_from_file(file, args[0], &entry, err) : entry_options_build(&e, &entry, err);
        if (r < 0 || records_propose(c, args[0], entry,
                                     !file                    ? "entry"
                                     : strcmp(file, "-") == 0 ? "standard input"
                                                              : file,
                                     by, reason, &id, err) < 0)
                return -1;
        if (c->json) {
                _cleanup_json_ json_object *o = json_object_new_object();
                json_add_str(o, "id", id);
                json_add_str(o, "server", args[0]);
                out_json(&c->out, o);
        } else {
                printf("%s\n", id);
                out_line(&c->errors, STYLE_DIM, "proposed; nothing runs yet. Next: bulkhead smoke %s", id);
        }
        return CLI_OK;
}
