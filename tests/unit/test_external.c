/* Entries of external servers: what a URL may say, what may stand beside it, and that none takes another server's names. */
#include "tests/unit/test.h"

#include "common/registry/registry.h"
#include "common/spec/spec.h"

#define HEX   "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define LOCAL "\"source\": \"docker_image\", \"image\": \"127.0.0.1:5000/a@sha256:" HEX "\", \"transport\": \"stdio\""
#define HTTP  "\"transport\": \"streamable-http\""

static char *allowed[] = {"127.0.0.1:5000", NULL};
static struct conf_listen broker_listens[] = {{.address = "127.0.0.1", .port = 8000}, {.address = "0.0.0.0", .port = 8001}};
static const struct conf conf = {.allowed_registries = allowed,
                                 .max_servers = 10,
                                 .pool = "10.213.0.0/16",
                                 .gateway_listen = {.address = "127.0.0.1", .port = 8080},
                                 .broker_listen = {.items = broker_listens, .n = 2}};

static int parse(struct registry **ret, const char *servers, struct err **err)
{
        _cleanup_free_ char *text = mem_printf("{\"version\": \"1.0\", \"servers\": {%s}}", servers);

        return registry_parse(ret, text, strlen(text), "f.json", &conf, err);
}

/* One entry with this url, and more keys ("" = none). */
static int parse_url(struct registry **ret, const char *url, const char *more, struct err **err)
{
        _cleanup_free_ char *text = mem_printf("\"x\": {" HTTP ", \"url\": \"%s\"%s}", url, more);

        return parse(ret, text, err);
}

static void reads_a_url(_unused_ void **state)
{
        static const struct {
                const char *url, *whole, *address, *path;
                uint16_t port;
        } cases[] = {
                {"http://127.0.0.1:4483/mcp", "http://127.0.0.1:4483/mcp", "127.0.0.1", "/mcp", 4483},
                {"http://10.1.2.3/", "http://10.1.2.3:80/", "10.1.2.3", "/", 80},
                {"http://10.1.2.3:80/", "http://10.1.2.3:80/", "10.1.2.3", "/", 80},
                {"http://172.16.0.1:1/a/b-c_d~e.f", "http://172.16.0.1:1/a/b-c_d~e.f", "172.16.0.1", "/a/b-c_d~e.f", 1},
                {"http://172.31.255.255:65535/mcp", "http://172.31.255.255:65535/mcp", "172.31.255.255", "/mcp", 65535},
                {"http://192.168.0.9:8080/sse", "http://192.168.0.9:8080/sse", "192.168.0.9", "/sse", 8080},
                {"http://127.0.0.2:8080/mcp", "http://127.0.0.2:8080/mcp", "127.0.0.2", "/mcp", 8080},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(registry_freep) struct registry *r = NULL;
                _cleanup_err_ struct err *err = NULL;

                assert_ok(parse_url(&r, cases[i].url, "", &err));
                const struct registry_entry *e = registry_find(r, "x");
                assert_int_equal(e->source, SOURCE_URL);
                assert_string_equal(e->url, cases[i].whole);
                assert_string_equal(e->address, cases[i].address);
                assert_string_equal(e->path, cases[i].path);
                assert_int_equal(e->port, cases[i].port);
                assert_int_equal(e->sharing, SHARING_PER_SESSION);
                assert_null(e->image);
        }
}

