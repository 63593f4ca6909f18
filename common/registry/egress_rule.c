/* The `egress` key: what a server may reach. Everything else is denied. */
#include "common/registry/reader.h"

#include <arpa/inet.h>
#include <ctype.h>

#include "common/text.h"

#define MAX_RULES 256
#define MAX_PORTS 64

/* Decimal without leading zeros (which inet_aton() would read as octal); -1 when it is none or over max. */
static long parse_decimal(const char *s, size_t n, long max)
{
        long v = 0;

        if (n == 0 || n > 3 || (n > 1 && s[0] == '0'))
                return -1;
        for (size_t i = 0; i < n; i++) {
                if (!isdigit((unsigned char)s[i]))
                        return -1;
                v = v * 10 + (s[i] - '0');
        }
        return v > max ? -1 : v;
}

bool ipv4_parse(uint32_t *ret, const char *s, size_t n)
{
        const char *end = s + n;

        *ret = 0;
        for (int i = 0; i < 4; i++) {
                const char *dot = i < 3 ? memchr(s, '.', (size_t)(end - s)) : end;
                long v = dot ? parse_decimal(s, (size_t)(dot - s), 255) : -1;

                if (v < 0)
                        return false;
                *ret = *ret << 8 | (uint32_t)v;
                s = dot + 1;
        }
        return true;
}

bool ipv4_network_parse(uint32_t *ret, unsigned *prefix, const char *s)
{
        const char *slash = strchr(s, '/');
        long bits = slash ? parse_decimal(slash + 1, strlen(slash + 1), 32) : -1;

        if (bits < 0 || !ipv4_parse(ret, s, (size_t)(slash - s)))
                return false;
        *prefix = (unsigned)bits;
        return true;
}

/* RFC 4291 text and prefix: read whole, so that the day it is supported the format is settled. Host bits must be zero here too. */
static bool parse_ipv6(char **ret, const char *s, const char *slash)
{
        struct in6_addr a;
        char text[INET6_ADDRSTRLEN];
        _cleanup_free_ char *address = mem_strndup(s, (size_t)(slash - s));
        long prefix = parse_decimal(slash + 1, strlen(slash + 1), 128);

        if (prefix < 0 || inet_pton(AF_INET6, address, &a) != 1)
                return false;
        for (long bit = prefix; bit < 128; bit++)
                if (a.s6_addr[bit / 8] & (0x80U >> (bit % 8)))
                        return false;
        *ret = mem_printf("%s/%ld", inet_ntop(AF_INET6, &a, text, sizeof(text)), prefix);
        return true;
}

static int parse_cidr(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        struct egress_rule *rule = dst;
        const char *s = NULL;
        uint32_t a;

        if (read_string(r, at, value, 64, &s, err) < 0)
                return -1;
        _cleanup_free_ char *shown = text_escape(s);
        const char *slash = strchr(s, '/');
        if (!slash)
                return reader_fail(r, at, err, "\"%s\" has no prefix length; write address/bits, such as 192.0.2.1/32 for one address",
                                   shown);
        if (strchr(s, ':')) {
                if (parse_ipv6(&rule->cidr, s, slash))
                        return 0;
                return reader_fail(r, at, err, "\"%s\" is not a network; write address/bits with no bits set behind the prefix", shown);
        }
        long prefix = parse_decimal(slash + 1, strlen(slash + 1), 32);
        if (prefix < 0 || !ipv4_parse(&a, s, (size_t)(slash - s)))
                return reader_fail(r, at, err, "\"%s\" is not an IPv4 network; write address/bits, such as 192.0.2.0/24", shown);
        uint32_t mask = prefix ? UINT32_MAX << (32 - prefix) : 0, net = a & mask;
        if (net != a)
                return reader_fail(
                        r, at, err,
                        "\"%s\" has bits set behind its prefix; write %u.%u.%u.%u/%ld for the network, or /32 for the one address", shown,
                        net >> 24, net >> 16 & 255, net >> 8 & 255, net & 255, prefix);
        rule->cidr = mem_strdup(s);
        return 0;
}

static bool label_valid(const char *s, size_t n)
{
        if (n == 0 || n > 63 || s[0] == '-' || s[n - 1] == '-')
                return false;
        for (size_t i = 0; i < n; i++)
                if (!islower((unsigned char)s[i]) && !isdigit((unsigned char)s[i]) && s[i] != '-')
                        return false;
        return true;
}

