/* The texts that are handed to nft and iptables-restore: what they hold, and in which order. Reading back is in test_egress_read.c. */
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "controller/egress/guard_text.h"
#include "controller/egress/policy_text.h"

#define MARK 0x00200000U

static const struct guard_params params = {.mark = MARK, .own = 990, .broker = 991, .have_broker = true};

static struct egress_rule rule(char *cidr, enum protocol protocol, uint16_t *ports, size_t n)
{
        return (struct egress_rule){.cidr = cidr, .protocol = protocol, .ports = ports, .n_ports = n};
}

static size_t count(const char *text, const char *part)
{
        size_t n = 0;

        for (const char *p = text; (p = strstr(p, part)); p += strlen(part))
                n++;
        return n;
}

/* The rules of one chain, without its head. */
static char *chain(const char *text, const char *name)
{
        _cleanup_free_ char *head = mem_printf("\tchain %s {\n", name);
        const char *start = strstr(text, head);

        assert_non_null(start);
        start += strlen(head);
        return mem_strndup(start, (size_t)(strstr(start, "\n\t}\n") - start));
}

static void assert_before(const char *text, const char *first, const char *second)
{
        const char *a = strstr(text, first), *b = strstr(text, second);

        if (!a || !b || a >= b)
                print_error("expected \"%s\" before \"%s\" in:\n%s\n", first, second, text);
        assert_true(a && b && a < b);
}

static void guard_is_complete_without_instances(_unused_ void **state)
{
        const struct conf conf = {.mark_bit = MARK};
        _cleanup_free_ char *text = egress_guard_text(&conf, 990, 0, false);

        assert_null(strstr(text, "element inet"));
        /* Sets and elements that exist survive a second load; nothing is deleted, so there is no moment without it. */
        assert_null(strstr(text, "delete"));
        assert_before(text, "add table inet bulkhead\n", "flush table inet bulkhead\n");
        assert_non_null(strstr(text, "type filter hook forward priority filter + 10; policy accept;"));
        assert_non_null(strstr(text, "type filter hook input priority filter + 10; policy accept;"));
        assert_non_null(strstr(text, "type filter hook output priority filter + 10; policy accept;"));
        assert_non_null(strstr(text, "type filter hook forward priority filter - 10; policy accept;"));
        assert_null(strstr(text, "skuid 0 "));
}

static void every_chain_of_ours_ends_in_a_refusal(_unused_ void **state)
{
        static const char *const chains[] = {"from_server", "to_server", "to_host", "from_host", "refused", "refused_host"};
        _cleanup_buf_ struct buf b = {};

        guard_text_load(&b, &params);
        for (size_t i = 0; i < ELEMENTSOF(chains); i++) {
                _cleanup_free_ char *rules = chain(b.data, chains[i]);
                const char *last = strrchr(rules, '\n') ? strrchr(rules, '\n') + 1 : rules;

                assert_true(str_has_suffix(last, "drop") || str_has_suffix(last, "goto refused"));
        }
}

static void guard_judges_in_the_right_order(_unused_ void **state)
{
        _cleanup_buf_ struct buf b = {};

        guard_text_load(&b, &params);
        _cleanup_free_ char *from = chain(b.data, "from_server"), *to = chain(b.data, "to_server"), *forward = chain(b.data, "forward"),
                            *host = chain(b.data, "from_host");
        assert_before(from, "meta nfproto != ipv4", "accept");
        assert_before(from, "iifname . ip saddr != @pairs", "accept");
        assert_before(from, "ct status dnat", "accept");
        assert_before(from, "ct status expected", "accept");
        assert_before(from, "ct state related", "accept");
        assert_before(from, "meta mark & 0x00200000 != 0x00200000 goto refused", "accept");
        assert_int_equal(count(from, "accept"), 1);
        /* An answer needs the mark as well: no blanket "established". */
        assert_before(to, "ct direction original counter name inbound drop", "meta mark & 0x00200000 == 0x00200000 accept");
        assert_null(strstr(to, "established"));
        assert_null(strstr(from, "established"));
        assert_before(forward, "iifname \"bh*\" oifname \"bh*\" counter name between goto refused", "iifname \"bh*\" goto from_server");
        assert_before(host, "meta skuid 991 oifname . ip daddr . tcp dport @http accept", "meta skuid >= 0 goto refused_host");
        assert_before(host, "meta skuid 990 oifname . ip daddr . tcp dport @own accept", "meta skuid >= 0 goto refused_host");
        assert_before(host, "meta skuid >= 0 goto refused_host", "ct state established");
}

