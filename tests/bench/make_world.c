/*
 * make_world CONF N KEY PRINCIPAL [IMAGE IMAGE-ID]: writes the files of a host that approved N servers long ago: the registry, one commit
 * with N signed approvals, and which smoke tests passed. The signatures are real ones; the daemon has to check each.
 */
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <time.h>

#include "common/file.h"
#include "common/forge/record.h"
#include "common/forge/repo.h"
#include "common/text.h"
#include "tests/bench/world.h"

struct output {
        struct repo_file *files; /* path and data owned */
        size_t n_files;
        json_object *servers, *smoked;
};

static void output_deinit(struct output *o)
{
        for (size_t i = 0; i < o->n_files; i++) {
                free((void *)o->files[i].path);
                free((void *)o->files[i].data);
        }
        free(o->files);
        json_object_put(o->servers);
        json_object_put(o->smoked);
}

static void add_file(struct output *o, char *path, char *data)
{
        o->files = mem_realloc(o->files, o->n_files + 1, sizeof(*o->files));
        o->files[o->n_files++] = (struct repo_file){.path = path, .data = data, .len = strlen(data)};
}

static void add_time(json_object *o, const char *key, time_t t)
{
        char text[TEXT_TIME_MAX];

        json_add_str(o, key, text_format_time(text, t));
}

static json_object *make_source(const struct image_facts *f)
{
        json_object *source = json_object_new_object();

        json_add_str(source, "type", "docker_image");
        json_add_str(source, "reference", f->reference);
        json_add_str(source, "digest", f->digest);
        json_add_str(source, "platform", f->platform);
        json_add_str(source, "image_id", f->image_id);
        return source;
}

static json_object *make_record(const struct world_server *s, const struct conf *conf, const char *principal)
{
        json_object *r = json_object_new_object(), *smoke = json_object_new_object();
        json_object *tools = json_object_new_array(), *egress = json_object_new_array();
        time_t now = time(NULL);

        json_add_str(r, "apiVersion", "bulkhead/v1");
        json_add_str(r, "kind", "Approval");
        json_add_int(r, "serial", 1);
        json_add_str(r, "audience", conf->audience);
        json_add_str(r, "server", s->name);
        json_add(r, "source", make_source(s->facts));
        json_add_str(r, "entry_sha256", s->entry->entry_sha256);
        json_add_str(r, "spec_sha256", s->spec->hex);
        json_add_str(r, "manifest_sha256", WORLD_MANIFEST);
        json_object_array_add(tools, json_object_new_string("echo"));
        json_object_array_add(tools, json_object_new_string("search_files"));
        json_add(r, "tools", tools);
        for (size_t i = 0; i < s->entry->n_egress; i++) {
                _cleanup_free_ char *rule = egress_rule_text(&s->entry->egress[i]);
                json_object_array_add(egress, json_object_new_string(rule));
        }
        json_add(r, "egress", egress);
        json_add_str(smoke, "result", "pass");
        add_time(smoke, "at", now - 120);
        json_add_str(smoke, "protocol", "2025-11-25");
        json_add_int(smoke, "duration_ms", 812);
        json_add(r, "smoke_test", smoke);
        json_add_str(r, "proposed_by", "agent-1");
        add_time(r, "proposed_at", now - 180);
        json_add_str(r, "approved_by", principal);
        add_time(r, "approved_at", now - 60);
        add_time(r, "expires_at", now + 86400);
        json_add(r, "entry", json_object_get(s->entry->json));
        return r;
}

static int add_server(struct output *o, const struct conf *conf, unsigned i, const struct world_image *image, const char *key,
                      const char *principal, struct err **err)
{
        _cleanup_world_server_ struct world_server s;
        _cleanup_free_ char *id = NULL, *text = NULL, *sig = NULL;

        if (world_server_init(&s, conf, i, image, err) < 0)
                return -1;
        _cleanup_json_ json_object *record = make_record(&s, conf, principal);
        text = record_write(record, &id);
        if (sshsig_sign(&sig, key, text, strlen(text), err) < 0)
                return -1;
        add_file(o, mem_printf("%s/%s.yaml", s.name, id), TAKE_PTR(text));
        add_file(o, mem_printf("%s/%s.yaml.sig", s.name, id), TAKE_PTR(sig));
        json_add(o->servers, s.name, json_object_get(s.entry->json));
        json_add_str(o->smoked, s.spec->hash, WORLD_MANIFEST);
        return 0;
}

static int write_json(const char *path, json_object *o, int flags, struct err **err)
{
        const char *text = json_object_to_json_string_ext(o, flags | JSON_C_TO_STRING_NOSLASHESCAPE);

        return file_write_atomic(path, text, strlen(text), 0644, err);
}

static int write_all(const struct output *o, const struct conf *conf, const char *principal, struct err **err)
{
        _cleanup_json_ json_object *registry = json_object_new_object();
        _cleanup_free_ char *smoked = mem_printf("%s/smoked.json", conf->state_dir);

        json_add_str(registry, "version", "1.0");
        json_add(registry, "servers", json_object_get(o->servers));
        if (write_json(conf->registry_path, registry, JSON_C_TO_STRING_PRETTY, err) < 0 ||
            write_json(smoked, o->smoked, JSON_C_TO_STRING_PLAIN, err) < 0)
                return -1;
        return repo_commit(conf, o->files, o->n_files, principal, "Approvals for a measurement", NULL, err);
}

int main(int argc, char **argv)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_(conf_freep) struct conf *conf = NULL;
        _cleanup_(output_deinit) struct output o = {0};
        unsigned n = argc == 5 || argc == 7 ? (unsigned)strtoul(argv[2], NULL, 10) : 0;

        if (n < 1 || n > WORLD_MAX || sodium_init() < 0) {
                fprintf(stderr, "usage: make_world CONF N KEY PRINCIPAL [IMAGE IMAGE-ID]   (N up to %u)\n", WORLD_MAX);
                return 64;
        }
        const struct world_image image = {.reference = n && argc == 7 ? argv[5] : NULL, .id = argc == 7 ? argv[6] : NULL};
        o.servers = json_object_new_object();
        o.smoked = json_object_new_object();
        int r = conf_load(&conf, argv[1], &err);
        for (unsigned i = 0; r == 0 && i < n; i++)
                r = add_server(&o, conf, i, image.reference ? &image : NULL, argv[3], argv[4], &err);
        if (r < 0 || write_all(&o, conf, argv[4], &err) < 0) {
                fprintf(stderr, "make_world: %s\n", err_msg(err));
                return 1;
        }
        return 0;
}
