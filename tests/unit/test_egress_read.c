/* What the kernel says of our rules: read in full, and what we could not have written is seen. */
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <linux/netfilter/ipset/ip_set.h>
#include <netinet/in.h>

#include "controller/egress/guard_read.h"
#include "controller/egress/nl.h"
#include "controller/egress/set_dump.h"

/* A message of the kernel about the set, as ipset's netlink protocol has it. */
struct message {
        struct buf b;
        size_t adt;
};

static void message_begin(struct message *m, const char *type, uint32_t max, bool timeout)
{
        const uint8_t family = AF_INET;
        const uint32_t value = htonl(max);

        nl_begin(&m->b, NFNL_SUBSYS_IPSET, IPSET_CMD_LIST, 0, 1, AF_INET);
        nl_put(&m->b, IPSET_ATTR_SETNAME, POLICY_SET, sizeof(POLICY_SET));
        nl_put(&m->b, IPSET_ATTR_TYPENAME, type, strlen(type) + 1);
        nl_put(&m->b, IPSET_ATTR_FAMILY, &family, 1);
        size_t data = nl_nest(&m->b, IPSET_ATTR_DATA);
        nl_put(&m->b, IPSET_ATTR_MAXELEM | NLA_F_NET_BYTEORDER, &value, sizeof(value));
        if (timeout)
                nl_put(&m->b, IPSET_ATTR_TIMEOUT | NLA_F_NET_BYTEORDER, &value, sizeof(value));
        nl_nest_end(&m->b, data);
        m->adt = nl_nest(&m->b, IPSET_ATTR_ADT);
}

static void message_entry(struct message *m, uint32_t address, uint16_t port, uint8_t protocol, uint32_t net, uint8_t prefix, bool flag)
{
        const uint32_t values[] = {htonl(address), htonl(net), htonl(4)};
        const uint16_t number = htons(port);
        const unsigned types[] = {IPSET_ATTR_IP, IPSET_ATTR_IP2};
        size_t data = nl_nest(&m->b, IPSET_ATTR_DATA);

        for (size_t i = 0; i < 2; i++) {
                size_t ip = nl_nest(&m->b, types[i]);

                nl_put(&m->b, IPSET_ATTR_IPADDR_IPV4 | NLA_F_NET_BYTEORDER, &values[i], 4);
                nl_nest_end(&m->b, ip);
        }
        nl_put(&m->b, IPSET_ATTR_PORT | NLA_F_NET_BYTEORDER, &number, 2);
        nl_put(&m->b, IPSET_ATTR_PROTO, &protocol, 1);
        nl_put(&m->b, IPSET_ATTR_CIDR2, &prefix, 1);
        if (flag)
                nl_put(&m->b, IPSET_ATTR_CADT_FLAGS | NLA_F_NET_BYTEORDER, &values[2], 4);
        nl_nest_end(&m->b, data);
}

static void message_read(struct set_state *s, struct message *m)
{
        uint32_t n = (uint32_t)m->b.len;

        nl_nest_end(&m->b, m->adt);
        memcpy(m->b.data, &n, sizeof(n));
        set_state_read(s, (const struct nlmsghdr *)m->b.data);
        buf_deinit(&m->b);
}

static void the_set_is_read_back(_unused_ void **state)
{
        _cleanup_set_state_ struct set_state s = {};
        struct message m = {};
        struct entry e = {.address = 0x0ad50002, .net = 0xc6336400, .port = 443, .protocol = IPPROTO_TCP, .prefix = 24};

        message_begin(&m, "hash:ip,port,net", POLICY_SET_MAX, false);
        message_entry(&m, 0x0ad50002, 53, IPPROTO_UDP, 0xc0000201, 32, false);
        message_entry(&m, 0x0ad50002, 443, IPPROTO_TCP, 0xc6336400, 24, false);
        message_read(&s, &m);
        assert_true(s.exists && s.form_right && !s.strange);
        assert_int_equal(s.rules.n_entries, 2);
        rules_sort(&s.rules);
        assert_true(rules_has_entry(&s.rules, &e));
        e.port = 444;
        assert_false(rules_has_entry(&s.rules, &e));
}