static void the_mark_is_scrubbed_both_ways(_unused_ void **state)
{
        _cleanup_buf_ struct buf b = {};

        guard_text_load(&b, &params);
        _cleanup_free_ char *scrub = chain(b.data, "scrub");
        assert_non_null(strstr(scrub, "iifname \"bh*\" meta mark set meta mark & 0xffdfffff"));
        assert_non_null(strstr(scrub, "oifname \"bh*\" meta mark set meta mark & 0xffdfffff"));
}

static void without_a_broker_nobody_is_let_in_his_place(_unused_ void **state)
{
        struct guard_params p = params;
        _cleanup_buf_ struct buf b = {};

        p.have_broker = false;
        guard_text_load(&b, &p);
        _cleanup_free_ char *host = chain(b.data, "from_host");
        assert_int_equal(count(host, "meta skuid 9"), 1);
        assert_null(strstr(host, "skuid 991"));
        assert_null(strstr(b.data, "goto from_broker"));
}

static void the_broker_connects_to_external_servers_only(_unused_ void **state)
{
        _cleanup_rules_ struct rules r = {};
        _cleanup_buf_ struct buf b = {};
        struct element e = {.set = SET_EXTERNAL, .address = 0x7f000001, .port = 4483, .server = "bh0000000a"};

        rules_add_element(&r, &e);
        rules_sort(&r);
        guard_text_replace(&b, &params, &r);
        _cleanup_free_ char *output = chain(b.data, "output"), *broker = chain(b.data, "from_broker");
        assert_before(output, "oifname \"bh*\" goto from_host", "meta skuid 991 goto from_broker");
        assert_before(broker, "ip daddr . tcp dport @external accept", "ct state established drop");
        assert_before(broker, "ip daddr . tcp dport @external accept", "reject with tcp reset");
        assert_int_equal(count(broker, "accept"), 3);
        assert_non_null(strstr(b.data, "add element inet bulkhead external {\n127.0.0.1 . 4483 comment \"bh0000000a\"\n}\n"));
}

static void add_instance(struct rules *r, const char *bridge, uint32_t address, uint16_t port)
{
        struct element e = {.address = address};

        snprintf(e.bridge, sizeof(e.bridge), "%s", bridge);
        snprintf(e.server, sizeof(e.server), "fetch");
        rules_add_element(r, &e);
        e.set = SET_DENIED;
        rules_add_element(r, &e);
        e.set = SET_HTTP;
        e.port = port;
        rules_add_element(r, &e);
}

static void replacing_keeps_the_elements_in_one_transaction(_unused_ void **state)
{
        _cleanup_rules_ struct rules r = {};
        _cleanup_buf_ struct buf b = {};

        add_instance(&r, "bh00000001", 0x0ad50002, 8080);
        add_instance(&r, "bh00000002", 0x0ad5000a, 8081);
        rules_sort(&r);
        guard_text_replace(&b, &params, &r);
        assert_before(b.data, "add table inet bulkhead\n", "delete table inet bulkhead\n");
        assert_before(b.data, "delete table inet bulkhead\n", "table inet bulkhead {\n");
        assert_non_null(strstr(b.data, "add element inet bulkhead pairs {\n\"bh00000001\" . 10.213.0.2 comment \"fetch\",\n"
                                       "\"bh00000002\" . 10.213.0.10 comment \"fetch\"\n}\n"));
        assert_non_null(
                strstr(b.data, "add element inet bulkhead denied {\n\"bh00000001\" . 10.213.0.2,\n\"bh00000002\" . 10.213.0.10\n}\n"));
        assert_non_null(strstr(
                b.data, "add element inet bulkhead http {\n\"bh00000001\" . 10.213.0.2 . 8080,\n\"bh00000002\" . 10.213.0.10 . 8081\n}\n"));
}

