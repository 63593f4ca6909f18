/* The hardened container: every field, the hash that approvals sign, and what is read of an image. */
#include "tests/unit/spec_fixture.h"

/* -- the create body ------------------------------------------------------------------------------------------------------ */

struct field {
        const char *section, *name, *value;
};

static void assert_fields(json_object *body, const struct field *fields, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                json_object *o = fields[i].section ? json_get(body, fields[i].section) : body;
                _cleanup_json_ json_object *want = fixture_value(fields[i].value);

                assert_true(json_object_object_get_ex(o, fields[i].name, NULL));
                _cleanup_free_ char *a = json_canonical(json_get(o, fields[i].name)), *b = json_canonical(want);
                if (strcmp(a, b) != 0)
                        print_error("%s.%s\n", fields[i].section, fields[i].name);
                assert_string_equal(a, b);
        }
}

/* The list of design, field by field: whoever weakens one has to weaken it here too. */
static const struct field hardened[] = {
        {NULL, "User", "\"65532:65532\""},
        {NULL, "Hostname", "\"bb\""},
        {NULL, "Domainname", "\"\""},
        {NULL, "Tty", "false"},
        {NULL, "Healthcheck", "{\"Test\":[\"NONE\"]}"},
        {NULL, "StopTimeout", "10"},
        {NULL, "Image", "\"" IMAGE_NAME "\""},
        {"HostConfig", "ReadonlyRootfs", "true"},
        {"HostConfig", "Privileged", "false"},
        {"HostConfig", "CapDrop", "[\"ALL\"]"},
        {"HostConfig", "CapAdd", "[]"},
        {"HostConfig", "Memory", "268435456"},
        {"HostConfig", "MemorySwap", "268435456"},
        {"HostConfig", "NanoCpus", "500000000"},
        {"HostConfig", "PidsLimit", "128"},
        {"HostConfig", "Ulimits", "[{\"Name\":\"nofile\",\"Soft\":1024,\"Hard\":4096},{\"Name\":\"core\",\"Soft\":0,\"Hard\":0}]"},
        {"HostConfig", "ShmSize", "16777216"},
        {"HostConfig", "IpcMode", "\"private\""},
        {"HostConfig", "CgroupnsMode", "\"private\""},
        {"HostConfig", "PidMode", "\"\""},
        {"HostConfig", "UTSMode", "\"\""},
        {"HostConfig", "Binds", "[]"},
        {"HostConfig", "Devices", "[]"},
        {"HostConfig", "PortBindings", "{}"},
        {"HostConfig", "PublishAllPorts", "false"},
        {"HostConfig", "DnsSearch", "[\".\"]"},
        {"HostConfig", "ExtraHosts", "[]"},
        {"HostConfig", "Sysctls", "{\"net.ipv6.conf.all.disable_ipv6\":\"1\"}"},
        {"HostConfig", "RestartPolicy", "{\"Name\":\"no\"}"},
        {"HostConfig", "AutoRemove", "false"},
        {"HostConfig", "Init", "true"},
        {"HostConfig", "OomScoreAdj", "500"},
        {"HostConfig", "OomKillDisable", "false"},
        {"HostConfig", "Tmpfs",
         "{\"/tmp\":\"rw,noexec,nosuid,nodev,size=67108864,mode=1777,uid=65532,gid=65532\","
         "\"/data\":\"rw,noexec,nosuid,nodev,size=67108864,mode=1777,uid=65532,gid=65532\"}"},
};

