#include "controller/egress/rules.h"

#include <arpa/inet.h>
#include <netinet/in.h>

const char *const guard_set_names[GUARD_SETS] = {
        [SET_PAIRS] = "pairs", [SET_DENIED] = "denied", [SET_HTTP] = "http", [SET_OWN] = "own", [SET_EXTERNAL] = "external",
};

bool guard_set_has_port(enum guard_set set)
{
        return set == SET_HTTP || set == SET_OWN || set == SET_EXTERNAL;
}

static void *grow(void *array, size_t n, size_t *cap, size_t size)
{
        if (n < *cap)
                return array;
        *cap = *cap ? *cap * 2 : 16;
        return mem_realloc(array, *cap, size);
}

void rules_add_element(struct rules *r, const struct element *element)
{
        r->elements = grow(r->elements, r->n_elements, &r->cap_elements, sizeof(*r->elements));
        r->elements[r->n_elements++] = *element;
}

void rules_add_entry(struct rules *r, struct entry entry)
{
        r->entries = grow(r->entries, r->n_entries, &r->cap_entries, sizeof(*r->entries));
        r->entries[r->n_entries++] = entry;
}

#define COMPARE(x, y)                                                                                                                      \
        do {                                                                                                                               \
                if ((x) != (y))                                                                                                            \
                        return (x) < (y) ? -1 : 1;                                                                                         \
        } while (0)

int entry_cmp(const void *a, const void *b)
{
        const struct entry *x = a, *y = b;

        COMPARE(x->address, y->address);
        COMPARE(x->protocol, y->protocol);
        COMPARE(x->port, y->port);
        COMPARE(x->net, y->net);
        COMPARE(x->prefix, y->prefix);
        return 0;
}

int element_cmp(const void *a, const void *b)
{
        const struct element *x = a, *y = b;
        int r = strcmp(x->bridge, y->bridge);

        if (r != 0)
                return r;
        COMPARE(x->address, y->address);
        COMPARE(x->set, y->set);
        COMPARE(x->port, y->port);
        return 0;
}

static size_t sort_unique(void *array, size_t n, size_t size, int (*cmp)(const void *, const void *))
{
        char *p = array;
        size_t kept = 0;
        bool sorted = true;

        /* The usual case: 100,000 entries, put together from sorted pieces. */
        for (size_t i = 1; i < n && sorted; i++)
                sorted = cmp(p + (i - 1) * size, p + i * size) < 0;
        if (sorted)
                return n;
        qsort(array, n, size, cmp);
        for (size_t i = 0; i < n; i++) {
                if (kept && cmp(p + (kept - 1) * size, p + i * size) == 0)
                        continue;
                if (kept != i)
                        memcpy(p + kept * size, p + i * size, size);
                kept++;
        }
        return kept;
}

void rules_sort(struct rules *r)
{
        r->n_elements = sort_unique(r->elements, r->n_elements, sizeof(*r->elements), element_cmp);
        r->n_entries = sort_unique(r->entries, r->n_entries, sizeof(*r->entries), entry_cmp);
}

void rules_deinit(struct rules *r)
{
        free(r->elements);
        free(r->entries);
        *r = (struct rules){};
}

static void diff_elements(struct rules_delta *d, const struct rules *from, const struct rules *to)
{
        size_t i = 0, k = 0;

        while (i < from->n_elements || k < to->n_elements) {
                int c = i == from->n_elements ? 1 : k == to->n_elements ? -1 : element_cmp(&from->elements[i], &to->elements[k]);

                if (c < 0)
                        rules_add_element(&d->remove, &from->elements[i]);
                else if (c > 0)
                        rules_add_element(&d->add, &to->elements[k]);
                i += c <= 0;
                k += c >= 0;
        }
}

static void diff_entries(struct rules_delta *d, const struct rules *from, const struct rules *to)
{
        size_t i = 0, k = 0;

        while (i < from->n_entries || k < to->n_entries) {
                int c = i == from->n_entries ? 1 : k == to->n_entries ? -1 : entry_cmp(&from->entries[i], &to->entries[k]);

                if (c < 0)
                        rules_add_entry(&d->remove, from->entries[i]);
                else if (c > 0)
                        rules_add_entry(&d->add, to->entries[k]);
                i += c <= 0;
                k += c >= 0;
        }
}

void rules_diff(struct rules_delta *ret, const struct rules *from, const struct rules *to)
{
        *ret = (struct rules_delta){};
        diff_elements(ret, from, to);
        diff_entries(ret, from, to);
}

