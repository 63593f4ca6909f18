#include "tests/unit/test.h"

#include <sys/stat.h>
#include <unistd.h>

#include "common/conf.h"
#include "common/file.h"

static char dir[] = "/tmp/bulkhead-test-XXXXXX";

static int load(struct conf **c, const char *text, struct err **err)
{
        _cleanup_free_ char *path = mem_printf("%s/bulkhead.conf", dir);

        if (file_write_atomic(path, text, strlen(text), 0644, err) < 0)
                return -1;
        return conf_load(c, path, err);
}

static void test_defaults(_unused_ void **state)
{
        _cleanup_(conf_freep) struct conf *c = NULL;
        struct err *err = NULL;

        assert_ok(load(&c, "audience: vps1.example.org\n", &err));
        assert_string_equal(c->audience, "vps1.example.org");
        assert_true(c->signatures_required);
        assert_int_equal(c->mark_bit, 0x200000);
        assert_int_equal(c->max_starts, 4);
        assert_int_equal(c->resync_ms, 30000);
        assert_int_equal(c->max_image_bytes, UINT64_C(2) << 30);
        assert_null(c->allowed_registries);
        assert_null(c->revoked_keys);
        assert_string_equal(c->link_socket, "/run/bulkhead/link/link.sock");
        assert_string_equal(c->gateway_listen.address, "127.0.0.1");
        assert_int_equal(c->gateway_listen.port, 8080);
        assert_true(c->gateway_auth);
        assert_true(c->gateway_metrics_auth);
        assert_string_equal(c->gateway_token, "/etc/bulkhead/gateway.token.sha256");
        assert_null(c->gateway_hosts);
        assert_int_equal(c->gateway_max_message, 16U << 20);
        assert_int_equal(c->gateway_call_timeout_ms, 60000);
        assert_int_equal(c->gateway_call_cap_ms, 3600000);
        assert_int_equal(c->gateway_start_timeout_ms, 60000);
        assert_int_equal(c->gateway_max_sessions, 10000);
        assert_int_equal(c->gateway_max_instances, 64);
        assert_int_equal(c->gateway_max_memory, 0);
}

static void test_values(_unused_ void **state)
{
        _cleanup_(conf_freep) struct conf *c = NULL;
        struct err *err = NULL;

        assert_ok(load(&c,
                       "audience: a\nimages:\n  registries: [docker.io, \"127.0.0.1:5000\"]\napprovals: {signatures: none}\nnetwork:\n  "
                       "mark: \"0x1\"\nmounts:\n  roots: [/srv/data]\n",
                       &err));
        assert_int_equal(strv_len(c->allowed_registries), 2);
        assert_false(c->signatures_required);
        assert_int_equal(c->mark_bit, 1);
        assert_string_equal(c->mount_roots[0], "/srv/data");
}

static void test_discovery(_unused_ void **state)
{
        _cleanup_(conf_freep) struct conf *none = NULL, *c = NULL;
        struct conf *bad = NULL;
        struct err *err = NULL;

        assert_ok(load(&none, "audience: a\n", &err));
        assert_null(none->toolhive_url);
        assert_false(none->discovery_development);
        assert_ok(load(&c, "audience: a\ndiscovery: {toolhive: \"http://127.0.0.1:4483/mcp\", mode: development}\n", &err));
        assert_string_equal(c->toolhive_url, "http://127.0.0.1:4483/mcp");
        assert_true(c->discovery_development);
        assert_fails(load(&bad, "audience: a\ndiscovery:\n  mode: yes\n", &err), "must be \"production\"");
}