static void body_is_hardened(_unused_ void **state)
{
        _cleanup_fixture_ struct fixture f;
        static const char *const absent[] = {"MaskedPaths", "ReadonlyPaths", "Runtime", "MemorySwappiness", "UsernsMode"};
        static const struct field stdio[] = {
                {NULL, "AttachStdin", "true"},   {NULL, "AttachStdout", "true"},
                {NULL, "AttachStderr", "true"},  {NULL, "OpenStdin", "true"},
                {NULL, "StdinOnce", "true"},     {"HostConfig", "LogConfig", "{\"Type\":\"none\",\"Config\":{}}"},
                {NULL, "Env", "[\"LOG=info\"]"},
        };

        fixture_init(&f);
        assert_fields(f.spec->body, hardened, ELEMENTSOF(hardened));
        assert_fields(f.spec->body, stdio, ELEMENTSOF(stdio));
        for (size_t i = 0; i < ELEMENTSOF(absent); i++)
                assert_false(json_object_object_get_ex(json_get(f.spec->body, "HostConfig"), absent[i], NULL));
        assert_false(json_object_object_get_ex(f.spec->body, "Entrypoint", NULL));
        assert_false(json_object_object_get_ex(f.spec->body, "Labels", NULL));
}

static void http_body_keeps_no_streams(_unused_ void **state)
{
        _cleanup_(image_facts_freep) struct image_facts *facts = fixture_facts();
        _cleanup_(spec_freep) struct spec *s = fixture_spec(ENTRY_HTTP, facts);
        static const struct field http[] = {
                {NULL, "AttachStdin", "false"},
                {NULL, "OpenStdin", "false"},
                {NULL, "StdinOnce", "false"},
                {"HostConfig", "LogConfig", "{\"Type\":\"local\",\"Config\":{\"max-size\":\"8m\",\"max-file\":\"2\"}}"},
                {"HostConfig", "PortBindings", "{}"},
        };

        assert_fields(s->body, hardened, ELEMENTSOF(hardened));
        assert_fields(s->body, http, ELEMENTSOF(http));
        assert_fields(s->canonical,
                      &(const struct field){NULL, "transport", "{\"type\":\"streamable-http\",\"port\":3001,\"path\":\"/mcp\"}"}, 1);
}

static void body_takes_the_entrys_wishes(_unused_ void **state)
{
        _cleanup_(image_facts_freep) struct image_facts *facts = fixture_facts();
        _cleanup_(spec_freep) struct spec *s =
                fixture_spec(ENTRY_STDIO ", \"entrypoint\": [\"/s\"], \"args\": [\"a\", \"b\"], \"user\": \"7:8\", \"runtime\": \"runsc\", "
                                         "\"sysctls\": {\"net.core.somaxconn\": \"9\"}, \"resources\": {\"memory\": \"1g\", \"cpus\": 2, "
                                         "\"pids\": 5, \"tmpfs\": \"1m\"}",
                             facts);
        static const struct field wishes[] = {
                {NULL, "Entrypoint", "[\"/s\"]"},
                {NULL, "Cmd", "[\"a\",\"b\"]"},
                {NULL, "User", "\"7:8\""},
                {"HostConfig", "Runtime", "\"runsc\""},
                {"HostConfig", "Memory", "1073741824"},
                {"HostConfig", "MemorySwap", "1073741824"},
                {"HostConfig", "NanoCpus", "2000000000"},
                {"HostConfig", "PidsLimit", "5"},
                {"HostConfig", "Sysctls", "{\"net.core.somaxconn\":\"9\",\"net.ipv6.conf.all.disable_ipv6\":\"1\"}"},
                {"HostConfig", "Tmpfs",
                 "{\"/data\":\"rw,noexec,nosuid,nodev,size=1048576,mode=1777,uid=7,gid=8\",\"/"
                 "tmp\":\"rw,noexec,nosuid,nodev,size=1048576,mode=1777,uid=7,gid=8\"}"},
                {"HostConfig", "Mounts",
                 "[{\"Type\":\"bind\",\"Source\":\"/srv/data/bb\",\"Target\":\"/mnt/d\",\"ReadOnly\":true,"
                 "\"BindOptions\":{\"Propagation\":\"rprivate\",\"NonRecursive\":true}}]"},
        };

        assert_fields(s->body, wishes, ELEMENTSOF(wishes));
}

