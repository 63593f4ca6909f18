/*
 * A server "bb", the facts of its image and its place on a host: what the tests of spec and drift build on. The files in tests/unit/data
 * were taken from a real Engine 20.10 that ran exactly this container; the seccomp profile's text, the spec's hash and the name are put in
 * at load.
 */
#pragma once

#include "tests/unit/test.h"

#include "common/file.h"
#include "common/spec/spec.h"

#define IMAGE_DIGEST "sha256:d7173574d2a566ef31566ae62567a26b0a302752fb340fb189dbc9d0b0db79ad"
#define IMAGE_ID     "sha256:5dc295f7a68245091651e12514a27a8804172c2efd94e9e6d5620021c5d1a4c4"
#define IMAGE_NAME   "127.0.0.1:5000/bb:1.0@" IMAGE_DIGEST
#define ENTRY_HEAD   "\"source\": \"docker_image\", \"image\": \"" IMAGE_NAME "\""
#define ENTRY_STDIO                                                                                                                        \
        ENTRY_HEAD ", \"transport\": \"stdio\", \"env\": {\"LOG\": \"info\"}, \"secrets\": [\"TOKEN\"], "                                  \
                   "\"mounts\": [{\"source\": \"/srv/data/bb\", \"target\": \"/mnt/d\"}]"
#define ENTRY_HTTP ENTRY_HEAD ", \"transport\": \"streamable-http\", \"port\": 3001"

struct fixture {
        struct registry_entry *entry;
        struct image_facts *facts;
        struct spec *spec;
        struct spec_host host;
        json_object *inspect;
};

static inline json_object *fixture_json(const char *name)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_free_ char *path = mem_printf("%s/unit/data/%s", TEST_DATA, name), *text = NULL;
        json_object *o = NULL;
        size_t n;

        assert_ok(file_read(&text, &n, path, 1 << 20, FILE_ANY, &err));
        assert_ok(json_parse(&o, text, n, name, NULL, &err));
        return o;
}

static inline struct registry_entry *fixture_entry(const char *keys)
{
        static char *registries[] = {"127.0.0.1:5000", NULL}, *roots[] = {"/srv/data", NULL}, *runtimes[] = {"runsc", NULL};
        static const struct conf conf = {.allowed_registries = registries, .mount_roots = roots, .runtimes = runtimes, .max_servers = 10};
        _cleanup_err_ struct err *err = NULL;
        _cleanup_json_ json_object *o = NULL;
        _cleanup_free_ char *text = mem_printf("{%s}", keys);
        struct registry_entry *e = NULL;

        assert_ok(json_parse(&o, text, strlen(text), "entry", NULL, &err));
        assert_ok(registry_entry_parse(&e, "bb", o, "entry", &conf, &err));
        return e;
}

static inline struct image_facts *fixture_facts(void)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_json_ json_object *o = fixture_json("image-20.10.json");
        struct image_facts *f = NULL;

        assert_ok(image_facts_from_inspect(&f, o, IMAGE_NAME, &err));
        return f;
}

static inline struct spec *fixture_spec(const char *keys, const struct image_facts *facts)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_(registry_entry_freep) struct registry_entry *e = fixture_entry(keys);
        struct spec *s = NULL;

        assert_ok(spec_build(&s, e, facts, &err));
        return s;
}

/* The real inspect, completed. */
static inline json_object *fixture_inspect(const struct spec *spec)
{
        json_object *o = fixture_json("inspect-20.10.json"), *options = json_path(o, "HostConfig", "SecurityOpt", NULL);
        _cleanup_free_ char *seccomp = mem_printf("seccomp=%s", spec_seccomp_profile()), *name = spec_container_name("bb", spec, "server");
        _cleanup_free_ char *slashed = mem_printf("/%s", name);

        json_object_array_put_idx(options, 1, json_object_new_string(seccomp));
        json_add_str(json_path(o, "Config", "Labels", NULL), "io.bulkhead.spec", spec->hash);
        json_add_str(o, "Name", slashed);
        return o;
}

static inline void fixture_init(struct fixture *f)
{
        static char *extra[] = {"TOKEN=another-value", NULL};

        f->entry = fixture_entry(ENTRY_STDIO);
        f->facts = fixture_facts();
        f->spec = fixture_spec(ENTRY_STDIO, f->facts);
        f->host = (struct spec_host){.network = "bh-bb",
                                     .address = "10.213.0.10",
                                     .dns = "10.213.0.9",
                                     .owner = "h1",
                                     .approval = "f-0123456789abcdef",
                                     .scope = "all",
                                     .role = "server",
                                     .server = "bb",
                                     .extra_env = extra,
                                     .image = f->facts};
        f->inspect = fixture_inspect(f->spec);
}

static inline void fixture_deinit(struct fixture *f)
{
        registry_entry_free(f->entry);
        image_facts_free(f->facts);
        spec_free(f->spec);
        json_object_put(f->inspect);
}
#define _cleanup_fixture_ _cleanup_(fixture_deinit)

static inline json_object *fixture_value(const char *text)
{
        json_object *v = NULL;
        struct json_tokener *tok = json_tokener_new();

        v = json_tokener_parse_ex(tok, text, (int)strlen(text) + 1);
        assert_int_equal(json_tokener_get_error(tok), json_tokener_success);
        json_tokener_free(tok);
        return v;
}
