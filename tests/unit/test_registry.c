/* The registry loader: what it reads, and that everything else is refused at its place. */
#include "tests/unit/test.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "common/file.h"
#include "common/registry/registry.h"

#define HEX  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define IMG  "127.0.0.1:5000/mcp/thing:1.0@sha256:" HEX
#define BASE "\"source\": \"docker_image\", \"image\": \"" IMG "\", \"transport\": \"stdio\""
/* Line 3 begins with the keys under test, at column 3. */
#define DOC(keys)   "{\"version\": \"1.0\", \"servers\": {\n\"x\": {" BASE ",\n  " keys "}}}\n"
#define ENTRY(body) "{\"version\": \"1.0\", \"servers\": {\n\"x\": {" body "}}}\n"

static char *allowed[] = {"docker.io", "127.0.0.1:5000", NULL};
static char *roots[] = {"/srv/data", "/srv/engine", "/run", NULL};
static char *runtimes[] = {"runsc", NULL};
static const struct conf conf = {
        .path = "/etc/bulkhead/bulkhead.conf",
        .allowed_registries = allowed,
        .mount_roots = roots,
        .runtimes = runtimes,
        .max_servers = 3,
        .engine_socket = "/srv/engine/engine.sock",
};

static struct registry *parse(const char *text)
{
        struct registry *r = NULL;
        _cleanup_err_ struct err *err = NULL;

        assert_ok(registry_parse(&r, text, strlen(text), "f.json", &conf, &err));
        return r;
}

static void refused(const char *text, const char *place, const char *reason)
{
        struct registry *r = NULL;
        struct err *err = NULL;
        _cleanup_free_ char *start = mem_printf("f.json:%s: ", place);

        assert_int_equal(registry_parse(&r, text, strlen(text), "f.json", &conf, &err), -1);
        assert_null(r);
        if (!str_has_prefix(err_msg(err), start) || !strstr(err_msg(err), reason))
                print_error("expected %s … %s\nin: %s\nfor: %s\n", start, reason, err_msg(err), text);
        assert_true(str_has_prefix(err_msg(err), start));
        assert_non_null(strstr(err_msg(err), reason));
        err_free(err);
}

struct bad {
        const char *text, *place, *reason;
};

static void refuse_all(const struct bad *cases, size_t n)
{
        for (size_t i = 0; i < n; i++)
                refused(cases[i].text, cases[i].place, cases[i].reason);
}

/* -- what is read --------------------------------------------------------------------------------------------------------- */

static const char full[] =
        "{\"$schema\": \"./mcp.servers.schema.json\", \"version\": \"1.0\",\n"
        " \"discovery_order\": [\"toolhive_gateway\", \"mcp.servers.json\"],\n"
        " \"servers\": {\n"
        "  \"zeta\": {" BASE "},\n"
        "  \"web-1\": {\"description\": \"a\", \"enabled\": false, \"source\": \"docker_image\", \"image\": "
        "\"docker.io/library/a@sha256:" HEX "\",\n"
        "    \"transport\": \"streamable-http\", \"port\": 3001, \"path\": \"/x/mcp\", \"headers\": {\"X-A\": \"b\"},\n"
        "    \"entrypoint\": [\"/bin/server\"], \"args\": [\"--a\", \"b\"], \"env\": {\"B\": \"2\", \"A\": \"\"}, \"secrets\": [\"T2\", "
        "\"T1\"],\n"
        "    \"tools\": {\"make\": {\"secrets\": [\"T1\"], \"action\": \"write\"}},\n"
        "    \"egress\": [{\"cidr\": \"192.0.2.0/24\", \"ports\": [5432, 443]}, {\"cidr\": \"0.0.0.0/0\", \"protocol\": \"any\"},\n"
        "               {\"cidr\": \"198.51.100.7/32\", \"protocol\": \"udp\", \"ports\": [53]}],\n"
        "    \"mounts\": [{\"source\": \"/srv/data/a\", \"target\": \"/data\", \"writable\": true}, {\"source\": \"/srv/data\", "
        "\"target\": \"/ro\"}],\n"
        "    \"user\": \"1000:100\", \"runtime\": \"runsc\", \"sysctls\": {\"net.core.somaxconn\": \"64\"},\n"
        "    \"resources\": {\"memory\": \"1g\", \"cpus\": 1.25, \"pids\": 64, \"tmpfs\": \"8m\"}, \"lifecycle\": \"on-demand\",\n"
        "    \"idle_timeout\": \"90s\", \"prefix\": \"w\", \"sharing\": \"per-session\", \"smoke_test\": {\"call\": {\"tool\": \"t\", "
        "\"arguments\": {\"a\": 1}}}}\n"
        " }}\n";

