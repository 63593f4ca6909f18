#include "common/address.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>

#include "common/file.h"
#include "common/mem.h"

#define SUBNET_BITS 29
#define SUBNET_SIZE 8U

struct address_pool {
        uint32_t base;  /* host byte order */
        uint32_t slots; /* how many /29 it has */
        uint32_t hint;  /* below it nothing is free */
        unsigned char *used;
        char text[SUBNET_MAX];
};

static bool parse_cidr(const char *cidr, uint32_t *base, unsigned *bits)
{
        const char *slash = strchr(cidr, '/');
        char address[INET_ADDRSTRLEN] = {0}, *end;
        struct in_addr in;

        if (!slash || slash == cidr || (size_t)(slash - cidr) >= sizeof(address))
                return false;
        memcpy(address, cidr, (size_t)(slash - cidr));
        unsigned long n = strtoul(slash + 1, &end, 10);
        if (inet_pton(AF_INET, address, &in) != 1 || end == slash + 1 || *end || n > 32)
                return false;
        *bits = (unsigned)n;
        *base = n ? ntohl(in.s_addr) & ~(uint32_t)((UINT64_C(1) << (32 - n)) - 1) : 0;
        return true;
}

static void format(char out[ADDRESS_MAX], uint32_t address)
{
        struct in_addr in = {.s_addr = htonl(address)};

        if (!inet_ntop(AF_INET, &in, out, ADDRESS_MAX))
                abort();
}

int address_pool_new(struct address_pool **ret, const char *cidr, struct err **err)
{
        unsigned bits = 0;
        uint32_t base = 0;

        if (!parse_cidr(cidr, &base, &bits) || bits < 8 || bits > 26)
                return err_set(err, ERR_INVALID, "network.pool \"%s\" is not an IPv4 network of 8 to 26 bits, such as 10.213.0.0/16", cidr);
        struct address_pool *p = NEW(struct address_pool);
        p->base = base;
        p->slots = UINT32_C(1) << (SUBNET_BITS - bits);
        p->used = mem_alloc(p->slots);
        snprintf(p->text, sizeof(p->text), "%s", cidr);
        *ret = p;
        return 0;
}

struct address_pool *address_pool_free(struct address_pool *p)
{
        if (p) {
                free(p->used);
                free(p);
        }
        return NULL;
}

void address_pool_reset(struct address_pool *p)
{
        memset(p->used, 0, p->slots);
        p->hint = 0;
}

static void use_range(struct address_pool *p, uint32_t base, unsigned bits)
{
        uint64_t first = base, last = base + ((UINT64_C(1) << (32 - bits)) - 1);
        uint64_t pool_first = p->base, pool_last = p->base + (uint64_t)p->slots * SUBNET_SIZE - 1;

        if (last < pool_first || first > pool_last)
                return;
        first = MAX(first, pool_first) - pool_first;
        last = MIN(last, pool_last) - pool_first;
        memset(p->used + first / SUBNET_SIZE, 1, last / SUBNET_SIZE - first / SUBNET_SIZE + 1);
}

void address_pool_use(struct address_pool *p, const char *cidr)
{
        unsigned bits = 0;
        uint32_t base = 0;

        if (cidr && parse_cidr(cidr, &base, &bits))
                use_range(p, base, bits);
}

int address_pool_add_routes(struct address_pool *p, const char *file, struct err **err)
{
        _cleanup_free_ char *text = NULL;
        char *save = NULL;

        if (file_read(&text, NULL, file, 4U << 20, FILE_ANY, err) < 0)
                return -1;
        for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
                char name[32];
                uint32_t destination, mask;

                /* Iface Destination Gateway Flags RefCnt Use Metric Mask …, addresses in network order as hexadecimal */
                if (sscanf(line, "%31s %" SCNx32 " %*x %*x %*d %*d %*d %" SCNx32, name, &destination, &mask) != 3)
                        continue;
                /* A default route says nothing about the pool; our own bridges are known from the Engine. */
                if (mask == 0 || str_has_prefix(name, "bh"))
                        continue;
                use_range(p, ntohl(destination), (unsigned)__builtin_popcount(mask));
        }
        return 0;
}

int address_pool_take(struct address_pool *p, char out[SUBNET_MAX], struct err **err)
{
        for (uint32_t i = p->hint; i < p->slots; i++) {
                if (p->used[i])
                        continue;
                p->used[i] = 1;
                p->hint = i + 1;
                format(out, p->base + i * SUBNET_SIZE);
                strcat(out, "/29");
                return 0;
        }
        return err_set(err, ERR_LIMIT, "no free /29 is left in network.pool %s: remove servers or enlarge the pool in bulkhead.conf",
                       p->text);
}

bool address_pool_owns(const struct address_pool *p, const char *cidr)
{
        unsigned bits = 0;
        uint32_t base = 0;

        return cidr && parse_cidr(cidr, &base, &bits) && bits == SUBNET_BITS && base >= p->base &&
               (base - p->base) / SUBNET_SIZE < p->slots;
}

static void nth(char out[ADDRESS_MAX], const char *subnet, uint32_t n)
{
        unsigned bits = 0;
        uint32_t base = 0;

        out[0] = '\0';
        if (parse_cidr(subnet, &base, &bits))
                format(out, base + n);
}

void address_of_gateway(char out[ADDRESS_MAX], const char *subnet)
{
        nth(out, subnet, 1);
}

void address_of_container(char out[ADDRESS_MAX], const char *subnet)
{
        nth(out, subnet, 2);
}
