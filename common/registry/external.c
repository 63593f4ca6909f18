/* Entries that declare no code but a place: `url`, an MCP server or gateway that somebody else runs. */
#include "common/registry/reader.h"

#include <arpa/inet.h>

#include "common/text.h"

#define SCHEME "http://"

/* What of an entry says something about a server that we do not start. `prefix` and the like are about how it is offered. */
static const char *const external_keys[] = {"description", "enabled", "url", "transport", "tools", "prefix", "sharing", "smoke_test"};

struct url {
        uint32_t address; /* host byte order */
        uint16_t port;
        const char *path; /* in the text */
};

/* Digits only, no sign, no leading zero: one way to write each. 0 = not a port. */
static uint16_t port_parse(const char *s, size_t n)
{
        unsigned port = 0;

        if (n == 0 || n > 5 || s[0] == '0')
                return 0;
        for (size_t i = 0; i < n; i++) {
                if (s[i] < '0' || s[i] > '9')
                        return 0;
                port = port * 10 + (unsigned)(s[i] - '0');
        }
        return port > 65535 ? 0 : (uint16_t)port;
}

/* RFC 1918 and the loopback network: what stays on this host or its own networks. */
static bool is_private(uint32_t a)
{
        return a >> 24 == 127 || a >> 24 == 10 || a >> 20 == (172U << 4 | 1) || a >> 16 == (192U << 8 | 168);
}

static int url_fail(const struct reader *r, const struct place *at, const char *s, const char *why, struct err **err)
{
        _cleanup_free_ char *shown = text_escape(s);

        return reader_fail(r, at, err, "\"%s\" %s", shown, why);
}

static int url_parse(const struct reader *r, const struct place *at, const char *s, struct url *ret, struct err **err)
{
        if (str_has_prefix(s, "https://"))
                return url_fail(
                        r, at, s,
                        "is https, which is not supported yet; have a TLS client on this host (stunnel, or a reverse proxy) listen on "
                        "127.0.0.1 and write its address",
                        err);
        if (!str_has_prefix(s, SCHEME))
                return url_fail(r, at, s,
                                "is not a URL of an external server; write http://ADDRESS:PORT/PATH, such as http://127.0.0.1:4483/mcp",
                                err);
        const char *host = s + strlen(SCHEME), *path = strchr(host, '/');
        if (!path)
                return url_fail(r, at, s, "has no path; write that of its MCP endpoint, such as /mcp", err);
        if (memchr(host, '@', (size_t)(path - host)))
                return url_fail(r, at, s, "holds a user or a password, which does not belong in this file; remove it", err);
        const char *colon = memchr(host, ':', (size_t)(path - host)), *end = colon ? colon : path;
        if (!ipv4_parse(&ret->address, host, (size_t)(end - host)))
                return url_fail(r, at, s, "has no IPv4 address in numbers; names are not supported yet, write 127.0.0.1 for this host",
                                err);
        ret->port = colon ? port_parse(colon + 1, (size_t)(path - colon - 1)) : 80;
        if (!ret->port)
                return url_fail(r, at, s, "has no port from 1 to 65535 after its colon", err);
        if (!url_path_valid(path))
                return url_fail(r, at, s, "has a path that is not plain; use letters, digits and . _ ~ - /, no query and no fragment", err);
        ret->path = path;
        return 0;
}

/* Is it our own door? Calls would go round in circles, and past what decides about them. */
static bool is_listener(const struct conf_listen *l, const struct url *u)
{
        struct in_addr a;

        if (!l->address || l->port != u->port || inet_pton(AF_INET, l->address, &a) != 1)
                return false;
        return a.s_addr == htonl(INADDR_ANY) ? u->address >> 24 == 127 : ntohl(a.s_addr) == u->address;
}

static int check_reach(const struct reader *r, const struct place *at, const char *s, const struct url *u, struct err **err)
{
        const struct conf *conf = r->conf;
        uint32_t net = 0;
        unsigned prefix = 0;
        bool ours = is_listener(&conf->gateway_listen, u);

        if (!is_private(u->address))
                return url_fail(
                        r, at, s,
                        "is plain http to an address that is not this host's nor private (10/8, 172.16/12, 192.168/16): whoever is on "
                        "the way could read and change all of it; reach it through a tunnel",
                        err);
        for (size_t i = 0; i < conf->broker_listen.n; i++)
                ours |= is_listener(&conf->broker_listen.items[i], u);
        if (ours)
                return url_fail(r, at, s, "is where this host's own gateway listens; write another server's address", err);
        if (conf->pool && ipv4_network_parse(&net, &prefix, conf->pool) && prefix && (u->address ^ net) >> (32 - prefix) == 0)
                return url_fail(r, at, s, "lies in network.pool, where containers of our own are; declare their images instead", err);
        return 0;
}

static bool is_external_key(const char *key)
{
        for (size_t i = 0; i < ELEMENTSOF(external_keys); i++)
                if (str_eq(external_keys[i], key))
                        return true;
        return false;
}

static int check_keys(const struct reader *r, const struct place *at, json_object *o, struct err **err)
{
        json_object_object_foreach (o, key, value) {
                (void)value;
                if (is_external_key(key))
                        continue;
                if (str_eq(key, "headers") || str_eq(key, "secrets"))
                        return reader_fail(r, PLACE_KEY(at, key), err,
                                           "is not supported for an external server yet; remove it, and use one that needs no credential");
                return reader_fail(r, PLACE_KEY(at, key), err,
                                   "goes with servers that run here; this one is external (\"url\"), remove it");
        }
        return 0;
}

int external_read(const struct reader *r, const struct place *at, struct registry_entry *e, json_object *o, struct err **err)
{
        const struct place *here = PLACE_KEY(at, "url");
        const char *s = json_str(o, "url");
        struct url u = {0};
        char text[INET_ADDRSTRLEN];

        if (check_keys(r, at, o, err) < 0 || url_parse(r, here, s, &u, err) < 0 || check_reach(r, here, s, &u, err) < 0)
                return -1;
        if (e->prefix && !e->prefix[0])
                return reader_fail(
                        r, PLACE_KEY(at, "prefix"), err,
                        "is empty: an external server could take the names of other servers' tools; write one, or remove the key");
        const struct in_addr a = {.s_addr = htonl(u.address)};
        e->address = mem_strdup(inet_ntop(AF_INET, &a, text, sizeof(text)));
        e->port = u.port;
        mem_replace(&e->path, mem_strdup(u.path));
        e->url = mem_printf(SCHEME "%s:%u%s", e->address, (unsigned)e->port, e->path);
        return 0;
}