/* A DNS name of at least two labels, the last one not a number (else it would be an address); "*." in front allows the names below. */
static bool host_valid(const char *s)
{
        const char *dot = NULL;
        size_t labels = 0;

        if (str_has_prefix(s, "*."))
                s += 2;
        if (strlen(s) > 253)
                return false;
        do {
                dot = strchr(s, '.');
                if (!label_valid(s, dot ? (size_t)(dot - s) : strlen(s)))
                        return false;
                labels++;
                if (!dot)
                        return labels >= 2 && !isdigit((unsigned char)s[0]);
                s = dot + 1;
        } while (true);
}

static int parse_host(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        struct egress_rule *rule = dst;
        const char *s = NULL;

        if (read_string(r, at, value, 255, &s, err) < 0)
                return -1;
        _cleanup_free_ char *shown = text_escape(s);
        if (!host_valid(s))
                return reader_fail(r, at, err,
                                   "\"%s\" is not a host name; write it in lower case with its domain, such as api.example.org, or use "
                                   "cidr for addresses",
                                   shown);
        rule->host = mem_strdup(s);
        return 0;
}

static int parse_protocol(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        static const char *const words[] = {"tcp", "udp", "any", NULL};
        static const enum protocol protocols[] = {PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_ANY};
        struct egress_rule *rule = dst;
        unsigned i = 0;

        if (read_word(r, at, value, words, &i, err) < 0)
                return -1;
        rule->protocol = protocols[i];
        return 0;
}

static int compare_ports(const void *a, const void *b)
{
        return *(const uint16_t *)a - *(const uint16_t *)b;
}

static int parse_ports(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        struct egress_rule *rule = dst;
        size_t n = 0;

        if (read_array(r, at, value, MAX_PORTS, &n, err) < 0)
                return -1;
        if (n == 0)
                return reader_fail(r, at, err, "is empty; write at least one port");
        rule->ports = NEW_N(uint16_t, n);
        for (size_t i = 0; i < n; i++) {
                int64_t port = 0;

                if (read_integer(r, PLACE_ITEM(at, i), json_object_array_get_idx(value, i), 1, 65535, &port, err) < 0)
                        return -1;
                for (size_t j = 0; j < i; j++)
                        if (rule->ports[j] == port)
                                return reader_fail(r, PLACE_ITEM(at, i), err, "port %d stands here twice; write it once", (int)port);
                rule->ports[rule->n_ports++] = (uint16_t)port;
        }
        qsort(rule->ports, n, sizeof(uint16_t), compare_ports);
        return 0;
}

static const struct key rule_keys[] = {
        {.name = "host", .parse = parse_host},
        {.name = "cidr", .parse = parse_cidr},
        {.name = "protocol", .parse = parse_protocol},
        {.name = "ports", .parse = parse_ports},
};

static int parse_rule(const struct reader *r, const struct place *at, json_object *value, struct egress_rule *rule, struct err **err)
{
        rule->protocol = PROTOCOL_TCP;
        if (READ_OBJECT(r, at, value, rule_keys, rule, err) < 0)
                return -1;
        if (!rule->host == !rule->cidr)
                return reader_fail(r, at, err, "needs exactly one of \"cidr\" and \"host\"; say where the server may connect to");
        if (rule->protocol == PROTOCOL_ANY && rule->ports)
                return reader_fail(r, at, err, "protocol \"any\" has no ports; remove them or write \"tcp\" or \"udp\"");
        if (rule->protocol != PROTOCOL_ANY && !rule->ports)
                return reader_fail(r, at, err, "the key \"ports\" is missing; list the ports the server needs, such as [443]");
        return 0;
}

int parse_egress(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        struct registry_entry *e = entry;
        size_t n = 0;

        if (read_array(r, at, value, MAX_RULES, &n, err) < 0)
                return -1;
        e->egress = mem_alloc(n * sizeof(struct egress_rule));
        for (size_t i = 0; i < n; i++) {
                e->n_egress++;
                if (parse_rule(r, PLACE_ITEM(at, i), json_object_array_get_idx(value, i), &e->egress[i], err) < 0)
                        return -1;
        }
        return 0;
}

char *egress_rule_text(const struct egress_rule *rule)
{
        _cleanup_buf_ struct buf b = {0};
        const char *protocol = rule->protocol == PROTOCOL_TCP ? "tcp" : rule->protocol == PROTOCOL_UDP ? "udp" : "any";

        buf_addf(&b, "%s %s", protocol, rule->host ? rule->host : rule->cidr);
        for (size_t i = 0; i < rule->n_ports; i++)
                buf_addf(&b, "%c%u", i ? ',' : ':', rule->ports[i]);
        return buf_take(&b);
}