static void reads_everything(_unused_ void **state)
{
        _cleanup_(registry_freep) struct registry *r = parse(full);
        const struct registry_entry *e = registry_find(r, "web-1");

        assert_int_equal(r->n_entries, 2);
        assert_string_equal(r->entries[0]->name, "web-1");
        assert_ptr_equal(registry_find(r, "zeta"), r->entries[1]);
        assert_null(registry_find(r, "zet"));
        assert_false(e->enabled);
        assert_int_equal(e->line, 5);
        assert_int_equal(e->transport, TRANSPORT_STREAMABLE_HTTP);
        assert_int_equal(e->port, 3001);
        assert_string_equal(e->path, "/x/mcp");
        assert_string_equal(e->entrypoint[0], "/bin/server");
        assert_int_equal(strv_len(e->args), 2);
        assert_int_equal(e->n_env, 2);
        assert_string_equal(e->env[0].name, "A");
        assert_string_equal(e->env[0].value, "");
        assert_string_equal(e->secrets[0], "T1");
        assert_string_equal(e->headers[0], "X-A: b");
        assert_null(e->headers[1]);
        assert_string_equal(e->actions[0], "write make");
        assert_null(e->actions[1]);
        assert_int_equal(e->n_mounts, 2);
        assert_true(e->mounts[0].writable);
        assert_false(e->mounts[1].writable);
        assert_string_equal(e->user, "1000:100");
        assert_string_equal(e->runtime, "runsc");
        assert_string_equal(e->sysctls[0].value, "64");
        assert_int_equal(e->memory, 1 << 30);
        assert_int_equal(e->nano_cpus, 1250000000);
        assert_int_equal(e->pids, 64);
        assert_int_equal(e->tmpfs, 8 << 20);
        assert_int_equal(e->lifecycle, LIFECYCLE_ON_DEMAND);
        assert_int_equal(e->idle_timeout_ms, 90000);
        assert_string_equal(e->prefix, "w");
        assert_int_equal(e->sharing, SHARING_PER_SESSION);
        assert_string_equal(json_str(e->smoke_call, "tool"), "t");
}

static void reads_egress(_unused_ void **state)
{
        _cleanup_(registry_freep) struct registry *r = parse(full);
        const struct registry_entry *e = registry_find(r, "web-1");
        static const char *const texts[] = {"tcp 192.0.2.0/24:443,5432", "any 0.0.0.0/0", "udp 198.51.100.7/32:53"};

        assert_int_equal(e->n_egress, 3);
        for (size_t i = 0; i < 3; i++) {
                _cleanup_free_ char *text = egress_rule_text(&e->egress[i]);
                assert_string_equal(text, texts[i]);
        }
}

static void has_safe_defaults(_unused_ void **state)
{
        _cleanup_(registry_freep) struct registry *r = parse(full);
        const struct registry_entry *e = registry_find(r, "zeta");

        assert_true(e->enabled);
        assert_string_equal(e->user, "65532:65532");
        assert_int_equal(e->memory, 256 << 20);
        assert_int_equal(e->nano_cpus, 500000000);
        assert_int_equal(e->pids, 128);
        assert_int_equal(e->tmpfs, 64 << 20);
        assert_int_equal(e->n_egress + e->n_mounts + e->n_env + e->n_sysctls, 0);
        assert_null(e->secrets);
        assert_null(e->entrypoint);
        assert_null(e->args);
        assert_null(e->runtime);
        assert_int_equal(e->lifecycle, LIFECYCLE_ALWAYS_ON);
        assert_null(e->prefix);
        assert_int_equal(e->sharing, SHARING_SHARED);
}

#define HTTP_BASE "\"source\": \"docker_image\", \"image\": \"" IMG "\", \"transport\": \"sse\", \"port\": 80"

static void reads_sharing_and_prefix(_unused_ void **state)
{
        static const struct {
                const char *keys, *prefix;
                enum sharing sharing;
        } cases[] = {
                {BASE, NULL, SHARING_SHARED},
                {BASE ", \"sharing\": \"shared\", \"prefix\": \"\"", "", SHARING_SHARED},
                {BASE ", \"sharing\": \"per-session\", \"idle_timeout\": \"1m\"", NULL, SHARING_PER_SESSION},
                {HTTP_BASE, NULL, SHARING_PER_SESSION},
                {HTTP_BASE ", \"sharing\": \"shared\", \"prefix\": \"A-b.c_9\"", "A-b.c_9", SHARING_SHARED},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *text = mem_printf(ENTRY("%s"), cases[i].keys);
                _cleanup_(registry_freep) struct registry *r = parse(text);

                assert_int_equal(r->entries[0]->sharing, cases[i].sharing);
                assert_true(str_eq(r->entries[0]->prefix, cases[i].prefix));
        }
}

static void hash_of(char out[SHA256_HEX], const char *keys)
{
        _cleanup_free_ char *text = mem_printf("{\"version\": \"1.0\", \"servers\": {\"x\": {%s}}}", keys);
        _cleanup_(registry_freep) struct registry *r = parse(text);

        memcpy(out, r->entries[0]->entry_sha256, SHA256_HEX);
}

static void hash_covers_what_is_approved(_unused_ void **state)
{
        char plain[SHA256_HEX], other[SHA256_HEX];

        hash_of(plain, BASE);
        assert_true(str_is_hex(plain, 64));
        hash_of(other, "\"transport\": \"stdio\", \"enabled\": false, \"description\": \"d\", \"image\": \"" IMG
                       "\", \"source\": \"docker_image\"");
        assert_string_equal(plain, other);
        hash_of(other, BASE ", \"prefix\": \"p\"");
        assert_string_not_equal(plain, other);
        hash_of(other, BASE ", \"egress\": [{\"cidr\": \"192.0.2.0/24\", \"ports\": [1]}]");
        assert_string_not_equal(plain, other);
}

/* -- what is refused ------------------------------------------------------------------------------------------------------ */