static void a_mount_replaces_a_volume(_unused_ void **state)
{
        _cleanup_(image_facts_freep) struct image_facts *facts = fixture_facts();
        _cleanup_(spec_freep) struct spec *s =
                fixture_spec(ENTRY_HTTP ", \"mounts\": [{\"source\": \"/srv/data/x\", \"target\": \"/data\", \"writable\": true}]", facts);
        json_object *tmpfs = json_path(s->body, "HostConfig", "Tmpfs", NULL);

        assert_int_equal(json_object_object_length(tmpfs), 1);
        assert_non_null(json_get(tmpfs, "/tmp"));
}

/* A smoke test comes before the approval. */
static void a_smoke_test_gets_no_directory_of_the_host(_unused_ void **state)
{
        _cleanup_fixture_ struct fixture f;
        fixture_init(&f);
        f.host.role = "smoke";
        _cleanup_json_ json_object *body = spec_create_body(f.spec, &f.host);
        json_object *tmpfs = json_path(body, "HostConfig", "Tmpfs", NULL), *kept = json_path(f.spec->body, "HostConfig", "Mounts", NULL);

        assert_int_equal(json_object_array_length(json_path(body, "HostConfig", "Mounts", NULL)), 0);
        assert_string_equal(json_str(tmpfs, "/mnt/d"), json_str(tmpfs, "/tmp"));
        assert_non_null(json_get(tmpfs, "/data"));
        assert_int_equal(json_object_array_length(kept), 1);
        assert_null(json_get(json_path(f.spec->body, "HostConfig", "Tmpfs", NULL), "/mnt/d"));
}

static void host_is_added(_unused_ void **state)
{
        _cleanup_fixture_ struct fixture f;
        fixture_init(&f);
        _cleanup_free_ char *before = json_canonical(f.spec->body);
        _cleanup_json_ json_object *body = spec_create_body(f.spec, &f.host);
        _cleanup_free_ char *labels =
                mem_printf("{\"io.bulkhead.owner\":\"h1\",\"io.bulkhead.server\":\"bb\",\"io.bulkhead.scope\":\"all\","
                           "\"io.bulkhead.spec\":\"%s\",\"io.bulkhead.approval\":\"f-0123456789abcdef\",\"io.bulkhead.role\":\"server\"}",
                           f.spec->hash);
        const struct field added[] = {
                {NULL, "Labels", labels},
                {NULL, "Env", "[\"LOG=info\",\"TOKEN=another-value\"]"},
                {NULL, "NetworkingConfig", "{\"EndpointsConfig\":{\"bh-bb\":{\"IPAMConfig\":{\"IPv4Address\":\"10.213.0.10\"}}}}"},
                {"HostConfig", "NetworkMode", "\"bh-bb\""},
                {"HostConfig", "Dns", "[\"10.213.0.9\"]"},
        };

        assert_fields(body, added, ELEMENTSOF(added));
        assert_fields(body, hardened, ELEMENTSOF(hardened));
        json_object *options = json_path(body, "HostConfig", "SecurityOpt", NULL);
        assert_int_equal(json_object_array_length(options), 2);
        assert_string_equal(json_object_get_string(json_object_array_get_idx(options, 0)), "no-new-privileges:true");
        assert_true(str_has_prefix(json_object_get_string(json_object_array_get_idx(options, 1)), "seccomp={"));
        /* The spec itself is shared by all instances and must not have moved. */
        _cleanup_free_ char *after = json_canonical(f.spec->body);
        assert_string_equal(before, after);
        assert_null(strstr(after, "TOKEN"));
}

/* -- the hash ------------------------------------------------------------------------------------------------------------- */

/*
 * Approvals sign these. When one changes, every approval in the world is void and every container is made anew: do not correct the
 * number here, write the next version's builder. (A changed seccomp profile changes them too.)
 */
