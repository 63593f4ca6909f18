#include "controller/egress/guard_text.h"

/* One server cannot fill the host's connection table. */
#define MAX_CONNECTIONS 1024

static void add_sets(struct buf *b)
{
        /* Counters on elements: who sent, and who was refused. `denied` holds the same elements as `pairs`. */
        buf_adds(b, "\tset pairs { type ifname . ipv4_addr; counter; }\n"
                    "\tset denied { type ifname . ipv4_addr; counter; }\n"
                    "\tset http { type ifname . ipv4_addr . inet_service; }\n"
                    "\tset own { type ifname . ipv4_addr . inet_service; }\n"
                    "\tset external { type ipv4_addr . inet_service; }\n"
                    "\tset connections { type ipv4_addr; size 65536; flags dynamic; }\n"
                    "\tcounter spoofed { }\n"
                    "\tcounter ipv6 { }\n"
                    "\tcounter between { }\n"
                    "\tcounter inbound { }\n"
                    "\tcounter host { }\n"
                    "\tcounter broker { }\n");
}

const struct guard_hook guard_hooks[GUARD_HOOKS] = {
        /* Before the policy (filter): a mark of anybody else's making is worth nothing. */
        {"scrub", "forward", -10},
        /* After it: an accept elsewhere does not end what is decided here. */
        {"forward", "forward", 10},
        {"input", "input", 10},
        {"output", "output", 10},
};

static void begin_hook(struct buf *b, const struct guard_hook *h, bool hooked)
{
        buf_addf(b, "\tchain %s {\n", h->chain);
        if (hooked)
                buf_addf(b, "\t\ttype filter hook %s priority filter %c %d; policy accept;\n", h->hook, h->priority < 0 ? '-' : '+',
                         abs(h->priority));
}

static void add_hooks(struct buf *b, const struct guard_params *p, bool hooked)
{
        const uint32_t mark = p->mark;

        begin_hook(b, &guard_hooks[0], hooked);
        buf_addf(b, "\t\tiifname \"bh*\" meta mark set meta mark & 0x%08x\n", ~mark);
        buf_addf(b, "\t\toifname \"bh*\" meta mark set meta mark & 0x%08x\n", ~mark);
        buf_adds(b, "\t}\n");
        begin_hook(b, &guard_hooks[1], hooked);
        buf_adds(b, "\t\tiifname \"bh*\" oifname \"bh*\" counter name between goto refused\n"
                    "\t\tiifname \"bh*\" goto from_server\n"
                    "\t\toifname \"bh*\" goto to_server\n"
                    "\t}\n");
        begin_hook(b, &guard_hooks[2], hooked);
        buf_adds(b, "\t\tiifname \"bh*\" goto to_host\n"
                    "\t}\n");
        begin_hook(b, &guard_hooks[3], hooked);
        buf_adds(b, "\t\toifname \"bh*\" goto from_host\n");
        if (p->have_broker)
                buf_addf(b, "\t\tmeta skuid %u goto from_broker\n", p->broker);
        buf_adds(b, "\t}\n");
}

static void add_forward(struct buf *b, uint32_t mark)
{
        buf_adds(b, "\tchain from_server {\n"
                    "\t\tmeta nfproto != ipv4 counter name ipv6 drop\n"
                    "\t\tiifname . ip saddr != @pairs counter name spoofed drop\n"
                    "\t\tct status dnat goto refused\n"
                    "\t\tct status expected goto refused\n"
                    "\t\tct state related goto refused\n");
        buf_addf(b, "\t\tmeta mark & 0x%08x != 0x%08x goto refused\n", mark, mark);
        buf_addf(b, "\t\tct state new add @connections { ip saddr ct count over %d } goto refused\n", MAX_CONNECTIONS);
        buf_adds(b, "\t\tiifname . ip saddr @pairs accept\n"
                    "\t\tdrop\n"
                    "\t}\n");
        /* Only answers, and only while the flow's own direction is still allowed; ICMP errors about such flows, for path MTU discovery. */
        buf_adds(b, "\tchain to_server {\n"
                    "\t\tmeta nfproto != ipv4 counter name ipv6 drop\n"
                    "\t\tct status dnat counter name inbound drop\n"
                    "\t\tct status expected counter name inbound drop\n"
                    "\t\tct state related icmp type destination-unreachable oifname . ip daddr @pairs accept\n"
                    "\t\tct state related icmp type time-exceeded oifname . ip daddr @pairs accept\n"
                    "\t\tct state related counter name inbound drop\n"
                    "\t\tct direction original counter name inbound drop\n");
        buf_addf(b, "\t\tmeta mark & 0x%08x == 0x%08x accept\n", mark, mark);
        buf_adds(b, "\t\tcounter name inbound drop\n"
                    "\t}\n");
}