static void test_gateway(_unused_ void **state)
{
        _cleanup_(conf_freep) struct conf *c = NULL;
        struct conf *bad = NULL;
        struct err *err = NULL;

        assert_ok(load(
                &c,
                "audience: a\ngateway: {listen: \"127.0.0.2:65535\", auth: none, hosts: [Tools.example.org, 192.0.2.1], max_message: 64m,"
                " max_memory: 8g}\n",
                &err));
        assert_string_equal(c->gateway_listen.address, "127.0.0.2");
        assert_int_equal(c->gateway_listen.port, 65535);
        assert_false(c->gateway_auth);
        assert_int_equal(strv_len(c->gateway_hosts), 2);
        assert_int_equal(c->gateway_max_memory, UINT64_C(8) << 30);

        /* Open to the network and to everybody: never both. */
        assert_fails(load(&bad, "audience: a\ngateway:\n  listen: 0.0.0.0:8080\n  auth: none\n", &err),
                     ":4:3: gateway/auth: \"none\" goes with");
        assert_fails(load(&bad, "audience: a\ngateway:\n  listen: 192.0.2.127:8080\n  auth: none\n", &err), "loopback address only");
        assert_fails(load(&bad, "audience: a\ngateway:\n  listen: 192.0.2.127:8080\n  metrics: none\n", &err),
                     ":4:3: gateway/metrics: \"none\" goes with");
        assert_fails(load(&bad, "audience: a\ngateway:\n  auth: maybe\n", &err), "must be \"token\"");
        static const char *const listens[] = {
                "127.0.0.1",  "127.0.0.1:", "127.0.0.1:0",   "127.0.0.1:65536", "127.0.0.1:80x",    "localhost:8080", ":8080",
                "127.1:8080", "[::1]:8080", "127.0.0.1:-80", "127.0.0.1: 8080", "127.0.0.1:000080", "1.2.3.4.5:8080"};
        for (size_t i = 0; i < ELEMENTSOF(listens); i++) {
                _cleanup_free_ char *text = mem_printf("audience: a\ngateway: {listen: \"%s\"}\n", listens[i]);
                assert_fails(load(&bad, text, &err), "must be an IPv4 address and a port");
        }
        assert_fails(load(&bad, "audience: a\ngateway: {listen: 8080}\n", &err), "must be an IPv4 address and a port");
        assert_fails(load(&bad, "audience: a\ngateway: {hosts: [\"a:80\"]}\n", &err), "without a port");
        assert_fails(load(&bad, "audience: a\ngateway: {hosts: [\"*\"]}\n", &err), "must be names of hosts");
        assert_fails(load(&bad, "audience: a\ngateway: {max_message: 65m}\n", &err), "bytes");
        assert_fails(load(&bad, "audience: a\ngateway: {max_instances: 0}\n", &err), "from 1 to");
        assert_fails(load(&bad, "audience: a\ngateway: {token: token.sha256}\n", &err), "absolute path");
        assert_null(bad);
}

static void test_gateway_token(_unused_ void **state)
{
        static const char hex[] = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        _cleanup_free_ char *path = mem_printf("%s/token", dir), *line = mem_printf("%s\n", hex), *upper = mem_strdup(hex);
        struct conf c = {.gateway_token = path};
        char out[CONF_TOKEN_HEX] = "";
        struct err *err = NULL;

        assert_fails(conf_gateway_token(out, &c, &err), "gateway.token");
        assert_ok(file_write_atomic(path, line, strlen(line), 0644, &err));
        assert_ok(conf_gateway_token(out, &c, &err));
        assert_string_equal(out, hex);
        chmod(path, 0666);
        assert_fails(conf_gateway_token(out, &c, &err), "written by others");
        upper[0] = 'F';
        upper[1] = 'F';
        const char *const bad[] = {"", "secret token\n", upper, "9f86d081884c7d65\n"};
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                assert_ok(file_write_atomic(path, bad[i], strlen(bad[i]), 0644, &err));
                assert_fails(conf_gateway_token(out, &c, &err), "64 hex digits");
        }
        unlink(path);
}

static void test_refuses(_unused_ void **state)
{
        struct conf *c = NULL;
        struct err *err = NULL;

        assert_fails(load(&c, "registry: /x\n", &err), "\"audience\" is missing");
        assert_fails(load(&c, "audience: a\nadience: b\n", &err), "bulkhead.conf:2:1: adience: unknown key");
        assert_fails(load(&c, "audience: a\nengine:\n  sock: /x\n", &err), ":3:3: engine/sock: unknown key");
        /* as messages write it, but not as the file wants it: it must not be read over */
        assert_fails(load(&c, "audience: a\ncontroller/user: nobody\n", &err), "bulkhead.conf:2:1: controller/user: unknown key");
        assert_fails(load(&c, "audience: a\napprovals: {}\napprovals/signatures: required\n", &err), "approvals/signatures: unknown key");
        assert_fails(load(&c, "audience: a b\n", &err), ":1:1: audience: must be");
        assert_fails(load(&c, "audience: a\nregistry: ../x\n", &err), "absolute path");
        assert_fails(load(&c, "audience: a\nnetwork:\n  mark: 3\n", &err), "single bit");
        assert_fails(load(&c, "audience: a\nengine: 5\n", &err), "must be a mapping");
        assert_fails(load(&c, "audience: a\ncontroller:\n  parallel_starts: 99\n", &err), "from 1 to 16");
        assert_fails(load(&c, "audience: a\nmounts:\n  roots: [/]\n", &err), "absolute paths");
        assert_fails(load(&c, "- a\n", &err), "mapping");
        _cleanup_free_ char *path = mem_printf("%s/bulkhead.conf", dir);
        chmod(path, 0666);
        assert_fails(conf_load(&c, path, &err), "written by others");
}

static int setup(_unused_ void **state)
{
        return mkdtemp(dir) ? 0 : -1;
}

static int teardown(_unused_ void **state)
{
        _cleanup_free_ char *path = mem_printf("%s/bulkhead.conf", dir);

        unlink(path);
        return rmdir(dir);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_defaults), cmocka_unit_test(test_values),        cmocka_unit_test(test_discovery),
                cmocka_unit_test(test_gateway),  cmocka_unit_test(test_gateway_token), cmocka_unit_test(test_refuses),
        };
        return cmocka_run_group_tests_name("conf", tests, setup, teardown);
}
