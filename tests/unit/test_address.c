#include "tests/unit/test.h"

#include "common/address.h"
#include "common/file.h"

static void test_takes_what_is_free(_unused_ void **state)
{
        _cleanup_(address_pool_freep) struct address_pool *p = NULL;
        struct err *err = NULL;
        char subnet[SUBNET_MAX], address[ADDRESS_MAX];

        assert_ok(address_pool_new(&p, "10.213.0.0/24", &err));
        address_pool_use(p, "10.213.0.0/29");
        address_pool_use(p, "10.213.0.16/28");
        address_pool_use(p, "192.168.0.0/16");
        address_pool_use(p, "nonsense");
        address_pool_use(p, "fd00::/64");
        assert_ok(address_pool_take(p, subnet, &err));
        assert_string_equal(subnet, "10.213.0.8/29");
        assert_ok(address_pool_take(p, subnet, &err));
        assert_string_equal(subnet, "10.213.0.32/29");
        address_of_gateway(address, subnet);
        assert_string_equal(address, "10.213.0.33");
        address_of_container(address, subnet);
        assert_string_equal(address, "10.213.0.34");
        assert_true(address_pool_owns(p, subnet));
        assert_false(address_pool_owns(p, "10.213.1.0/29"));
        assert_false(address_pool_owns(p, "10.213.0.0/28"));
}

static void test_a_larger_network_takes_all(_unused_ void **state)
{
        _cleanup_(address_pool_freep) struct address_pool *p = NULL;
        struct err *err = NULL;
        char subnet[SUBNET_MAX];

        assert_ok(address_pool_new(&p, "10.213.0.0/24", &err));
        address_pool_use(p, "10.0.0.0/8");
        assert_fails(address_pool_take(p, subnet, &err), "no free /29");
        address_pool_reset(p);
        for (int i = 0; i < 32; i++)
                assert_ok(address_pool_take(p, subnet, &err));
        assert_string_equal(subnet, "10.213.0.248/29");
        assert_fails(address_pool_take(p, subnet, &err), "no free /29");
}

static void test_refuses_bad_pools(_unused_ void **state)
{
        struct address_pool *p = NULL;
        struct err *err = NULL;

        assert_fails(address_pool_new(&p, "10.213.0.0", &err), "not an IPv4 network");
        assert_fails(address_pool_new(&p, "10.213.0.0/30", &err), "not an IPv4 network");
        assert_fails(address_pool_new(&p, "10.213.0.0/7", &err), "not an IPv4 network");
        assert_fails(address_pool_new(&p, "x/16", &err), "not an IPv4 network");
        assert_fails(address_pool_new(&p, "10.0.0.0/16x", &err), "not an IPv4 network");
}

static void test_routes(_unused_ void **state)
{
        static const char routes[] = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
                                     "eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
                                     "tun0\t0000D50A\t00000000\t0001\t0\t0\t0\t80FFFFFF\t0\t0\t0\n"
                                     "bh01234567\t8000D50A\t00000000\t0001\t0\t0\t0\tF8FFFFFF\t0\t0\t0\n";
        _cleanup_(address_pool_freep) struct address_pool *p = NULL;
        char path[] = "/tmp/bulkhead-routes-XXXXXX", subnet[SUBNET_MAX];
        struct err *err = NULL;
        int fd = mkstemp(path);

        assert_true(fd >= 0);
        assert_ok(fd_write_all(fd, routes, sizeof(routes) - 1, &err));
        close(fd);
        assert_ok(address_pool_new(&p, "10.213.0.0/24", &err));
        assert_ok(address_pool_add_routes(p, path, &err));
        unlink(path);
        /* 10.213.0.0/25 is routed to tun0; our own bridge does not count here. */
        assert_ok(address_pool_take(p, subnet, &err));
        assert_string_equal(subnet, "10.213.0.128/29");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_takes_what_is_free),
                cmocka_unit_test(test_a_larger_network_takes_all),
                cmocka_unit_test(test_refuses_bad_pools),
                cmocka_unit_test(test_routes),
        };
        return cmocka_run_group_tests_name("address", tests, NULL, NULL);
}