static void changes_name_only_what_changed(_unused_ void **state)
{
        _cleanup_rules_ struct rules from = {}, to = {};
        _cleanup_delta_ struct rules_delta d = {};
        _cleanup_buf_ struct buf b = {};

        add_instance(&from, "bh00000001", 0x0ad50002, 8080);
        add_instance(&from, "bh00000002", 0x0ad5000a, 8081);
        add_instance(&to, "bh00000002", 0x0ad5000a, 8081);
        add_instance(&to, "bh00000003", 0x0ad50012, 8082);
        rules_sort(&from);
        rules_sort(&to);
        rules_diff(&d, &from, &to);
        assert_false(rules_delta_empty(&d));
        guard_text_change(&b, &d);
        assert_null(strstr(b.data, "bh00000002"));
        assert_int_equal(count(b.data, "delete element"), 3);
        assert_int_equal(count(b.data, "add element"), 3);
        assert_null(strstr(b.data, "table inet bulkhead {"));
}

static void a_zero_prefix_becomes_two_halves(_unused_ void **state)
{
        _cleanup_rules_ struct rules r = {};
        _cleanup_err_ struct err *err = NULL;
        uint16_t port = 443;
        struct egress_rule all = rule((char *)"0.0.0.0/0", PROTOCOL_TCP, &port, 1);
        struct rules_delta d = {};
        _cleanup_buf_ struct buf b = {};

        assert_ok(rules_add_rule(&r, 0x0ad50002, &all, &err));
        rules_sort(&r);
        d.add = r;
        policy_text_set(&b, &d, false);
        assert_string_equal(b.data, "add bulkhead-allow 10.213.0.2,6:443,0.0.0.0/1\nadd bulkhead-allow 10.213.0.2,6:443,128.0.0.0/1\n");
}

static void rules_become_entries(_unused_ void **state)
{
        _cleanup_rules_ struct rules r = {};
        _cleanup_err_ struct err *err = NULL;
        uint16_t ports[] = {80, 443}, none[] = {0};
        struct egress_rule any = rule((char *)"192.0.2.7/32", PROTOCOL_ANY, ports, 2), name = {.host = (char *)"example.org"},
                           six = rule((char *)"2001:db8::/32", PROTOCOL_TCP, ports, 2),
                           no_port = rule((char *)"192.0.2.0/24", PROTOCOL_TCP, ports, 0),
                           zero = rule((char *)"192.0.2.0/24", PROTOCOL_TCP, none, 1),
                           loose = rule((char *)"192.0.2.1/24", PROTOCOL_TCP, ports, 1),
                           strange = rule((char *)"192.0.2.0/24", (enum protocol)132, ports, 1);

        assert_ok(rules_add_rule(&r, 1, &any, &err));
        assert_int_equal(r.n_entries, 4);
        /* Nobody fills these yet: nothing is allowed by them. */
        assert_int_equal(rules_add_rule(&r, 1, &name, &err), 1);
        assert_int_equal(rules_add_rule(&r, 1, &six, &err), 1);
        assert_fails(rules_add_rule(&r, 1, &no_port, &err), "names no port");
        assert_fails(rules_add_rule(&r, 1, &zero, &err), "port 0");
        assert_fails(rules_add_rule(&r, 1, &loose, &err), "behind its prefix");
        assert_fails(rules_add_rule(&r, 1, &strange, &err), "neither tcp nor udp");
        assert_int_equal(r.n_entries, 4);
}

static void cidr_text_is_checked(_unused_ void **state)
{
        static const char *const bad[] = {"",
                                          "192.0.2.0/",
                                          "192.0.2.0/33",
                                          "192.0.2.0/+1",
                                          "192.0.2.0/024",
                                          "192.0.2/24",
                                          "::/0",
                                          "192.0.2.0/24 ",
                                          "0x1.2.3.4/32",
                                          "1.2.3.4.5",
                                          "192.0.2.256",
                                          "255.255.255.255/31",
                                          "1.2.3.4/-1",
                                          "192.0.2.0/2x",
                                          "999.999.999.999/999999999999"};
        _cleanup_err_ struct err *err = NULL;
        uint32_t net;
        unsigned prefix;

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                assert_int_equal(cidr_parse(&net, &prefix, bad[i], &err), -1);
                err = err_free(err);
        }
        assert_ok(cidr_parse(&net, &prefix, "192.0.2.0/24", &err));
        assert_int_equal(net, 0xc0000200);
        assert_int_equal(prefix, 24);
        assert_ok(cidr_parse(&net, &prefix, "0.0.0.0/0", &err));
        assert_ok(cidr_parse(&net, &prefix, "192.0.2.1", &err));
        assert_int_equal(prefix, 32);
        assert_false(bridge_name_valid("bh0123456g"));
        assert_false(bridge_name_valid("br01234567"));
        assert_false(bridge_name_valid("bh012345678"));
        assert_true(bridge_name_valid("bh01234567"));
}