static void what_we_could_not_have_written_is_strange(_unused_ void **state)
{
        static const struct {
                uint16_t port;
                uint8_t protocol, prefix;
                bool flag;
        } odd[] = {{443, 132, 24, false},
                   {0, IPPROTO_TCP, 24, false},
                   {443, IPPROTO_TCP, 0, false},
                   {443, IPPROTO_TCP, 33, false},
                   {443, IPPROTO_TCP, 24, true}};

        for (size_t i = 0; i < ELEMENTSOF(odd); i++) {
                _cleanup_set_state_ struct set_state s = {};
                struct message m = {};

                message_begin(&m, "hash:ip,port,net", POLICY_SET_MAX, false);
                message_entry(&m, 0x0ad50002, odd[i].port, odd[i].protocol, 0xc6336400, odd[i].prefix, odd[i].flag);
                message_read(&s, &m);
                assert_true(s.strange);
                assert_int_equal(s.rules.n_entries, 0);
        }
}

static void another_form_of_set_is_not_ours(_unused_ void **state)
{
        static const struct {
                const char *type;
                uint32_t max;
                bool timeout;
        } odd[] = {{"hash:ip", POLICY_SET_MAX, false}, {"hash:ip,port,net", 65536, false}, {"hash:ip,port,net", POLICY_SET_MAX, true}};

        for (size_t i = 0; i < ELEMENTSOF(odd); i++) {
                _cleanup_set_state_ struct set_state s = {};
                struct message m = {};

                message_begin(&m, odd[i].type, odd[i].max, odd[i].timeout);
                message_read(&s, &m);
                assert_true(s.exists && !s.form_right);
        }
}

/* Cut at any byte it is read without looking behind its end. */
static void a_cut_message_is_harmless(_unused_ void **state)
{
        struct message m = {};

        message_begin(&m, "hash:ip,port,net", POLICY_SET_MAX, false);
        message_entry(&m, 0x0ad50002, 53, IPPROTO_UDP, 0xc0000201, 32, false);
        nl_nest_end(&m.b, m.adt);
        for (size_t n = NLMSG_HDRLEN; n < m.b.len; n++) {
                _cleanup_set_state_ struct set_state s = {};
                _cleanup_free_ char *cut = mem_dup(m.b.data, n);
                uint32_t length = (uint32_t)n;

                memcpy(cut, &length, sizeof(length));
                set_state_read(&s, (const struct nlmsghdr *)cut);
                assert_int_equal(s.rules.n_entries, 0);
        }
        buf_deinit(&m.b);
}

static const char listing[] =
        "{\"nftables\": [{\"metainfo\": {\"version\": \"1.0.6\"}}, {\"table\": {\"family\": \"inet\", \"name\": \"bulkhead\", \"handle\": "
        "2}},"
        "{\"set\": {\"family\": \"inet\", \"name\": \"pairs\", \"table\": \"bulkhead\", \"type\": [\"ifname\", \"ipv4_addr\"], \"handle\": "
        "%d,"
        "\"elem\": [{\"elem\": {\"val\": {\"concat\": [\"bh01234567\", \"10.213.0.2\"]}, \"comment\": \"x\", \"counter\": {\"packets\": "
        "%d, \"bytes\": 60}}}]}},"
        "{\"set\": {\"family\": \"inet\", \"name\": \"http\", \"table\": \"bulkhead\", \"handle\": 6, \"elem\": [{\"concat\": [\"%s\", "
        "\"10.213.0.2\", 8080]}]}},"
        "{\"chain\": {\"family\": \"inet\", \"table\": \"bulkhead\", \"name\": \"refused\", \"handle\": 4}},"
        "{\"rule\": {\"family\": \"inet\", \"table\": \"bulkhead\", \"chain\": \"refused\", \"handle\": 9, \"expr\": [{\"%s\": null}]}}]}";