bool rules_delta_empty(const struct rules_delta *d)
{
        return !d->add.n_elements && !d->add.n_entries && !d->remove.n_elements && !d->remove.n_entries;
}

void rules_delta_deinit(struct rules_delta *d)
{
        rules_deinit(&d->add);
        rules_deinit(&d->remove);
}

bool rules_has_entry(const struct rules *r, const struct entry *entry)
{
        return r->n_entries && bsearch(entry, r->entries, r->n_entries, sizeof(*entry), entry_cmp);
}

bool rules_has_address(const struct rules *r, uint32_t address)
{
        for (size_t i = 0; i < r->n_elements; i++)
                if (r->elements[i].set == SET_PAIRS && r->elements[i].address == address)
                        return true;
        return false;
}

bool address_parse(uint32_t *ret, const char *s)
{
        struct in_addr a;

        if (!s || inet_pton(AF_INET, s, &a) != 1)
                return false;
        *ret = ntohl(a.s_addr);
        return true;
}

const char *address_format(char out[16], uint32_t address)
{
        struct in_addr a = {.s_addr = htonl(address)};

        return inet_ntop(AF_INET, &a, out, 16);
}

int cidr_parse(uint32_t *ret_net, unsigned *ret_prefix, const char *s, struct err **err)
{
        char address[16];
        const char *slash = strchr(s, '/');
        size_t n = slash ? (size_t)(slash - s) : strlen(s);
        unsigned prefix = 32;

        if (n >= sizeof(address))
                return err_set(err, ERR_INVALID, "\"%s\" is not an IPv4 network", s);
        memcpy(address, s, n);
        address[n] = 0;
        if (slash) {
                if (!slash[1] || strlen(slash + 1) > 2 || !str_in_charset(slash + 1, "0123456789"))
                        return err_set(err, ERR_INVALID, "\"%s\" has no prefix length after the slash", s);
                prefix = (unsigned)strtoul(slash + 1, NULL, 10);
        }
        if (prefix > 32 || !address_parse(ret_net, address))
                return err_set(err, ERR_INVALID, "\"%s\" is not an IPv4 network", s);
        if (prefix < 32 && *ret_net & (UINT32_MAX >> prefix))
                return err_set(err, ERR_INVALID, "\"%s\" has address bits behind its prefix", s);
        *ret_prefix = prefix;
        return 0;
}

/* ipset's net types refuse /0: its two halves say the same. */
static void add_net(struct rules *r, struct entry entry, unsigned prefix)
{
        entry.prefix = (uint8_t)MAX(prefix, 1U);
        rules_add_entry(r, entry);
        if (prefix == 0) {
                entry.net = UINT32_C(1) << 31;
                rules_add_entry(r, entry);
        }
}

int rules_add_rule(struct rules *r, uint32_t address, const struct egress_rule *rule, struct err **err)
{
        uint32_t net;
        unsigned prefix;

        if (rule->host || !rule->cidr || strchr(rule->cidr, ':'))
                return 1;
        if (!rule->n_ports)
                return err_set(err, ERR_INVALID, "egress rule for %s names no port: give it at least one", rule->cidr);
        if (rule->protocol != PROTOCOL_TCP && rule->protocol != PROTOCOL_UDP && rule->protocol != PROTOCOL_ANY)
                return err_set(err, ERR_INVALID, "egress rule for %s: protocol %d is neither tcp nor udp", rule->cidr, (int)rule->protocol);
        if (cidr_parse(&net, &prefix, rule->cidr, err) < 0)
                return err_wrap(err, "egress rule");
        for (size_t i = 0; i < rule->n_ports; i++) {
                struct entry entry = {.address = address, .net = net, .port = rule->ports[i]};

                if (!entry.port)
                        return err_set(err, ERR_INVALID, "egress rule for %s: port 0 cannot be allowed", rule->cidr);
                if (rule->protocol != PROTOCOL_UDP) {
                        entry.protocol = IPPROTO_TCP;
                        add_net(r, entry, prefix);
                }
                if (rule->protocol != PROTOCOL_TCP) {
                        entry.protocol = IPPROTO_UDP;
                        add_net(r, entry, prefix);
                }
        }
        return 0;
}

bool bridge_name_valid(const char *name)
{
        return str_has_prefix(name, "bh") && str_is_hex(name + 2, 8);
}