static void policy_has_two_rules_for_any_number_of_servers(_unused_ void **state)
{
        const struct policy_state none = {};
        _cleanup_buf_ struct buf b = {};

        policy_text_load(&b, MARK, &none);
        assert_string_equal(b.data,
                            "*filter\n"
                            ":BULKHEAD-FORWARD - [0:0]\n"
                            "-A BULKHEAD-FORWARD -i bh+ -m conntrack --ctdir ORIGINAL -m set --match-set bulkhead-allow src,dst,dst "
                            "-j MARK --set-xmark 0x200000/0x200000\n"
                            "-A BULKHEAD-FORWARD -o bh+ -m conntrack --ctdir REPLY -m set --match-set bulkhead-allow dst,src,src "
                            "-j MARK --set-xmark 0x200000/0x200000\n"
                            "-I FORWARD 1 -j BULKHEAD-FORWARD\n"
                            "COMMIT\n");
}

static void guard_rules_do_not_grow_with_servers(_unused_ void **state)
{
        _cleanup_rules_ struct rules few = {}, many = {};
        _cleanup_buf_ struct buf a = {}, b = {};

        add_instance(&few, "bh00000000", 0x0ad50002, 80);
        for (uint32_t i = 0; i < 1000; i++) {
                _cleanup_free_ char *bridge = mem_printf("bh%08x", i);

                add_instance(&many, bridge, 0x0ad50002 + i * 8, 80);
        }
        rules_sort(&few);
        rules_sort(&many);
        guard_text_replace(&a, &params, &few);
        guard_text_replace(&b, &params, &many);
        *strstr(a.data, "add element") = 0;
        *strstr(b.data, "add element") = 0;
        assert_string_equal(a.data, b.data);
}

#define HEAD    "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n:BULKHEAD-FORWARD - [0:0]\n"
#define USER    ":DOCKER-USER - [0:0]\n"
#define TO_USER "-A FORWARD -j DOCKER-USER\n"
#define JUMP    "-A DOCKER-USER -j BULKHEAD-FORWARD\n"
#define RETURN  "-A DOCKER-USER -j RETURN\n"
#define FORWARD "-A FORWARD -j BULKHEAD-FORWARD\n"
#define RULE_OUT                                                                                                                           \
        "-A BULKHEAD-FORWARD -i bh+ -m conntrack --ctdir ORIGINAL -m set --match-set bulkhead-allow src,dst,dst -j MARK --set-xmark "      \
        "0x200000/0x200000\n"
#define RULE_IN                                                                                                                            \
        "-A BULKHEAD-FORWARD -o bh+ -m conntrack --ctdir REPLY -m set --match-set bulkhead-allow dst,src,src -j MARK --set-xmark "         \
        "0x200000/0x200000\n"

static bool right(const char *save)
{
        struct policy_state s;

        policy_state_parse(&s, save, MARK);
        return policy_state_right(&s);
}

static void policy_is_recognised(_unused_ void **state)
{
        assert_true(right(HEAD FORWARD RULE_OUT RULE_IN "COMMIT\n"));
        assert_true(right(HEAD USER TO_USER JUMP RETURN RULE_OUT RULE_IN "COMMIT\n"));
        assert_true(right(HEAD USER FORWARD JUMP RULE_OUT RULE_IN));
        assert_false(right(""));
        assert_false(right(HEAD "COMMIT\n"));
        assert_false(right(HEAD RULE_OUT RULE_IN));                 /* nobody goes there */
        assert_false(right(HEAD FORWARD RULE_OUT));                 /* a rule is missing */
        assert_false(right(HEAD FORWARD RULE_IN RULE_OUT RULE_IN)); /* one is too many */
        assert_false(right(HEAD FORWARD RULE_OUT RULE_IN "-A BULKHEAD-FORWARD -j MARK --set-xmark 0x200000/0x200000\n"));
        assert_false(right(HEAD USER TO_USER FORWARD RULE_OUT RULE_IN));     /* DOCKER-USER is there and does not jump */
        assert_false(right(HEAD USER TO_USER RETURN JUMP RULE_OUT RULE_IN)); /* it returns before it jumps */
        assert_false(right(HEAD USER JUMP RULE_OUT RULE_IN));                /* nobody goes to DOCKER-USER */
}