static void refuses_other_places(_unused_ void **state)
{
        static const char *const cases[][2] = {
                {"ftp://127.0.0.1/mcp", "or http://ADDRESS:PORT/PATH"},
                {"HTTP://127.0.0.1/mcp", "or http://ADDRESS:PORT/PATH"},
                {"HTTPS://127.0.0.1/mcp", "or http://ADDRESS:PORT/PATH"},
                {"127.0.0.1:4483/mcp", "or http://ADDRESS:PORT/PATH"},
                {"http://127.0.0.1:4483", "has no path"},
                {"http://user:word@127.0.0.1:4483/mcp", "a user or a password"},
                {"http://localhost:4483/mcp", "a name proves nothing without TLS"},
                {"http:///mcp", "no IPv4 address"},
                {"http://[::1]:4483/mcp", "no IPv4 address"},
                {"http://2130706433/mcp", "no IPv4 address"},
                {"http://127.1/mcp", "no IPv4 address"},
                {"http://0177.0.0.1/mcp", "no IPv4 address"},
                {"http://127.0.0.1:/mcp", "no port"},
                {"http://127.0.0.1:0/mcp", "no port"},
                {"http://127.0.0.1:080/mcp", "no port"},
                {"http://127.0.0.1:65536/mcp", "no port"},
                {"http://127.0.0.1:+80/mcp", "no port"},
                {"http://127.0.0.1:80/mcp?key=1", "no query"},
                {"http://127.0.0.1:80/mcp#one", "no query and no fragment"},
                {"http://127.0.0.1:80/a%2fb", "a path that is not plain"},
                {"http://127.0.0.1:80/../mcp", "a path that is not plain"},
                {"http://127.0.0.1:80//mcp", "a path that is not plain"},
                {"http://192.0.2.1/mcp", "whoever is on the way"},
                {"http://0.0.0.0:4483/mcp", "no server's"},
                {"http://169.254.169.254/mcp", "no server's"},
                {"https://0.1.2.3/mcp", "no server's"},
                {"https://169.254.169.254/mcp", "no server's"},
                {"https://224.0.0.1/mcp", "no server's"},
                {"https://255.255.255.255/mcp", "no server's"},
                {"https://127.0.0.1:8080/mcp", "own gateway listens"},
                {"https://10.213.7.2:8080/mcp", "network.pool"},
                {"https://user@a.example/mcp", "a user or a password"},
                {"https://a.example", "has no path"},
                {"https:///mcp", "no host name in lower case"},
                {"https://A.example/mcp", "no host name in lower case"},
                {"https://a..example/mcp", "no host name in lower case"},
                {"https://.a.example/mcp", "no host name in lower case"},
                {"https://a.example./mcp", "no host name in lower case"},
                {"https://-a.example/mcp", "no host name in lower case"},
                {"https://a-.example/mcp", "no host name in lower case"},
                {"https://a.example-/mcp", "no host name in lower case"},
                {"https://*.example/mcp", "no host name in lower case"},
                {"https://a_b.example/mcp", "no host name in lower case"},
                {"https://[::1]/mcp", "no host name in lower case"},
                {"https://127.1/mcp", "no host name in lower case"},
                {"https://2130706433/mcp", "no host name in lower case"},
                {"https://1.2.3.256/mcp", "no host name in lower case"},
                {"https://a.example:0/mcp", "no port"},
                {"https://a.example:443/mcp?x", "no query"},
                {"http://172.15.255.255/mcp", "whoever is on the way"},
                {"http://172.32.0.0/mcp", "whoever is on the way"},
                {"http://192.169.0.1/mcp", "whoever is on the way"},
                {"http://203.0.113.5/mcp", "whoever is on the way"},
                {"http://127.0.0.1:8080/mcp", "own gateway listens"},
                {"http://127.0.0.1:8000/mcp", "own gateway listens"},
                {"http://127.3.2.1:8001/mcp", "own gateway listens"},
                {"http://10.213.7.2:8080/mcp", "network.pool"},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(registry_freep) struct registry *r = NULL;
                _cleanup_err_ struct err *err = NULL;

                if (parse_url(&r, cases[i][0], "", &err) == 0)
                        print_error("taken: %s\n", cases[i][0]);
                assert_null(r);
                if (!strstr(err_msg(err), cases[i][1]))
                        print_error("%s: %s\n", cases[i][0], err_msg(err));
                assert_non_null(strstr(err_msg(err), cases[i][1]));
                assert_non_null(strstr(err_msg(err), "servers.x.url"));
        }
}

#define ADDRESS ", \"address\": \"203.0.113.5\""
#define PIN     "sha256//AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

static void reads_https(_unused_ void **state)
{
        static const struct {
                const char *url, *more, *whole, *host, *address;
                uint16_t port;
        } cases[] = {
                {"https://mcp.example.com/mcp", ADDRESS, "https://mcp.example.com:443/mcp", "mcp.example.com", "203.0.113.5", 443},
                {"https://a:8443/", ADDRESS, "https://a:8443/", "a", "203.0.113.5", 8443},
                {"https://1.2.3.4a/", ADDRESS, "https://1.2.3.4a:443/", "1.2.3.4a", "203.0.113.5", 443},
                {"https://xn--bcher-kva.example/m", ", \"address\": \"10.0.0.1\"", "https://xn--bcher-kva.example:443/m",
                 "xn--bcher-kva.example", "10.0.0.1", 443},
                {"https://203.0.113.7/mcp", "", "https://203.0.113.7:443/mcp", "203.0.113.7", "203.0.113.7", 443},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(registry_freep) struct registry *r = NULL;
                _cleanup_err_ struct err *err = NULL;

                assert_ok(parse_url(&r, cases[i].url, cases[i].more, &err));
                const struct registry_entry *e = registry_find(r, "x");
                assert_string_equal(e->url, cases[i].whole);
                assert_string_equal(e->tls_host, cases[i].host);
                assert_string_equal(e->address, cases[i].address);
                assert_int_equal(e->port, cases[i].port);
                assert_null(e->tls_pins);
        }
        _cleanup_(registry_freep) struct registry *r = NULL;
        _cleanup_err_ struct err *err = NULL;
        assert_ok(parse_url(&r, "https://a.example/mcp",
                            ADDRESS ", \"tls_pins\": [\"sha256//bbECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\", \"" PIN
                                    "\"], \"headers\": {\"X-A\": \"b\"}",
                            &err));
        assert_int_equal(strv_len(registry_find(r, "x")->tls_pins), 2);
        assert_string_equal(registry_find(r, "x")->tls_pins[0], PIN);
        assert_string_equal(registry_find(r, "x")->headers[0], "X-A: b");
}