static void hashes_stay(_unused_ void **state)
{
        _cleanup_(image_facts_freep) struct image_facts *facts = fixture_facts();
        _cleanup_(spec_freep) struct spec *stdio = fixture_spec(ENTRY_STDIO, facts), *http = fixture_spec(ENTRY_HTTP, facts);

        assert_string_equal(spec_seccomp_sha256(), "7c00f25a9f8bcd8647c46b9c4682e1362d1843c30cd52d00cf58fa51b8aa26a4");
        assert_string_equal(stdio->hash, "v1:aac4f2364a5141a145848b081471983c465b3ac0d7d046102a3aff4ddc01f627");
        assert_string_equal(http->hash, "v1:92cf5d2db5bbcb2401ff2e13d36ad25e94bf3642060d8831ddae6bbadc3b73ca");
        assert_string_equal(stdio->hex, stdio->hash + 3);
}

static void hash_covers_the_entry(_unused_ void **state)
{
        _cleanup_(image_facts_freep) struct image_facts *facts = fixture_facts();
        _cleanup_(spec_freep) struct spec *plain = fixture_spec(ENTRY_HTTP, facts);
        static const char *const changes[] = {
                "\"env\": {\"A\": \"1\"}",
                "\"secrets\": [\"A\"]",
                "\"entrypoint\": [\"/a\"]",
                "\"args\": [\"a\"]",
                "\"path\": \"/a\"",
                "\"egress\": [{\"cidr\": \"192.0.2.0/24\", \"ports\": [1]}]",
                "\"mounts\": [{\"source\": \"/srv/data/a\", \"target\": \"/a\"}]",
                "\"user\": \"1:1\"",
                "\"runtime\": \"runsc\"",
                "\"sysctls\": {\"net.core.somaxconn\": \"1\"}",
                "\"resources\": {\"memory\": \"128m\"}",
                "\"resources\": {\"cpus\": 1}",
                "\"resources\": {\"pids\": 9}",
                "\"resources\": {\"tmpfs\": \"1m\"}",
        };

        for (size_t i = 0; i < ELEMENTSOF(changes); i++) {
                _cleanup_free_ char *keys = mem_printf("%s, %s", ENTRY_HTTP, changes[i]);
                _cleanup_(spec_freep) struct spec *changed = fixture_spec(keys, facts);
                assert_string_not_equal(plain->hash, changed->hash);
        }
        _cleanup_(spec_freep) struct spec *same =
                fixture_spec(ENTRY_HTTP ", \"enabled\": false, \"description\": \"x\", \"prefix\": \"p\"", facts);
        assert_string_equal(plain->hash, same->hash);
}

static void hash_covers_the_image(_unused_ void **state)
{
        _cleanup_(image_facts_freep) struct image_facts *f = fixture_facts();
        _cleanup_(spec_freep) struct spec *plain = fixture_spec(ENTRY_STDIO, f), *id = NULL, *platform = NULL, *digest = NULL,
                                          *volumes = NULL, *vetting = NULL;

        f->size++;
        f->n_layers++;
        vetting = fixture_spec(ENTRY_STDIO, f);
        assert_string_equal(plain->hash, vetting->hash);
        f->image_id[10] = f->image_id[10] == 'a' ? 'b' : 'a';
        id = fixture_spec(ENTRY_STDIO, f);
        assert_string_not_equal(plain->hash, id->hash);
        mem_replace(&f->platform, mem_strdup("linux/arm64"));
        platform = fixture_spec(ENTRY_STDIO, f);
        assert_string_not_equal(id->hash, platform->hash);
        mem_replace(&f->platform_digest, mem_strdup(IMAGE_DIGEST));
        digest = fixture_spec(ENTRY_STDIO, f);
        assert_string_not_equal(platform->hash, digest->hash);
        f->volumes = strv_append(f->volumes, "/more");
        volumes = fixture_spec(ENTRY_STDIO, f);
        assert_string_not_equal(digest->hash, volumes->hash);
}