static void policy_text_repairs_what_is_missing(_unused_ void **state)
{
        struct policy_state s;
        _cleanup_buf_ struct buf b = {}, c = {};

        policy_state_parse(&s, HEAD USER TO_USER RETURN RULE_OUT RULE_IN, MARK);
        policy_text_load(&b, MARK, &s);
        assert_non_null(strstr(b.data, "-I DOCKER-USER 1 -j BULKHEAD-FORWARD\n"));
        assert_null(strstr(b.data, "-I FORWARD"));
        policy_state_parse(&s, HEAD USER JUMP RULE_OUT RULE_IN, MARK);
        policy_text_load(&c, MARK, &s);
        assert_null(strstr(c.data, "-I DOCKER-USER"));
        assert_non_null(strstr(c.data, "-I FORWARD 1 -j BULKHEAD-FORWARD\n"));
        assert_int_equal(count(c.data, "COMMIT"), 1);
}

static void a_mix_of_backends_is_seen(_unused_ void **state)
{
        assert_false(policy_text_has_rules(""));
        assert_false(policy_text_has_rules("# Generated\n*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [1:2]\nCOMMIT\n"));
        assert_true(policy_text_has_rules("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j ACCEPT\nCOMMIT\n"));
        assert_true(policy_text_has_rules("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n"));
}

static void diff_and_apply_gives_the_target(_unused_ void **state)
{
        _cleanup_rules_ struct rules from = {}, to = {};
        _cleanup_delta_ struct rules_delta d = {};
        unsigned seed = 7;

        for (unsigned i = 0; i < 4000; i++) {
                seed = seed * 1103515245 + 12345;
                struct entry e = {.address = seed >> 16 & 63, .net = seed >> 24, .port = 443, .protocol = IPPROTO_TCP, .prefix = 32};

                rules_add_entry(i & 1 ? &from : &to, e);
        }
        rules_sort(&from);
        rules_sort(&to);
        rules_diff(&d, &from, &to);
        assert_true(d.add.n_entries && d.remove.n_entries);
        for (size_t i = 0; i < d.add.n_entries; i++)
                assert_false(rules_has_entry(&from, &d.add.entries[i]));
        for (size_t i = 0; i < d.remove.n_entries; i++)
                assert_false(rules_has_entry(&to, &d.remove.entries[i]));
        assert_int_equal(from.n_entries + d.add.n_entries - d.remove.n_entries, to.n_entries);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(guard_is_complete_without_instances),
                cmocka_unit_test(every_chain_of_ours_ends_in_a_refusal),
                cmocka_unit_test(guard_judges_in_the_right_order),
                cmocka_unit_test(the_mark_is_scrubbed_both_ways),
                cmocka_unit_test(without_a_broker_nobody_is_let_in_his_place),
                cmocka_unit_test(the_broker_connects_to_external_servers_only),
                cmocka_unit_test(replacing_keeps_the_elements_in_one_transaction),
                cmocka_unit_test(changes_name_only_what_changed),
                cmocka_unit_test(a_zero_prefix_becomes_two_halves),
                cmocka_unit_test(rules_become_entries),
                cmocka_unit_test(cidr_text_is_checked),
                cmocka_unit_test(policy_has_two_rules_for_any_number_of_servers),
                cmocka_unit_test(guard_rules_do_not_grow_with_servers),
                cmocka_unit_test(policy_is_recognised),
                cmocka_unit_test(policy_text_repairs_what_is_missing),
                cmocka_unit_test(a_mix_of_backends_is_seen),
                cmocka_unit_test(diff_and_apply_gives_the_target),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
