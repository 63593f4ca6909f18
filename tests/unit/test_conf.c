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

static void test_refuses(_unused_ void **state)
{
        struct conf *c = NULL;
        struct err *err = NULL;

        assert_fails(load(&c, "registry: /x\n", &err), "\"audience\" is missing");
        assert_fails(load(&c, "audience: a\nadience: b\n", &err), "bulkhead.conf:2:1: adience: unknown key");
        assert_fails(load(&c, "audience: a\nengine:\n  sock: /x\n", &err), ":3:3: engine/sock: unknown key");
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
                cmocka_unit_test(test_defaults),
                cmocka_unit_test(test_values),
                cmocka_unit_test(test_refuses),
        };
        return cmocka_run_group_tests_name("conf", tests, setup, teardown);
}