static void names_follow_the_hash(_unused_ void **state)
{
        _cleanup_fixture_ struct fixture f;
        char one[16], two[16], three[16];

        fixture_init(&f);
        _cleanup_free_ char *server = spec_container_name("bb", f.spec, "server"), *smoke = spec_container_name("bb", f.spec, "smoke"),
                            *network = spec_network_name("bb", f.spec, "server");
        _cleanup_free_ char *want = mem_printf("bb-%.8s", f.spec->hex);
        assert_string_equal(server, want);
        assert_string_not_equal(server, smoke);
        assert_true(str_has_prefix(network, "bh-bb-"));
        spec_bridge_name(one, "h1", "bb", f.spec, "server");
        spec_bridge_name(two, "h1", "bb", f.spec, "smoke");
        spec_bridge_name(three, "h1b", "b", f.spec, "server");
        assert_int_equal(strlen(one), 10);
        assert_true(str_has_prefix(one, "bh") && str_is_hex(one + 2, 8));
        assert_string_not_equal(one, two);
        assert_string_not_equal(one, three);
}

static void refuses_facts_that_do_not_fit(_unused_ void **state)
{
        static const char *const volumes[] = {"/proc/x", "/sys", "/dev/shm", "/etc",       "data",  "/",    "/a/../b",  "/a/./b",
                                              "/a//b",   "/a/",  "/a b",     "/a,size=9g", "/a/..", "/a:b", "/\xc3\xa9"};
        struct err *err = NULL;
        struct spec *s = NULL;
        _cleanup_(registry_entry_freep) struct registry_entry *e = fixture_entry(ENTRY_STDIO);

        for (size_t i = 0; i < ELEMENTSOF(volumes); i++) {
                _cleanup_(image_facts_freep) struct image_facts *f = fixture_facts();
                f->volumes = strv_append(f->volumes, volumes[i]);
                assert_fails(spec_build(&s, e, f, &err), "container spec of server \"bb\": the image's VOLUME");
        }
        _cleanup_(image_facts_freep) struct image_facts *f = fixture_facts();
        f->digest[20] = f->digest[20] == 'a' ? 'b' : 'a';
        assert_fails(spec_build(&s, e, f, &err), "smoke-test and approve the new image");
        f->digest[0] = 'x';
        assert_fails(spec_build(&s, e, f, &err), "facts are incomplete");
        _cleanup_(image_facts_freep) struct image_facts *windows = fixture_facts();
        mem_replace(&windows->platform, mem_strdup("windows/amd64"));
        assert_fails(spec_build(&s, e, windows, &err), "only Linux images run here");
        assert_fails(spec_build_version(&s, "v0", e, windows, &err), "no builder for container specs of version \"v0\"");
}

/* -- image facts ---------------------------------------------------------------------------------------------------------- */

static void reads_a_real_image(_unused_ void **state)
{
        _cleanup_(image_facts_freep) struct image_facts *f = fixture_facts();

        assert_string_equal(f->reference, "127.0.0.1:5000/bb:1.0");
        assert_string_equal(f->digest, IMAGE_DIGEST);
        assert_string_equal(f->image_id, IMAGE_ID);
        assert_string_equal(f->platform, "linux/amd64");
        assert_null(f->platform_digest);
        assert_int_equal(strv_len(f->volumes), 1);
        assert_string_equal(f->volumes[0], "/data");
        assert_string_equal(f->exposed_ports[0], "80/tcp");
        assert_string_equal(f->cmd[0], "/bin/sleep");
        assert_string_equal(f->env[0], "FOO=bar");
        assert_null(f->entrypoint);
        assert_null(f->user);
        assert_int_equal(f->n_layers, 1);
        assert_true(f->size > 1 << 20);
}

/* path: up to two keys; value: JSON, NULL removes. */
static void change(json_object *o, const char *section, const char *key, const char *value)
{
        json_object *at = section ? json_get(o, section) : o;

        if (value)
                json_add(at, key, fixture_value(value));
        else
                json_object_object_del(at, key);
}