static void add_host(struct buf *b, const struct guard_params *p)
{
        buf_adds(b, "\tchain to_host {\n"
                    "\t\tmeta nfproto != ipv4 counter name ipv6 drop\n"
                    "\t\tiifname . ip saddr != @pairs counter name spoofed drop\n"
                    "\t\tct state established ct direction reply iifname . ip saddr . tcp sport @http accept\n"
                    "\t\tct state established ct direction reply iifname . ip saddr . tcp sport @own accept\n"
                    "\t\tgoto refused\n"
                    "\t}\n"
                    "\tchain from_host {\n"
                    "\t\tmeta nfproto != ipv4 counter name ipv6 drop\n");
        if (p->have_broker)
                buf_addf(b, "\t\tmeta skuid %u oifname . ip daddr . tcp dport @http accept\n", p->broker);
        buf_addf(b, "\t\tmeta skuid %u oifname . ip daddr . tcp dport @own accept\n", p->own);
        /*
         * Any packet that has an owner stops here. What remains is the kernel's own: the last segments of a connection whose
         * socket is closed, and the refusals sent below and by `refused`.
         */
        buf_adds(b, "\t\tmeta skuid >= 0 goto refused_host\n"
                    "\t\tct state established ct direction original oifname . ip daddr . tcp dport @http accept\n"
                    "\t\tct state established ct direction original oifname . ip daddr . tcp dport @own accept\n"
                    "\t\tct direction reply tcp flags & rst == rst accept\n"
                    "\t\ticmp type destination-unreachable accept\n"
                    "\t\tcounter name host drop\n"
                    "\t}\n");
}

/*
 * What faces agents connects to external servers that were approved, and to nothing else of the host or beyond. It answers whom it likes:
 * where flows are not tracked, whatever does not begin one is an answer.
 */
static void add_broker(struct buf *b)
{
        buf_adds(b, "\tchain from_broker {\n"
                    "\t\tct direction reply accept\n"
                    "\t\tct state untracked tcp flags & (syn | ack) != syn accept\n"
                    "\t\tip daddr . tcp dport @external accept\n"
                    "\t\tcounter name broker\n"
                    "\t\tct state established drop\n"
                    "\t\tmeta l4proto tcp reject with tcp reset\n"
                    "\t\tmeta nfproto ipv4 reject with icmp admin-prohibited\n"
                    "\t\tdrop\n"
                    "\t}\n");
}

static void add_refusals(struct buf *b)
{
        /*
         * Only the first packet of a flow gets an answer. The later ones are dropped in silence: while somebody re-inserts the jump to
         * the policy, allowed flows must stall for a moment, not be reset.
         */
        buf_adds(b, "\tchain refused {\n"
                    "\t\tiifname . ip saddr @denied\n"
                    "\t\tlimit rate 2/second burst 20 packets log prefix \"bulkhead denied: \"\n"
                    "\t\tct state new meta l4proto tcp reject with tcp reset\n"
                    "\t\tct state new meta nfproto ipv4 reject with icmp admin-prohibited\n"
                    "\t\tdrop\n"
                    "\t}\n"
                    "\tchain refused_host {\n"
                    "\t\tcounter name host\n"
                    "\t\tmeta l4proto tcp reject with tcp reset\n"
                    "\t\tmeta nfproto ipv4 reject with icmp admin-prohibited\n"
                    "\t\tdrop\n"
                    "\t}\n");
}

static void add_table(struct buf *b, const struct guard_params *p, const char *table, bool hooked)
{
        buf_addf(b, "table inet %s {\n", table);
        add_sets(b);
        /* nft resolves a goto when it reads it only if the chain is known: targets first. */
        add_refusals(b);
        add_forward(b, p->mark);
        add_host(b, p);
        add_broker(b);
        add_hooks(b, p, hooked);
        buf_adds(b, "}\n");
}

void guard_text_load(struct buf *b, const struct guard_params *p)
{
        buf_adds(b, "add table inet " GUARD_TABLE "\n"
                    "flush table inet " GUARD_TABLE "\n");
        add_table(b, p, GUARD_TABLE, true);
}

void guard_text_reference(struct buf *b, const struct guard_params *p, const char *table)
{
        buf_addf(b, "add table inet %s\ndelete table inet %s\n", table, table);
        add_table(b, p, table, false);
}

static void add_elements(struct buf *b, const char *verb, const struct rules *rules, enum guard_set set)
{
        bool first = true;
        char address[16];

        for (size_t i = 0; i < rules->n_elements; i++) {
                const struct element *e = &rules->elements[i];

                if (e->set != set)
                        continue;
                if (first)
                        buf_addf(b, "%s element inet " GUARD_TABLE " %s {\n", verb, guard_set_names[set]);
                buf_adds(b, first ? "" : ",\n");
                if (set != SET_EXTERNAL)
                        buf_addf(b, "\"%s\" . ", e->bridge);
                buf_adds(b, address_format(address, e->address));
                if (guard_set_has_port(set))
                        buf_addf(b, " . %u", e->port);
                if ((set == SET_PAIRS || set == SET_EXTERNAL) && e->server[0] && str_eq(verb, "add"))
                        buf_addf(b, " comment \"%s\"", e->server);
                first = false;
        }
        if (!first)
                buf_adds(b, "\n}\n");
}

void guard_text_replace(struct buf *b, const struct guard_params *p, const struct rules *rules)
{
        buf_adds(b, "add table inet " GUARD_TABLE "\n"
                    "delete table inet " GUARD_TABLE "\n");
        add_table(b, p, GUARD_TABLE, true);
        for (enum guard_set set = 0; set < GUARD_SETS; set++)
                add_elements(b, "add", rules, set);
}

void guard_text_change(struct buf *b, const struct rules_delta *delta)
{
        for (enum guard_set set = 0; set < GUARD_SETS; set++) {
                add_elements(b, "delete", &delta->remove, set);
                add_elements(b, "add", &delta->add, set);
        }
}

char *egress_guard_text(const struct conf *conf, uid_t controller_uid, uid_t broker_uid, bool have_broker)
{
        _cleanup_buf_ struct buf b = {};
        struct guard_params p = {.mark = conf->mark_bit, .own = controller_uid, .broker = broker_uid, .have_broker = have_broker};

        guard_text_load(&b, &p);
        return buf_take(&b);
}