static void refuses_what_does_not_go_with_it(_unused_ void **state)
{
        static const struct {
                const char *url, *more, *reason;
        } cases[] = {
                {"https://a.example/mcp", "", "\"address\" is missing; write the IPv4 address at which a.example"},
                {"https://a.example/mcp", ", \"address\": \"127.1\"", "is not an IPv4 address in numbers"},
                {"https://a.example/mcp", ", \"address\": \"::1\"", "is not an IPv4 address in numbers"},
                {"https://a.example/mcp", ", \"address\": \"a.example\"", "is not an IPv4 address in numbers"},
                {"https://a.example/mcp", ", \"address\": 1", "write a string"},
                {"https://a.example/mcp", ", \"address\": \"169.254.169.254\"", "no server's"},
                {"https://a.example/mcp", ", \"address\": \"10.213.0.2\"", "network.pool"},
                {"https://a.example:8080/mcp", ", \"address\": \"127.0.0.1\"", "own gateway listens"},
                {"https://203.0.113.5/mcp", ADDRESS, "goes with a name in the URL only"},
                {"http://127.0.0.1:1/mcp", ADDRESS, "goes with a name in the URL only"},
                {"http://127.0.0.1:1/mcp", ", \"tls_pins\": [\"" PIN "\"]", "goes with https only"},
                {"https://203.0.113.5/mcp", ", \"tls_pins\": []", "tls_pins"},
                {"https://203.0.113.5/mcp", ", \"tls_pins\": \"" PIN "\"", "tls_pins"},
                {"https://203.0.113.5/mcp", ", \"tls_pins\": [\"" HEX "\"]", "is not the hash of a public key"},
                {"https://203.0.113.5/mcp", ", \"tls_pins\": [\"sha256//AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh\"]", "is not the hash"},
                {"https://203.0.113.5/mcp", ", \"tls_pins\": [\"sha256//AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=\"]",
                 "is not the hash"},
                {"https://203.0.113.5/mcp", ", \"tls_pins\": [\"sha256//AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd;h8=\"]",
                 "is not the hash"},
                {"https://203.0.113.5/mcp", ", \"headers\": {\"Authorization\": \"b\"}", "credential"},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(registry_freep) struct registry *r = NULL;
                _cleanup_err_ struct err *err = NULL;

                if (parse_url(&r, cases[i].url, cases[i].more, &err) == 0 || !strstr(err_msg(err), cases[i].reason))
                        print_error("%s%s: %s\n", cases[i].url, cases[i].more, err ? err_msg(err) : "taken");
                assert_non_null(err);
                assert_non_null(strstr(err_msg(err), cases[i].reason));
        }
        static const char *const own[] = {ADDRESS, ", \"tls_pins\": [\"" PIN "\"]"};
        for (size_t i = 0; i < ELEMENTSOF(own); i++) {
                _cleanup_free_ char *text = mem_printf("\"x\": {" LOCAL "%s}", own[i]);
                _cleanup_(registry_freep) struct registry *r = NULL;
                _cleanup_err_ struct err *err = NULL;

                assert_fails(parse(&r, text, &err), "goes with an external server");
        }
}

static void refuses_what_only_a_container_has(_unused_ void **state)
{
        static const char *const keys[] = {"\"port\": 80",
                                           "\"path\": \"/mcp\"",
                                           "\"entrypoint\": [\"a\"]",
                                           "\"args\": [\"a\"]",
                                           "\"env\": {\"A\": \"b\"}",
                                           "\"egress\": []",
                                           "\"mounts\": []",
                                           "\"user\": \"1:1\"",
                                           "\"sysctls\": {}",
                                           "\"resources\": {}",
                                           "\"lifecycle\": \"on-demand\"",
                                           "\"idle_timeout\": \"1m\""};
        static const char *const later[] = {"\"secrets\": [\"A\"]"};

        for (size_t i = 0; i < ELEMENTSOF(keys) + ELEMENTSOF(later); i++) {
                bool is_later = i >= ELEMENTSOF(keys);
                _cleanup_free_ char *more = mem_printf(", %s", is_later ? later[i - ELEMENTSOF(keys)] : keys[i]);
                _cleanup_(registry_freep) struct registry *r = NULL;
                _cleanup_err_ struct err *err = NULL;

                /* "idle_timeout" alone has a reason of its own, which is as good. */
                assert_fails(parse_url(&r, "http://127.0.0.1:1/mcp", more, &err),
                             is_later ? "not supported for an external server yet" : "remove it");
        }
        _cleanup_(registry_freep) struct registry *r = NULL;
        _cleanup_err_ struct err *err = NULL;
        assert_ok(parse_url(&r, "http://127.0.0.1:1/mcp",
                            ", \"description\": \"a\", \"enabled\": false, \"sharing\": \"shared\", \"prefix\": \"t.\", "
                            "\"tools\": {\"a\": {\"action\": \"exec\"}}, \"smoke_test\": {\"call\": {\"tool\": \"a\"}}",
                            &err));
        assert_string_equal(registry_find(r, "x")->actions[0], "exec a");
}