static void refuses_bad_documents(_unused_ void **state)
{
        static const struct bad cases[] = {
                {"", "1:1", ""},
                {"[]", "1:1", "is an array; write an object"},
                {"{\"version\": \"1.0\"}", "1:1", "the key \"servers\" is missing"},
                {"{\"servers\": {}}", "1:1", "the key \"version\" is missing"},
                {"{\"version\": \"2.0\", \"servers\": {}}", "1:2", "version: \"2.0\" is not known here; write one of \"1.0\""},
                {"{\"version\": 1, \"servers\": {}}", "1:2", "version: is a number; write a string"},
                {"{\"version\": \"1.0\",\n \"servers\": []}", "2:2", "servers: is not an object"},
                {"{\"version\": \"1.0\",\n \"servers\": {},\n \"extra\": 1}", "3:2", "extra: unknown key; remove it or correct"},
                {"{\"version\": \"1.0\",\n \"mcpServers\": {}}", "2:2", "bring the file in with bulkhead import"},
                {"{\"version\": \"1.0\", \"servers\": {},\n \"servers\": {}}", "2:2", "servers"},
                {"{\"version\": \"1.0\", \"servers\": {},\n \"discovery_order\": [\"x\"]}", "2:22",
                 "discovery_order[0]: \"x\" is not known here"},
                {"{\"version\": \"1.0\", \"servers\": {},\n \"discovery_order\": [\"cursor_config\",\n\"cursor_config\"]}", "3:1",
                 "stands here twice"},
                {"{\"version\": \"1.0\", \"servers\": {},}", "1:34", ""},
                {"{\"version\": \"1.0\", \"servers\": {}} x", "1:35", ""},
                {"{\"version\": \"1.0\\u0000\", \"servers\": {}}", "1:17", ""},
                {"{\"version\": \"1.0\", \"servers\": {\"a\xff\": {}}}", "1:33", "UTF-8"},
                {"{\"version\": \"1.0\", \"servers\": {\"a\\ud800\": {}}}", "1:34", ""},
        };

        refuse_all(cases, ELEMENTSOF(cases));
}