static void refuses_bad_images(_unused_ void **state)
{
        static const struct {
                const char *section, *key, *value, *reason;
        } cases[] = {
                {NULL, "Id", NULL, "has no image id"},
                {NULL, "Id", "\"sha256:12\"", "has no image id"},
                {NULL, "RepoDigests", "[]", "was not pulled by that digest"},
                {NULL, "RepoDigests", "[\"x@sha256:00\", 5]", "was not pulled by that digest"},
                {NULL, "Os", NULL, "has no valid platform"},
                {NULL, "Architecture", "\"a/b\"", "has no valid platform"},
                {NULL, "Config", "[]", "Config is not an object"},
                {"Config", "Labels", "{\"io.bulkhead.owner\":\"h1\"}", "carries the label \"io.bulkhead.owner\", which is reserved"},
                {"Config", "Labels", "{\"io.bulkheadx\":\"\"}", "which is reserved"},
                {"Config", "Volumes", "[]", "Config.Volumes is not an object"},
                {"Config", "Env", "[1]", "Config.Env is not a list of strings"},
                {"Config", "Cmd", "\"sh\"", "Config.Cmd is not a list"},
        };
        struct err *err = NULL;
        struct image_facts *f = NULL;

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_json_ json_object *o = fixture_json("image-20.10.json");
                change(o, cases[i].section, cases[i].key, cases[i].value);
                assert_fails(image_facts_from_inspect(&f, o, IMAGE_NAME, &err), cases[i].reason);
        }
        _cleanup_json_ json_object *o = fixture_json("image-20.10.json");
        assert_fails(image_facts_from_inspect(&f, o, "127.0.0.1:5000/bb:1.0", &err), "is not named by digest");
        assert_fails(image_facts_from_inspect(&f, NULL, IMAGE_NAME, &err), "is not an object");
}

static void understands_other_engines(_unused_ void **state)
{
        struct err *err = NULL;
        static const struct {
                const char *architecture, *variant, *platform;
        } cases[] = {{"\"arm64\"", "\"v8\"", "linux/arm64"},
                     {"\"arm\"", "\"v7\"", "linux/arm/v7"},
                     {"\"amd64\"", "\"\"", "linux/amd64"},
                     {"\"amd64\"", "\"v3\"", "linux/amd64/v3"}};

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_json_ json_object *o = fixture_json("image-20.10.json");
                _cleanup_(image_facts_freep) struct image_facts *f = NULL;
                change(o, NULL, "Architecture", cases[i].architecture);
                change(o, NULL, "Variant", cases[i].variant);
                assert_ok(image_facts_from_inspect(&f, o, IMAGE_NAME, &err));
                assert_string_equal(f->platform, cases[i].platform);
        }
        /* containerd image store: the id is the digest that was pulled, of an index here. */
        _cleanup_json_ json_object *o = fixture_json("image-20.10.json");
        _cleanup_(image_facts_freep) struct image_facts *f = NULL, *single = NULL, *podman = NULL;
        change(o, NULL, "Id", "\"" IMAGE_DIGEST "\"");
        change(o, NULL, "RepoDigests", "null");
        change(o, NULL, "Descriptor", "{\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"digest\":\"" IMAGE_DIGEST "\"}");
        change(o, NULL, "Manifests",
               "[{\"Kind\":\"attestation\",\"ID\":\"" IMAGE_DIGEST
               "\",\"ImageData\":{\"Platform\":{\"os\":\"linux\",\"architecture\":\"amd64\"}}},"
               "{\"Kind\":\"image\",\"ID\":\"" IMAGE_ID "\",\"ImageData\":{\"Platform\":{\"os\":\"linux\",\"architecture\":\"amd64\"}}}]");
        assert_ok(image_facts_from_inspect(&f, o, IMAGE_NAME, &err));
        assert_string_equal(f->platform_digest, IMAGE_ID);
        change(o, NULL, "Descriptor", "{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"" IMAGE_DIGEST "\"}");
        assert_ok(image_facts_from_inspect(&single, o, IMAGE_NAME, &err));
        assert_string_equal(single->platform_digest, IMAGE_DIGEST);
        /* Podman: no "sha256:" in front. */
        _cleanup_json_ json_object *p = fixture_json("image-20.10.json");
        change(p, NULL, "Id", "\"5dc295f7a68245091651e12514a27a8804172c2efd94e9e6d5620021c5d1a4c4\"");
        assert_ok(image_facts_from_inspect(&podman, p, IMAGE_NAME, &err));
        assert_string_equal(podman->image_id, IMAGE_ID);
}