static int read_listing(struct guard_state *s, int handle, int packets, const char *bridge, const char *verdict, bool *strange)
{
        _cleanup_buf_ struct buf b = {};
        _cleanup_err_ struct err *err = NULL;
        int r;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        buf_addf(&b, listing, handle, packets, bridge, verdict);
#pragma GCC diagnostic pop
        r = guard_state_parse(s, b.data, b.len, strange, &err);
        assert_ok(r);
        return r;
}

static void counts_and_handles_are_not_form(_unused_ void **state)
{
        _cleanup_guard_state_ struct guard_state a = {}, b = {}, c = {}, d = {};
        bool strange;

        read_listing(&a, 5, 0, "bh01234567", "drop", &strange);
        assert_false(strange);
        assert_int_equal(a.rules.n_elements, 2);
        assert_string_equal(a.rules.elements[0].server, "x");
        read_listing(&b, 77, 1234, "bh01234567", "drop", &strange);
        assert_string_equal(a.form, b.form);
        assert_int_equal(guard_state_counter(&b, "bh01234567")->sent_packets, 1234);
        assert_null(guard_state_counter(&b, "bh00000000"));
        read_listing(&c, 5, 0, "bh01234567", "accept", &strange);
        assert_string_not_equal(a.form, c.form);
        /* An element we could not have written. */
        read_listing(&d, 5, 0, "eth0", "drop", &strange);
        assert_true(strange);
}

static void a_dormant_guard_is_not_ours(_unused_ void **state)
{
        static const char text[] =
                "{\"nftables\": [{\"table\": {\"family\": \"inet\", \"name\": \"bulkhead\", \"handle\": 2, \"flags\": \"dormant\"}}]}";
        _cleanup_guard_state_ struct guard_state s = {}, none = {};
        _cleanup_err_ struct err *err = NULL;
        bool strange = false;

        assert_ok(guard_state_parse(&s, text, strlen(text), &strange, &err));
        assert_true(strange);
        assert_int_equal(s.hooks, 0);
        assert_fails(guard_state_parse(&none, "{}", 2, &strange, &err), "no list");
        assert_fails(guard_state_parse(&none, "", 0, &strange, &err), "reading the guard back");
}

static void hooks_are_compared(_unused_ void **state)
{
        static const char good[] = "{\"nftables\": [{\"chain\": {\"name\": \"scrub\", \"type\": \"filter\", \"hook\": \"forward\", "
                                   "\"prio\": -10, \"policy\": \"accept\"}}]}";
        static const char *const bad[] = {"{\"nftables\": [{\"chain\": {\"name\": \"scrub\", \"type\": \"filter\", \"hook\": \"forward\", "
                                          "\"prio\": 10, \"policy\": \"accept\"}}]}",
                                          "{\"nftables\": [{\"chain\": {\"name\": \"scrub\", \"type\": \"filter\", \"hook\": \"input\", "
                                          "\"prio\": -10, \"policy\": \"accept\"}}]}",
                                          "{\"nftables\": [{\"chain\": {\"name\": \"other\", \"type\": \"filter\", \"hook\": \"forward\", "
                                          "\"prio\": -10, \"policy\": \"accept\"}}]}"};
        _cleanup_guard_state_ struct guard_state s = {};
        _cleanup_err_ struct err *err = NULL;
        bool strange;

        assert_ok(guard_state_parse(&s, good, strlen(good), &strange, &err));
        assert_false(strange);
        assert_int_equal(s.hooks, 1);
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                _cleanup_guard_state_ struct guard_state t = {};

                assert_ok(guard_state_parse(&t, bad[i], strlen(bad[i]), &strange, &err));
                assert_true(strange);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_set_is_read_back),
                cmocka_unit_test(what_we_could_not_have_written_is_strange),
                cmocka_unit_test(another_form_of_set_is_not_ours),
                cmocka_unit_test(a_cut_message_is_harmless),
                cmocka_unit_test(counts_and_handles_are_not_form),
                cmocka_unit_test(a_dormant_guard_is_not_ours),
                cmocka_unit_test(hooks_are_compared),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