/* The entry's hash is what is approved: another place, or another way to speak, is another thing. */
static void hash_covers_the_place(_unused_ void **state)
{
        _cleanup_(registry_freep) struct registry *one = NULL, *two = NULL, *same = NULL;
        _cleanup_err_ struct err *err = NULL;

        assert_ok(parse_url(&one, "http://127.0.0.1:1/mcp", "", &err));
        assert_ok(parse_url(&same, "http://127.0.0.1:1/mcp", ", \"description\": \"a\"", &err));
        assert_ok(parse_url(&two, "http://127.0.0.1:2/mcp", "", &err));
        assert_string_equal(registry_find(one, "x")->entry_sha256, registry_find(same, "x")->entry_sha256);
        assert_string_not_equal(registry_find(one, "x")->entry_sha256, registry_find(two, "x")->entry_sha256);
}

/* And what was asked of one place says nothing of another. */
static void spec_covers_the_place(_unused_ void **state)
{
        static const char *const cases[][2] = {
                {"https://a.example/mcp", ADDRESS},
                {"https://b.example/mcp", ADDRESS},
                {"https://a.example:444/mcp", ADDRESS},
                {"https://a.example/", ADDRESS},
                {"https://a.example/mcp", ", \"address\": \"203.0.113.6\""},
                {"https://a.example/mcp", ADDRESS ", \"tls_pins\": [\"" PIN "\"]"},
                {"https://a.example/mcp", ADDRESS ", \"headers\": {\"X-A\": \"b\"}"},
                {"https://203.0.113.5/mcp", ""},
                {"http://127.0.0.1/mcp", ""},
                {"http://127.0.0.1/mcp", ", \"headers\": {\"X-A\": \"b\"}"},
        };
        _cleanup_strv_ char **seen = NULL;

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(registry_freep) struct registry *r = NULL;
                _cleanup_(spec_freep) struct spec *s = NULL;
                _cleanup_err_ struct err *err = NULL;

                assert_ok(parse_url(&r, cases[i][0], cases[i][1], &err));
                assert_ok(spec_build(&s, registry_find(r, "x"), NULL, &err));
                assert_false(strv_contains(seen, s->hash));
                seen = strv_append(seen, s->hash);
        }
}

static void shadows_nobody(_unused_ void **state)
{
        static const struct {
                const char *external, *local, *reason;
        } cases[] = {
                {", \"prefix\": \"\"", "", "could take the names of other servers' tools"},
                {", \"prefix\": \"git\"", "", "begin alike"},       /* git + "hub__x" */
                {", \"prefix\": \"github__x\"", "", "begin alike"}, /* its "x" is also a neighbour's name */
                {", \"prefix\": \"github__\"", "", "is also the prefix"},
                {"", ", \"prefix\": \"\"", "begin alike"}, /* the neighbour may have an "x__y" */
                {", \"prefix\": \"hub__\"", "", NULL},
                {"", "", NULL},
                {"", ", \"prefix\": \"x_\"", "begin alike"},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *text =
                        mem_printf("\"x\": {" HTTP ", \"url\": \"http://127.0.0.1:1/mcp\"%s}, \"github\": {" LOCAL "%s}", cases[i].external,
                                   cases[i].local);
                _cleanup_(registry_freep) struct registry *r = NULL;
                _cleanup_err_ struct err *err = NULL;

                if (cases[i].reason)
                        assert_fails(parse(&r, text, &err), cases[i].reason);
                else
                        assert_ok(parse(&r, text, &err));
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(reads_a_url),
                cmocka_unit_test(reads_https),
                cmocka_unit_test(refuses_what_does_not_go_with_it),
                cmocka_unit_test(refuses_other_places),
                cmocka_unit_test(refuses_what_only_a_container_has),
                cmocka_unit_test(hash_covers_the_place),
                cmocka_unit_test(spec_covers_the_place),
                cmocka_unit_test(shadows_nobody),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