static void learns_from_the_registry(_unused_ void **state)
{
        _cleanup_(image_facts_freep) struct image_facts *f = fixture_facts();
        _cleanup_json_ json_object *index = fixture_value(
                "{\"Descriptor\":{\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"digest\":\"" IMAGE_DIGEST "\"}}");
        _cleanup_json_ json_object *single = fixture_value(
                "{\"Descriptor\":{\"mediaType\":\"application/vnd.docker.distribution.manifest.v2+json\",\"digest\":\"" IMAGE_DIGEST
                "\"}}");
        _cleanup_json_ json_object *other = fixture_value("{\"Descriptor\":{\"digest\":\"" IMAGE_ID "\"}}");
        struct err *err = NULL;

        assert_ok(image_facts_add_distribution(f, index, &err));
        assert_null(f->platform_digest);
        assert_ok(image_facts_add_distribution(f, single, &err));
        assert_string_equal(f->platform_digest, IMAGE_DIGEST);
        assert_fails(image_facts_add_distribution(f, other, &err), "ask again by digest");
        assert_fails(image_facts_add_distribution(f, NULL, &err), "describes nothing");
}

static void compares_what_a_record_bound(_unused_ void **state)
{
        struct err *err = NULL;
        _cleanup_(image_facts_freep) struct image_facts *a = fixture_facts(), *b = fixture_facts();

        assert_ok(image_facts_compare(a, b, &err));
        b->platform_digest = mem_strdup(IMAGE_DIGEST);
        b->size++;
        assert_ok(image_facts_compare(a, b, &err));
        a->platform_digest = mem_strdup(IMAGE_ID);
        assert_fails(image_facts_compare(a, b, &err), "platform digest is " IMAGE_DIGEST ", approved is " IMAGE_ID);
        mem_replace(&b->platform_digest, NULL);
        b->volumes = strv_append(b->volumes, "/x");
        assert_fails(image_facts_compare(a, b, &err), "volumes is /data /x, approved is /data");
        mem_replace(&b->image_id, mem_strdup("sha256:1"));
        assert_fails(image_facts_compare(a, b, &err), "image's id is sha256:1, approved is sha256:5dc2");
        mem_replace(&b->platform, mem_strdup("linux/\x1b[31m"));
        assert_fails(image_facts_compare(a, b, &err), "platform is linux/\\x1b[31m, approved is linux/amd64");
        mem_replace(&b->digest, NULL);
        assert_fails(image_facts_compare(a, b, &err), "digest is none, approved is sha256:d7");
        mem_replace(&b->reference, mem_strdup("x"));
        assert_fails(image_facts_compare(a, b, &err), "name is x, approved is 127.0.0.1:5000/bb:1.0");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(body_is_hardened),
                cmocka_unit_test(http_body_keeps_no_streams),
                cmocka_unit_test(body_takes_the_entrys_wishes),
                cmocka_unit_test(a_mount_replaces_a_volume),
                cmocka_unit_test(a_smoke_test_gets_no_directory_of_the_host),
                cmocka_unit_test(host_is_added),
                cmocka_unit_test(hashes_stay),
                cmocka_unit_test(hash_covers_the_entry),
                cmocka_unit_test(hash_covers_the_image),
                cmocka_unit_test(names_follow_the_hash),
                cmocka_unit_test(refuses_facts_that_do_not_fit),
                cmocka_unit_test(reads_a_real_image),
                cmocka_unit_test(refuses_bad_images),
                cmocka_unit_test(understands_other_engines),
                cmocka_unit_test(learns_from_the_registry),
                cmocka_unit_test(compares_what_a_record_bound),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