static void refuses_bad_names(_unused_ void **state)
{
        static const char *const names[] = {
                "",         "A", "a_b", "a.b", "../x", "a/b", "x y", "\\u002e\\u002e", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                "a\\u0301", "~"};

        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                _cleanup_free_ char *text = mem_printf("{\"version\": \"1.0\", \"servers\": {\n\"%s\": {" BASE "}}}", names[i]);
                refused(text, "2:1", "is not a server name");
        }
        assert_true(registry_name_valid("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
        assert_false(registry_name_valid("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
}

static void refuses_bad_entries(_unused_ void **state)
{
        static const struct bad cases[] = {
                {ENTRY(""), "2:1", "servers.x: the key \"transport\" is missing"},
                {ENTRY("\"transport\": \"stdio\""), "2:1", "the key \"source\" is missing"},
                {ENTRY("\"transport\": \"stdio\", \"source\": \"docker_image\""), "2:1", "the key \"image\" is missing"},
                {ENTRY("\"transport\": \"pigeon\""), "2:7", "transport: \"pigeon\" is not known here"},
                {DOC("\"image\": \"a\""), "3:3", "image"},
                {DOC("\"nonsense\": 1"), "3:3", "servers.x.nonsense: unknown key"},
                {DOC("\"description\": \"a\\u0007\""), "3:3", "description: control characters are not allowed"},
                {DOC("\"description\": \"a\\u0085\""), "3:3", "control characters"},
                {DOC("\"env\": {\"A\": \"b\\u001b[0m\"}"), "3:11", "env.A: control characters"},
                {DOC("\"tools\": {\"a\\u0001\": {}}"), "3:13", "control characters"},
                {DOC("\"enabled\": 1"), "3:3", "enabled: is a number; write true or false"},
                {DOC("\"enabled\": null"), "3:3", "is null"},
                {DOC("\"description\": \"\""), "3:3", "is empty"},
                {DOC("\"port\": 80"), "3:3", "goes with an HTTP transport only"},
                {DOC("\"path\": \"/a\""), "3:3", "goes with an HTTP transport only"},
                {DOC("\"headers\": {\"X y\": \"a\"}"), "3:15", "is not the name of an HTTP header"},
                {DOC("\"headers\": {\"transfer-encoding\": \"chunked\"}"), "3:15", "is a header that the gateway sets itself"},
                {DOC("\"headers\": {\"Content-Length\": \"5\"}"), "3:15", "is a header that the gateway sets itself"},
                {DOC("\"headers\": {\"accept\": \"text/html\"}"), "3:15", "is a header that the gateway sets itself"},
                {DOC("\"headers\": {\"mcp-session-id\": \"5\"}"), "3:15", "one of the protocol's headers"},
                {DOC("\"headers\": {\"authorization\": \"Bearer x\"}"), "3:15", "is a credential"},
                {DOC("\"headers\": {\"X-A\": \"\"}"), "3:15", "is not the value of an HTTP header"},
                {DOC("\"headers\": {\"X-A\": \"b \"}"), "3:15", "is not the value of an HTTP header"},
                {DOC("\"headers\": {\"X-A\": \"\\u00e9\"}"), "3:15", "is not the value of an HTTP header"},
                {DOC("\"headers\": {\"X-A\": \"b\", \"x-a\": \"c\"}"), "3:27", "in another spelling"},
                {DOC("\"url\": \"https://a\""), "3:3", "does not go with source docker_image"},
                {DOC("\"idle_timeout\": \"10m\""), "3:3", "goes with lifecycle \"on-demand\" only"},
                {DOC("\"lifecycle\": \"sometimes\""), "3:3", "write one of \"always-on\", \"on-demand\""},
                {DOC("\"lifecycle\": \"on-demand\", \"idle_timeout\": \"10\""), "3:29", "is not a duration"},
                {DOC("\"lifecycle\": \"on-demand\", \"idle_timeout\": \"9d\""), "3:29", "is out of range"},
                {DOC("\"lifecycle\": \"on-demand\", \"idle_timeout\": 10"), "3:29", "is a number; write a string"},
                {DOC("\"entrypoint\": \"/bin/sh\""), "3:3", "is a string; write an array"},
                {DOC("\"args\": []"), "3:3", "is empty; write at least one item"},
                {DOC("\"args\": [\"a\", 1]"), "3:17", "args[1]: is a number"},
                {DOC("\"user\": \"root\""), "3:3", "is not \"uid:gid\" in numbers"},
                {DOC("\"user\": \"0\""), "3:3", "is not \"uid:gid\""},
                {DOC("\"user\": \"1:2:3\""), "3:3", "is not \"uid:gid\""},
                {DOC("\"user\": \"01:1\""), "3:3", "is not \"uid:gid\""},
                {DOC("\"user\": \"9999999999:1\""), "3:3", "is not \"uid:gid\""},
                {DOC("\"runtime\": \"kata\""), "3:3", "the runtime \"kata\" is not allowed on this host; an administrator"},
                {DOC("\"sharing\": \"all\""), "3:3", "write one of \"shared\", \"per-session\""},
                {DOC("\"prefix\": \"a b\""), "3:3", "is not a prefix"},
                {DOC("\"prefix\": \"a/\""), "3:3", "is not a prefix"},
                {DOC("\"prefix\": \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\""), "3:3", "at most 40"},
                {DOC("\"prefix\": null"), "3:3", "is null"},
                {DOC("\"sysctls\": {\"kernel.shmmax\": \"1\"}"), "3:15", "this kernel setting is not allowed"},
                {DOC("\"sysctls\": {\"net.ipv6.conf.all.disable_ipv6\": \"0\"}"), "3:15", "this kernel setting is not allowed"},
                {DOC("\"sysctls\": {\"net.core.somaxconn\": \"a\"}"), "3:15", "is not a number"},
                {DOC("\"smoke_test\": {\"call\": {}}"), "3:18", "the key \"tool\" is missing"},
                {DOC("\"smoke_test\": {\"call\": {\"tool\": \"t\", \"arguments\": []}}"), "3:40", "is not an object"},
                {DOC("\"tools\": {\"t\": {\"action\": \"fly\"}}"), "3:19", "write one of \"read\""},
                {DOC("\"tools\": {\"t\": {\"secrets\": [\"S\"]}}"), "3:31", "is not among the server's secrets"},
                {ENTRY("\"source\": \"docker_image\", \"image\": \"" IMG "\", \"transport\": \"sse\""), "2:1",
                 "the key \"port\" is missing"},
        };

        refuse_all(cases, ELEMENTSOF(cases));
}

/* Which of two servers a tool belongs to must be told by its name. */
static void refuses_the_same_prefix(_unused_ void **state)
{
        static const struct bad cases[] = {
                {"{\"version\": \"1.0\", \"servers\": {\n\"a\": {" BASE ",\n\"prefix\": \"p\"},\n\"b\": {" BASE ",\n\"prefix\": \"p\"}}}",
                 "5:1", "servers.b.prefix: \"p\" is also the prefix of the server \"a\""},
                {"{\"version\": \"1.0\", \"servers\": {\n\"b\": {" BASE ",\n\"prefix\": \"\"},\n\"a\": {" BASE ",\n\"prefix\": \"\"}}}",
                 "5:1", "servers.a.prefix: \"\" is also the prefix of the server \"b\""},
                /* Written against implied: the one that wrote it can mend it. */
                {"{\"version\": \"1.0\", \"servers\": {\n\"a\": {" BASE ",\n\"prefix\": \"b__\"},\n\"b\": {" BASE
                 ",\n\"enabled\": false}}}",
                 "3:1", "servers.a.prefix: \"b__\" is also the prefix of the server \"b\""},
        };

        refuse_all(cases, ELEMENTSOF(cases));
        registry_free(parse("{\"version\": \"1.0\", \"servers\": {\"a\": {" BASE ", \"prefix\": \"a\"}, \"b\": {" BASE "}, \"c\": {" BASE
                            ", \"prefix\": \"\"}}}"));
}

static void refuses_bad_numbers(_unused_ void **state)
{
        static const struct bad cases[] = {
                {DOC("\"resources\": {\"memory\": \"1k\"}"), "3:17", "is out of range"},
                {DOC("\"resources\": {\"memory\": \"256M\"}"), "3:17", "is not a size"},
                {DOC("\"resources\": {\"memory\": 256}"), "3:17", "is a number; write a string"},
                {DOC("\"resources\": {\"memory\": \"99999999999999999999g\"}"), "3:17", "is not a size"},
                {DOC("\"resources\": {\"cpus\": 0}"), "3:17", "is out of range"},
                {DOC("\"resources\": {\"cpus\": -1}"), "3:17", "is out of range"},
                {DOC("\"resources\": {\"cpus\": 1e300}"), "3:17", "is out of range"},
                {DOC("\"resources\": {\"cpus\": 0.123}"), "3:17", "more than two decimals"},
                {DOC("\"resources\": {\"cpus\": \"1\"}"), "3:17", "is not a number"},
                {DOC("\"resources\": {\"pids\": 1.5}"), "3:17", "is not a whole number"},
                {DOC("\"resources\": {\"pids\": 0}"), "3:17", "0 is out of range"},
                {DOC("\"resources\": {\"pids\": 18446744073709551616}"), "3:25", ""},
                {DOC("\"resources\": {\"pids\": 9007199254740993}"), "3:25", ""},
                {DOC("\"resources\": {\"disk\": 1}"), "3:17", "unknown key"},
                {DOC("\"resources\": {\"tmpfs\": \"512m\"}"), "3:17", "tmpfs is larger than memory"},
        };

        refuse_all(cases, ELEMENTSOF(cases));
}

static void refuses_bad_images(_unused_ void **state)
{
        static const struct {
                const char *image, *reason;
        } cases[] = {
                {"docker.io/library/a:latest", "has no digest; a tag can be moved"},
                {"docker.io/library/a@sha256:12", "64 lower-case hex digits"},
                {"docker.io/library/a@sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef", "64 lower-case hex digits"},
                {"docker.io/library/a@sha512:" HEX, "is not sha256:"},
                {"docker.io/library/a@sha256:" HEX "@sha256:" HEX, "is not sha256:"},
                {"a@sha256:" HEX, "does not name its registry"},
                {"library/a@sha256:" HEX, "does not name its registry"},
                {"quay.io/a/b@sha256:" HEX, "the registry \"quay.io\" is not allowed on this host; an administrator"},
                {"127.0.0.1:5001/a@sha256:" HEX, "is not allowed on this host"},
                {"127.0.0.1/a@sha256:" HEX, "is not allowed on this host"},
                {"DOCKER.IO/a@sha256:" HEX, "does not name its registry"},
                {"docker.io:/a@sha256:" HEX, "does not name its registry"},
                {"docker.io/@sha256:" HEX, "is not valid"},
                {"docker.io/A@sha256:" HEX, "is not valid"},
                {"docker.io/a/../b@sha256:" HEX, "is not valid"},
                {"docker.io/a//b@sha256:" HEX, "is not valid"},
                {"docker.io/a/@sha256:" HEX, "is not valid"},
                {"docker.io/a___b@sha256:" HEX, "is not valid"},
                {"docker.io/a._b@sha256:" HEX, "is not valid"},
                {"docker.io/a-_b@sha256:" HEX, "is not valid"},
                {"docker.io/a?x=1@sha256:" HEX, "is not valid"},
                {"docker.io/a:@sha256:" HEX, "the tag is not valid"},
                {"docker.io/a:-x@sha256:" HEX, "the tag is not valid"},
                {"docker.io/a:x/y@sha256:" HEX, "the tag is not valid"},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *text = mem_printf("{\"version\": \"1.0\", \"servers\": {\n\"x\": {\"source\": \"docker_image\", "
                                                       "\"transport\": \"stdio\",\n \"image\": \"%s\"}}}",
                                                       cases[i].image);
                refused(text, "3:2", cases[i].reason);
        }
        registry_free(parse(ENTRY(
                "\"source\": \"docker_image\", \"transport\": \"stdio\", \"image\": \"docker.io/a-b__c.d/e--f:V1_2.3-x@sha256:" HEX "\"")));
}

static void refuses_bad_egress(_unused_ void **state)
{
        static const struct {
                const char *rule, *column, *reason;
        } cases[] = {
                {"1", "3:14", "egress[0]: is a number"},
                {"{}", "3:14", "needs exactly one of \"cidr\" and \"host\""},
                {"{\"cidr\": \"192.0.2.0/24\", \"host\": \"a.b\", \"ports\": [1]}", "3:14", "exactly one"},
                {"{\"cidr\": \"192.0.2.0/24\"}", "3:14", "the key \"ports\" is missing"},
                {"{\"cidr\": \"192.0.2.0/24\", \"ports\": []}", "3:39", "is empty"},
                {"{\"cidr\": \"192.0.2.0/24\", \"ports\": [0]}", "3:49", "ports[0]: 0 is out of range"},
                {"{\"cidr\": \"192.0.2.0/24\", \"ports\": [65536]}", "3:49", "is out of range"},
                {"{\"cidr\": \"192.0.2.0/24\", \"ports\": [\"443\"]}", "3:49", "is a string"},
                {"{\"cidr\": \"192.0.2.0/24\", \"ports\": [1, 1]}", "3:52", "stands here twice"},
                {"{\"cidr\": \"192.0.2.0/24\", \"ports\": [1], \"protocol\": \"any\"}", "3:14", "protocol \"any\" has no ports"},
                {"{\"cidr\": \"192.0.2.0/24\", \"ports\": [1], \"protocol\": \"sctp\"}", "3:53", "write one of \"tcp\", \"udp\", \"any\""},
                {"{\"cidr\": \"192.0.2.1/24\", \"ports\": [1]}", "3:15", "write 192.0.2.0/24 for the network"},
                {"{\"cidr\": \"192.0.2.1\", \"ports\": [1]}", "3:15", "has no prefix length"},
                {"{\"cidr\": \"192.0.2.0/33\", \"ports\": [1]}", "3:15", "is not an IPv4 network"},
                {"{\"cidr\": \"192.0.2.0/\", \"ports\": [1]}", "3:15", "is not an IPv4 network"},
                {"{\"cidr\": \"192.0.2.0/024\", \"ports\": [1]}", "3:15", "is not an IPv4 network"},
                {"{\"cidr\": \"192.0.02.0/24\", \"ports\": [1]}", "3:15", "is not an IPv4 network"},
                {"{\"cidr\": \"192.0.2/24\", \"ports\": [1]}", "3:15", "is not an IPv4 network"},
                {"{\"cidr\": \"192.0.2.0.0/24\", \"ports\": [1]}", "3:15", "is not an IPv4 network"},
                {"{\"cidr\": \"0x7f.0.0.0/8\", \"ports\": [1]}", "3:15", "is not an IPv4 network"},
                {"{\"cidr\": \" 192.0.2.0/24\", \"ports\": [1]}", "3:15", "is not an IPv4 network"},
                {"{\"cidr\": \"2001:db8::/32\", \"ports\": [1]}", "3:15", "IPv6 allow-lists are not supported yet"},
                {"{\"cidr\": \"2001:db8::1/32\", \"ports\": [1]}", "3:15", "no bits set behind the prefix"},
                {"{\"cidr\": \"2001:zz::/32\", \"ports\": [1]}", "3:15", "is not a network"},
                {"{\"host\": \"api.example.org\", \"ports\": [443]}", "3:15",
                 "host names are not supported yet, they come with the resolver"},
                {"{\"host\": \"*.example.org\", \"ports\": [443]}", "3:15", "not supported yet"},
                {"{\"host\": \"192.0.2.1\", \"ports\": [443]}", "3:15", "is not a host name"},
                {"{\"host\": \"localhost\", \"ports\": [443]}", "3:15", "is not a host name"},
                {"{\"host\": \"A.example\", \"ports\": [443]}", "3:15", "is not a host name"},
                {"{\"host\": \"a..example\", \"ports\": [443]}", "3:15", "is not a host name"},
                {"{\"host\": \"*.*.example\", \"ports\": [443]}", "3:15", "is not a host name"},
                {"{\"to\": \"x\"}", "3:15", "unknown key"},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *text = mem_printf(DOC("\"egress\": [%s]"), cases[i].rule);
                refused(text, cases[i].column, cases[i].reason);
        }
}

static void refuses_bad_mounts(_unused_ void **state)
{
        static const struct {
                const char *source, *target, *column, *reason;
        } cases[] = {
                {"/srv/other", "/data", "3:15", "lies under no directory that this host allows; an administrator"},
                {"/srv/data2", "/data", "3:15", "lies under no directory"},
                {"/srv/data/../../etc", "/data", "3:15", "is not a plain absolute path"},
                {"/srv/data/./a", "/data", "3:15", "is not a plain absolute path"},
                {"/srv/data//a", "/data", "3:15", "is not a plain absolute path"},
                {"/srv/data/", "/data", "3:15", "is not a plain absolute path"},
                {"srv/data", "/data", "3:15", "is not a plain absolute path"},
                {"/", "/data", "3:15", "is not a plain absolute path"},
                {"/run/docker.sock", "/data", "3:15", "gives access to a container engine"},
                {"/run", "/data", "3:15", "gives access to a container engine"},
                {"/run/user/1000/podman/podman.sock", "/data", "3:15", "gives access to a container engine"},
                {"/srv/engine/engine.sock", "/data", "3:15", "gives access to a container engine"},
                {"/srv/engine", "/data", "3:15", "gives access to a container engine"},
                {"/srv/data/a", "/", "3:40", "is not a plain absolute path"},
                {"/srv/data/a", "/proc", "3:40", "would cover /proc"},
                {"/srv/data/a", "/dev/shm", "3:40", "would cover /dev"},
                {"/srv/data/a", "/etc", "3:40", "would cover /etc/hosts"},
                {"/srv/data/a", "/tmp/x", "3:40", "would cover /tmp"},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *text =
                        mem_printf(DOC("\"mounts\": [{\"source\": \"%s\", \"target\": \"%s\"}]"), cases[i].source, cases[i].target);
                refused(text, cases[i].column, cases[i].reason);
        }
        refused(DOC("\"mounts\": [{\"target\": \"/data\"}]"), "3:14", "the key \"source\" is missing");
        refused(DOC("\"mounts\": [{\"source\": \"/srv/data/a\", \"target\": \"/d\"}, {\"source\": \"/srv/data/b\", \"target\": \"/d/e\"}]"),
                "3:57", "lies in another mount's target");
        refused(DOC("\"mounts\": [{\"source\": \"/srv/data/a\", \"target\": \"/d\", \"read_only\": false}]"), "3:56", "unknown key");
}

/* What a server may write is no place for another mount: it could put a link there. */
static void keeps_mounts_apart(_unused_ void **state)
{
        static const char form[] = "{\"version\": \"1.0\", \"servers\": {\n"
                                   "\"a\": {" BASE ", \"mounts\": [{\"source\": \"/srv/data/a\", \"target\": \"/x\", \"writable\": %s}]},\n"
                                   "\"b\": {" BASE ", \"mounts\": [\n{\"source\": \"%s\", \"target\": \"/x\"}]}}}";
        static const struct {
                const char *writable, *source;
                bool refused;
        } cases[] = {{"true", "/srv/data/a/b", true}, {"true", "/srv/data/a/b/c/d", true}, {"true", "/srv/data/a", false},
                     {"true", "/srv/data", false},    {"true", "/srv/data/ab", false},     {"false", "/srv/data/a/b", false}};

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *text = mem_printf(form, cases[i].writable, cases[i].source);
                if (cases[i].refused)
                        refused(text, "4:2", "servers.b.mounts[0].source: lies below /srv/data/a, which a server may write");
                else
                        registry_free(parse(text));
        }
}

static void refuses_variables(_unused_ void **state)
{
        static const struct bad cases[] = {
                {DOC("\"env\": []"), "3:3", "is not an object"},
                {DOC("\"env\": {\"A\": 1}"), "3:11", "env.A: is not a string; put the value in quotes"},
                {DOC("\"env\": {\"1A\": \"\"}"), "3:11", "is not a name of a variable"},
                {DOC("\"env\": {\"A=B\": \"\"}"), "3:11", "is not a name of a variable"},
                {DOC("\"env\": {\"\": \"\"}"), "3:11", "is not a name of a variable"},
                {DOC("\"env\": {\"A\": \"1\",\n\"A\": \"2\"}"), "4:1", "A"},
                {DOC("\"secrets\": [\"a b\"]"), "3:15", "is not a name of a variable"},
                {DOC("\"secrets\": [\"A\", \"A\"]"), "3:3", "stands here twice"},
                {DOC("\"env\": {\"A\": \"1\"}, \"secrets\": [\"A\"]"), "3:11", "is also the name of a secret"},
        };

        refuse_all(cases, ELEMENTSOF(cases));
}

static void refuses_wishes(_unused_ void **state)
{
        static const char *const keys[] = {"privileged",   "cap_add",       "capabilities", "security_opt", "devices",
                                           "network_mode", "networks",      "pid",          "ipc",          "userns_mode",
                                           "uts",          "cgroup_parent", "dns",          "extra_hosts"};

        for (size_t i = 0; i < ELEMENTSOF(keys); i++) {
                _cleanup_free_ char *text = mem_printf(DOC("\"%s\": true"), keys[i]);
                refused(text, "3:3", "is never given to a server, whatever an approval says");
        }
        refused(DOC("\"ports\": [\"80:80\"]"), "3:3", "a server's ports are never published");
        refused(DOC("\"volumes\": []"), "3:3", "write \"mounts\"");
}

static void refuses_what_comes_later(_unused_ void **state)
{
        static const struct bad cases[] = {
                {ENTRY("\"transport\": \"stdio\",\n\"source\": \"npm_package\", \"package\": \"@a/b\", \"version\": \"1.0\""), "3:1",
                 "source npm_package is not supported yet"},
                {ENTRY("\"transport\": \"stdio\",\n\"source\": \"pypi_package\", \"package\": \"b\", \"version\": \"1.0\""), "3:1",
                 "source pypi_package is not supported yet"},
                {ENTRY("\"transport\": \"stdio\",\n\"source\": \"git_repo\", \"url\": \"https://a\", \"commit\": \"1\""), "3:1",
                 "source git_repo is not supported yet"},
                {ENTRY("\"transport\": \"stdio\",\n\"source\": \"npm_package\", \"version\": \"1.0\""), "2:1",
                 "the key \"package\" is missing; source npm_package needs it"},
                {ENTRY("\"transport\": \"stdio\",\n\"url\": \"https://a.example/mcp\""), "2:7", "cannot be reached by stdio"},
        };

        refuse_all(cases, ELEMENTSOF(cases));
}

static void refuses_too_much(_unused_ void **state)
{
        struct err *err = NULL;
        struct registry *r = NULL;
        _cleanup_buf_ struct buf big = {0}, deep = {0}, many = {0};

        buf_adds(&big, "{\"version\": \"1.0\", \"servers\": {}}");
        while (big.len < 10U << 20)
                buf_adds(&big, "                                                                ");
        assert_fails(registry_parse(&r, big.data, big.len, "f.json", &conf, &err), "f.json");

        buf_adds(&deep, "{\"version\": \"1.0\", \"servers\": ");
        for (int i = 0; i < 100000; i++)
                buf_addc(&deep, '[');
        assert_fails(registry_parse(&r, deep.data, deep.len, "f.json", &conf, &err), "f.json:1:");

        buf_adds(&many, "{\"version\": \"1.0\",\n\"servers\": {");
        for (int i = 0; i < 4; i++)
                buf_addf(&many, "%s\"s%d\": {" BASE "}", i ? "," : "", i);
        buf_adds(&many, "}}");
        refused(many.data, "2:1", "has 4 servers; this host allows 3");
}

/* -- entries on their own, and writing ------------------------------------------------------------------------------------ */

static void parses_one_entry(_unused_ void **state)
{
        _cleanup_(registry_freep) struct registry *r = parse(full);
        _cleanup_(registry_entry_freep) struct registry_entry *e = NULL;
        _cleanup_json_ json_object *bad = json_object_new_object();
        struct err *err = NULL;

        assert_ok(registry_entry_parse(&e, "web-1", registry_find(r, "web-1")->json, "proposal f-1", &conf, &err));
        assert_string_equal(e->entry_sha256, registry_find(r, "web-1")->entry_sha256);
        assert_int_equal(e->line, 0);
        json_add_str(bad, "transport", "stdio");
        json_add_bool(bad, "privileged", true);
        struct registry_entry *none = NULL;
        assert_fails(registry_entry_parse(&none, "a", bad, "proposal f-1", &conf, &err), "proposal f-1: servers.a.privileged: ");
        assert_fails(registry_entry_parse(&none, "A", bad, "proposal f-1", &conf, &err), "is not a server name");
        assert_fails(registry_entry_parse(&none, "a", NULL, "proposal f-1", &conf, &err), "proposal f-1: servers.a: is null");
}

struct dir {
        char path[64];
        char file[96];
};

static void make_dir(struct dir *d)
{
        strcpy(d->path, "/tmp/test_registry.XXXXXX");
        assert_non_null(mkdtemp(d->path));
        snprintf(d->file, sizeof(d->file), "%s/mcp.servers.json", d->path);
}

static void remove_dir(const struct dir *d)
{
        unlink(d->file);
        assert_int_equal(rmdir(d->path), 0); /* and so: nothing else was left in it */
}

static void put(const char *path, const char *text)
{
        _cleanup_err_ struct err *err = NULL;

        assert_ok(file_write_atomic(path, text, strlen(text), 0640, &err));
}

static char *get(const char *path)
{
        _cleanup_err_ struct err *err = NULL;
        char *text = NULL;
        size_t n;

        assert_ok(file_read(&text, &n, path, 1 << 20, FILE_ANY, &err));
        return text;
}

static void writes_one_entry(_unused_ void **state)
{
        struct dir d;
        struct err *err = NULL;
        struct stat st;
        _cleanup_(registry_freep) struct registry *r = parse(full), *after = NULL;
        json_object *entry = registry_find(r, "web-1")->json;

        make_dir(&d);
        put(d.file, "{\"servers\": {\"b\": {" BASE "}, \"a\": {" BASE "}}, \"discovery_order\": [], \"version\": \"1.0\"}");
        assert_ok(registry_write_entry(d.file, "b", entry, &conf, &err));
        assert_ok(registry_load(&after, d.file, &conf, &err));
        assert_string_equal(registry_find(after, "b")->entry_sha256, registry_find(r, "web-1")->entry_sha256);
        assert_non_null(registry_find(after, "a"));
        assert_int_equal(stat(d.file, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0640);

        _cleanup_free_ char *text = get(d.file);
        assert_true(str_has_prefix(text, "{\n  \"servers\": {\n    \"b\": {\n      \"description\": \"a\","));
        assert_true(strstr(text, "\"b\"") < strstr(text, "\"a\": {\n"));
        assert_true(strstr(text, "\"a\": {\n") < strstr(text, "\"discovery_order\": ["));
        assert_non_null(strstr(text, "\"path\": \"/x/mcp\""));

        assert_ok(registry_write_entry(d.file, "a", NULL, &conf, &err));
        assert_fails(registry_write_entry(d.file, "a", NULL, &conf, &err), "there is no server \"a\" to remove");
        remove_dir(&d);
}

static void creates_the_file(_unused_ void **state)
{
        struct dir d;
        struct err *err = NULL;
        _cleanup_(registry_freep) struct registry *r = parse(full), *after = NULL;

        make_dir(&d);
        assert_ok(registry_write_entry(d.file, "zeta", registry_find(r, "zeta")->json, &conf, &err));
        assert_ok(registry_load(&after, d.file, &conf, &err));
        assert_int_equal(after->n_entries, 1);
        remove_dir(&d);
}

static void keeps_the_file_when_unsure(_unused_ void **state)
{
        static const char before[] = "{\"version\": \"1.0\", \"servers\": {}}";
        struct dir d;
        struct err *err = NULL;
        _cleanup_(registry_freep) struct registry *r = parse(full), *none = NULL;
        _cleanup_json_ json_object *bad = json_object_new_object();
        json_object *good = registry_find(r, "zeta")->json;

        make_dir(&d);
        put(d.file, before);
        assert_fails(registry_write_entry(d.file, "a", bad, &conf, &err), "the result would not load");
        assert_fails(registry_write_entry(d.file, "../a", good, &conf, &err), "not a server name");
        _cleanup_free_ char *same = get(d.file);
        assert_string_equal(same, before);

        assert_int_equal(chmod(d.file, 0666), 0);
        assert_fails(registry_write_entry(d.file, "a", good, &conf, &err), d.file);
        assert_fails(registry_load(&none, d.file, &conf, &err), "registry: ");
        _cleanup_free_ char *still = get(d.file);
        assert_string_equal(still, before);

        put(d.file, "{\"version\": ");
        assert_fails(registry_write_entry(d.file, "a", good, &conf, &err), "mcp.servers.json:1:13");
        remove_dir(&d);
}

/* What the repository ships must load, and its example must be one. */
static void shipped_files_load(_unused_ void **state)
{
        _cleanup_(registry_freep) struct registry *r = NULL;
        _cleanup_(registry_entry_freep) struct registry_entry *e = NULL;
        _cleanup_json_ json_object *schema = NULL;
        struct err *err = NULL;
        _cleanup_free_ char *text = get(TEST_DATA "/../registry/mcp.servers.json"),
                            *schema_text = get(TEST_DATA "/../registry/mcp.servers.schema.json");

        assert_ok(registry_parse(&r, text, strlen(text), "mcp.servers.json", &conf, &err));
        assert_ok(json_parse(&schema, schema_text, strlen(schema_text), "mcp.servers.schema.json", NULL, &err));
        json_object *examples = json_get(schema, "examples");
        assert_true(json_object_array_length(examples) >= 1);
        for (size_t i = 0; i < json_object_array_length(examples); i++) {
                const char *example = json_object_to_json_string(json_object_array_get_idx(examples, i));
                _cleanup_(registry_freep) struct registry *x = NULL;
                assert_ok(registry_parse(&x, example, strlen(example), "example", &conf, &err));
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(reads_everything),
                cmocka_unit_test(reads_egress),
                cmocka_unit_test(has_safe_defaults),
                cmocka_unit_test(reads_sharing_and_prefix),
                cmocka_unit_test(hash_covers_what_is_approved),
                cmocka_unit_test(refuses_bad_documents),
                cmocka_unit_test(refuses_bad_names),
                cmocka_unit_test(refuses_bad_entries),
                cmocka_unit_test(refuses_the_same_prefix),
                cmocka_unit_test(refuses_bad_numbers),
                cmocka_unit_test(refuses_bad_images),
                cmocka_unit_test(refuses_bad_egress),
                cmocka_unit_test(refuses_bad_mounts),
                cmocka_unit_test(keeps_mounts_apart),
                cmocka_unit_test(refuses_variables),
                cmocka_unit_test(refuses_wishes),
                cmocka_unit_test(refuses_what_comes_later),
                cmocka_unit_test(refuses_too_much),
                cmocka_unit_test(parses_one_entry),
                cmocka_unit_test(writes_one_entry),
                cmocka_unit_test(creates_the_file),
                cmocka_unit_test(keeps_the_file_when_unsure),
                cmocka_unit_test(shipped_files_load),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
